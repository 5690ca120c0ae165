"""Names of files and other words from outside in Markdown, where they are shown and mean nothing."""

from __future__ import annotations

import re

from feature_frontend.system.text import printable

__all__ = ["markdown_code", "markdown_text"]

# What begins HTML, a link, a picture, code or another cell. Emphasis is left alone: names are full of "_".
_SPECIAL = re.compile(r"[\\`\[\]|]")
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
