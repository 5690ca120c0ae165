"""Image messages to arrays and back."""

from __future__ import annotations

import importlib.util
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image

from feature_frontend.errors import ImageError
from feature_frontend.image.encodings import ENCODINGS, decode_image
from feature_frontend.ros.input.image_conversion import array_to_image, image_to_array
from tests.image_messages import raw_image


def _message(samples: npt.NDArray[Any], encoding: str) -> Image:
    return array_to_image(samples, encoding, Time(sec=3, nanosec=4), "camera")


@pytest.mark.parametrize(
    "encoding", [name for name, layout in ENCODINGS.items() if not layout.has_chroma_plane and layout.sample != "f8"]
)
def test_writing_and_reading_give_the_same(encoding: str, photographs: list[npt.NDArray[np.uint8]]) -> None:
    layout = ENCODINGS[encoding]
    bands = np.concatenate([photographs[0], photographs[1]], axis=2)[:40, :60, : layout.channels]
    samples = (bands if layout.channels > 1 else bands[..., 0]).astype(layout.sample)
    message = _message(samples, encoding)
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (3, 4, "camera")
    assert bytes(message.data) == np.ascontiguousarray(samples).tobytes()
    by_hand = raw_image(samples, encoding, padding=7)
    np.testing.assert_array_equal(image_to_array(message), decode_image(by_hand))


def test_no_copy_is_made_where_none_is_needed(photographs: list[npt.NDArray[np.uint8]]) -> None:
    message = _message(photographs[0], "rgb8")
    assert np.shares_memory(image_to_array(message), np.frombuffer(message.data, np.uint8))


def test_compressed_images_are_decoded(photographs: list[npt.NDArray[np.uint8]]) -> None:
    message = CompressedImage(format="rgb8; png compressed bgr8")
    message.data = cv2.imencode(".png", photographs[0][..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(image_to_array(message), photographs[0])
    with pytest.raises(ImageError, match="at most 1000 px"):
        image_to_array(message, max_pixels=1000)


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is not None, reason="cv_bridge is installed")
def test_an_unknown_encoding_is_named_with_a_way_out() -> None:
    message = Image(height=4, width=4, encoding="nv24", step=8, data=bytes(48))
    with pytest.raises(ImageError, match=r"'nv24' .*cv_bridge.*apt install"):
        image_to_array(message)


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is None, reason="needs cv_bridge")
def test_cv_bridge_is_asked_for_other_encodings() -> None:
    message = Image(height=4, width=4, encoding="16UC3", step=24, data=bytes(96))
    with pytest.raises(ImageError, match=r"cv_bridge cannot convert|expected"):
        image_to_array(message)


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
    with pytest.raises(ImageError, match=r"expected|with \d channel"):
        array_to_image(pixels, encoding, Time(), "camera")
