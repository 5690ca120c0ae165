"""What all reports are written with: Markdown in which words from outside mean nothing, JSON, and their files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from feature_frontend.errors import SourceError
from feature_frontend.system.text import printable

__all__ = [
    "file_names",
    "json_value",
    "make_report_folder",
    "markdown_code",
    "markdown_table",
    "markdown_text",
    "write_files",
]

# What begins HTML, a link, a picture, code or another cell. Emphasis is left alone: names are full of "_".
_SPECIAL = re.compile(r"[\\`\[\]|]")
_MOST_NAME_CHARACTERS = 100
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def markdown_text(text: str) -> str:
    """`text` on one line, in a paragraph, a heading or a cell of a table."""
    line = " ".join(printable(text).split())
    return _SPECIAL.sub(r"\\\g<0>", line.translate(_ENTITIES))


def markdown_code(text: str) -> str:
    """`text` as code on one line, in a paragraph or a cell of a table."""
    line = " ".join(printable(text).split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}".replace("|", "\\|")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that also reads well as text: the first column to the left, the others to the right.

    Cells show what is in them, whatever that means in Markdown or HTML.
    """
    header, rows = [markdown_text(cell) for cell in header], [[markdown_text(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [header, rule, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def json_value(value: Any) -> Any:
    """The same value as JSON can say it: a number that is not finite, such as an error that does not exist, is null."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_names(names: Sequence[str]) -> dict[str, str]:
    """For each name, another one that any file system takes; all differ."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w.+=-]+", "_", name, flags=re.ASCII)[:_MOST_NAME_CHARACTERS]
        candidates = chain([plain], (f"{plain}_{number}" for number in count(2)))
        found[name] = next(candidate for candidate in candidates if candidate not in found.values())
    return found


def make_report_folder(folder: Path) -> None:
    """Makes the folder of a report; called before a long run, which should not end in nothing.

    Raises:
        SourceError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"the folder {folder} for the report cannot be made: {error}; choose another --output"
        ) from error


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Writes files into a folder that exists, text as UTF-8; returns their paths.

    Raises:
        SourceError: A file cannot be written.
    """
    paths = [folder / name for name in contents]
    try:
        for path, content in zip(paths, contents.values(), strict=True):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise SourceError(f"the report cannot be written into {folder}: {error}; choose another --output") from error
    return paths
