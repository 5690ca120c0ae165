"""Prints the requirements of a table that this Python cannot import, one per line.

Modules are searched by import, not by package name: apt's python3-opencv, for example, has no package metadata.
"""

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "7.4.0rc1" gives (7, 4, 0)."""
    return tuple(int(part) for part in re.split(r"[^\d.]", version)[0].split(".") if part)


def is_met(module: str, requirement: str) -> bool:
    """Whether the module exists and, if its version is known, is not older than the requirement's lower bound."""
    if importlib.util.find_spec(module) is None:
        return False
    name, *bounds = re.split(r"[>=]=|,", requirement)
    try:
        return not bounds or numbers(importlib.metadata.version(name)) >= numbers(bounds[0])
    except importlib.metadata.PackageNotFoundError:
        return True


for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
    if line and not line.startswith("#"):
        module, requirement = line.split()
        if not is_met(module, requirement):
            print(requirement)
