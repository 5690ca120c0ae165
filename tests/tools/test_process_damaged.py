"""`process` and `export` on incomplete bags: intact data is processed, and the exit status reports the loss."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

import cv2
from rosbags.rosbag2 import StoragePlugin

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.tools.common.arguments import INCOMPLETE
from feature_frontend.tools.process import main, run
from feature_frontend_lab.export.command import main as export
from tests.tools.offline import OPTIONS, SECOND, TYPES, header, image, messages, moving, write_bag

Photographs = list[npt.NDArray[np.uint8]]


def camera_bag(path: Path, photographs: Photographs, count: int = 6) -> Path:
    contents = [
        ("/cam/image_raw", (100 + n) * SECOND, image((100 + n) * SECOND, moving(photographs, n), "rgb8"))
        for n in range(count)
    ]
    return write_bag(path, contents, StoragePlugin.MCAP)


def cut(bag: Path, share: float) -> Path:
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    return bag


def test_a_bag_that_is_cut(tmp_path: Path, photographs: Photographs, capsys: pytest.CaptureFixture[str]) -> None:
    bag = cut(camera_bag(tmp_path / "bag", photographs), 0.5)
    arguments = [str(bag), "--output", str(tmp_path / "out"), *OPTIONS]
    assert main(arguments) == INCOMPLETE
    told = capsys.readouterr()
    assert "3 images, 3 processed, 0 refused" in told.out
    assert "incomplete: " in told.err
    assert "has no end" in told.err
    assert "3 of 6 messages of /cam/image_raw" in told.err
    record = json.loads((tmp_path / "out" / "process.json").read_text())
    assert len(record["missing"]) >= 2
    # The same command finds it done, and says so again.
    assert main(arguments) == INCOMPLETE
    assert "3 of 6 messages of /cam/image_raw" in capsys.readouterr().err


def test_of_several_sources_in_processes_of_their_own(
    tmp_path: Path, photographs: Photographs, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = camera_bag(tmp_path / "whole", photographs)
    damaged = cut(camera_bag(tmp_path / "damaged", photographs), 0.9)
    arguments = [str(whole), str(damaged), "--jobs", "2", "--output", str(tmp_path / "out"), *OPTIONS]
    assert main(arguments) == INCOMPLETE
    assert "incomplete: " in capfd.readouterr().err
    assert main([arguments[0], str(tmp_path / "nothing"), *arguments[2:]]) == 1


@pytest.mark.parametrize("letters", range(9))
def test_an_image_without_keypoints_in_frames_of_all_lengths(tmp_path: Path, letters: int) -> None:
    (tmp_path / "images").mkdir()
    for n in range(2):
        cv2.imwrite(str(tmp_path / "images" / f"{n}.png"), np.zeros((96, 128), np.uint8))
    frame = ["--frame-id", "x" * letters] if letters else []
    assert main([str(tmp_path / "images"), "--output", str(tmp_path / "feats.bag"), *frame, *OPTIONS]) == 0
    found = messages(tmp_path / "feats.bag")
    assert [len(found[topic]) for topic in ("/status", "/features", "/tracks")] == [2, 2, 2]


def test_ones_own_output_in_a_folder_that_is_named_like_a_file(
    tmp_path: Path, photographs: Photographs, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = camera_bag(tmp_path / "images.bag", photographs)
    output = tmp_path / "feats.bag"
    assert main([str(bag), "--output", str(output), *OPTIONS]) == 0
    assert export(["colmap", str(output), "--output", str(tmp_path / "a.db")]) == 0
    assert "6 images" in capsys.readouterr().out
    (output / "frontend.db3").write_bytes((output / "frontend.db3").read_bytes()[:-8192])
    assert export(["colmap", str(output), "--output", str(tmp_path / "b.db")]) in {INCOMPLETE, 1}
    told = capsys.readouterr()
    assert "is cut" in told.err
    assert sqlite3.connect(tmp_path / "a.db").execute("SELECT count(*) FROM images").fetchone() == (6,)


def test_play_says_so_too(tmp_path: Path, photographs: Photographs) -> None:
    bag = cut(camera_bag(tmp_path / "bag", photographs), 0.5)
    command = [sys.executable, "-m", "feature_frontend", "play", str(bag), "--wait-for-subscribers", "0", "--rate", "0"]
    played = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert played.returncode == INCOMPLETE
    assert "published 3 images" in played.stdout
    assert "has no end" in played.stderr


@pytest.fixture
def half_copied(tmp_path: Path, photographs: Photographs) -> Path:
    """A folder in which the second of four images is half copied, and the last one of a kind that is not taken."""
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), moving(photographs, n))
    file = folder / "1.png"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (folder / "3.png").write_bytes(b"no image")
    return folder


def test_a_half_copied_image_is_lost_in_every_tool(
    tmp_path: Path, half_copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(half_copied), "--output", str(tmp_path / "out"), *OPTIONS]) == INCOMPLETE
    told = capsys.readouterr()
    assert "4 images, 2 processed, 2 refused" in told.out
    assert re.search(f"incomplete: 1 image of {half_copied} .*1.png: ", told.err)
    arguments = ["colmap", str(half_copied), "--output", str(tmp_path / "a.db"), "--extractor", "sift"]
    assert export(arguments) == INCOMPLETE
    command = [sys.executable, "-m", "feature_frontend", "play", str(half_copied), "--wait-for-subscribers", "0"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == INCOMPLETE
    # What is not taken was never ours to lose.
    (half_copied / "1.png").unlink()
    assert main([str(half_copied), "--output", str(tmp_path / "without"), *OPTIONS]) == 0


def test_a_compressed_image_that_is_cut_off_is_lost(tmp_path: Path, photographs: Photographs) -> None:
    contents = []
    for n in range(3):
        data = cv2.imencode(".jpg", moving(photographs, n))[1]
        stamp_ns = (100 + n) * SECOND
        part = data[: len(data) // (1 + n % 2)]
        message = TYPES["sensor_msgs/msg/CompressedImage"](header(stamp_ns), "jpeg", part)
        contents.append(("/cam/compressed", stamp_ns, message))
    bag = write_bag(tmp_path / "bag", contents)
    assert main([str(bag), "--output", str(tmp_path / "out"), *OPTIONS]) == INCOMPLETE
    record = json.loads((tmp_path / "out" / "process.json").read_text())
    assert len(record["missing"]) == 1
    assert record["missing"][0].startswith("1 image of /cam/compressed ")


def test_what_was_lost_before_an_interruption_is_lost(
    tmp_path: Path, half_copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(half_copied), "--output", str(tmp_path / "out"), *OPTIONS]
    monkeypatch.setattr(run, "COMMIT_PERIOD_S", 0.0)
    process = run._Run.process

    def interrupted(self: Any, found: Any) -> None:
        if found.found.index == 3:
            msg = "stopped"
            raise FeatureFrontendError(msg)
        process(self, found)

    with monkeypatch.context() as patch:
        patch.setattr(run._Run, "process", interrupted)
        assert main(arguments) == 1
    assert main(arguments) == INCOMPLETE
    record = json.loads((tmp_path / "out" / "process.json").read_text())
    assert [text.partition(" cannot")[0] for text in record["missing"]] == [f"1 image of {half_copied}"]


@pytest.mark.parametrize("option", ["--frame-id", "--namespace"])
def test_texts_that_no_message_can_hold(
    tmp_path: Path, half_copied: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        main([str(half_copied), "--output", str(tmp_path / "out"), option, os.fsdecode(b"f\xe9")])
    assert re.search(rf"argument {option}: 'f\\xe9' .*UTF-8", capsys.readouterr().err)
