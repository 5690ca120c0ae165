"""Matching over rotation and scale as tables, as JSON, and as one figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from feature_frontend_lab.evaluation.homography.baselines import MULTI_SCALE
from feature_frontend_lab.evaluation.homography.robustness import (
    ANGLES_DEG,
    OCTAVES,
    Curve,
    RobustnessBenchmark,
    RobustnessResult,
)
from feature_frontend_lab.evaluation.reports.homography_report import json_value, markdown_table, write_report
from feature_frontend_lab.evaluation.reports.plots import finish_axes, plot_curve, plot_grid, plot_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["robustness_figure", "robustness_tables", "write_robustness_report"]


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
    return write_report(folder / "robustness", robustness_tables(results), data, figure)


def _table(heading: str, axis: Sequence[float], rows: Sequence[tuple[str, Curve]]) -> str:
    cells = [[method, *(f"{value:.3f}" for value in curve.accuracy)] for method, curve in rows]
    return f"{heading}:\n\n{markdown_table(['method', *(f'{value:g}' for value in axis)], cells)}"
