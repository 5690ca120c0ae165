"""The tool `train`, from its arguments to the exported model."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rosbags.rosbag2 import StoragePlugin
from safetensors.torch import load_file

from feature_frontend.api import load_extractor
from feature_frontend.sources import open_source
from feature_frontend_lab.training import command as train
from feature_frontend_lab.training.log import curves_figure, read_log
from tests.conftest import REPOSITORY
from tests.core.test_bag import image, write_bag
from tests.training.aliked.scene import write_tum_sequence

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
_SMALL = [
    *("--images", str(_PHOTOGRAPHS), "--map-size", "24", "--device", "cpu"),
    *("--validation-pairs", "2", "--validation-short-side", "120", "--validation-keypoints", "200"),
]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_run_exports_a_model_that_the_extractor_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    arguments = [
        *_SMALL,
        "--steps",
        "20",
        "--validate-every",
        "10",
        "--output",
        str(output),
        "--data-licence",
        "CC BY 4.0",
    ]
    assert train.main(arguments) == 0
    weights = output / "silk-vggnp-mu.safetensors"
    assert str(weights) in capsys.readouterr().out
    extractor = load_extractor("silk-vggnp-mu", weights_path=str(weights), max_num_keypoints=100)
    assert len(extractor.extract(next(open_source(str(_PHOTOGRAPHS)).frames()).image)) == 100
    card = json.loads((output / "silk-vggnp-mu.json").read_text(encoding="utf-8"))
    assert card["data_licence"] == "CC BY 4.0"
    assert card["step"] in {0, 10, 20}
    assert set(card["before"]) == set(card["after"])
    assert "| licence of the data | CC BY 4.0 |" in (output / "silk-vggnp-mu.md").read_text(encoding="utf-8")
    log = read_log(output / "log.jsonl")
    assert [line["step"] for line in log if line["kind"] == "validation"] == [0, 10, 20]
    assert cv2.imread(str(output / "curves.png")) is not None


def test_a_resumed_run_exports_the_same_weights(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = [*_SMALL, "--validate-every", "4"]
    assert train.main([*common, "--steps", "8", "--output", str(whole)]) == 0
    assert train.main([*common, "--steps", "4", "--output", str(parts)]) == 0
    assert train.main([*common, "--steps", "8", "--output", str(parts), "--resume"]) == 0
    one, two = (load_file(folder / "silk-vggnp-mu.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    logs = [[{**line, "seconds": 0} for line in read_log(folder / "log.jsonl")] for folder in (whole, parts)]
    assert logs[0] == logs[1]


def test_a_checkpoint_is_written_between_validations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = train.TrainingRun._save
    monkeypatch.setattr(train.TrainingRun, "_save", lambda run: (saved.append(run._trainer.step), save(run)))
    run = [*_SMALL, "--steps", "3", "--validate-every", "2", "--output"]
    assert train.main([*run, str(tmp_path / "often"), "--save-every", "1e-9"]) == 0
    assert saved == [1, 2, 3, 3]  # after each step, and after the validation at the end
    saved.clear()
    assert train.main([*run, str(tmp_path / "rarely")]) == 0
    assert saved == [2, 3]
    files = [_files(tmp_path / folder) for folder in ("often", "rarely")]
    assert files[0] == files[1]
    weights = [load_file(tmp_path / folder / "silk-vggnp-mu.safetensors") for folder in ("often", "rarely")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main([*_SMALL, "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert _files(tmp_path) == set()


def test_initial_weights_are_where_a_run_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train.main([*_SMALL, "--steps", "4", "--output", str(first)]) == 0
    weights = first / "silk-vggnp-mu.safetensors"
    assert train.main([*_SMALL, "--steps", "2", "--output", str(second), "--init", str(weights)]) == 0
    cards = [json.loads((folder / "silk-vggnp-mu.json").read_text(encoding="utf-8")) for folder in (first, second)]
    assert cards[1]["before"] == cards[0]["after"]
    assert cards[1]["initial"] == str(weights)
    told = capsys.readouterr().out
    assert "before" in told
    assert ("was better than the first weights" in told) == any(card["step"] == 0 for card in cards)


def test_videos_are_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 72))
    noise = np.random.default_rng(0)
    for _ in range(5):
        writer.write(noise.integers(0, 256, (72, 96, 3)).astype(np.uint8))
    writer.release()
    arguments = ["--video", str(path), "--map-size", "24", "--validation-pairs", "1", "--dry-run", "--device", "cpu"]
    assert train.main(arguments) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "nothing to train on"),
        (["--images", "missing"], "folder missing"),
        (["--images", str(_PHOTOGRAPHS), "--init", "unknown"], "'unknown'"),
        (["--images", str(_PHOTOGRAPHS), "--schedule", "cosine"], "needs --steps"),
        (["--images", str(_PHOTOGRAPHS), "--map-size", "4"], "map_side is 4"),
        (["--images", str(_PHOTOGRAPHS), "--resume"], "cannot resume"),
        (["--images", str(_PHOTOGRAPHS), "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    arguments: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--device", "cpu", "--validation-pairs", "0", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(text, error)
    assert error.count("\n") == 1


def test_a_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*_SMALL, "--validation-pairs", "0", "--steps", "1", "--output", str(tmp_path)]
    assert train.main(arguments) == 0
    assert train.main(arguments) == 1
    assert "--resume" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    shutil.copytree(_PHOTOGRAPHS, tmp_path / "images")
    command = [
        sys.executable,
        "-m",
        "feature_frontend_lab.training.command",
        *_SMALL,
        "--output",
        str(tmp_path / "run"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if any(line["kind"] == "training" for line in read_log(log)):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in output
    assert "Traceback" not in errors
    step = int(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["trainer"]["step"])
    assert step >= 10
    assert train.main([*_SMALL, "--output", str(tmp_path / "run"), "--resume", "--steps", str(step + 1)]) == 0


def test_curves_of_an_empty_and_a_short_log_are_drawn() -> None:
    assert [axes.texts[0].get_text() for axes in curves_figure([]).axes] == ["no values"] * 3
    lines = [
        {"kind": "training", "step": 10, "loss": 20.0, "descriptor_loss": 19.0, "keypoint_loss": 1.0, "success": 0.1},
        {"kind": "training", "step": 20, "loss": 10.0, "descriptor_loss": 9.0, "keypoint_loss": 1.0, "success": 0.3},
    ]
    losses, success, validation = curves_figure(lines).axes
    assert [line.get_label() for line in losses.lines] == ["loss", "descriptor_loss", "keypoint_loss"]
    assert np.asarray(success.lines[0].get_xydata()).tolist() == [[10, 0.1], [20, 0.3]]
    assert validation.texts[0].get_text() == "no values"


def test_a_bag_shows_before_and_after_on_its_held_out_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [frame.image for frame in open_source(str(_PHOTOGRAPHS)).frames()]
    messages = [
        ("/camera/image", "sensor_msgs/msg/Image", i, image(i, frame, "rgb8")) for i, frame in enumerate(frames, 1)
    ]
    bag = write_bag(tmp_path / "bag", StoragePlugin.MCAP, messages)
    first, adapted = tmp_path / "first", tmp_path / "adapted"
    assert train.main([*_SMALL, "--steps", "2", "--output", str(first)]) == 0
    capsys.readouterr()
    weights = str(first / "silk-vggnp-mu.safetensors")
    options = [*_SMALL[2:], "--bag", str(bag), "--init", weights, "--steps", "2", "--output", str(adapted)]
    assert train.main(options) == 0
    told = capsys.readouterr().out
    card = json.loads((adapted / "silk-vggnp-mu.json").read_text(encoding="utf-8"))
    assert "of topic /camera/image" in card["data"]
    assert f"homography_accuracy_1  {card['before']['homography_accuracy_1']:7.3f}" in told


_ALIKED = [
    *("--model", "aliked-t16", "--device", "cpu", "--map-size", "96", "--batch-size", "1", "--accumulate", "1"),
    *("--detected-keypoints", "40", "--random-keypoints", "40"),
    *("--validation-pairs", "2", "--validation-short-side", "120", "--validation-keypoints", "100"),
]


def test_aliked_is_trained_resumed_and_exported(tmp_path: Path) -> None:
    sequence = tmp_path / "rgbd"
    write_tum_sequence(sequence, 3)
    common = [*_ALIKED, "--images", str(_PHOTOGRAPHS), "--rgbd", str(sequence), "--validate-every", "2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*common, "--steps", "4", "--output", str(whole)]) == 0
    assert train.main([*common, "--steps", "2", "--output", str(parts)]) == 0
    assert train.main([*common, "--steps", "4", "--output", str(parts), "--resume"]) == 0
    one, two = (load_file(folder / "aliked-t16.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    card = (whole / "aliked-t16.md").read_text(encoding="utf-8")
    assert "| architecture | ALIKED (Zhao et al., IEEE TIM 2023), RGB input, 192,100 parameters |" in card
    assert "3 RGB-D images of" in card
    assert "images of" in card
    extractor = load_extractor("aliked-t16", weights_path=str(whole / "aliked-t16.safetensors"), max_num_keypoints=50)
    assert extractor.descriptor_dim == 64
    # Ten steps make a line of the log; its curves have the names of ALIKED's losses.
    assert train.main([*common, "--steps", "10", "--output", str(parts), "--resume"]) == 0
    (line,) = [line for line in read_log(parts / "log.jsonl") if line["kind"] == "training"]
    assert {"loss", "reprojection_loss", "peak_loss", "descriptor_loss", "reliability_loss", "success"} < set(line)
    parts = curves_figure([line, {**line, "step": 20}]).axes[1]
    assert [curve.get_label() for curve in parts.lines][1:] == ["reprojection_loss", "peak_loss", "reliability_loss"]


def test_aliked_is_trained_on_depth_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tum_sequence(tmp_path / "rgbd", 3)
    options = [*_ALIKED, "--rgbd", str(tmp_path / "rgbd"), "--dry-run"]
    assert train.main(options) == 1
    assert "no images are held out for validation" in capsys.readouterr().err
    assert train.main([*options, "--validation-pairs", "0"]) == 0
    assert train.main([*options, "--validation-images", str(_PHOTOGRAPHS)]) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--images", str(_PHOTOGRAPHS), "--rgbd", "somewhere"], "silk-vggnp-mu .*--rgbd"),
        (
            ["--images", str(_PHOTOGRAPHS), "--loss-weights", "1", "1", "1", "1"],
            "--reprojection-weight",
        ),
        ([*_ALIKED, "--rgbd", "missing"], "missing/rgb.txt"),
        ([*_ALIKED, "--megadepth", "missing"], "there are no scene files"),
        ([*_ALIKED], "nothing to train on"),
        ([*_ALIKED, "--images", str(_PHOTOGRAPHS), "--loss-weights", "1", "1", "-1", "1"], "descriptor_weight is -1"),
        ([*_ALIKED, "--images", str(_PHOTOGRAPHS), "--init", "silk-vggnp-mu"], "silk-vggnp-mu.* aliked-t16"),
    ],
)
def test_options_of_another_network_are_reported(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--device", "cpu", "--output", str(tmp_path / "run"), *arguments]) == 1
    error = capsys.readouterr().err
    assert re.search(text, error)
    assert error.startswith("error: ")
