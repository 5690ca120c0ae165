"""Suite `node`: ROS overhead per frame, from publishing the image message to the features' callback."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from benchmarks.images import load_frames, resized
from benchmarks.node_process import NS_PER_MS, Client, NodeProcess
from benchmarks.tables import TIMING_COLUMNS, timing_cells
from benchmarks.types import Canvas, Options, Size, SuiteResult, Table, Timing

__all__ = ["BAR_MS", "HELP", "PARTS", "network_of", "node_parameters", "run"]

HELP = "image message in, features message out through DDS, less the network: parts, CPU use, drops at 10, 30, 60 Hz"
PARTS = ("latency", "breakdown", "rates")
BAR_MS = 6.0

_SIZE: Size = (640, 480)
_BUDGET = 1000
_FRAME_COUNT = 8
_ROUNDS, _QUICK_ROUNDS = 150, 10
_RATES_HZ = (10, 30, 60)
_QUICK_DURATION_S = 2.0
_TIMEOUT_S = 60.0
# Range of random pauses before the next image: the machine becomes idle, and images do not synchronise with timers.
_PAUSE_S = (0.05, 0.15)

_MS_PER_S = 1e3
_SPANS = (
    ("image hop: publish() to the node's callback", "sent", "arrived"),
    ("queue: executor thread to worker", "arrived", "taken"),
    ("conversion: message to array", "taken", "converted"),
    ("encoding: results to message", "processed", "encoded"),
    ("features hop: publish() to the callback", "encoded", "callback"),
    ("  until publish() returned to the node", "encoded", "published"),
)
_BREAKDOWN_NOTE = (
    "From a second run of the same node with timestamps; serialisation, DDS, executors and wake-ups are in the hops. "
    "The last row is no part of the sum: the subscriber may have the features before publish() returns."
)

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Rate:
    """Outcome of the images offered at one rate."""

    hz: int
    offered: int
    received: int
    processed: int
    dropped: int
    cpu_cores: float


@dataclass(frozen=True)
class _Latency:
    """Frames sent one at a time: ROS overhead until the features, and until all results, have arrived."""

    until_features: Timing
    until_all: Timing
    network: Timing
    keypoints: float
    cpu_ms: float

    def as_json(self) -> dict[str, Any]:
        return {
            "until_features": self.until_features.as_json(),
            "until_all": self.until_all.as_json(),
            "network": self.network.as_json(),
            "keypoints": self.keypoints,
            "cpu_ms_per_frame": self.cpu_ms,
        }


def network_of(options: Options) -> str:
    """The requested network; by default the shipped one, so that the suite runs anywhere."""
    return "silk-vggnp-mu" if options.extractors == Options().extractors else options.extractors[0]


def node_parameters(options: Options, budget: int) -> list[str]:
    """The node's parameters, `name:=value` each; `budget` keypoints unless the options override it."""
    return [
        f"extractor:={network_of(options)}",
        # Background compilation happens once and would distort the measurement.
        "compile:=false",
        f"max_num_keypoints:={options.keypoints[0] if options.keypoints else budget}",
        f"device:={options.device}",
        f"weights_dir:='{options.weights_dir}'",
    ]


def run(options: Options, log: Log) -> SuiteResult:
    """Measures the executable's latency, its breakdown with a traced node, and drops at fixed rates.

    Raises:
        FeatureFrontendError: The node does not start or answer, or the images cannot be read.
    """
    size = options.sizes[0] if options.sizes else _SIZE
    budget = options.keypoints[0] if options.keypoints else _BUDGET
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    frames = resized(load_frames(options.images, _FRAME_COUNT), size)
    images = [np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) for image in frames.images]
    # The persistent tracker fills the budget only as far as its points live.
    parameters = [*node_parameters(options, _BUDGET), "tracker:=chain"]
    parts = options.parts or PARTS
    tables: list[Table] = []
    data: dict[str, Any] = {
        "size": list(size),
        "budget": budget,
        "extractor": network_of(options),
        "images": frames.description,
        "bar_p95_ms": BAR_MS,
    }
    with _collector_off():
        if "latency" in parts:
            log(f"node: latency of {rounds} frames, one at a time")
            latency = _latency(images, parameters, options, rounds)
            tables.append(_latency_table(latency, f"mono8 {size[0]}x{size[1]} in, {network_of(options)}"))
            data["latency"] = latency.as_json()
        if "breakdown" in parts:
            log("node: the same with timestamps inside the node")
            spans = _breakdown(images, parameters, options, rounds)
            tables.append(Table("Where it goes", ("part", *TIMING_COLUMNS), _rows(spans), _BREAKDOWN_NOTE))
            data["breakdown"] = [timing.as_json() for timing in spans]
        if "rates" in parts:
            rates = list(_rates(images, parameters, options, log))
            tables.append(_rate_table(rates))
            data["rates"] = [vars(rate) for rate in rates]
    return SuiteResult("node", tuple(tables), data)


def _latency(images: list[Canvas], parameters: list[str], options: Options, rounds: int) -> _Latency:
    with NodeProcess(parameters, options.threads) as process, Client(images) as client:
        stamps, cpu_s = _one_at_a_time(process, client, rounds, options.warmup)
        client.wait_for_results(stamps, _TIMEOUT_S)
        statuses = [client.statuses[stamp] for stamp in stamps]
        own_ms = np.array([s.extraction_ms + s.matching_ms + s.tracking_ms for s in statuses])
        added = []
        for topic, name in (("features", "features"), ("tracks", "features, matches and tracks")):
            total_ms = np.array([client.arrivals_ns[topic][stamp] - stamp for stamp in stamps]) / NS_PER_MS
            added.append(_timing(name, total_ms - own_ms))
    found = float(np.median([status.keypoints for status in statuses]))
    network = _timing("extraction, matching and tracking", own_ms)
    return _Latency(added[0], added[1], network, found, cpu_s * _MS_PER_S / len(stamps))


def _breakdown(images: list[Canvas], parameters: list[str], options: Options, rounds: int) -> list[Timing]:
    with NodeProcess(parameters, options.threads, traced=True) as process, Client(images) as client:
        stamps, _ = _one_at_a_time(process, client, rounds, options.warmup)
        client.wait_for_results(stamps, _TIMEOUT_S)
        process.stop()
        trace = process.trace()
        points = [
            {"sent": stamp, **trace[stamp], "callback": client.arrivals_ns["features"][stamp]} for stamp in stamps
        ]
    return [
        _timing(name, np.array([point[end] - point[start] for point in points]) / NS_PER_MS)
        for name, start, end in _SPANS
    ]


def _rates(images: list[Canvas], parameters: list[str], options: Options, log: Log) -> Iterator[_Rate]:
    duration_s = _QUICK_DURATION_S if options.quick else options.duration_s
    with NodeProcess(parameters, options.threads) as process, Client(images) as client:
        _one_at_a_time(process, client, 1, options.warmup)
        for hz in _RATES_HZ:
            log(f"node: {hz} Hz for {duration_s:g} s")
            client.settle()
            seen, cpu_s, start_s = set(client.statuses), process.cpu_s(), time.monotonic()
            count = round(hz * duration_s)
            for number in range(count):
                time.sleep(max(start_s + number / hz - time.monotonic(), 0))
                client.publish()
            elapsed_s = time.monotonic() - start_s
            used_s = process.cpu_s() - cpu_s
            client.settle()
            new = [status for stamp, status in client.statuses.items() if stamp not in seen]
            dropped = sum(status.state == status.DROPPED for status in new)
            yield _Rate(hz, count, len(new), len(new) - dropped, dropped, used_s / elapsed_s)


def _one_at_a_time(process: NodeProcess, client: Client, rounds: int, warmup: int) -> tuple[list[int], float]:
    """Stamps of the frames measured, and the CPU time that the node took for them, s."""
    client.wait_for_node(process)
    process.wait_until_idle()
    pauses_s = np.random.default_rng(0).uniform(*_PAUSE_S, warmup + rounds)
    stamps, cpu_s = [], 0.0
    for number, pause_s in enumerate(pauses_s):
        if number == warmup:
            cpu_s = process.cpu_s()
        stamp = client.round_trip(_TIMEOUT_S)
        # A best-effort image can be lost; such a frame has no latency, and the rates count it.
        if stamp is not None and number >= warmup:
            stamps.append(stamp)
        time.sleep(pause_s)
    return stamps, process.cpu_s() - cpu_s


def _timing(name: str, milliseconds: np.ndarray) -> Timing:
    return Timing(name, tuple(float(value) for value in milliseconds))


def _latency_table(latency: _Latency, what: str) -> Table:
    verdict = "met" if latency.until_features.p95 <= BAR_MS else "MISSED"
    note = (
        "From before publish() of the image to the subscriber's callback, less extraction, matching and tracking as "
        f"the node's status reports them for the frame. Bar for the features: p95 at most {BAR_MS:g} ms: {verdict}. "
        f"The node took {latency.cpu_ms:.0f} ms of CPU time a frame, network included."
    )
    rows = _rows([latency.until_features, latency.until_all, latency.network])
    title = f"What ROS adds: {what}, {latency.keypoints:g} keypoints out (median)"
    return Table(title, ("until", *TIMING_COLUMNS), rows, note)


def _rows(timings: list[Timing]) -> tuple[tuple[str, ...], ...]:
    return tuple((timing.name, *timing_cells(timing)) for timing in timings)


def _rate_table(rates: list[_Rate]) -> Table:
    rows = tuple(
        (
            f"{rate.hz} Hz",
            str(rate.offered),
            str(rate.offered - rate.received),
            str(rate.processed),
            str(rate.dropped),
            f"{rate.dropped / max(rate.offered, 1):.0%}",
            f"{rate.cpu_cores:.2f}",
        )
        for rate in rates
    )
    columns = ("offered rate", "images", "lost on the way", "processed", "dropped", "drop rate", "CPU cores")
    note = (
        "Dropped: the node was busy and a newer image replaced the one that waited (`queue_policy: newest`), by "
        "status. CPU cores: the node's CPU time by wall-clock time."
    )
    return Table("At a fixed rate", columns, rows, note)


@contextmanager
def _collector_off() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
