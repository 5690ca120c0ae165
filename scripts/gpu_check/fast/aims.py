"""This project's performance targets on an H200."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.gpu_check.step import Context

__all__ = ["AIMS", "Aims", "aim_text"]


@dataclass(frozen=True)
class Aims:
    """Targets for aliked-n16 at 640x480 with 1000 points.

    Attributes:
        frame_ms: Maximum time for a whole frame with matching, p50, float16.
        times_kornia: Minimum speed relative to kornia.
        images_per_second: Minimum throughput in batches.
    """

    frame_ms: float = 1.0
    times_kornia: float = 5.0
    images_per_second: float = 5000.0


AIMS = Aims()


def aim_text(context: Context, is_met: bool, aim: str) -> str:
    """The summary's text on a target; empty in a rehearsal, which does not measure a GPU."""
    if context.is_rehearsal:
        return ""
    return f" ({aim}: {'met' if is_met else 'MISSED'})"
