"""`python -m feature_frontend TOOL ...`: runs a tool by name, even without `ros2 run`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.system.text import quoted
from feature_frontend.tools.common.guard import open_standard_streams, run_tool
from feature_frontend.tools.common.limits import address_space_problem, files_problem, require

TOOLS = {
    "frontend": ("feature_frontend.ros.main", "the ROS 2 node: images in; features, matches, tracks, status out"),
    "play": ("feature_frontend.tools.play", "publish a folder, video, bag or webcam as ROS 2 images"),
    "record": ("feature_frontend.tools.record", "record the node's topics into a rosbag2"),
    "process": ("feature_frontend.tools.process", "process bags, videos and folders offline, into rosbag2 bags"),
    "vins": ("feature_frontend.ros.adapters.vins", "republish tracks as VINS-Fusion's feature topic"),
    "rtabmap": ("feature_frontend.ros.adapters.rtabmap", "join features, images and depth for RTAB-Map"),
    "weights": ("feature_frontend.tools.weights", "list, fetch and verify the published weights"),
    "doctor": ("feature_frontend.tools.doctor", "check machine, installation and topics, and say what to do"),
    "parameters": ("feature_frontend.tools.parameters", "print the node's parameters as a table or as YAML"),
}
# Tools of the package feature_frontend_lab. Any package can register tools by entry points of this group.
_GROUP = "feature_frontend.tools"
LAB_TOOLS = {
    "demo": "play a sequence through the node, report and draw what came out",
    "evaluate": "measure extractors on warped photographs, and tracks on sequences",
    "export": "write features and matches of a bag or of images for COLMAP",
    "train": "train a network on images, videos or bags of your own",
}

_WITH_TORCH = ("frontend", "process", "demo", "evaluate", "export", "train")
_WITH_ROS = ("frontend", "play", "record", "demo", "vins", "rtabmap")


def usage() -> str:
    """The list of tools, one per line."""
    known = {name: what for name, (_, what) in TOOLS.items()} | {
        name: f"{what} (feature_frontend_lab)" for name, what in LAB_TOOLS.items()
    }
    others = {name: f"of {module.partition('.')[0]}" for name, module in _registered().items() if name not in known}
    rows = "\n".join(f"  {name:<12}{what}" for name, what in (known | others).items())
    return f"usage: feature_frontend TOOL [arguments]\n\ntools:\n{rows}\n\n`feature_frontend TOOL --help` says more."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool that the first argument names and returns its exit status.

    Without `argv`, uses the process's own arguments; if the process was started under the name of a tool, as
    `ros2 run` does, runs that tool. Reports any error in one line (`tools/common/guard.py`).
    """
    if argv is not None:
        return run_tool(lambda: _run(list(argv), is_process=False))
    open_standard_streams()
    name = Path(sys.argv[0]).name
    arguments = [name, *sys.argv[1:]] if name in TOOLS or name in LAB_TOOLS else sys.argv[1:]
    return run_tool(lambda: _run(arguments, is_process=True))


def _registered() -> dict[str, str]:
    """Modules of the tools that other packages register, by name."""
    return {point.name: point.module for point in entry_points(group=_GROUP)}


def _module_of(name: str) -> str:
    """The module of a tool; empty if no tool has that name.

    Raises:
        FeatureFrontendError: The tool's package is not installed.
    """
    if name in TOOLS:
        return TOOLS[name][0]
    registered = _registered()
    if name in registered:
        return registered[name]
    if name in LAB_TOOLS:
        raise FeatureFrontendError(
            f"{name!r} is a tool of the package feature_frontend_lab, which is not installed: build it beside this one "
            "(colcon build), or type `pip install` and the path of ros2_ws/src/feature_frontend_lab"
        )
    return ""


def _check_argument(argument: str) -> None:
    """Rejects an argument that no shell can pass but a Python caller can.

    Raises:
        FeatureFrontendError: The argument cannot be a file name.
    """
    try:
        is_possible = b"\0" not in os.fsencode(argument)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise FeatureFrontendError(f"an argument holds a zero byte or half a character: {quoted(argument)}")


def _run(arguments: Sequence[str], *, is_process: bool) -> int:
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    module_name = _module_of(name)
    if not module_name:
        names = dict.fromkeys([*TOOLS, *LAB_TOOLS, *_registered()])
        print(f"error: no tool is called {quoted(name)}; expected one of {', '.join(names)}", file=sys.stderr)
        return 2
    for argument in rest:
        _check_argument(argument)
    if name in _WITH_TORCH:
        require(address_space_problem())
    if name in _WITH_ROS:
        require(files_problem())
    module = importlib.import_module(module_name)
    if not is_process:
        return int(module.main(rest))
    # The tool owns the process, so it may change process-wide state that it must not change for a caller.
    sys.argv[1:] = rest
    # Imports take seconds: let Ctrl-C end them without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    module = importlib.import_module(module_name)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return int(module.main())


if __name__ == "__main__":
    raise SystemExit(main())
