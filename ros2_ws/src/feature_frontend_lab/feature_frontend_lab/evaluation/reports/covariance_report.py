"""Whether covariances are true: tables, JSON and a PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_frontend_lab.evaluation.covariances.errors import GAPS, WRONG_PX, PositionErrors
from feature_frontend_lab.evaluation.covariances.fit import ELLIPSES, TOLERANCES
from feature_frontend_lab.evaluation.reports.plots import finish_axes, plot_curve, plot_grid, plot_style, png
from feature_frontend_lab.evaluation.reports.writing import json_value, markdown_table, markdown_text, write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CovarianceReport", "covariance_table", "write_covariance_report"]

_NOTES = (
    "pairs: two sightings of a track, so many images apart (gap). Error: the later position minus the true projection "
    "of the earlier one; covariance: the sum of both.",
    "in 50 %, 90 %, 99 %: percentage of the errors inside the ellipse that should hold as many.",
    f"wrong: percentage of the pairs farther than {WRONG_PX:g} px from the truth: wrong matches, not noise. Left out "
    "of the other columns.",
    "no truth: percentage of the pairs that are in the sky, hidden, or at the edge of a near object, where depth does "
    "not say which way the point moves: left out.",
    "error: median in px. area: median of the one-sigma ellipse, px^2.",
)
_HEADER = ("front-end", "gap", "pairs", "in 50 %", "90 %", "99 %", "error", "area", "wrong", "no truth")
_ENDS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class CovarianceReport:
    """Errors of several front-ends on one kind of scene.

    Attributes:
        name: Of the scenes.
        description: What was run.
        errors: By the name of the front-end.
    """

    name: str
    description: str
    errors: Mapping[str, PositionErrors]


def covariance_table(report: CovarianceReport) -> str:
    """A Markdown table: one row for each front-end and gap."""
    rows = [(name, str(gap), *_cells(errors, gap)) for name, errors in report.errors.items() for gap in GAPS]
    return markdown_table(_HEADER, rows)


def _cells(errors: PositionErrors, gap: int) -> Sequence[str]:
    value = _values(errors, gap)
    inside = [f"{100 * value[f'inside_{ellipse:g}']:.1f}" for ellipse in ELLIPSES]
    fractions = [f"{100 * value[name]:.2f}" for name in ("wrong", "unknown")]
    return [f"{value['pairs']:.0f}", *inside, f"{value['error_px']:.3f}", f"{value['area_px2']:.3f}", *fractions]


def _values(errors: PositionErrors, gap: int) -> dict[str, float]:
    used, wrong, unknown = (gaps == gap for gaps in (errors.gaps, errors.wrong, errors.unknown))
    probabilities, total = errors.probabilities[used], int(used.sum() + wrong.sum() + unknown.sum())
    has_any = bool(used.any())
    return {
        "pairs": float(used.sum()),
        **{f"inside_{p:g}": float((probabilities <= p).mean()) if has_any else np.nan for p in ELLIPSES},
        "error_px": float(np.median(np.linalg.norm(errors.errors[used], axis=1))) if has_any else np.nan,
        "area_px2": float(np.pi * np.median(np.linalg.det(errors.covariances1[used]) ** 0.5)) if has_any else np.nan,
        "wrong": wrong.sum() / total if total else np.nan,
        "unknown": unknown.sum() / total if total else np.nan,
    }


def write_covariance_report(
    folder: Path, reports: Sequence[CovarianceReport], options: Mapping[str, Any]
) -> list[Path]:
    """Writes covariances.md, covariances.json and covariances.png; returns their paths.

    Args:
        folder: Must exist.
        reports: One for each kind of scene.
        options: What the run was asked for.

    Raises:
        SourceError: A file cannot be written.
    """
    parts = [f"## {markdown_text(one.name)}\n\n{one.description}\n\n{covariance_table(one)}" for one in reports]
    scenes = {
        one.name: {name: {str(gap): _values(errors, gap) for gap in GAPS} for name, errors in one.errors.items()}
        for one in reports
    }
    document = json.dumps(json_value({"options": dict(options), "scenes": scenes}), indent=1, allow_nan=False)
    return write_files(
        folder,
        {
            "covariances.md": "\n\n".join([*parts, "\n".join(f"- {note}" for note in _NOTES)]) + "\n",
            "covariances.json": document + "\n",
            "covariances.png": png(covariance_figure(reports)),
        },
    )


@plot_style()
def covariance_figure(reports: Sequence[CovarianceReport]) -> Figure:
    """Fraction of the errors inside each ellipse over the fraction that it should hold, and the difference."""
    names = list(dict.fromkeys(name for report in reports for name in report.errors))
    legend: dict[str, dict[str, Any]] = {name: {"color": f"C{number}"} for number, name in enumerate(names)}
    legend["expected"] = {"color": "black", "linewidth": 1}
    legend["3, 2 and 1 points at 50, 90 and 99 %"] = {"color": "black", "marker": "_", "linestyle": "", "markersize": 9}
    figure, axes = plot_grid(
        "Errors inside the ellipses of the covariances, of consecutive images", legend, 2 * len(reports), columns=2
    )
    ticks = {part: f"{part:g} %" for part in (0.0, 50.0, 90.0, 100.0)}
    for report, (fraction, difference) in zip(reports, zip(axes[::2], axes[1::2], strict=True), strict=True):
        for axis in (fraction, difference):
            plot_curve(axis, [(0, 0), (100, 100 if axis is fraction else 0)], color="black", linewidth=1)
        for name, errors in report.errors.items():
            next_to = np.sort(errors.probabilities[errors.gaps == 1])
            found = np.searchsorted(next_to, _ENDS, side="right") / max(len(next_to), 1)
            plot_curve(fraction, zip(100 * _ENDS, 100 * found, strict=True), **legend[name])
            plot_curve(difference, zip(100 * _ENDS, 100 * (found - _ENDS), strict=True), **legend[name])
        for at, part in zip(ELLIPSES, TOLERANCES, strict=True):
            ends = [(100 * at, -100 * part), (100 * at, 100 * part)]
            plot_curve(difference, ends, color="black", marker="_", markersize=9, linestyle="")
        finish_axes(fraction, f"{report.name}: percentage found inside", "percentage that should be inside", ticks, 100)
        finish_axes(difference, "Difference, points", "percentage that should be inside", ticks)
        highest = max(np.abs(line.get_ydata()).max() for line in difference.lines)
        difference.set_ylim(-highest - 1, highest + 1)
    return figure
