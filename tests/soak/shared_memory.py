"""FastDDS's files in /dev/shm: their owners, and the effect of `fastdds shm clean` on orphaned ones."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["clean", "ports_of", "segments_of"]

_FOLDER = Path("/dev/shm")
_LOCK = "_el"
_LOCK_OF_SEGMENT = re.compile(r"/dev/shm/(fastrtps_[0-9a-z]{16})_el")


def segments_of(pid: int) -> set[Path]:
    """The segments that a process has made: it holds their locks."""
    segments = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if found := _LOCK_OF_SEGMENT.fullmatch(str(path.readlink())):
                segments.add(_FOLDER / found[1])
    return segments


def ports_of(domain_id: int) -> set[Path]:
    """The ports of a domain that are there, by the rule of DDS for their numbers."""
    first = 7400 + 250 * domain_id
    numbers = ((path, re.fullmatch(r"fastrtps_port(\d+)", path.name)) for path in _FOLDER.iterdir())
    return {path for path, number in numbers if number and first <= int(number[1]) < first + 250}


def clean(files: Iterable[Path]) -> list[Path]:
    """Removes those of these segments and ports that are there and that no process has locked; which those were."""
    removed = []
    for file in files:
        locks = [file.with_name(f"{file.name}{ending}") for ending in (_LOCK, "_sl")]
        locks = [lock for lock in locks if lock.exists()]
        if not file.exists() and not locks:
            continue
        if any(map(_is_locked, locks)):
            continue
        for path in (file, *locks, file.with_name(f"sem.{file.name}_mutex")):
            path.unlink(missing_ok=True)
        removed.append(file)
    return removed


def _is_locked(path: Path) -> bool:
    try:
        with path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
