"""The measures of tracks as curves, one colour a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_frontend_lab.evaluation.reports.plots import finish_axes, plot_curve, plot_grid, plot_style
from feature_frontend_lab.evaluation.tracks.benchmark import SequenceReport, TrackResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["length_shares", "track_figure"]

# Upper ends of the bins of track lengths, frames.
_BINS = (1, 2, 4, 8, 16, 32, 64)
_DOTS, _DASHES = {"marker": "o"}, {"linestyle": "--", "zorder": 1.9}

ByGap = Mapping[int, float] | None


@dataclass(frozen=True)
class _Measure:
    """What one of the axes shows: values by the number of frames, or by the numbers of `x_names`."""

    title: str
    values: Callable[[TrackResult], ByGap]
    highest: float | None = None
    dashed: Callable[[TrackResult], ByGap] = lambda _: None
    x_title: str = "frames between the two images"
    x_names: Sequence[str] = ()


_TRUE_MEASURES = (
    _Measure("Within 2 px of the true epipolar line", lambda r: r.precision, 1, lambda r: r.nearest_precision),
    _Measure("Rotation error, median deg", lambda r: _errors(r, "median_rotation_deg")),
    _Measure("Direction error, median deg", lambda r: _errors(r, "median_translation_deg")),
)


@plot_style()
def track_figure(title: str, report: SequenceReport) -> Figure:
    """Survival, lengths, inliers, parallax; with ground truth precision, errors and trajectories."""
    results = report.results
    has_truth = any(result.pose is not None for result in results)
    has_path = has_truth and any(result.aligned is not None for result in results)
    measures = [
        _Measure("Fraction of points alive", lambda r: r.alive, 1, x_title="frames later"),
        _lengths(results),
        _Measure("Epipolar inliers (RANSAC 1 px)", lambda r: r.inlier_ratio, 1),
        _Measure("Parallax, median px", lambda r: r.parallax_px),
        *_TRUE_MEASURES * has_truth,
    ]
    legend: dict[str, dict[str, Any]] = {
        result.configuration: {"color": f"C{number}"} for number, result in enumerate(results)
    }
    if any(result.nearest_precision for result in results):
        legend["nearest neighbours without tracks"] = {"color": "0.35", **_DASHES}
    if has_truth:
        legend["ground truth"] = {"color": "black"}
    figure, axes = plot_grid(title, legend, len(measures) + has_path, columns=3)
    for measure, own in zip(measures, axes, strict=False):
        _draw(own, measure, results)
    if has_path:
        _draw_trajectories(axes[-1], report)
    return figure


def length_shares(lengths: Mapping[int, int]) -> list[float]:
    """Fraction of the tracks seen in 1, 2, 3 to 4, 5 to 8, ... frames; the last bin has no end. Adds up to 1."""
    bins = np.searchsorted(_BINS, list(lengths), side="left")
    counts = np.bincount(bins, weights=list(lengths.values()), minlength=len(_BINS) + 1)
    return [float(count) for count in counts / max(counts.sum(), 1)]


def _bin_names() -> list[str]:
    names = ["1", "2"]
    names += [f"{low + 1}-{high}" for low, high in pairwise(_BINS[1:])]
    return [*names, f">{_BINS[-1]}"]


def _draw(axes: Axes, measure: _Measure, results: Sequence[TrackResult]) -> None:
    for number, result in enumerate(results):
        for pick, style in ((measure.dashed, _DASHES), (measure.values, _DOTS)):
            plot_curve(axes, (pick(result) or {}).items(), color=f"C{number}", **style)
    xs = {float(x) for line in axes.lines for x in np.asarray(line.get_xdata())}
    ticks = {x: measure.x_names[int(x)] if measure.x_names else f"{x:g}" for x in xs}
    finish_axes(axes, measure.title, measure.x_title, ticks, measure.highest)


def _lengths(results: Sequence[TrackResult]) -> _Measure:
    """The bins up to the last one that is not empty everywhere."""
    used = max((len(np.trim_zeros(length_shares(result.lengths), "b")) for result in results), default=0)

    def fractions(result: TrackResult) -> dict[int, float]:
        return dict(enumerate(length_shares(result.lengths)[:used]))

    return _Measure("Length of tracks, fraction of them", fractions, x_title="frames seen", x_names=_bin_names())


def _errors(result: TrackResult, name: str) -> ByGap:
    return None if result.pose is None else {gap: getattr(errors, name) for gap, errors in result.pose.items()}


def _draw_trajectories(axes: Axes, report: SequenceReport) -> None:
    """Seen along the axis in which the camera moved least."""
    truth = np.array([pose[:3, 3] for pose in report.poses if pose is not None])
    x, y = np.sort(np.argsort(np.ptp(truth, axis=0))[1:])
    for number, result in enumerate(report.results):
        if result.aligned is not None:
            axes.plot(result.aligned[:, x], result.aligned[:, y], color=f"C{number}", marker=".")
    axes.plot(truth[:, x], truth[:, y], color="black")
    axes.set(title="Trajectory, aligned, m", xlabel=f"{'xyz'[x]}; upwards {'xyz'[y]}")
    axes.set_aspect("equal", adjustable="datalim")
