"""Annotations: what the messages contain, read by their definitions alone."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
import torch
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import LoggingSeverity
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

import feature_frontend.ros.output.views as output_views
from feature_frontend.image.drawing import TrackTrails, age_colours, draw_tracks
from feature_frontend.ros.output.annotations import foxglove_annotations, image_marker, optional_message
from feature_frontend.ros.output.views import Views
from feature_frontend.types import Features, FrameResult, FrameState, Matches, StageTimes, Tracks
from tests.ros.harness import wait_until
from tests.ros.marker_reader import draw_marker, lines_of

Points = npt.NDArray[np.float64]
_HEADER = Header(stamp=Time(sec=12, nanosec=34), frame_id="left camera")
_needs_image_marker = pytest.mark.skipif(
    importlib.util.find_spec("visualization_msgs") is None, reason="needs the ROS package visualization_msgs"
)


def _result(tracks: Tracks) -> FrameResult:
    return FrameResult(
        state=FrameState.OK,
        reason="",
        features=Features.empty(480, 640, "x", 1),
        matches=Matches.empty("mnn"),
        keypoints0=torch.zeros((0, 2)),
        stamp0_ns=None,
        tracks=tracks,
        times=StageTimes(1.0, 2.0, 3.0),
    )


def _flight(width: int, frames: int = 15, count: int = 40) -> tuple[FrameResult, list[Points]]:
    """Tracks that turn, stand still, jump and begin late, after some frames; their trails."""
    random = np.random.default_rng(7)
    ids = np.arange(1, count + 1, dtype=np.uint64)
    begins = random.integers(0, frames, count)
    begins[:4] = 0, 0, 0, frames - 1
    centres = random.uniform([60, 60], [width - 60, 420], (count, 2))
    radii, turns = random.uniform(0, 40, count), random.uniform(-0.3, 0.3, count)
    radii[0] = 0.0  # stands still
    trails = TrackTrails()
    for frame in range(frames):
        angles = turns * frame
        positions = centres + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        positions[1] = centres[1] + (frame % 2) * np.array([25.0, 5.0])  # jumps to and fro
        seen = begins <= frame
        keypoints = positions[seen].astype(np.float32)
        ages = (frame - begins[seen] + 1).astype(np.uint32)
        lines = trails.update(ids[seen], keypoints)
    zeros = np.zeros(len(ages), np.float32)
    rows = np.arange(len(ages), dtype=np.uint32)
    tracks = Tracks(ids[seen], ages, rows * 0, rows, keypoints, np.zeros_like(keypoints), zeros, zeros)
    return _result(tracks), lines


def _distance(point: Points, segments: Points) -> float:
    """From a point to the nearest of the (S, 2, 2) segments."""
    begins, ways = segments[:, 0], segments[:, 1] - segments[:, 0]
    along = ((point - begins) * ways).sum(axis=1) / np.maximum((ways**2).sum(axis=1), 1e-12)
    nearest = begins + np.clip(along, 0, 1)[:, None] * ways
    return float(np.linalg.norm(point - nearest, axis=1).min())


def _check_lines(segments: Points, colours: Points, result: FrameResult, trails: list[Points], width: float) -> None:
    """Every trail lies under lines of its track's colour, and the lines end where the trail does."""
    for age, trail in zip(result.tracks.ages, trails, strict=True):
        same = np.abs(colours[:, :3] - age_colours(np.array([age]))[0] / 255).max(axis=1) < 1e-6
        if len(np.unique(trail, axis=0)) > 1:
            assert max(_distance(point, segments[same]) for point in trail) <= 0.5 * width + 1e-3
            ends = segments[same].reshape(-1, 2)
            for end in (trail[0], trail[-1]):
                assert np.linalg.norm(ends - end, axis=1).min() < 1e-3


@_needs_image_marker
@pytest.mark.parametrize("width", [640, 1920])
def test_a_marker_has_each_trail_and_a_cross_at_each_point(width: int) -> None:
    result, trails = _flight(width)
    marker = image_marker(_HEADER, np.zeros((480, width), np.uint8), result, trails)
    assert marker.header == _HEADER, "viewers pair it with the image by its stamp"
    assert (marker.action, marker.filled, marker.outline_color.a) == (marker.ADD, 0, 1.0)
    line_width = max(1.0, width / 960)
    assert marker.scale == pytest.approx(line_width)
    segments, colours = lines_of(marker)
    np.testing.assert_array_equal(colours[:, 3], 1)
    _check_lines(segments, colours, result, trails, line_width)
    lengths = np.abs(segments[:, 1] - segments[:, 0])
    arm = 4.4 * line_width
    for axis in (0, 1):
        arms = segments[np.abs(lengths - np.eye(2)[axis] * arm).max(axis=1) < 1e-6]
        middles = arms.mean(axis=1)
        for keypoint in result.tracks.keypoints:
            assert np.abs(middles - keypoint).max(axis=1).min() < 1e-4
    # Straight stretches are one line each: fewer than half of what the trails' positions would be.
    assert len(segments) - 2 * len(result.tracks) < 0.6 * sum(len(trail) - 1 for trail in trails)


@_needs_image_marker
def test_a_drawn_marker_looks_like_the_debug_image() -> None:
    result, trails = _flight(640)
    black = np.zeros((480, 640, 3), np.uint8)
    ours = draw_tracks(black, trails, result.tracks.ages).astype(int)
    theirs = draw_marker(image_marker(_HEADER, black, result, trails), black).astype(int)
    drawn = ours.max(axis=2) > 128
    # Wherever the debug image has colour, the marker has it within a pixel, and of the same track: no other is near.
    rows, columns = np.nonzero(drawn)
    near = np.array(
        [
            np.abs(theirs[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3) - ours[y, x]).max(axis=1).min()
            for y, x in zip(rows, columns, strict=True)
        ]
    )
    assert np.mean(near < 60) > 0.9
    assert (theirs.max(axis=2) > 128).sum() < 1.5 * drawn.sum()


@_needs_image_marker
def test_no_tracks_are_an_empty_marker_which_wipes_the_last() -> None:
    marker = image_marker(_HEADER, np.zeros((480, 640), np.uint8), _result(Tracks.empty()), [])
    assert (len(marker.points), len(marker.outline_colors), marker.action) == (0, 0, marker.ADD)
    one = replace(_flight(640)[0], tracks=_flight(640, frames=1, count=4)[0].tracks)
    marker = image_marker(_HEADER, np.zeros((480, 640), np.uint8), one, _flight(640, frames=1, count=4)[1])
    assert len(marker.points) == 4 * len(one.tracks), "of tracks seen once there are only crosses"


@dataclass(slots=True)
class _Point2:
    x: float
    y: float


@dataclass(slots=True)
class _Color:
    r: float = 0.0
    g: float = 0.0
    b: float = 0.0
    a: float = 0.0


@dataclass(slots=True)
class _PointsAnnotation:
    POINTS: ClassVar[int] = 1
    LINE_LIST: ClassVar[int] = 4
    timestamp: Time
    type: int
    points: list[_Point2]
    thickness: float
    outline_color: _Color = field(default_factory=_Color)
    outline_colors: list[_Color] = field(default_factory=list)
    fill_color: _Color = field(default_factory=_Color)


@dataclass(slots=True)
class _ImageAnnotations:
    points: list[_PointsAnnotation]
    circles: list[Any] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class _LaterImageAnnotations(_ImageAnnotations):
    timestamp: Time = field(default_factory=Time)


@pytest.fixture(params=["as installed", "3.0", "3.4"])
def encode_foxglove(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`foxglove_annotations` with the package, and with classes that have the fields of two of its versions."""
    if request.param == "as installed":
        pytest.importorskip("foxglove_msgs.msg", reason="needs the ROS package foxglove_msgs")
    else:
        module: Any = types.ModuleType("foxglove_msgs.msg")
        module.Point2, module.Color, module.PointsAnnotation = _Point2, _Color, _PointsAnnotation
        module.ImageAnnotations = _ImageAnnotations if request.param == "3.0" else _LaterImageAnnotations
        monkeypatch.setitem(sys.modules, "foxglove_msgs", types.ModuleType("foxglove_msgs"))
        monkeypatch.setitem(sys.modules, "foxglove_msgs.msg", module)
    return foxglove_annotations


def test_foxglove_gets_points_half_a_pixel_farther_and_the_same_trails(encode_foxglove: Callable[..., Any]) -> None:
    result, trails = _flight(1920)
    message = encode_foxglove(_HEADER, np.zeros((480, 1920), np.uint8), result, trails)
    assert (len(message.circles), len(message.texts)) == (0, 0)
    assert not hasattr(message, "timestamp") or message.timestamp == _HEADER.stamp
    lines, dots = message.points
    assert (lines.type, dots.type) == (4, 1), "LINE_LIST and POINTS"
    for shape in (lines, dots):
        assert shape.timestamp == _HEADER.stamp
        assert shape.outline_color.a == 1.0
    assert (lines.thickness, dots.thickness) == (pytest.approx(2.0), pytest.approx(4.4))

    positions = np.array([(point.x, point.y) for point in dots.points])
    order = np.argsort(result.tracks.ages, kind="stable")
    # The centre of the first pixel is (0, 0) here and (0.5, 0.5) there.
    np.testing.assert_allclose(positions, result.tracks.keypoints[order] + 0.5, atol=1e-6)
    levels = np.array([(colour.r, colour.g, colour.b) for colour in dots.outline_colors])
    np.testing.assert_allclose(levels, age_colours(result.tracks.ages[order]) / 255, atol=1e-6)

    segments = np.array([(point.x, point.y) for point in lines.points]).reshape(-1, 2, 2) - 0.5
    colours = np.array([(colour.r, colour.g, colour.b, colour.a) for colour in lines.outline_colors])
    assert len(colours) == len(segments), "one for each line"
    _check_lines(segments, colours, result, trails, lines.thickness)

    empty = encode_foxglove(_HEADER, np.zeros((480, 640), np.uint8), _result(Tracks.empty()), [])
    assert [len(shape.points) for shape in empty.points] == [0, 0], "wipes the last"


@pytest.mark.parametrize("kind", ["absent_msgs/ImageMarker", "std_msgs/ImageMarker"])
def test_a_missing_package_is_named_with_what_installs_it(kind: str) -> None:
    package = kind.partition("/")[0].replace("_", "-")
    with pytest.raises(ImportError, match=rf"{kind} is not installed; .* apt install ros-\$ROS_DISTRO-{package}"):
        optional_message(kind)


@pytest.fixture
def node(domain_id: int) -> Iterator[Node]:
    """A node in a namespace."""
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        yield Node("frontend", namespace="/front", context=context)
    finally:
        context.try_shutdown()


def _topics(node: Node) -> set[str]:
    """What the node offers to viewers."""
    views = Views(node)
    found = {name for name, _ in node.get_publisher_names_and_types_by_node("frontend", "/front")}
    views.destroy()
    return {name for name in found if name.startswith(("/front/debug", "/front/frontend"))}


@pytest.mark.parametrize("state", ["absent", "broken"])
def test_without_its_package_a_topic_is_not_offered_and_the_log_says_why(
    node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], state: str
) -> None:
    for package, name in (("visualization_msgs", "ImageMarker"), ("foxglove_msgs", "ImageAnnotations")):
        module: Any = None  # importing it fails
        if state == "broken":
            module = types.ModuleType(f"{package}.msg")
            setattr(module, name, type(name, (), {}))  # a class without what makes it a message
        monkeypatch.setitem(sys.modules, f"{package}.msg", module)
    node.get_logger().set_level(LoggingSeverity.DEBUG)
    assert _topics(node) == {"/front/debug_image"}
    logged = "".join(capfd.readouterr())
    for topic in ("~/annotations", "~/annotations/foxglove"):
        assert logged.count(f"{topic} is not offered: ") == 1
    assert state == "broken" or "apt install ros-$ROS_DISTRO-foxglove-msgs" in logged


@_needs_image_marker
def test_with_its_package_a_topic_is_the_nodes_own(node: Node) -> None:
    assert _topics(node) >= {"/front/debug_image", "/front/frontend/annotations"}


@_needs_image_marker
def test_a_frame_that_cannot_be_shown_costs_one_line_and_no_other_frame(
    node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failures = {"debug_image": 0, "image_marker": 0}

    def failing(name: str) -> Callable[..., Any]:
        encode = getattr(output_views, name)

        def encode_from_the_third_on(*arguments: Any) -> Any:
            failures[name] += 1
            if failures[name] < 3:
                raise ValueError(f"{name} does not like this frame")
            return encode(*arguments)

        return encode_from_the_third_on

    for name in failures:
        monkeypatch.setattr(output_views, name, failing(name))
    views = Views(node)
    shown: dict[str, list[Any]] = {"debug_image": [], "~/annotations": []}
    kinds = (Image, optional_message("visualization_msgs/ImageMarker"))
    for (topic, received), kind in zip(shown.items(), kinds, strict=True):
        node.create_subscription(kind, topic, received.append, 10)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def is_shown() -> bool:
        views.show(_HEADER, np.zeros((480, 640), np.uint8), _flight(640)[0])
        executor.spin_once(0.05)
        return all(shown.values())

    wait_until(is_shown, "a picture and annotations")
    views.destroy()
    logged = "".join(capfd.readouterr())
    assert logged.count("no debug_image: ValueError: debug_image does not like this frame") == 1
    assert logged.count("no ~/annotations: ValueError: image_marker does not like this frame") == 1
