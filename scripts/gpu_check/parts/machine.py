"""Part `machine`: the GPU, driver, libraries and commit to which the other parts' figures apply."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import torch

from benchmarks.machine import describe_machine, describe_versions
from benchmarks.types import Table
from scripts.gpu_check.shared_memory import shared_memory_bytes
from scripts.gpu_check.step import Context, Outcome, Step

__all__ = ["TITLE", "steps"]

TITLE = "What is there"
_QUERY = (
    "name,driver_version,memory.total,memory.used,pstate,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,"
    "power.limit,temperature.gpu,compute_cap,mig.mode.current"
)
_ASKED_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "opencv-python-headless",
    "kornia",
    "kornia_rs",
    "rosbags",
    "safetensors",
    "ros-rclpy",
    "pytest",
    "hypothesis",
    "nvidia-cudnn-cu13",
)


def steps(context: Context) -> Sequence[Step]:
    """The steps: the GPU and the software."""
    return (Step("card", _card), Step("software", _software))


def _card(context: Context) -> Outcome:
    machine = describe_machine(context.device)
    # Below 64 MiB per process, FastDDS warns and falls back to the network, which loses large images.
    machine["shared_memory_mib"] = shared_memory_bytes() >> 20
    data: dict[str, Any] = {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "machine": machine}
    if context.is_rehearsal:
        return Outcome(
            passed=True, text="no card: a rehearsal on the CPU", data=data, tables=[_table("Machine", machine)]
        )
    properties = torch.cuda.get_device_properties(0)
    card = {
        "name": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "memory GiB": round(properties.total_memory / 2**30, 3),
        "multiprocessors": properties.multi_processor_count,
        "free GiB": round(torch.cuda.mem_get_info()[0] / 2**30, 1),
        "all memory by the driver GiB": round(torch.cuda.mem_get_info()[1] / 2**30, 3),
        **_nvidia_smi(),
    }
    # A first test of the device: a product with a known result.
    side = 256
    ones = torch.ones((side, side), device="cuda")
    is_right = bool(((ones @ ones) == side).all())
    data["card"] = card
    text = f"{properties.name}, driver {card.get('driver_version', 'unknown')}" + (
        "" if is_right else "; computes wrongly"
    )
    return Outcome(passed=is_right, text=text, data=data, tables=[_table("Card", card), _table("Machine", machine)])


def _software(context: Context) -> Outcome:
    versions = describe_versions()
    for name in _ASKED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    versions["cuDNN may use TF32"] = torch.backends.cudnn.allow_tf32
    versions["products may use TF32"] = torch.backends.cuda.matmul.allow_tf32
    build = context.scratch / "torch_build.txt"
    build.write_text(torch.__config__.show() + "\n\n" + _packages(), encoding="utf-8")
    text = f"torch {versions['torch']}, commit {str(versions['feature_frontend'])[:12]}"
    return Outcome(passed=True, text=text, data=versions, tables=[_table("Software", versions)], files=[build])


def _nvidia_smi() -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"does not answer: {error}"}
    values = result.stdout.splitlines()[0].split(", ")
    return dict(zip(_QUERY.split(","), values, strict=False))


def _packages() -> str:
    found = {f"{each.metadata['Name']}=={each.version}" for each in importlib.metadata.distributions()}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def _table(title: str, values: dict[str, Any]) -> Table:
    rows = tuple((name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items())
    return Table(title, ("what", "value"), rows)
