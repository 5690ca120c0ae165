"""The adapter for RTAB-Map: the fields of its message. RTAB-Map itself and its packages are not here."""

from __future__ import annotations

import struct
import sys
import zlib
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from feature_frontend_msgs.msg import Features, Tracks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from feature_frontend.__main__ import main
from feature_frontend.ros.adapters.rtabmap import RtabmapAdapter
from feature_frontend.ros.adapters.rtabmap_message import (
    depths_of_image,
    depths_of_tracks,
    features_problem,
    fill_rgbd_image,
)
from feature_frontend.ros.adapters.stamp_join import StampJoin
from feature_frontend.ros.stamps import stamp_from_ns
from tests.ros.harness import wait_until


class _Strict:
    """A message as rosidl generates it: other fields and other types are errors."""

    fields: ClassVar[dict[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = self.fields[name]
        if isinstance(kind, list):
            assert isinstance(value, list), f"{name} is {value!r}"
            assert all(type(one) is kind[0] for one in value), f"{name} is {value!r}"
        else:
            assert type(value) is kind, f"{name} is {value!r}"
        super().__setattr__(name, value)


def _message(name: str, **fields: Any) -> type[_Strict]:
    return type(name, (_Strict,), {"fields": fields})


# The fields of rtabmap_msgs 0.22, typed by what rclpy takes for them.
_POINT2F = _message("Point2f", x=float, y=float)
_POINT3F = _message("Point3f", x=float, y=float, z=float)
_KEY_POINT = _message("KeyPoint", pt=_POINT2F, size=float, angle=float, response=float, octave=int, class_id=int)
_RGBD_IMAGE = _message(
    "RGBDImage",
    header=Header,
    rgb_camera_info=CameraInfo,
    depth_camera_info=CameraInfo,
    rgb=Image,
    depth=Image,
    rgb_compressed=CompressedImage,
    depth_compressed=CompressedImage,
    key_points=[_KEY_POINT],
    points=[_POINT3F],
    descriptors=bytes,
)


@pytest.fixture
def types() -> ModuleType:
    module = ModuleType("rtabmap_msgs.msg")
    for one in (_POINT2F, _POINT3F, _KEY_POINT, _RGBD_IMAGE):
        setattr(module, one.__name__, one)
    return module


def _features(descriptor_type: int = Features.FLOAT32) -> Features:
    """Three keypoints of an image of 8x6 px."""
    message = Features(header=Header(stamp=stamp_from_ns(5), frame_id="camera"), height=6, width=8, count=3)
    message.keypoints = [0.0, 0.0, 3.4, 1.6, 7.4, 5.4]
    message.normalized_keypoints = [-0.5, -0.25, 0.0, 0.125, 0.5, 0.25]
    message.scores = [0.25, 0.5, 1.0]
    message.scales = [1.0, 2.0, 2.0]
    message.descriptor_type, message.descriptor_dim = descriptor_type, 2
    message.descriptors = _descriptors().astype("<f2" if descriptor_type else "<f4").tobytes()
    return message


def _descriptors() -> npt.NDArray[np.float64]:
    return np.array([[1.0, 0.0], [0.5, -0.5], [0.0, -1.0]])


def _depth_image(values: npt.NDArray[Any], encoding: str, padding: int = 0, *, is_bigendian: bool = False) -> Image:
    rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    height, width = values.shape
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=padded.shape[1],
        data=padded.tobytes(),
        is_bigendian=int(is_bigendian),
    )


@pytest.mark.parametrize("descriptor_type", [Features.FLOAT32, Features.FLOAT16])
def test_each_field_has_what_rtab_map_reads_from_it(types: ModuleType, descriptor_type: int) -> None:
    features = _features(descriptor_type)
    image = Image(header=features.header, height=6, width=8, encoding="mono8")
    depth = Image(header=Header(frame_id="depth"), encoding="16UC1")
    infos = CameraInfo(width=8), CameraInfo(width=4)
    depths_m = np.array([2.0, np.nan, 4.0], np.float32)
    message = fill_rgbd_image(types, features, depths_m, (image, depth), infos)
    assert message.header == features.header
    assert (message.rgb, message.depth) == (image, depth)
    assert (message.rgb_camera_info, message.depth_camera_info) == infos
    pixels = [(one.pt.x, one.pt.y) for one in message.key_points]
    np.testing.assert_allclose(pixels, [(0, 0), (3.4, 1.6), (7.4, 5.4)], rtol=1e-6)
    assert [(one.response, one.size, one.angle, one.octave, one.class_id) for one in message.key_points] == [
        (0.25, 1, -1, 0, -1),
        (0.5, 2, -1, 0, -1),
        (1, 2, -1, 0, -1),
    ]
    points = np.array([(one.x, one.y, one.z) for one in message.points])
    np.testing.assert_array_equal(points, [(-1, -0.5, 2), (np.nan,) * 3, (2, 1, 4)])
    # As RTAB-Map's uncompressData: rows, columns and type of the matrix follow the zlib stream.
    rows, columns, kind = struct.unpack("<3i", message.descriptors[-12:])
    assert (rows, columns, kind) == (3, 2, 5)
    matrix = np.frombuffer(zlib.decompress(message.descriptors[:-12]), "<f4").reshape(rows, columns)
    np.testing.assert_array_equal(matrix, _descriptors())


def test_sizes_and_orientations_are_those_of_the_extractor(types: ModuleType) -> None:
    features = _features()
    features.sizes, features.angles = [4.0, 5.0, 6.0], [0.0, float(np.pi / 2), float(np.pi)]
    message = fill_rgbd_image(types, features, np.ones(3, np.float32), (Image(), Image()), (CameraInfo(), CameraInfo()))
    assert [one.size for one in message.key_points] == [4, 5, 6]
    assert [one.angle for one in message.key_points] == pytest.approx([0, 90, 180], abs=1e-4)


def test_no_keypoints_are_a_message_too(types: ModuleType) -> None:
    assert features_problem(Features()) == ""
    message = fill_rgbd_image(
        types, Features(), np.zeros(0, np.float32), (Image(), Image()), (CameraInfo(), CameraInfo())
    )
    assert (message.key_points, message.points, message.descriptors) == ([], [], b"")


@pytest.mark.parametrize(
    ("encoding", "kind", "unit"), [("16UC1", "u2", 1000), ("mono16", "u2", 1000), ("32FC1", "f4", 1)]
)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("factor", [1, 2])
def test_depths_are_those_of_the_nearest_pixel(encoding: str, kind: str, unit: int, order: str, factor: int) -> None:
    table = (np.arange(48 // factor**2).reshape(6 // factor, 8 // factor) * unit).astype(order + kind)
    image = _depth_image(table, encoding, padding=3, is_bigendian=order == ">")
    depths, problem = depths_of_image(image, _features())
    assert problem == ""
    # The keypoints are in pixels (0, 0), (3, 2) and (7, 5); depth 0 is unknown.
    expected = [np.nan, 2 * 8 + 3, 5 * 8 + 7] if factor == 1 else [np.nan, 4 + 1, 2 * 4 + 3]
    np.testing.assert_allclose(depths, expected, rtol=1e-6)


def test_depths_that_are_no_lengths_are_unknown() -> None:
    table = np.full((6, 8), np.inf, np.float32)
    table[2, 3] = -1
    table[5, 7] = 1.5
    depths, _ = depths_of_image(_depth_image(table, "32FC1"), _features())
    np.testing.assert_array_equal(depths, [np.nan, np.nan, 1.5])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_depth_image(np.ones((6, 8), np.uint8), "mono8"), "'mono8'; expected 16UC1"),
        (_depth_image(np.ones((6, 4), np.uint16), "16UC1"), "4x6 px for an image of 8x6"),
        (_depth_image(np.ones((12, 16), np.uint16), "16UC1"), "16x12 px for an image of 8x6"),
        (Image(height=6, width=8, encoding="16UC1", step=16, data=bytes(95)), "95 bytes in rows of 16"),
        (Image(height=6, width=8, encoding="32FC1", step=16, data=bytes(96)), "expected rows of 32"),
        (Image(encoding="16UC1"), "0x0 px"),
    ],
)
def test_a_depth_image_that_does_not_fit_is_named(image: Image, expected: str) -> None:
    depths, problem = depths_of_image(image, _features())
    assert np.isnan(depths).all()
    assert expected in problem


def test_disparities_of_tracks_are_depths() -> None:
    tracks = Tracks(count=4, focal_baseline=60.0)
    tracks.feature_indices = [2, 0, 1, 9]
    tracks.disparities = [15.0, float("nan"), 0.0, 1.0]
    np.testing.assert_array_equal(depths_of_tracks(tracks, _features()), [np.nan, np.nan, 4])
    tracks.focal_baseline = 0.0
    assert np.isnan(depths_of_tracks(tracks, _features())).all()
    tracks.focal_baseline, tracks.disparities = 60.0, []
    assert np.isnan(depths_of_tracks(tracks, _features())).all()


def test_features_that_rtab_map_cannot_use_are_named() -> None:
    without = _features()
    without.descriptor_dim, without.descriptors = 0, []
    assert "publish_descriptors:=true" in features_problem(without)
    uncalibrated = _features()
    uncalibrated.normalized_keypoints = []
    assert "camera_info" in features_problem(uncalibrated)
    assert features_problem(_features()) == ""


class _Sent:
    """Where a publisher of a type that is not here would be."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        self.messages.append(message)


@pytest.mark.parametrize("points_from", ["depth_image", "stereo"])
def test_the_node_joins_what_belongs_together(
    points_from: str, types: ModuleType, monkeypatch: pytest.MonkeyPatch, domain_id: int
) -> None:
    sent = _Sent()
    create = Node.create_publisher

    def created(node: Node, kind: Any, *arguments: Any, **options: Any) -> Any:
        return sent if kind is _RGBD_IMAGE else create(node, kind, *arguments, **options)

    monkeypatch.setitem(sys.modules, "rtabmap_msgs", ModuleType("rtabmap_msgs"))
    monkeypatch.setitem(sys.modules, "rtabmap_msgs.msg", types)
    monkeypatch.setattr(Node, "create_publisher", created)
    rclpy.init(args=["--ros-args", "-p", f"points_from:={points_from}"], domain_id=domain_id)
    try:
        adapter, talker = RtabmapAdapter(), Node("talker", use_global_arguments=False)
        executor = SingleThreadedExecutor()
        executor.add_node(adapter)
        image = Image(header=_features().header, height=6, width=8, encoding="mono8", step=8, data=bytes(48))
        other = _depth_image(np.full((6, 8), 2000, np.uint16), "16UC1")
        other.header = image.header
        tracks = Tracks(header=image.header, count=1, focal_baseline=60.0, feature_indices=[2], disparities=[30.0])
        topics = {"camera_info": CameraInfo(width=8), "image": image, "features": _features()}
        topics |= (
            {"right/camera_info": CameraInfo(width=9), "right/image": image, "tracks": tracks}
            if points_from == "stereo"
            else {"depth": other}
        )
        publishers = {name: talker.create_publisher(type(message), name, 10) for name, message in topics.items()}
        wait_until(lambda: all(one.get_subscription_count() for one in publishers.values()), "the subscriptions")
        # Calibrations and images are not ordered against each other: repeated until both have arrived.
        for number in range(1, 200):
            for name, message in topics.items():
                if hasattr(message, "header"):
                    message.header.stamp = stamp_from_ns(number * 10**8)
                publishers[name].publish(message)
            for _ in range(20):
                executor.spin_once(timeout_sec=0.02)
            if sent.messages:
                break
        message = sent.messages[0]
        assert message.rgb.encoding == "mono8"
        assert message.depth_camera_info.width == (9 if points_from == "stereo" else 8)
        depths = [one.z for one in message.points]
        np.testing.assert_array_equal(depths, [np.nan, np.nan, 2] if points_from == "stereo" else [2, 2, 2])
        executor.shutdown()
        for node in (adapter, talker):
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_without_its_package_the_adapter_names_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], domain_id: int
) -> None:
    monkeypatch.setitem(sys.modules, "rtabmap_msgs", None)
    assert main(["rtabmap"]) == 1
    assert "apt install ros-" in (said := capfd.readouterr().err)
    assert "rtabmap-msgs" in said
    assert main(["rtabmap", "--ros-args", "-p", "points_from:=lidar"]) == 1
    assert "points_from is 'lidar'; expected 'depth_image' or 'stereo'" in capfd.readouterr().err


def test_messages_of_one_image_are_joined_in_any_order() -> None:
    join = StampJoin(["features", "image"], "depth", slop_ns=10, most=3)
    assert join.add("image", 100, "image 100") is None
    assert join.add("depth", 85, "too early") is None
    assert join.add("features", 100, "features 100") is None, "no depth is near"
    assert join.add("image", 200, "image 200") is None
    assert join.add("depth", 108, "depth 108") == {
        "features": "features 100",
        "image": "image 100",
        "depth": "depth 108",
    }
    assert join.add("depth", 195, "depth 195") is None
    assert join.add("depth", 202, "depth 202") is None
    assert join.add("features", 200, "features 200") == {
        "features": "features 200",
        "image": "image 200",
        "depth": "depth 202",
    }
    # The clock goes back: what arrived before waits no longer than there is room.
    for stamp_ns in range(900, 950, 10):
        assert join.add("image", stamp_ns, "image") is None
    assert join.add("image", 10, "image 10") is None
    assert join.add("depth", 10, "depth 10") is None
    assert join.add("features", 10, "features 10") is not None
