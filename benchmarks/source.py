"""Which commit runs: from git, or where only files were carried to, from what `make gpu-pack` wrote down."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.images import REPOSITORY

__all__ = ["CARRIED", "describe_source"]

# JSON: what `describe_source` said where it was packed, and `files`, the SHA-256 of each file beside it.
CARRIED = Path(".gpu") / "source.json"


def describe_source(repository: Path = REPOSITORY) -> dict[str, Any]:
    """The commit, None where nothing says it, and whether the files differ from it."""
    # Not a repository around this one, in which it lies as a copy.
    if (repository / ".git").exists():
        return {
            "feature_frontend": _git(repository, "rev-parse", "HEAD"),
            # Results themselves may lie there, not yet committed.
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
    """What git says; None where it is missing or refuses."""
    try:
        result = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
