"""The `run_id` of messages: identifies the run of the front-end that created them."""

from __future__ import annotations

import hashlib
import secrets

__all__ = ["new_run_id", "run_id_of"]

# Integers below 2^53 are exact as doubles, the only numbers of many JSON readers, such as browsers.
_IDS = (1 << 53) - 1


def new_run_id() -> int:
    """A new random id, in [1, 2^53)."""
    return 1 + secrets.randbelow(_IDS)


def run_id_of(description: str) -> int:
    """A deterministic id for a description, in [1, 2^53)."""
    return 1 + int.from_bytes(hashlib.sha256(description.encode()).digest()[:8], "big") % _IDS
