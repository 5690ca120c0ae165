"""Encodes results as messages. Each array is copied once, from the tensor into the message's own `array.array`.

Assigning an array to a field would copy it again (Jazzy's setters create a new one), and a list would be far slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from feature_frontend_msgs.msg import Features as FeaturesMessage
from feature_frontend_msgs.msg import Matches as MatchesMessage
from feature_frontend_msgs.msg import Tracks as TracksMessage
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from feature_frontend.geometry.rays import MatchRays, TrackRays
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.stereo.matching import Disparities, StereoResult
from feature_frontend.types import Features, FrameResult, Matches

__all__ = [
    "Origin",
    "encode_features",
    "encode_matches",
    "encode_pair",
    "encode_points",
    "encode_tracks",
]

_DESCRIPTOR_TYPES = {
    "float32": (FeaturesMessage.FLOAT32, torch.float32, "<f4"),
    "float16": (FeaturesMessage.FLOAT16, torch.float16, "<f2"),
}
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("index", "<u4")])
_FIELD_TYPES = {"<f4": PointField.FLOAT32, "<u4": PointField.UINT32}
_FIELDS = [
    PointField(name=name, offset=of[1], datatype=_FIELD_TYPES[of[0].str], count=1)
    for name, of in (_POINT.fields or {}).items()
]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Origin:
    """The image and the run that a message belongs to.

    Attributes:
        header: Of the image.
        run_id: As in the messages; 0 for no image.
        resets: As in the messages.
    """

    header: Header
    run_id: int = 0
    resets: int = 0


def encode_features(
    origin: Origin, features: Features, normalized_keypoints: FloatArray | None, descriptor_type: str | None
) -> FeaturesMessage:
    """The message of one image's features.

    Args:
        origin: The image.
        features: With its tensors on the CPU.
        normalized_keypoints: (N, 2) undistorted (x/z, y/z); None without a calibration.
        descriptor_type: "float32" or "float16", the format of the published descriptors; None to publish none.
    """
    message = FeaturesMessage()
    _begin(message, origin)
    message.extractor = features.extractor
    message.height, message.width = features.height, features.width
    message.count = len(features)
    _fill(message.keypoints, features.keypoints)
    _fill(message.scores, features.scores)
    for name in ("sizes", "angles", "scales", "covariances"):
        values = getattr(features, name)
        if values is not None:
            _fill(getattr(message, name), values)
    if normalized_keypoints is not None:
        _fill(message.normalized_keypoints, normalized_keypoints)
    if descriptor_type is None:
        return message
    message.descriptor_type, torch_type, numpy_type = _DESCRIPTOR_TYPES[descriptor_type]
    message.descriptor_dim = features.descriptor_dim
    descriptors = features.descriptors.to(torch_type).numpy().astype(numpy_type, copy=False)
    _fill(message.descriptors, np.ascontiguousarray(descriptors).view(np.uint8))
    return message


def encode_matches(origin: Origin, result: FrameResult, rays: MatchRays) -> MatchesMessage:
    """The message of a frame's matches with the previous one; empty for a first frame."""
    origin0 = Origin(origin.header)
    if result.stamp0_ns is not None:
        origin0 = Origin(Header(stamp=stamp_from_ns(result.stamp0_ns)), origin.run_id)
    keypoints1 = result.features.keypoints[result.matches.indices1]
    message = encode_pair(origin0, origin, result.matches, (result.keypoints0, keypoints1), rays)
    _fill(message.inlier, result.check.inlier)
    return message


def encode_pair(
    origin0: Origin,
    origin1: Origin,
    matches: Matches,
    keypoints: tuple[torch.Tensor, torch.Tensor],
    rays: MatchRays,
) -> MatchesMessage:
    """The message of two images' matches.

    Args:
        origin0: Image 0.
        origin1: Image 1.
        matches: On the CPU.
        keypoints: Two arrays (M, 2) of (x, y) px, in image 0 and in image 1.
        rays: Of the matches.
    """
    message = MatchesMessage()
    _begin(message, origin1)
    message.stamp0, message.run_id0 = origin0.header.stamp, origin0.run_id
    message.matcher = matches.matcher
    message.count = len(matches)
    _fill(message.indices0, matches.indices0)
    _fill(message.indices1, matches.indices1)
    _fill(message.similarity, matches.similarity)
    _fill(message.margin, matches.margin)
    _fill(message.keypoints0, keypoints[0])
    _fill(message.keypoints1, keypoints[1])
    if rays.normalized0 is not None:
        _fill(message.normalized_keypoints0, rays.normalized0)
    if rays.normalized1 is not None:
        _fill(message.normalized_keypoints1, rays.normalized1)
    return message


def encode_tracks(
    origin: Origin, result: FrameResult, rays: TrackRays | None, disparities: Disparities | None = None
) -> TracksMessage:
    """The message of the tracks seen in a frame.

    Args:
        origin: The image.
        result: Of that image.
        rays: Of the tracks; None without a calibration.
        disparities: Of the image's keypoints; None without stereo.
    """
    features, tracks = result.features, result.tracks
    message = TracksMessage()
    _begin(message, origin)
    message.height, message.width = features.height, features.width
    message.count = len(tracks)
    _fill(message.ids, tracks.ids)
    _fill(message.ages, tracks.ages)
    _fill(message.gaps, tracks.gaps)
    _fill(message.feature_indices, tracks.feature_indices)
    _fill(message.keypoints, tracks.keypoints)
    _fill(message.velocities, tracks.velocities)
    _fill(message.scores, features.scores.numpy()[tracks.feature_indices])
    _fill(message.quality, tracks.quality)
    if tracks.covariances is not None:
        _fill(message.covariances, tracks.covariances)
    if rays is not None:
        _fill(message.normalized_keypoints, rays.normalized)
        _fill(message.normalized_velocities, rays.velocities)
    if disparities is not None:
        _fill(message.disparities, disparities.px[tracks.feature_indices])
        message.focal_baseline = disparities.focal_baseline
    return message


def encode_points(header: Header, found: StereoResult) -> PointCloud2:
    """The message of a pair's points: x y z float32, m, and `index` uint32 into the left features.

    Args:
        header: Of the left image.
        found: Of the pair.
    """
    rows = np.empty(len(found.points), _POINT)
    for axis, name in enumerate("xyz"):
        rows[name] = found.points[:, axis]
    rows["index"] = found.indices
    message = PointCloud2(header=header, height=1, width=len(rows), fields=_FIELDS, is_dense=True)
    message.point_step, message.row_step = _POINT.itemsize, rows.nbytes
    message.data.frombytes(rows.tobytes())
    return message


def _begin(message: Any, origin: Origin) -> None:
    message.header, message.run_id, message.resets = origin.header, origin.run_id, origin.resets


def _fill(field: Any, values: torch.Tensor | npt.NDArray[Any]) -> None:
    """Appends `values`, row by row, to an empty array field of a new message."""
    numbers = values.numpy() if isinstance(values, torch.Tensor) else values
    if numbers.size:  # a memoryview without elements cannot be cast
        field.frombytes(np.ascontiguousarray(numbers, dtype=np.dtype(field.typecode)).data.cast("B"))
