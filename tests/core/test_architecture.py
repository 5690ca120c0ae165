"""The rules of ARCHITECTURE.md that can be checked automatically."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_SOURCES = REPOSITORY / "ros2_ws" / "src"
_MODULE = _SOURCES / "feature_frontend" / "feature_frontend"
_LAB = _SOURCES / "feature_frontend_lab" / "feature_frontend_lab"
# From the ground up: a room imports only what stands before it.
_ROOMS = (
    *("system", "errors", "types", "runtime", "image", "camera", "models", "settings"),
    *("extractors", "matchers", "geometry", "stereo", "tracking", "pipeline", "sources", "api"),
    *("ros", "tools"),
)
_ROOMS_OF_ROS = ("input", "output", "playback", "adapters")
_ROOMS_OF_LAB = ("rendering", "odometry", "evaluation", "training", "export", "demo")
_LOOSE_MODULES = {"__init__", "__main__", "types", "errors", "api"}
_ROS_PACKAGES = {
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "feature_frontend_msgs",
    "foxglove_msgs",
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
    "visualization_msgs",
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


def _modules() -> dict[str, Path]:
    """The files of both packages by the names of their modules."""
    found = {}
    for package in (_MODULE, _LAB):
        for path in sorted(package.rglob("*.py")):
            name = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
            found[name.removesuffix(".__init__")] = path
    return found


def _arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each one imports, wherever in it, for annotations too."""
    arrows: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
                arrows[name] |= {full if full in modules else node.module for full in wanted}
            elif isinstance(node, ast.Import):
                arrows[name] |= {alias.name for alias in node.names}
        arrows[name] = {target for target in arrows[name] if target in modules and target != name}
    return arrows


def _room(name: str, package: str, rooms: tuple[str, ...]) -> int | None:
    """The floor of a module's room; None where it is in none of them."""
    rest = name.removeprefix(f"{package}.").split(".")[0]
    return rooms.index(rest) if name.startswith(f"{package}.") and rest in rooms else None


def _climbs(package: str, rooms: tuple[str, ...]) -> list[str]:
    """Imports of what stands above, between the rooms of a package."""
    climbs = []
    for name, targets in _arrows(_modules()).items():
        for target in targets:
            own, other = _room(name, package, rooms), _room(target, package, rooms)
            if own is not None and other is not None and other > own:
                climbs.append(f"{name} -> {target}")
    return climbs


def test_a_room_imports_only_what_stands_below() -> None:
    assert _climbs("feature_frontend", _ROOMS) == []
    assert _climbs("feature_frontend.ros", _ROOMS_OF_ROS) == []
    assert _climbs("feature_frontend_lab", _ROOMS_OF_LAB) == []


def test_every_module_is_in_a_room() -> None:
    folders = {path.parent.name for path in _MODULE.glob("*/__init__.py")}
    assert folders | (_LOOSE_MODULES - {"__init__", "__main__"}) == set(_ROOMS)
    assert {path.stem for path in _MODULE.glob("*.py")} == _LOOSE_MODULES
    assert {path.stem for path in _LAB.glob("*.py")} == {"__init__"}
    assert {path.parent.name for path in _LAB.glob("*/__init__.py")} == set(_ROOMS_OF_LAB)


def _siblings(name0: str, name1: str) -> tuple[str, str] | None:
    """The modules or packages, side by side in one package, of which one holds the first and one the second."""
    parts0, parts1 = name0.split("."), name1.split(".")
    depth = next((i for i, (one, other) in enumerate(zip(parts0, parts1, strict=False)) if one != other), None)
    return None if depth is None else (".".join(parts0[: depth + 1]), ".".join(parts1[: depth + 1]))


def test_no_modules_or_packages_import_each_other_in_a_circle() -> None:
    modules = _arrows(_modules())
    between: dict[str, set[str]] = {}
    for name, targets in modules.items():
        for own, other in filter(None, (_siblings(name, target) for target in targets)):
            between.setdefault(own, set()).add(other)
            between.setdefault(other, set())
    for arrows in (modules, between):
        # What imports nothing that is left leaves.
        while leaves := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
            for name in leaves:
                del arrows[name]
        assert not arrows


def test_the_engine_knows_nothing_of_the_lab() -> None:
    assert [path.name for path in sorted(_MODULE.rglob("*.py")) if "feature_frontend_lab" in _roots(path)] == []


def _roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


@pytest.mark.parametrize("path", _core_files(), ids=lambda path: str(path.relative_to(_MODULE)))
def test_the_core_names_no_ros_package(path: Path) -> None:
    assert not _roots(path) & _ROS_PACKAGES


def test_parameters_are_known_without_a_network_library() -> None:
    code = "import sys, feature_frontend.settings; print({'torch', 'cv2'} & sys.modules.keys())"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=_MODULE.parent, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


# What builds any object that a file names. MegaDepth's files are pickled by their authors; only exact names are let in.
_EXECUTES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
_UNPICKLES = re.compile(r"Unpickler|pickle\.load|allow_pickle=True|find_class")
_MAY_UNPICKLE = {"training/aliked/object_arrays.py"}


def test_nothing_reads_objects_from_a_file() -> None:
    found = []
    for path in (*sorted(_MODULE.rglob("*.py")), *sorted(_LAB.rglob("*.py"))):
        name, text = (
            path.relative_to(_LAB if _LAB in path.parents else _MODULE).as_posix(),
            path.read_text(encoding="utf-8"),
        )
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
    files = [*_MODULE.rglob("*.py"), *_LAB.rglob("*.py")]
    assert not [path.name for path in sorted(files) if raising.search(path.read_text(encoding="utf-8"))]


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
