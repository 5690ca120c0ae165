"""The locks of requirements/: consistent with the handwritten files, and the only source for set-up."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

_REQUIREMENTS = REPOSITORY / "requirements"
# A table of ranges, met as far as possible by what a ROS distribution brings; torch's locks are compared below.
_NOT_LOCKED = {"ros-installed", "torch"}
# Where the lock holds, besides what is asked for, what that needs.
_WITH_NEEDS = {"audit", "docs"}
# Not by `find_spec`: setuptools takes that for pip's own start and gives way to Python's distutils, which PyTorch's
# compiler refuses.
_HAS_PIP = any(importlib.metadata.distributions(name="pip"))
_NEEDS_PIP = pytest.mark.skipif(not _HAS_PIP, reason="this Python has no pip")


def written(file: Path) -> set[str]:
    """name==version and marker of each line."""
    lines = re.sub(r"\\\n", " ", file.read_text(encoding="utf-8")).splitlines()
    found = set()
    for line in lines:
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(re.sub(r"\s--hash=.*", "", line))
            version = next(iter(requirement.specifier)).version
            found.add(f"{canonicalize_name(requirement.name)}=={version}; {requirement.marker}")
    return found


@pytest.mark.parametrize("name", sorted({path.stem for path in _REQUIREMENTS.glob("*.txt")} - _NOT_LOCKED))
def test_lock_is_of_the_versions_written_by_hand(name: str) -> None:
    wanted, locked = written(_REQUIREMENTS / f"{name}.txt"), written(_REQUIREMENTS / "lock" / f"{name}.txt")

    assert wanted <= locked, "`make lock` was not run after a version was raised"
    assert name in _WITH_NEEDS or wanted == locked


def test_no_lock_is_left_over_and_each_entry_has_hashes() -> None:
    by_hand = {path.stem for path in _REQUIREMENTS.glob("*.txt")} - _NOT_LOCKED
    locks = sorted((_REQUIREMENTS / "lock").iterdir())
    assert {path.stem for path in locks} == by_hand | {"torch-cpu", "torch-cuda"}
    for lock in locks:
        for entry in re.split(r"\n(?=\w)", re.sub(r"^#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), f"{lock.name}: {entry}"
            assert re.match(r"[\w.-]+==[\w.+]+", entry), f"{lock.name}: {entry}"


def test_both_builds_of_torch_are_the_version_written_by_hand() -> None:
    (version,) = {entry.partition(";")[0] for entry in written(_REQUIREMENTS / "torch.txt")}
    cpu = {entry.partition(";")[0] for entry in written(_REQUIREMENTS / "lock" / "torch-cpu.txt")}
    cuda = {entry.partition(";")[0] for entry in written(_REQUIREMENTS / "lock" / "torch-cuda.txt")}

    assert cpu == {f"{version}+cpu"}
    assert version in cuda
    # What runtime.txt pins is not pinned a second time.
    pinned = {entry.partition("=")[0] for entry in written(_REQUIREMENTS / "runtime.txt")}
    assert not pinned & {entry.partition("=")[0] for entry in cuda}


class Installation:
    """The functions of scripts/setup, with locks and a folder of wheels of the test's own, installing into a folder.

    Attributes:
        wheels: What stands for the index.
        target: Where packages go.
    """

    def __init__(self, folder: Path) -> None:
        self.wheels, self.target = folder / "wheels", folder / "target"
        self._folder = folder
        for each in (self.wheels, self.target, folder / "requirements" / "lock", folder / "venv" / "bin"):
            each.mkdir(parents=True)
        for name in (
            "ros-jazzy-wheels",
            "ros-tools",
            "ros-tools-sources",
            "runtime",
            "lab",
            "dev",
            "torch-cpu",
            "torch-cuda",
        ):
            self.lock(name, "")
        (folder / "log").touch()
        python = folder / "venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)

    def wheel(self, name: str, version: str, code: str = "") -> str:
        """Writes a wheel of one module; returns its SHA-256."""
        information = f"{name}-{version}.dist-info"
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.py", code)
            archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(
                f"{information}/WHEEL",
                "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\nGenerator: test\n",
            )
            archive.writestr(f"{information}/RECORD", "")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def lock(self, name: str, text: str) -> None:
        (self._folder / "requirements" / "lock" / f"{name}.txt").write_text(text)

    def run(self, function: str) -> subprocess.CompletedProcess[str]:
        """Calls a function of set-up, in mode wheels; no index can be reached."""
        scripts = REPOSITORY / "scripts" / "setup"
        script = f"""
            for part in common detect packages torch; do source {scripts}/$part.sh; done
            root={self._folder} venv={self._folder}/venv log={self._folder}/log mode=wheels ros_distro=jazzy
            torch_cpu_index=http://127.0.0.1:9/simple
            cd "$root"
            {function}
        """
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
            "PYTHONPATH": str(self.target),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_RETRIES": "0",
            "PIP_TARGET": str(self.target),
        }
        command = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@_NEEDS_PIP
def test_altered_wheel_is_refused_by_name(installation: Installation) -> None:
    digest = installation.wheel("good", "1.0")
    installation.lock("runtime", f"good==1.0 --hash=sha256:{digest}\n")
    altered = installation.wheel("good", "1.0", "print('altered')")

    result = installation.run("install_wheels")

    assert result.returncode == 1
    assert not list(installation.target.iterdir()), "something of it was installed"
    assert "good==1.0" in result.stderr, result.stderr
    assert digest in result.stderr
    assert altered in result.stderr
    assert "A file is not the one that requirements/lock/ names" in result.stderr


@_NEEDS_PIP
def test_altered_torch_is_not_taken_from_elsewhere_without_a_hash(installation: Installation) -> None:
    installation.lock("torch-cpu", f"torch==2.99.0+cpu --hash=sha256:{'0' * 64}\n")
    installation.wheel("torch", "2.99.0+cpu")

    result = installation.run("install_torch_cpu torch==2.99.0 || refused_files")

    assert "A file is not the one that requirements/lock/ names" in result.stdout
    assert not list(installation.target.iterdir())


@_NEEDS_PIP
def test_torch_without_a_known_hash_is_said(installation: Installation) -> None:
    digest = installation.wheel("torch", "2.99.0+cpu")
    installation.lock("torch-cpu", f'torch==2.99.0+cpu ; python_version < "3" --hash=sha256:{digest}\n')

    result = installation.run("install_torch_cpu torch==2.99.0")

    assert result.returncode == 0, result.stderr
    assert "names no file for this Python" in result.stdout
    assert (installation.target / "torch.py").exists()
