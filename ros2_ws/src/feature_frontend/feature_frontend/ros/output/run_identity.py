"""`run_id` of the messages: which run of the front-end made them."""

from __future__ import annotations

import hashlib
import secrets

__all__ = ["new_run_id", "run_id_of"]

# Below 2^53, every double is exact: programs that read JSON, such as a browser's, have no other numbers.
_IDS = (1 << 53) - 1


def new_run_id() -> int:
    """Another one with each call, in [1, 2^53)."""
    return 1 + secrets.randbelow(_IDS)


def run_id_of(description: str) -> int:
    """The same one for the same description, in [1, 2^53)."""
    return 1 + int.from_bytes(hashlib.sha256(description.encode()).digest()[:8], "big") % _IDS
