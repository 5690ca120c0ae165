"""The curves of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from feature_frontend_lab.evaluation.reports.plots import Canvas, Line, Plot, draw_plots
from feature_frontend_lab.evaluation.reports.writing import png
from feature_frontend_lab.training.checkpoint import write_atomically

__all__ = ["draw_curves", "save_curves"]

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
    write_atomically(path, png(draw_curves(log)))


def draw_curves(log: Sequence[Mapping[str, Any]]) -> Canvas:
    """(H, W, 3) RGB picture of the losses and metrics by step; training curves are smoothed."""
    chosen = next((of_part for part, of_part in _PANELS_OF.items() if any(part in line for line in log)), _PANELS)
    colors = {name: number for number, name in enumerate(name for *_, names in chosen for name in names)}
    plots = []
    for kind, title, names in chosen:
        lines = [line for line in log if line["kind"] == kind]
        curves = {name: [(line["step"], line[name]) for line in lines if math.isfinite(line[name])] for name in names}
        if kind == "training":
            curves = {name: list(_smooth(curve)) for name, curve in curves.items()}
        drawn = [Line(tuple(curve), colors[name], dots=False) for name, curve in curves.items()]
        plots.append(Plot(title, "step", tuple(drawn)))
    return draw_plots("Training", [(name, Line((), color)) for name, color in colors.items()], plots, columns=2)


def _smooth(curve: Points) -> Points:
    """At most 150 points, each the mean of as many neighbours."""
    size = max(1, -(-len(curve) // _SMOOTHED_POINTS))
    groups = [np.mean(curve[start : start + size], axis=0) for start in range(0, len(curve), size)]
    return [(float(step), float(value)) for step, value in groups]
