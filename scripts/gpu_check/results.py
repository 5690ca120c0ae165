"""Publishes the archives of a check on a GPU to benchmarks/results/gpu/DATE-CARD/."""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.images import REPOSITORY
from benchmarks.machine import machine_slug
from scripts.gpu_check.parts import PARTS

__all__ = ["main", "publish"]

_RESULTS = REPOSITORY / "benchmarks" / "results" / "gpu"
# File types committed to the repository; traces, logs and checkpoints stay in the archives.
_PUBLISHED = (".png",)


def main(argv: Sequence[str] | None = None) -> int:
    """Publishes the results; returns 1 with a one-line reason on failure."""
    parser = argparse.ArgumentParser(prog="gpu-results", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the archives are that came back")
    parser.add_argument("--to", type=Path, default=_RESULTS, metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        print(publish(arguments.folder, arguments.to))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def publish(folder: Path, results: Path) -> Path:
    """Writes report.md, report.json and the pictures of all archives in `folder`; returns the new folder.

    Raises:
        ValueError: There are no archives, or they are from a rehearsal, which is not a result.
    """
    reports: dict[str, dict[str, Any]] = {}
    texts: list[str] = []
    pictures: dict[str, bytes] = {}
    for part in PARTS:
        path = folder / f"{part}.tar.gz"
        if not path.is_file():
            texts.append(f"## {part}\n\nnot run\n")
            continue
        with tarfile.open(path) as archive:
            contents = {
                Path(entry.name).name: file.read()
                for entry in archive
                if (file := archive.extractfile(entry)) is not None
            }
        reports[part] = json.loads(contents["report.json"])
        texts.append(contents["report.md"].decode())
        pictures |= {name: data for name, data in contents.items() if name.endswith(_PUBLISHED)}
    card = next((step for step in reports.get("machine", {}).get("steps", ()) if step["step"] == "card"), None)
    if card is None:
        msg = f"{folder} holds no machine.tar.gz of a check; expected what `make gpu-check` left"
        raise ValueError(msg)
    machine = card["data"]["machine"]
    if machine["gpu"] is None:
        msg = f"{folder} holds a rehearsal on {machine['cpu']}; only what ran on a card is a result"
        raise ValueError(msg)
    target = _new_folder(results / f"{card['data']['date']}-{machine_slug(machine)}")
    links = [f"![{name}]({name})\n" for name in sorted(pictures)]
    (target / "report.md").write_text("\n".join([f"# {machine['gpu']}\n", *links, *texts]), encoding="utf-8")
    (target / "report.json").write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
    for name, data in pictures.items():
        (target / name).write_bytes(data)
    return target


def _new_folder(path: Path) -> Path:
    """Creates `path`, with a number appended if there was already a check on that day."""
    number = 1
    while (candidate := path if number == 1 else path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    candidate.mkdir(parents=True)
    return candidate


if __name__ == "__main__":
    raise SystemExit(main())
