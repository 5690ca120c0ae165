"""Text that came from outside, made fit for messages, logs and reasons: printable and short, whatever it was."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from feature_frontend.system.files import readable_name

__all__ = ["PATH_CHARACTERS", "listed", "nearest_name", "printable", "quoted", "short_text", "shown"]

PATH_CHARACTERS = 250
"""Of a path in quotes; an encoding or a name needs fewer."""

_QUOTED_CHARACTERS = 60
_REPR_OF_BYTE = re.compile(r"\\udc([89a-f][0-9a-f])")
_LINES, _CHARACTERS = 3, 600
_LISTED = 5
# More than any text of ours has; whatever quotes a sender without a bound of its own ends here.
_MOST_CHARACTERS = 4000


def quoted(text: str, characters: int = _QUOTED_CHARACTERS) -> str:
    """A word of a sender or a file (an encoding, a name, a path) in quotes, cut where it is longer than a word."""
    return repr(text if len(text) <= characters else f"{text[:characters]}...")


def short_text(text: object) -> str:
    """What a library or another program says, such as an error of its own: three lines of it, 600 characters.

    Args:
        text: Anything; an exception without words is shown by its type.
    """
    # What is cut anyway is not looked at: it can be of any length.
    lines = [line.strip() for line in str(text)[: 4 * _MOST_CHARACTERS].splitlines()]
    kept = [line for line in lines if line] or [type(text).__name__]
    short = printable("\n".join(kept[:_LINES]), _CHARACTERS)
    return f"{short} ..." if len(kept) > _LINES and len(short) < _CHARACTERS else short


def listed(texts: Iterable[str], separator: str = ", ") -> str:
    """The first five of `texts` in one, and how many more there are."""
    every = list(texts)
    more = len(every) - _LISTED
    return separator.join([*every[:_LISTED], f"and {more} more"] if more > 0 else every)


def shown(value: object) -> str:
    """A value of a file as Python writes it, a text in quotes, cut after 60 characters."""
    return quoted(value) if isinstance(value, str) else printable(repr(value), _QUOTED_CHARACTERS)


def printable(text: str, characters: int = _MOST_CHARACTERS) -> str:
    r"""`text` with everything that no terminal should get as in "\x1b" or "\udcfc", but for its line breaks.

    Args:
        text: Of any length.
        characters: Most that are kept; "..." tells where it was cut.
    """
    # What `repr` has made of a byte that is no UTF-8 is shown as it is elsewhere.
    cut = _REPR_OF_BYTE.sub(r"\\x\g<1>", text[:characters])
    if not cut.isprintable():
        cut = "".join(
            character if character == "\n" or character.isprintable() else _escaped(character) for character in cut
        )
    return cut if len(text) <= characters else f"{cut}..."


def _escaped(character: str) -> str:
    # Bytes of names that are no UTF-8 as everywhere else, the rest as Python writes it.
    readable = readable_name(character)
    return readable if readable != character else character.encode("unicode_escape").decode("ascii")


def nearest_name(name: str, known: Iterable[str], likeness: float) -> str:
    """The one of `known` that is most like `name`; "" where none is.

    Args:
        name: As it was typed; capitals and dashes count as the underscores that they may stand for.
        known: The names that there are.
        likeness: Least share of letters in common, as `difflib` counts it: 0 to 1.
    """
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_").casefold()
    return next(iter(difflib.get_close_matches(plain, list(known), 1, likeness)), "")
