"""SIFT and RootSIFT: OpenCV's keypoints, under the rules of every extractor."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import Features, load_extractor, load_matcher
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.networks.opencv_sift import CLASSICAL_CONFIGS, OPENCV, ClassicalConfig, PointDetector
from feature_frontend.image.preprocessing import images_to_batch, resize_tensor
from feature_frontend.image.resize import Resize
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from feature_frontend.types import FrameState

Uint8Array = npt.NDArray[np.uint8]
_FRAME_NS = 100_000_000


def _sorted(features: Features) -> Features:
    """The features in an order that does not depend on that of equal scores."""
    assert features.sizes is not None
    assert features.angles is not None
    order = torch.from_numpy(
        np.lexsort([features.angles.numpy(), features.sizes.numpy(), *features.keypoints.numpy().T])
    )
    parts = (features.keypoints, features.scores, features.descriptors, features.sizes, features.angles)
    points, scores, descriptors, sizes, angles = (part[order] for part in parts)
    return Features(points, scores, descriptors, features.height, features.width, features.extractor, sizes, angles)


def _by_opencv(grey: Uint8Array) -> Features:
    """All that OpenCV's SIFT finds with its default options."""
    keypoints, descriptors = cv2.SIFT.create().detectAndCompute(grey, None)
    table = np.array([(*k.pt, k.response, k.size, k.angle) for k in keypoints], np.float32)
    points, responses, sizes, degrees = torch.from_numpy(table).split([2, 1, 1, 1], dim=1)
    rows = torch.from_numpy(np.asarray(descriptors, np.float32))
    unit = rows / rows.norm(dim=1, keepdim=True)
    return _sorted(
        Features(points - 0.25, 3 * responses[:, 0], unit, *grey.shape, "", sizes[:, 0], degrees[:, 0].deg2rad())
    )


@pytest.mark.parametrize("is_grey", [False, True])
def test_sift_is_what_opencv_finds(is_grey: bool, photographs: list[Uint8Array]) -> None:
    grey = cv2.cvtColor(photographs[0], cv2.COLOR_RGB2GRAY)
    extractor = load_extractor("sift", max_num_keypoints=50_000, detection_threshold=0.04, device="cpu")
    features = extractor.extract(np.asarray(grey, np.uint8) if is_grey else photographs[0])
    assert features.extractor == f"sift@{OPENCV}"
    assert (features.scores.diff() <= 0).all()
    assert (features.height, features.width, features.descriptor_dim) == (480, 640, 128)
    own, theirs = _sorted(features), _by_opencv(np.asarray(grey, np.uint8))
    assert len(own) == len(theirs) > 500
    for name in ("keypoints", "scores", "descriptors", "sizes", "angles"):
        torch.testing.assert_close(getattr(own, name), getattr(theirs, name), atol=1e-6, rtol=1e-6)
    assert 0.04 <= float(own.scores.min()) <= float(own.scores.max()) <= 1


def test_rootsift_is_the_root_of_the_share_of_the_sum(photographs: list[Uint8Array]) -> None:
    sift, root = (load_extractor(name, max_num_keypoints=300).extract(photographs[0]) for name in ("sift", "rootsift"))
    assert torch.equal(sift.keypoints, root.keypoints)
    expected = (sift.descriptors / sift.descriptors.sum(dim=1, keepdim=True)).sqrt()
    torch.testing.assert_close(root.descriptors, expected)
    torch.testing.assert_close(root.descriptors.norm(dim=1), torch.ones(300))


def _turned(features0: Features, features1: Features) -> tuple[int, torch.Tensor]:
    """Matches of an image with itself turned to the right by 90 degrees that are right, and how their angles differ."""
    matches = load_matcher().match(features0, features1)
    x, y = features0.keypoints[matches.indices0].unbind(1)
    landed = torch.stack([features0.height - 1 - y, x], dim=1)
    is_right = (landed - features1.keypoints[matches.indices1]).norm(dim=1) < 1
    assert features0.angles is not None
    assert features1.angles is not None
    turn = features1.angles[matches.indices1] - features0.angles[matches.indices0]
    return int(is_right.sum()), turn[is_right].remainder(2 * math.pi)


def test_convention_angles_turn_from_the_x_axis_to_the_y_axis(photographs: list[Uint8Array]) -> None:
    turned = np.ascontiguousarray(np.rot90(photographs[0], k=-1))
    sift = load_extractor("sift", max_num_keypoints=500)
    count, turn = _turned(sift.extract(photographs[0]), sift.extract(turned))
    assert count > 400
    assert float((turn - math.pi / 2).abs().median()) < 0.01
    upright = load_extractor("sift-upright", max_num_keypoints=500)
    features = upright.extract(photographs[0])
    assert features.angles is not None
    assert not features.angles.any()
    assert len(torch.unique(torch.column_stack([features.keypoints, features.scores]), dim=0)) == len(features) == 500
    assert _turned(features, upright.extract(turned))[0] < 50


def test_a_resized_image_gives_points_and_sizes_of_the_image_as_published(photographs: list[Uint8Array]) -> None:
    resize = Resize(480, 640, 240, 320)
    sift = load_extractor("sift", max_num_keypoints=100, resize_height=240)
    features = sift.extract(photographs[0])
    batch = images_to_batch([photographs[0]], torch.device("cpu"))
    small = (resize_tensor(batch, resize)[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
    expected = load_extractor("sift", max_num_keypoints=100).extract(small.contiguous().numpy())
    torch.testing.assert_close(features.keypoints, resize.invert(expected.keypoints))
    assert features.sizes is not None
    assert expected.sizes is not None
    torch.testing.assert_close(features.sizes, 2 * expected.sizes)


def test_the_budget_the_threshold_the_border_and_the_radius(photographs: list[Uint8Array]) -> None:
    everything = load_extractor("sift", max_num_keypoints=50_000).extract(photographs[0])
    assert torch.equal(
        load_extractor("sift", max_num_keypoints=70).extract(photographs[0]).keypoints, everything.keypoints[:70]
    )
    strong = load_extractor("sift", max_num_keypoints=50_000, detection_threshold=0.1).extract(photographs[0])
    torch.testing.assert_close(strong.scores, everything.scores[everything.scores > 0.1])
    inner = load_extractor("sift", max_num_keypoints=50_000, border=50).extract(photographs[0]).keypoints
    assert (inner >= 49.5).all()
    assert (inner < torch.tensor([589.5, 429.5])).all()
    spread = load_extractor("sift", max_num_keypoints=50_000, nms_radius=8).extract(photographs[0])
    apart = (spread.keypoints + 0.5).floor().unique(dim=0)
    gaps = (apart[:, None] - apart).abs().amax(dim=2).fill_diagonal_(100)
    assert 100 < len(apart) < len(everything) / 3
    # As in every network, equal scores within a window may both stay; in a photograph none are.
    assert float(gaps.min()) > 8


def test_nothing_to_see_is_an_empty_result(photographs: list[Uint8Array]) -> None:
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    sift = load_extractor("sift")
    for image in (np.full((64, 64), 90, np.uint8), smooth):
        assert sift.extract(image).descriptors.shape == (0, 128)
    masked = sift.extract(photographs[0], mask=np.zeros((480, 640), np.uint8))
    assert len(masked) == 0
    half = load_extractor("rootsift", precision="float16", max_num_keypoints=10).extract(photographs[0])
    assert half.descriptors.dtype == torch.float16


@pytest.mark.parametrize("name", list(CLASSICAL_CONFIGS))
def test_a_frontend_tracks_with_it(name: str, photographs: list[Uint8Array]) -> None:
    frontend = Frontend.from_pretrained(Settings(extractor=name, ratio_threshold=0.8))
    results = [frontend.process(image, number * _FRAME_NS) for number, image in enumerate(photographs)]
    assert [result.state for result in results] == [FrameState.FIRST, FrameState.OK, FrameState.OK]
    assert len(results[2].matches) > 200
    assert int((results[2].tracks.ages == 3).sum()) > 100


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(SettingsError, match=r"weights_path is 'x\.pth'.* sift"):
        load_extractor("sift", weights_path="x.pth")
    if hasattr(cv2, "xfeatures2d"):
        pytest.skip("this OpenCV may have SURF")
    with pytest.raises(SettingsError, match=rf"{cv2.__version__} .*SURF.* SIFT"):
        PointDetector(ClassicalConfig("surf"))
