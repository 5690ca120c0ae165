"""Matching over rotation and scale as tables, as JSON, and as one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

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
from feature_frontend_lab.evaluation.reports.plots import Canvas, Line, Plot, draw_plots
from feature_frontend_lab.evaluation.reports.writing import json_value, markdown_table, png, write_files

__all__ = ["robustness_picture", "robustness_tables", "write_robustness_report"]


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
