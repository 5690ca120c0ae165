"""The curves of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.evaluation.reports.plots import tick_spacing
from feature_frontend_lab.training.checkpoint import write_atomically

__all__ = ["draw_curves", "save_curves"]

_HEIGHT, _WIDTH = 380, 900
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 210, 40, 45
_COLORS = ((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148), (75, 86, 140))  # BGR
_INK, _GRID = (40, 40, 40), (225, 225, 225)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SMOOTHED_POINTS = 150
_VALIDATION = (
    "validation",
    "validation on held-out warped pairs",
    ("repeatability_1", "mma_1", "mma_3", "homography_accuracy_1", "homography_accuracy_3", "homography_auc_3"),
)
_PANELS = (
    ("training", "loss", ("loss", "descriptor_loss", "keypoint_loss")),
    ("training", "share of correspondences that match", ("success",)),
    _VALIDATION,
)
# The weighted sum would press the other losses of ALIKED down to its axis.
_ALIKED_PANELS = (
    ("training", "loss", ("loss",)),
    ("training", "its parts", ("descriptor_loss", "reprojection_loss", "peak_loss", "reliability_loss")),
    ("training", "share of true matches that are found", ("success",)),
    _VALIDATION,
)
_RESIDUAL_PANELS = (
    ("training", "loss", ("loss",)),
    ("training", "distance of descriptors", ("positive_distance", "negative_distance")),
    ("training", "share of true matches that are found", ("success",)),
    _VALIDATION,
)
# By a part of the loss that no other network has.
_PANELS_OF = {"keypoint_loss": _PANELS, "peak_loss": _ALIKED_PANELS, "positive_distance": _RESIDUAL_PANELS}

Points = Sequence[tuple[float, float]]


def save_curves(path: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """Draws the lines of a run's log into a PNG."""
    encoded, data = cv2.imencode(".png", draw_curves(log))
    if encoded:
        write_atomically(path, data.tobytes())


def draw_curves(log: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) BGR picture of the losses and metrics by step; training curves are smoothed."""
    panels = []
    chosen = next((of_part for part, of_part in _PANELS_OF.items() if any(part in line for line in log)), _PANELS)
    for kind, title, names in chosen:
        lines = [line for line in log if line["kind"] == kind]
        curves = {name: [(line["step"], line[name]) for line in lines if math.isfinite(line[name])] for name in names}
        panels.append(_panel(title, curves if kind == "validation" else {n: _smooth(c) for n, c in curves.items()}))
    return np.vstack(panels)


def _smooth(curve: Points) -> Points:
    """At most 150 points, each the mean of as many neighbours."""
    size = max(1, -(-len(curve) // _SMOOTHED_POINTS))
    groups = [np.mean(curve[start : start + size], axis=0) for start in range(0, len(curve), size)]
    return [(float(step), float(value)) for step, value in groups]


def _panel(title: str, curves: Mapping[str, Points]) -> npt.NDArray[np.uint8]:
    canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    points = [point for curve in curves.values() for point in curve]
    last_step = max((step for step, _ in points), default=1.0) or 1.0
    spacing = tick_spacing(max((value for _, value in points), default=1.0) or 1.0)
    highest = spacing * math.ceil(max((value for _, value in points), default=1.0) / spacing or 1)

    def place(step: float, value: float) -> tuple[int, int]:
        x = _LEFT + step / last_step * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - value / highest * (_HEIGHT - _TOP - _BOTTOM)
        return round(x), round(y)

    for tick in range(round(highest / spacing) + 1):
        left, right = place(0, tick * spacing), place(last_step, tick * spacing)
        cv2.line(canvas, left, right, _GRID, 1)
        _write(canvas, f"{tick * spacing:g}", (8, left[1] + 4))
    step_spacing = tick_spacing(last_step)
    for tick in range(int(last_step / step_spacing) + 1):
        bottom = place(tick * step_spacing, 0)
        cv2.line(canvas, bottom, place(tick * step_spacing, highest), _GRID, 1)
        _write(canvas, f"{tick * step_spacing:g}", (bottom[0] - 15, bottom[1] + 18))
    _write(canvas, "step", ((_LEFT + _WIDTH - _RIGHT) // 2, _HEIGHT - 8))
    _write(canvas, title, (_LEFT, 24), 0.55)
    for (name, curve), color, row in zip(curves.items(), _COLORS, range(len(curves)), strict=False):
        pixels = np.array([place(*point) for point in curve], np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [pixels], isClosed=False, color=color, thickness=2, lineType=cv2.LINE_AA)
        y = _TOP + 14 + 20 * row
        cv2.line(canvas, (_WIDTH - _RIGHT + 12, y - 4), (_WIDTH - _RIGHT + 32, y - 4), color, 2)
        _write(canvas, name, (_WIDTH - _RIGHT + 38, y))
    return canvas


def _write(canvas: npt.NDArray[np.uint8], text: str, at: tuple[int, int], scale: float = 0.42) -> None:
    cv2.putText(canvas, text, at, _FONT, scale, _INK, 1, cv2.LINE_AA)
