"""Shrinks the network's image while frames take too long or when memory runs out, and enlarges it again later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch

from feature_frontend.errors import OutOfMemoryError

__all__ = ["LatencyController", "OutOfMemoryGuard", "Step"]

T = TypeVar("T")
# The network's time is proportional to its pixels: each step removes about a third of both.
_FRACTION = 0.7
_MOST_STEPS = 6  # 0.7^6: about an eighth of the pixels
_MISSED_S = 1.0
# A step up makes frames take 1 / 0.7 times as long: only step up if that still meets the deadline, with a margin.
_ROOM = 0.6
_FIRST_WAIT_S, _LONGEST_WAIT_S = 3.0, 60.0


@dataclass(frozen=True)
class Step:
    """A change of the network's image size.

    Attributes:
        fraction: New upper limit of the network's pixels, as a fraction of the usual ones, in (0, 1].
        reason: Text for the status.
    """

    fraction: float
    reason: str


class LatencyController:
    """Chooses the network's image size from the latency of each frame. Not thread-safe.

    If the median over 1 s misses the deadline, it takes one step down. If the median over 3 s leaves room, it takes one
    step up; each step up that has to be undone doubles that wait, up to 60 s.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._frames: deque[tuple[float, float]] = deque()  # since the last step: time s, latency ms
        self._since_s: float | None = None
        self._wait_s = _FIRST_WAIT_S
        self._went_up = False

    @property
    def fraction(self) -> float:
        """Upper limit of the network's pixels, as a fraction of the usual ones, in (0, 1]."""
        return float(_FRACTION**self._steps)

    def note(self, latency_ms: float, now_s: float, deadline_ms: float) -> Step | None:
        """Records a frame and returns a step if one is due.

        Args:
            latency_ms: From the image's arrival to its results.
            now_s: Current time on a monotonic clock.
            deadline_ms: 0 for none: returns to the full size at once.
        """
        if deadline_ms <= 0:
            return self._turn_off()
        if self._since_s is None:
            self._since_s = now_s
        self._frames.append((now_s, latency_ms))
        while now_s - self._frames[0][0] > self._wait_s:
            self._frames.popleft()
        passed_s = now_s - self._since_s
        late = passed_s >= _MISSED_S and self._median_ms(now_s - _MISSED_S) > deadline_ms
        if late and self._steps < _MOST_STEPS:
            if self._went_up:
                self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
            self._went_up = False
            return self._step(now_s, 1, f"frames took longer than deadline_ms ({deadline_ms:g} ms) for {_MISSED_S:g} s")
        room = passed_s >= self._wait_s and self._median_ms(now_s - self._wait_s) < _ROOM * deadline_ms
        if room and self._steps > 0:
            self._went_up = True
            return self._step(
                now_s, -1, f"there was room below deadline_ms ({deadline_ms:g} ms) for {self._wait_s:g} s"
            )
        return None

    def _median_ms(self, begin_s: float) -> float:
        return median(latency_ms for time_s, latency_ms in self._frames if time_s >= begin_s)

    def _step(self, now_s: float, steps: int, why: str) -> Step:
        self._steps += steps
        self._frames.clear()
        self._since_s = now_s
        return Step(self.fraction, f"{why}: the network now sees at most {self.fraction:.0%} of its usual pixels")

    def _turn_off(self) -> Step | None:
        was_at_work = self._steps > 0
        self._steps, self._since_s, self._wait_s, self._went_up = 0, None, _FIRST_WAIT_S, False
        self._frames.clear()
        return Step(1.0, "deadline_ms is off: the network sees its usual pixels again") if was_at_work else None


_AFTER_MEMORY_RAN_OUT = 0.5
_LEAST_FRACTION = 1 / 32
# Another program may hold the memory only for a while. If it does not, one frame per interval is tried twice.
_RETRY_S = 60.0
# Texts of out-of-memory errors other than those of PyTorch's GPU allocator.
_ALLOCATORS = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    # PyTorch's convolution, if no algorithm has room for its workspace.
    "unable to find an engine to execute this computation",
)


class OutOfMemoryGuard:
    """Shrinks the network's image when memory runs out, and retries the larger one every minute. Not thread-safe.

    Attributes:
        fraction: Upper limit of the network's pixels, as a fraction of the usual ones, in (0, 1].
    """

    def __init__(self) -> None:
        self.fraction = 1.0
        self._retry_s = 0.0

    def run(self, work: Callable[[], T], free: Callable[[], None], now_s: float) -> tuple[T, str]:
        """Processes a frame; if memory runs out, frees memory, halves `fraction` and tries once more.

        Args:
            work: Processes the frame and reads `fraction`; must not change any state if it fails.
            free: Returns cached memory to the system.
            now_s: Current time on a monotonic clock.

        Returns:
            The result of `work`, and a text for the status; "" if there is nothing to report.

        Raises:
            OutOfMemoryError: Memory ran out again; the next frame starts with half of that fraction.
        """
        if self.fraction < 1 and now_s >= self._retry_s:
            self.fraction, self._retry_s = self.fraction / _AFTER_MEMORY_RAN_OUT, now_s + _RETRY_S
        note = problem = ""
        for _ in range(2):
            try:
                return work(), note
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
                problem = str(error).partition("\n")[0]
            # Only after the handler: the error's traceback keeps the memory of the failed run alive.
            free()
            self.fraction, self._retry_s = max(self.fraction * _AFTER_MEMORY_RAN_OUT, _LEAST_FRACTION), now_s + _RETRY_S
            seen = f"the network sees at most {self.fraction:.2%} of its usual pixels for now"
            note = f"memory ran out ({problem}): {seen}"
        raise OutOfMemoryError(
            f"memory ran out twice in this frame: {problem}; lower max_pixels, resize_height or max_num_keypoints, or "
            "end other programs on the device"
        )


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error or its context is out of memory: a failed graph capture raises a second error of its own."""
    if error is None:
        return False
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    is_one = isinstance(error, RuntimeError) and any(allocator in text for allocator in _ALLOCATORS)
    return is_one or _is_out_of_memory(error.__context__)
