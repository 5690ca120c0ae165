"""The rules of ARCHITECTURE.md that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_MODULE = REPOSITORY / "ros2_ws" / "src" / "feature_frontend" / "feature_frontend"
_ROS_PACKAGES = {
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "feature_frontend_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "message_filters",
    "nav_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
}
_MAX_LINES = 600
# Files that may be longer, each with the reason.
_LONGER_FILES: dict[str, str] = {}

_BLOCKED_IMPORT = """
import sys
blocked = {blocked!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
import importlib
for name in {modules!r}:
    importlib.import_module(name)
from feature_frontend import load_matcher
from feature_frontend.settings import Settings
load_matcher("mnn")
Settings()
"""


def _core_files() -> list[Path]:
    return [
        path
        for path in sorted(_MODULE.rglob("*.py"))
        if path.relative_to(_MODULE).parts[0] not in {"ros", "tools", "__main__.py"}
    ]


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_the_core_runs_without_ros() -> None:
    modules = [
        ".".join(("feature_frontend", *path.relative_to(_MODULE).with_suffix("").parts)).removesuffix(".__init__")
        for path in _core_files()
    ]
    assert "feature_frontend.pipeline.frontend" in modules
    code = _BLOCKED_IMPORT.format(blocked=_ROS_PACKAGES, modules=modules)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=_MODULE.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", _core_files(), ids=lambda path: str(path.relative_to(_MODULE)))
def test_the_core_names_no_ros_package_no_tool_and_no_training(path: Path) -> None:
    forbidden = {
        name
        for name in _imports(path)
        if name.split(".")[0] in _ROS_PACKAGES
        or name.startswith(("feature_frontend.ros", "feature_frontend.tools"))
        or (name.startswith("feature_frontend_lab.training") and "training" not in path.parts)
    }
    assert not forbidden


# What builds any object that a file names. MegaDepth's files are pickled by their authors; only exact names are let in.
_EXECUTES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
_UNPICKLES = re.compile(r"Unpickler|pickle\.load|allow_pickle=True|find_class")
_MAY_UNPICKLE = {"training/aliked/object_arrays.py"}


def test_nothing_reads_objects_from_a_file() -> None:
    found = []
    for path in sorted(_MODULE.rglob("*.py")):
        name, text = path.relative_to(_MODULE).as_posix(), path.read_text(encoding="utf-8")
        if name in _MAY_UNPICKLE:
            continue
        if {imported.split(".")[0] for imported in _imports(path)} & _EXECUTES or _UNPICKLES.search(text):
            found.append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if called in {"eval", "exec"} or (called == "torch.load" and options.get("weights_only") != "True"):
                    found.append(f"{name}:{node.lineno}")
    assert not found


def test_homes_of_users_are_looked_up_by_what_never_raises() -> None:
    # `Path.expanduser` raises RuntimeError for the home of nobody: `runtime/files.user_path` is for that.
    raising = re.compile(r"(?<!os\.path)\.expanduser\(")
    assert not [path.name for path in sorted(_MODULE.rglob("*.py")) if raising.search(path.read_text(encoding="utf-8"))]


def test_no_file_is_long_without_a_reason() -> None:
    folders = (REPOSITORY / "ros2_ws" / "src", *(REPOSITORY / name for name in ("examples", "scripts", "tests")))
    long_files = {
        str(path.relative_to(REPOSITORY))
        for folder in folders
        for path in folder.rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > _MAX_LINES
    }
    assert long_files == set(_LONGER_FILES)


def test_launch_and_config_at_the_top_are_those_of_the_package() -> None:
    for name in ("launch", "config"):
        link = REPOSITORY / name
        assert link.is_symlink()
        assert not Path(link.readlink()).is_absolute()
        assert link.resolve() == _MODULE.parent / name
