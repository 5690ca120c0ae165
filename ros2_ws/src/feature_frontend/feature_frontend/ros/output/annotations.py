"""Image annotations: the tracks as lines and points, for a viewer that shows them over the camera's own image."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from std_msgs.msg import ColorRGBA, Header

from feature_frontend.image.drawing import age_colours
from feature_frontend.ros.output.debug_image import MAX_WIDTH_PX
from feature_frontend.types import FrameResult

__all__ = ["foxglove_annotations", "image_marker", "optional_message"]

_POINT_RADIUS_PX = 2.2  # as in `debug_image`
# Half the width of a line: what is left out of a trail lies under the line that is drawn.
_TOLERANCE = 0.5
# Foxglove's coordinates begin at the corner of the first pixel, this package's in its centre.
_FOXGLOVE_ORIGIN_PX = 0.5

_Points = npt.NDArray[np.floating]
_Ages = npt.NDArray[np.integer]


@dataclass(frozen=True)
class _Shapes:
    """What is drawn for the tracks of a frame, the oldest tracks last, hence on top.

    Attributes:
        points: (N, 2) px, the tracks in this frame.
        ages: (N,) of each point.
        corners: (C, 2) px, of the trails.
        segments: (S, 2) rows of `corners`, both ends of each piece of a trail.
        segment_ages: (S,) of the track of each segment.
        line_width: px, as wide as in `debug_image` if image and picture are shown in the same size.
    """

    points: _Points
    ages: _Ages
    corners: _Points
    segments: npt.NDArray[np.intp]
    segment_ages: _Ages
    line_width: float


def optional_message(kind: str) -> type:
    """The class of a message, such as "visualization_msgs/ImageMarker", whose package may be missing.

    Raises:
        ImportError: The package or the message is not installed; says how to install it.
    """
    package, name = kind.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        debian = f"apt install ros-$ROS_DISTRO-{package.replace('_', '-')}"
        raise ImportError(f"{kind} is not installed; to have it: {debian}") from error


def image_marker(
    header: Header, image: npt.NDArray[np.uint8], result: FrameResult, trails: Sequence[_Points]
) -> Any:  # its package is optional
    """A frame's tracks as one `visualization_msgs/ImageMarker`: a cross at each point, and its trail.

    One LINE_LIST: viewers show only the latest marker of a topic, and a second one with points would replace it.

    Args:
        header: Of the image; the message has the same.
        image: (H, W) or (H, W, 3).
        result: Of the image.
        trails: Of its tracks, (L, 2) px each.
    """
    from geometry_msgs.msg import Point
    from visualization_msgs.msg import ImageMarker

    shapes = _shapes(result, trails, image.shape[1])
    arms = _POINT_RADIUS_PX * shapes.line_width * np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
    crosses = (shapes.points[:, None] + arms).reshape(-1, 2)
    marker = ImageMarker(header=header, ns="tracks", type=ImageMarker.LINE_LIST, action=ImageMarker.ADD)
    marker.scale = shapes.line_width
    # Viewers hide lines whose common colour is transparent, whatever the colours of each.
    marker.outline_color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    corners = [Point(x=x, y=y) for x, y in np.concatenate([shapes.corners, crosses]).tolist()]
    ends = [*shapes.segments.ravel().tolist(), *range(len(shapes.corners), len(corners))]
    marker.points = [corners[row] for row in ends]
    marker.outline_colors = _colours(np.concatenate([shapes.segment_ages, np.repeat(shapes.ages, 2)]), ColorRGBA)
    return marker


def foxglove_annotations(
    header: Header, image: npt.NDArray[np.uint8], result: FrameResult, trails: Sequence[_Points]
) -> Any:  # its package is optional
    """A frame's tracks as `foxglove_msgs/ImageAnnotations`: trails as lines, and a dot at each point.

    Args:
        header: Of the image; the message has its stamp. It has no field for the frame_id.
        image: (H, W) or (H, W, 3).
        result: Of the image.
        trails: Of its tracks, (L, 2) px each.
    """
    from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation

    shapes = _shapes(result, trails, image.shape[1])

    def annotation(kind: int, thickness: float, points: list[Any], ages: _Ages) -> Any:
        shape = PointsAnnotation(timestamp=header.stamp, type=kind, thickness=thickness, points=points)
        shape.outline_color = Color(r=1.0, g=1.0, b=1.0, a=1.0)
        shape.outline_colors = _colours(ages, Color)
        return shape

    corners, points = (
        [Point2(x=x, y=y) for x, y in (positions + _FOXGLOVE_ORIGIN_PX).tolist()]
        for positions in (shapes.corners, shapes.points)
    )
    ends = [corners[row] for row in shapes.segments.ravel().tolist()]
    trail_lines = annotation(PointsAnnotation.LINE_LIST, shapes.line_width, ends, shapes.segment_ages)
    # Of a dot, the thickness is its radius.
    radius = _POINT_RADIUS_PX * shapes.line_width
    dots = annotation(PointsAnnotation.POINTS, radius, points, shapes.ages)
    message = ImageAnnotations(points=[trail_lines, dots])
    if hasattr(message, "timestamp"):  # since foxglove_msgs 3.4
        message.timestamp = header.stamp
    return message


def _shapes(result: FrameResult, trails: Sequence[_Points], image_width: int) -> _Shapes:
    line_width = max(1.0, image_width / MAX_WIDTH_PX)
    order = np.argsort(result.tracks.ages, kind="stable")
    ages = result.tracks.ages[order]
    # Each trail becomes a line with few corners: most of what is sent would otherwise be points on a straight line.
    lines = [_simplified(trails[row], _TOLERANCE * line_width) for row in order]
    lengths = np.array([len(line) for line in lines], np.intp)
    corners = np.concatenate([np.zeros((0, 2)), *lines])
    begins = np.delete(np.arange(len(corners)), np.cumsum(lengths) - 1)  # every corner but the last of each trail
    return _Shapes(
        np.asarray(result.tracks.keypoints, np.float64)[order],
        ages,
        corners,
        np.stack([begins, begins + 1], axis=1),
        np.repeat(ages, lengths - 1),
        line_width,
    )


def _simplified(trail: _Points, tolerance: float) -> _Points:
    """The (K, 2) corners, the ends among them, of a line that no position of the trail is farther away from."""
    if len(trail) < 3:
        return trail
    return np.asarray(cv2.approxPolyDP(trail.astype(np.float32), tolerance, False), np.float64).reshape(-1, 2)


def _colours(ages: _Ages, colour: Callable[..., Any]) -> list[Any]:
    """A colour for each age; those of the same age share one message, as making each takes several times as long."""
    distinct, rows = np.unique(ages, return_inverse=True)
    levels = (age_colours(distinct) / 255).tolist()
    made = [colour(r=red, g=green, b=blue, a=1.0) for red, green, blue in levels]
    return [made[row] for row in rows.tolist()]
