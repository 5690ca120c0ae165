"""Training of residual descriptors: the loss, its pairs, and steps that learn."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from feature_frontend import load_extractor
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.base import NetworkFeatures
from feature_frontend_lab.training.command import main
from feature_frontend_lab.training.distributed import Processes
from feature_frontend_lab.training.images import ColorImages, images_in_folder
from feature_frontend_lab.training.residual.pairs import ResidualPair, ResidualPairs, find_positives, warp_keypoints
from feature_frontend_lab.training.residual.recipe import ResidualRecipe, triplet_loss
from feature_frontend_lab.training.residual.settings import ResidualSettings
from feature_frontend_lab.training.trainer import Trainer
from tests.conftest import REPOSITORY

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"


def _images() -> ColorImages:
    images = images_in_folder(_PHOTOGRAPHS, ColorImages)
    assert isinstance(images, ColorImages)
    return images


def _features(points: list[list[float]], sizes: list[float], degrees: list[float]) -> NetworkFeatures:
    count = len(points)
    angles = torch.tensor(degrees).deg2rad()
    return NetworkFeatures(torch.tensor(points), torch.ones(count), torch.ones((count, 1)), torch.tensor(sizes), angles)


def test_the_loss_by_hand() -> None:
    # Unit vectors by their angles; the distance of two is 2 sin(half of what lies between them).
    degrees0, degrees1 = torch.tensor([0.0, 90.0]), torch.tensor([20.0, 80.0, 180.0])
    views = [torch.stack([d.deg2rad().cos(), d.deg2rad().sin()], dim=1) for d in (degrees0, degrees1)]
    positives = torch.tensor([[0, 0], [1, 1]])
    is_negative = torch.tensor([[False, True, True], [True, False, False]])

    def apart(degrees: float) -> float:
        return 2 * math.sin(math.radians(degrees) / 2)

    # Anchors of view 0: the negatives 80 and 180 degrees, and 20; of view 1: 90, and 0. Then with their means.
    hardest = [apart(20) - apart(80), apart(10) - apart(70), apart(20) - apart(70), apart(10) - apart(80)]
    mean = [apart(20) - (apart(80) + apart(180)) / 2, *hardest[1:]]
    for margin in (2.0, 0.9):
        parts = [np.mean([max(0, value + margin) for value in values]) for values in (hardest, mean)]
        loss = triplet_loss(*views, positives, is_negative, margin, 0.2)
        assert float(loss.loss) == pytest.approx(0.8 * parts[0] + 0.2 * parts[1], rel=1e-5)
    assert float(loss.positive_distance) == pytest.approx((apart(20) + apart(10)) / 2, rel=1e-5)
    assert float(loss.negative_distance) == pytest.approx((apart(80) + apart(70)) / 2, rel=1e-5)
    assert float(loss.success) == 1.0
    nothing = triplet_loss(*views, positives, torch.zeros_like(is_negative), 2.0, 0.2)
    assert float(nothing.loss) == 0.0


def test_the_gradient_of_the_loss_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn((count, 5), dtype=torch.float64, generator=generator) for count in (6, 7)]
    positives = torch.tensor([[0, 3], [2, 2], [5, 0]])
    is_negative = torch.rand((6, 7), generator=generator) > 0.3

    def loss(view0: torch.Tensor, view1: torch.Tensor) -> torch.Tensor:
        return triplet_loss(
            functional.normalize(view0, dim=1), functional.normalize(view1, dim=1), positives, is_negative, 2.0, 0.2
        ).loss

    assert torch.autograd.gradcheck(loss, [view.requires_grad_() for view in views])


def test_keypoints_turn_and_grow_with_their_image() -> None:
    # By 90 degrees from x to y, twice as large.
    homography = np.array([[0.0, -2, 100], [2, 0, 0], [0, 0, 1]])
    warped = warp_keypoints(_features([[10.0, 20.0], [5.0, 5.0]], [4.0, 6.0], [0.0, 100.0]), homography)
    torch.testing.assert_close(warped.keypoints, torch.tensor([[60.0, 20.0], [90.0, 10.0]], dtype=torch.float64))
    assert warped.sizes is not None
    assert warped.angles is not None
    torch.testing.assert_close(warped.sizes, torch.tensor([8.0, 12.0]))
    torch.testing.assert_close(warped.angles.rad2deg().remainder(360), torch.tensor([90.0, 190.0]))


def test_the_same_point_is_near_and_of_the_same_size_and_direction() -> None:
    warped = _features([[10.0, 10], [10, 10], [50, 50], [80, 80], [30, 30]], [4.0, 4, 4, 4, 4], [350.0, 90, 0, 0, 0])
    found = _features([[11.0, 10], [10.5, 10], [50, 51], [80, 84], [30, 30]], [4.0, 4, 8, 4, 5], [95.0, 10, 0, 0, 20])
    assert find_positives(warped, found, 3.0).tolist() == [[0, 1], [1, 0], [4, 4]]
    upright = _features([[11.0, 10], [10.5, 10], [50, 51], [80, 84], [30, 30]], [4.0, 4, 8, 4, 5], [0.0] * 5)
    # One of the two at (10, 10) has the nearer partner, whatever its direction.
    assert find_positives(warped, upright, 3.0).tolist() == [[0, 1], [4, 4]]


@pytest.mark.parametrize("model", ["residual-sift", "residual-rootsift-upright"])
def test_a_pair_is_what_its_number_says(model: str) -> None:
    settings = ResidualSettings(model=model, map_side=160, keypoints=200)
    pairs = ResidualPairs(_images(), settings)
    pair = pairs[7]
    assert pair.views.shape == (2, 3, 160, 160)
    assert all(len(points) <= 200 for points in pair.points)
    assert 8 <= len(pair.positives) <= 200
    assert pair.positives[:, 0].unique().numel() == pair.positives[:, 1].unique().numel() == len(pair.positives)
    assert not pair.is_negative[tuple(pair.positives.T)].any()
    assert pair.is_negative.float().mean() > 0.9
    again = ResidualPairs(_images(), settings)[7]
    assert torch.equal(again.views, pair.views)
    assert torch.equal(again.positives, pair.positives)
    assert not torch.equal(pairs[8].views, pair.views)


class _TwoPairs(ResidualPairs):
    """The first two pairs, again and again."""

    def __getitem__(self, number: int) -> ResidualPair:
        return super().__getitem__(number % 2)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["residual-sift", "residual-sift-ablation"])
def test_two_pairs_are_learned_by_heart(model: str, report_figure: Callable[[str], None]) -> None:
    settings = ResidualSettings(model=model, map_side=96, batch_size=2, keypoints=150)
    trainer = Trainer(settings, _TwoPairs(_images(), settings), Processes(0, 1, torch.device("cpu")))
    before = {name: tensor.clone() for name, tensor in trainer.network.named_parameters()}
    reports = [trainer.train_step() for _ in range(15)]
    first, last = reports[0], reports[-1]
    report_figure(
        f"{model} on two pairs, 15 steps: loss {first.loss:.2f} to {last.loss:.2f}, fraction of true matches found "
        f"{first.success:.2f} to {last.success:.2f}"
    )
    assert list(first.parts) == list(ResidualRecipe.PARTS)
    assert last.loss < first.loss - 0.3
    assert last.success > min(first.success, 0.95)
    assert not [name for name, tensor in trainer.network.named_parameters() if torch.equal(tensor, before[name])]


def test_the_command_trains_a_model_that_the_frontend_takes(tmp_path: Path, photographs: list[object]) -> None:
    sizes = ["--map-size", "64", "--batch-size", "1", "--validation-pairs", "1", "--validation-short-side", "64"]
    arguments = ["--model", "residual-sift", "--images", str(_PHOTOGRAPHS), "--device", "cpu", "--steps", "10"]
    assert main([*arguments, *sizes, "--output", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "curves.png").is_file()
    card = (tmp_path / "run" / "residual-sift.md").read_text()
    assert "Residual descriptors (Shrestha et al., 2023), RGB input, 1,091,008 parameters" in card
    weights = tmp_path / "run" / "residual-sift.safetensors"
    extractor = load_extractor("residual-sift", weights_path=str(weights), max_num_keypoints=20, device="cpu")
    image = np.asarray(photographs[0], np.uint8)[:120, :160]
    assert extractor.extract(np.ascontiguousarray(image)).descriptors.shape == (20, 256)


def test_settings_out_of_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for values, expected in (
        ({"margin": 0.0}, "margin is 0.0.* above 0"),
        ({"keypoints": 0}, "keypoints is 0.* at least 1"),
        ({"mean_negative_share": 1.5}, "mean_negative_share is 1.5.* 0 to 1"),
        ({"positive_radius_px": 9.0}, "positive_radius_px is 9.0 and negative_radius_px 8.0"),
        ({"model": "sift"}, "model is 'sift'.* residual-sift"),
    ):
        with pytest.raises(SettingsError, match=expected):
            ResidualSettings(**values)  # type: ignore[arg-type]
    assert main(["--model", "residual-sift", "--images", str(_PHOTOGRAPHS), "--rgbd", "x"]) == 1
    assert re.search("residual-sift .*--rgbd", capsys.readouterr().err)
