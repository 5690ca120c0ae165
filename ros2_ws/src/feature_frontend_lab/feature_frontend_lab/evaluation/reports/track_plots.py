"""The measures of tracks as curves, one colour a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.evaluation.reports.plots import Canvas, Line, Plot, draw_plots
from feature_frontend_lab.evaluation.tracks.benchmark import SequenceReport, TrackResult
from feature_frontend_lab.evaluation.tracks.metrics import GAPS
from feature_frontend_lab.evaluation.tracks.track_history import POSE_GAPS

__all__ = ["draw_results", "length_shares"]

# Upper ends of the bins of track lengths, frames.
_BINS = (1, 2, 4, 8, 16, 32, 64)
_OVER_FRAMES = "frames between the two images"

ByGap = Mapping[int, float] | None


def draw_results(title: str, report: SequenceReport) -> Canvas:
    """(H, W, 3) RGB: survival, lengths, inliers, parallax; with ground truth precision, errors and trajectories."""
    results = report.results
    plots = [
        Plot("Share of points alive", "frames later", _lines(results, lambda r: r.alive), _labels(GAPS), 1.0),
        _length_plot(results),
        _gap_plot("Epipolar inliers (RANSAC 1 px)", results, lambda r: r.inlier_ratio, 1.0),
        _gap_plot("Parallax, median px", results, lambda r: r.parallax_px),
    ]
    truth = [result for result in results if result.pose is not None]
    if truth:
        nearest = _lines(results, lambda r: r.nearest_precision, dashed=True)
        precise = _gap_plot("Within 2 px of the true epipolar line", results, lambda r: r.precision, 1.0, nearest)
        plots += [
            precise,
            _gap_plot("Rotation error, median deg", results, lambda r: _errors(r, "median_rotation_deg")),
            _gap_plot("Direction error, median deg", results, lambda r: _errors(r, "median_translation_deg")),
        ]
        path = _trajectory_plot(report)
        plots += [path] if path else []
    legend = [(result.configuration, Line((), number)) for number, result in enumerate(results)]
    if any(result.nearest_precision for result in results):
        legend.append(("nearest neighbours without tracks", Line((), 6, dashed=True)))
    if truth:
        legend.append(("ground truth", Line((), None)))
    return draw_plots(title, legend, plots)


def length_shares(lengths: Mapping[int, int]) -> list[float]:
    """Share of the tracks seen in 1, 2, 3 to 4, 5 to 8, ... frames; the last bin has no end. Adds up to 1."""
    bins = np.searchsorted(_BINS, list(lengths), side="left")
    counts = np.bincount(bins, weights=list(lengths.values()), minlength=len(_BINS) + 1)
    return [float(count) for count in counts / max(counts.sum(), 1)]


def _bin_names() -> list[str]:
    names = ["1", "2"]
    names += [f"{low + 1}-{high}" for low, high in pairwise(_BINS[1:])]
    return [*names, f">{_BINS[-1]}"]


def _length_plot(results: Sequence[TrackResult]) -> Plot:
    shares = [length_shares(result.lengths) for result in results]
    used = 1 + max((bin_ for of_result in shares for bin_, share in enumerate(of_result) if share), default=0)
    lines = tuple(Line(tuple(enumerate(of_result[:used])), number) for number, of_result in enumerate(shares))
    return Plot("Length of tracks, share of them", "frames seen", lines, dict(enumerate(_bin_names()[:used])))


def _lines(
    results: Sequence[TrackResult], pick: Callable[[TrackResult], ByGap], *, dashed: bool = False
) -> tuple[Line, ...]:
    return tuple(
        Line(tuple((float(gap), value) for gap, value in (pick(result) or {}).items()), number, dashed, not dashed)
        for number, result in enumerate(results)
    )


def _gap_plot(
    title: str,
    results: Sequence[TrackResult],
    pick: Callable[[TrackResult], ByGap],
    highest: float | None = None,
    behind: tuple[Line, ...] = (),
) -> Plot:
    return Plot(title, _OVER_FRAMES, behind + _lines(results, pick), _labels(POSE_GAPS), highest)


def _labels(gaps: Sequence[int]) -> dict[float, str]:
    return {float(gap): str(gap) for gap in gaps}


def _errors(result: TrackResult, name: str) -> ByGap:
    return None if result.pose is None else {gap: getattr(errors, name) for gap, errors in result.pose.items()}


def _trajectory_plot(report: SequenceReport) -> Plot | None:
    """Seen along the axis in which the camera moved least."""
    truth = np.array([pose[:3, 3] for pose in report.poses if pose is not None])
    axes = np.sort(np.argsort(np.ptp(truth, axis=0))[1:])

    def line(positions: npt.NDArray[np.float64], color: int | None) -> Line:
        return Line(tuple(map(tuple, positions[:, axes].tolist())), color, dots=color is not None)

    aligned = [(number, r.aligned) for number, r in enumerate(report.results) if r.aligned is not None]
    if not aligned:
        return None
    lines = (*(line(positions, number) for number, positions in aligned), line(truth, None))
    names = "xyz"[axes[0]], "xyz"[axes[1]]
    return Plot("Trajectory, aligned, m", f"{names[0]}; upwards {names[1]}", lines, is_map=True)
