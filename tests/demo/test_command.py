"""The demo's processes and output folder, and a complete run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.errors import DemoError
from feature_frontend.system.interrupts import interruptible
from feature_frontend_lab.demo import main
from feature_frontend_lab.demo.command import Output
from feature_frontend_lab.demo.processes import ProcessGroup, ros_environment
from feature_frontend_lab.demo.recording import read_recording
from tests.campaign import Campaign

HAS_ROS = all(importlib.util.find_spec(name) for name in ("rclpy", "feature_frontend_msgs"))
needs_ros = pytest.mark.skipif(not HAS_ROS, reason="needs ROS 2 and the built feature_frontend_msgs")


def test_output_is_emptied_of_what_the_demo_made_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    output = Output(folder)
    output.sequence.mkdir()
    (output.sequence / "1.0.png").touch()
    output.bag.mkdir()
    (output.bag / "bag.db3").touch()
    output.strip.touch()
    (output.logs / "node.log").touch()
    (folder / "notes.txt").write_text("mine")
    again = Output(folder)
    assert sorted(path.name for path in folder.iterdir()) == [".made_by_feature_frontend_demo", "logs", "notes.txt"]
    assert not any(again.logs.iterdir())


def test_output_does_not_touch_a_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "tracks.png").write_text("mine")
    with pytest.raises(DemoError, match="did not make"):
        Output(tmp_path)
    assert (tmp_path / "tracks.png").read_text() == "mine"


def test_output_does_not_remove_others_files_in_its_folders(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.bag.mkdir()
    (output.bag / "thesis.tex").write_text("mine")
    with pytest.raises(DemoError, match=r"bag .*'thesis\.tex'"):
        Output(tmp_path / "out")
    assert (output.bag / "thesis.tex").read_text() == "mine"


def test_output_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoError, match=r"/file .*--output"):
        Output(tmp_path / "file")


def test_a_process_that_fails_is_reported_with_its_own_error(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path, os.environ) as group:
        process = group.start("node", ["no-such-tool"])
        assert process.wait(30)
        with pytest.raises(DemoError, match=r"node .* status 2: .*'no-such-tool'"):
            group.check()
        with pytest.raises(DemoError):
            group.check(may_have_ended=process)


def test_ctrl_c_while_a_process_starts_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, started = subprocess.Popen, []

    def interrupted(_: object, **options: Any) -> subprocess.Popen[bytes]:
        started.append(real(["sleep", "60"], **options))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with interruptible(), pytest.raises(KeyboardInterrupt), ProcessGroup(tmp_path, os.environ) as group:
        group.start("player", ["play"])
    assert started[0].poll() == -signal.SIGINT


def test_environment_has_a_domain_of_its_own_and_large_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "profile.xml"
    profile.touch()
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    environment = ros_environment(profile)
    assert 1 <= int(environment["ROS_DOMAIN_ID"]) <= 100
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(profile)
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    assert ros_environment(profile)["FASTDDS_DEFAULT_PROFILES_FILE"] == str(profile)
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml")
    assert ros_environment(profile)["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/mine.xml"
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in ros_environment(profile)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--source", "/no/such/place"], "/no/such/place"),
        (["--topic", "left"], "--topic left .*--source"),
        (["--source", "webcam:0"], "--source webcam:0 .*--frames N"),
    ],
)
@needs_ros
def test_options_that_cannot_work_are_refused_at_once(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--output", str(tmp_path / "out"), *arguments]) == 1
    assert re.search(f"error: .*{expected}", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def left_over(mark: str) -> list[str]:
    """Command lines of the processes that carry `mark` in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def start_demo(output: Path, mark: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "feature_frontend", "demo", "--output", str(output), *arguments]
    variables = {**os.environ, "FEATURE_FRONTEND_TEST_MARK": mark, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def _check_demo(folder: Path, out: str, frames: int) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    messages = summary["frames"], summary["features_messages"], summary["matches_messages"]
    assert messages == (frames, frames, frames - 1)
    assert summary["states"] == {"FIRST": 1, "OK": frames - 1}
    assert summary["pose"]["rotation_deg"]["median"] < 0.2
    assert summary["inlier_ratio"]["median"] > 0.8
    assert summary["matches"]["median"] > 300
    assert (folder / "summary.txt").read_text() in out
    assert cv2.imread(str(folder / "tracks.png")) is not None
    assert cv2.VideoCapture(str(folder / "tracks.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames
    recording = read_recording(folder / "bag")
    assert [record.stamp_ns for record in recording.features] == [record.stamp_ns for record in recording.tracks]


@needs_ros
@pytest.mark.slow
def test_demo_of_another_network(weights_dir: str, tmp_path: Path, campaign: Campaign) -> None:
    campaign.only("a second demo")
    mark = uuid.uuid4().hex
    process = start_demo(
        tmp_path, mark, "--frames", "6", "--extractor", "aliked-t16", FEATURE_FRONTEND_WEIGHTS=weights_dir
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    _check_demo(tmp_path, out, 6)
    assert left_over(mark) == []


@needs_ros
@pytest.mark.slow
def test_demo_with_own_images_and_no_calibration(
    weights_dir: str, photographs: list[npt.NDArray[np.uint8]], tmp_path: Path, campaign: Campaign
) -> None:
    campaign.only("a demo of one's own images")
    source = tmp_path / "mine"
    source.mkdir()
    for number, image in enumerate(photographs):
        cv2.imwrite(str(source / f"{number:03d}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    arguments = ("--source", str(source), "--extractor", "aliked-t16")
    process = start_demo(tmp_path / "out", uuid.uuid4().hex, *arguments, FEATURE_FRONTEND_WEIGHTS=weights_dir)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["features_messages"] == len(photographs)
    assert summary["pose"] is None
    assert summary["inlier_method"] == "of the fundamental matrix, RANSAC 1 px"
    assert "rotation" not in out


@needs_ros
@pytest.mark.slow
def test_a_node_that_cannot_load_ends_the_demo_with_its_error(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    (tmp_path / "aliked-n16.pth").write_bytes(b"not a network")
    arguments = ("--frames", "2", "--extractor", "aliked-n16")
    process = start_demo(tmp_path / "out", mark, *arguments, FEATURE_FRONTEND_WEIGHTS=str(tmp_path))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: the node ended with exit status 1: ")
    assert "is not the published aliked-n16.pth" in last
    assert "Traceback" not in err
    assert left_over(mark) == []


@needs_ros
@pytest.mark.slow
def test_without_weights_or_network_the_shipped_model_does_the_job(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    nowhere = str(tmp_path / "nowhere")
    # A proxy that refuses stands for a machine without a network.
    process = start_demo(
        tmp_path / "out",
        mark,
        *("--frames", "5", "--device", "cpu"),
        FEATURE_FRONTEND_WEIGHTS=nowhere,
        XDG_CACHE_HOME=nowhere,
        https_proxy="http://127.0.0.1:9",
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "dotlet@" in out
    _check_demo(tmp_path / "out", out, 5)
    assert left_over(mark) == []


@needs_ros
@pytest.mark.slow
def test_an_interrupt_stops_everything(weights_dir: str, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    arguments = ("--frames", "40", "--extractor", "aliked-t16")
    process = start_demo(tmp_path, mark, *arguments, FEATURE_FRONTEND_WEIGHTS=weights_dir)
    deadline = time.monotonic() + 120
    while not (tmp_path / "logs" / "player.log").is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(left_over(mark)) == 4
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted; all processes are stopped" in err
    assert "Traceback" not in err
    assert left_over(mark) == []
