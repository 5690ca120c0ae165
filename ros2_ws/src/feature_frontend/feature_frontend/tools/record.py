"""`record`: writes the front-end's topics to a rosbag2, on any machine with rclpy; rosbag2 is not required."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from ament_index_python.packages import get_package_share_directory
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.ros.input.camera_info_topic import CameraInfoTopic
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.start_errors import check_ros_arguments, readable_start
from feature_frontend.sources.bags.stamps import header_stamp_ns
from feature_frontend.system.files import print_any_name, readable_name
from feature_frontend.tools.common.arguments import Parser, above_zero, positive, without_ros_arguments
from feature_frontend.tools.common.bag_writer import (
    STORAGES,
    BagWriter,
    check_new_folder,
    message_type_name,
    typestore_with,
)
from feature_frontend.tools.common.guard import run_tool

__all__ = ["TOPICS", "main"]

# Each type begins with a std_msgs/Header, which provides the times in the bag.
TOPICS: dict[str, type] = {
    "image": Image,
    "image/compressed": CompressedImage,
    "camera_info": CameraInfo,
    "features": Features,
    "matches": Matches,
    "tracks": Tracks,
    "status": FrameStatus,
}
_OF_THE_NODE = ("features", "matches", "tracks", "status")
_OF_THE_CAMERA = ("image", "image/compressed", "camera_info")
# Usually only one of the two image topics is published.
_DEFAULT_TOPICS = [name for name in TOPICS if name != "image/compressed"]

_DEPTH = 1000
_REMEMBERED = 64  # maximum number of camera_info messages received by one subscription and not yet by the other
_SETTLE_S = 0.5
_PROGRESS_PERIOD_S = 0.25
_KEEP_PERIOD_S = 1.0  # maximum loss by a kill or a full disk
_NOTHING_ARRIVED = "no message arrived; are the node and a camera or player running, and the topics remapped to theirs?"
_EPILOG = """\
Topics are recorded by their relative names; remap them or set a namespace as usual:
--ros-args -r image:=/camera/image_raw -r __ns:=/robot. The messages are written unchanged, byte by byte.

Ctrl-C ends the recording and completes the bag. The last line of the output is a JSON object with the counts."""


class Recorder:
    """Subscribes to the topics and writes their messages."""

    def __init__(self, node: Node, bag: BagWriter, topics: Sequence[str], image_qos: str, by_header: bool) -> None:
        self._node = node
        self._bag = bag
        self._by_header = by_header
        self._relative_names: dict[str, str] = {}
        self.last_arrival_s: float | None = None
        for name in topics:
            qos = qos_profile(image_qos if name in _OF_THE_CAMERA else "reliable", _DEPTH)
            resolved = node.resolve_topic_name(name)
            bag.add_topic(resolved, message_type_name(TOPICS[name]))
            self._relative_names[resolved] = name
            write = self._writer_of(resolved)
            if name == "camera_info":
                CameraInfoTopic(node, name, _once_of_two(write), image_qos, _DEPTH, raw=True)
            else:
                node.create_subscription(TOPICS[name], name, write, qos, raw=True)

    @property
    def counts(self) -> dict[str, int]:
        """Number of messages recorded, by relative topic name."""
        return {self._relative_names[topic]: count for topic, count in self._bag.counts.items()}

    def hears_the_node(self) -> bool:
        """Whether each recorded topic of the front-end has a publisher."""
        return all(
            self._node.count_publishers(resolved) > 0
            for resolved, name in self._relative_names.items()
            if name in _OF_THE_NODE
        )

    def _writer_of(self, topic: str) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            self.last_arrival_s = time.monotonic()
            time_ns = header_stamp_ns(data) if self._by_header else time.time_ns()
            self._bag.write(topic, time_ns, data)

        return write


def _once_of_two(write: Callable[[bytes], None]) -> Callable[[bytes, bool], None]:
    """Writes messages of two subscriptions, and only once if they arrive by both."""
    written: deque[tuple[bytes, bool]] = deque(maxlen=_REMEMBERED)

    def take(data: bytes, is_second: bool) -> None:
        of_other = data, not is_second
        if of_other in written:
            written.remove(of_other)
        else:
            write(data)
            written.append((data, is_second))

    return take


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0, also if interrupted, or 1 for an error (printed in one line)."""
    print_any_name()
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(without_ros_arguments(arguments))
    return run_tool(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    check_ros_arguments(arguments)
    _check(options)
    stop = threading.Event()
    _set_on(stop, signal.SIGINT, signal.SIGTERM)
    summary = _record(options, arguments, stop)
    print(json.dumps(summary), flush=True)
    if not any(summary["messages"].values()):
        shutil.rmtree(options.output)
        raise FeatureFrontendError(_NOTHING_ARRIVED)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="record", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("output", type=Path, metavar="BAG", help="folder of the bag; must not exist")
    add("--storage", choices=tuple(STORAGES), default="sqlite3", help="file format (default sqlite3)")
    add(
        "--topics",
        nargs="+",
        choices=tuple(TOPICS),
        default=_DEFAULT_TOPICS,
        help=f"some of {', '.join(TOPICS)} (default: all but image/compressed)",
        metavar="TOPIC",
    )
    add("--frames", type=positive, metavar="N", help="end when N status messages have been recorded")
    add(
        "--idle-timeout",
        type=above_zero,
        metavar="S",
        help="end when none has arrived for S seconds after the first",
    )
    add(
        "--times",
        choices=("header", "received"),
        default="header",
        help="times in the bag: the stamps of the headers (default), or when the messages arrived, for a camera that "
        "does not set its stamps",
    )
    add(
        "--image-qos",
        choices=("reliable", "sensor_data"),
        default="reliable",
        help="of image and camera_info; a camera that publishes best effort needs sensor_data (default reliable)",
    )
    add("--events", action="store_true", help="also print JSON lines: ready (the node's topics are there), progress")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Checks the options before ROS is started."""
    if options.frames is not None and "status" not in options.topics:
        raise SettingsError(
            f"--frames counts status messages, but the topics are {' '.join(options.topics)}; expected status too"
        )
    check_new_folder(options.output)


def _record(options: argparse.Namespace, arguments: list[str], stop: threading.Event) -> dict[str, Any]:
    types = {message_type_name(TOPICS[name]) for name in options.topics}
    typestore = typestore_with(types, get_package_share_directory)
    with (
        _node(arguments) as (node, executor),
        BagWriter(options.output, options.storage, typestore) as bag,
    ):
        topics = list(dict.fromkeys(options.topics))
        recorder = Recorder(node, bag, topics, options.image_qos, options.times == "header")
        print(f"recording {' '.join(bag.counts)} into {options.output}", file=sys.stderr, flush=True)
        events = _Events(recorder) if options.events else None
        next_keep_s = time.monotonic() + _KEEP_PERIOD_S
        while not stop.is_set() and not _is_over(recorder, options):
            executor.spin_once(timeout_sec=0.05)
            if time.monotonic() >= next_keep_s:
                bag.keep()
                next_keep_s = time.monotonic() + _KEEP_PERIOD_S
            if events is not None:
                events.report()
        _drain(recorder, executor)
        return {
            "event": "finished",
            "bag": str(options.output),
            "storage": options.storage,
            "messages": recorder.counts,
        }


def _is_over(recorder: Recorder, options: argparse.Namespace) -> bool:
    if options.frames is not None and recorder.counts["status"] >= options.frames:
        return True
    return (
        options.idle_timeout is not None
        and recorder.last_arrival_s is not None
        and time.monotonic() - recorder.last_arrival_s > options.idle_timeout
    )


def _drain(recorder: Recorder, executor: SingleThreadedExecutor) -> None:
    """Receives messages still in transit: topics may arrive in another order than published."""
    quiet_since = time.monotonic()
    deadline = quiet_since + 10 * _SETTLE_S
    while time.monotonic() < min(quiet_since + _SETTLE_S, deadline):
        executor.spin_once(timeout_sec=0.05)
        quiet_since = max(quiet_since, recorder.last_arrival_s or quiet_since)


class _Events:
    """Reports the progress of the recording to another program as JSON lines."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._is_ready = False
        self._reported: dict[str, int] = {}
        self._next_s = 0.0

    def report(self) -> None:
        """Prints new events."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _PROGRESS_PERIOD_S
        if not self._is_ready and self._recorder.hears_the_node():
            self._is_ready = True
            print(json.dumps({"event": "ready"}), flush=True)
        counts = self._recorder.counts
        if counts != self._reported:
            self._reported = counts
            print(json.dumps({"event": "progress", "messages": counts}), flush=True)


@contextmanager
def _node(arguments: list[str]) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    arguments = [readable_name(argument) for argument in arguments]
    with readable_start():
        # rclpy's own handlers would shut down the context before the last messages are received and the bag is closed.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        with readable_start():
            node = rclpy.create_node("recorder")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            yield node, executor
        finally:
            executor.shutdown()
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


def _set_on(event: threading.Event, *signals: signal.Signals) -> None:
    # Set explicitly: a shell starts background processes with SIGINT ignored.
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            signal.signal(number, lambda *_: event.set())


if __name__ == "__main__":
    raise SystemExit(main())
