"""An ament prefix with the repository's launch files and a test program in place of the node."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import REPOSITORY

__all__ = ["make_prefix"]


def make_prefix(folder: Path, frontend: str) -> dict[str, str]:
    """Makes it; the variables that name it.

    Args:
        folder: Where; new files and folders come to lie in it.
        frontend: Text of the program that the launch files start.
    """
    prefix = folder / "prefix"
    share = prefix / "share" / "feature_frontend"
    packages = prefix / "share" / "ament_index" / "resource_index" / "packages"
    packages.mkdir(parents=True)
    (packages / "feature_frontend").touch()
    share.mkdir(parents=True)
    for name in ("launch", "config"):
        (share / name).symlink_to((REPOSITORY / name).resolve())
    programs = prefix / "lib" / "feature_frontend"
    programs.mkdir(parents=True)
    (programs / "frontend").write_text(frontend)
    (programs / "frontend").chmod(0o755)
    return {
        "AMENT_PREFIX_PATH": f"{prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}",
        "ROS_LOG_DIR": str(folder / "log"),
    }
