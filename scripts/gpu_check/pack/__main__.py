"""`make gpu-pack`: creates the folder, reports its contents and what does not fit, and the command to run there."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.images import REPOSITORY
from benchmarks.source import CARRIED
from scripts.gpu_check.pack.archives import cached, file_key
from scripts.gpu_check.pack.contents import CONTENTS
from scripts.gpu_check.pack.ros_prefix import find_python, make_ros_prefix, message_inputs
from scripts.gpu_check.pack.source import source_state, travelling_files
from scripts.gpu_check.pack.wheels import WheelSet, fetch, unmet_requirements, unpack, wheel_sets
from scripts.gpu_check.parts import PARTS

__all__ = ["Row", "default_shared", "main", "pack", "print_rows"]

_LIMIT_BYTES = 64 << 20
# For changes of the working tree between packing and transfer.
_RESERVE_BYTES = 1 << 20
_ROS_PARTS = {"right", "node"}
_COMMAND = 'python3 -m scripts.gpu_check.run --minutes 8 --output "${OUT:-gpu_check_output}"'


@dataclass(frozen=True)
class Row:
    """A line of the report: content, bytes, note."""

    what: str
    size: int
    note: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Packs; returns 1 if requested content is not available or does not fit."""
    arguments = _parser().parse_args(argv)
    try:
        rows, left_out = pack(
            arguments.output, arguments.cache, arguments.shared, arguments.python, arguments.parts or list(PARTS)
        )
    except subprocess.CalledProcessError as error:
        print(f"gpu-pack: pip cannot fetch the wheels:\n{error.stderr}", file=sys.stderr)
        return 1
    total = print_rows(rows, left_out)
    parts = "".join(f" {part}" for part in arguments.parts)
    print(f"gpu-pack: carry {arguments.output} with the working tree, and there run:\n{_COMMAND}{parts}")
    return 1 if total > _LIMIT_BYTES else 0


def print_rows(rows: Sequence[Row], left_out: Sequence[str]) -> int:
    """Reports what is packed and what is left out; returns the total bytes."""
    for row in rows:
        print(f"gpu-pack: {row.size / 2**20:6.1f} MiB  {row.what}{f' ({row.note})' if row.note else ''}")
    total = sum(row.size for row in rows)
    print(f"gpu-pack: {total / 2**20:6.1f} MiB  of the {_LIMIT_BYTES >> 20} MiB that can be carried")
    for line in left_out:
        print(f"gpu-pack: left out: {line}")
    return total


def pack(output: Path, cache: Path, shared: Path, python: str, parts: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Packs what `parts` require on a machine with that Python into `output`.

    Returns:
        What was packed, and one line for each thing left out.

    Raises:
        subprocess.CalledProcessError: A wheel cannot be downloaded.
    """
    tree = sum((REPOSITORY / path).lstat().st_size for path in travelling_files())
    rows = [Row("the working tree", tree)]
    left_out: list[str] = []
    archives: list[Path] = []
    room = _LIMIT_BYTES - _RESERVE_BYTES - tree

    def add(archive: Path, what: str, note: str = "") -> None:
        nonlocal room
        size = archive.stat().st_size
        if size > room:
            left_out.append(
                f"{what}: {size / 2**20:.1f} MiB, for which there is no room; PARTS=... packs for some parts only"
            )
            return
        room -= size
        archives.append(archive)
        rows.append(Row(what, size, note))

    python_set, ros_set = wheel_sets()
    add(
        _python_archive(python_set, python, cache),
        f"{len(python_set.requirements)} Python packages for Python {python}",
    )
    if _ROS_PARTS.intersection(parts):
        try:
            archive, note = _ros_archive(ros_set, python, cache)
            add(archive, f"ROS 2 and the messages for Python {python}", note)
        except (FileNotFoundError, subprocess.SubprocessError) as error:
            left_out.append(f"ROS 2, so that the node cannot run there: {error}")
    for content in CONTENTS:
        if content.parts and not content.parts.intersection(parts):
            continue
        files = content.files(shared)
        if not files:
            left_out.append(f"{content.what}: no {content.pattern} in {shared}")
            continue
        key = file_key([*files, REPOSITORY / "scripts" / "gpu_check" / "pack" / "contents.py"])
        add(cached(cache, f"shared-{content.name}", key, partial(content.fill, shared)), content.what)
    _write(output, archives, {"python": python, "parts": list(parts), "left_out": left_out})
    rows.append(Row("what is packed, and the state of git", _own_size(output)))
    return rows, left_out


def default_shared() -> Path:
    """The folder with weights, sequences and reference outputs."""
    return Path(os.environ.get("FEATURE_FRONTEND_SHARED", REPOSITORY.parent / "shared"))


def _python_archive(wheel_set: WheelSet, python: str, cache: Path) -> Path:
    wheels = fetch(wheel_set.requirements, python, cache / f"wheels-{python}")
    if unmet := unmet_requirements(wheels, python):
        msg = f"packages that are neither carried nor there: {'; '.join(unmet)}"
        raise ValueError(msg)

    def fill(folder: Path) -> None:
        for wheel in wheels:
            unpack(wheel, folder, python, only_to_run=False)

    return cached(cache, f"python-{python}", file_key(wheels), fill)


def _ros_archive(wheel_set: WheelSet, python: str, cache: Path) -> tuple[Path, str]:
    """The archive and a note for the report."""
    inputs = message_inputs()
    wheels = fetch(wheel_set.requirements, python, cache / f"wheels-{python}")
    found = find_python(python)
    code = [
        REPOSITORY / "scripts" / "gpu_check" / name for name in ("messages.py", "pack/ros_prefix.py", "pack/wheels.py")
    ]
    key = [str(found), *file_key([*inputs, *wheels, *code])]
    archive = cached(cache, f"ros-{python}", key, lambda folder: make_ros_prefix(folder, wheels, python))
    return archive, "" if found else f"the messages are compiled there: there is no Python {python} with headers here"


def _write(output: Path, archives: Sequence[Path], document: dict[str, object]) -> None:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for archive in archives:
        # Without the key that the cache appends to the name.
        target = output / f"{archive.name.removesuffix('.tar.xz').rpartition('-')[0]}.tar.xz"
        try:
            os.link(archive, target)
        except OSError:
            shutil.copyfile(archive, target)
    (output / "pack.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (output / CARRIED.name).write_text(source_state(), encoding="utf-8")


def _own_size(output: Path) -> int:
    return sum(path.stat().st_size for path in output.glob("*.json"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-pack", description="Pack what a bare GPU machine lacks.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"pack for these alone, of {', '.join(PARTS)}")
    parser.add_argument("--python", default="3.12", metavar="X.Y", help="of that machine (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / ".gpu", metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--cache", type=Path, default=REPOSITORY / ".gpu-cache", metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--shared",
        type=Path,
        default=default_shared(),
        metavar="DIR",
        help="weights, sequences, reference outputs (default here: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
