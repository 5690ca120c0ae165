"""Training steps: they learn, resume exactly, and agree between processes."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend_lab.training.augmentation import augment
from feature_frontend_lab.training.checkpoint import load_checkpoint, save_checkpoint
from feature_frontend_lab.training.distributed import Processes
from feature_frontend_lab.training.images import GreyImages, images_in_folder
from feature_frontend_lab.training.silk.loss import silk_loss
from feature_frontend_lab.training.silk.pairs import PairDataset, ViewSettings
from feature_frontend_lab.training.silk.settings import TrainingSettings
from feature_frontend_lab.training.trainer import Trainer
from tests.campaign import Campaign
from tests.conftest import REPOSITORY
from tests.training.torchrun import check_equal_weights_in_two_processes

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
_ALONE = Processes(0, 1, torch.device("cpu"))
_SMALL = TrainingSettings(map_side=24, seed=3)


def _photographs() -> GreyImages:
    return images_in_folder(_PHOTOGRAPHS)


def _trainer(settings: TrainingSettings = _SMALL, workers: int = 0) -> Trainer:
    return Trainer(settings, _photographs(), _ALONE, workers=workers)


def _same(one: Trainer, two: Trainer) -> bool:
    return all(
        torch.equal(a, b)
        for name in ("network", "average")
        for a, b in zip(getattr(one, name).state_dict().values(), getattr(two, name).state_dict().values(), strict=True)
    )


def _loss_on_other_pairs(trainer: Trainer, images: GreyImages) -> float:
    """Mean over 30 pairs that no step sees; each step has another one, some of them far harder than others."""
    network = copy.deepcopy(trainer.network)
    dataset = PairDataset(images, ViewSettings(trainer.settings.map_side, network.config.border_px), seed=999)
    losses = []
    for number in range(30):
        pair = dataset[number]
        with torch.no_grad():
            maps = network(augment(pair.views.float() / 255, np.random.default_rng(number), probability=0.5))
        logits, descriptors = (maps.logits[0], maps.logits[1]), (maps.descriptors[0], maps.descriptors[1])
        losses.append(silk_loss(logits, descriptors, pair.correspondences).total.item())
    return sum(losses) / len(losses)


@pytest.mark.slow
def test_50_steps_on_4_images_lower_the_loss() -> None:
    photographs = [image for i in range(3) if (image := _photographs().load(i)) is not None]
    four = GreyImages([*photographs, photographs[0][::-1].copy()], "4 images")
    settings = TrainingSettings(map_side=40, learning_rate=1e-3, augmentation=0.5)
    trainer = Trainer(settings, four, _ALONE)
    before = _loss_on_other_pairs(trainer, four)
    for _ in range(50):
        trainer.train_step()
    assert _loss_on_other_pairs(trainer, four) < 0.95 * before


@pytest.mark.parametrize(
    "settings",
    [
        _SMALL,
        TrainingSettings(map_side=24, batch_size=2, accumulate=2, warmup_steps=3, schedule="cosine", schedule_steps=4),
        TrainingSettings(map_side=24, precision="bfloat16"),
    ],
    ids=["plain", "all options", "bfloat16"],
)
def test_resumed_equals_uninterrupted(settings: TrainingSettings, tmp_path: Path) -> None:
    uninterrupted = _trainer(settings)
    for _ in range(4):
        uninterrupted.train_step()
    half = _trainer(settings)
    for _ in range(2):
        half.train_step()
    save_checkpoint(tmp_path / "checkpoint.pt", half.state_dict())
    resumed = _trainer(settings)
    resumed.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt"), "checkpoint.pt")
    assert resumed.step == 2
    for _ in range(2):
        resumed.train_step()
    assert _same(resumed, uninterrupted)
    assert not _same(resumed, half)


def test_workers_do_not_change_the_result() -> None:
    alone, helped = _trainer(), _trainer(workers=2)
    for trainer in (alone, helped):
        for _ in range(3):
            trainer.train_step()
    assert _same(alone, helped)


def test_accumulated_passes_count_as_one_batch() -> None:
    trainer = _trainer(TrainingSettings(map_side=24, accumulate=3))
    trainer.train_step()
    tracked = trainer.network.state_dict()["backbone.0.norm.num_batches_tracked"]
    assert trainer.step == 1
    assert tracked == 3


def test_average_follows_the_weights() -> None:
    trainer = _trainer()
    before = trainer.average.state_dict()["backbone.0.conv.weight"].clone()
    trainer.train_step()
    after = trainer.average.state_dict()["backbone.0.conv.weight"]
    current = trainer.network.state_dict()["backbone.0.conv.weight"]
    # Decay 1 / 10 at the first step.
    torch.testing.assert_close(after, 0.1 * before + 0.9 * current)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, _trainer().state_dict())
    other = _trainer(TrainingSettings(map_side=32, seed=3))
    with pytest.raises(SettingsError, match="map_side 24 \\(now 32\\)"):
        other.load_state_dict(load_checkpoint(path), str(path))


def test_a_run_from_before_a_setting_existed_had_its_default() -> None:
    older = {name: value for name, value in _SMALL.as_dict().items() if name != "frozen_statistics"}
    _SMALL.check_same(older, "an older run")
    with pytest.raises(SettingsError, match="frozen_statistics False"):
        TrainingSettings(map_side=24, seed=3, frozen_statistics=True).check_same(older, "an older run")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(WeightsError, match="cannot resume"):
        load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="cannot resume"):
        load_checkpoint(path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="use --init"):
        load_checkpoint(path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.zeros(1000)})
    assert load_checkpoint(path)["weights"].sum() == 0
    data = bytearray(path.read_bytes())
    middle = data.index(bytes(2000)) + 1000
    data[middle] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"checkpoint\.pt: .*/data/0 .*--init"):
        load_checkpoint(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"checkpoint\.pt"):
        load_checkpoint(path)


def test_a_disk_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=r"file/checkpoint\.pt .*: File exists"):
        save_checkpoint(tmp_path / "file" / "checkpoint.pt", {"step": 1})


def test_a_failing_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"step": 2, "unwritable": lambda: None})
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_learning_rate_rises_and_falls() -> None:
    settings = TrainingSettings(learning_rate=1.0, warmup_steps=10, schedule="cosine", schedule_steps=100)
    rates = [settings.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) > 0.95
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"model": "silk-vggnp-5"}, "silk-vggnp-mu"),
        ({"map_side": 8}, "map_side is 8"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"average_decay": 1.0}, "average_decay is 1"),
        ({"augmentation": 2.0}, "augmentation is 2"),
        ({"schedule": "cosine"}, "only a cosine has steps"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        TrainingSettings(**values)  # type: ignore[arg-type]


def test_frozen_statistics_stay_while_the_weights_move() -> None:
    frozen = TrainingSettings(map_side=24, frozen_statistics=True)
    with pytest.raises(SettingsError, match="needs weights"):
        _trainer(frozen)
    initial = {name: tensor.clone() for name, tensor in _trainer().network.state_dict().items()}
    trainer = Trainer(frozen, _photographs(), _ALONE, initial)
    trainer.train_step()
    state = trainer.network.state_dict()
    assert not torch.equal(state["backbone.0.conv.weight"], initial["backbone.0.conv.weight"])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(state[f"backbone.0.norm.{name}"], initial[f"backbone.0.norm.{name}"])


def test_float16_needs_a_gpu() -> None:
    with pytest.raises(SettingsError, match="CUDA"):
        _trainer(TrainingSettings(precision="float16"))


_TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from feature_frontend_lab.training.distributed import processes
from feature_frontend_lab.training.images import images_in_folder
from feature_frontend_lab.training.silk.settings import TrainingSettings
from feature_frontend_lab.training.trainer import Trainer
torch.set_num_threads(1)
with processes("cpu") as group:
    assert group.count == 2
    assert group.any(group.rank == 1)
    assert group.from_first(group.rank) == 0
    images = images_in_folder(Path(sys.argv[1]))
    trainer = Trainer(TrainingSettings(map_side=24, accumulate=2), images, group)
    losses = [trainer.train_step().loss for _ in range(3)]
    weights = dict(trainer.network.named_parameters())
    torch.save({"losses": losses, "weights": weights}, f"{sys.argv[2]}/{group.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_hold_the_same_weights(tmp_path: Path, campaign: Campaign) -> None:
    campaign.only("two processes that train")
    check_equal_weights_in_two_processes(_TWO_PROCESSES, _PHOTOGRAPHS, tmp_path)


_STEP_AT_THE_PAPERS_SIZE = """
import sys
from pathlib import Path
import torch
from feature_frontend_lab.training.distributed import Processes
from feature_frontend_lab.training.images import images_in_folder
from feature_frontend_lab.training.silk.settings import TrainingSettings
from feature_frontend_lab.training.trainer import Trainer
images = images_in_folder(Path(sys.argv[1]))
Trainer(TrainingSettings(map_side=146), images, Processes(0, 1, torch.device("cpu"))).train_step()
from tests.memory import peak_mib
print(peak_mib())
"""


@pytest.mark.slow
def test_a_step_at_the_papers_size_fits_into_memory(report_figure: Callable[[str], None], campaign: Campaign) -> None:
    campaign.only("a step at the paper's size")
    done = subprocess.run(
        [sys.executable, "-c", _STEP_AT_THE_PAPERS_SIZE, str(_PHOTOGRAPHS)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    report_figure(f"a training step of silk-vggnp-mu on a 146x146 map: peak memory {float(done.stdout):.0f} MiB")
    assert float(done.stdout) < 2500
