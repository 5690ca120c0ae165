"""ALIKED's training steps: they learn, resume exactly, and agree between processes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend_lab.training.aliked.pairs import AlikedPair, AlikedPairs
from feature_frontend_lab.training.aliked.recipe import AlikedRecipe
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.aliked.tum_rgbd import read_tum_sequence
from feature_frontend_lab.training.checkpoint import load_checkpoint, save_checkpoint
from feature_frontend_lab.training.distributed import Processes
from feature_frontend_lab.training.images import ColorImages, images_in_folder
from feature_frontend_lab.training.silk.settings import TrainingSettings
from feature_frontend_lab.training.trainer import Trainer
from tests.campaign import Campaign
from tests.conftest import REPOSITORY
from tests.training.aliked.scene import write_tum_sequence
from tests.training.torchrun import check_equal_weights_in_two_processes

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
_ALONE = Processes(0, 1, torch.device("cpu"))
_FEW = {"map_side": 96, "batch_size": 1, "accumulate": 1, "detected_keypoints": 40, "random_keypoints": 40, "seed": 3}
_SMALL = AlikedSettings(**_FEW)  # type: ignore[arg-type]


def _trainer(settings: AlikedSettings = _SMALL, workers: int = 0) -> Trainer:
    pairs = AlikedPairs(images_in_folder(_PHOTOGRAPHS, ColorImages), [], settings)
    return Trainer(settings, pairs, _ALONE, workers=workers)


def _same(one: Trainer, two: Trainer) -> bool:
    states = ((getattr(trainer, name).state_dict() for trainer in (one, two)) for name in ("network", "average"))
    return all(torch.equal(a[name], b[name]) for a, b in states for name in a)


class _TwoPairs(AlikedPairs):
    """The first two pairs, again and again."""

    def __getitem__(self, number: int) -> AlikedPair:
        return super().__getitem__(number % 2)


def _right_matches(trainer: Trainer, pair: AlikedPair) -> int:
    """Mutual nearest neighbours among the keypoints of a pair that lie within 5 px of where they belong."""
    module = trainer.recipe.module(copy.deepcopy(trainer.network))
    with torch.no_grad():
        first, second = module(pair.views.float() / 255, torch.zeros(2, 0, 2))
    similarity = first.descriptors @ second.descriptors.t()
    rows, columns = similarity.argmax(dim=1), similarity.argmax(dim=0)
    mutual = (columns[rows] == torch.arange(len(rows))).nonzero()[:, 0]
    moved, visible = pair.warps[0].warp(first.found.keypoints[mutual])
    near = (moved - second.found.keypoints[rows[mutual]]).norm(dim=1) < 5
    return int((near & visible).sum())


@pytest.mark.slow
def test_t16_learns_two_image_pairs_by_heart(report_figure: Callable[[str], None], campaign: Campaign) -> None:
    if not campaign.is_whole:
        pytest.skip("40 steps: make campaign")
    settings = AlikedSettings(
        map_side=128, batch_size=2, accumulate=1, detected_keypoints=80, random_keypoints=80, learning_rate=3e-3
    )
    pairs = _TwoPairs(images_in_folder(_PHOTOGRAPHS, ColorImages), [], settings)
    trainer = Trainer(settings, pairs, _ALONE)
    before = [_right_matches(trainer, pairs[number]) for number in range(2)]
    reports = [trainer.train_step() for _ in range(40)]
    after = [_right_matches(trainer, pairs[number]) for number in range(2)]
    first, last = reports[0], reports[-1]
    report_figure(
        f"ALIKED-T16 on two pairs, 40 steps: loss {first.loss:.1f} to {last.loss:.1f}, fraction of true matches found "
        f"{first.success:.2f} to {last.success:.2f}, right matches of 80 keypoints {before} to {after}"
    )
    assert np.mean([report.loss for report in reports[-5:]]) < 0.5 * first.loss
    assert last.success > first.success + 0.3
    assert sum(after) > 1.5 * sum(before)


@pytest.mark.parametrize(
    "settings",
    [
        _SMALL,
        AlikedSettings(**{**_FEW, "batch_size": 2, "accumulate": 2, "warmup_steps": 3, "precision": "bfloat16"}),  # type: ignore[arg-type]
    ],
    ids=["plain", "all options"],
)
def test_resumed_equals_uninterrupted(settings: AlikedSettings, tmp_path: Path) -> None:
    uninterrupted = _trainer(settings)
    for _ in range(3):
        uninterrupted.train_step()
    half = _trainer(settings)
    half.train_step()
    save_checkpoint(tmp_path / "checkpoint.pt", half.state_dict())
    resumed = _trainer(settings, workers=2)
    resumed.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt"), "checkpoint.pt")
    for _ in range(2):
        resumed.train_step()
    assert resumed.step == 3
    assert _same(resumed, uninterrupted)
    assert not _same(resumed, half)


def test_a_step_trains_every_part_of_the_network() -> None:
    trainer = _trainer()
    before = {name: tensor.clone() for name, tensor in trainer.network.named_parameters()}
    report = trainer.train_step()
    assert list(report.parts) == list(AlikedRecipe.PARTS)
    weighted = {"reprojection_loss": 1, "peak_loss": 0.5, "descriptor_loss": 5, "reliability_loss": 1}
    assert report.loss == pytest.approx(sum(weight * report.parts[name] for name, weight in weighted.items()), rel=1e-5)
    assert not [name for name, tensor in trainer.network.named_parameters() if torch.equal(tensor, before[name])]


@pytest.mark.parametrize("model", ["aliked-n16", "aliked-n32"])
def test_the_larger_networks_are_trained_on_pairs_with_depth(model: str, tmp_path: Path) -> None:
    write_tum_sequence(tmp_path, 3)
    settings = AlikedSettings(**{**_FEW, "model": model})  # type: ignore[arg-type]
    trainer = Trainer(settings, AlikedPairs(None, [read_tum_sequence(tmp_path)], settings), _ALONE)
    report = trainer.train_step()
    assert 0 < report.parts["reprojection_loss"] < 5
    EXTRACTORS[model].build().load_state_dict(trainer.average.state_dict(), strict=True)


def test_published_weights_have_a_lower_loss_than_random_ones(weights_dir: str) -> None:
    published = torch.load(f"{weights_dir}/aliked-t16.pth", weights_only=True)
    settings = AlikedSettings(**{**_FEW, "map_side": 160, "frozen_statistics": True, "augmentation": 0.0})  # type: ignore[arg-type]
    pairs = AlikedPairs(images_in_folder(_PHOTOGRAPHS, ColorImages), [], settings)
    recipe = AlikedRecipe(settings, pairs)
    losses = []
    for weights in (None, published):
        network = recipe.network().eval()
        if weights is not None:
            network.load_state_dict(weights, strict=True)
        (batch,) = DataLoader(pairs, batch_sampler=[[0, 1]], collate_fn=list)
        with torch.no_grad():
            found = recipe.pair_losses(recipe.module(network), batch, torch.device("cpu"), torch.float32)
        losses.append({name: torch.stack([loss[name] for loss in found]).mean().item() for name in recipe.PARTS})
    random, trained = losses
    for name in ("loss", "reprojection_loss", "peak_loss", "descriptor_loss"):
        assert trained[name] < 0.8 * random[name]
    assert trained["success"] > random["success"] + 0.3


def test_settings_of_one_network_and_data_of_another_are_refused() -> None:
    with pytest.raises(TypeError, match="TrainingSettings came with AlikedPairs"):
        Trainer(
            TrainingSettings(map_side=24), AlikedPairs(images_in_folder(_PHOTOGRAPHS, ColorImages), [], _SMALL), _ALONE
        )


_TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from feature_frontend_lab.training.aliked.pairs import AlikedPairs
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.distributed import processes
from feature_frontend_lab.training.images import ColorImages, images_in_folder
from feature_frontend_lab.training.trainer import Trainer
torch.set_num_threads(1)
with processes("cpu") as group:
    settings = AlikedSettings(map_side=96, batch_size=1, accumulate=2, detected_keypoints=40, random_keypoints=40)
    images = images_in_folder(Path(sys.argv[1]), ColorImages)
    trainer = Trainer(settings, AlikedPairs(images, [], settings), group)
    losses = [trainer.train_step().loss for _ in range(2)]
    weights = dict(trainer.network.named_parameters())
    torch.save({"losses": losses, "weights": weights}, f"{sys.argv[2]}/{group.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_hold_the_same_weights(tmp_path: Path, campaign: Campaign) -> None:
    if not campaign.is_whole:
        pytest.skip("SiLK is trained by two processes in every run: make campaign")
    check_equal_weights_in_two_processes(_TWO_PROCESSES, _PHOTOGRAPHS, tmp_path)
