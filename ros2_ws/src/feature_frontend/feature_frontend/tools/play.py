"""`play`: publishes a folder of images, a dataset, a video, a bag or a webcam as a camera and an IMU would."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from tqdm import tqdm

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.ros.playback.player import ENCODINGS, Player, PlayerOptions
from feature_frontend.ros.start_errors import check_ros_arguments, readable_start
from feature_frontend.sources import (
    SOURCE_KINDS,
    ImuMeasurements,
    PlaybackSettings,
    ScheduledFrame,
    Source,
    SourceOptions,
    imu_of,
    open_source,
    schedule,
)
from feature_frontend.sources.image_files import ImageFilesSource
from feature_frontend.sources.imu_playback import ScheduledMeasurement, with_imu
from feature_frontend.sources.playback import DEFAULT_RATE_HZ, STAMP_POLICIES
from feature_frontend.sources.registry import missing_of
from feature_frontend.system.files import print_any_name, readable_name
from feature_frontend.tools.common.arguments import (
    INCOMPLETE,
    Parser,
    natural,
    non_negative,
    positive,
    text,
    topic,
    without_ros_arguments,
)
from feature_frontend.tools.common.guard import run_tool

__all__ = ["main"]

# Subscribers have their own limits; this one is OpenCV's.
_MOST_PIXELS = 2**30
_EPILOG = """\
Publishes sensor_msgs/Image on `image`, with a calibration sensor_msgs/CameraInfo on `camera_info` with the same
header, and of a dataset with an IMU sensor_msgs/Imu on `imu`, each before the images that are not older; remap as
usual: --ros-args -r image:=/camera/image_raw -r imu:=/imu0 -r __ns:=/robot.

Nothing is lost: images are reliable, and at most --backlog of them are unacknowledged. A subscriber slower than the
player still overwrites its own history if that is shallow: give it a KEEP_ALL history, or make the player wait for its
answers, such as: play SOURCE --rate 0 --in-step-with status.

In a loop, the stamps of each round continue one mean interval after the last one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0, also if interrupted, 1 for an error (printed in one line), or `INCOMPLETE`."""
    print_any_name()
    arguments = list(sys.argv[1:] if argv is None else argv)
    _log_to_stderr()
    return run_tool(lambda: _play(arguments), interrupted=lambda: 0)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="play", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="; ".join(kind.expects for kind in SOURCE_KINDS))
    add(
        "--rate",
        type=non_negative,
        metavar="HZ",
        help="images per second, 0: as fast as the subscribers accept them "
        f"(default: the times of the source, or {DEFAULT_RATE_HZ:g} if it has none)",
    )
    add("--loop", action="store_true", help="repeat after the last image")
    add("--start", type=natural, default=0, metavar="N", help="skip the first N images")
    add("--count", type=positive, metavar="N", help="play N images (of each round in a loop; default: all)")
    add(
        "--stamps",
        choices=STAMP_POLICIES,
        default="auto",
        help="from the file names, the source (names, bag headers, video times), the position divided by the rate, or "
        "the clock (default auto: source, else index)",
    )
    add("--camera-info", type=Path, metavar="YAML", help="calibration to publish on camera_info")
    add("--clock", action="store_true", help="publish /clock: the stamp before each message, and at 40 Hz in between")
    add("--wait-for-subscribers", type=natural, default=1, metavar="N", help="on `image`, before starting (default 1)")
    add(
        "--wait-timeout",
        type=non_negative,
        default=30.0,
        metavar="S",
        help="give up waiting for a subscriber, an acknowledgement or an answer after S seconds, 0: never (default 30)",
    )
    add("--frame-id", type=text, metavar="NAME", help="frame of the headers (default: that of the bag, or camera)")
    add("--topic", type=text, metavar="NAME", help="image topic of a bag with several")
    encoding = parser.add_mutually_exclusive_group()
    encoding.add_argument(
        "--encoding",
        choices=ENCODINGS,
        help="default: as stored, mono8 for grey images, rgb8 for colour, mono16, 32FC1, ... for deeper ones",
    )
    encoding.add_argument("--grey", action="store_const", dest="encoding", const="mono8", help="--encoding mono8")
    add("--qos", choices=("reliable", "sensor_data"), default="reliable", help="of the images (default reliable)")
    add(
        "--backlog",
        type=positive,
        default=8,
        metavar="N",
        help="maximum number of unacknowledged or unanswered images (default 8)",
    )
    add(
        "--in-step-with",
        type=topic,
        metavar="TOPIC",
        help="wait for the consumer, which answers each image on this topic with the same stamp, such as `status`",
    )
    return parser


def _play(arguments: list[str]) -> int:
    check_ros_arguments(arguments)
    options = _parser().parse_args(without_ros_arguments(arguments))
    calibration = None if options.camera_info is None else read_calibration_file(options.camera_info)
    source = open_source(options.source, SourceOptions(options.topic, options.rate, _MOST_PIXELS))
    playback = PlaybackSettings(options.rate, options.loop, options.start, options.count, options.stamps)
    frames = schedule(source, playback)
    if calibration is not None:
        frames = (_with_camera(scheduled, calibration) for scheduled in frames)
    imu = _imu(source, playback)
    events: Iterator[ScheduledFrame | ScheduledMeasurement] = frames
    if imu is not None and isinstance(source, ImageFilesSource):
        events = with_imu(frames, source, imu, playback)
    player_options = PlayerOptions(
        qos=options.qos,
        encoding=options.encoding,
        frame_id=options.frame_id,
        backlog=options.backlog,
        wait_timeout_s=options.wait_timeout,
        in_step_with=options.in_step_with,
        clock=options.clock,
        camera_info=calibration is not None or source.has_camera,
        imu=imu,
    )
    # Before waiting for subscribers: report an unreadable source at once.
    first = next(events)
    with _spinning_node(arguments) as node:
        player = Player(node, player_options)
        measurements = "" if imu is None else f", with {len(imu.stamps_ns)} measurements of its IMU"
        print(f"playing {source.description} on {player.topic}{measurements}", flush=True)
        if options.wait_for_subscribers:
            print(f"waiting for {options.wait_for_subscribers} subscriber(s) on {player.topic}", flush=True)
        player.wait_for_subscribers(options.wait_for_subscribers)
        if options.rate == 0 and options.in_step_with is None and player.has_best_effort_subscriber:
            _logger.warning(
                "a subscriber of %s takes images best effort and may lose some at this rate; subscribe reliably, or "
                "use --in-step-with TOPIC",
                player.topic,
            )
        _publish(player, itertools.chain([first], events), _total(source, playback))
    return INCOMPLETE if missing_of(source) else 0


def _imu(source: Source, playback: PlaybackSettings) -> ImuMeasurements | None:
    """The IMU to play; None if there is none, or if the images do not keep the stamps of the source."""
    if playback.stamps not in {"index", "clock"}:
        return imu_of(source)
    if imu_of(source) is not None:
        _logger.warning("the IMU is not played with --stamps %s: it has the stamps of the source", playback.stamps)
    return None


def _total(source: Source, playback: PlaybackSettings) -> int | None:
    if playback.loop or source.frame_count is None:
        return None if playback.loop else playback.count
    rest = max(source.frame_count - playback.start, 0)
    return rest if playback.count is None else min(rest, playback.count)


def _publish(player: Player, events: Iterator[ScheduledFrame | ScheduledMeasurement], total: int | None) -> None:
    started = time.monotonic()
    try:
        with tqdm(total=total, unit=" images", disable=None, leave=False) as progress:
            for event in events:
                if isinstance(event, ScheduledMeasurement):
                    player.publish_measurement(event)
                    continue
                player.publish(event)
                progress.update()
            player.drain()
    finally:
        took_s = time.monotonic() - started
        # n images have n - 1 intervals.
        rate = f", {(player.published - 1) / took_s:.1f} Hz" if player.published > 1 and took_s > 0 else ""
        print(f"published {player.published} images on {player.topic} in {took_s:.2f} s{rate}", flush=True)


def _with_camera(scheduled: ScheduledFrame, calibration: CameraCalibration) -> ScheduledFrame:
    frame = scheduled.frame
    calibration.check_image(frame.image.shape[0], frame.image.shape[1], frame.name)
    return dataclasses.replace(scheduled, frame=dataclasses.replace(frame, camera=calibration))


@contextmanager
def _spinning_node(arguments: list[str]) -> Iterator[Node]:
    # rclpy's own handlers would shut down the context under an active publisher; shut it down in order instead.
    with readable_start():
        rclpy.init(
            args=[readable_name(argument) for argument in arguments], signal_handler_options=SignalHandlerOptions.NO
        )
    try:
        with readable_start():
            node = rclpy.create_node("player")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
        thread.start()
        try:
            yield node
        finally:
            executor.shutdown()
            thread.join(timeout=1.0)
            node.destroy_node()
    finally:
        rclpy.shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


class _StderrHandler(logging.Handler):
    """Prints one line per record, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


_logger = logging.getLogger(__name__)


def _log_to_stderr() -> None:
    logger = logging.getLogger("feature_frontend")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler(logging.WARNING))
    logger.propagate = False


if __name__ == "__main__":
    raise SystemExit(main())
