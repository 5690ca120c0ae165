"""Captured computations compared with the same stages run one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.errors import ImageError
from feature_frontend.pipeline.cuda_graphs import GraphFrameMatcher
from feature_frontend.pipeline.factory import make_frame_matcher
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.pipeline.plain import PlainFrameMatcher
from feature_frontend.runtime.cuda_graphs import EagerGraphDevice, GraphDevice, make_graph_device
from feature_frontend.settings import Settings
from feature_frontend.types import FrameResult, FrameState
from tests.core.seeded import seeded_extractor

Uint8Array = npt.NDArray[np.uint8]
_SETTINGS = Settings(max_num_keypoints=200, tracker="chain")
_devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")),
    ],
)


def _frontends(device: str) -> tuple[Frontend, Frontend]:
    """One whose work is captured, and one that goes stage by stage."""
    graph_device: GraphDevice = make_graph_device(torch.device(device))
    captured = Frontend(seeded_extractor(_SETTINGS, device, graph_device), _SETTINGS)
    assert isinstance(captured._frame_matcher, GraphFrameMatcher)
    plain = Frontend(seeded_extractor(_SETTINGS, "cpu"), _SETTINGS)
    assert isinstance(plain._frame_matcher, PlainFrameMatcher)
    return captured, plain


def _check_equal(found: FrameResult, expected: FrameResult) -> None:
    assert (found.state, found.stamp0_ns) == (expected.state, expected.stamp0_ns)
    torch.testing.assert_close(found.features.keypoints, expected.features.keypoints, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.features.descriptors, expected.features.descriptors, atol=1e-4, rtol=0)
    assert found.matches.indices0.tolist() == expected.matches.indices0.tolist()
    assert found.matches.indices1.tolist() == expected.matches.indices1.tolist()
    torch.testing.assert_close(found.matches.similarity, expected.matches.similarity, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.matches.margin, expected.matches.margin, atol=1e-4, rtol=0)
    assert found.tracks.ids.tolist() == expected.tracks.ids.tolist()
    assert found.features.keypoints.device.type == "cpu"


@_devices
def test_recorded_frames_give_what_plain_ones_give(photographs: list[Uint8Array], device: str) -> None:
    captured, plain = _frontends(device)
    views = [np.ascontiguousarray(image[:240, :320]) for image in photographs]
    shifted = np.ascontiguousarray(photographs[0][8:248, 4:324])
    blank = np.full((240, 320), 90, np.uint8)
    small = np.ascontiguousarray(photographs[0][:160, :200])
    sequence = [views[0], shifted, views[0], small, views[1], blank, views[0], shifted]
    matched = []
    for number, image in enumerate(sequence):
        found, expected = (frontend.process(image, number) for frontend in (captured, plain))
        _check_equal(found, expected)
        matched.append(len(found.matches))
        assert found.times.extraction_ms > 0
        assert found.times.matching_ms >= 0
    assert matched[0] == matched[5] == matched[6] == 0
    assert min(matched[1:4]) > 10


@_devices
def test_what_changes_between_frames_is_taken_up(photographs: list[Uint8Array], device: str) -> None:
    captured, plain = _frontends(device)
    first, second = (np.ascontiguousarray(photographs[0][y : y + 200, :300]) for y in (0, 6))
    changes = [
        {},
        {"ratio_threshold": 0.8},
        {"double_softmax_threshold": 0.01},
        {"max_num_keypoints": 300},
        {"max_num_keypoints": 300, "min_similarity": 0.9, "resize_height": 160},
        {"max_num_keypoints": 300, "multi_scale": True, "resize_height": 240},
    ]
    for number, change in enumerate(changes):
        settings = replace(_SETTINGS, **change)
        for frontend in (captured, plain):
            frontend.configure(settings)
        for image in (first, second):
            _check_equal(*(frontend.process(image, number) for frontend in (captured, plain)))
    for frontend in (captured, plain):
        frontend.reset()
    results = [frontend.process(first, 9) for frontend in (captured, plain)]
    assert [result.state for result in results] == [FrameState.FIRST, FrameState.FIRST]
    _check_equal(*results)
    for frontend in (captured, plain):
        with pytest.raises(ImageError):
            frontend.process(np.zeros((5, 5), np.uint8), 10)
    _check_equal(*(frontend.process(second, 11) for frontend in (captured, plain)))


def test_a_smaller_budget_matches_with_the_best_of_the_image_before(photographs: list[Uint8Array]) -> None:
    captured, _ = _frontends("cpu")
    image = np.ascontiguousarray(photographs[0][:200, :300])
    captured.process(image, 0)
    captured.configure(replace(_SETTINGS, max_num_keypoints=50))
    matches = captured.process(image, 1).matches
    assert matches.indices0.tolist() == matches.indices1.tolist() == list(range(50))


def test_results_stay_when_the_next_frame_is_processed(photographs: list[Uint8Array]) -> None:
    extractor = seeded_extractor(_SETTINGS, "cpu", EagerGraphDevice(torch.device("cpu")))
    pairing = make_frame_matcher(extractor, Frontend(extractor, _SETTINGS)._frame_matcher.matcher)
    first = pairing.run(photographs[0])
    kept = first.features.keypoints.clone(), first.features.descriptors.clone()
    again = extractor.extract(photographs[0])
    pairing.run(photographs[1])
    extractor.extract(photographs[1])
    assert torch.equal(first.features.keypoints, kept[0])
    assert torch.equal(first.features.descriptors, kept[1])
    assert torch.equal(again.keypoints, kept[0])


def test_few_recordings_are_kept(photographs: list[Uint8Array]) -> None:
    extractor = seeded_extractor(_SETTINGS, "cpu", EagerGraphDevice(torch.device("cpu")))
    for width in range(64, 64 + 7 * 32, 32):
        extractor.extract(photographs[0][:64, :width])
    assert len(extractor._execution._frames) == 4  # type: ignore[attr-defined]
