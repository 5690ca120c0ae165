"""Whatever a step does, the others run, and all results are kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.images import REPOSITORY
from benchmarks.types import Table
from scripts.gpu_check import archive, runner
from scripts.gpu_check.archive import count_records, read_records, save_record, write_archive
from scripts.gpu_check.parts import PARTS
from scripts.gpu_check.step import Outcome
from tests.gpu_check.made_up_part import CHILD
from tests.gpu_check.run_made_up_part import run

_PATIENCE_S = 120.0


def _report(path: Path, part: str = "machine") -> dict[str, Any]:
    with tarfile.open(path) as packed:
        file = packed.extractfile(f"{part}/report.json")
        assert file is not None
        document: dict[str, Any] = json.loads(file.read())
    return document


def _wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "nothing came of it"
        time.sleep(0.05)


def _is_alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_steps_that_go_wrong_are_named_and_the_others_run(tmp_path: Path) -> None:
    assert run(tmp_path, minutes=5.0) == 1
    report = _report(tmp_path / "machine.tar.gz")
    assert [line.split()[0] for line in report["files_left_out"]] == ["large.bin"]
    steps = {step["step"]: step for step in report["steps"]}
    assert {name: step["outcome"] for name, step in steps.items()} == {
        "good": "passed",
        "raises": "failed",
        "hangs": "failed",
        "dies": "failed",
        "not_there": "left out",
        "needs_much": "left out",
        "good_again": "passed",
    }
    assert steps["raises"]["text"] == "ValueError: this is broken"
    trace = steps["raises"]["data"]["traceback"]
    assert trace[0].startswith("Traceback")
    assert "ValueError: this is broken" in trace
    assert trace[-1].startswith("in _raises, line ")
    assert "image torch.float16 (2, 3) cpu" in trace[-1]
    with tarfile.open(tmp_path / "machine.tar.gz") as packed:
        names = packed.getnames()
        markdown, stacks = (packed.extractfile(f"machine/{name}") for name in ("report.md", "stacks.log"))
        assert markdown is not None
        assert stacks is not None
        assert "\n".join(trace) in markdown.read().decode()
        said = stacks.read().decode()
    assert names.count("machine/stacks.log") == 1
    # Where it hung and where it crashed.
    assert "in _hangs" in said
    assert "Segmentation fault" in said
    assert "in _dies" in said
    assert steps["hangs"]["text"].startswith("killed after ")
    assert steps["dies"]["text"] == f"its process died, status {-signal.SIGSEGV}"
    assert steps["not_there"]["text"] == "no card in cpu"
    assert steps["needs_much"]["text"].startswith("needs 1e+06 s")
    # The hanging step's own process went with it, and another one did the rest.
    assert not _is_alive(int((tmp_path / CHILD).read_text()))
    assert steps["good"]["data"]["process"] != steps["good_again"]["data"]["process"]
    summary = (tmp_path / "summary.md").read_text()
    assert all(f"- machine/{name}: {step['outcome']}. " in summary for name, step in steps.items())


@pytest.mark.slow
def test_what_was_found_is_there_when_everything_is_killed(tmp_path: Path) -> None:
    (tmp_path / "only").write_text("good waits")
    command = [sys.executable, "-m", "tests.gpu_check.run_made_up_part", str(tmp_path), "5"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    try:
        _wait_for(lambda: (tmp_path / CHILD).is_file() and (tmp_path / CHILD).read_text() != "")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((tmp_path / CHILD).read_text()), signal.SIGKILL)
    (step,) = _report(tmp_path / "machine.tar.gz")["steps"]
    assert (step["step"], step["outcome"], step["text"]) == ("good", "passed", "all is well")


def test_without_time_every_step_is_named_as_left_out(tmp_path: Path) -> None:
    # Nothing is started: no time is left when the part begins.
    assert run(tmp_path, minutes=0.0) == 0
    steps = _report(tmp_path / "machine.tar.gz")["steps"]
    assert len(steps) == 7
    assert {(step["outcome"], step["text"]) for step in steps} == {("left out", "no time was left")}


def test_minutes_that_passed_before_the_start_count(tmp_path: Path) -> None:
    arguments = ["machine", "--device", "cpu", "--minutes", "5", "--output", str(tmp_path)]
    assert runner.main([*arguments, "--begun", f"{time.monotonic() - 400}"]) == 0
    assert "card: left out. no time was left" in (tmp_path / "summary.md").read_text()


def test_an_unknown_part_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        runner.main(["right", "quick", "--output", str(tmp_path)])
    assert re.search(f"quick.* {', '.join(PARTS)}", capsys.readouterr().err)


def test_records_become_a_report_and_what_is_too_large_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_MAX_FILE_BYTES", 1000)
    folder = tmp_path / "records"
    folder.mkdir()
    files = {name: tmp_path / name for name in ("a.txt", "large.bin", "b.txt", "absent.txt")}
    for name, size in (("a.txt", 700), ("large.bin", 2000), ("b.txt", 400)):
        files[name].write_bytes(b"x" * size)
    table = Table("Figures", ("what", "ms"), (("one", "1.00"),), "A note.")
    save_record(folder, 0, "first", "passed", 1.5, Outcome(True, "fine", [table], {"x": 1}, [files["a.txt"]]))
    save_record(folder, 1, "second", "failed", 0.1, Outcome(False, "not fine", files=list(files.values())[1:]))
    assert count_records(folder) == 2
    assert [record["step"] for record in read_records(folder)] == ["first", "second"]
    target = tmp_path / "part.tar.gz"
    write_archive(target, "part", "A part", folder)
    with tarfile.open(target) as packed:
        names = packed.getnames()
        markdown_file = packed.extractfile("part/report.md")
        assert markdown_file is not None
        markdown = markdown_file.read().decode()
    assert names == ["part/report.json", "part/report.md", "part/a.txt"]
    left_out = [
        "large.bin (2000 bytes; the archive has room for 300)",
        "b.txt (400 bytes; the archive has room for 300)",
        "absent.txt (not there)",
    ]
    assert _report(target, "part")["files_left_out"] == left_out
    assert all(f"- left out: {line}" in markdown for line in left_out)
    assert "- **second**: failed (0.1 s). not fine" in markdown
    assert "| one  | 1.00 |" in markdown
    assert not list(tmp_path.glob(".*partial"))
