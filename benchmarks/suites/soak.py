"""Suite `soak`: the node with a camera stream for minutes: every image's outcome, latency, and memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.images import load_frames, resized
from benchmarks.node_process import NS_PER_MS, Client, NodeProcess
from benchmarks.suites.memory import growth, growth_of_memory
from benchmarks.suites.node import network_of, node_parameters
from benchmarks.tables import TIMING_COLUMNS, timing_cells
from benchmarks.types import Options, Size, SuiteResult, Table, Timing
from feature_frontend.errors import FeatureFrontendError

__all__ = ["HELP", "run"]

HELP = "the node under a camera of 30 Hz for 10 minutes (--duration): every image's fate by reason, latency, memory"

_SIZE: Size = (640, 480)
_BUDGET = 1000
_FRAME_COUNT = 8
_HZ = 30
_DURATION_S, _QUICK_DURATION_S = 600.0, 5.0
_SAMPLE_S = 1.0

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Account:
    """Outcome of the images."""

    offered: int
    processed: int
    dropped: int
    refused: int
    reasons: dict[str, int]

    @property
    def lost(self) -> int:
        """Images that the node never received: the stream is best effort."""
        return self.offered - self.processed - self.dropped - self.refused


def run(options: Options, log: Log) -> SuiteResult:
    """Sends images at a camera's rate, regardless of the node's speed.

    Raises:
        FeatureFrontendError: The node does not start, or ends early.
    """
    size = options.sizes[0] if options.sizes else _SIZE
    frames = resized(load_frames(options.images, _FRAME_COUNT), size)
    images = [np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) for image in frames.images]
    chosen_s = _DURATION_S if options.duration_s == Options().duration_s else options.duration_s
    duration_s = _QUICK_DURATION_S if options.quick else chosen_s
    rss_mib: list[float] = []
    with NodeProcess(node_parameters(options, _BUDGET), options.threads) as process, Client(images) as client:
        client.wait_for_node(process)
        process.wait_until_idle()
        client.settle()
        before, count = len(client.sent), round(_HZ * duration_s)
        log(f"soak: {count} images at {_HZ} Hz, {duration_s / 60:.1f} minutes")
        start_s = time.monotonic()
        for number in range(count):
            time.sleep(max(start_s + number / _HZ - time.monotonic(), 0))
            client.publish()
            if time.monotonic() - start_s >= len(rss_mib) * _SAMPLE_S:
                rss_mib.append(process.rss_mib())
        client.settle()
        if not process.is_running or not client.statuses.keys() & set(client.sent[before:]):
            msg = f"the node ended on the way, or answered nothing; it printed: {process.output or 'nothing'}"
            raise FeatureFrontendError(msg)
    stamps = client.sent[before:]
    statuses = [client.statuses[stamp] for stamp in stamps if stamp in client.statuses]
    arrivals = client.arrivals_ns["features"]
    latency = Timing("image to features", tuple((arrivals[s] - s) / NS_PER_MS for s in stamps if s in arrivals))
    states = Counter(status.state for status in statuses)
    dropped, refused = states[statuses[0].DROPPED], states[statuses[0].ERROR]
    unprocessed = (statuses[0].DROPPED, statuses[0].ERROR)
    reasons = Counter(status.reason for status in statuses if status.state in unprocessed)
    account = _Account(len(stamps), len(statuses) - dropped - refused, dropped, refused, dict(reasons))
    data = {
        "size": list(size),
        "hz": _HZ,
        "duration_s": duration_s,
        "extractor": network_of(options),
        "account": {**vars(account), "lost": account.lost},
        "latency": latency.as_json(),
        "rss_mib": rss_mib,
        "growth": growth(rss_mib),
    }
    return SuiteResult("soak", _tables(account, latency, rss_mib, f"{size[0]}x{size[1]}, {network_of(options)}"), data)


def _tables(account: _Account, latency: Timing, rss_mib: list[float], what: str) -> tuple[Table, ...]:
    fates = Table(
        f"What became of {account.offered} images at {_HZ} Hz, {what}",
        ("fate", "images", "fraction"),
        tuple(
            (name, str(number), f"{number / account.offered:.2%}")
            for name, number in (
                ("processed", account.processed),
                *((reason, number) for reason, number in sorted(account.reasons.items())),
                ("lost on the way", account.lost),
            )
        ),
    )
    times = Table(
        "From before publish() of the image to the features in a subscriber's callback",
        ("", *TIMING_COLUMNS),
        ((latency.name, *timing_cells(latency)),),
        "Only processed images. An image waits at most for the previous one; a newer one replaces it.",
    )
    memory = growth_of_memory("Memory of the node", {"resident": rss_mib}, "A sample a second.")
    return fates, times, memory
