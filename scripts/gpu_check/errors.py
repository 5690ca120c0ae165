"""Describes errors in enough detail to fix them remotely."""

from __future__ import annotations

import traceback

import numpy as np
import torch

from benchmarks.images import REPOSITORY

__all__ = ["describe_error", "first_line"]

_MOST_FRAMES = 6  # innermost frames whose tensors are listed


def first_line(error: BaseException) -> str:
    """Its type and first line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"


def describe_error(error: BaseException) -> list[str]:
    """Lines: the full traceback, then the tensors and arrays in the innermost calls within this repository."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(str(REPOSITORY))
    ]
    for frame, line in frames[-_MOST_FRAMES:]:
        # Without values: they cannot be read from a device that no longer answers.
        held = [
            f"{name} {value.dtype} {tuple(value.shape)} {getattr(value, 'device', 'host')}"
            for name, value in frame.f_locals.items()
            if isinstance(value, (torch.Tensor, np.ndarray))
        ]
        if held:
            lines.append(f"in {frame.f_code.co_name}, line {line}: {'; '.join(held)}")
    return lines
