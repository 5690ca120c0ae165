"""Results as a Markdown table, as JSON, and as a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from feature_frontend.errors import SourceError
from feature_frontend.system.markdown import markdown_text
from feature_frontend_lab.evaluation.homography.benchmark import THRESHOLDS_PX, HomographyBenchmark, MethodResult
from feature_frontend_lab.evaluation.reports.plots import FAINT, add_header, plain, plot_style, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "homography_figure",
    "homography_json",
    "homography_table",
    "json_value",
    "make_report_folder",
    "markdown_table",
    "timing_table",
    "write_homography_report",
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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that also reads well as text: the first column to the left, the others to the right.

    Cells show what is in them, whatever that means in Markdown or HTML.
    """
    header, rows = [markdown_text(cell) for cell in header], [[markdown_text(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [header, rule, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def json_value(value: Any) -> Any:
    """The same value as JSON can say it: a number that is not finite, such as an error that does not exist, is null."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_report_folder(folder: Path) -> None:
    """Makes the folder of a report; called before a long run, which should not end in nothing.

    Raises:
        SourceError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the folder {folder} for the report cannot be made: {error}; choose another --output"
        raise SourceError(msg) from error


def write_homography_report(
    folder: Path, results: Sequence[MethodResult], benchmark: HomographyBenchmark, images: Sequence[Path]
) -> list[Path]:
    """Writes homography.md, homography.json and homography.png into `folder`; returns their paths.

    Raises:
        SourceError: A file cannot be written.
    """
    figure = homography_figure(results, benchmark, len(images))
    data = homography_json(results, benchmark, images)
    return write_report(folder / "homography", homography_table(results), data, figure)


def write_report(stem: Path, table: str, data: str, figure: Figure) -> list[Path]:
    """Writes `stem`.md, .json and .png; returns their paths.

    Args:
        stem: Path without a suffix, in a folder that exists.
        table: Markdown.
        data: JSON.
        figure: For the PNG.

    Raises:
        SourceError: A file cannot be written.
    """
    contents = {".md": f"{table}\n".encode(), ".json": f"{data}\n".encode(), ".png": png(figure)}
    paths = [stem.with_name(stem.name + suffix) for suffix in contents]
    try:
        for path, content in zip(paths, contents.values(), strict=True):
            path.write_bytes(content)
    except OSError as error:
        msg = f"the report cannot be written into {stem.parent}: {error}; choose another --output"
        raise SourceError(msg) from error
    return paths


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
