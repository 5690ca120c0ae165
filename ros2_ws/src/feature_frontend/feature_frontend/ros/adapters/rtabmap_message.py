"""Fills `rtabmap_msgs/RGBDImage` with keypoints, descriptors and 3D points.

The package is not imported: its messages are given. Their meaning is that of RTAB-Map's `rgbdImageToROS`
(rtabmap_conversions) and `compressData` (corelib): a keypoint has the fields of `cv::KeyPoint`, points are in the
camera's optical frame in m, NaN where unknown, and descriptors are a zlib stream with the matrix's rows, columns and
OpenCV type after it.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from feature_frontend_msgs.msg import Features, Tracks
from sensor_msgs.msg import CameraInfo, Image

__all__ = ["depths_of_image", "depths_of_tracks", "features_problem", "fill_rgbd_image"]

FloatArray = npt.NDArray[np.float32]

_CV_32FC1 = 5
# Encodings of depth, with their sample type and m per unit.
_DEPTHS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}
_ELEMENTS = {Features.FLOAT32: "<f4", Features.FLOAT16: "<f2"}
# OpenCV's value for "no orientation".
_NO_ANGLE = -1.0


def features_problem(features: Features) -> str:
    """Why RTAB-Map cannot use the features; empty if it can."""
    if not features.count:
        return ""
    if not features.descriptor_dim:
        return "features without descriptors are left out: start the front-end with publish_descriptors:=true"
    if len(features.normalized_keypoints) != 2 * features.count:
        return (
            f"{features.count} keypoints with {len(features.normalized_keypoints) / 2:g} normalized ones are left out; "
            "expected as many: does the front-end get camera_info?"
        )
    return ""


def depths_of_image(depth: Image, features: Features) -> tuple[FloatArray, str]:
    """Depths of the keypoints, from the depth image's nearest pixels.

    Args:
        depth: Registered to the camera of the features: of its size, or a whole number of times smaller.
        features: (N) keypoints.

    Returns:
        (N,) m along the optical axis, NaN where unknown; why there are none, empty if there are.
    """
    nothing = np.full(features.count, np.nan, np.float32)
    if depth.encoding not in _DEPTHS:
        return nothing, f"depth image with encoding {depth.encoding!r}; expected {', '.join(_DEPTHS)}"
    kind, unit = _DEPTHS[depth.encoding]
    sample = np.dtype((">" if depth.is_bigendian else "<") + kind)
    if depth.step < depth.width * sample.itemsize or len(depth.data) < depth.height * depth.step:
        return nothing, (
            f"depth image of {depth.width}x{depth.height} px with {len(depth.data)} bytes in rows of {depth.step}; "
            f"expected rows of {depth.width * sample.itemsize} or more"
        )
    factor = features.width // depth.width if depth.width else 0
    if not factor or (features.width, features.height) != (factor * depth.width, factor * depth.height):
        return nothing, (
            f"depth image of {depth.width}x{depth.height} px for an image of {features.width}x{features.height}; "
            "expected the same size, or one a whole number of times smaller"
        )
    rows = np.frombuffer(depth.data, np.uint8)[: depth.height * depth.step].reshape(depth.height, depth.step)
    samples = np.ascontiguousarray(rows[:, : depth.width * sample.itemsize]).view(sample)
    at = ((np.frombuffer(features.keypoints, np.float32).reshape(-1, 2) + 0.5) // factor).astype(np.int64)
    at = np.clip(at, 0, [depth.width - 1, depth.height - 1])
    values = samples[at[:, 1], at[:, 0]].astype(np.float32) * np.float32(unit)
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(np.nan)), ""


def depths_of_tracks(tracks: Tracks, features: Features) -> FloatArray:
    """(N,) depths of the keypoints from the disparities of their tracks, m, NaN where unknown."""
    depths = np.full(features.count, np.nan, np.float32)
    disparities = np.frombuffer(tracks.disparities, np.float32)
    rows = np.frombuffer(tracks.feature_indices, np.uint32)
    if len(disparities) == len(rows) and tracks.focal_baseline > 0:
        usable = np.isfinite(disparities) & (disparities > 0) & (rows < features.count)
        depths[rows[usable]] = np.float32(tracks.focal_baseline) / disparities[usable]
    return depths


def fill_rgbd_image(
    types: Any,
    features: Features,
    depths_m: FloatArray,
    images: tuple[Image, Image],
    infos: tuple[CameraInfo, CameraInfo],
) -> Any:
    """A message `RGBDImage`.

    Args:
        types: The module `rtabmap_msgs.msg`.
        features: Without a `features_problem`.
        depths_m: (N,) of the keypoints, NaN where unknown.
        images: The camera's image, and the depth or right image.
        infos: The camera's calibration, and that of the depth or right image.
    """
    message = types.RGBDImage()
    message.header = images[0].header
    message.rgb, message.depth = images
    message.rgb_camera_info, message.depth_camera_info = infos
    pixels, rays = (
        np.frombuffer(values, np.float32).reshape(-1, 2)
        for values in (features.keypoints, features.normalized_keypoints)
    )
    count = features.count
    sizes = features.sizes or features.scales or [1.0] * count
    degrees = np.degrees(features.angles).tolist() or [_NO_ANGLE] * count
    message.key_points = [
        types.KeyPoint(
            pt=types.Point2f(x=float(x), y=float(y)),
            size=float(size),
            angle=float(angle),
            response=float(score),
            octave=0,
            class_id=-1,
        )
        for (x, y), size, angle, score in zip(pixels, sizes, degrees, features.scores, strict=True)
    ]
    points = np.column_stack([rays, np.ones(count, np.float32)]) * depths_m[:, None]
    points[~np.isfinite(points).all(axis=1)] = np.nan
    message.points = [types.Point3f(x=float(x), y=float(y), z=float(z)) for x, y, z in points]
    message.descriptors = _compressed(features)
    return message


def _compressed(features: Features) -> bytes:
    if not features.count:
        return b""
    stored = np.frombuffer(features.descriptors, _ELEMENTS[features.descriptor_type])
    matrix = stored.reshape(features.count, features.descriptor_dim).astype("<f4")
    return zlib.compress(matrix.tobytes()) + struct.pack("<3i", *matrix.shape, _CV_32FC1)
