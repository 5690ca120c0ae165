"""The summary as a readable table and as JSON, and the criteria for failure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from feature_frontend.system.text import printable
from feature_frontend_lab.demo.analysis import WRONG_PX, Distribution, Summary
from feature_frontend_lab.evaluation.reports.writing import json_value

__all__ = ["MAX_MEDIAN_ROTATION_DEG", "as_json", "as_sentence", "as_text", "problems"]

MAX_MEDIAN_ROTATION_DEG = 0.2

NAME_WIDTH = 34
COLUMN_WIDTH = 10
LATENCY_NAMES = {
    "conversion": "message to image",
    "extraction": "keypoints and descriptors",
    "matching": "matching",
    "tracking": "tracking",
    "publishing": "publishing",
    "latency": "image in to results out",
}


def problems(summary: Summary, expected_frames: int | None) -> list[str]:
    """Lists what failed in the run, one sentence each.

    Args:
        summary: Figures of the run.
        expected_frames: Expected number of frames; None if unknown.
    """
    found = []
    frames = max(summary.frames, expected_frames or 0)
    if frames == 0:
        found.append("no frame arrived at the recorder; expected at least 1")
    if summary.features_messages < frames:
        found.append(
            f"{summary.features_messages} Features messages for {frames} frames; expected one for each "
            f"(states: {_counts(summary.states)})"
        )
    if summary.pose is not None and not summary.pose.rotation_deg.median <= MAX_MEDIAN_ROTATION_DEG:
        found.append(
            f"the median rotation error between frames is {summary.pose.rotation_deg.median:.3f} degrees; expected at "
            f"most {MAX_MEDIAN_ROTATION_DEG:g}"
        )
    return found


def as_json(summary: Summary, context: dict[str, str]) -> str:
    """The summary as JSON, preceded by `context` (sequence and node); missing numbers are null."""
    return json.dumps({**context, **json_value(asdict(summary))}, indent=2) + "\n"


def as_text(summary: Summary, context: dict[str, str]) -> str:
    """The summary as a table of at most 80 columns."""
    rule = "-" * (NAME_WIDTH + 4 * COLUMN_WIDTH)
    lines = [f"{name + ':':<12}{printable(value)}" for name, value in context.items()]
    lines.append(f"{'messages:':<12}{summary.frames} images -> {summary.features_messages} features, "
                 f"{summary.matches_messages} matches; states: {_counts(summary.states)}")  # fmt: skip
    lines += [f"{'':<12}{printable(reason)}" for reason in summary.reasons]
    lines += ["", _row("", "median", "p95", "min", "max"), rule]
    lines.append(_figures("keypoints in a frame", summary.keypoints, 0))
    lines.append(_figures("matches in a pair of frames", summary.matches, 0))
    lines.append(_figures("inliers (%) *", summary.inlier_ratio, 1, 100))
    if summary.pose is not None:
        lines.append(_figures("rotation error (degrees)", summary.pose.rotation_deg, 3))
        lines.append(_figures("translation direction error (deg)", summary.pose.translation_deg, 2))
    lines.append(_figures("length of a track (frames)", summary.track_length, 0))
    lines.append(_figures("age of the tracks in view (frames)", summary.track_age, 0))
    if summary.wrong_steps.count:
        lines.append(_figures(f"tracks off by over {WRONG_PX:g} px a step (%)", summary.wrong_steps, 1, 100))
    lines += ["", _row("time in the node (ms)", "p50", "p95", "min", "max"), rule]
    lines += [_figures(name, summary.milliseconds[stage], 1) for stage, name in LATENCY_NAMES.items()]
    lines += ["", f"* fraction of the matches that are inliers {summary.inlier_method}"]
    if summary.pose is not None:
        lines.append(
            "  pose: essential matrix from the matches of consecutive frames, RANSAC 1 px, against known poses"
        )
        if summary.pose.pairs_without_pose:
            lines.append(f"  {summary.pose.pairs_without_pose} pairs gave no pose; they count as 180 degrees")
    return "\n".join(lines) + "\n"


def as_sentence(summary: Summary) -> str:
    """The most important figures in one line."""
    parts = [f"{summary.frames} frames", f"{_number(summary.matches.median, 0)} matches a pair"]
    parts.append(f"{_number(summary.inlier_ratio.median, 1, 100)} % of them inliers")
    if summary.pose is not None:
        parts.append(f"rotation error {_number(summary.pose.rotation_deg.median, 3)} degrees")
    return ", ".join(parts) + " (medians)"


def _figures(name: str, values: Distribution, digits: int, factor: float = 1) -> str:
    columns = (values.median, values.p95, values.minimum, values.maximum)
    return _row(name, *(_number(value, digits, factor) for value in columns))


def _number(value: float, digits: int, factor: float = 1) -> str:
    return "-" if math.isnan(value) else f"{value * factor:.{digits}f}"


def _row(name: str, *columns: str) -> str:
    return f"{name:<{NAME_WIDTH}}" + "".join(f"{column:>{COLUMN_WIDTH}}" for column in columns)


def _counts(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
