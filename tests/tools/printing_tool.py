"""A tool that prints a given number of lines, for tests of closed outputs."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> int:
    """Prints lines, and opens a file, which must not get the number of a closed stdout."""
    with open(os.devnull, encoding="utf-8") as file:
        assert file.fileno() > 2
    for number in range(int(sys.argv[1])):
        print(f"line {number}")
    print("the end", file=sys.stderr)
    return 0
