"""Part `fast`: the time per frame compared with peers and its lower bound, and its breakdown."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.gpu_check.fast.batches import batches
from scripts.gpu_check.fast.peers import beside_compiled, beside_kornia, beside_kornia_half
from scripts.gpu_check.fast.speed_plot import speed_against_size_and_batch
from scripts.gpu_check.fast.trace import one_frame
from scripts.gpu_check.fast.whole_frames import whole_frames
from scripts.gpu_check.step import Context, Step
from scripts.gpu_check.timebox import Piece, as_steps

__all__ = ["TITLE", "steps"]

TITLE = "Fast: frames beside their peers and their floor"


def steps(context: Context) -> Sequence[Step]:
    """The steps, most valuable first."""
    del context
    return as_steps(
        (
            Piece("beside_kornia", beside_kornia, 3.0),
            Piece("batches", batches, 2.0),
            # The profiler can hang without access to the GPU's counters.
            Piece("one_frame", one_frame, 1.0, limit_s=30.0),
            Piece("whole_frames", whole_frames, 5.0, limit_s=100.0),
            Piece("against_size_and_batch", speed_against_size_and_batch, 2.0),
            Piece("beside_kornia_half", beside_kornia_half, 1.0),
            Piece("beside_compiled", beside_compiled, 2.0, limit_s=100.0),
        )
    )
