"""The run's log: one JSON object a line, its curves as a figure, and TensorBoard's files where that is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_frontend_lab.evaluation.reports.plots import finish_axes, plot_curve, plot_style, png
from feature_frontend_lab.training.checkpoint import write_atomically, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RunLog", "curves_figure", "read_log", "save_curves"]


class RunLog:
    """Appends numbers to `log.jsonl`; a resumed run first removes lines after the checkpoint's step.

    Args:
        folder: Folder of the run; must exist.
        step: Step at which the run continues.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "log.jsonl"
        kept = [line for line in read_log(path) if line["step"] <= step] if step else []
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._path = path
        with writing(path):
            self._file = path.open("a", encoding="utf-8")
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Adds values of one step; `kind` is "training" or "validation"."""
        line = {"kind": kind, "step": step, **{name: round(value, 6) for name, value in values.items()}}
        with writing(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Closes the files."""
        with writing(self._path):
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a log, skipping damaged ones, such as a last line cut off by an interruption."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int) and "kind" in line:
            lines.append(line)
    return lines


_SMOOTHED_POINTS = 150
_VALIDATION = (
    "validation",
    "validation on held-out warped pairs",
    ("repeatability_1", "mma_1", "mma_3", "homography_accuracy_1", "homography_accuracy_3", "homography_auc_3"),
)
_PANELS = (
    ("training", "loss", ("loss", "descriptor_loss", "keypoint_loss")),
    ("training", "fraction of correspondences that match", ("success",)),
    _VALIDATION,
)
# In ALIKED's weighted sum, the other losses would be too small to see.
_ALIKED_PANELS = (
    ("training", "loss", ("loss",)),
    ("training", "its parts", ("descriptor_loss", "reprojection_loss", "peak_loss", "reliability_loss")),
    ("training", "fraction of true matches that are found", ("success",)),
    _VALIDATION,
)
_RESIDUAL_PANELS = (
    ("training", "loss", ("loss",)),
    ("training", "distance of descriptors", ("positive_distance", "negative_distance")),
    ("training", "fraction of true matches that are found", ("success",)),
    _VALIDATION,
)
_DISTILL_PANELS = (
    ("training", "loss", ("loss",)),
    ("training", "from the teacher", ("score_loss", "contrast_loss", "imitation_loss")),
    ("training", "of its own keypoints", ("descriptor_loss", "reprojection_loss", "peak_loss", "reliability_loss")),
    ("training", "fraction of true matches that are found", ("success",)),
    _VALIDATION,
)
# Panels by a part of the loss that is specific to the network.
_PANELS_OF = {
    "keypoint_loss": _PANELS,
    "imitation_loss": _DISTILL_PANELS,
    "peak_loss": _ALIKED_PANELS,
    "positive_distance": _RESIDUAL_PANELS,
}

Points = Sequence[tuple[float, float]]


def save_curves(path: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """Draws the lines of a run's log into a PNG."""
    write_atomically(path, png(curves_figure(log)))


@plot_style()
def curves_figure(log: Sequence[Mapping[str, Any]]) -> Figure:
    """The losses and metrics by step; training curves are smoothed."""
    from matplotlib.figure import Figure

    panels = next((of_part for part, of_part in _PANELS_OF.items() if any(part in line for line in log)), _PANELS)
    figure = Figure((9, 3.4 * len(panels)))
    for axes, (kind, title, names) in zip(figure.subplots(len(panels)), panels, strict=True):
        lines = [line for line in log if line["kind"] == kind]
        for name in names:
            curve = [(line["step"], line[name]) for line in lines]
            plot_curve(axes, curve if kind == "validation" else _smooth(curve), label=name)
        finish_axes(axes, title, "step")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _smooth(curve: Points) -> Points:
    """At most 150 points, each the mean of as many neighbours."""
    curve = [point for point in curve if np.isfinite(point[1])]
    size = max(1, -(-len(curve) // _SMOOTHED_POINTS))
    groups = [np.mean(curve[start : start + size], axis=0) for start in range(0, len(curve), size)]
    return [(float(step), float(value)) for step, value in groups]
