"""Part `node`: the node on the GPU between real ROS 2 processes: outcome of every image, ROS overhead, load."""

from __future__ import annotations

import importlib.util
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.images import load_frames, resized
from benchmarks.types import Canvas, Options, Size, Table, Timing
from feature_frontend.errors import FeatureFrontendError
from scripts.gpu_check.load_watch import CardLoad, CardWatch
from scripts.gpu_check.step import Context, LeftOutError, Outcome, Step

__all__ = ["TITLE", "steps"]

TITLE = "The node"
# Target on the GPU: time from image message to feature message, minus extraction, matching and tracking.
_ADDED_P95_MS = 3.0
_FULL_HD: Size = (1920, 1080)
_VGA: Size = (640, 480)
_NS_PER_MS = 1e6
_BUDGET = 1000
_BASELINE_M = 0.12
_FOCAL_PX = 500.0
# Shift of the whole right image, which gives a depth of 3 m.
_DISPARITY_PX = 20


@dataclass(frozen=True)
class _Account:
    """Outcome of the images of a stream.

    Attributes:
        sent: Number of published images.
        statuses: Number by state, from 0: OK, FIRST, DEGENERATE, DROPPED, ERROR.
        is_closed: Whether received = processed + dropped + refused in the node's own counts.
        reasons: Reasons of the images that were not processed.
    """

    sent: int
    statuses: tuple[int, ...]
    is_closed: bool
    reasons: dict[str, int]

    @classmethod
    def of(cls, sent: int, statuses: Sequence[Any]) -> _Account:
        """Counts the `FrameStatus` messages for `sent` images."""
        states = Counter(int(status.state) for status in statuses)
        closed = all(s.frames_received == s.frames_processed + s.frames_dropped + s.frames_refused for s in statuses)
        reasons = Counter(status.reason for status in statuses if status.state >= status.DROPPED)
        return cls(sent, tuple(states[state] for state in range(5)), closed, dict(reasons))

    @property
    def lost(self) -> int:
        """Number of images without a status."""
        return self.sent - sum(self.statuses)

    @property
    def passes(self) -> bool:
        """Whether every image is accounted for and none failed."""
        return self.lost == 0 and self.is_closed and self.statuses[4] == 0

    def __str__(self) -> str:
        processed = sum(self.statuses[:3])
        text = f"{self.sent} images = {processed} processed + {self.statuses[3]} dropped + {self.statuses[4]} refused"
        return text + f" + {self.lost} lost" + ("" if self.is_closed else "; the node's own counts do not add up")


def steps(context: Context) -> Sequence[Step]:
    """Latency first, as it has a target; then streams typical of robots."""
    return (
        Step("added_by_ros", _added_by_ros, needs_s=15, limit_s=60),
        Step("every_frame_of_kitti", partial(_every_frame, "kitti00"), needs_s=15, limit_s=60),
        Step("every_frame_of_tum", partial(_every_frame, "tum_fr2_desk"), needs_s=15, limit_s=60),
        Step("full_hd_at_60_hz", _full_hd, needs_s=20, limit_s=60),
        Step("stereo_at_60_hz", _stereo, needs_s=20, limit_s=60),
    )


def _options(context: Context, size: Size, images: Path | None = None) -> Options:
    """The best network on the GPU; in a rehearsal the shipped one, which a CPU can run."""
    name = "silk-vggnp-mu" if context.is_rehearsal else "aliked-n16"
    weights = str(context.shared / "weights")
    cores = len(os.sched_getaffinity(0))
    return Options(
        sizes=(size,), device=context.device, extractors=(name,), weights_dir=weights, images=images, threads=cores
    )


def _need_ros() -> None:
    for package in ("rclpy", "feature_frontend_msgs"):
        if importlib.util.find_spec(package) is None:
            msg = f"the Python package {package} is not here"
            raise LeftOutError(msg)


def _parameters(context: Context, *further: str) -> list[str]:
    from benchmarks.suites.node import node_parameters

    if context.is_rehearsal:
        return [*node_parameters(_options(context, _VGA), 200), "max_pixels:=80000", *further]
    # The largest image's number of pixels: the network processes full resolution.
    limits = ("precision:=float16", f"max_pixels:={_FULL_HD[0] * _FULL_HD[1]}")
    return [*node_parameters(_options(context, _VGA), _BUDGET), *limits, *further]


def _added_by_ros(context: Context) -> Outcome:
    _need_ros()
    from benchmarks.suites.node import run

    rounds = 5 if context.is_rehearsal else 150
    options = replace(_options(context, _VGA), rounds=rounds, parts=("latency",))
    with CardWatch(context.device) as watch:
        result = run(options, lambda _line: None)
    p95 = result.data["latency"]["until_features"]["p95_ms"]
    verdict = "" if context.is_rehearsal else f" (aim {_ADDED_P95_MS:g}: {'met' if p95 <= _ADDED_P95_MS else 'MISSED'})"
    text = f"until the features p95 {p95:.2f} ms beside extraction, matching and tracking{verdict}"
    return Outcome(passed=True, text=text + _of(watch.load), tables=result.tables, data=result.data)


def _every_frame(name: str, context: Context) -> Outcome:
    _need_ros()
    from feature_frontend_lab.demo.recording import read_recording
    from feature_frontend_lab.demo.run import PlayOptions, Session

    folder = context.shared / "data" / name
    if not folder.is_dir():
        msg = f"no sequence {folder}"
        raise LeftOutError(msg)
    camera = folder / "camera.yaml"
    count = 4 if context.is_rehearsal else None
    parameters: dict[str, str | int] = {"queue_policy": "every_frame", "output_depth": 0}
    for parameter in _parameters(context):
        key, _, value = parameter.partition(":=")
        parameters[key] = value
    work = context.scratch / name
    work.mkdir()
    with CardWatch(context.device) as watch, Session(work / "bag", work, parameters) as session:
        notice = session.play(
            PlayOptions(str(folder), camera if camera.is_file() else None, count, None), lambda _: None
        )
    recording = read_recording(work / "bag")
    images, states = recording.image_count, Counter(status.state for status in recording.status)
    is_complete = (
        images == len(recording.status) == len(recording.features) == len(recording.tracks)
        and states["ERROR"] == states["DROPPED"] == 0
        and len(recording.matches) == images - states["FIRST"]
    )
    latency = Timing("latency", tuple(status.milliseconds["latency"] for status in recording.status[1:]))
    text = f"{images} images, {dict(states)}, {len(recording.matches)} matches, latency median {latency.median:.1f} ms"
    data = {"node": notice, "images": images, "states": dict(states), "latency": latency.as_json()}
    logs = [path.rename(path.with_name(f"{name}-{path.name}")) for path in sorted(work.glob("*.log"))]
    return Outcome(passed=is_complete, text=text + _of(watch.load), data=data, files=logs)


def _full_hd(context: Context) -> Outcome:
    _need_ros()
    from benchmarks.node_process import Client, NodeProcess

    parameters = _parameters(context)
    duration_s = 2.0 if context.is_rehearsal else 15.0
    images = _grey(context, _FULL_HD)
    options = _options(context, _FULL_HD)
    with NodeProcess(parameters, options.threads) as process, Client(images) as client:
        client.wait_for_node(process)
        process.wait_until_idle()
        seen = len(client.sent)
        return _stream(
            context,
            process,
            publish=client.publish,
            duration_s=duration_s,
            answered=lambda: [client.statuses[s] for s in client.sent[seen:] if s in client.statuses],
            arrival_ns=client.arrivals_ns["features"].get,
            what="1920x1080 mono8",
        )


def _stereo(context: Context) -> Outcome:
    _need_ros()
    if importlib.util.find_spec("message_filters") is None:
        msg = "the ROS package message_filters, which stereo needs, is not here"
        raise LeftOutError(msg)
    from benchmarks.node_process import NodeProcess
    from scripts.gpu_check.stereo_client import StereoClient

    parameters = _parameters(context, "camera_type:=stereo", "rectified:=true", "stereo_queue_size:=10")
    duration_s = 2.0 if context.is_rehearsal else 10.0
    wide = _grey(context, (_VGA[0] + _DISPARITY_PX, _VGA[1]))
    pairs = [(image[:, :-_DISPARITY_PX].copy(), image[:, _DISPARITY_PX:].copy()) for image in wide]
    options = _options(context, _VGA)
    with NodeProcess(parameters, options.threads) as process, StereoClient(pairs, _FOCAL_PX, _BASELINE_M) as client:
        client.wait_for_node(process)
        process.wait_until_idle()
        seen = len(client.sent)
        outcome = _stream(
            context,
            process,
            publish=client.publish,
            duration_s=duration_s,
            answered=lambda: [client.statuses[s] for s in client.sent[seen:] if s in client.statuses],
            arrival_ns=client.points_ns.get,
            what="stereo 640x480 mono8",
        )
        points = int(np.median(client.point_counts)) if client.point_counts else 0
    text = f"{outcome.text}; {points} points a pair"
    return replace(outcome, passed=outcome.passed and points > 0, text=text)


def _stream(
    context: Context,
    process: Any,
    *,
    publish: Callable[[], int],
    duration_s: float,
    answered: Callable[[], list[Any]],
    arrival_ns: Callable[[int], int | None],
    what: str,
) -> Outcome:
    """Publishes at 60 Hz, or 5 Hz in a rehearsal; reports the outcome of every image and the latency."""
    hz = 5 if context.is_rehearsal else 60
    count = round(hz * duration_s)
    sent: list[int] = []
    cpu_s, start_s = process.cpu_s(), time.monotonic()
    with CardWatch(context.device) as watch:
        for number in range(count):
            time.sleep(max(start_s + number / hz - time.monotonic(), 0))
            sent.append(publish())
        elapsed_s = time.monotonic() - start_s
        used_s = process.cpu_s() - cpu_s
        _wait_until(lambda: len(answered()) >= count, 10.0)
    statuses = answered()
    if not process.is_running or not statuses:
        msg = f"the node ended on the way, or answered nothing; it printed: {process.output or 'nothing'}"
        raise FeatureFrontendError(msg)
    account = _Account.of(count, statuses)
    arrived = [(arrival_ns(stamp) or 0) - stamp for stamp in sent if arrival_ns(stamp)]
    latency = _milliseconds("image to results", [ns / _NS_PER_MS for ns in arrived])
    processed = [status for status in statuses if status.state < status.DROPPED]
    work = _milliseconds("work", [s.extraction_ms + s.matching_ms + s.tracking_ms for s in processed])
    memory = {"resident_mib": process.rss_mib(), "card_mib": process.gpu_mib()}
    paced = f"{count / elapsed_s:.1f} Hz"
    rows = (
        ("images sent", str(account.sent)),
        ("pace", paced),
        ("processed", str(sum(account.statuses[:3]))),
        *((reason or "no reason", str(number)) for reason, number in sorted(account.reasons.items())),
        ("lost", str(account.lost)),
        ("image to results, p50 / p95 / p99 ms", _quantiles(latency)),
        ("of it extraction, matching and tracking", _quantiles(work)),
        ("CPU cores", f"{used_s / elapsed_s:.2f}"),
        ("resident MiB", f"{memory['resident_mib']:.0f}"),
        ("card", str(watch.load) if watch.load else "none"),
    )
    table = Table(f"{what} at {hz} Hz for {duration_s:g} s", ("what", "value"), rows)
    text = f"{account}; image to results p95 {latency.p95:.1f} ms{_of(watch.load)}"
    data = {
        "account": {**vars(account), "lost": account.lost},
        "pace": paced,
        "latency": latency.as_json(),
        "work": work.as_json(),
        "cpu_cores": used_s / elapsed_s,
        "memory": memory,
        "card": vars(watch.load) if watch.load else None,
    }
    return Outcome(passed=account.passes, text=text, tables=[table], data=data)


def _grey(context: Context, size: Size) -> list[Canvas]:
    frames = resized(load_frames(None, 4), size)
    return [np.asarray(image.mean(axis=2).round(), np.uint8) for image in frames.images]


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.05)


def _milliseconds(name: str, samples: Sequence[float]) -> Timing:
    if not samples:
        msg = f"no image came back as far as {name!r}; expected at least one"
        raise FeatureFrontendError(msg)
    return Timing(name, tuple(samples))


def _quantiles(timing: Timing) -> str:
    return f"{timing.median:.2f} / {timing.p95:.2f} / {timing.p99:.2f}"


def _of(load: CardLoad | None) -> str:
    return "" if load is None else f"; {load}"
