"""Messages: a few bytes for their fields, the rest for the data; and serialised ones, as in bags."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from feature_frontend.camera.calibration import calibration_from_message, normalize_points
from feature_frontend.errors import CalibrationError, ImageError
from feature_frontend.image.compressed import decode_compressed_image
from feature_frontend.image.encodings import ENCODINGS, decode_image
from feature_frontend.sources.bags.messages import MessageReader
from feature_frontend.sources.bags.storage import BagMessage, BagTopic
from tests.fuzz.parser import Parser, check_text

__all__ = ["MAX_PIXELS", "PARSERS", "camera_info_bytes", "compressed_bytes", "image_bytes", "repaired_png"]

MAX_PIXELS = 2_000_000
_IMAGE, _CAMERA_INFO = struct.Struct("<IIIBB"), struct.Struct("<8I?BB")
_POINTS = np.array([[0.0, 0.0], [10.5, 3.25], [-5.0, 1e6], [639.0, 479.0]])
_PNG = b"\x89PNG\r\n\x1a\n"


def image_bytes(height: int, width: int, step: int, big_endian: int, encoding: str, data: bytes) -> bytes:
    """An input for `image`."""
    name = encoding.encode()
    return _IMAGE.pack(height, width, step, big_endian, len(name)) + name + data


def compressed_bytes(kind: str, data: bytes) -> bytes:
    """An input for `compressed-image`."""
    return bytes([len(kind.encode())]) + kind.encode() + data


def camera_info_bytes(sizes: tuple[int, ...], model: str, d: list[float], *matrices: list[float]) -> bytes:
    """An input for `camera-info`: height, width, binning x and y, region's offsets, height and width; then the rest."""
    values = [*d, *(value for matrix in matrices for value in matrix)]
    head = _CAMERA_INFO.pack(*sizes, False, len(model.encode()), len(d))
    return head + model.encode() + struct.pack(f"<{len(values)}d", *values)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _image(data: bytes) -> None:
    head = data[: _IMAGE.size].ljust(_IMAGE.size, b"\0")
    height, width, step, big_endian, length = _IMAGE.unpack(head)
    rest = data[_IMAGE.size :]
    message = SimpleNamespace(
        height=height, width=width, step=step, is_bigendian=big_endian, encoding=_text(rest[:length])
    )
    message.data = rest[length:]
    _check_pixels(decode_image(message, max_pixels=MAX_PIXELS))


def _compressed_image(data: bytes) -> None:
    length = data[0] if data else 0
    message = SimpleNamespace(format=_text(data[1 : 1 + length]), data=data[1 + length :])
    _check_pixels(decode_compressed_image(message, max_pixels=MAX_PIXELS))


def _check_pixels(pixels: Any) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2 or pixels.shape[2:] == (3,)
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    int(pixels.sum())  # reads all of it


def _camera_info(data: bytes) -> None:
    head = data[: _CAMERA_INFO.size].ljust(_CAMERA_INFO.size, b"\0")
    height, width, binning_x, binning_y, x, y, roi_height, roi_width, rectify, length, count = _CAMERA_INFO.unpack(
        bytes([*head[:32], head[32] & 1, *head[33:]])
    )
    rest = data[_CAMERA_INFO.size :]
    total = count + 9 + 9 + 12
    values = struct.unpack(f"<{total}d", rest[length : length + 8 * total].ljust(8 * total, b"\0"))
    message = SimpleNamespace(
        height=height,
        width=width,
        binning_x=binning_x,
        binning_y=binning_y,
        distortion_model=_text(rest[:length]),
        roi=SimpleNamespace(x_offset=x, y_offset=y, height=roi_height, width=roi_width, do_rectify=rectify),
    )
    message.d, message.k = values[:count], values[count : count + 9]
    message.r, message.p = values[count + 9 : count + 18], values[count + 18 :]
    check_calibration(calibration_from_message(message))


def check_calibration(calibration: Any) -> None:
    """Has rays computed with it, raw and rectified."""
    assert min(calibration.image_size) >= 1
    for rectified in (False, True):
        rays = normalize_points(calibration, _POINTS, rectified=rectified)
        assert rays.shape == _POINTS.shape
        assert np.all(np.isfinite(rays).all(axis=1) | np.isnan(rays).all(axis=1))


_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo")
_READER = MessageReader()


def _serialized(data: bytes) -> None:
    """The first byte chooses type and serialization."""
    choice = data[0] if data else 0
    type_name, encoding = _TYPES[choice % 3], ("cdr", "ros1")[choice // 3 % 2]
    message = read_message(BagMessage(BagTopic("/topic", type_name, encoding), 0, data[1:]))
    assert message is not None


def read_message(message: BagMessage, reader: MessageReader = _READER) -> Any:
    """The message, decoded where its kind is known; ValueError with a text for the user where it is damaged."""
    read = reader.read(message)
    kind = message.topic.type_name
    try:
        if kind == _TYPES[0]:
            _check_pixels(decode_image(read, max_pixels=MAX_PIXELS))
        elif kind == _TYPES[1]:
            _check_pixels(decode_compressed_image(read, max_pixels=MAX_PIXELS))
        elif kind == _TYPES[2]:
            check_calibration(calibration_from_message(read))
    except (ImageError, CalibrationError) as error:
        check_text(str(error))
    return read


def repaired_png(data: bytes) -> bytes:
    """PNG with the right checksum behind each chunk, wherever the file begins in `data`."""
    begin = data.find(_PNG)
    if begin < 0:
        return data
    repaired, offset = bytearray(data), begin + 8
    while offset + 12 <= len(repaired):
        (length,) = struct.unpack_from(">I", repaired, offset)
        end = offset + 8 + length
        if end + 4 > len(repaired):
            break
        struct.pack_into(">I", repaired, end, zlib.crc32(repaired[offset + 4 : end]))
        offset = end + 4
    return bytes(repaired)


IMAGE_TOKENS = (
    *(b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"eXIf", b"iCCP", b"Exif\0\0", b"MM\0*", b"II*\0"),
    *(b"\xff\xd8\xff", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xdd", b"\xff\xdb"),
    *(b"WEBP", b"VP8X", b"VP8L", b"VP8 ", b"ANIM", b"ANMF", b"ImageJ=1\nimages=9\n"),
)
PARSERS = (
    Parser("image", _image, (ImageError,), tuple(name.encode() for name in ENCODINGS)),
    Parser(
        "compressed-image",
        _compressed_image,
        (ImageError,),
        (b"rgb8; jpeg compressed bgr8", b"bayer_rggb8; png compressed", b"compressedDepth", *IMAGE_TOKENS),
        repaired_png,
    ),
    Parser("camera-info", _camera_info, (CalibrationError,), (b"plumb_bob", b"rational_polynomial", b"equidistant")),
    Parser("bag-messages", _serialized, (ValueError,)),
)
