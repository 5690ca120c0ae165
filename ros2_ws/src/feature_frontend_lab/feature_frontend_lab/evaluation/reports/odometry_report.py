"""Odometry measured: a table for each sequence, JSON, a PNG, and trajectories in TUM's format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.evaluation.odometry.benchmark import PIECE_FRAMES, OdometryResult, SequenceResults
from feature_frontend_lab.evaluation.reports.plots import plain, plot_grid, plot_style, png
from feature_frontend_lab.evaluation.reports.writing import (
    file_names,
    json_value,
    markdown_table,
    markdown_text,
    write_files,
)
from feature_frontend_lab.evaluation.tracks.ground_truth import tum_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

__all__ = ["describe", "odometry_figure", "odometry_table", "write_odometry_report"]

_NOTES = (
    "Of several seeds: the median, and the smallest and largest value. A sequence without a pose has no errors (-).",
    "ATE: root mean square distance of the positions from the true ones after alignment by rotation and translation, "
    "of the images that have a pose; without an IMU also by scale, each piece by itself.",
    "over 1 s: root mean square error of the motion over a second, in m and degrees; not across a loss.",
    "start: from the first image to the first pose. lost: how often the estimate was lost and restarted. with "
    "pose: fraction of the images. rejected: fraction of the points in use that fitted no place, by GTSAM. ms: of the "
    "odometry for an image, on this machine.",
)


def describe(report: SequenceResults) -> str:
    """What was run, in one line."""
    images = next(iter(report.results.values()))[0].images
    seeds = "one seed: a recording" if report.seeds is None else f"seeds {', '.join(map(str, report.seeds))}"
    how = "visual-inertial" if report.has_imu else f"monocular, pieces of {PIECE_FRAMES} images"
    return f"{images} images, {how}, {seeds}"


_COLUMNS: tuple[tuple[str, Callable[[OdometryResult], float], int], ...] = (
    ("ATE m", lambda r: r.errors.ate_m, 3),
    ("over 1 s: m", lambda r: r.errors.relative_m, 3),
    ("degrees", lambda r: r.errors.relative_deg, 2),
    ("start s", lambda r: r.start_s, 2),
    ("lost", lambda r: len(r.losses), 0),
    ("with pose", lambda r: r.covered, 2),
    ("rejected", lambda r: r.rejected, 3),
    ("points", lambda r: r.points, 0),
    ("ms", lambda r: r.mean_ms, 0),
)


def odometry_table(report: SequenceResults) -> str:
    """A Markdown table, one row for each front-end, and why there are losses, no poses or no errors."""
    rows = [
        (name, *(_spread([pick(result) for result in results], digits) for _, pick, digits in _COLUMNS))
        for name, results in report.results.items()
    ]
    table = markdown_table(("front-end", *(name for name, _, _ in _COLUMNS)), rows)
    faults = Counter(
        fault
        for name, results in report.results.items()
        for result in results
        for fault in [
            *((name, "lost", why) for why in result.losses),
            *([(name, "without a pose", result.no_start)] if result.no_start else []),
        ]
    )
    reasons = [
        f"- {markdown_text(name)} {what} {count}x: {markdown_text(why)}" for (name, what, why), count in faults.items()
    ]
    if not _has_truth(report):
        reasons.append("- no true poses at the times of the images: no errors (-)")
    return "\n\n".join([table, *(["\n".join(reasons)] if reasons else [])])


def _has_truth(report: SequenceResults) -> bool:
    return any(poses for _, poses in report.truth)


def _spread(values: Sequence[float], digits: int) -> str:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return "-"
    median = f"{np.median(finite):.{digits}f}"
    if len(values) == 1:
        return median
    failed = f", {len(values) - len(finite)} without" if len(finite) < len(values) else ""
    return f"{median} ({min(finite):.{digits}f} to {max(finite):.{digits}f}{failed})"


def write_odometry_report(folder: Path, reports: Sequence[SequenceResults], options: Mapping[str, Any]) -> list[Path]:
    """Writes odometry.md, odometry.json, a PNG for each sequence and trajectories; returns their paths.

    Args:
        folder: Must exist.
        reports: One for each sequence, with different names.
        options: What the run was asked for.

    Raises:
        SourceError: A file cannot be written.
    """
    parts = [f"## {markdown_text(report.name)}\n\n{describe(report)}\n\n{odometry_table(report)}" for report in reports]
    files: dict[str, str | bytes] = {
        "odometry.md": "\n\n".join([*parts, "\n".join(f"- {note}" for note in _NOTES)]) + "\n",
        "odometry.json": _json(reports, options) + "\n",
    }
    names = file_names([report.name for report in reports])
    for report in reports:
        name, front_ends = names[report.name], file_names(list(report.results))
        files[f"odometry_{name}.png"] = png(odometry_figure(report))
        for number, (stamps_ns, poses) in enumerate(report.truth):
            if poses:
                files[f"{name}_{_seed(report, number)}ground_truth.tum"] = tum_text(stamps_ns, poses)
        for front_end, results in report.results.items():
            for number, result in enumerate(results):
                path = f"{name}_{_seed(report, number)}{front_ends[front_end]}.tum"
                files[path] = tum_text(result.stamps_ns, result.poses)
    return write_files(folder, files)


@plot_style()
def odometry_figure(report: SequenceResults) -> Figure:
    """Positions of the first seed, after alignment if there is a truth: from above and from the side."""
    legend: dict[str, dict[str, Any]] = {name: {"color": f"C{number}"} for number, name in enumerate(report.results)}
    has_truth = _has_truth(report)
    if has_truth:
        legend["ground truth"] = {"color": "black"}
    figure, axes = plot_grid(f"{report.name}: {describe(report)}", legend, 2, columns=2)
    _, poses = report.truth[0]
    truth = _positions(poses)
    for own, (x, y, title) in zip(axes, ((0, 1, "x and y"), (0, 2, "x and z")), strict=True):
        for number, results in enumerate(report.results.values()):
            positions = results[0].errors.positions if has_truth else _positions(results[0].poses)
            own.plot(positions[:, x], positions[:, y], color=f"C{number}", linewidth=1.2)
        own.plot(truth[:, x], truth[:, y], color="black", linewidth=1.2)
        own.set(title=plain(f"{'Aligned positions' if has_truth else 'Positions, not aligned'}, {title}, m"))
        own.set_aspect("equal", adjustable="datalim")
    return figure


def _positions(poses: Sequence[FloatArray]) -> FloatArray:
    return np.array([pose[:3, 3] for pose in poses]).reshape(-1, 3)


def _json(reports: Sequence[SequenceResults], options: Mapping[str, Any]) -> str:
    sequences = [
        {
            "name": report.name,
            "has_imu": report.has_imu,
            "seeds": report.seeds,
            "results": {name: [_result(result) for result in results] for name, results in report.results.items()},
        }
        for report in reports
    ]
    versions = {"opencv": cv2.__version__, "numpy": np.__version__}
    document = {"options": dict(options), "versions": versions, "sequences": sequences}
    return json.dumps(json_value(document), indent=1, allow_nan=False)


def _result(result: OdometryResult) -> dict[str, Any]:
    values = {name: pick(result) for name, pick, _ in _COLUMNS}
    return values | {
        "images": result.images,
        "poses": len(result.poses),
        "losses": result.losses,
        "no_start": result.no_start,
    }


def _seed(report: SequenceResults, number: int) -> str:
    return "" if report.seeds is None else f"seed{report.seeds[number]}_"
