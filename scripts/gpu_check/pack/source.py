"""Records the commit and all files of the packed folder, as .git is not transferred."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.images import REPOSITORY
from benchmarks.source import describe_source

__all__ = ["source_state", "travelling_files"]


def travelling_files() -> list[Path]:
    """The other transferred files: files and links tracked by git, and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted({Path(name) for name in listed if name and os.path.lexists(REPOSITORY / name)})


def source_state() -> str:
    """JSON: the commit, whether it is clean, and the SHA-256 of each file."""
    paths = [path for path in travelling_files() if (REPOSITORY / path).is_file()]
    files = {str(path): hashlib.sha256((REPOSITORY / path).read_bytes()).hexdigest() for path in paths}
    state: dict[str, Any] = {**describe_source(), "files": files}
    return json.dumps(state, indent=0) + "\n"
