"""The messages of feature_frontend_msgs for this Python: a few C files, compiled unless already done.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["PACKAGE", "SOURCES", "compile_messages", "messages_work", "own_include_folders"]

PACKAGE = "feature_frontend_msgs"
# Under the prefix: the generated C files of the Python bindings, and the headers they include.
SOURCES = f"src/{PACKAGE}"
_TYPE_SUPPORTS = ("rosidl_typesupport_c", "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")
_DEPENDENCIES = ("std_msgs", "service_msgs", "builtin_interfaces")
_TIMEOUT_S = 60.0
_TRY = f"""
import numpy
import rclpy.type_support
from {PACKAGE}.msg import Features, FrameStatus, Matches, Tracks
from {PACKAGE}.srv import MatchFrames
from rclpy.serialization import deserialize_message, serialize_message
for kind in (Features, FrameStatus, Matches, Tracks):
    rclpy.type_support.check_for_type_support(kind)
    assert deserialize_message(serialize_message(kind()), kind) == kind()
rclpy.type_support.check_for_type_support(MatchFrames)
"""


def messages_work(environment: dict[str, str]) -> str:
    """Empty if this Python can serialise the messages in `environment`; otherwise the error."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", _TRY],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.SubprocessError as error:
        return str(error)
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or [f"its process ended with {result.returncode}"])[-1]


def compile_messages(prefix: Path, python: str, include_folders: Sequence[str]) -> None:
    """Compiles the Python-specific part of the messages into `prefix`.

    Args:
        prefix: Folder with `SOURCES`, and with the libraries of ROS 2 and of the messages in lib/.
        python: Version, for example "3.12".
        include_folders: Folders of Python.h and NumPy's headers.

    Raises:
        OSError: There is no compiler.
        subprocess.SubprocessError: The compiler fails; its output is in the error.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or "cc"
    sources = prefix / SOURCES
    library = prefix / "lib" / f"lib{PACKAGE}__rosidl_generator_py.so"
    package = prefix / "lib" / f"python{python}" / "site-packages" / PACKAGE
    options = ["-O2", "-fPIC", f'-DROS_PACKAGE_NAME="{PACKAGE}"', f"-I{sources / 'include'}"]
    options += [f"-I{folder}" for folder in include_folders]
    with tempfile.TemporaryDirectory(prefix="messages_") as folder:

        def compiled(source: Path) -> Path:
            target = Path(folder) / f"{source.parent.name}_{source.name}.o"
            _run([compiler, *options, "-c", str(source), "-o", str(target)])
            return target

        def extension(type_support: str) -> None:
            object_file = compiled(sources / f"_{PACKAGE}_s.ep.{type_support}.c")
            target = package / f"{PACKAGE}_s__{type_support}.so"
            needs = [
                str(library),
                *_libraries(prefix, PACKAGE, type_support, "rosidl_typesupport_c", "rosidl_generator_c"),
            ]
            needs += [str(prefix / "lib" / f"lib{type_support}.so"), str(prefix / "lib" / "librosidl_runtime_c.so")]
            _link(compiler, [object_file], target, needs)

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compiled, sorted(sources.glob("*/_*_s.c"))))
            needs = _libraries(prefix, PACKAGE, "rosidl_typesupport_c", "rosidl_generator_c")
            for dependency in _DEPENDENCIES:
                needs += _libraries(prefix, dependency, "rosidl_generator_py", "rosidl_generator_c")
            needs.append(str(prefix / "lib" / "librosidl_runtime_c.so"))
            _link(compiler, objects, library, needs, f"-Wl,-soname,{library.name}")
            list(pool.map(extension, _TYPE_SUPPORTS))


def own_include_folders() -> list[str]:
    """Folders of the headers of this Python and its NumPy."""
    import numpy

    return [sysconfig.get_paths()["include"], numpy.get_include()]


def _libraries(prefix: Path, package: str, *kinds: str) -> list[str]:
    paths = dict.fromkeys(prefix / "lib" / f"lib{package}__{kind}.so" for kind in kinds)
    return [str(path) for path in paths if path.exists()]


def _link(compiler: str, objects: Sequence[Path], target: Path, needs: Sequence[str], *options: str) -> None:
    # The libraries' own dependencies are resolved when Python loads them, by LD_LIBRARY_PATH.
    always = ["-shared", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
    _run([compiler, *always, *options, "-o", str(target), *map(str, objects), *needs])


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
        message = f"{Path(command[0]).name}: {lines[0] if lines else result.returncode}"
        raise subprocess.SubprocessError(message)
