"""A rehearsal of the complete check on a GPU machine: from the checkout, then from what is packed; and killed."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.gpu_check.carried import prepare
from scripts.gpu_check.messages import messages_work
from scripts.gpu_check.pack import __main__ as packing
from scripts.gpu_check.pack.ros_prefix import message_inputs
from scripts.gpu_check.pack.wheels import fetch, wheel_sets
from scripts.gpu_check.parts import PARTS
from scripts.gpu_check.run import misfits
from tests.campaign import Campaign
from tests.conftest import REPOSITORY, shared_folder

_MINUTES = 1.0
# From the checkout: long enough that each part begins.
_SHORT_MINUTES = 0.5
# Beyond the minutes, on a machine that other tests keep busy: to start, and to kill what hangs.
_MARGIN_S = 30.0
_CACHE = REPOSITORY / ".gpu-cache"
_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def wheels(no_package_index: dict[str, str], monkeypatch: pytest.MonkeyPatch, campaign: Campaign) -> Iterator[None]:
    """All wheels in the cache, which no other test uses meanwhile; skips where they cannot be fetched or built with."""
    campaign.only("fetches all wheels and packs")
    for name in ("PIP_NO_INDEX", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name)
    for name, value in no_package_index.items():
        if name.startswith("PIP_"):
            monkeypatch.setenv(name, value)
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            message_inputs()
            for python in {"3.12", _OWN}:
                for each in wheel_sets():
                    fetch(each.requirements, python, _CACHE / f"wheels-{python}")
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or str(error)).strip().splitlines()[-1]
            pytest.skip(f"needs PyPI for the wheels of another Python: {reason}")
        except FileNotFoundError as error:
            pytest.skip(f"needs ROS 2 from wheels: {error}")
        yield


def _parts() -> list[str]:
    return [name for name, module in PARTS.items() if importlib.util.find_spec(module) is not None]


def _report(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(f"{archive.name.partition('.')[0]}/report.json")
        assert file is not None
        report: dict[str, Any] = json.loads(file.read())
    return report


@pytest.mark.slow
def test_the_rehearsal_runs_every_part_in_time(
    wheels: None, tmp_path: Path, report_figure: Callable[[str], None]
) -> None:
    output = tmp_path / "output"
    command = [sys.executable, "-m", "scripts.gpu_check.rehearsal", *_parts(), "--minutes", f"{_MINUTES}"]
    command += ["--output", str(output), "--shared", str(shared_folder())]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    begun_s = ready_s = time.monotonic()
    for line in process.stdout:
        lines.append(line)
        if "ready to rehearse" in line:
            ready_s = time.monotonic()
    process.wait()
    took_s = time.monotonic() - ready_s
    text = "".join(lines)
    report_figure(f"rehearsal: {ready_s - begun_s:.0f} s to pack and set up, {took_s:.0f} s for {_MINUTES:g} minutes")

    assert ready_s > begun_s, text
    assert took_s < 60 * _MINUTES + _MARGIN_S, text
    assert "do NOT import" not in text
    _assert_every_part_reported(output, text)
    assert [step["outcome"] for step in _report(output / "machine.tar.gz")["steps"]] == ["passed", "passed"]


@pytest.mark.slow
def test_every_part_runs_from_the_checkout(tmp_path: Path) -> None:
    output = tmp_path / "output"
    command = [sys.executable, "-m", "scripts.gpu_check.runner", *_parts(), "--device", "cpu"]
    command += ["--minutes", f"{_SHORT_MINUTES}", "--output", str(output)]
    ended = subprocess.run(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    _assert_every_part_reported(output, ended.stdout)


def _assert_every_part_reported(output: Path, text: str) -> None:
    assert misfits(output) == []
    assert {path.name for path in output.glob("*.tar.gz")} == {f"{part}.tar.gz" for part in _parts()}, text
    for part in _parts():
        steps = _report(output / f"{part}.tar.gz")["steps"]
        assert steps
        assert {step["outcome"] for step in steps} <= {"passed", "failed", "left out"}
        # What the machine with the card lacks and nobody packed.
        assert not [
            step["text"] for step in steps if "ModuleNotFoundError" in step["text"] or "ImportError" in step["text"]
        ]


@pytest.mark.slow
def test_what_does_not_fit_is_left_out_and_named(
    wheels: None, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, left_out = packing.pack(tmp_path / "all", _CACHE, shared, "3.12", list(PARTS))
    total = sum(row.size for row in rows)
    assert total <= 64 << 20
    assert all("no room" not in line for line in left_out if "LightGlue" not in line)
    carried = sum(path.stat().st_size for path in (tmp_path / "all").iterdir())
    assert total == rows[0].size + carried

    limit = rows[0].size + (20 << 20)
    monkeypatch.setattr(packing, "_LIMIT_BYTES", limit)
    rows, left_out = packing.pack(tmp_path / "some", _CACHE, shared, "3.12", list(PARTS))
    assert sum(row.size for row in rows) <= limit
    assert [line for line in left_out if "no room" in line]
    document = json.loads((tmp_path / "some" / "pack.json").read_text())
    assert document["left_out"] == left_out


@pytest.mark.slow
def test_messages_are_compiled_where_nobody_could_before(
    wheels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.gpu_check.pack.ros_prefix.find_python", lambda version: None)
    monkeypatch.setattr(packing, "find_python", lambda version: None)
    # A cache of its own, with the same wheels: the archives here are not to be kept.
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"wheels-{_OWN}").symlink_to(_CACHE / f"wheels-{_OWN}")
    rows, _ = packing.pack(tmp_path / "carried", tmp_path / "cache", tmp_path, _OWN, ["node"])
    assert any("compiled there" in row.note for row in rows)
    for name in ("PYTHONPATH", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    environment, problems = prepare(tmp_path / "carried", tmp_path / "there")
    assert problems == []
    assert messages_work(environment) == ""

    # Without a compiler: said, and no more than that.
    monkeypatch.setenv("CC", "/no/such/compiler")
    _, problems = prepare(tmp_path / "carried", tmp_path / "elsewhere")
    assert len(problems) == 2
    assert "cannot be compiled" in problems[0]
    assert "the node cannot run" in problems[1]


@pytest.mark.slow
def test_killed_in_the_middle_what_was_done_is_there(tmp_path: Path) -> None:
    output = tmp_path / "output"
    command = [sys.executable, "-m", "scripts.gpu_check.runner", *_parts(), "--device", "cpu", "--minutes", "5"]
    process = subprocess.Popen([*command, "--output", str(output)], cwd=REPOSITORY, start_new_session=True)
    archive = output / "machine.tar.gz"
    try:
        while not archive.is_file():
            assert process.poll() is None, "the runner ended without an archive"
            time.sleep(0.01)
    finally:
        children = _children(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.wait()
    steps = _report(archive)["steps"]
    assert steps[0]["step"] == "card"
    assert steps[0]["outcome"] == "passed"
    assert misfits(output) == []


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]
