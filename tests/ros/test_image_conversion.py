"""Image messages to arrays and back."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from feature_frontend.errors import ImageError
from feature_frontend.ros.image_conversion import ENCODINGS, array_to_image, image_to_array

_RANDOM = np.random.default_rng(0)
_RGB = _RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)
_ALPHA = np.full((7, 5, 1), 99, np.uint8)
_IN_ENCODING = {
    "mono8": _RGB[:, :, 0],
    "8UC1": _RGB[:, :, 0],
    "rgb8": _RGB,
    "bgr8": _RGB[:, :, ::-1],
    "8UC3": _RGB[:, :, ::-1],
    "rgba8": np.concatenate([_RGB, _ALPHA], axis=2),
    "bgra8": np.concatenate([_RGB[:, :, ::-1], _ALPHA], axis=2),
    "8UC4": np.concatenate([_RGB[:, :, ::-1], _ALPHA], axis=2),
}


def _message(encoding: str, padding: int = 0, *, big_endian: bool = False) -> Image:
    pixels = np.ascontiguousarray(_IN_ENCODING[encoding]).reshape(7, -1)
    rows = np.pad(pixels, ((0, 0), (0, padding)), constant_values=77)
    message = Image(height=7, width=5, encoding=encoding, step=rows.shape[1], is_bigendian=int(big_endian))
    message.data = rows.tobytes()
    return message


def test_all_encodings_are_tried() -> None:
    assert set(_IN_ENCODING) == set(ENCODINGS)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 11])
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_pixels_are_read_as_the_encoding_says(encoding: str, padding: int, big_endian: bool) -> None:
    expected = _RGB[:, :, 0] if ENCODINGS[encoding].channels == 1 else _RGB
    array = image_to_array(_message(encoding, padding, big_endian=big_endian))
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("encoding", ["mono8", "rgb8"])
def test_no_copy_is_made_where_none_is_needed(encoding: str) -> None:
    message = _message(encoding, padding=3)
    array = image_to_array(message)
    assert np.shares_memory(array, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_writing_and_reading_give_the_same(encoding: str) -> None:
    message = array_to_image(_IN_ENCODING[encoding], encoding, Time(sec=3, nanosec=4), "camera")
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (3, 4, "camera")
    assert bytes(message.data) == np.ascontiguousarray(_IN_ENCODING[encoding]).tobytes()
    np.testing.assert_array_equal(image_to_array(message), image_to_array(_message(encoding)))


def test_the_last_row_may_lack_its_padding() -> None:
    message = _message("mono8", padding=4)
    message.data = bytes(message.data)[:-4]
    np.testing.assert_array_equal(image_to_array(message), _RGB[:, :, 0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"height": 0}, "5x0 px"),
        ({"width": 0}, "0x7 px"),
        ({"step": 4}, "step is 4 bytes; a row of 5 px in mono8 needs at least 5"),
        ({"height": 8}, "holds 35 bytes; 8 rows of 5 bytes need 40"),
        ({"step": 2**32 - 1}, "holds 35 bytes"),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}, "holds 35 bytes"),
    ],
)
def test_inconsistent_messages_are_refused(changes: dict[str, int], expected: str) -> None:
    message = _message("mono8")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=expected):
        image_to_array(message)


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is not None, reason="cv_bridge is installed")
def test_an_unknown_encoding_is_named_with_a_way_out() -> None:
    message = _message("mono8")
    message.encoding = "yuv422_yuy2"
    with pytest.raises(ImageError, match=r"'yuv422_yuy2' is not supported without cv_bridge.*apt install"):
        image_to_array(message)


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is None, reason="needs cv_bridge")
def test_other_encodings_go_through_cv_bridge() -> None:
    message = Image(height=4, width=4, encoding="bayer_rggb8", step=4)
    message.data = bytes(range(16))
    assert image_to_array(message).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("pixels", "encoding"),
    [
        (np.zeros((4, 4), np.uint8), "rgb8"),
        (np.zeros((4, 4, 3), np.uint8), "mono8"),
        (np.zeros((4, 4), np.float32), "mono8"),
        (np.zeros((4,), np.uint8), "mono8"),
        (np.zeros((4, 4), np.uint8), "nv12"),
    ],
)
def test_arrays_that_do_not_fit_their_encoding_are_refused(pixels: np.ndarray, encoding: str) -> None:
    with pytest.raises(ImageError, match=r"expected|uint8 with"):
        array_to_image(pixels, encoding, Time(), "camera")
