"""Image, CompressedImage and CameraInfo messages of a broken or hostile sender, for hypothesis."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from feature_frontend.camera.distortion import MODEL_NAMES
from feature_frontend.image.encodings import ENCODINGS
from tests.generated import damaged_files, spoiled_parts

__all__ = ["camera_infos", "compressed_images", "images", "masks", "spoiled_cdr"]

_LONGEST_DATA = 40_000

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_any_sizes = st.one_of(st.integers(0, 70), st.sampled_from([1, 2, 31, 1000, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
_unknown_encodings = st.one_of(st.sampled_from(["nv24", "8UC2", "32FC3", "64FC0", "RGB8", "rgb8 ", ""]), _texts)


@st.composite
def _bytes(draw: st.DrawFn, length: int) -> bytes:
    """`length` bytes: all alike, or noise that one drawn number stands for."""
    fill = draw(st.integers(-1, 255))
    if fill >= 0:
        return bytes([fill]) * length
    return np.random.default_rng(draw(st.integers(0, 2**32))).bytes(length)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Raw images whose parts fit each other, almost fit, or do not at all."""
    spoiled = spoiled_parts(draw, "encoding", "size", "step", "data")
    encoding = draw(_unknown_encodings if "encoding" in spoiled else st.sampled_from(list(ENCODINGS)))
    layout = ENCODINGS.get(encoding, ENCODINGS["mono8"])
    sizes = _any_sizes if "size" in spoiled else st.integers(1, 35).map(lambda half: 2 * half)
    height, width = draw(sizes), draw(sizes)
    row_bytes = width * layout.channels * np.dtype(layout.sample).itemsize
    padded = st.integers(0, 20).map(row_bytes.__add__)
    wrong = st.one_of(st.integers(-3, 3).map(row_bytes.__add__), st.integers(0, 2**32 - 1))
    step = min(max(draw(wrong if "step" in spoiled else padded), 0), 2**32 - 1)
    length = step * (height + height // 2 if layout.has_chroma_plane else height)
    if "data" in spoiled:
        length = draw(st.one_of(st.integers(-3, 3).map(length.__add__), st.integers(0, 5000)))
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.is_bigendian = draw(st.sampled_from([0, 0, 1, 255]))
    message.data = draw(_bytes(min(max(length, 0), _LONGEST_DATA)))
    return message


@st.composite
def masks(draw: st.DrawFn, large: int = 2000) -> Image:
    """Masks like any raw image; a few are whole and have the pixels of a camera of (`large`, `large`) px."""
    if draw(st.integers(0, 99)) == 0:
        return Image(height=large, width=large, step=large, encoding="mono8", data=bytes(large * large))
    message = draw(images())
    message.encoding = draw(st.sampled_from([message.encoding, "mono8", "mono8"]))
    return message


@st.composite
def spoiled_cdr(draw: st.DrawFn, messages: st.SearchStrategy[object]) -> bytes:
    """What a message looks like on the wire, damaged or cut off there."""
    return draw(damaged_files([serialize_message(draw(messages))]))


def _picture_files() -> list[bytes]:
    """Real files of every kind that is taken, and some that are not."""
    ramp = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3)
    texture = np.random.default_rng(0).integers(0, 30, (48, 64, 3))
    colour = np.clip(ramp + texture, 0, 255).astype(np.uint8)
    alpha = np.dstack([colour, colour[..., :1]])
    pictures: list[tuple[np.ndarray, str, tuple[int, ...]]] = [
        (colour, ".jpg", ()),
        (colour[..., 0], ".jpg", ()),
        (colour, ".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (colour, ".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
        (colour, ".png", ()),
        (colour[..., 0], ".png", ()),
        (alpha, ".png", ()),
        (colour.astype(np.uint16) * 200, ".png", ()),
        (colour[..., 0].astype(np.uint16) * 200, ".png", ()),
        (colour[..., 0], ".png", (cv2.IMWRITE_PNG_BILEVEL, 1)),
        (colour, ".bmp", ()),
    ]
    return [cv2.imencode(suffix, pixels, options)[1].tobytes() for pixels, suffix, options in pictures]


_FILES = _picture_files()


@st.composite
def _png_bombs(draw: st.DrawFn) -> bytes:
    """A valid PNG file whose few bytes announce, or inflate to, much more."""
    width, height = draw(st.sampled_from([1, 64, 5000, 60_000, 2**31 - 1, 2**32 - 1])), draw(_any_sizes)
    depth = draw(st.sampled_from([1, 2, 4, 8, 16, 200]))
    kind, filling = draw(st.sampled_from([0, 2, 3, 4, 6, 9])), draw(st.integers(0, 2**20))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, draw(st.integers(0, 1)))
    inflating = zlib.compress(bytes(filling))
    chunks = [(b"IHDR", header), (b"zTXt", b"a\0\0" + inflating), (b"IDAT", inflating), (b"IEND", b"")]
    framed = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


_formats = st.one_of(
    st.sampled_from(
        ["jpeg", "png", "", ";", "rgb8; jpeg compressed bgr8", "rgb8; png compressed ", "mono8; jpeg compressed mono8"]
    ),
    st.sampled_from(["bayer_rggb8; png compressed ", "16UC1; png compressed ", "16UC1; compressedDepth png"]),
    _texts,
)


@st.composite
def compressed_images(draw: st.DrawFn) -> CompressedImage:
    """Compressed images: whole, damaged and cut off files, decompression bombs and noise."""
    noise = st.integers(0, 3000).flatmap(_bytes)
    data = draw(st.one_of(damaged_files(_FILES), damaged_files(_FILES), _png_bombs(), noise))
    return CompressedImage(format=draw(_formats), data=data)


_numbers = st.one_of(
    st.floats(-2000, 2000), st.sampled_from([0.0, 1.0, 500.0, 1e-300, 1e300, float("nan"), float("inf")]), st.floats()
)
_CAMERA_MATRIX = [500.0, 0.0, 32.0, 0.0, 500.0, 24.0, 0.0, 0.0, 1.0]
_ROTATION = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
_PROJECTION_MATRIX = [500.0, 0.0, 32.0, 0.0, 0.0, 500.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]


@st.composite
def _values(draw: st.DrawFn, good: list[float]) -> list[float]:
    """`good`, some of it replaced."""
    values = list(good)
    for _ in range(draw(st.integers(0, 3))):
        values[draw(st.integers(0, len(values) - 1))] = draw(_numbers)
    return values


@st.composite
def camera_infos(draw: st.DrawFn) -> CameraInfo:
    """Calibrations: NaN and infinite values, singular matrices, unknown models, absurd sizes, regions and binnings."""
    spoiled = spoiled_parts(draw, "model", "count", "size", "matrices", "region")
    model = draw(_texts if "model" in spoiled else st.sampled_from(MODEL_NAMES))
    count = draw(st.integers(0, 16) if "count" in spoiled else st.sampled_from((4, 5, 8, 12, 14)))
    height, width = (draw(_any_sizes), draw(_any_sizes)) if "size" in spoiled else (48, 64)
    message = CameraInfo(height=height, width=width, distortion_model=model)
    message.d, message.k = [draw(st.sampled_from([0.0, 0.01]))] * count, _CAMERA_MATRIX
    message.r, message.p = _ROTATION, _PROJECTION_MATRIX
    if "matrices" in spoiled:
        message.d = draw(_values(list(message.d))) if count else []
        message.k, message.r, message.p = (draw(_values(list(matrix))) for matrix in (message.k, message.r, message.p))
    if "region" in spoiled:
        message.binning_x, message.binning_y = draw(_any_sizes), draw(_any_sizes)
        message.roi = RegionOfInterest(
            x_offset=draw(_any_sizes), y_offset=draw(_any_sizes), height=draw(_any_sizes), width=draw(_any_sizes)
        )
    return message
