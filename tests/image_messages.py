"""Image messages made from arrays without ROS, with the fields of `sensor_msgs/Image` that describe the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RawImage", "mosaic", "raw_image", "to_nv12", "to_yuyv"]

Uint8Array = npt.NDArray[np.uint8]


@dataclass
class RawImage:
    """What a decoder reads of a `sensor_msgs/Image`."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def raw_image(
    samples: npt.NDArray[Any],
    encoding: str,
    *,
    padding: int = 0,
    big_endian: bool = False,
    size: tuple[int, int] | None = None,
) -> RawImage:
    """A message of (H, W[, C]) samples, its rows followed by `padding` bytes; `size` where that is not (H, W)."""
    ordered = samples.astype(samples.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.ascontiguousarray(ordered).reshape(len(samples), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    height, width = size or samples.shape[:2]
    return RawImage(height, width, encoding, int(big_endian), rows.shape[1], rows.tobytes())


def mosaic(rgb: npt.NDArray[Any], pattern: str) -> npt.NDArray[Any]:
    """What a sensor behind a Bayer filter sees of an (H, W, 3) picture; `pattern` as ROS has it, two rows ("rggb")."""
    seen = np.empty(rgb.shape[:2], rgb.dtype)
    for index, colour in enumerate(pattern):
        row, column = divmod(index, 2)
        seen[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
    return seen


def _luma_and_chroma(rgb: Uint8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(H, W) luma and (H, W, 2) chroma (U, V) of BT.601 in limited range, which cameras send."""
    red, green, blue = np.moveaxis(rgb / 255.0, -1, 0)
    luma = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    u = 128 - 37.797 * red - 74.203 * green + 112 * blue
    v = 128 + 112 * red - 93.786 * green - 18.214 * blue
    return luma, np.stack([u, v], axis=-1)


def to_yuyv(rgb: Uint8Array) -> Uint8Array:
    """(H, W, 2) samples of YUV 4:2:2: luma, and by turns U and V of two pixels."""
    luma, chroma = _luma_and_chroma(rgb)
    pairs = (chroma[:, 0::2] + chroma[:, 1::2]) / 2
    return np.stack([luma, pairs.reshape(luma.shape)], axis=-1).round().astype(np.uint8)


def to_nv12(rgb: Uint8Array) -> Uint8Array:
    """(3/2 H, W) samples of YUV 4:2:0: luma, and below it U and V of 2x2 pixels by turns."""
    luma, chroma = _luma_and_chroma(rgb)
    height, width = luma.shape
    blocks = chroma.reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
    return np.concatenate([luma, blocks.reshape(height // 2, width)]).round().astype(np.uint8)
