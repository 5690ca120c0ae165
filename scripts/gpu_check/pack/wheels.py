"""Wheels for another machine's Python: finds and downloads missing ones with pip, and keeps what is needed to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from benchmarks.images import REPOSITORY

__all__ = ["WheelSet", "fetch", "pinned", "target_packages", "unmet_requirements", "unpack", "wheel_sets"]

_PACKAGES_THERE = REPOSITORY / "scripts" / "gpu_check" / "target_packages.txt"
_REQUIREMENTS = REPOSITORY / "requirements"
# pip uses these names literally, one by one: all glibc versions up to that of Ubuntu 24.04.
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)] + ["manylinux2014_x86_64"]
_PLACES = {"data": "", "headers": "include/", "scripts": "bin/"}
# In ROS packages: files only for compilers, and the .pth file that starts every Python twice.
_DEAD_FOLDERS = {"include", "cmake", "bin", "src"}
_DEAD_SUFFIXES = {".a", ".pyc", ".cmake", ".em", ".pth", ".h", ".hpp"}
_LIVE_SHARES = {".msg", ".srv", ".action", ""}


@dataclass(frozen=True)
class WheelSet:
    """Wheels that are packed together, separately from others so that a broken one affects only its set.

    Attributes:
        name: Name of the archive.
        requirements: `name==version` each.
    """

    name: str
    requirements: tuple[str, ...]


def target_packages() -> set[str]:
    """Canonical names of the packages on the GPU machine."""
    lines = _PACKAGES_THERE.read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(word) for line in lines if not line.startswith("#") for word in line.split()}


def pinned(file: str) -> dict[str, str]:
    """Versions by canonical name from a file in requirements/."""
    found = re.findall(
        r"^([A-Za-z0-9._-]+)==([^\s;]+)", (_REQUIREMENTS / file).read_text(encoding="utf-8"), re.MULTILINE
    )
    return {canonicalize_name(name): version for name, version in found}


def wheel_sets() -> tuple[WheelSet, WheelSet]:
    """What the GPU machine lacks: Python packages and ROS 2."""
    there = target_packages()
    needed = {**pinned("runtime.txt"), **pinned("benchmark.txt")}
    # For the distribution used to build the packed messages.
    file = f"ros-{os.environ.get('ROS_DISTRO')}-wheels.txt"
    ros = pinned(file if (_REQUIREMENTS / file).exists() else "ros-jazzy-wheels.txt")
    return WheelSet("python", _lines(needed, there)), WheelSet("ros", _lines(ros, there))


def fetch(requirements: Sequence[str], python: str, folder: Path) -> list[Path]:
    """The wheels for a Python such as "3.12" on x86-64 Linux, in `folder`; pip is only used for missing ones.

    Raises:
        subprocess.CalledProcessError: pip does not find a wheel, or there is no network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [Requirement(each) for each in requirements]
    if missing := [str(each) for each in wanted if _find(each, folder) is None]:
        platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "download", *options, "--implementation", "cp", *platforms]
        command += ["--python-version", python, "--dest", str(folder), *missing]
        subprocess.run(command, check=True, capture_output=True, text=True)
    found = [_find(each, folder) for each in wanted]
    return [path for path in found if path is not None]


def unmet_requirements(wheels: Sequence[Path], python: str) -> list[str]:
    """Requirements of the wheels met neither by them nor by the GPU machine, one per line."""
    versions = {name: version for name, version, *_ in (parse_wheel_filename(wheel.name) for wheel in wheels)}
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "x86_64",
        "extra": "",
    }
    there = target_packages()
    unmet = []
    for wheel in wheels:
        for line in _metadata(wheel).get_all("Requires-Dist") or []:
            need = Requirement(line)
            if need.marker is not None and not need.marker.evaluate({**environment}):
                continue
            name = canonicalize_name(need.name)
            if name not in there and (name not in versions or not need.specifier.contains(versions[name])):
                unmet.append(f"{wheel.name} needs {need}")
    return unmet


def unpack(wheel: Path, prefix: Path, python: str, *, only_to_run: bool) -> None:
    """Unpacks a wheel under `prefix`, like pip.

    Args:
        wheel: The wheel file.
        prefix: Folder like that of a virtual environment.
        python: Version, for example "3.12".
        only_to_run: Leave out headers and other files of ROS packages that are only needed to build others.
    """
    packages = f"lib/python{python}/site-packages/"
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            split = re.match(r"[^/]+\.data/([^/]+)/(.+)", entry.filename)
            name = f"{_PLACES.get(split[1], packages)}{split[2]}" if split else f"{packages}{entry.filename}"
            if entry.is_dir() or (only_to_run and not _is_needed(name)):
                continue
            path = prefix / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(entry))


def _is_needed(name: str) -> bool:
    path = Path(name)
    if path.suffix in _DEAD_SUFFIXES or _DEAD_FOLDERS.intersection(path.parts[:1] + path.parts[-2:-1]):
        return False
    return path.parts[0] != "share" or path.suffix in _LIVE_SHARES


def _lines(versions: dict[str, str], there: set[str]) -> tuple[str, ...]:
    return tuple(f"{name}=={version}" for name, version in sorted(versions.items()) if name not in there)


def _find(need: Requirement, folder: Path) -> Path | None:
    for path in sorted(folder.glob("*.whl")):
        name, version, *_ = parse_wheel_filename(path.name)
        if name == canonicalize_name(need.name) and need.specifier.contains(version, prereleases=True):
            return path
    return None


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
        return HeaderParser().parsestr(archive.read(name).decode())
