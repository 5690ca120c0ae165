"""Distillation: its losses, the teacher's targets, and training steps that learn and resume exactly."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_frontend.errors import WeightsError
from feature_frontend.extractors.networks.aliked import Aliked
from feature_frontend_lab.training import command as train
from feature_frontend_lab.training.aliked.pairs import AlikedPairs
from feature_frontend_lab.training.aliked.tum_rgbd import read_tum_sequence
from feature_frontend_lab.training.checkpoint import load_checkpoint, save_checkpoint
from feature_frontend_lab.training.distill import teacher as teacher_module
from feature_frontend_lab.training.distill.losses import contrast_losses, score_loss
from feature_frontend_lab.training.distill.pairs import DistillPairs
from feature_frontend_lab.training.distill.settings import DistillSettings
from feature_frontend_lab.training.distill.teacher import Teacher
from feature_frontend_lab.training.distributed import Processes
from feature_frontend_lab.training.images import ColorImages, images_in_folder
from feature_frontend_lab.training.log import curves_figure, read_log
from feature_frontend_lab.training.trainer import Trainer
from tests.conftest import REPOSITORY
from tests.core.seeded import seeded_network
from tests.training.aliked.scene import write_tum_sequence

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
_ALONE = Processes(0, 1, torch.device("cpu"))
_CPU = torch.device("cpu")
_SMALL = DistillSettings(
    map_side=64,
    batch_size=2,
    teacher="aliked-t16",
    teacher_keypoints=40,
    detected_keypoints=30,
    random_points=20,
    seed=3,
)


@pytest.fixture(autouse=True)
def seeded_teacher(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A teacher with random weights, and how many pairs it has seen, one number for each call."""
    seen: list[int] = []
    original = Teacher._make

    def network(name: str) -> tuple[Aliked, str]:
        return seeded_network(name), f"{name}@seeded00"

    def make(self: Teacher, pairs: list, device: torch.device) -> list:  # type: ignore[type-arg]
        seen.append(len(pairs))
        return original(self, pairs, device)

    monkeypatch.setattr(teacher_module, "published_network", network)
    monkeypatch.setattr(Teacher, "_make", make)
    return seen


def _pairs(settings: DistillSettings, targets: Path | None = None, rgbd: Path | None = None) -> DistillPairs:
    photographs = [] if rgbd is None else [read_tum_sequence(rgbd)]
    return DistillPairs(
        AlikedPairs(images_in_folder(_PHOTOGRAPHS, ColorImages), photographs, settings), settings, targets
    )


def _trainer(settings: DistillSettings = _SMALL, targets: Path | None = None) -> Trainer:
    return Trainer(settings, _pairs(settings, targets), _ALONE)


def _same(one: Trainer, two: Trainer) -> bool:
    states = ((getattr(trainer, name).state_dict() for trainer in (one, two)) for name in ("network", "average"))
    return all(torch.equal(a[name], b[name]) for a, b in states for name in a)


def test_the_scores_loss_is_least_at_the_teachers_scores() -> None:
    logits, scores = torch.tensor([0.0, 2.0]), torch.tensor([0.5, 0.25])
    by_hand = 0.0
    for logit, score in zip(logits.tolist(), scores.tolist(), strict=True):
        own = 1 / (1 + math.exp(-logit))
        by_hand -= (1 + 8 * score) * (score * math.log(own) + (1 - score) * math.log(1 - own))
    assert score_loss(logits, scores).item() == pytest.approx(by_hand / (1 + 8 * 0.5 + 1 + 8 * 0.25), rel=1e-5)
    exact = torch.logit(scores)
    assert all(score_loss(exact, scores) < score_loss(exact + shift, scores) for shift in (-0.1, 0.1))


def test_the_contrast_losses_are_what_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    own = [torch.nn.functional.normalize(torch.randn((5, 8), generator=generator), dim=1) for _ in range(2)]
    taught = [torch.nn.functional.normalize(torch.randn((3, 4), generator=generator), dim=1) for _ in range(2)]
    # Points 1 and 2 are near each other in view 1 only.
    points = (
        torch.tensor([[0.0, 0], [20, 0], [40, 0], [60, 0], [80, 0]]),
        torch.tensor([[0.0, 0], [20, 0], [23, 0], [60, 0], [80, 0]]),
    )
    near = {(1, 2), (2, 1)}

    def log_share(rows: torch.Tensor, columns: torch.Tensor, i: int, j: int) -> float:
        among = [k for k in range(len(columns)) if (i, k) not in near]
        return float(rows[i] @ columns[j]) / 0.1 - math.log(
            sum(math.exp(float(rows[i] @ columns[k]) / 0.1) for k in among)
        )

    contrast, imitation = 0.0, 0.0
    for first, second in ((0, 1), (1, 0)):
        contrast -= sum(log_share(own[first], own[second], i, i) for i in range(5)) / 5 / 2
        for i in range(3):
            for j in (j for j in range(3) if (i, j) not in near):
                share = math.exp(log_share(taught[first], taught[second], i, j))
                among_taught = log_share(own[first][:3], own[second][:3], i, j)
                imitation -= share * among_taught / 3 / 2
    found = contrast_losses((own[0], own[1]), points, (taught[0], taught[1]), 0.1, 4.0)
    assert found[0].item() == pytest.approx(contrast, rel=1e-5)
    assert found[1].item() == pytest.approx(imitation, rel=1e-5)


def test_no_points_give_no_loss_and_a_gradient() -> None:
    nothing = torch.zeros((0, 8), requires_grad=True)
    nowhere, untaught = torch.zeros((0, 2)), torch.zeros((0, 4))
    losses = contrast_losses((nothing, nothing), (nowhere, nowhere), (untaught, untaught), 0.1, 4.0)
    assert [loss.item() for loss in losses] == [0.0, 0.0]
    (losses[0] + losses[1]).backward()


def test_the_teacher_names_the_same_points_in_both_views(tmp_path: Path) -> None:
    write_tum_sequence(tmp_path / "rgbd", 3)
    settings = replace(_SMALL, perspective_share=0.5)
    pairs = _pairs(settings, rgbd=tmp_path / "rgbd")
    drawn = [pairs[number] for number in range(6)]
    teacher = Teacher(settings, pairs.description)
    for pair, targets in zip(drawn, teacher.targets(drawn, _CPU), strict=True):
        assert targets.scores.shape == (2, 64, 64)
        assert 5 < targets.points.shape[1] <= 80
        assert targets.descriptors.shape == (2, targets.points.shape[1], 64)
        there, visible = pair.warps[0].warp(targets.points[0])
        # Where it was seen in view 1 first, the way back and forth is exact on the same surface only.
        assert float(visible.float().mean()) > 0.9
        assert float(((there - targets.points[1]).norm(dim=1)[visible] < 0.1).float().mean()) > 0.9
        assert ((targets.points >= -0.5) & (targets.points < 63.5)).all()


def test_what_the_teacher_said_is_kept_and_changes_nothing(tmp_path: Path, seeded_teacher: list[int]) -> None:
    settings = replace(_SMALL, pool=4)
    trainers = [_trainer(settings), _trainer(settings, tmp_path), _trainer(settings, tmp_path)]
    seen = []
    for trainer in trainers:
        before = sum(seeded_teacher)
        for _ in range(3):
            trainer.train_step()
        seen.append(sum(seeded_teacher) - before)
    assert seen == [6, 4, 0]
    assert _same(trainers[0], trainers[1])
    assert _same(trainers[0], trainers[2])
    (damaged, *_) = sorted(tmp_path.rglob("*.npz"))
    whole = damaged.read_bytes()
    again = _pairs(settings, tmp_path)
    teacher = Teacher(settings, again.description, tmp_path)
    for content in (whole[:100], b"", whole[:2000] + bytes(100) + whole[2100:]):
        damaged.write_bytes(content)
        with pytest.raises(WeightsError, match=f"{damaged.name} cannot be read.*delete it"):
            teacher.targets([again[int(damaged.stem)]], _CPU)
    other = _trainer(replace(settings, teacher_keypoints=41), tmp_path)
    before = sum(seeded_teacher)
    other.train_step()
    assert sum(seeded_teacher) == before + 2


def test_pairs_of_a_pool_return_changed() -> None:
    pairs = _pairs(replace(_SMALL, pool=3, augmentation=1.0))
    one, again, other = pairs[1], pairs[4], pairs[2]
    assert torch.equal(one.originals, again.originals)
    assert not torch.equal(one.views, again.views)
    assert not torch.equal(one.originals, other.originals)
    unchanged = _pairs(replace(_SMALL, augmentation=0.0))[1]
    grey = unchanged.originals.float().mean(dim=1, keepdim=True) / 255
    assert float((unchanged.views - grey).abs().mean()) < 0.05


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    settings = replace(_SMALL, schedule="cosine", schedule_steps=4, warmup_steps=2, pool=6)
    uninterrupted = _trainer(settings, tmp_path)
    for _ in range(4):
        uninterrupted.train_step()
    half = _trainer(settings, tmp_path)
    reports = [half.train_step() for _ in range(2)]
    save_checkpoint(tmp_path / "checkpoint.pt", half.state_dict())
    resumed = _trainer(settings)
    resumed.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt"), "checkpoint.pt")
    for _ in range(2):
        resumed.train_step()
    assert _same(resumed, uninterrupted)
    assert not _same(resumed, half)
    assert all(math.isfinite(value) for report in reports for value in report.parts.values())


def test_it_learns_from_four_pairs() -> None:
    trainer = _trainer(replace(_SMALL, pool=4, batch_size=4, learning_rate=3e-3, augmentation=0.0))
    reports = [trainer.train_step() for _ in range(25)]
    # A teacher with random weights cannot be imitated and be right.
    for name in ("score_loss", "contrast_loss", "descriptor_loss"):
        first, last = (np.mean([report.parts[name] for report in some]) for some in (reports[:4], reports[-4:]))
        assert last < 0.9 * first, name
    assert reports[-1].success > reports[0].success + 0.1


def test_the_tool_trains_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--map-size", "64", "--batch-size", "1", "--teacher", "aliked-t16", "--teacher-keypoints", "30"]
    checked = ["--validation-pairs", "1", "--validation-short-side", "96", "--validation-keypoints", "50"]
    kept = ["--pool", "5", "--targets", str(tmp_path / "targets")]
    common = ["--model", "dotlet", "--images", str(_PHOTOGRAPHS), "--device", "cpu", *few, *checked, *kept]
    output = tmp_path / "run"
    assert train.main([*common, "--steps", "10", "--output", str(output)]) == 0
    card = (output / "dotlet.md").read_text(encoding="utf-8")
    assert "Dotlet" in card
    assert len(list((tmp_path / "targets").rglob("*.npz"))) == 5
    line = read_log(output / "log.jsonl")[1]
    assert {"score_loss", "contrast_loss", "imitation_loss", "reprojection_loss", "success"} < set(line)
    parts = curves_figure([line, {**line, "step": 20}]).axes[1]
    assert [curve.get_label() for curve in parts.lines] == ["score_loss", "contrast_loss", "imitation_loss"]
    capsys.readouterr()
    assert train.main(["--images", str(_PHOTOGRAPHS), "--device", "cpu", "--targets", str(tmp_path)]) == 1
    assert "silk-vggnp-mu is not trained with --targets" in capsys.readouterr().err
    assert train.main([*common, "--teacher", "sift", "--output", str(tmp_path / "other")]) == 1
    assert "teacher is 'sift'; expected one of aliked-t16" in capsys.readouterr().err
