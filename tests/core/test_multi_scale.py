"""Multi-scale extraction: keypoints of each scale, their selection, and the benefit."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import load_extractor, load_matcher
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.base import DetectionOptions, GridOptions
from feature_frontend.extractors.compilation import BackgroundCompiler
from feature_frontend.extractors.execution import CompiledExecution, PlainExecution, whole_frame
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.multi_scale import pyramid
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.image.resize import Resize
from feature_frontend.settings import Settings
from tests.core.seeded import seeded_network

Uint8Array = npt.NDArray[np.uint8]
_CPU = torch.device("cpu")


def _sides(height: int, width: int) -> list[tuple[int, int]]:
    return [(level.height1, level.width1) for level in pyramid(Resize(9, 9, height, width), 32)]


def test_the_scales_are_those_of_r2d2() -> None:
    assert _sides(480, 640) == [(480, 640), (404, 538), (339, 453), (285, 381), (240, 320), (202, 269)]
    assert _sides(768, 1024)[-1] == (192, 256)
    # No larger side of 256 px at the next scale, or a smaller one below what the network takes.
    assert _sides(300, 200) == [(300, 200)]
    assert _sides(1000, 40) == [(1000, 40), (841, 34)]
    assert _sides(100, 80) == [(100, 80)]


@pytest.mark.parametrize("name", list(EXTRACTORS))
def test_every_extractor_takes_several_scales(name: str, photographs: list[Uint8Array]) -> None:
    record = EXTRACTORS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            network = record.inference(record.build().eval())
        except SettingsError as error:
            assert "surf" in name
            pytest.skip(str(error))
    image = np.ascontiguousarray(photographs[0][100:340, 150:470])
    settings = Settings(extractor=name, compile=False, max_num_keypoints=400)
    assert not settings.multi_scale
    assert record.has_maps == all(hasattr(network, part) for part in ("dense", "sparse", "score_maps", "describe"))
    extractor = Extractor(network, name, settings, _CPU, has_maps=record.has_maps)
    single = extractor.extract(image)
    extractor.settings = replace(settings, multi_scale=True)
    features = extractor.extract(image)
    assert 100 < len(features) <= 400
    assert ((features.keypoints >= -0.5) & (features.keypoints < torch.tensor([319.5, 239.5]))).all()
    assert (features.scores.diff() <= 0).all()
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(len(features)))
    assert (features.height, features.width, features.extractor) == (240, 320, name)
    apart = torch.cdist(features.keypoints, single.keypoints).min(dim=1).values
    assert 0 < int((apart > 0.1).sum()) < len(features)
    for part, of_single in ((features.sizes, single.sizes), (features.angles, single.angles)):
        assert (part is None) == (of_single is None)
        assert part is None or len(part) == len(features)
    assert single.scales is not None
    assert features.scales is not None
    assert set(single.scales.tolist()) == {1.0}
    possible = [(240 * 320 / level.height1 / level.width1) ** 0.5 for level in pyramid(Resize(240, 320, 240, 320), 32)]
    distance = (features.scales[:, None] - torch.tensor(possible)).abs().min(dim=1).values
    assert float(distance.max()) < 1e-5
    assert len(features.scales.unique()) == len(possible)
    extractor.settings = settings
    assert torch.equal(extractor.extract(image).keypoints, single.keypoints)


@pytest.mark.parametrize(
    "name", ["silk-vggnp-mu", "sift", "rootsift", "aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32"]
)
def test_a_view_from_twice_as_far_matches_better(
    name: str, photographs: list[Uint8Array], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("weights_dir") if name.startswith("aliked") else ""
    image = photographs[0]
    half = np.asarray(cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA), np.uint8)
    shares, shifts = [], []
    for multi_scale in (False, True):
        extractor = load_extractor(
            name, weights_dir=folder, device="cpu", compile=False, max_num_keypoints=500, multi_scale=multi_scale
        )
        features0, features1 = extractor.extract(image), extractor.extract(half)
        matches = load_matcher().match(features0, features1)
        assert len(matches) > 80
        there = (features0.keypoints[matches.indices0] + 0.5) / 2 - 0.5
        offsets = there - features1.keypoints[matches.indices1]
        is_right = offsets.norm(dim=1) < 3
        shares.append(float(is_right.float().mean()))
        shifts.append(offsets[is_right].median(dim=0).values)
    assert shares[1] > shares[0] + 0.05
    # A scale whose points were mapped without regard to pixel centres would pull all of them to one side.
    assert float(shifts[1].abs().max()) < 0.15


def test_the_best_of_all_scales_stay(photographs: list[Uint8Array]) -> None:
    image, resize = np.ascontiguousarray(photographs[0][:300, :400]), Resize(300, 400, 270, 360)
    options = DetectionOptions(150, 0.0, 2, 0)
    execution = PlainExecution(FastAliked(seeded_network()), _CPU)
    (found,) = execution.run([image], resize, replace(options, multi_scale=True))
    rows = []
    for height, width in ((270, 360), (227, 303)):
        level = Resize(300, 400, height, width)
        (one,) = execution.run([image], level, options)
        points = resize.apply(level.invert(one.keypoints))
        scale = (270 * 360 / height / width) ** 0.5
        rows += list(zip(one.scores.tolist(), points.tolist(), one.descriptors, [scale] * len(points), strict=True))
    rows.sort(key=lambda row: -row[0])
    scores, points, descriptors, scales = zip(*rows[:150], strict=True)
    torch.testing.assert_close(found.scales, torch.tensor(scales))
    torch.testing.assert_close(found.scores, torch.tensor(scores))
    torch.testing.assert_close(found.keypoints, torch.tensor(points), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.descriptors, torch.stack(descriptors))


def test_sizes_are_those_in_the_image(photographs: list[Uint8Array]) -> None:
    parameters = {"max_num_keypoints": 50_000, "detection_threshold": 0.04}
    single = load_extractor("sift", **parameters).extract(photographs[0])
    several = load_extractor("sift", multi_scale=True, **parameters).extract(photographs[0])
    assert single.sizes is not None
    assert several.sizes is not None
    # The first octave of a smaller scale has the same sizes there, and so larger ones here.
    assert float(several.sizes.median()) > 1.1 * float(single.sizes.median())
    assert float(several.sizes.min()) == pytest.approx(float(single.sizes.min()))


def test_a_border_is_as_wide_at_every_scale(photographs: list[Uint8Array]) -> None:
    extractor = load_extractor("silk-vggnp-mu", compile=False, multi_scale=True, border=50, max_num_keypoints=5000)
    keypoints = extractor.extract(photographs[0]).keypoints
    assert ((keypoints >= 49.5) & (keypoints < torch.tensor([589.5, 429.5]))).all()
    assert float(keypoints.min()) < 52


@pytest.mark.parametrize("grid", [None, GridOptions(6, 8, 1.0)])
def test_every_way_of_execution_gives_the_same(grid: GridOptions | None, photographs: list[Uint8Array]) -> None:
    images = [np.ascontiguousarray(photograph[:300, :400]) for photograph in photographs[:2]]
    masks = [np.full((300, 400), 255, np.uint8) for _ in images]
    masks[0][:, 100:150] = 0
    masks[1][40:] = 0
    resize = Resize(300, 400, 300, 400)
    options = DetectionOptions(200, 0.3, 2, 4, grid, multi_scale=True)
    fast = FastAliked(seeded_network())
    plain = PlainExecution(fast, _CPU).run(images, resize, options, masks)
    compiler = BackgroundCompiler("aliked-t16", fast, torch.float32, frames_before=10**9)
    compiled = CompiledExecution(fast, compiler).run(images, resize, options, masks)
    tensors = [[torch.from_numpy(pixels) for pixels in group] for group in (images, masks)]
    recorded = whole_frame(fast, tensors[0], resize, options, tensors[1]).unpadded()
    assert 0 < len(plain[1].scores) < len(plain[0].scores) == 200
    for expected, *others in zip(plain, compiled, recorded, strict=True):
        for found in others:
            torch.testing.assert_close(found.keypoints, expected.keypoints)
            torch.testing.assert_close(found.scores, expected.scores)
            torch.testing.assert_close(found.descriptors, expected.descriptors)
            torch.testing.assert_close(found.scales, expected.scales)
            torch.testing.assert_close(found.covariances, expected.covariances)


def test_a_grid_holds_over_all_scales(photographs: list[Uint8Array]) -> None:
    parameters = {"compile": False, "multi_scale": True, "max_num_keypoints": 480}
    fewest = []
    for distribution in ("none", "grid"):
        keypoints = (
            load_extractor("silk-vggnp-mu", distribution=distribution, **parameters).extract(photographs[0]).keypoints
        )
        cells = ((keypoints + 0.5) / 80).floor().long()
        fewest.append(int(torch.bincount(cells[:, 1] * 8 + cells[:, 0], minlength=48).min()))
    assert fewest[0] == 0
    assert fewest[1] == 10


def test_nothing_to_see_is_an_empty_result(photographs: list[Uint8Array]) -> None:
    for name in ("silk-vggnp-mu", "sift"):
        extractor = load_extractor(name, compile=False, multi_scale=True)
        assert len(extractor.extract(np.full((300, 400), 90, np.uint8))) == 0
        assert extractor.extract(photographs[0], mask=np.zeros((480, 640), np.uint8)).descriptors.shape[0] == 0


def test_the_persistent_tracker_wants_one_scale() -> None:
    with pytest.raises(SettingsError, match=r"multi_scale .* tracker chain"):
        Settings(tracker="persistent", multi_scale=True)
