"""Results to messages. Each array is copied once, from the tensor into the message's own `array.array`.

Assigning an array to a field would copy it again (Jazzy's setters make a new one), and a list would be far slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from builtin_interfaces.msg import Time
from feature_frontend_msgs.msg import Features as FeaturesMessage
from feature_frontend_msgs.msg import Matches as MatchesMessage
from feature_frontend_msgs.msg import Tracks as TracksMessage
from std_msgs.msg import Header

from feature_frontend.frontend import FrameResult
from feature_frontend.types import Features, Matches, Tracks

__all__ = ["encode_features", "encode_matches", "encode_pair", "encode_tracks", "stamp_from_ns", "stamp_to_ns"]

_NS_PER_S = 1_000_000_000
_DESCRIPTOR_TYPES = {
    "float32": (FeaturesMessage.FLOAT32, torch.float32, "<f4"),
    "float16": (FeaturesMessage.FLOAT16, torch.float16, "<f2"),
}
FloatArray = npt.NDArray[np.float32]


def stamp_to_ns(stamp: Time) -> int:
    """A message's stamp in ns."""
    return int(stamp.sec) * _NS_PER_S + int(stamp.nanosec)


def stamp_from_ns(stamp_ns: int) -> Time:
    """The stamp of a time in ns."""
    return Time(sec=stamp_ns // _NS_PER_S, nanosec=stamp_ns % _NS_PER_S)


def encode_features(
    header: Header, features: Features, normalized_keypoints: FloatArray | None, descriptor_type: str | None
) -> FeaturesMessage:
    """The message of one image's features.

    Args:
        header: The image's.
        features: With its tensors on the CPU.
        normalized_keypoints: (N, 2) undistorted (x/z, y/z); None without a calibration.
        descriptor_type: "float32" or "float16", the format of the published descriptors; None for none.
    """
    message = FeaturesMessage()
    message.header = header
    message.extractor = features.extractor
    message.height, message.width = features.height, features.width
    message.count = len(features)
    _fill(message.keypoints, features.keypoints)
    _fill(message.scores, features.scores)
    for field, values in ((message.sizes, features.sizes), (message.angles, features.angles)):
        if values is not None:
            _fill(field, values)
    if normalized_keypoints is not None:
        _fill(message.normalized_keypoints, normalized_keypoints)
    if descriptor_type is None:
        return message
    message.descriptor_type, torch_type, numpy_type = _DESCRIPTOR_TYPES[descriptor_type]
    message.descriptor_dim = features.descriptor_dim
    descriptors = features.descriptors.to(torch_type).numpy().astype(numpy_type, copy=False)
    _fill(message.descriptors, np.ascontiguousarray(descriptors).view(np.uint8))
    return message


def encode_matches(header: Header, result: FrameResult) -> MatchesMessage:
    """The message of a frame's matches with the one before; the frame must not be the first."""
    assert result.stamp0_ns is not None
    keypoints1 = result.features.keypoints[result.matches.indices1]
    message = encode_pair(header, result.stamp0_ns, result.matches, result.keypoints0, keypoints1)
    _fill(message.inlier, result.check.inlier)
    return message


def encode_pair(
    header: Header, stamp0_ns: int, matches: Matches, keypoints0: torch.Tensor, keypoints1: torch.Tensor
) -> MatchesMessage:
    """The message of two images' matches.

    Args:
        header: Of image 1.
        stamp0_ns: Time of image 0, ns.
        matches: On the CPU.
        keypoints0: (M, 2) (x, y) px, in image 0.
        keypoints1: (M, 2) (x, y) px, in image 1.
    """
    message = MatchesMessage()
    message.header = header
    message.stamp0 = stamp_from_ns(stamp0_ns)
    message.matcher = matches.matcher
    message.count = len(matches)
    _fill(message.indices0, matches.indices0)
    _fill(message.indices1, matches.indices1)
    _fill(message.similarity, matches.similarity)
    _fill(message.margin, matches.margin)
    _fill(message.keypoints0, keypoints0)
    _fill(message.keypoints1, keypoints1)
    return message


def encode_tracks(header: Header, tracks: Tracks, normalized_keypoints: FloatArray | None) -> TracksMessage:
    """The message of the tracks seen in an image.

    Args:
        header: The image's.
        tracks: Of that image.
        normalized_keypoints: (T, 2) undistorted (x/z, y/z); None without a calibration.
    """
    message = TracksMessage()
    message.header = header
    message.count = len(tracks)
    _fill(message.ids, tracks.ids)
    _fill(message.ages, tracks.ages)
    _fill(message.gaps, tracks.gaps)
    _fill(message.feature_indices, tracks.feature_indices)
    _fill(message.keypoints, tracks.keypoints)
    _fill(message.velocities, tracks.velocities)
    if normalized_keypoints is not None:
        _fill(message.normalized_keypoints, normalized_keypoints)
    return message


def _fill(field: Any, values: torch.Tensor | npt.NDArray[Any]) -> None:
    """Appends `values`, row after row, to an empty array field of a new message."""
    numbers = values.numpy() if isinstance(values, torch.Tensor) else values
    if numbers.size:  # a memoryview without elements cannot be cast
        field.frombytes(np.ascontiguousarray(numbers, dtype=np.dtype(field.typecode)).data.cast("B"))
