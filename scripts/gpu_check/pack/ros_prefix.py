"""ROS 2 and this project's messages for another Python, from the wheels and the results of `make setup`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.images import REPOSITORY
from scripts.gpu_check.messages import PACKAGE, SOURCES, compile_messages, own_include_folders
from scripts.gpu_check.pack.wheels import unpack

__all__ = ["find_python", "make_ros_prefix", "message_inputs"]

_INCLUDE = Path(sys.prefix) / "include"
_HEADERS_OF = """
import os, sysconfig
folder = sysconfig.get_paths()["include"]
print(folder if os.path.exists(os.path.join(folder, "Python.h")) else "")
"""


def find_python(version: str) -> tuple[str, str] | None:
    """A Python of that version on this machine with headers: executable and folder; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), f"/usr/bin/python{version}"]
    candidates += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)]
    for candidate in candidates:
        # Verified by running it: pyenv leaves stubs behind that only print an error.
        if candidate and Path(candidate).exists():
            result = subprocess.run([candidate, "-c", _HEADERS_OF], capture_output=True, text=True, check=False)
            if result.returncode == 0 and result.stdout.strip():
                return candidate, result.stdout.strip()
    return None


def message_inputs() -> list[Path]:
    """The files of the built messages to include.

    Raises:
        FileNotFoundError: `make setup` has not built them with the ROS 2 wheels.
    """
    sources = [path for path in _generated().rglob("*") if path.suffix in {".c", ".py"}]
    if not sources or not (_INCLUDE / "rosidl_runtime_c").is_dir():
        msg = (
            f"the messages built with the wheels of ROS 2 are not in {_install()} and {_INCLUDE}: run make setup on a "
            "machine without a ROS installation"
        )
        raise FileNotFoundError(msg)
    return [*sources, *_libraries(), *_shared_files()]


def make_ros_prefix(prefix: Path, wheels: Sequence[Path], python: str) -> str:
    """Fills `prefix` with ROS 2 and the messages; returns why the messages must be compiled on the target, or empty."""
    for wheel in wheels:
        unpack(wheel, prefix, python, only_to_run=True)
    _copy_messages(prefix, python)
    found = find_python(python)
    if found is None:
        return f"there is no Python {python} with its headers here"
    compile_messages(prefix, python, [found[1], own_include_folders()[1]])
    return ""


def _copy_messages(prefix: Path, python: str) -> None:
    package = prefix / "lib" / f"python{python}" / "site-packages" / PACKAGE
    generated = _generated()
    for path in generated.rglob("*"):
        if path.suffix == ".py":
            _copy(path, package / path.relative_to(generated))
        elif path.suffix == ".c":
            _copy(path, prefix / SOURCES / path.relative_to(generated))
    for library in _libraries():
        _copy(library, prefix / "lib" / library.name)
    for path in _shared_files():
        _copy(path, prefix / path.relative_to(_install()))
    _copy_headers(prefix / SOURCES)


def _copy_headers(sources: Path) -> None:
    """The headers included by the sources, apart from Python's and NumPy's, in one folder."""
    roots = [_build() / "rosidl_generator_c", *sorted(_INCLUDE.iterdir()), _INCLUDE]
    options = [f"-I{folder}" for folder in (*roots, *own_include_folders())]
    for source in sources.rglob("*.c"):
        command = [os.environ.get("CC", "cc"), "-M", f'-DROS_PACKAGE_NAME="{PACKAGE}"', *options, str(source)]
        rule = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for path in map(Path, rule.replace("\\\n", " ").split()[1:]):
            root = next((each for each in roots if each in path.parents), None)
            if root is not None:
                _copy(path, sources / "include" / path.relative_to(root))


def _install() -> Path:
    """The prefix of the messages in this environment, next to colcon's build folder."""
    for folder in os.environ.get("AMENT_PREFIX_PATH", "").split(":"):
        if (Path(folder) / "share" / PACKAGE / "package.xml").is_file():
            return Path(folder)
    return REPOSITORY / "ros2_ws" / "install" / PACKAGE


def _build() -> Path:
    return _install().parents[1] / "build" / PACKAGE


def _generated() -> Path:
    return _build() / "rosidl_generator_py" / PACKAGE


def _libraries() -> list[Path]:
    # All except the library that depends on the Python version.
    return [path for path in sorted((_install() / "lib").glob("lib*.so")) if not path.name.endswith("generator_py.so")]


def _shared_files() -> list[Path]:
    share = _install() / "share"
    index = [path for path in (share / "ament_index").rglob("*") if path.is_file()]
    return sorted([*share.rglob("*.msg"), *share.rglob("*.srv"), *index, share / PACKAGE / "package.xml"])


def _copy(path: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
