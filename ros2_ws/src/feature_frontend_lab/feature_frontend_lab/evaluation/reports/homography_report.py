"""What was measured on warped photographs as Markdown tables, as JSON, and as figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from feature_frontend_lab.evaluation.homography.baselines import MULTI_SCALE
from feature_frontend_lab.evaluation.homography.benchmark import THRESHOLDS_PX, HomographyBenchmark, MethodResult
from feature_frontend_lab.evaluation.homography.robustness import (
    ANGLES_DEG,
    OCTAVES,
    Curve,
    RobustnessBenchmark,
    RobustnessResult,
)
from feature_frontend_lab.evaluation.reports.plots import (
    FAINT,
    add_header,
    finish_axes,
    plain,
    plot_curve,
    plot_grid,
    plot_style,
    png,
)
from feature_frontend_lab.evaluation.reports.writing import json_value, markdown_table, write_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "homography_figure",
    "homography_json",
    "homography_table",
    "robustness_figure",
    "robustness_tables",
    "timing_table",
    "write_homography_report",
    "write_robustness_report",
]

_TIMING_FIELDS = ("seconds_per_image", "seconds_per_match")
_LIMITS = [f"{threshold:g}" for threshold in THRESHOLDS_PX]
# Of the bars for each limit: a looser one's are paler.
_LOOKS: tuple[dict[str, Any], ...] = ({"facecolor": "C0"}, {"facecolor": "C0", "alpha": 0.4})
_PANELS = {
    "repeatability": "Repeatability",
    "matching_accuracy": "Matching accuracy (MMA)",
    "homography_accuracy": "Homography accuracy",
    "homography_auc": "Homography AUC",
}
_COLUMNS = [
    "method",
    "points",
    "matches",
    *(f"Rep@{limit}" for limit in _LIMITS),
    *(f"MMA@{limit}" for limit in _LIMITS),
    *(f"MS@{limit}" for limit in _LIMITS),
    *(f"HA@{limit}" for limit in _LIMITS),
    *(f"AUC@{limit}" for limit in _LIMITS),
    "corner error px",
]


def homography_table(results: Sequence[MethodResult]) -> str:
    """One Markdown table for each budget and ratio threshold, one row a method, in the order of the run."""
    parts = []
    for conditions, rows in _groups(results).items():
        parts.append(f"At most {conditions}:\n\n{markdown_table(_COLUMNS, [_table_row(row) for row in rows])}")
    return "\n\n".join(parts)


def timing_table(results: Sequence[MethodResult]) -> str:
    """Medians of this run on this machine, ms: to plan the next run, not to compare methods by."""
    rows = {
        (result.method, result.budget): [
            _milliseconds(result.seconds_per_image),
            _milliseconds(result.seconds_per_match),
        ]
        for result in results
    }
    cells = [[method, str(budget), *times] for (method, budget), times in rows.items()]
    return markdown_table(["method", "keypoints", "ms an image", "ms a matching"], cells)


def homography_json(results: Sequence[MethodResult], benchmark: HomographyBenchmark, images: Sequence[Path]) -> str:
    """Everything as JSON: "benchmark", "images", "results", and apart from these "timing", which no two runs share."""
    measured = [
        {name: json_value(value) for name, value in asdict(result).items() if name not in _TIMING_FIELDS}
        for result in results
    ]
    timing = [
        {"method": result.method, "budget": result.budget, **{name: getattr(result, name) for name in _TIMING_FIELDS}}
        for result in results
    ]
    document = {
        "benchmark": {**asdict(benchmark), "thresholds_px": THRESHOLDS_PX},
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
        "images": [path.name for path in images],
        "results": measured,
        "timing": timing,
    }
    return json.dumps(document, indent=1, allow_nan=False)


@plot_style()
def homography_figure(results: Sequence[MethodResult], benchmark: HomographyBenchmark, image_count: int) -> Figure:
    """Bars for each budget and ratio threshold; those of a looser limit lie behind those of the stricter ones."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    groups = _groups(results)
    heights_in = [0.75, *(0.8 + 0.26 * len(rows) for rows in groups.values())]
    figure = Figure((15.4, sum(heights_in)))
    header, *parts = figure.subfigures(len(heights_in), 1, squeeze=False, height_ratios=heights_in)[:, 0]
    pairs = results[0].pairs if results else 0
    title = f"{pairs} warped pairs of {image_count} images, seed {benchmark.seed}"
    legend = {f"within {limit} px": Patch(**look) for limit, look in zip(_LIMITS, _LOOKS, strict=True)}
    add_header(header, title, legend, len(legend))
    for part, (conditions, rows) in zip(parts, groups.items(), strict=True):
        part.suptitle(f"at most {conditions}", x=0.01, ha="left", fontsize="large")
        for axes, (name, title) in zip(part.subplots(1, len(_PANELS), sharey=True), _PANELS.items(), strict=True):
            axes.set_title(title, color=FAINT, fontweight="normal")
            _draw_bars(axes, [getattr(row, name) for row in rows])
        part.axes[0].set_yticks(range(len(rows)), [plain(row.method) for row in rows], color="black")
    return figure


def _draw_bars(axes: Axes, rows: Sequence[tuple[float, ...] | None]) -> None:
    """The values of a row at each limit, over a pale bar from 0 to 1."""
    places = range(len(rows))
    axes.barh(places, [0 if values is None else 1 for values in rows], height=0.7, color="0.94")
    for place, values in zip(places, rows, strict=True):
        axes.text(1.02 if values else 0, place, " / ".join(_score_texts(values, 2)) if values else "-", va="center")
    for number, look in reversed(list(enumerate(_LOOKS))):
        axes.barh(places, [values[number] if values else 0 for values in rows], height=0.7, **look)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=[])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def write_homography_report(
    folder: Path, results: Sequence[MethodResult], benchmark: HomographyBenchmark, images: Sequence[Path]
) -> list[Path]:
    """Writes homography.md, homography.json and homography.png into `folder`; returns their paths.

    Raises:
        SourceError: A file cannot be written.
    """
    figure = homography_figure(results, benchmark, len(images))
    data = homography_json(results, benchmark, images)
    return write_files(
        folder,
        {
            "homography.md": f"{homography_table(results)}\n",
            "homography.json": f"{data}\n",
            "homography.png": png(figure),
        },
    )


def _groups(results: Sequence[MethodResult]) -> dict[str, list[MethodResult]]:
    """The results by the conditions that they share, in words."""
    groups: dict[str, list[MethodResult]] = {}
    for result in results:
        gate = "" if result.ratio_threshold == 1 else f", ratio test {result.ratio_threshold:g}"
        groups.setdefault(f"{result.budget} keypoints{gate}", []).append(result)
    return groups


def _table_row(result: MethodResult) -> list[str]:
    scores = [
        result.repeatability,
        result.matching_accuracy,
        result.matching_score,
        result.homography_accuracy,
        result.homography_auc,
    ]
    return [
        result.method,
        f"{result.mean_points:.0f}",
        "-" if result.mean_matches is None else f"{result.mean_matches:.0f}",
        *(text for score in scores for text in _score_texts(score, 3)),
        "-" if result.median_corner_error_px is None else f"{result.median_corner_error_px:.2f}",
    ]


def _score_texts(score: tuple[float, ...] | None, digits: int) -> list[str]:
    return ["-"] * len(THRESHOLDS_PX) if score is None else [f"{value:.{digits}f}" for value in score]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"


def robustness_tables(results: Sequence[RobustnessResult]) -> str:
    """Matching accuracy at each angle and at each scale, in Markdown, one row a method, in the order of the run."""
    tables = [
        _table("Rotation, degrees", ANGLES_DEG, [(result.method, result.rotation) for result in results]),
        _table("Scale 2^-s, s", OCTAVES, [(result.method, result.scale) for result in results]),
    ]
    return "\n\n".join(tables)


@plot_style()
def robustness_figure(results: Sequence[RobustnessResult], benchmark: RobustnessBenchmark, image_count: int) -> Figure:
    """Accuracy over rotation and over scale; dashed at several scales."""
    title = (
        f"Right matches (within {benchmark.threshold_px:g} px) of all mutual nearest neighbours, "
        f"{image_count} images, at most {benchmark.keypoints} keypoints"
    )
    colors: dict[str, str] = {}
    legend = {}
    for result in results:
        color = colors.setdefault(result.method.replace(MULTI_SCALE, ""), f"C{len(colors)}")
        is_dashed = result.method.partition("@")[0].endswith(MULTI_SCALE)
        legend[result.method] = {"color": color, "linestyle": "--" if is_dashed else "-"}
    figure, (rotation, scale) = plot_grid(title, legend, 2, columns=2)
    for result in results:
        plot_curve(rotation, zip(ANGLES_DEG, result.rotation.accuracy, strict=True), **legend[result.method])
        plot_curve(scale, zip(OCTAVES, result.scale.accuracy, strict=True), **legend[result.method])
    finish_axes(rotation, "Rotation", "degrees", {angle: f"{angle:g}" for angle in ANGLES_DEG[::5]}, highest=1)
    finish_axes(scale, "Scale 2^-s", "s", {octaves: f"{octaves:g}" for octaves in OCTAVES[::2]}, highest=1)
    return figure


def write_robustness_report(
    folder: Path, results: Sequence[RobustnessResult], benchmark: RobustnessBenchmark, images: Sequence[Path]
) -> list[Path]:
    """Writes robustness.md, robustness.json and robustness.png into `folder`; returns their paths.

    Raises:
        SourceError: A file cannot be written.
    """
    document = {
        "benchmark": asdict(benchmark),
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
        "images": [path.name for path in images],
        "angles_deg": ANGLES_DEG,
        "octaves": OCTAVES,
        "results": [asdict(result) for result in results],
    }
    data = json.dumps(json_value(document), indent=1, allow_nan=False)
    figure = robustness_figure(results, benchmark, len(images))
    return write_files(
        folder,
        {
            "robustness.md": f"{robustness_tables(results)}\n",
            "robustness.json": f"{data}\n",
            "robustness.png": png(figure),
        },
    )


def _table(heading: str, axis: Sequence[float], rows: Sequence[tuple[str, Curve]]) -> str:
    cells = [[method, *(f"{value:.3f}" for value in curve.accuracy)] for method, curve in rows]
    return f"{heading}:\n\n{markdown_table(['method', *(f'{value:g}' for value in axis)], cells)}"
