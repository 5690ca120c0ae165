"""Conversion of results to messages: bit-exact for any array layout, and without shared memory."""

from __future__ import annotations

import array
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import Features as FeaturesMessage
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from feature_frontend import load_extractor
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.geometry.rays import MatchRays
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.input.image_conversion import array_to_image, image_to_array
from feature_frontend.ros.output.messages import Origin, encode_features, encode_matches, encode_tracks
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.settings import Settings
from feature_frontend.types import Features, FrameResult, MatchCheck, Tracks

_FRAME_NS = 100_000_000
_ELEMENTS = {"float32": np.float32, "float16": np.float16}
Uint8Array = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def result(photographs: list[Uint8Array]) -> FrameResult:
    """What the shipped network finds in the second of two real frames."""
    settings = Settings(extractor="silk-vggnp-mu", max_num_keypoints=200, device="cpu", tracker="chain")
    frontend = Frontend(Extractor.from_pretrained(settings), settings)
    frontend.process(photographs[0][:240, :320], _FRAME_NS)
    return frontend.process(photographs[1][:240, :320], 2 * _FRAME_NS)


def test_sizes_and_angles_arrive_where_there_are_some(photographs: list[Uint8Array]) -> None:
    features = load_extractor("sift", max_num_keypoints=100).extract(photographs[0][:240, :320])
    message = deserialize_message(
        serialize_message(encode_features(Origin(Header()), features, None, None)), FeaturesMessage
    )
    assert features.sizes is not None
    assert features.angles is not None
    assert message.sizes == _packed("f", features.sizes)
    assert message.angles == _packed("f", features.angles)
    assert len(message.sizes) == message.count > 20


def _packed(typecode: str, values: torch.Tensor | npt.NDArray[Any]) -> array.array[Any]:
    """An array field's content by the slow, plain way: element after element."""
    return array.array(typecode, np.asarray(values).ravel().tolist())


@pytest.mark.parametrize("descriptor_type", ["float32", "float16"])
def test_features_arrive_bit_for_bit(result: FrameResult, descriptor_type: str) -> None:
    features = result.features
    normalized = features.keypoints.numpy() / 500
    sent = encode_features(Origin(Header(frame_id="camera")), features, normalized, descriptor_type)
    message = deserialize_message(serialize_message(sent), FeaturesMessage)
    assert message.count == len(features) == 200
    assert message.keypoints == _packed("f", features.keypoints)
    assert message.scores == _packed("f", features.scores)
    assert message.normalized_keypoints == _packed("f", normalized)
    assert (len(message.sizes), len(message.angles)) == (0, 0)
    descriptors = features.descriptors.numpy().astype(_ELEMENTS[descriptor_type])
    assert bytes(message.descriptors) == descriptors.tobytes()
    assert message.header.frame_id == "camera"


def test_matches_and_tracks_hold_every_element(result: FrameResult) -> None:
    matches, tracks = result.matches, result.tracks
    assert len(matches) > 20
    message = encode_matches(Origin(Header()), result, MatchRays())
    assert message.indices0 == _packed("I", matches.indices0)
    assert message.indices1 == _packed("I", matches.indices1)
    assert message.similarity == _packed("f", matches.similarity)
    assert message.margin == _packed("f", matches.margin)
    assert message.keypoints0 == _packed("f", result.keypoints0)
    assert message.keypoints1 == _packed("f", result.features.keypoints[matches.indices1])
    assert len(message.inlier) == 0, "no check has been made"
    inlier = (np.arange(len(matches)) % 3 == 0).astype(np.uint8)
    assert (
        list(encode_matches(Origin(Header()), replace(result, check=MatchCheck(inlier)), MatchRays()).inlier)
        == inlier.tolist()
    )
    of_tracks = encode_tracks(Origin(Header()), result, None)
    assert of_tracks.ids == _packed("Q", tracks.ids)
    for name in ("ages", "gaps", "feature_indices"):
        assert getattr(of_tracks, name) == _packed("I", getattr(tracks, name))
    assert of_tracks.keypoints == _packed("f", tracks.keypoints)
    assert of_tracks.velocities == _packed("f", tracks.velocities)
    assert len(of_tracks.normalized_keypoints) == 0


@pytest.mark.parametrize("descriptor_type", ["float32", "float16"])
def test_the_layout_of_the_arrays_does_not_matter(result: FrameResult, descriptor_type: str) -> None:
    features = result.features
    columns_first = replace(
        features,
        keypoints=features.keypoints.T.contiguous().T,
        scores=torch.stack([features.scores, features.scores], dim=1)[:, 0],
        descriptors=features.descriptors.T.contiguous().T,
    )
    assert not columns_first.descriptors.is_contiguous()
    normalized = np.asfortranarray(features.keypoints.numpy() / 500)
    normalized.flags.writeable = False
    message = encode_features(Origin(Header()), columns_first, normalized, descriptor_type)
    expected = encode_features(Origin(Header()), features, np.ascontiguousarray(normalized), descriptor_type)
    assert message == expected
    assert len(message.descriptors) > 0


def test_descriptors_of_another_precision_are_converted(result: FrameResult) -> None:
    halves = replace(result.features, descriptors=result.features.descriptors.to(torch.bfloat16))
    message = encode_features(Origin(Header()), halves, None, "float32")
    expected = halves.descriptors.to(torch.float32).numpy()
    np.testing.assert_array_equal(np.frombuffer(message.descriptors, np.float32).reshape(200, -1), expected)


def test_nothing_found_gives_empty_arrays(result: FrameResult) -> None:
    nothing = Features.empty(48, 64, "silk@00000000", 32)
    message = encode_features(Origin(Header()), nothing, np.zeros((0, 2), np.float32), "float16")
    assert (message.count, message.descriptor_dim) == (0, 32)
    assert not any(map(len, (message.keypoints, message.scores, message.normalized_keypoints, message.descriptors)))
    assert len(encode_tracks(Origin(Header()), replace(result, tracks=Tracks.empty()), None).ids) == 0


def test_a_message_keeps_its_content_when_the_arrays_change(result: FrameResult) -> None:
    features = replace(result.features, keypoints=result.features.keypoints.clone())
    first = encode_features(Origin(Header()), features, None, "float32")
    second = encode_features(Origin(Header()), features, None, "float32")
    before = bytes(first.keypoints)
    features.keypoints.zero_()
    second.keypoints[0] = -1.0
    assert bytes(first.keypoints) == before


@pytest.mark.parametrize("layout", ["read-only", "cropped", "flipped"])
def test_images_of_any_layout_are_written(photographs: list[Uint8Array], layout: str) -> None:
    pixels = photographs[0].copy()
    if layout == "read-only":
        pixels.flags.writeable = False
    else:
        pixels = pixels[10:-10, 20:-20] if layout == "cropped" else pixels[:, ::-1]
        assert not pixels.flags.c_contiguous
    message = array_to_image(pixels, "rgb8", stamp_from_ns(1), "camera")
    np.testing.assert_array_equal(image_to_array(message), pixels)
