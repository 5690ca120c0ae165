"""One run: recorder, node and player run side by side until the bag contains a status for every image."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

import feature_frontend
from feature_frontend.errors import DemoError
from feature_frontend_lab.demo.processes import Process, ProcessGroup, ros_environment

__all__ = ["PlayOptions", "Session"]

# The first start of a node may have to download its weights.
START_TIMEOUT_S = 900.0
STALL_TIMEOUT_S = 180.0
LATE_MESSAGES_S = 5.0
STOP_TIMEOUT_S = 30.0
# Prefixes of the node's log lines: weights were downloaded; the fallback extractor replaces the requested one.
FETCHED, STAND_IN = "fetched ", "using "
PROFILE = "fastdds_shared_memory.xml"


@dataclass(frozen=True)
class PlayOptions:
    """Playback options.

    Attributes:
        source: Any source accepted by `play`.
        camera_info: Calibration file to play with it; None if the source has its own or none is needed.
        count: Number of images to play; None for all.
        topic: Image topic of a bag that has several.
    """

    source: str
    camera_info: Path | None
    count: int | None
    topic: str | None


class Session:
    """Recorder and node, started when the context is entered and stopped when it is left.

    Args:
        bag: The bag to write; must not exist.
        logs: Folder for the output of the processes.
        parameters: The node's parameters by name.
    """

    def __init__(self, bag: Path, logs: Path, parameters: Mapping[str, str | int]) -> None:
        self._logs = logs
        self._group = ProcessGroup(logs, ros_environment(_profile()))
        self._recorder_arguments = ["record", str(bag), "--events"]
        self._node_arguments = ["frontend", *_ros_parameters(parameters)]

    def __enter__(self) -> Self:
        """Starts both; they initialise in the background."""
        self._recorder = self._group.start("recorder", self._recorder_arguments, has_events=True)
        self._node = self._group.start("node", self._node_arguments)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops the processes still running."""
        self._group.__exit__(kind, error, traceback)

    def check(self) -> None:
        """Checks that both are still running.

        Raises:
            DemoError: One has ended; the message contains its error.
        """
        self._group.check()

    def play(self, options: PlayOptions, on_status: Callable[[int], None]) -> str:
        """Plays a source through the node and completes the bag.

        Args:
            options: What to play.
            on_status: Called with the number of completed frames whenever it increases.

        Returns:
            The node's description of itself when ready: extractor, device, precision, matcher.

        Raises:
            DemoError: A process failed, or nothing was recorded for too long.
        """
        _wait_until_ready(self._group, self._recorder)
        for beginning in (FETCHED, STAND_IN):
            notice = self._node.find_in_log(beginning)
            if notice:
                print(f"note: {beginning}{notice}", file=sys.stderr, flush=True)
        player = self._group.start("player", _player_arguments(options))
        _follow(self._group, self._recorder, player, on_status)
        self._recorder.interrupt()
        if not self._recorder.wait(STOP_TIMEOUT_S):
            raise DemoError(
                f"the recorder did not complete the bag within {STOP_TIMEOUT_S:g} s; see {self._logs}/recorder.log"
            )
        if self._recorder.exit_status != 0:
            raise DemoError(
                f"the recorder ended with exit status {self._recorder.exit_status}: {self._recorder.last_words()}"
            )
        return self._node.find_in_log("ready: ").partition(";")[0]


def _wait_until_ready(group: ProcessGroup, recorder: Process) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not any(event["event"] == "ready" for event in recorder.new_events()):
        group.check()
        if time.monotonic() > deadline:
            raise DemoError(f"the node did not start within {START_TIMEOUT_S:g} s")
        group.pause()


def _follow(group: ProcessGroup, recorder: Process, player: Process, on_status: Callable[[int], None]) -> None:
    """Returns when the player has ended and every recorded image has a status, or no more statuses arrive."""
    counts = {"image": 0, "status": 0}
    last_news_s = time.monotonic()
    while True:
        group.check(may_have_ended=player)
        for event in recorder.new_events():
            if event["event"] == "progress" and event["messages"] != counts:
                counts = event["messages"]
                last_news_s = time.monotonic()
                on_status(counts["status"])
        silence_s = time.monotonic() - last_news_s
        if player.exit_status == 0:
            is_complete = counts["status"] >= counts["image"] > 0
            if silence_s > (1.0 if is_complete else LATE_MESSAGES_S):
                return
        elif silence_s > STALL_TIMEOUT_S:
            raise DemoError(
                f"nothing has been recorded for {STALL_TIMEOUT_S:g} s, after {counts['image']} images and "
                f"{counts['status']} statuses; player: {player.last_words()}"
            )
        group.pause()


def _player_arguments(options: PlayOptions) -> list[str]:
    # In step with the node, one image at a time: this measures the latency of processing, not of a queue.
    arguments = ["play", options.source, "--rate", "0", "--in-step-with", "status", "--backlog", "1"]
    # The recorder also listens to the images.
    arguments += ["--wait-for-subscribers", "2", "--wait-timeout", f"{STALL_TIMEOUT_S:g}"]
    if options.camera_info is not None:
        arguments += ["--camera-info", str(options.camera_info)]
    if options.count is not None:
        arguments += ["--count", str(options.count)]
    if options.topic is not None:
        arguments += ["--topic", options.topic]
    return arguments


def _ros_parameters(parameters: Mapping[str, str | int]) -> Sequence[str]:
    arguments = ["--ros-args"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    return arguments


def _profile() -> Path:
    """The package's FastDDS profile, in the source tree or where the package is installed."""
    in_source = Path(feature_frontend.__file__).resolve().parents[1] / "config" / PROFILE
    if in_source.is_file():
        return in_source
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError:
        return in_source
    try:
        return Path(get_package_share_directory("feature_frontend")) / "config" / PROFILE
    except PackageNotFoundError:
        return in_source
