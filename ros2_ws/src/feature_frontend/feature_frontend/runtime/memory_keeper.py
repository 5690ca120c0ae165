"""Running out of memory: what can be freed is freed, and the frame is tried once more with a smaller image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from feature_frontend.errors import OutOfMemoryError

__all__ = ["MemoryKeeper"]

T = TypeVar("T")
_SHARE = 0.5
_LEAST_SHARE = 1 / 32
# Another program may have taken the memory for a while. Where it did not, one frame in this time is tried twice.
_RETRY_S = 60.0
# Errors of their own, beside PyTorch's allocator on a GPU.
_ALLOCATORS = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    # PyTorch's convolution, where no way to do it has room for its workspace.
    "unable to find an engine to execute this computation",
)


class MemoryKeeper:
    """Shrinks the network's image when memory runs out, and tries the larger one again every minute. Not thread-safe.

    Attributes:
        share: Of its usual pixels that the network sees at most, in (0, 1].
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._retry_s = 0.0

    def run(self, work: Callable[[], T], free: Callable[[], None], now_s: float) -> tuple[T, str]:
        """Does a frame's work, which reads `share`; if memory runs out, frees and does it once more with half of it.

        Args:
            work: Leaves everything as it was where it fails.
            free: Gives back the memory that the work would only reuse.
            now_s: On a monotonic clock.

        Returns:
            What the work gave, and what status shall say of it; "" for nothing.

        Raises:
            OutOfMemoryError: Memory ran out again; the next frame begins with half of that.
        """
        if self.share < 1 and now_s >= self._retry_s:
            self.share, self._retry_s = self.share / _SHARE, now_s + _RETRY_S
        note = problem = ""
        for _ in range(2):
            try:
                return work(), note
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
                problem = str(error).partition("\n")[0]
            # Only here, behind the handler: the error's traceback holds what the failed run had allocated.
            free()
            self.share, self._retry_s = max(self.share * _SHARE, _LEAST_SHARE), now_s + _RETRY_S
            note = f"memory ran out ({problem}): the network sees at most {self.share:.2%} of its usual pixels for now"
        msg = (
            f"memory ran out twice in this frame: {problem}; lower max_pixels, resize_height or max_num_keypoints, or "
            "end other programs on the device"
        )
        raise OutOfMemoryError(msg)


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or the one behind it, is one: a recording that memory ends may also complain of its end."""
    if error is None:
        return False
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    is_one = isinstance(error, RuntimeError) and any(allocator in text for allocator in _ALLOCATORS)
    return is_one or _is_out_of_memory(error.__context__)
