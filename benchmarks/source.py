"""Determines the commit under test: from git or, where only files were copied, from `make gpu-pack`'s record."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.images import REPOSITORY

__all__ = ["CARRIED", "describe_source"]

# JSON: the result of `describe_source` on the packing machine, and `files`, the SHA-256 of each file.
CARRIED = Path(".gpu") / "source.json"


def describe_source(repository: Path = REPOSITORY) -> dict[str, Any]:
    """The commit, None if unknown, and whether the files differ from it."""
    # Only this repository itself, not an enclosing one that contains it as a copy.
    if (repository / ".git").exists():
        return {
            "feature_frontend": _git(repository, "rev-parse", "HEAD"),
            # Excludes results, which may not be committed yet.
            "uncommitted_changes": bool(_git(repository, "status", "--porcelain", "--", ".", ":!benchmarks/results")),
        }
    path = repository / CARRIED
    if not path.is_file():
        return {"feature_frontend": None, "uncommitted_changes": None}
    carried = json.loads(path.read_text(encoding="utf-8"))
    changed = any(_sha256(repository / name) != sha256 for name, sha256 in carried.pop("files").items())
    return {**carried, "uncommitted_changes": carried["uncommitted_changes"] or changed}


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _git(repository: Path, *arguments: str) -> str | None:
    """Output of git; None if it is missing or fails."""
    try:
        result = subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=repository, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
