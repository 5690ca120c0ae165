"""Makes text from outside printable and short, for messages, logs and reasons."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from feature_frontend.system.files import readable_name

__all__ = ["PATH_CHARACTERS", "listed", "nearest_name", "printable", "quoted", "short_text", "shown"]

PATH_CHARACTERS = 250
"""Limit for a quoted path; an encoding or a name needs fewer."""

_QUOTED_CHARACTERS = 60
_REPR_OF_BYTE = re.compile(r"\\udc([89a-f][0-9a-f])")
_LINES, _CHARACTERS = 3, 600
_LISTED = 5
# More than any of our texts has; limits texts that quote a sender without a limit.
_MOST_CHARACTERS = 4000


def quoted(text: str, characters: int = _QUOTED_CHARACTERS) -> str:
    """A word from a sender or a file (an encoding, a name, a path) in quotes, cut after `characters`."""
    return repr(text if len(text) <= characters else f"{text[:characters]}...")


def short_text(text: object) -> str:
    """The text of a library or another program, such as an error: at most three lines and 600 characters.

    Args:
        text: Anything; an exception without text is shown by its type.
    """
    # Process only a prefix: the text can be of any length.
    lines = [line.strip() for line in str(text)[: 4 * _MOST_CHARACTERS].splitlines()]
    kept = [line for line in lines if line] or [type(text).__name__]
    short = printable("\n".join(kept[:_LINES]), _CHARACTERS)
    return f"{short} ..." if len(kept) > _LINES and len(short) < _CHARACTERS else short


def listed(texts: Iterable[str], separator: str = ", ") -> str:
    """Joins the first five of `texts`, and adds how many more there are."""
    every = list(texts)
    more = len(every) - _LISTED
    return separator.join([*every[:_LISTED], f"and {more} more"] if more > 0 else every)


def shown(value: object) -> str:
    """A value from a file in Python notation, strings in quotes, cut after 60 characters."""
    return quoted(value) if isinstance(value, str) else printable(repr(value), _QUOTED_CHARACTERS)


def printable(text: str, characters: int = _MOST_CHARACTERS) -> str:
    r"""`text` with unprintable characters escaped, as in "\x1b" or "\udcfc"; line breaks are kept.

    Args:
        text: Of any length.
        characters: Maximum number of characters kept; "..." marks the cut.
    """
    # Show `repr`'s escape of a byte that is not UTF-8 in the same form as elsewhere.
    cut = _REPR_OF_BYTE.sub(r"\\x\g<1>", text[:characters])
    if not cut.isprintable():
        cut = "".join(
            character if character == "\n" or character.isprintable() else _escaped(character) for character in cut
        )
    return cut if len(text) <= characters else f"{cut}..."


def _escaped(character: str) -> str:
    # Bytes of names that are not UTF-8 as everywhere else, the rest in Python notation.
    readable = readable_name(character)
    return readable if readable != character else character.encode("unicode_escape").decode("ascii")


def nearest_name(name: str, known: Iterable[str], likeness: float) -> str:
    """The name in `known` that is most similar to `name`; "" if none is similar enough.

    Args:
        name: As typed; capitals and dashes count as underscores.
        known: The valid names.
        likeness: Minimum similarity ratio of `difflib`, 0 to 1.
    """
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_").casefold()
    return next(iter(difflib.get_close_matches(plain, list(known), 1, likeness)), "")
