"""What a mistyped name was meant for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["nearest_name"]


def nearest_name(name: str, known: Iterable[str], likeness: float) -> str:
    """The one of `known` that is most like `name`; "" where none is.

    Args:
        name: As it was typed; capitals and dashes count as the underscores that they may stand for.
        known: The names that there are.
        likeness: Least share of letters in common, as `difflib` counts it: 0 to 1.
    """
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_").casefold()
    return next(iter(difflib.get_close_matches(plain, list(known), 1, likeness)), "")
