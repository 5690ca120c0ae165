"""What this project aims at on the card that it was promised, an H200."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.gpu_check.step import Context

__all__ = ["AIMS", "Aims", "aim_text"]


@dataclass(frozen=True)
class Aims:
    """For aliked-n16 at 640x480 with 1000 points.

    Attributes:
        frame_ms: Most for a whole frame with matching, p50, float16.
        times_kornia: Least times as fast as kornia.
        images_per_second: Least in batches.
    """

    frame_ms: float = 1.0
    times_kornia: float = 5.0
    images_per_second: float = 5000.0


AIMS = Aims()


def aim_text(context: Context, is_met: bool, aim: str) -> str:
    """What the summary says of an aim; nothing in a rehearsal, which says nothing of a card."""
    if context.is_rehearsal:
        return ""
    return f" ({aim}: {'met' if is_met else 'MISSED'})"
