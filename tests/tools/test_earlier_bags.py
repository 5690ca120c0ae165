"""Older bags without `run_id` in the messages can still be read, with or without message definitions."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs feature_frontend_msgs, built by make setup")

from feature_frontend.tools.process import main as process
from feature_frontend_lab.demo.recording import read_recording
from feature_frontend_lab.evaluation.commands.evaluate import main as evaluate
from feature_frontend_lab.export import command as export
from feature_frontend_lab.export.recorded_features import read_features
from tests.conftest import REPOSITORY
from tests.tools.offline import messages

_BAG = REPOSITORY / "tests" / "data" / "features_before_run_id"


@pytest.fixture(params=["with definitions", "without"])
def bag(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    copied = Path(shutil.copytree(_BAG, tmp_path / _BAG.name))
    if request.param == "without":
        connection = sqlite3.connect(copied / f"{_BAG.name}.db3")
        connection.execute("DELETE FROM message_definitions")
        connection.commit()
        connection.close()
    return copied


def test_features_and_tracks_are_read_and_exported(bag: Path, tmp_path: Path) -> None:
    missing: list[str] = []
    count, records = read_features(bag, None, missing)
    found = list(records)
    assert (count, len(found), missing) == (3, 3, [])
    for record in found:
        assert (len(record.features), record.features.descriptor_dim) == (40, 32)
        np.testing.assert_array_equal(record.track_rows, np.arange(40))
        assert record.camera is not None
    assert found[0].track_ids.tolist() == list(range(1, 41))
    assert len(set(found[0].track_ids) & set(found[1].track_ids)) > 10
    for by in ("matching", "tracks"):
        assert export.main(["colmap", str(bag), "--output", str(tmp_path / f"{by}.db"), "--by", by]) == 0


def test_the_images_are_processed_and_evaluated(tmp_path: Path) -> None:
    options = ("--extractor", "silk-vggnp-mu", "--max-num-keypoints", "40")
    assert process([str(_BAG), "-o", str(tmp_path / "out"), *options]) == 0
    assert {topic: len(found) for topic, found in messages(tmp_path / "out").items()} == {
        "/features": 3,
        "/matches": 3,
        "/tracks": 3,
        "/status": 3,
    }
    compared = ["--compare", "chain+extractor=silk-vggnp-mu"]
    assert evaluate(["tracks", str(_BAG), "--output", str(tmp_path / "tracks"), *compared]) == 0


def test_the_report_of_a_recording_reads_them() -> None:
    recording = read_recording(_BAG)
    counts = len(recording.features), len(recording.matches), len(recording.tracks), len(recording.status)
    assert counts == (3, 2, 3, 3)
    assert len(recording.matches[0].keypoints0) > 10
