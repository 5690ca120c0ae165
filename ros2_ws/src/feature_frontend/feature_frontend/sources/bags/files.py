"""Finds the files of a bag and reads its `metadata.yaml`, which is trusted less than the files."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.storage import Losses, plural
from feature_frontend.system.text import listed

__all__ = ["BAG_SUFFIXES", "BagFiles", "find_bag_files", "is_bag"]

BAG_SUFFIXES = (".mcap", ".db3", ".bag")
# Suffixes appended by recorders while writing, and by compression.
_APPENDED = (".active", ".zstd", ".zst")
_METADATA = "metadata.yaml"
_KEY = "rosbag2_bagfile_information"
# More digits are a date or a time.
_SPLIT = re.compile(r"(?P<base>.*)_(?P<number>\d{1,5})")


@dataclass
class BagFiles:
    """The files of a bag, in order.

    Attributes:
        files: All existing files.
        types: Type of each topic according to the metadata; empty without metadata.
        counts: Number of messages of each topic according to the metadata; empty without metadata.
        losses: Missing parts of the bag.
    """

    files: list[Path]
    types: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    losses: Losses = field(default_factory=Losses)


@dataclass(frozen=True)
class _Metadata:
    files: dict[str, int | None]
    types: dict[str, str]
    counts: Counter[str]


def is_bag(path: Path) -> bool:
    """Whether `path` is a bag file, or a folder with bag files or the metadata of a rosbag2."""
    if not path.is_dir():
        return path.is_file() and _is_storage(path)
    return bool(_storage_files(path)) or _KEY in _metadata_text(path)


def find_bag_files(path: Path) -> BagFiles:
    """The files of the bag at `path`.

    Raises:
        SourceError: There are none, or they belong to several bags.
    """
    if not path.is_dir():
        return BagFiles([path])
    there = _storage_files(path)
    losses = Losses()
    metadata = _read_metadata(path, losses)
    if metadata is None:
        return BagFiles(_splits(path, there, losses), losses=losses)
    files = []
    for name, count in metadata.files.items():
        found = _found(path / name)
        if found is not None:
            files.append(found)
        else:
            held = "" if count is None else f", with {plural(count, 'message')}"
            losses.lose(f"{path / name} is missing{held}")
    if not files and there:
        losses.note(f"{path / _METADATA} names files that are not there; those that are there are read")
        losses.missing.clear()
        files = _splits(path, there, losses)
    bases = {_base(file) for file in files}
    for file in there:
        if _plain(file) in map(_plain, files):
            continue
        if _base(file) in bases:
            losses.note(f"{file} is not in {_METADATA}, whose recorder was stopped, and is read too")
            files.append(file)
        else:
            losses.note(f"{file} is not in {_METADATA} and is left out")
    if not files:
        raise SourceError(f"bag {path} has no files: {listed(losses.missing, '; ') or f'{_METADATA} names none'}")
    return BagFiles(files, metadata.types, metadata.counts, losses)


def _is_storage(file: Path) -> bool:
    # macOS writes "._name" files to foreign disks.
    return not file.name.startswith(".") and _plain(file).suffix.lower() in BAG_SUFFIXES


def _plain(file: Path) -> Path:
    while file.suffix.lower() in _APPENDED:
        file = file.with_suffix("")
    return file


def _storage_files(folder: Path) -> list[Path]:
    try:
        files = [file for file in folder.iterdir() if _is_storage(file) and file.is_file()]
    except OSError as error:
        raise SourceError(f"folder {folder} cannot be read: {error}") from error
    # ROS 1 has no bag folders: each .bag file in a folder is a separate bag.
    files = [file for file in files if _plain(file).suffix.lower() != ".bag"]
    # Players and recorders keep a file next to its compressed version: one of them is enough.
    unique = {_plain(file): file for file in sorted(files, key=lambda file: len(file.name), reverse=True)}
    return sorted(unique.values(), key=_key)


def _base(file: Path) -> str:
    match = _SPLIT.fullmatch(_plain(file).stem)
    return match["base"] if match else _plain(file).stem


def _number(file: Path) -> int | None:
    match = _SPLIT.fullmatch(_plain(file).stem)
    return int(match["number"]) if match else None


def _key(file: Path) -> tuple[str, int, str]:
    number = _number(file)
    return _base(file), -1 if number is None else number, file.name


def _found(file: Path) -> Path | None:
    """The file, or its compressed or decompressed version; None if there is neither."""
    candidates = [file, _plain(file), *(file.with_name(file.name + suffix) for suffix in _APPENDED)]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _splits(folder: Path, files: list[Path], losses: Losses) -> list[Path]:
    """The split files of one bag, in order, found without metadata."""
    if not files:
        raise SourceError(f"bag {folder} has no files {' '.join(BAG_SUFFIXES[:2])}")
    numbers = [number for file in files if (number := _number(file)) is not None]
    if len(files) > 1 and (len({_base(file) for file in files}) > 1 or len(set(numbers)) < len(files)):
        raise SourceError(
            f"bag {folder} has no {_METADATA} and {len(files)} storage files; play one of these, or reindex it"
        )
    if len(files) == 1:
        return files
    losses.note(f"bag {folder} has no list of its {len(files)} files; they are read in the order of their numbers")
    gone = sorted(set(range(max(numbers, default=0))) - set(numbers))
    if gone:
        shown = ", ".join(f"{_base(files[0])}_{number}" for number in gone[:10])
        losses.lose(f"files of bag {folder} are missing: {shown}{' ...' if len(gone) > 10 else ''}")
    return files


def _metadata_text(folder: Path) -> str:
    try:
        return (folder / _METADATA).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_metadata(folder: Path, losses: Losses) -> _Metadata | None:
    path = folder / _METADATA
    if not path.is_file():
        return None
    try:
        document = yaml.safe_load(_metadata_text(folder))
        information = document[_KEY]
        topics = [
            (str(topic["topic_metadata"]["name"]), str(topic["topic_metadata"]["type"]), int(topic["message_count"]))
            for topic in information["topics_with_message_count"]
        ]
        counts = {_file_name(found["path"]): int(found["message_count"]) for found in information.get("files") or []}
        files = {name: counts.get(name) for name in map(_file_name, information["relative_file_paths"])}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = str(getattr(error, "problem", "") or type(error).__name__)
        losses.note(f"{path} is no metadata of a rosbag2 ({reason}); the files beside it are read without")
        return None
    per_topic: Counter[str] = Counter()
    for name, _, count in topics:
        per_topic[name] += count
    return _Metadata(files, {name: kind for name, kind, _ in topics}, per_topic)


def _file_name(path: Any) -> str:
    return PurePosixPath(str(path)).name
