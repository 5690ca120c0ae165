"""What was measured on warped photographs as Markdown tables, as JSON, and as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

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
    Canvas,
    Chart,
    Group,
    Line,
    Panel,
    Plot,
    draw_chart,
    draw_plots,
)
from feature_frontend_lab.evaluation.reports.writing import json_value, markdown_table, png, write_files

__all__ = [
    "homography_chart",
    "homography_json",
    "homography_table",
    "robustness_picture",
    "robustness_tables",
    "timing_table",
    "write_homography_report",
    "write_robustness_report",
]

_TIMING_FIELDS = ("seconds_per_image", "seconds_per_match")
_LIMITS = [f"{threshold:g}" for threshold in THRESHOLDS_PX]
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


def homography_chart(results: Sequence[MethodResult], benchmark: HomographyBenchmark, image_count: int) -> Chart:
    """Four panels for each budget and ratio threshold: repeatability, MMA, homography accuracy and AUC."""
    titles = {
        "repeatability": "Repeatability",
        "matching_accuracy": "Matching accuracy (MMA)",
        "homography_accuracy": "Homography accuracy",
        "homography_auc": "Homography AUC",
    }
    groups = []
    for conditions, rows in _groups(results).items():
        panels = [Panel(title, tuple(getattr(row, name) for row in rows)) for name, title in titles.items()]
        groups.append(Group(f"at most {conditions}", tuple(row.method for row in rows), tuple(panels)))
    pairs = results[0].pairs if results else 0
    return Chart(
        title=f"{pairs} warped pairs of {image_count} images, seed {benchmark.seed}",
        series=tuple(f"within {limit} px" for limit in _LIMITS),
        groups=tuple(groups),
    )


def write_homography_report(
    folder: Path, results: Sequence[MethodResult], benchmark: HomographyBenchmark, images: Sequence[Path]
) -> list[Path]:
    """Writes homography.md, homography.json and homography.png into `folder`; returns their paths.

    Raises:
        SourceError: A file cannot be written.
    """
    picture = draw_chart(homography_chart(results, benchmark, len(images)))
    data = homography_json(results, benchmark, images)
    return write_files(
        folder,
        {
            "homography.md": f"{homography_table(results)}\n",
            "homography.json": f"{data}\n",
            "homography.png": png(picture),
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
        *(text for score in scores for text in _score_texts(score)),
        "-" if result.median_corner_error_px is None else f"{result.median_corner_error_px:.2f}",
    ]


def _score_texts(score: tuple[float, ...] | None) -> list[str]:
    return ["-"] * len(THRESHOLDS_PX) if score is None else [f"{value:.3f}" for value in score]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"


def robustness_tables(results: Sequence[RobustnessResult]) -> str:
    """Matching accuracy at each angle and at each scale, in Markdown, one row a method, in the order of the run."""
    tables = [
        _table("Rotation, degrees", ANGLES_DEG, [(result.method, result.rotation) for result in results]),
        _table("Scale 2^-s, s", OCTAVES, [(result.method, result.scale) for result in results]),
    ]
    return "\n\n".join(tables)


def robustness_picture(results: Sequence[RobustnessResult], benchmark: RobustnessBenchmark, image_count: int) -> Canvas:
    """Accuracy over rotation and over scale, an (H, W, 3) RGB picture; dashed at several scales."""
    colors: dict[str, int] = {}
    lines = []
    for result in results:
        color = colors.setdefault(result.method.replace(MULTI_SCALE, ""), len(colors))
        is_dashed = result.method.partition("@")[0].endswith(MULTI_SCALE)
        lines.append((result, color, is_dashed))
    rotation, scale = (
        tuple(
            Line(tuple(zip(axis, getattr(result, name).accuracy, strict=True)), color, is_dashed, dots=False)
            for result, color, is_dashed in lines
        )
        for axis, name in ((ANGLES_DEG, "rotation"), (OCTAVES, "scale"))
    )
    title = (
        f"Right matches (within {benchmark.threshold_px:g} px) of all mutual nearest neighbours, "
        f"{image_count} images, at most {benchmark.keypoints} keypoints"
    )
    plots = [
        Plot("Rotation", "degrees", rotation, {angle: f"{angle:g}" for angle in ANGLES_DEG[::5]}, highest=1.0),
        Plot("Scale 2^-s", "s", scale, {octaves: f"{octaves:g}" for octaves in OCTAVES[::2]}, highest=1.0),
    ]
    legend = [(result.method, Line((), color, is_dashed)) for result, color, is_dashed in lines]
    return draw_plots(title, legend, plots, columns=2)


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
    picture = robustness_picture(results, benchmark, len(images))
    return write_files(
        folder,
        {
            "robustness.md": f"{robustness_tables(results)}\n",
            "robustness.json": f"{data}\n",
            "robustness.png": png(picture),
        },
    )


def _table(heading: str, axis: Sequence[float], rows: Sequence[tuple[str, Curve]]) -> str:
    cells = [[method, *(f"{value:.3f}" for value in curve.accuracy)] for method, curve in rows]
    return f"{heading}:\n\n{markdown_table(['method', *(f'{value:g}' for value in axis)], cells)}"
