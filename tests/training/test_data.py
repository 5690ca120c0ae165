"""Images, pairs of views and their augmentation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.errors import SourceError
from feature_frontend.sources import open_source
from feature_frontend_lab.training.augmentation import augment
from feature_frontend_lab.training.images import GreyImages, images_in_folder, images_of_source
from feature_frontend_lab.training.silk.pairs import PairDataset, ViewSettings
from tests.conftest import REPOSITORY

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
_VIEW = ViewSettings(map_side=40, border=3)


def test_folders_are_searched_and_what_is_no_image_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    grey = np.full((40, 60), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "a" / "2.png"), grey)
    cv2.imwrite(str(tmp_path / "a" / "b" / "10.png"), np.dstack([grey] * 3))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("text")
    images = images_in_folder(tmp_path)
    loaded = [images.load(i) for i in range(len(images))]
    assert [None if image is None else image.shape for image in loaded] == [(40, 60), (40, 60), None]


def test_an_empty_and_a_missing_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="contain no images"):
        images_in_folder(tmp_path)
    with pytest.raises(SourceError, match="there is no folder"):
        images_in_folder(tmp_path / "missing")


def test_frames_of_a_video_are_spread_over_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in range(40):
        writer.write(np.full((48, 64, 3), 6 * level, np.uint8))
    writer.release()
    images = images_of_source(open_source(str(path)), max_frames=12)
    levels = [int(np.mean(image)) for i in range(len(images)) if (image := images.load(i)) is not None]
    assert 6 <= len(levels) <= 12
    assert levels == sorted(levels)
    assert levels[0] < 20
    assert levels[-1] > 190


def test_held_out_images_are_not_trained_on() -> None:
    entries = [np.full((4, 4), value, np.uint8) for value in range(25)]
    training, held_out = GreyImages(entries, "25 images").split(10)

    def values(images: GreyImages) -> set[int]:
        return {int(entry[0, 0]) for entry in images.entries if not isinstance(entry, Path)}

    assert values(held_out) == {5, 15}
    assert values(training) == set(range(25)) - {5, 15}


def test_a_pair_depends_on_seed_and_number_alone() -> None:
    def dataset(seed: int) -> PairDataset:
        return PairDataset(images_in_folder(_PHOTOGRAPHS), _VIEW, seed)

    first, other_order = dataset(7), dataset(7)
    pairs = [first[i] for i in range(4)]
    again = [other_order[i] for i in reversed(range(4))][::-1]
    for one, two in zip(pairs, again, strict=True):
        assert torch.equal(one.views, two.views)
        assert torch.equal(one.homography, two.homography)
    assert not torch.equal(pairs[0].views, pairs[1].views)
    assert not torch.equal(pairs[0].views, dataset(8)[0].views)


def test_correspondences_show_the_same_grey() -> None:
    dataset = PairDataset(images_in_folder(_PHOTOGRAPHS), _VIEW, 0)
    side, border = _VIEW.map_side, _VIEW.border
    for number in range(10):
        pair = dataset[number]
        view0, view1 = (cv2.GaussianBlur(view[0].numpy(), (0, 0), 1.5).astype(float) for view in pair.views)
        maps = [view[border : border + side, border : border + side].ravel() for view in (view0, view1)]
        seen0, seen1 = maps[0][pair.correspondences.indices0], maps[1][pair.correspondences.indices1]
        # One pixel off, where there is texture, is far less alike.
        assert np.corrcoef(seen0, seen1)[0, 1] > 0.95
        assert pair.views.shape == (2, 1, side + 2 * border, side + 2 * border)


def test_images_without_anything_to_see_are_an_error() -> None:
    blank: npt.NDArray[np.uint8] = np.full((100, 100), 128, np.uint8)
    with pytest.raises(SourceError, match="no pair of views was found"):
        PairDataset(GreyImages([blank], "1 blank image"), _VIEW, 0)[0]


def test_small_images_are_enlarged_to_hold_a_view() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 50)).astype(np.uint8)
    pair = PairDataset(GreyImages([noise], "1 image"), ViewSettings(300, 9), 0)[0]
    assert pair.views.shape == (2, 1, 318, 318)


def test_augmentation_keeps_shape_and_range_and_is_repeatable() -> None:
    images = torch.rand(40, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    augmented = augment(images, np.random.default_rng(1))
    assert augmented.shape == images.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    assert torch.isfinite(augmented).all()
    assert torch.equal(augmented, augment(images, np.random.default_rng(1)))
    changed = [not torch.equal(one, two) for one, two in zip(images, augmented, strict=True)]
    # All seven miss an image with probability 0.11, and 0.05 are left alone from the start.
    assert 25 < sum(changed) < 40
    assert torch.equal(images, augment(images, np.random.default_rng(1), probability=0))


def test_augmentation_moves_nothing() -> None:
    impulse = torch.zeros(200, 1, 33, 33)
    impulse[:, :, 16, 16] = 1
    augmented = augment(impulse, np.random.default_rng(2))
    spread = augmented - augmented.flatten(1).median(dim=1).values[:, None, None, None]
    bright = [image[0] for image in spread if image.max() > 0.5]
    assert len(bright) > 50
    assert all(int(image.argmax()) == 16 * 33 + 16 for image in bright)
