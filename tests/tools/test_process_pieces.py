"""A long bag in pieces: where it is cut, and that joining gives the run that was not cut."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.tools.process import pieces, run
from feature_frontend.tools.process.command import main
from feature_frontend.tools.process.pieces import cut
from feature_frontend.tools.process.progress_store import ProgressStore
from feature_frontend.tools.process.request import Part
from tests.campaign import Campaign
from tests.tools.offline import OPTIONS, SECOND, camera_info, files, image, moving, write_bag

Photographs = list[npt.NDArray[np.uint8]]
IMAGES = 76


@pytest.fixture(scope="module")
def bag(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """76 images in 11 s, with a gap, a bad image and a calibration that changes on both sides of a cut at 4 s."""
    contents: list[tuple[str, int, Any]] = []
    for index in range(IMAGES):
        stamp_ns = 100 * SECOND + index * SECOND // 10 + (3 * SECOND if index >= 70 else 0)
        message = image(stamp_ns, moving(photographs, index), "rgb8")
        if index in {20, 38, 50}:
            message.encoding = "rainbow"
        contents.append(("/cam/image", stamp_ns + 1000, message))
        contents.append(("/cam/camera_info", stamp_ns + 2000, camera_info(stamp_ns, 120.0 + 20 * (index > 30))))
    return write_bag(tmp_path_factory.mktemp("input") / "drive", contents)


def test_chain_gives_the_same_bytes_in_pieces(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, joined = tmp_path / "whole", tmp_path / "joined"
    assert main([str(bag), "-o", str(whole), *OPTIONS]) == 0
    assert main([str(bag), "-o", str(joined), *OPTIONS, "--piece-seconds", "4"]) == 0
    printed = capsys.readouterr().out
    record = json.loads((joined / "process.json").read_text())
    assert record["joins"]["crossing"] == record["joins"]["joined"] > 50
    assert f"{record['joins']['joined']} of {record['joins']['crossing']} tracks joined at the cuts" in printed
    assert files(whole)["frontend.db3"] == files(joined)["frontend.db3"]
    assert json.loads((whole / "process.json").read_text())["sha256"] == record["sha256"]
    # The same again is not done again; as a whole it is other work, for the persistent tracker gives other points then.
    assert main([str(bag), "-o", str(joined), *OPTIONS, "--piece-seconds", "4"]) == 0
    assert "was finished before" in capsys.readouterr().out
    assert main([str(bag), "-o", str(joined), *OPTIONS]) == 1
    assert "it differs in piece_seconds" in capsys.readouterr().err


def test_a_run_in_pieces_goes_on_where_it_was_interrupted(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    arguments = [str(bag), "-o", str(output), *OPTIONS, "--piece-seconds", "6"]
    add, status, done = ProgressStore.add, [], []

    def interrupt(store: ProgressStore, topic: str, time_ns: int, data: bytes) -> None:
        add(store, topic, time_ns, data)
        status.append(topic)
        if status.count("/status") == IMAGES:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "COMMIT_PERIOD_S", 0.0)
        patched.setattr(ProgressStore, "add", interrupt)
        assert main(arguments) == 130
    process = run._Run.process
    monkeypatch.setattr(run._Run, "process", lambda self, one: (done.append(one.found.index), process(self, one))[1])
    assert main(arguments) == 0
    # The first piece was done, and half of the second.
    assert min(done) > 40
    assert len(done) == len(set(done)) < 45
    assert not list(tmp_path.glob("*.unfinished"))
    assert json.loads((output / "process.json").read_text())["images"] == {
        "received": IMAGES,
        "processed": IMAGES - 3,
        "refused": 3,
    }


def test_cuts_are_at_stamps_and_cover_every_image_once(campaign: Campaign) -> None:
    chance = np.random.default_rng(campaign.seed)
    for _ in range(campaign.count(2000, "bags")):
        count, start = int(chance.integers(1, 400)), int(chance.integers(0, 50))
        steps = chance.choice([0, 33_000_000, 100_000_000, 5 * SECOND, -SECOND], count, p=[0.05, 0.5, 0.39, 0.03, 0.03])
        stamps = np.cumsum(steps)
        seconds = float(chance.choice([0.5, 3.0, 20.0, 1e4]))
        parts = cut(stamps.tolist(), start, seconds, 5.0)
        assert [part.number for part in parts] == list(range(len(parts)))
        assert parts[0].first == parts[0].begin == start
        assert parts[-1].end is None
        assert [part.end for part in parts[:-1]] == [part.begin for part in parts[1:]]
        assert all(start <= part.first <= part.begin for part in parts)
        assert all(one.begin < other.begin for one, other in itertools.pairwise(parts))
        latest = np.maximum.accumulate(stamps) - stamps[0]
        for part in parts[1:]:
            # The first image of its piece by time, warmed up by the time and the images that are asked for.
            position = part.begin - start
            whole = int(latest[position] / 1e9 // seconds)
            assert latest[position - 1] / 1e9 < max(whole, 1) * seconds
            warm = latest[position] - latest[part.first - start]
            assert part.first == start or (warm >= 0 and position - (part.first - start) >= pieces.WARM_UP_IMAGES)


def test_a_bag_of_one_image_is_one_piece() -> None:
    assert cut([5], 7, 1.0, 0.0) == (Part(0, 7, 7, None),)
    assert cut([], 0, 1.0, 0.0) == ()
