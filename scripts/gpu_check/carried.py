"""Unpacks the output of `make gpu-pack` on the target machine and prepares its environment.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from scripts.gpu_check.messages import compile_messages, messages_work, own_include_folders

__all__ = ["REPOSITORY", "carried_environment", "prepare", "unpack"]

REPOSITORY = Path(__file__).resolve().parents[2]
_PROFILE = REPOSITORY / "config" / "fastdds_shared_memory.xml"


def prepare(carried: Path, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Unpacks `carried` into `folder`, and compiles the messages if the packed ones do not work.

    Returns:
        The environment for the check, and one line per problem; the rest can run in spite of problems.
    """
    problems = unpack(carried, folder)
    version = json.loads((carried / "pack.json").read_text(encoding="utf-8"))["python"]
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version != own:
        problems.append(f"packed for Python {version}, and this is {own}: packages with compiled parts will not work")
    environment = carried_environment(folder, os.environ)
    if (folder / "ros").is_dir() and messages_work(environment):
        try:
            compile_messages(folder / "ros", own, own_include_folders())
        except Exception as error:
            # Missing files affect only the part that requires ROS.
            problems.append(f"the messages cannot be compiled: {type(error).__name__}: {error}")
        if why := messages_work(environment):
            problems.append(f"the node cannot run: {why}")
    return environment, problems


def unpack(carried: Path, folder: Path) -> list[str]:
    """Unpacks the archives of `carried` into python/, ros/ and shared/ of a new `folder`; one line per broken one."""

    def one(archive: Path) -> str:
        target = folder / archive.name.partition("-")[0]
        try:
            with tarfile.open(archive) as tar:
                # tarfile has a filter for this only since Python 3.10.12 and 3.11.4.
                names = [name for entry in tar for name in (entry.name, entry.linkname)]
                if outside := [name for name in names if name.startswith("/") or ".." in PurePosixPath(name).parts]:
                    return f"{archive.name} is broken: {outside[0]} would lie outside its folder"
                tar.extractall(target)
        except (OSError, EOFError, tarfile.TarError) as error:
            return f"{archive.name} is broken: {type(error).__name__}: {error}"
        return ""

    with ThreadPoolExecutor() as pool:
        return [line for line in pool.map(one, sorted(carried.glob("*.tar.xz"))) if line]


def carried_environment(folder: Path, base: Mapping[str, str]) -> dict[str, str]:
    """`base` with the contents of `folder`, and this repository, first in the search paths; variables as in env.sh."""
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    ros = folder / "ros"
    packages = [REPOSITORY / "ros2_ws" / "src" / name for name in ("feature_frontend", "feature_frontend_lab")]
    paths = [*packages, REPOSITORY, folder / "python" / site, ros / site]
    libraries = [ros / "lib", *sorted((ros / site).glob("ros_*.libs"))]
    return {
        **base,
        "PYTHONPATH": _joined(paths, base.get("PYTHONPATH")),
        "LD_LIBRARY_PATH": _joined(libraries, base.get("LD_LIBRARY_PATH")),
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
        "AMENT_PREFIX_PATH": str(ros),
        "ROS_LOG_DIR": str(folder / "log"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(_PROFILE),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(_PROFILE),
        "FEATURE_FRONTEND_SHARED": str(folder / "shared"),
    }


def _joined(paths: list[Path], more: str | None) -> str:
    return ":".join([*map(str, paths), *([more] if more else [])])
