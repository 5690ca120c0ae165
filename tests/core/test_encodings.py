"""Every encoding of `sensor_msgs/Image`: round trip of a real picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import ImageError
from feature_frontend.image.encodings import ENCODINGS, decode_image
from feature_frontend.image.intensity import IntensityRange
from tests.image_messages import RawImage, mosaic, raw_image, to_nv12, to_yuyv

Uint8Array = npt.NDArray[np.uint8]

_FULL = IntensityRange("full")
_BAYER = ("rggb", "bggr", "gbrg", "grbg")


def _alpha(rgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 99)], axis=2)


def _exactly_as_sent(rgb: npt.NDArray[Any]) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The samples and the expected pixels of each encoding that loses nothing, for 8 or 16 bits."""
    bgr, bits = rgb[..., ::-1], 8 * rgb.dtype.itemsize
    sent = {
        f"mono{bits}": (rgb[..., 1], rgb[..., 1]),
        f"{bits}UC1": (rgb[..., 1], rgb[..., 1]),
        f"rgb{bits}": (rgb, rgb),
        f"bgr{bits}": (bgr, rgb),
        f"rgba{bits}": (_alpha(rgb), rgb),
        f"bgra{bits}": (_alpha(bgr), rgb),
    }
    return sent | {f"{bits}UC3": (bgr, rgb), f"{bits}UC4": (_alpha(bgr), rgb)}


_EXACT_8 = tuple(_exactly_as_sent(np.zeros((1, 1, 3), np.uint8)))
_EXACT_16 = tuple(_exactly_as_sent(np.zeros((1, 1, 3), np.uint16)))
_BY_TESTS_BELOW = {
    *(f"bayer_{pattern}{bits}" for pattern in _BAYER for bits in (8, 16)),
    *("uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21"),
    *("8SC1", "16SC1", "32SC1", "32FC1", "64FC1", "32FC3", "32FC4"),
}


def test_all_encodings_are_tried() -> None:
    assert set(ENCODINGS) == {*_EXACT_8, *_EXACT_16, *_BY_TESTS_BELOW}


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 11])
@pytest.mark.parametrize("encoding", _EXACT_8)
def test_8_bit_pixels_are_read_as_the_encoding_says(
    encoding: str, padding: int, big_endian: bool, photographs: list[Uint8Array]
) -> None:
    samples, expected = _exactly_as_sent(photographs[0][:50, :61])[encoding]
    message = raw_image(samples, encoding, padding=padding)
    np.testing.assert_array_equal(decode_image(replace(message, is_bigendian=int(big_endian))), expected)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 11])
@pytest.mark.parametrize("encoding", _EXACT_16)
def test_16_bit_pixels_are_read_in_both_byte_orders(
    encoding: str, padding: int, big_endian: bool, photographs: list[Uint8Array]
) -> None:
    deep = photographs[0][:50, :61].astype(np.uint16) * 257
    samples, expected = _exactly_as_sent(deep)[encoding]
    message = raw_image(samples, encoding, padding=padding, big_endian=big_endian)
    np.testing.assert_array_equal(decode_image(message, _FULL), expected >> 8)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("encoding", "sample"), [("16SC1", "i2"), ("32SC1", "i4"), ("32FC1", "f4"), ("64FC1", "f8")])
def test_grey_samples_of_other_types(
    encoding: str, sample: str, big_endian: bool, photographs: list[Uint8Array]
) -> None:
    grey = photographs[0][:50, :61, 1]
    samples = grey.astype(sample) * 20 - 1000
    fixed = IntensityRange("fixed", -1000.0, 255 * 20.0 - 1000)
    message = raw_image(samples, encoding, padding=3, big_endian=big_endian)
    np.testing.assert_array_equal(decode_image(message, fixed), grey)


def test_samples_below_zero_of_8_bits(photographs: list[Uint8Array]) -> None:
    samples = (photographs[0][:50, :61, 1].astype(np.int16) - 128).astype(np.int8)
    pixels = decode_image(raw_image(samples, "8SC1", padding=3), _FULL)
    np.testing.assert_array_equal(pixels, photographs[0][:50, :61, 1])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["32FC3", "32FC4"])
def test_colours_of_floats_are_in_opencvs_order(encoding: str, big_endian: bool, photographs: list[Uint8Array]) -> None:
    rgb = photographs[0][:50, :61]
    bgr = rgb[..., ::-1].astype(np.float32) / 255
    message = raw_image(bgr if encoding == "32FC3" else _alpha(bgr), encoding, padding=4, big_endian=big_endian)
    np.testing.assert_array_equal(decode_image(message, _FULL), rgb)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", _BAYER)
def test_a_mosaicked_photograph_comes_back(pattern: str, bits: int, photographs: list[Uint8Array]) -> None:
    rgb = photographs[0]
    seen = mosaic(rgb, pattern) if bits == 8 else mosaic(rgb.astype(np.uint16) * 257, pattern)
    message = raw_image(seen, f"bayer_{pattern}{bits}", padding=6, big_endian=bits == 16)
    # Away from the border, where interpolation has no neighbours.
    inside = (slice(2, -2), slice(2, -2))

    def error(encoding: str) -> float:
        pixels = decode_image(replace(message, encoding=encoding), _FULL)
        assert pixels.shape == rgb.shape
        return float(np.abs(pixels[inside].astype(int) - rgb[inside]).mean())

    errors = {other: error(f"bayer_{other}{bits}") for other in _BAYER}
    assert errors[pattern] < 3
    assert all(wrong > 2 * errors[pattern] for other, wrong in errors.items() if other != pattern), errors


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["yuyv", "yuv422_yuy2", "uyvy", "yuv422"])
def test_a_photograph_comes_back_from_yuv_422(encoding: str, padding: int, photographs: list[Uint8Array]) -> None:
    rgb = photographs[0]
    samples = to_yuyv(rgb)
    if encoding in {"uyvy", "yuv422"}:
        samples = samples[..., ::-1]
    pixels = decode_image(raw_image(samples, encoding, padding=padding))
    assert np.abs(pixels.astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_a_photograph_comes_back_from_yuv_420(encoding: str, photographs: list[Uint8Array]) -> None:
    rgb = photographs[0]
    height, width = rgb.shape[:2]
    samples = to_nv12(rgb)
    if encoding == "nv21":
        chroma = samples[height:].reshape(-1, width // 2, 2)
        samples = np.concatenate([samples[:height], chroma[..., ::-1].reshape(-1, width)])
    message = raw_image(samples, encoding, padding=10, size=(height, width))
    assert np.abs(decode_image(message).astype(int) - rgb).mean() < 3.5
    with pytest.raises(ImageError, match="720 rows of 650 bytes"):
        decode_image(replace(message, data=message.data[: height * message.step]))


@pytest.mark.parametrize("encoding", ["mono8", "rgb8"])
def test_no_copy_is_made_where_none_is_needed(encoding: str, photographs: list[Uint8Array]) -> None:
    samples, _ = _exactly_as_sent(photographs[0])[encoding]
    message = raw_image(samples, encoding, padding=3)
    assert np.shares_memory(decode_image(message), np.frombuffer(message.data, np.uint8))


def test_the_last_row_may_lack_its_padding(photographs: list[Uint8Array]) -> None:
    grey = photographs[0][:20, :30, 0]
    message = raw_image(grey, "mono8", padding=4)
    np.testing.assert_array_equal(decode_image(replace(message, data=message.data[:-4])), grey)


_MESSAGE = raw_image(np.zeros((7, 5), np.uint8), "mono8")
_HUGE = 2**32 - 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (replace(_MESSAGE, height=0), "5x0 px"),
        (replace(_MESSAGE, width=0), "0x7 px"),
        (replace(_MESSAGE, step=4), "step is 4 .* 5 px in mono8 .*5"),
        (replace(_MESSAGE, height=8), "35 bytes; 8 rows of 5 bytes .*40"),
        (replace(_MESSAGE, data=b""), "holds 0 bytes"),
        (replace(_MESSAGE, step=_HUGE), "holds 35 bytes"),
        (replace(_MESSAGE, height=_HUGE, width=_HUGE, step=_HUGE), "holds 35 bytes"),
        (replace(_MESSAGE, encoding="mono16"), "step is 5 .* 5 px in mono16 .*10"),
        (replace(_MESSAGE, encoding="yuyv", width=1), "1x7 px.* yuyv .* 2 columns and 1 rows"),
        (
            replace(_MESSAGE, encoding="nv12", height=3, width=4),
            "4x3 px.* nv12 .* 2 columns and 2 rows",
        ),
        (replace(_MESSAGE, encoding="8UC1" * 1000), r"'8UC18UC1.{52}\.\.\.'.* docs/image_input"),
    ],
)
def test_inconsistent_messages_are_refused(message: RawImage, expected: str) -> None:
    with pytest.raises(ImageError, match=expected):
        decode_image(message)


def test_more_pixels_than_are_accepted_are_refused() -> None:
    assert decode_image(_MESSAGE, max_pixels=35).shape == (7, 5)
    with pytest.raises(ImageError, match=r"5x7 px.* at most 34 px .*max_image_pixels"):
        decode_image(_MESSAGE, max_pixels=34)
