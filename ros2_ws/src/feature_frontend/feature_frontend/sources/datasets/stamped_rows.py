"""Text files with a stamp and values on each line: EuRoC's data.csv, TUM's rgb.txt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from feature_frontend.errors import SourceError
from feature_frontend.sources.times_file import STAMP_LIMIT_NS, time_from_number
from feature_frontend.system.files import read_regular_file, readable_name
from feature_frontend.system.text import quoted

__all__ = ["StampedRows", "csv_row", "read_stamped_rows", "stamp_of_ns", "text_row"]

_MAX_BYTES = 2**28
_STAMP_DIGITS = 19

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class StampedRows(Generic[ValueT]):
    """The readable lines of a file, in the order of their stamps, which all differ.

    Attributes:
        path: Of the file.
        stamps_ns: One for each line, ns, ascending.
        values: One for each line.
        notices: What was not in order, for the user.
        missing: What cannot be read, for the user.
    """

    path: Path
    stamps_ns: tuple[int, ...]
    values: tuple[ValueT, ...]
    notices: tuple[str, ...]
    missing: tuple[str, ...]


def read_stamped_rows(
    path: Path, parse: Callable[[str], tuple[int, ValueT] | None], expected: str
) -> StampedRows[ValueT]:
    """Reads a file; "#" begins a comment line; a first line that begins with a letter, quoted or not, is a header.

    Args:
        path: Of the file.
        parse: The stamp in ns and the value of a line; None if the line has another form.
        expected: The form of a line, for messages.

    Raises:
        SourceError: The file cannot be read, or has no line of that form.
    """
    shown = readable_name(path)
    try:
        text = read_regular_file(path, _MAX_BYTES).decode("utf-8-sig", "replace")
    except FileNotFoundError as error:
        raise SourceError(f"there is no {shown}; expected lines {expected}") from error
    except OSError as error:
        raise SourceError(f"{shown} cannot be read: {error.strerror or error}; expected lines {expected}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if lines and lines[0][1].lstrip("\"'#")[:1].isalpha():
        lines = lines[1:]
    rows: dict[int, ValueT] = {}
    bad: list[tuple[int, str]] = []
    twice: list[int] = []
    for number, line in lines:
        row = parse(line)
        if row is None:
            bad.append((number, line))
        elif row[0] in rows:
            twice.append(number)
        else:
            rows[row[0]] = row[1]
    if not rows:
        found = f"line {bad[0][0]} is {quoted(bad[0][1])}" if bad else "it has none"
        raise SourceError(f"{shown} has no line {expected}: {found}")
    missing = []
    if bad:
        numbers = [number for number, _ in bad]
        missing.append(
            f"{_counted(numbers)} of {shown} cannot be read ({quoted(bad[0][1])}); expected lines {expected}"
        )
    notices = []
    if twice:
        notices.append(f"{_counted(twice)} of {shown} left out, with the stamp of an earlier one")
    stamps = sorted(rows)
    if stamps != list(rows):
        notices.append(f"the lines of {shown} are not in the order of their stamps, in which they are taken")
    return StampedRows(path, tuple(stamps), tuple(rows[stamp] for stamp in stamps), tuple(notices), tuple(missing))


def stamp_of_ns(text: str) -> int | None:
    """The stamp in a whole number of ns; None if it is another text, or too large for a ROS stamp."""
    if not (text.isascii() and text.isdigit() and len(text) <= _STAMP_DIGITS):
        return None
    stamp_ns = int(text)
    return stamp_ns if stamp_ns < STAMP_LIMIT_NS else None


def csv_row(line: str) -> tuple[int, list[str]] | None:
    """Stamp and further columns of a line of EuRoC's: ns and values, with commas between them."""
    first, *values = (word.strip() for word in line.split(","))
    stamp_ns = stamp_of_ns(first)
    return None if stamp_ns is None else (stamp_ns, values)


def text_row(line: str) -> tuple[int, str] | None:
    """Stamp and rest of a line of TUM's: seconds, spaces or a tab, and text."""
    words = line.split(None, 1)
    stamp_ns = time_from_number(words[0])
    return None if stamp_ns is None else (stamp_ns, words[1] if len(words) > 1 else "")


def _counted(numbers: list[int]) -> str:
    return f"line {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} lines, the first of them {numbers[0]},"
