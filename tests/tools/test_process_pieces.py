"""A long bag in pieces: where it is cut, and that joining gives the run that was not cut."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.tools.common.arguments import INCOMPLETE
from feature_frontend.tools.process import jobs, pieces, run
from feature_frontend.tools.process.command import main
from feature_frontend.tools.process.output import Output
from feature_frontend.tools.process.pieces import cut
from feature_frontend.tools.process.progress import Progress
from feature_frontend.tools.process.progress_store import FILE_NAME, ProgressStore
from feature_frontend.tools.process.request import Outcome, Part, Reporter, Request, Work
from feature_frontend.tools.process.schedule import Answer, Scheduler, answer_of, process_all
from tests.campaign import Campaign
from tests.tools.offline import OPTIONS, SECOND, TYPES, camera_info, files, header, image, moving, write_bag

Photographs = list[npt.NDArray[np.uint8]]
IMAGES = 76
PERSISTENT = (*OPTIONS, "--tracker", "persistent", "--threads", "1")


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
    # In whatever pieces, it is the same work.
    for pieces_of in (("--piece-seconds", "4"), ("--piece-seconds", "3"), ()):
        assert main([str(bag), "-o", str(joined), *OPTIONS, *pieces_of]) == 0
        assert "was finished before" in capsys.readouterr().out


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


def test_persistent_gives_the_same_bytes_in_pieces_of_two_bags_at_once(
    bag: Path,
    photographs: Photographs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    contents = []
    for index in range(20):
        stamp_ns = SECOND + index * SECOND // 10
        data = cv2.imencode(".jpg", moving(photographs, index))[1]
        part = data[: len(data) // (2 if index in {3, 15} else 1)]
        contents.append(("/image", stamp_ns, TYPES["sensor_msgs/msg/CompressedImage"](header(stamp_ns), "jpeg", part)))
    arguments = [str(bag), str(write_bag(tmp_path / "short", contents)), *PERSISTENT, "--count", "36"]
    assert main([*arguments, "-o", str(tmp_path / "whole")]) == INCOMPLETE
    turn, done, counts = threading.Lock(), [], [0, 0]
    report = Progress.done

    def in_this_process(work: Work, reporter: Reporter, _started: object) -> Answer:
        # Threads and seeds of torch are those of the process.
        with turn:
            answer = answer_of(work, reporter)
            done.append((Path(work.request.output).name, next(iter(answer))))
        return answer

    def count(progress: Progress, images: int, *, earlier: bool = False) -> None:
        counts[earlier] += images
        report(progress, images, earlier=earlier)

    monkeypatch.setattr(jobs, "_in_process", in_this_process)
    monkeypatch.setattr(Progress, "done", count)
    assert main([*arguments, "-o", str(tmp_path / "joined"), "--piece-seconds", "1.2", "--jobs", "2"]) == INCOMPLETE
    printed = capsys.readouterr().err
    assert printed.count("incomplete: 2 images of /image cannot be read: ") == 2
    for name, of_bag in (("drive", 3), ("short", 2)):
        assert files(tmp_path / "joined" / name) == files(tmp_path / "whole" / name)
        units = [unit for output, unit in done if output == name]
        assert units == ["cut", *["piece"] * of_bag, "outcome"]
    assert counts == [36 + len(contents), 0]
    assert done.index(("short", "piece")) < len(done) - 1 - done[::-1].index(("drive", "piece"))


@pytest.mark.parametrize("how", ["absent", "damaged"])
def test_a_piece_without_the_state_before_it_says_what_to_delete(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    arguments = [str(bag), *PERSISTENT, "--count", "12"]
    assert main([*arguments, "-o", str(tmp_path / "whole")]) == 0
    arguments += ["-o", str(tmp_path / "joined"), "--piece-seconds", "0.6"]
    end_of_piece = Output.end_of_piece

    def lose(output: Output, part: Part, job: dict[str, object]) -> ProgressStore:
        if how == "absent":
            shutil.rmtree(output.piece(part.number))
        else:
            database = sqlite3.connect(output.piece(part.number) / FILE_NAME, isolation_level=None)
            database.execute("UPDATE arrays SET data = zeroblob(length(data)) WHERE id = 1")
            database.close()
        return end_of_piece(output, part, job)

    with monkeypatch.context() as patched:
        patched.setattr(Output, "end_of_piece", lose)
        assert main(arguments) == 1
    piece = tmp_path / "joined.unfinished" / "piece_00000"
    told = {"absent": "it is not the finished piece", "damaged": "the state in it is not as it was written"}[how]
    error = capsys.readouterr().err
    assert f"error: {piece / FILE_NAME} is damaged: {told}" in error
    assert f"; delete {piece} to start over" in error
    shutil.rmtree(piece)
    assert main(arguments) == 0
    assert files(tmp_path / "joined") == files(tmp_path / "whole")


class _InAnyOrder(Scheduler):
    """Finishes units of work in random order, without doing them; some of them fail.

    Attributes:
        events: Output, number of the piece and whether it is done, of each piece that begins or ends.
    """

    width = 3

    def __init__(self, chance: np.random.Generator, parts: dict[str, tuple[Part, ...]]) -> None:
        self.events: list[tuple[str, int, bool]] = []
        self._chance = chance
        self._parts = parts
        self._running: list[Work] = []

    def submit(self, work: Work) -> None:
        if work.part is not None:
            assert work.request.settings == {"extractor": work.request.output}
            self.events.append((work.request.output, work.part.number, False))
        self._running.append(work)

    def wait(self) -> tuple[Work, Answer]:
        work = self._running.pop(int(self._chance.integers(len(self._running))))
        output, parts = work.request.output, self._parts[work.request.output]
        if self._chance.random() < 0.02:
            return work, {"error": "failed"}
        if work.part is not None:
            self.events.append((output, work.part.number, True))
            return work, {"piece": {"number": work.part.number}}
        if not work.parts:
            return work, {"cut": {"parts": [vars(part) for part in parts], "settings": {"extractor": output}}}
        assert work.parts == parts
        assert {number for one, number, is_done in self.events if one == output and is_done} == set(range(len(parts)))
        return work, {"outcome": {"output": output, "sha256": "", "images": {}, "was_finished": False, "missing": []}}

    def __exit__(self, *_: object) -> None:
        """Ends nothing."""


def test_a_piece_that_continues_another_begins_when_that_one_is_done(
    campaign: Campaign,
) -> None:
    chance, outcomes, most = np.random.default_rng(campaign.seed), 0, 0
    for _ in range(campaign.count(500, "runs")):
        counts = {f"bag_{number}": int(chance.integers(2, 9)) for number in range(int(chance.integers(1, 5)))}
        in_order = {name: bool(chance.integers(2)) for name in counts}
        parts = {
            name: tuple(Part(number, number, number, number + 1, in_order[name]) for number in range(count))
            for name, count in counts.items()
        }
        scheduler = _InAnyOrder(chance, parts)
        results = process_all([Request("", name, {}) for name in counts], scheduler, Progress(None))
        for name, result in zip(counts, results, strict=True):
            events = [event[1:] for event in scheduler.events if event[0] == name]
            if in_order[name]:
                expected = [(number, is_done) for number in range(counts[name]) for is_done in (False, True)]
                assert events == expected[: len(events)]
            else:
                most = max([most, *itertools.accumulate(-1 if is_done else 1 for _, is_done in events)])
            assert not isinstance(result, Outcome) or len(events) == 2 * counts[name]
            outcomes += isinstance(result, Outcome)
    assert outcomes > 100
    assert most == 6, "the pieces of a bag in parallel"


def test_cuts_are_at_stamps_and_cover_every_image_once(campaign: Campaign) -> None:
    chance = np.random.default_rng(campaign.seed)
    for _ in range(campaign.count(2000, "bags")):
        count, start = int(chance.integers(1, 400)), int(chance.integers(0, 50))
        steps = chance.choice([0, 33_000_000, 100_000_000, 5 * SECOND, -SECOND], count, p=[0.05, 0.5, 0.39, 0.03, 0.03])
        stamps = np.cumsum(steps)
        seconds = float(chance.choice([0.5, 3.0, 20.0, 1e4]))
        parts = cut(stamps.tolist(), start, seconds, in_order=False)
        assert [part.number for part in parts] == list(range(len(parts)))
        assert parts[0].first == parts[0].begin == start
        assert parts[-1].end is None
        assert [part.end for part in parts[:-1]] == [part.begin for part in parts[1:]]
        assert all(part.first == max(part.begin - pieces.WARM_UP_IMAGES, start) for part in parts)
        in_order = cut(stamps.tolist(), start, seconds, in_order=True)
        assert in_order == tuple(Part(part.number, part.begin, part.begin, part.end, True) for part in parts)
        assert all(one.begin < other.begin for one, other in itertools.pairwise(parts))
        latest = np.maximum.accumulate(stamps) - stamps[0]
        for part in parts[1:]:
            # The first image of its piece by time.
            position = part.begin - start
            whole = int(latest[position] / 1e9 // seconds)
            assert latest[position - 1] / 1e9 < max(whole, 1) * seconds


def test_a_bag_of_one_image_is_one_piece() -> None:
    assert cut([5], 7, 1.0, in_order=False) == (Part(0, 7, 7, None),)
    assert cut([], 0, 1.0, in_order=False) == ()
