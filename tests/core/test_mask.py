"""Masks: no keypoint lies on a masked pixel, with any network, size and execution mode."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from feature_frontend.errors import MaskError, SettingsError
from feature_frontend.extractors.base import DetectionOptions, GridOptions
from feature_frontend.extractors.compilation import BackgroundCompiler
from feature_frontend.extractors.execution import CompiledExecution, PlainExecution, whole_frame
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.networks.opencv_sift import CLASSICAL_CONFIGS, Classical
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk
from feature_frontend.extractors.networks.silk_inference import FusedSilk
from feature_frontend.image.image_file import read_mask_file
from feature_frontend.image.preprocessing import allowed_pixels
from feature_frontend.image.resize import Resize, network_size
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from feature_frontend.types import Features, FrameState
from tests.core.seeded import seeded_extractor, seeded_network

Uint8Array = npt.NDArray[np.uint8]


def _silk() -> Silk:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Silk(SILK_CONFIGS["silk-vggnp-mu"]).eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "aliked": seeded_network,
    "fast aliked": lambda: FastAliked(seeded_network()),
    "silk": _silk,
    "fast silk": lambda: FusedSilk.from_reference(_silk()),
    "sift": lambda: Classical(CLASSICAL_CONFIGS["sift"]),
}


def _extractor(name: str, **parameters: object) -> Extractor:
    settings = Settings.from_mapping({"max_num_keypoints": 800, "compile": False, **parameters})
    return Extractor(
        NETWORKS[name](), f"{name}@seeded00", settings, torch.device("cpu"), has_maps=name.startswith("fast")
    )


def _speckled(height: int, width: int, seed: int = 0) -> Uint8Array:
    """A mask of blobs down to single pixels, a third of it zero, of different values elsewhere."""
    noise = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    fine, coarse = cv2.GaussianBlur(noise, (0, 0), 0.7), cv2.GaussianBlur(noise, (0, 0), 8)
    masked = (fine < np.quantile(fine, 0.15)) | (coarse < np.quantile(coarse, 0.2))
    return np.where(masked, 0, 1 + (noise * 254)).astype(np.uint8)


def _pixels(features: Features) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    columns, rows = np.floor(features.keypoints.numpy().astype(np.float64) + 0.5).astype(np.int64).T
    return rows, columns


@pytest.mark.parametrize("distribution", ["none", "grid"])
@pytest.mark.parametrize("resize_height", [0, 100, 157, 331])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_convention_no_keypoint_lies_on_a_masked_pixel(
    name: str, resize_height: int, distribution: str, photographs: list[Uint8Array]
) -> None:
    image = np.ascontiguousarray(photographs[0][60:273, 100:387])
    mask = _speckled(213, 287)
    extractor = _extractor(name, resize_height=resize_height, distribution=distribution)
    features = extractor.extract(image, mask=mask)
    assert len(features) > 50
    assert mask[_pixels(features)].all()
    assert not mask[_pixels(extractor.extract(image))].all()


@pytest.mark.parametrize("name", list(NETWORKS))
def test_no_keypoint_of_any_scale_lies_on_a_masked_pixel(name: str, photographs: list[Uint8Array]) -> None:
    image, mask = np.ascontiguousarray(photographs[0][60:360, 100:500]), _speckled(300, 400)
    features = _extractor(name, multi_scale=True, resize_height=280).extract(image, mask=mask)
    assert len(features) > 50
    assert mask[_pixels(features)].all()


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_places_of_the_budget_go_to_pixels_that_may_be_used(name: str, photographs: list[Uint8Array]) -> None:
    image = photographs[0]
    mask = np.zeros((480, 640), np.bool_)
    mask[100:300, 150:500] = True
    # Suppression as in ALIKED for all: so many maxima are in the image that the budget is the bound, with and without.
    extractor = _extractor(name, max_num_keypoints=300, nms_radius=2)
    features = extractor.extract(image, mask=mask)
    assert len(features) == 300
    everything = _extractor(name, max_num_keypoints=50_000, nms_radius=2).extract(image)
    inside = mask[_pixels(everything)]
    expected = everything.keypoints[torch.from_numpy(inside)][:300]
    nearest = torch.cdist(features.keypoints.double(), expected.double()).min(dim=1).values
    # But for those at the mask's edge, whose refined positions may lie beyond it.
    assert float((nearest < 1e-3).float().mean()) > 0.98


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("distribution", ["none", "grid"])
def test_a_mask_of_ones_changes_nothing_and_one_of_zeros_leaves_nothing(
    name: str, distribution: str, photographs: list[Uint8Array]
) -> None:
    image = np.ascontiguousarray(photographs[0][:200, :300])
    extractor = _extractor(name, distribution=distribution, resize_height=150)
    plain, everything = extractor.extract(image), extractor.extract(image, mask=np.ones((200, 300), np.uint8))
    assert torch.equal(plain.keypoints, everything.keypoints)
    assert torch.equal(plain.scores, everything.scores)
    assert torch.equal(plain.descriptors, everything.descriptors)
    assert len(extractor.extract(image, mask=np.zeros((200, 300), np.uint8))) == 0


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_grid_spreads_in_every_network(name: str, photographs: list[Uint8Array]) -> None:
    image = photographs[0]
    parameters = {"max_num_keypoints": 480, "nms_radius": 2}
    spread = _extractor(name, distribution="grid", grid_rows=6, grid_columns=8, **parameters).extract(image)
    plain = _extractor(name, **parameters).extract(image)
    fewest = {}
    border = 3 if "silk" in name else 0  # of the map, in whose cells the quotas hold
    size = torch.tensor([math.ceil((640 - 2 * border) / 8), math.ceil((480 - 2 * border) / 6)])
    for label, features in (("grid", spread), ("none", plain)):
        cells = ((features.keypoints - border + 0.5) / size).floor().long()
        fewest[label] = int(torch.bincount(cells[:, 1] * 8 + cells[:, 0], minlength=48).min())
    assert len(spread) == len(plain) == 480
    assert torch.all(spread.scores.diff() <= 0) or name.endswith("aliked")
    # Each cell has its 10, but for those that ALIKED's refinement moves over its edges.
    assert fewest["grid"] >= (10 if border else 8) > fewest["none"]


def test_images_of_a_batch_have_their_own_masks(photographs: list[Uint8Array]) -> None:
    extractor = seeded_extractor(Settings(max_num_keypoints=200))
    masks = [_speckled(480, 640), None, _speckled(480, 640, seed=1)]
    blank = np.full_like(photographs[0], 90)
    together = extractor.extract_batch([*photographs, blank], [*masks, masks[0]])
    for photograph, mask, features in zip(photographs, masks, together[:3], strict=True):
        torch.testing.assert_close(features.keypoints, extractor.extract(photograph, mask).keypoints, atol=1e-3, rtol=0)
    assert len(together[3]) == 0


@pytest.mark.parametrize("sparse_options", [(None, 0), (GridOptions(6, 8, 1.0), 4)])
def test_every_way_of_execution_takes_masks(
    sparse_options: tuple[GridOptions | None, int], photographs: list[Uint8Array]
) -> None:
    grid, border = sparse_options
    image, mask = np.ascontiguousarray(photographs[0][:300, :400]), _speckled(300, 400)
    resize = network_size(300, 400, resize_height=150, max_pixels=10**6, minimum=32)
    options = DetectionOptions(100, 0.0, 2, border, grid)
    fast = FastAliked(seeded_network())
    (plain,) = PlainExecution(fast, torch.device("cpu")).run([image], resize, options, [mask])
    compiler = BackgroundCompiler("aliked-t16", fast, torch.float32, frames_before=10**9)
    (compiled,) = CompiledExecution(fast, compiler).run([image], resize, options, [mask])
    # What a CUDA graph records, run here without one.
    tensors = [torch.from_numpy(image)], resize, options, [torch.from_numpy(mask)]
    (recorded,) = whole_frame(fast, *tensors).unpadded()
    for found in (compiled, recorded):
        torch.testing.assert_close(found.keypoints, plain.keypoints)
        torch.testing.assert_close(found.descriptors, plain.descriptors)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("distribution", ["none", "grid"])
def test_a_recorded_graph_takes_another_mask_each_frame(distribution: str, photographs: list[Uint8Array]) -> None:
    settings = Settings(max_num_keypoints=300, distribution=distribution)
    on_cpu, on_gpu = seeded_extractor(settings), seeded_extractor(settings, "cuda")
    for seed in (0, 1, None):
        mask = None if seed is None else _speckled(480, 640, seed)
        expected, found = on_cpu.extract(photographs[0], mask), on_gpu.extract(photographs[0], mask).to("cpu")
        assert mask is None or mask[_pixels(found)].all()
        nearest = torch.cdist(expected.keypoints, found.keypoints).min(dim=1).values
        assert float((nearest < 0.05).float().mean()) > 0.98


@pytest.mark.parametrize("size", [(20, 30), (7, 11), (100, 150), (63, 30), (20, 45)])
def test_a_resized_pixel_is_allowed_if_all_that_it_covers_is(size: tuple[int, int]) -> None:
    mask = _speckled(20, 30)
    resize = Resize(20, 30, *size)
    allowed = allowed_pixels([torch.from_numpy(mask)], resize)[0].numpy()
    for row, column in np.ndindex(*size):
        # In whole numbers, with `size` to the pixel of the image: the covered ones overlap by more than an edge.
        rows = [y for y in range(20) if y * size[0] < (row + 1) * 20 and (y + 1) * size[0] > row * 20]
        columns = [x for x in range(30) if x * size[1] < (column + 1) * 30 and (x + 1) * size[1] > column * 30]
        assert allowed[row, column] == mask[np.ix_(rows, columns)].all()


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((240, 320), np.uint8), "mask .*320x240 px.* 640x480 px"),
        (np.ones((480, 640), np.float32), "mask .*float32.* uint8 or bool"),
        (np.ones((480, 640, 3), np.uint8), r"mask has shape \(480, 640, 3\)"),
        ([[1]], "mask is a list"),
    ],
)
def test_impossible_masks_are_refused(mask: Uint8Array, expected: str, photographs: list[Uint8Array]) -> None:
    with pytest.raises(MaskError, match=expected):
        seeded_extractor().extract(photographs[0], mask)


def test_each_image_of_a_batch_needs_an_entry(photographs: list[Uint8Array]) -> None:
    with pytest.raises(MaskError, match=r"3 image.* 1 mask"):
        seeded_extractor().extract_batch(photographs, [np.ones((480, 640), np.uint8)])


def test_the_frontend_says_that_the_mask_may_be_the_cause(photographs: list[Uint8Array]) -> None:
    settings = Settings(max_num_keypoints=100)
    frontend = Frontend(seeded_extractor(settings), settings)
    mask = _speckled(480, 640)
    assert mask[_pixels(frontend.process(photographs[0], 0, mask).features)].all()
    result = frontend.process(photographs[1], 1, np.zeros((480, 640), np.uint8))
    assert result.state == FrameState.DEGENERATE
    assert "the mask leaves nothing" in result.reason


def test_mask_files_of_every_kind_are_read(tmp_path: Path) -> None:
    usable = _speckled(20, 30) > 0
    grey = usable.astype(np.uint8)
    opaque = np.full((20, 30), 255, np.uint8)
    black, blue = np.zeros_like(grey), np.stack([grey, 0 * grey, 0 * grey], axis=2)
    files = {
        "grey.png": grey,
        "bright.png": grey * 255,
        "deep.png": grey.astype(np.uint16),
        "blue.png": blue,
        "opaque.png": np.dstack([blue, opaque]),
        "clear.png": np.dstack([blue, black]),
        "one_bit.pbm": grey * 255,
    }
    for name, pixels in files.items():
        path = str(tmp_path / name)
        assert cv2.imwrite(path, pixels)
        np.testing.assert_array_equal(read_mask_file(path), np.where(usable, 255, 0), err_msg=name)


def test_a_mask_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mask_path is '/nowhere/mask\.png'"):
        read_mask_file("/nowhere/mask.png")
    for content in (b"", b"not an image"):
        (tmp_path / "mask.png").write_bytes(content)
        with pytest.raises(SettingsError, match=r"mask\.png'.* no image"):
            read_mask_file(str(tmp_path / "mask.png"))


def test_a_mask_has_the_limits_of_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(b"")
    os.truncate(tmp_path / "large.png", 2**33)
    assert cv2.imwrite(str(tmp_path / "mask.png"), np.ones((50, 60), np.uint8))
    refused = {
        str(tmp_path / "pipe.png"): "regular file",
        "/dev/zero": "regular file",
        str(tmp_path): "Is a directory",
        str(tmp_path / "large.png"): "8589934592 bytes",
        str(tmp_path / "mask.png"): "60x50 px.* at most 2999 px",
        "~nobody-at-all/mask.png": "no file",
        "mask\0.png": "name",
        "mask\ud800.png": "name",
        "x" * 5000: "name too long",
        "x/" * 5000: "name too long",
    }
    for path, reason in refused.items():
        with pytest.raises(SettingsError, match=f"mask_path is .*{reason}") as caught:
            read_mask_file(path, max_pixels=2999)
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable()
    assert read_mask_file(str(tmp_path / "mask.png")).all()
