"""Images at a steady rate from a separate thread, and invariants of a node's answers to them."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import numpy.typing as npt
from feature_frontend_msgs.msg import FrameStatus

from feature_frontend.ros.stamps import stamp_to_ns
from tests.ros.harness import Client, wait_until

__all__ = ["Camera", "check_account", "check_models"]

Uint8Array = npt.NDArray[np.uint8]


class Camera(threading.Thread):
    """Sends images at a steady rate until it is told to end."""

    def __init__(self, client: Client, images: list[Uint8Array], rate_hz: float) -> None:
        super().__init__(daemon=True)
        self._client, self._images, self._period_s = client, images, 1 / rate_hz
        self._ended = threading.Event()
        self.sent = 0

    def run(self) -> None:
        next_s = time.monotonic()
        while not self._ended.is_set():
            self.sent += 1
            self._client.send_pixels(self._images[self.sent % len(self._images)], self._last_ns)
            next_s += self._period_s
            self._ended.wait(max(0.0, next_s - time.monotonic()))

    @property
    def _last_ns(self) -> int:
        return round(self.sent * self._period_s * 1e9)

    def end(self) -> None:
        """Sends no more; returns when the status of the last image has come."""
        self._ended.set()
        self.join()
        # What the middleware loses on a busy machine, because the node did not take it in time, never was the node's.
        statuses = self._client.received["status"]
        wait_until(lambda: stamp_to_ns(statuses[-1].header.stamp) == self._last_ns, "the last status")


def check_account(statuses: list[FrameStatus]) -> FrameStatus:
    """Every frame has one status, and the counters say the same; the last status."""
    assert len(statuses) == len({stamp_to_ns(status.header.stamp) for status in statuses})
    for status in statuses:
        assert status.frames_received == status.frames_processed + status.frames_dropped + status.frames_refused
    last = max(statuses, key=lambda status: status.frames_received)
    states = [status.state for status in statuses]
    assert last.frames_received == len(statuses)
    assert states.count(FrameStatus.ERROR) == last.frames_refused
    assert states.count(FrameStatus.DROPPED) == last.frames_dropped
    return last


def check_models(client: Client, known: set[str]) -> int:
    """No match joins two models, and a frame after a swap is a first one; the number of swaps."""
    extractors = {stamp_to_ns(message.header.stamp): message.extractor for message in client.received["features"]}
    assert set(extractors.values()) == known
    for message in client.received["matches"]:
        pair = extractors[stamp_to_ns(message.stamp0)], extractors[stamp_to_ns(message.header.stamp)]
        assert pair[0] == pair[1], f"matched across models: {pair}"
    by_stamp = {stamp_to_ns(status.header.stamp): status for status in client.received["status"]}
    swapped = [
        stamp1 for stamp0, stamp1 in itertools.pairwise(sorted(extractors)) if extractors[stamp0] != extractors[stamp1]
    ]
    for stamp in swapped:
        status = by_stamp[stamp]
        assert status.state in {FrameStatus.FIRST, FrameStatus.DEGENERATE}, status
        if status.state == FrameStatus.FIRST:
            assert status.reason.startswith(f"the model is now {extractors[stamp]}")
    return len(swapped)
