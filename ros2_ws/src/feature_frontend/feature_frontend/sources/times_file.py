"""Files of image times next to the images: KITTI's times.txt and timestamps.txt, TUM's rgb.txt, EuRoC's data.csv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path, PurePosixPath

from feature_frontend.errors import SourceError
from feature_frontend.system.files import read_regular_file, readable_name
from feature_frontend.system.text import quoted

__all__ = ["STAMP_LIMIT_NS", "UNIT", "TimesFile", "find_times", "read_times", "time_from_number", "wrong_unit"]

# builtin_interfaces/Time holds the seconds in an int32.
STAMP_LIMIT_NS = 2**31 * 1_000_000_000
_NS_PER_S = 1_000_000_000
# The number of digits of an integer tells its unit for any time after 2001.
_UNITS_NS = {19: 1, 16: 1_000, 13: 1_000_000}
UNIT = "s, or integers of 19, 16 or 13 digits (ns, us, ms)"
# No camera is that fast or slow; times in a wrong unit are off by a factor of 1000.
_SHORTEST_NS, _LONGEST_NS = 1_000_000, 30_000_000_000
_NAMES = ("times.txt", "timestamps.txt", "rgb.txt", "data.csv")
_MAX_BYTES = 2**28
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?")
_SEPARATOR = re.compile(r"[,;\s]+")

Row = tuple[list[str], int]


@dataclass(frozen=True)
class TimesFile:
    """The image times read from a file.

    Attributes:
        path: Of the file.
        stamps_ns: One per image, in the order of the images.
    """

    path: Path
    stamps_ns: tuple[int, ...]


def time_from_number(number: str) -> int | None:
    """Converts a number to a time in ns; None if a stamp cannot represent it.

    Seconds, or an integer part of 19 (ns), 16 (us) or 13 (ms) digits.
    """
    unit_ns = _UNITS_NS.get(len(number.partition(".")[0]), _NS_PER_S)
    try:
        value = Decimal(number)
        # Check before computing: "1e999999" is an integer of a million digits.
        if not 0 <= value < STAMP_LIMIT_NS:
            return None
        stamp_ns = int(value * unit_ns)
    except (InvalidOperation, ValueError):
        return None
    return stamp_ns if stamp_ns < STAMP_LIMIT_NS else None


def wrong_unit(path: Path, stamps_ns: Sequence[int], expected: str) -> str:
    """A warning if the times in a file look as if they were in another unit than it is read in; else empty.

    Args:
        path: Of the file.
        stamps_ns: What was read from it, ascending, ns.
        expected: The unit, for the message.
    """
    intervals = sorted(later - earlier for earlier, later in pairwise(stamps_ns))
    if not intervals or _SHORTEST_NS <= intervals[len(intervals) // 2] <= _LONGEST_NS:
        return ""
    return (
        f"by {readable_name(path)} the images are {intervals[len(intervals) // 2] / _NS_PER_S:g} s apart; if they are "
        f"not, its times are in another unit: expected {expected}"
    )


def find_times(folder: Path, names: Sequence[str]) -> tuple[TimesFile | None, str]:
    """Looks for a file of times in the folder of the images and in its parent.

    Args:
        folder: Of the images.
        names: Of the images, in natural order.

    Returns:
        The times, and a note for the user if a file exists but cannot be used.
    """
    problem = ""
    candidates = [folder / name for name in _NAMES]
    candidates += [folder.parent / name for name in (*_NAMES, f"{folder.name}.txt")]
    for path in candidates:
        if path.is_file():
            try:
                return TimesFile(path, tuple(read_times(path, names))), ""
            except SourceError as error:
                problem = problem or f"{error}; its times are not used"
    return None, problem


def read_times(path: Path, names: Sequence[str]) -> list[int]:
    """The time in ns of each of the images `names`, which must be unique.

    Args:
        path: A file with one time per line, optionally with the name of an image; lines and columns in any order,
            further columns allowed. Seconds, integers of 19, 16 or 13 digits (ns, us, ms), or dates as in KITTI; "#"
            starts a comment.
        names: Of the images, in natural order.

    Raises:
        SourceError: The file cannot be read, has another format, or lacks the time of an image.
    """
    rows = _rows(path)
    stems = {PurePosixPath(name).stem: name for name in names}
    by_name: dict[str, int] = {}
    for words in rows:
        name, stamp_ns = _named(words, set(names), stems)
        if name and stamp_ns is not None:
            by_name[name] = stamp_ns
    stamps = [by_name.get(name) for name in names] if by_name else _by_position(path, rows, names)
    if None in stamps:
        known = len(stamps) - stamps.count(None)
        raise SourceError(f"{readable_name(path)} has times for {known} of {len(names)} images; expected one for each")
    found = [stamp for stamp in stamps if stamp is not None]
    if len(set(found)) < len(found):
        raise SourceError(f"{readable_name(path)} has the same time for two images; expected different ones")
    return found


def _rows(path: Path) -> list[list[str]]:
    try:
        text = read_regular_file(path, _MAX_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise SourceError(f"{readable_name(path)} cannot be read: {error.strerror or error}") from error
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    rows = [_SEPARATOR.split(_DATE.sub(_seconds, line)) for line in lines if line]
    if not rows:
        raise SourceError(f"{readable_name(path)} holds no times; expected one a line, in s")
    return rows


def _seconds(date: re.Match[str]) -> str:
    """Converts a date to a number of seconds, without rounding; returns an invalid date unchanged."""
    try:
        whole = datetime.fromisoformat(f"{date[1]} {date[2]}").replace(tzinfo=timezone.utc)
    except ValueError:
        return date[0]
    return f"{int(whole.timestamp())}{date[3] or ''}"


def _named(words: list[str], names: set[str], stems: dict[str, str]) -> tuple[str, int | None]:
    """The image that a line names, empty for none, and its time in ns."""
    if len(words) < 2:
        return "", None
    # From the end: of two words that look like both a name and a time, the first is the time.
    for place in reversed(range(len(words))):
        word = words[place].replace("\\", "/").rpartition("/")[2]
        name = word if word in names else stems.get(word, "")
        if name:
            numbers = [time_from_number(other) for at, other in enumerate(words) if at != place]
            return name, next((stamp for stamp in numbers if stamp is not None), None)
    return "", None


def _by_position(path: Path, rows: list[list[str]], names: Sequence[str]) -> list[int | None]:
    """Assigns line n to image n, or, with fewer images than lines, to the image whose name is the number n."""
    if any(len(words) != 1 for words in rows):
        raise SourceError(
            f"{readable_name(path)} names none of the images; expected a time and a name on each line, or a time only"
        )
    stamps = [time_from_number(words[0]) for words in rows]
    if None in stamps:
        wrong = rows[stamps.index(None)][0]
        raise SourceError(f"{readable_name(path)} has {quoted(wrong)} for a time; expected a number of seconds")
    if len(stamps) == len(names):
        return stamps
    numbers = [PurePosixPath(name).stem for name in names]
    if all(number.isdecimal() and int(number) < len(stamps) for number in numbers):
        return [stamps[int(number)] for number in numbers]
    raise SourceError(
        f"{readable_name(path)} has {len(stamps)} times for {len(names)} images; expected one for each, in their order"
    )
