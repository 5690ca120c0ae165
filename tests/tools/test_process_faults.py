"""`process` killed, and on a failing disk: the same bytes as undisturbed, or an error; never exit 0 with others."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.tools.process import command, run
from tests.campaign import Campaign
from tests.faults import EIO, FLIP, FULL, KILL, NONE, SHORT, Ended, FaultyDisk, faulty_disk
from tests.tools.offline import files, messages, moving

IMAGES = 6
OPTIONS = ("--extractor", "sift", "--max-num-keypoints", "20", "--device", "cpu", "--compile", "false")
_NAMES = {EIO: "EIO", FULL: "full", SHORT: "short write", FLIP: "bit flip"}


def process_often(arguments: Sequence[str]) -> int:
    """The tool, in a process of its own; commits behind each image."""
    run.COMMIT_PERIOD_S = 0.0
    return command.main([*arguments, "--threads", "1"])


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    with faulty_disk(tmp_path_factory.mktemp("disk"), __name__) as found:
        yield found


@pytest.fixture(scope="module")
def images(photographs: list[npt.NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(IMAGES):
        cv2.imwrite(str(folder / f"{index + 1}.5.png"), moving(photographs, index)[..., ::-1])
    return folder


class _Runs:
    """One command and what it makes when nothing disturbs it."""

    def __init__(self, disk: FaultyDisk, images: Path, folder: Path, storage: str) -> None:
        self._disk = disk
        self._arguments = (images, *OPTIONS, "--storage", storage)
        self._folder = folder
        self._count = 0
        self.undisturbed = self.run()
        assert self.undisturbed.code == 0, self.undisturbed.err
        self.bag = self.output
        self.files = files(self.bag)

    def begin(self) -> None:
        """Forgets what there is of the run before."""
        for path in (self.output, self.unfinished):
            if path != getattr(self, "bag", None):
                shutil.rmtree(path, ignore_errors=True)
        self._count += 1

    @property
    def output(self) -> Path:
        return self._folder / str(self._count) / "features"

    @property
    def unfinished(self) -> Path:
        return self.output.with_name("features.unfinished")

    def run(self, kind: int = NONE, call: int = 0, bit: int = 0, kill_after_s: float | None = None) -> Ended:
        """The command; it may be killed, told, or done with the right bytes: nothing else."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        ended = self._disk.run(
            f"{__name__}:process_often",
            *self._arguments,
            "-o",
            self.output,
            folder=self.output.parent,
            kind=kind,
            call=call,
            bit=bit,
            kill_after_s=kill_after_s,
        )
        assert "Traceback" not in ended.err, ended.err
        assert ended.code in {0, 1, -signal.SIGKILL}, ended
        assert (ended.code == 1) == ("\nerror: " in f"\n{ended.err}"), ended
        return ended

    def is_right(self) -> bool:
        """Whether the files are those of the undisturbed run; the bag's own may differ in bytes that nobody reads."""
        found = files(self.output)
        differing = {name for name in {*found, *self.files} if found.get(name) != self.files.get(name)}
        if not differing:
            return True
        assert differing <= {"frontend.db3", "frontend.mcap"}, differing
        assert messages(self.output) == messages(self.bag), "exit status 0 with other messages"
        return False


@pytest.fixture(scope="module")
def both(disk: FaultyDisk, images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[_Runs]:
    """Into bags of both storages."""
    return [_Runs(disk, images, tmp_path_factory.mktemp("output"), storage) for storage in ("sqlite3", "mcap")]


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(both: list[_Runs], campaign: Campaign) -> None:
    chance = random.Random(campaign.seed)
    for number in range(campaign.count(50, "kills")):
        runs, killed = chance.choice(both), None
        while killed is None or killed.code != -signal.SIGKILL:
            runs.begin()
            if number % 2:
                killed = runs.run(KILL, chance.randint(1, runs.undisturbed.calls))
            else:
                killed = runs.run(kill_after_s=chance.uniform(0, runs.undisturbed.seconds))
        assert runs.run().code == 0
        assert runs.is_right()
        assert not runs.unfinished.exists()


def test_on_a_failing_disk_it_makes_the_same_bytes_or_says_so(both: list[_Runs], campaign: Campaign) -> None:
    chance = random.Random(campaign.seed)
    outcomes: Counter[str] = Counter()
    for number in range(campaign.count(50, "storage faults")):
        runs, kind = chance.choice(both), list(_NAMES)[number % len(_NAMES)]
        runs.begin()
        ended = runs.run(kind, chance.randint(1, runs.undisturbed.calls), chance.randrange(2**30))
        name = f"{_NAMES[kind]}: {'told' if ended.code else 'not noticed'}"
        if ended.code:
            if kind == FULL:
                assert "free" in ended.err, ended.err
                assert "delete" not in ended.err, ended.err
            ended = _again(runs)
            name += ", same bytes by the same command" if ended.code == 0 else ", then refused"
            assert kind == FLIP or ended.code == 0, ended.err
        if ended.code == 0:
            is_right = runs.is_right()
            name += "" if is_right else " in bytes that nobody reads"
            assert kind == FLIP or is_right
        outcomes[name] += 1
    for name, count in sorted(outcomes.items()):
        campaign.report(f"{count} {name}")


def test_what_lies_damaged_is_refused_or_makes_no_difference(both: list[_Runs], campaign: Campaign) -> None:
    chance = random.Random(campaign.seed)
    outcomes: Counter[str] = Counter()
    for _ in range(campaign.count(30, "damaged progress.db")):
        runs, found = chance.choice(both), list[Path]()
        while not found:
            runs.begin()
            runs.run(KILL, chance.randint(1, runs.undisturbed.calls))
            found = [path for path in sorted(runs.unfinished.glob("progress.db*")) if path.stat().st_size]
        damage = chance.choice([_flip, _flip, _cut, _blank, _rows])
        damage(chance.choice(found) if damage is not _rows else found[0], chance)
        ended = _again(runs)
        if ended.code == 0:
            assert runs.is_right(), damage.__name__
        outcomes[f"{damage.__name__.strip('_')}: {'same bytes' if ended.code == 0 else 'refused'}"] += 1
    for name, count in sorted(outcomes.items()):
        campaign.report(f"{count} {name}")


def _again(runs: _Runs) -> Ended:
    """The same command; where that is refused it says what to do, and to do it helps."""
    ended = runs.run()
    if ended.code:
        assert f"delete {runs.unfinished}" in ended.err, ended.err
        shutil.rmtree(runs.unfinished)
        assert runs.run().code == 0
        assert runs.is_right()
    return ended


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 10, 200])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def _blank(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    begin = chance.randrange(0, len(data), 512)
    data[begin : begin + 512] = bytes(len(data[begin : begin + 512]))
    path.write_bytes(data)


def _rows(path: Path, chance: random.Random) -> None:
    with sqlite3.connect(path) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return
        database.execute(
            chance.choice(
                [
                    "DELETE FROM messages WHERE id % 5 = 1",
                    "DELETE FROM messages WHERE id = (SELECT max(id) FROM messages)",
                    "INSERT INTO messages(topic, time_ns, data) SELECT topic, time_ns, data FROM messages LIMIT 1",
                    "UPDATE messages SET id = -id",
                    "UPDATE messages SET time_ns = time_ns + 1",
                    "DELETE FROM run",
                    "INSERT INTO run SELECT * FROM run",
                    "UPDATE run SET state = substr(state, 2)",
                    "UPDATE run SET is_last = 1 - is_last",
                    "UPDATE run SET job = replace(job, 'sift', 'gift')",
                    "UPDATE run SET messages_sha256 = sha256",
                    "DELETE FROM arrays WHERE id = 1",
                    "UPDATE arrays SET data = data || x'00'",
                ]
            )
        )
    database.close()
