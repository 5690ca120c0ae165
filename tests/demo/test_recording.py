"""The demo's reading and drawing of bags written here, without ROS."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.errors import SourceError
from feature_frontend.sources.bag import BagSource
from feature_frontend.tools.common.bag_writer import BagWriter, typestore_with
from feature_frontend_lab.demo.pictures import draw_pictures
from feature_frontend_lab.demo.recording import Recording, read_recording

MESSAGES = Path(__file__).resolve().parents[2] / "ros2_ws" / "src" / "feature_frontend_msgs"


def write_bag(path: Path, image: npt.NDArray[np.uint8], count: int = 4) -> None:
    """A bag with all topics, written without ROS: `count` frames of an image that moves to the right."""
    names = {
        "image": "sensor_msgs/msg/Image",
        "camera_info": "sensor_msgs/msg/CameraInfo",
        "features": "feature_frontend_msgs/msg/Features",
        "matches": "feature_frontend_msgs/msg/Matches",
        "tracks": "feature_frontend_msgs/msg/Tracks",
        "status": "feature_frontend_msgs/msg/FrameStatus",
    }
    store = typestore_with(set(names.values()), lambda package: str(MESSAGES))
    types = {name: store.types[kind] for name, kind in names.items()}
    time_type, header_type = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    height, width = image.shape[:2]
    points = np.array([[30, 40], [50, 60], [90, 20]], np.float32)
    empty = np.zeros(0, np.float32)
    with BagWriter(path, "sqlite3", store) as bag:
        for name, kind in names.items():
            bag.add_topic(f"/{name}", kind)
        for number in range(count):
            stamp = time_type(sec=100, nanosec=number * 50_000_000)
            header = header_type(stamp=stamp, frame_id="camera")
            shifted = np.roll(image, 5 * number, axis=1)
            here = points + np.array([5 * number, 0], np.float32)
            matrix = np.array([300.0, 0, 80, 0, 300, 60, 0, 0, 1])
            projection = np.insert(matrix.reshape(3, 3), 3, 0, axis=1).ravel()
            messages = {
                "image": types["image"](header, height, width, "rgb8", 0, 3 * width, shifted.ravel()),
                "camera_info": types["camera_info"](
                    header, height, width, "plumb_bob", np.zeros(5), matrix, np.eye(3).ravel(), projection, 0, 0, roi
                ),
                "features": types["features"](
                    header=header, extractor="aliked-t16@00000000", height=height, width=width, count=3,
                    keypoints=here.ravel(), scores=np.ones(3, np.float32), sizes=empty, angles=empty,
                    normalized_keypoints=empty, descriptor_type=0, descriptor_dim=64,
                    descriptors=np.zeros(3 * 64 * 4, np.uint8), run_id=5, resets=0, scales=np.ones(3, np.float32),
                    covariances=empty,
                ),
                "tracks": types["tracks"](
                    header=header, count=3, ids=np.array([1, 2, 2**40], np.uint64),
                    ages=np.full(3, number + 1, np.uint32), gaps=np.zeros(3, np.uint32),
                    feature_indices=np.arange(3, dtype=np.uint32), keypoints=here.ravel(), normalized_keypoints=empty,
                    velocities=np.zeros(6, np.float32), run_id=5, resets=0, height=height, width=width,
                    scores=np.ones(3, np.float32), quality=np.ones(3, np.float32), normalized_velocities=empty,
                    disparities=empty, focal_baseline=0.0, covariances=empty,
                ),
                "status": types["status"](
                    header=header, state=0 if number else 1, reason="", keypoints=3, matches=3 if number else 0,
                    tracks=3, inlier_ratio=float("nan"), conversion_ms=0.5, extraction_ms=20.0, matching_ms=1.5,
                    tracking_ms=0.25, publishing_ms=1.0, latency_ms=24.0, frames_received=number + 1,
                    frames_processed=number + 1, frames_dropped=0, frames_refused=0, input_rate_hz=20.0,
                    run_id=5, resets=0, tracks_lost=0, survival=1.0, parallax_px=5.0, fx=0.0, fy=0.0, cx=0.0, cy=0.0,
                    distortion_model="", distortion_coefficients=np.zeros(0),
                ),
            }  # fmt: skip
            # The first image has no earlier one, and says so.
            rows = slice(0, 3 if number else 0)
            indices, ones = np.arange(3, dtype=np.uint32)[rows], np.ones(3, np.float32)[rows]
            messages["matches"] = types["matches"](
                header=header, stamp0=time_type(sec=100, nanosec=max(number - 1, 0) * 50_000_000), matcher="mnn",
                count=len(indices), indices0=indices, indices1=indices, similarity=ones, margin=ones,
                keypoints0=(here[rows] - np.array([5, 0], np.float32)).ravel(), keypoints1=here[rows].ravel(),
                inlier=np.zeros(0, np.uint8), run_id=5, resets=0, run_id0=5 if number else 0,
                normalized_keypoints0=empty, normalized_keypoints1=empty,
            )  # fmt: skip
            for name, message in messages.items():
                time_ns = 100 * 10**9 + number * 50_000_000
                bag.write(f"/{name}", time_ns, bytes(store.serialize_cdr(message, names[name])))


@pytest.fixture
def small_image() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (120, 161, 3), np.uint8)


def test_a_bag_is_read_back_as_it_was_written(small_image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", small_image)
    recording = read_recording(tmp_path / "bag")
    assert recording.image_count == 4
    assert recording.camera is not None
    assert recording.camera.camera_matrix[:3] == (300.0, 0.0, 80.0)
    assert [record.stamp_ns for record in recording.features] == [100 * 10**9 + n * 50_000_000 for n in range(4)]
    assert recording.features[0].extractor == "aliked-t16@00000000"
    np.testing.assert_array_equal(recording.features[1].keypoints, [[35, 40], [55, 60], [95, 20]])
    assert [record.stamp1_ns - record.stamp0_ns for record in recording.matches] == [50_000_000] * 3
    np.testing.assert_array_equal(recording.matches[0].keypoints0, [[30, 40], [50, 60], [90, 20]])
    assert recording.tracks[3].ids.tolist() == [1, 2, 2**40]
    assert recording.tracks[3].ages.tolist() == [4, 4, 4]
    assert [status.state for status in recording.status] == ["FIRST", "OK", "OK", "OK"]
    assert recording.status[0].milliseconds["latency"] == 24.0
    images = list(BagSource(tmp_path / "bag", "image").frames())
    assert [image.stamp_ns for image in images] == [record.stamp_ns for record in recording.features]
    np.testing.assert_array_equal(images[0].image, small_image)


def test_a_bag_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_recording(tmp_path / "nothing")


def test_pictures_show_every_frame_with_its_tracks(small_image: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", small_image)
    recording = read_recording(tmp_path / "bag")
    drawn = []
    strip_path, video_path = tmp_path / "tracks.png", tmp_path / "tracks.mp4"
    draw_pictures(tmp_path / "bag", recording, strip_path, video_path, ("title", "subtitle"), lambda: drawn.append(1))
    assert len(drawn) == 4
    strip = cv2.imread(str(strip_path))
    assert 1900 < strip.shape[1] < 2000
    video = cv2.VideoCapture(str(video_path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20, abs=0.1)
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert len(frames) == 4
    assert frames[0].shape[1] == 960
    # The trail of the track at (50, 60) goes from there to (65, 60): saturated colour on a dimmed image.
    scale = 960 / 161
    y, x = (round((value + 0.5) * scale) for value in (60, 58))
    patch = frames[3][y - 4 : y + 5, x - 4 : x + 5].astype(int)
    assert (patch.max(axis=2) - patch.min(axis=2)).max() > 100


def test_pictures_of_a_bag_without_images_are_refused(tmp_path: Path) -> None:
    store = typestore_with(set(), str)
    with BagWriter(tmp_path / "bag", "sqlite3", store) as bag:
        bag.add_topic("/image", "sensor_msgs/msg/Image")
    with pytest.raises(SourceError, match="has no images"):
        draw_pictures(tmp_path / "bag", Recording(), tmp_path / "a.png", tmp_path / "a.mp4", ("", ""))
