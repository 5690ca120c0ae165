"""`process` and `export` on bags of which something is lost: what is whole is done, the exit status says so."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

import cv2
from rosbags.rosbag2 import StoragePlugin

from feature_frontend.tools.arguments import INCOMPLETE
from feature_frontend.tools.export import main as export
from feature_frontend.tools.process import main
from tests.tools.offline import OPTIONS, SECOND, image, messages, moving, write_bag

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
