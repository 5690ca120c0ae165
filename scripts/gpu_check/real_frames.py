"""Frames of real sequences, in sizes suited to the device."""

from __future__ import annotations

from benchmarks.images import REPOSITORY, Frames, load_frames, resized
from benchmarks.types import Size
from scripts.gpu_check.step import Context

__all__ = ["SEQUENCES", "frames_of", "sequences"]

SEQUENCES = {"tum": "tum_fr2_desk", "kitti": "kitti00"}


def frames_of(context: Context, name: str, count: int, size: Size | None = None) -> Frames | None:
    """The first `count` frames of TUM or KITTI, or all if there are fewer; None if the sequence is missing.

    The tests include three frames of TUM.
    """
    folder = context.shared / "data" / SEQUENCES[name]
    if not folder.is_dir():
        folder = REPOSITORY / "tests" / "data" / SEQUENCES[name]
    if not folder.is_dir():
        return None
    frames = load_frames(folder, count)
    return frames if size is None else resized(frames, size)


def sequences(context: Context, count: int, rehearsal_size: Size = (320, 240)) -> dict[str, Frames]:
    """The available sequences by name; downscaled in a rehearsal."""
    size = rehearsal_size if context.is_rehearsal else None
    found = {name: frames_of(context, name, count, size) for name in SEQUENCES}
    return {name: frames for name, frames in found.items() if frames is not None}
