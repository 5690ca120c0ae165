"""Reproducible compressed archives: same content, same bytes; rebuilt only if the content changes."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["cached", "file_key", "write_archive"]

# The libraries of the ROS packages are similar: a dictionary that covers all of them compresses better than a higher
# preset, which takes minutes instead of seconds.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 64 << 20}]


def write_archive(folder: Path, archive: Path) -> None:
    """Packs the content of `folder` into `archive`, a .tar.xz; equal files are stored once, as hard links."""
    stored: dict[str, str] = {}
    with lzma.open(archive, "wb", filters=_FILTERS) as compressed, tarfile.open(fileobj=compressed, mode="w") as tar:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            name = path.relative_to(folder).as_posix()
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            first = stored.setdefault(hashlib.sha256(content).hexdigest(), name)
            if content and first != name:
                entry.type, entry.linkname = tarfile.LNKTYPE, first
                tar.addfile(entry)
            else:
                entry.size = len(content)
                with path.open("rb") as file:
                    tar.addfile(entry, file)


def cached(cache: Path, name: str, key: Iterable[str], make: Callable[[Path], object]) -> Path:
    """The archive NAME.tar.xz of the folder filled by `make`; from `cache` if it contains one with the same `key`."""
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
    archive = cache / f"{name}-{digest}.tar.xz"
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        for stale in cache.glob(f"{name}-{'[0-9a-f]' * 16}.tar.xz"):
            stale.unlink()
        folder = cache / f"{name}.content"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder)
        partial = archive.with_suffix(".partial")
        write_archive(folder, partial)
        os.replace(partial, archive)
        shutil.rmtree(folder)
    return archive


def file_key(files: Iterable[Path]) -> list[str]:
    """A key that changes with any of the files: names, sizes and modification times, but not their location."""
    return [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sorted(files)]
