"""Which results of a check are published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.types import Table
from scripts.gpu_check.archive import save_record, write_archive
from scripts.gpu_check.results import main, publish
from scripts.gpu_check.step import Outcome

_TABLE = Table("Frames", ("engine", "ms"), (("ours", "1.0"),))


def _archive(folder: Path, part: str, step: str, result: Outcome) -> None:
    records = folder / f"{part}-records"
    records.mkdir()
    save_record(records, 0, step, "passed", 1.0, result)
    write_archive(folder / f"{part}.tar.gz", part, part.title(), records)


def _check_on(folder: Path, gpu: str | None) -> None:
    machine = {"gpu": gpu, "cpu": "a processor", "cores_usable": 2}
    _archive(
        folder, "machine", "card", Outcome(passed=True, text="a card", data={"date": "2026-11-29", "machine": machine})
    )
    picture, trace = folder / "times.png", folder / "trace.json.gz"
    picture.write_bytes(b"picture")
    trace.write_bytes(b"trace")
    _archive(folder, "fast", "headline", Outcome(passed=True, text="1 ms", tables=[_TABLE], files=[picture, trace]))


def test_a_check_on_a_card_is_published(tmp_path: Path) -> None:
    _check_on(tmp_path, "NVIDIA H200")
    target = publish(tmp_path, tmp_path / "results")
    assert target == tmp_path / "results" / "2026-11-29-nvidia-h200"
    text = (target / "report.md").read_text()
    assert "| ours   | 1.0 |" in text
    assert "## node\n\nnot run" in text
    assert json.loads((target / "report.json").read_text())["fast"]["steps"][0]["text"] == "1 ms"
    assert sorted(path.name for path in target.iterdir()) == ["report.json", "report.md", "times.png"]


def test_a_second_check_of_a_day_replaces_none(tmp_path: Path) -> None:
    _check_on(tmp_path, "NVIDIA H200")
    first, second = (publish(tmp_path, tmp_path / "results") for _ in range(2))
    assert second.name == f"{first.name}-2"


def test_a_rehearsal_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _check_on(tmp_path, None)
    assert main([str(tmp_path), "--to", str(tmp_path / "results")]) == 1
    assert "a rehearsal on a processor" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_folder_without_archives_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no machine.tar.gz" in capsys.readouterr().err
