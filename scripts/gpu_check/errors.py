"""What a report says of an error: all that is needed to mend it from afar."""

from __future__ import annotations

import traceback

import numpy as np
import torch

from benchmarks.images import REPOSITORY

__all__ = ["describe_error", "first_line"]

_MOST_FRAMES = 6  # of the innermost, whose tensors are told


def first_line(error: BaseException) -> str:
    """Its type, and what it says first."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"


def describe_error(error: BaseException) -> list[str]:
    """Lines: the whole traceback, then what tensors and arrays the innermost calls in this repository had."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(str(REPOSITORY))
    ]
    for frame, line in frames[-_MOST_FRAMES:]:
        # No values: where a device answers no more, they cannot be read.
        held = [
            f"{name} {value.dtype} {tuple(value.shape)} {getattr(value, 'device', 'host')}"
            for name, value in frame.f_locals.items()
            if isinstance(value, (torch.Tensor, np.ndarray))
        ]
        if held:
            lines.append(f"in {frame.f_code.co_name}, line {line}: {'; '.join(held)}")
    return lines
