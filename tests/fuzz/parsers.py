"""All fuzzed parsers."""

from __future__ import annotations

from tests.fuzz import bags, downloads, files, messages, models, snapshots
from tests.fuzz.parser import Parser

__all__ = ["PARSERS"]

PARSERS: dict[str, Parser] = {
    parser.name: parser for module in (messages, files, bags, downloads, models, snapshots) for parser in module.PARSERS
}
