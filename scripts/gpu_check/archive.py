"""A part's archive: all results so far in one file, replaced atomically after each step."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.tables import render
from benchmarks.types import Table
from scripts.gpu_check.step import Outcome

__all__ = ["count_records", "read_records", "save_record", "write_archive"]

_MAX_FILE_BYTES = 15 << 20  # the GPU machine returns files of at most 16 MiB


def save_record(folder: Path, index: int, name: str, outcome: str, seconds: float, result: Outcome) -> None:
    """Saves the outcome of step `index` in `folder` for `write_archive`: "passed", "failed" or "left out"."""
    document = {
        "step": name,
        "outcome": outcome,
        "seconds": round(seconds, 3),
        "text": result.text,
        "tables": [asdict(table) for table in result.tables],
        "data": result.data,
        "files": [str(path) for path in result.files],
    }
    _replace(folder / f"{index:02d}.json", (json.dumps(document, indent=1) + "\n").encode())


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records saved by `save_record`, in the order of the steps."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in _record_files(folder)]


def count_records(folder: Path) -> int:
    """The number of completed steps, which is the index of the current one."""
    return len(_record_files(folder))


def write_archive(path: Path, part: str, title: str, folder: Path) -> None:
    """Packs the records of `folder` as report.json and report.md, with the files they name, into `path`.

    `path`, a .tar.gz, is replaced atomically: after a kill, the old or the new file is there. Files that would exceed
    the size limit are only named in the report.
    """
    records = read_records(folder)
    attached, left_out = _attachments(records)
    document = {"part": part, "title": title, "files_left_out": left_out, "steps": records}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        _add(archive, f"{part}/report.json", (json.dumps(document, indent=1) + "\n").encode())
        _add(archive, f"{part}/report.md", _markdown(title, records, left_out).encode())
        for file in attached:
            _add(archive, f"{part}/{file.name}", file.read_bytes())
    _replace(path, content.getvalue())


def _record_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9][0-9].json"))


def _attachments(records: Sequence[dict[str, Any]]) -> tuple[list[Path], list[str]]:
    """Files to include, and one line for each that is left out."""
    attached: list[Path] = []
    left_out: list[str] = []
    room = _MAX_FILE_BYTES
    # Several steps may name the same log.
    for file in dict.fromkeys(Path(name) for record in records for name in record["files"]):
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            left_out.append(f"{file.name} (not there)")
        elif size > room:
            left_out.append(f"{file.name} ({size} bytes; the archive has room for {room})")
        else:
            attached.append(file)
            room -= size
    return attached, left_out


def _markdown(title: str, records: Sequence[dict[str, Any]], left_out: Sequence[str]) -> str:
    lines = [f"## {title}", ""]
    lines += [
        f"- **{record['step']}**: {record['outcome']} ({record['seconds']:.1f} s). {record['text']}"
        for record in records
    ]
    lines += [f"- left out: {line}" for line in left_out]
    for record in records:
        for table in record["tables"]:
            rows = tuple(tuple(row) for row in table["rows"])
            lines += ["", render(Table(table["title"], tuple(table["columns"]), rows, table["note"]))]
        if trace := record["data"].get("traceback"):
            lines += ["", f"How {record['step']} failed:", "", "```", *trace, "```"]
    return "\n".join(lines) + "\n"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
