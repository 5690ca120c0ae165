"""Bags as image sources: written with the rosbags library, in every storage, and read back."""

import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rosbags", reason="needs the Python package rosbags")
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from feature_frontend.errors import SourceError
from feature_frontend.sources import SourceOptions, open_source
from feature_frontend.sources.bag import BagSource, camera_info_topic

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
MATRIX = np.array([500, 0, 18, 0, 510, 12, 0, 0, 1], np.float64)
SECOND = 1_000_000_000


def header(stamp_ns: int, frame_id: str = "left_optical") -> Any:
    time = TYPES["builtin_interfaces/msg/Time"](stamp_ns // SECOND, stamp_ns % SECOND)
    return TYPES["std_msgs/msg/Header"](time, frame_id)


def image(stamp_ns: int, pixels: npt.NDArray[np.uint8], encoding: str, **fields: Any) -> Any:
    height, width = pixels.shape[:2]
    values = {"width": width, "is_bigendian": 0, "step": pixels.nbytes // height, "data": np.ravel(pixels)} | fields
    return TYPES[IMAGE](header=header(stamp_ns), height=height, encoding=encoding, **values)


def camera_info(stamp_ns: int, width: int, height: int, focal_px: float = 500.0) -> Any:
    matrix = MATRIX.copy()
    matrix[0] = focal_px
    return TYPES[CAMERA_INFO](
        header(stamp_ns),
        height,
        width,
        "plumb_bob",
        np.array([0.1, 0.2, 0.0, 0.0, 0.0]),
        matrix,
        np.eye(3).ravel(),
        np.array([500, 0, 18, 0, 0, 510, 12, 0, 0, 0, 1, 0], np.float64),
        2,
        2,
        TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )


def grey(index: int) -> npt.NDArray[np.uint8]:
    return (np.arange(24 * 36, dtype=np.int64).reshape(24, 36) * 7 + index).astype(np.uint8)


def write_bag(path: Path, storage: StoragePlugin, messages: list[tuple[str, str, int, Any]]) -> Path:
    """Writes (topic, type, time of recording in ns, message) in that order."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {}
        for topic, kind, recorded_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], recorded_ns, STORE.serialize_cdr(message, kind))
    return path


def storage_file(bag: Path) -> Path:
    (file,) = (file for file in bag.iterdir() if file.suffix in {".mcap", ".db3"})
    return file


def camera_bag(path: Path, storage: StoragePlugin = StoragePlugin.SQLITE3) -> Path:
    """Five grey images 0.1 s apart from 100 s, recorded 50 ms late, with the calibration recorded after each image."""
    messages: list[tuple[str, str, int, Any]] = []
    for index in range(5):
        stamp_ns = 100 * SECOND + index * SECOND // 10
        late_ns = stamp_ns + SECOND // 20
        messages.append(("/left/image_raw", IMAGE, late_ns, image(stamp_ns, grey(index), "mono8")))
        messages.append(("/left/camera_info", CAMERA_INFO, late_ns + 1, camera_info(stamp_ns, 72, 48, 500 + index)))
    return write_bag(path, storage, messages)


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("form", ["folder", "file", "folder without metadata"])
def test_images_stamps_and_calibration(tmp_path: Path, storage: StoragePlugin, form: str) -> None:
    bag = camera_bag(tmp_path / "bag", storage)
    location = storage_file(bag) if form == "file" else bag
    if form == "folder without metadata":
        (bag / "metadata.yaml").unlink()
    source = open_source(str(location))
    assert source.frame_count == 5
    assert source.has_camera
    frames = list(source.frames())
    assert [frame.stamp_ns for frame in frames] == [100 * SECOND + index * SECOND // 10 for index in range(5)]
    assert {frame.frame_id for frame in frames} == {"left_optical"}
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, grey(index))
    cameras = [frame.camera for frame in frames]
    # The first calibration serves also the image recorded before it; each later one from where it was recorded.
    assert [camera.camera_matrix[0] for camera in cameras if camera] == [500, 500, 501, 502, 503]
    assert cameras[0] is not None
    assert cameras[0].distortion_coefficients == (0.1, 0.2, 0, 0, 0)
    assert (cameras[0].binning_x, cameras[0].image_size) == (2, (24, 36))
    assert [frame.index for frame in source.frames(start=3)] == [3, 4]


def test_messages_come_with_the_calibrations_recorded_with_them(tmp_path: Path) -> None:
    source = BagSource(camera_bag(tmp_path / "bag"))
    found = list(source.messages())
    assert [image.index for image, _ in found] == list(range(5))
    assert [[info.k[0] for info in infos] for _, infos in found] == [[500, 500], [501], [502], [503], [504]]
    image_3, infos = next(source.messages(3))
    assert (image_3.index, [info.k[0] for info in infos]) == (3, [500, 501, 502, 503])
    image_3, infos = next(source.messages(3, with_earlier_infos=False))
    assert (image_3.index, [info.k[0] for info in infos]) == (3, [503])
    assert not list(source.messages(5))


def test_the_first_calibration_of_a_bag_comes_with_its_first_image(tmp_path: Path) -> None:
    messages: list[tuple[str, str, int, Any]] = [
        ("/image", IMAGE, n * SECOND, image(n * SECOND, grey(n), "mono8")) for n in (1, 2)
    ]
    messages.append(("/camera_info", CAMERA_INFO, 3 * SECOND, camera_info(3 * SECOND, 72, 48)))
    source = BagSource(write_bag(tmp_path / "bag", StoragePlugin.MCAP, messages))
    assert [len(infos) for _, infos in source.messages()] == [1, 1]


def test_rosbag1(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    path = tmp_path / "old.bag"
    with Rosbag1Writer(path) as writer:
        images = writer.add_connection("/camera/rgb/image_color", IMAGE, typestore=store)
        infos = writer.add_connection("/camera/rgb/camera_info", CAMERA_INFO, typestore=store)
        for index in range(3):
            head = types["std_msgs/msg/Header"](index, types["builtin_interfaces/msg/Time"](50 + index, 5), "rgb")
            region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            projection = np.zeros(12)
            info = types[CAMERA_INFO](
                head, 24, 36, "plumb_bob", np.zeros(5), MATRIX, np.eye(3).ravel(), projection, 0, 0, region
            )
            message = types[IMAGE](head, 24, 36, "mono8", 0, 36, grey(index).ravel())
            writer.write(infos, (50 + index) * SECOND, store.serialize_ros1(info, CAMERA_INFO))
            writer.write(images, (50 + index) * SECOND, store.serialize_ros1(message, IMAGE))
    frames = list(open_source(str(path)).frames())
    assert [frame.stamp_ns for frame in frames] == [50 * SECOND + 5, 51 * SECOND + 5, 52 * SECOND + 5]
    np.testing.assert_array_equal(frames[2].image, grey(2))
    assert frames[0].camera is not None
    assert frames[0].camera.camera_matrix == tuple(MATRIX)


def test_compressed_images(tmp_path: Path) -> None:
    red = np.zeros((24, 36, 3), np.uint8)
    red[..., 0] = 250
    encoded_bgr = cv2.imencode(".png", red[..., ::-1])[1].ravel()
    encoded_rgb = cv2.imencode(".png", red)[1].ravel()
    encoded_grey = cv2.imencode(".jpg", np.full((24, 36), 80, np.uint8))[1].ravel()
    contents = [
        ("png", encoded_bgr),
        ("rgb8; png compressed bgr8", encoded_bgr),
        ("bgr8; png compressed bgr8", encoded_bgr),
        # What was RGB and went into the encoder as it was comes out of it as it was.
        ("rgb8; png compressed", encoded_rgb),
        ("mono8; jpeg compressed mono8", encoded_grey),
    ]
    bag = write_bag(
        tmp_path / "bag",
        StoragePlugin.MCAP,
        [
            ("/cam/image_raw/compressed", COMPRESSED, n, TYPES[COMPRESSED](header(n + 1), kind, data))
            for n, (kind, data) in enumerate(contents)
        ],
    )
    *colour, mono = open_source(str(bag)).frames()
    assert len(colour) == 4
    for frame in colour:
        np.testing.assert_array_equal(frame.image, red)
    np.testing.assert_array_equal(mono.image, np.full((24, 36), 80, np.uint8))


def test_damaged_compressed_images_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = cv2.imencode(".png", grey(0))[1].ravel()
    bad = np.frombuffer(b"nothing", np.uint8)

    def bag(name: str, data: list[npt.NDArray[np.uint8]]) -> str:
        messages = [
            ("/cam", COMPRESSED, n, TYPES[COMPRESSED](header(n + 1), "jpeg", item)) for n, item in enumerate(data)
        ]
        return str(write_bag(tmp_path / name, StoragePlugin.SQLITE3, messages))

    with caplog.at_level(logging.WARNING):
        assert [frame.index for frame in open_source(bag("mixed", [good, bad, good])).frames()] == [0, 2]
    assert re.search("image 1 of /cam: .* 7 bytes .* 6e 6f 74", caplog.text)
    with pytest.raises(SourceError, match="2 images of /cam "):
        list(open_source(bag("bad", [bad, bad])).frames())


def test_a_header_without_stamp_takes_the_time_of_recording(tmp_path: Path) -> None:
    bag = write_bag(
        tmp_path / "bag", StoragePlugin.SQLITE3, [("/image", IMAGE, 7 * SECOND, image(0, grey(0), "mono8"))]
    )
    (frame,) = open_source(str(bag)).frames()
    assert frame.stamp_ns == 7 * SECOND


def test_several_topics_must_be_chosen_from(tmp_path: Path) -> None:
    messages = [
        (f"/{side}/image", IMAGE, n, image(n + 1, grey(n), "mono8")) for n, side in enumerate(["left", "right"])
    ]
    bag = str(write_bag(tmp_path / "bag", StoragePlugin.SQLITE3, messages))
    with pytest.raises(SourceError, match=r"2 image topics.*--topic.*\n  /left/image .* 1 mess"):
        open_source(bag)
    with pytest.raises(SourceError, match=r"'/up'.*\n  /left/image"):
        open_source(bag, SourceOptions(topic="/up"))
    for topic in ("/right/image", "right/image"):
        (frame,) = open_source(bag, SourceOptions(topic=topic)).frames()
        np.testing.assert_array_equal(frame.image, grey(1))


def test_bags_without_images_or_damaged(tmp_path: Path) -> None:
    text = TYPES["std_msgs/msg/String"]("hello")
    bag = write_bag(tmp_path / "text", StoragePlugin.MCAP, [("/talk", "std_msgs/msg/String", 1, text)])
    with pytest.raises(SourceError, match=r"text .*\n  /talk  std_msgs/msg/String  1 mess"):
        open_source(str(bag))
    for suffix in (".mcap", ".db3", ".bag"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"broken" * 100)
        with pytest.raises(SourceError, match=rf"broken\{suffix} "):
            open_source(str(path))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "metadata.yaml").write_text("nonsense: 1\n")
    with pytest.raises(SourceError, match="contains no images"):
        open_source(str(tmp_path / "half"))
    (tmp_path / "half" / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  version: 5\n")
    with pytest.raises(SourceError, match=r"half .*\.mcap \.db3"):
        open_source(str(tmp_path / "half"))


def test_an_encoding_that_cannot_be_played_ends_it_at_once(tmp_path: Path) -> None:
    depth = image(1, grey(0), "32FC2", width=9)
    bag = write_bag(tmp_path / "bag", StoragePlugin.SQLITE3, [("/depth", IMAGE, 1, depth)])
    with pytest.raises(SourceError, match=r"'32FC2'.* mono8"):
        list(open_source(str(bag)).frames())


def test_an_uncalibrated_camera_is_played_without_calibration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    info = camera_info(1, 36, 24, focal_px=0.0)
    bag = write_bag(
        tmp_path / "bag",
        StoragePlugin.SQLITE3,
        [("/camera_info", CAMERA_INFO, 1, info), ("/image", IMAGE, 2, image(2, grey(0), "mono8"))],
    )
    with caplog.at_level(logging.WARNING):
        (frame,) = open_source(str(bag)).frames()
    assert frame.camera is None
    assert "holds no calibration" in caplog.text


def test_a_calibration_of_another_size_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = write_bag(
        tmp_path / "bag",
        StoragePlugin.SQLITE3,
        [("/camera_info", CAMERA_INFO, 1, camera_info(1, 640, 480))]
        + [("/image", IMAGE, n, image(n, grey(0), "mono8")) for n in (2, 3)],
    )
    with caplog.at_level(logging.WARNING):
        frames = list(open_source(str(bag)).frames())
    assert all(frame.camera is not None for frame in frames)
    assert [record.getMessage() for record in caplog.records] == [
        "image 0 of /image is 36x24 px, but the calibration is for 320x240 px; "
        "take the one of this camera at this resolution"
    ]


@pytest.mark.parametrize(
    ("image_topic", "candidates", "expected"),
    [
        ("/left/image_raw", ["/right/camera_info", "/left/camera_info"], "/left/camera_info"),
        ("/left/image_raw/compressed", ["/left/camera_info"], "/left/camera_info"),
        ("/image", ["/camera_info"], "/camera_info"),
        ("/left/image_raw", ["/right/camera_info"], None),
    ],
)
def test_which_camera_info_belongs_to_an_image(image_topic: str, candidates: list[str], expected: str | None) -> None:
    assert camera_info_topic(image_topic, candidates) == expected
