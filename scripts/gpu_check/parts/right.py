"""Part `right`: whether the device's results match the authors' code and the CPU, under all conditions."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.gpu_check.right.execution import captured_graphs, device_features
from scripts.gpu_check.right.full_memory import full_memory
from scripts.gpu_check.right.gpu_tests import gpu_tests
from scripts.gpu_check.right.parity import aliked_parity, half_precision, silk_parity, silk_seeded
from scripts.gpu_check.right.repetition import same_bytes
from scripts.gpu_check.right.sequences import device_matchers, device_trackers
from scripts.gpu_check.step import Context, Step
from scripts.gpu_check.timebox import Piece, as_steps

__all__ = ["TITLE", "steps"]

TITLE = "Right: the device beside the authors' outputs and the CPU"


def steps(context: Context) -> Sequence[Step]:
    """The steps, most valuable first."""
    del context
    return as_steps(
        (
            Piece("aliked_parity", aliked_parity, 1.5),
            Piece("captured_graphs", captured_graphs, 1.5),
            Piece("silk_parity", silk_parity, 1.0),
            Piece("device_trackers", device_trackers, 2.5),
            Piece("full_memory", full_memory, 1.5),
            Piece("device_features", device_features, 2.5),
            Piece("device_matchers", device_matchers, 1.0),
            Piece("same_bytes", same_bytes, 1.5),
            Piece("half_precision", half_precision, 1.0),
            Piece("silk_seeded", silk_seeded, 0.7),
            Piece("gpu_tests", gpu_tests, 2.5),
        )
    )
