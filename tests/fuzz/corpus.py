"""Stored inputs: real files of each format, and inputs that were once handled wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["CORPUS", "seeds"]

CORPUS = Path(__file__).resolve().parent / "corpus"


def seeds(parser: str, corpus: Path = CORPUS) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a parser's inputs, in a fixed order."""
    for path in sorted((corpus / parser).iterdir()):
        yield path.name, path.read_bytes()
