"""Tracks measured: tables, one HTML file with pictures in it, JSON, PNG, and trajectories in TUM's format."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from feature_frontend_lab.evaluation.reports.plots import png
from feature_frontend_lab.evaluation.reports.track_plots import track_figure
from feature_frontend_lab.evaluation.reports.writing import (
    file_names,
    json_value,
    markdown_table,
    markdown_text,
    write_files,
)
from feature_frontend_lab.evaluation.tracks.benchmark import SequenceReport, TrackResult
from feature_frontend_lab.evaluation.tracks.ground_truth import tum_text
from feature_frontend_lab.evaluation.tracks.metrics import CONFIDENCE, GAPS, Difference, paired_difference
from feature_frontend_lab.evaluation.tracks.track_history import POSE_GAPS

__all__ = ["Table", "pose_differences", "tables_of", "write_track_report"]

_NOTES = (
    "alive@n: share of a frame's points that are present n frames later, by id, averaged over the frames.",
    "matches: points that a frame shares with the one before. length: frames in which a track was seen, mean; the end "
    "of the sequence cuts tracks off. coverage: share of the 6x8 cells of an image that hold a point seen before.",
    "inliers@n: share of the pairs over n frames that agree with one epipolar geometry (RANSAC, 1 px). "
    "parallax@n: median distance that a point has moved in the image over n frames.",
    "drift: median distance of followed points from what the detector finds by itself, with 4 times the budget, within "
    "3 px of them; 0 where most points are detections. re-found: the same of those beyond the budget. unrelated: "
    "share of the tracks that are claimed in an unrelated image.",
    "true@n: share of the pairs over n frames within 2 px of their true epipolar lines; nearest@n: the same of mutual "
    "nearest neighbours between the same two frames, without tracks. rotation, direction: median error of the motion "
    "over n frames from tracks alone (essential matrix, RANSAC 1 px; a pair without a motion counts as 180).",
    f"mean differences: of the errors over the same pairs of frames, with the {CONFIDENCE:.0%} interval by the "
    "bootstrap; below 0 is better than the first configuration, and where the interval holds 0 nothing is said.",
    "trajectory: root mean square distance of the chained motions from the truth after alignment with scale.",
)


@dataclass(frozen=True)
class Table:
    """Rows of texts under a header, with a heading of its own."""

    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(report: SequenceReport) -> list[Table]:
    """Tables of the tracks, of the geometry where the truth is known, each against the first, and of the times."""
    results = report.results
    tables = [_table("Tracks", results, _TRACK_COLUMNS)]
    if any(result.pose is not None for result in results):
        tables.append(_table("Against ground truth", results, _TRUTH_COLUMNS))
        differences = pose_differences(results)
        if differences:
            tables.append(_difference_table(results[0].configuration, differences))
    return [*tables, _table("Median times on this machine, for information", results, _TIME_COLUMNS)]


def pose_differences(results: Sequence[TrackResult]) -> dict[str, dict[str, Difference]]:
    """How the errors of motion differ from the first configuration's, by configuration and then by what and gap."""
    first, *others = results
    if first.pose is None:
        return {}
    return {
        other.configuration: {
            f"{what}@{gap}": paired_difference(
                getattr(other.pose[gap], f"{errors}_deg"), getattr(first.pose[gap], f"{errors}_deg")
            )
            for what, errors in (("rotation", "rotations"), ("direction", "translations"))
            for gap in POSE_GAPS
        }
        for other in others
        if other.pose is not None
    }


def write_track_report(folder: Path, reports: Sequence[SequenceReport], options: Mapping[str, Any]) -> list[Path]:
    """Writes tracks.html, tracks.md, tracks.json, a PNG for each sequence and trajectories; returns their paths.

    Args:
        folder: Must exist.
        reports: One for each sequence, with different names.
        options: What the run was asked for.

    Raises:
        SourceError: A file cannot be written.
    """
    pictures = {report.name: png(track_figure(f"{report.name}: {report.description}", report)) for report in reports}
    names = file_names([report.name for report in reports])
    files: dict[str, str | bytes] = {
        "tracks.html": _html(reports, pictures, options),
        "tracks.md": _markdown(reports),
        "tracks.json": _json(reports, options) + "\n",
    }
    for report in reports:
        files[f"tracks_{names[report.name]}.png"] = pictures[report.name]
        files |= _trajectories(names[report.name], report)
    return write_files(folder, files)


def _difference_table(first: str, differences: Mapping[str, Mapping[str, Difference]]) -> Table:
    names = tuple(next(iter(differences.values())))
    rows = tuple(
        (configuration, *(_difference(own[name], 3 if name.startswith("rotation") else 2) for name in names))
        for configuration, own in differences.items()
    )
    header = ("configuration", *(name.replace("@", " deg@") for name in names))
    return Table(f"Mean differences from {first}", header, rows)


def _difference(value: Difference, digits: int) -> str:
    if not np.isfinite(value.mean):
        return "-"
    interval = f" ({value.low:+.{digits}f} to {value.high:+.{digits}f})" if np.isfinite(value.low) else ""
    return f"{value.mean:+.{digits}f}{interval}"


_Column = tuple[str, Callable[[TrackResult], str]]


def _share(value: float | None) -> str:
    return _number(value, 2)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _by_gap(name: str, gaps: Sequence[int], pick: Callable[[TrackResult, int], float | None], digits: int) -> _Column:
    """One column for several gaps: the table would not fit a page otherwise."""
    return (
        f"{name}@{' '.join(map(str, gaps))}",
        lambda result: " ".join(_number(pick(result, gap), digits) for gap in gaps),
    )


_TRACK_COLUMNS: tuple[_Column, ...] = (
    ("keypoints", lambda r: _number(r.keypoints, 0)),
    ("matches", lambda r: _number(r.matches, 0)),
    _by_gap("alive", GAPS, lambda r, gap: r.alive[gap], 2),
    ("length", lambda r: _number(r.mean_length, 1)),
    ("coverage", lambda r: _share(r.coverage)),
    _by_gap("inliers", POSE_GAPS, lambda r, gap: r.inlier_ratio[gap], 2),
    _by_gap("parallax px", POSE_GAPS, lambda r, gap: r.parallax_px[gap], 1),
    ("parallax of life px", lambda r: _number(r.life_parallax_px, 1)),
    ("drift px", lambda r: _share(r.drift_px)),
    ("re-found px", lambda r: _share(r.refound_drift_px)),
    ("unrelated", lambda r: _number(r.unrelated, 3)),
)
_TRUTH_COLUMNS: tuple[_Column, ...] = (
    _by_gap("true", POSE_GAPS, lambda r, gap: (r.precision or {}).get(gap), 2),
    _by_gap("nearest", POSE_GAPS, lambda r, gap: (r.nearest_precision or {}).get(gap), 2),
    _by_gap("rotation deg", POSE_GAPS, lambda r, gap: r.pose[gap].median_rotation_deg if r.pose else None, 3),
    _by_gap("direction deg", POSE_GAPS, lambda r, gap: r.pose[gap].median_translation_deg if r.pose else None, 2),
    (
        "pairs without motion",
        lambda r: "-" if r.pose is None else " ".join(str(errors.without_pose) for errors in r.pose.values()),
    ),
    ("trajectory m", lambda r: _number(r.trajectory_rmse_m, 3)),
)
_TIME_COLUMNS: tuple[_Column, ...] = (
    ("what ran", lambda r: r.identity),
    ("extraction ms", lambda r: _number(r.extraction_ms, 1)),
    ("matching and tracking ms", lambda r: _number(r.tracking_ms, 1)),
)


def _table(heading: str, results: Sequence[TrackResult], columns: Sequence[_Column]) -> Table:
    header = ("configuration", *(name for name, _ in columns))
    return Table(heading, header, tuple((r.configuration, *(pick(r) for _, pick in columns)) for r in results))


def _markdown(reports: Sequence[SequenceReport]) -> str:
    parts = []
    for report in reports:
        parts.append(f"## {markdown_text(report.name)}\n\n{markdown_text(report.description)}")
        parts += [
            f"{markdown_text(table.heading)}:\n\n{markdown_table(table.header, table.rows)}"
            for table in tables_of(report)
        ]
    notes = "\n".join(f"- {note}" for note in _NOTES)
    return "\n\n".join([*parts, notes]) + "\n"


def _json(reports: Sequence[SequenceReport], options: Mapping[str, Any]) -> str:
    sequences = [
        {
            "name": report.name,
            "description": report.description,
            "results": [_result_json(result) for result in report.results],
            "pose_differences": {
                name: {measure: {**asdict(value), "verdict": value.verdict} for measure, value in own.items()}
                for name, own in pose_differences(report.results).items()
            },
        }
        for report in reports
    ]
    versions = {"opencv": cv2.__version__, "numpy": np.__version__}
    document = {"options": options, "versions": versions, "sequences": sequences}
    return json.dumps(json_value(document), indent=1, allow_nan=False)


def _result_json(result: TrackResult) -> dict[str, Any]:
    """All measures; of the trajectory, which has a file of its own, only what that does not hold."""
    values = {name: value for name, value in vars(result).items() if name not in {"trajectory", "aligned", "pose"}}
    pose = None if result.pose is None else {gap: asdict(errors) for gap, errors in result.pose.items()}
    trajectory = result.trajectory
    chained = None if trajectory is None else {"poses": len(trajectory.poses), "kept_scales": trajectory.kept_scales}
    return {**values, "mean_length": result.mean_length, "pose": pose, "trajectory": chained}


def _trajectories(name: str, report: SequenceReport) -> dict[str, str]:
    files = {}
    known = [
        (stamp_ns, pose) for stamp_ns, pose in zip(report.stamps_ns, report.poses, strict=True) if pose is not None
    ]
    if known:
        files[f"{name}_ground_truth.tum"] = tum_text([stamp_ns for stamp_ns, _ in known], [pose for _, pose in known])
    configurations = file_names([result.configuration for result in report.results])
    for result in report.results:
        if result.trajectory is not None:
            stamps_ns = [report.stamps_ns[index] for index in result.trajectory.frames]
            files[f"{name}_{configurations[result.configuration]}.tum"] = tum_text(stamps_ns, result.trajectory.poses)
    return files


def _html(reports: Sequence[SequenceReport], pictures: Mapping[str, bytes], options: Mapping[str, Any]) -> str:
    parts = []
    for report in reports:
        parts.append(f"<h2>{html.escape(report.name)}</h2><p>{html.escape(report.description)}</p>")
        data = base64.b64encode(pictures[report.name]).decode("ascii")
        parts.append(f'<img alt="Curves of {html.escape(report.name)}" src="data:image/png;base64,{data}">')
        parts += [_html_table(table) for table in tables_of(report)]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in _NOTES)
    asked = html.escape(json.dumps(options))
    return _PAGE.format(body="\n".join(parts), notes=notes, options=asked)


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f"<h3>{html.escape(table.heading)}</h3><table>{row(table.header, 'th')}\n{body}</table>"


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Tracks</title><style>
body {{ font: 15px/1.45 sans-serif; color: #282c34; max-width: 1260px; margin: 2em auto; padding: 0 1em }}
img {{ max-width: 100% }}
table {{ border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }}
th, td {{ padding: 4px 9px; border-bottom: 1px solid #e4e7ea; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
</style></head><body><h1>Tracks</h1>
{body}
<h2>What the columns say</h2><ul>{notes}</ul><p>Options: <code>{options}</code></p></body></html>
"""
