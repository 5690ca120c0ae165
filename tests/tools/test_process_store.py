"""A damaged or planted unfinished output: refused by name, with instructions; nothing is executed."""

from __future__ import annotations

import pickle
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.runtime.snapshot import Snapshot
from feature_frontend.tools.process import run
from feature_frontend.tools.process.command import main
from feature_frontend.tools.process.output import RECORD_NAME, Output
from feature_frontend.tools.process.progress_store import ProgressStore, _seal
from tests.tools.offline import files, moving

OPTIONS = ("--extractor", "sift", "--max-num-keypoints", "20", "--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def images(photographs: list[npt.NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(4):
        cv2.imwrite(str(folder / f"{index + 1}.5.png"), moving(photographs, index)[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def interrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that is over, but for its bag."""
    output = tmp_path_factory.mktemp("interrupted") / "features"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "COMMIT_PERIOD_S", 0.0)
        patched.setattr(run.Output, "complete", _interrupt)
        assert main([str(images), "-o", str(output), *OPTIONS]) == 130
    return output


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def output(interrupted: Path) -> Iterator[Path]:
    """The same each time; what lies beside it is restored."""
    unfinished = interrupted.with_name("features.unfinished")
    kept = (unfinished / "progress.db").read_bytes()
    yield interrupted
    shutil.rmtree(interrupted, ignore_errors=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    (unfinished / "progress.db").write_bytes(kept)


def _database(output: Path) -> Path:
    return output.with_name("features.unfinished") / "progress.db"


def _change(output: Path, *statements: str, seals: bool = False) -> None:
    database = sqlite3.connect(_database(output))
    for statement in statements:
        database.execute(statement)
    if seals:
        row = database.execute("SELECT job, state, is_last, messages, messages_sha256 FROM run").fetchone()
        arrays = [data for (data,) in database.execute("SELECT data FROM arrays ORDER BY id")]
        database.execute("UPDATE run SET sha256 = ?", (_seal(row, arrays),))
    database.commit()
    database.close()


def _refusal(images: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the same command says."""
    assert main([str(images), "-o", str(output), *OPTIONS]) == 1
    told = capsys.readouterr().err
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in told
    assert not output.exists()
    return line


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("DELETE FROM messages WHERE id = 3", "messages; expected"),
        ("DELETE FROM messages", " 0 messages; expected"),
        ("INSERT INTO messages(topic, time_ns, data) VALUES ('/status', 1, x'00')", "messages; expected"),
        ("UPDATE messages SET id = -id", "as they were written"),
        ("UPDATE messages SET data = zeroblob(length(data)) WHERE id = 2", "as they were written"),
        ("UPDATE messages SET data = 'text' WHERE id = 2", "a message in it is invalid"),
        ("UPDATE messages SET topic = x'ff' WHERE id = 2", "a message in it is invalid"),
        ("DELETE FROM run", "0 runs"),
        ("INSERT INTO run SELECT * FROM run", "2 runs"),
        ("UPDATE run SET job = '{'", "the state in it is not as it was written"),
        ("UPDATE run SET state = '{'", "the state in it is not as it was written"),
        ("UPDATE run SET is_last = 0", "the state in it is not as it was written"),
        ("UPDATE run SET sha256 = messages_sha256", "the state in it is not as it was written"),
        ("UPDATE arrays SET data = zeroblob(length(data)) WHERE id = 1", "the state in it is not as it was written"),
        ("UPDATE arrays SET data = 5 WHERE id = 1", "an array of the state is invalid"),
        ("DELETE FROM arrays", "the state in it is not as it was written"),
        ("DROP TABLE arrays", "no such table: arrays"),
    ],
)
def test_damage_is_refused_by_name(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str], statement: str, text: str
) -> None:
    _change(output, statement)
    told = _refusal(images, output, capsys)
    assert told.startswith(f"error: {_database(output)} is damaged: ")
    assert text in told
    assert told.endswith(f"delete {_database(output).parent} to start over")


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("UPDATE run SET state = '{'", "the kept state cannot be read"),
        ("UPDATE run SET state = '[]'", "the kept state cannot be read"),
        (
            'UPDATE run SET state = replace(state, \'"next_index":4\', \'"next_index":"4"\')',
            "a str where a int belongs",
        ),
        ("UPDATE run SET state = replace(state, '\"next_index\":4,', '')", "next_index of _Position"),
        ("UPDATE run SET state = replace(state, '\"processed\"', '\"__class__\"')", "processed of StatisticsState"),
        ("UPDATE run SET state = replace(state, '\"version\":1', '\"version\":7')", "of version 7; expected"),
        ("UPDATE run SET job = '{'", "its job cannot be read"),
        ("UPDATE run SET job = '[1]'", "its job cannot be read"),
    ],
)
def test_what_is_sealed_and_makes_no_sense_is_refused(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str], statement: str, text: str
) -> None:
    _change(output, statement, seals=True)
    assert text in _refusal(images, output, capsys)


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:-1000], lambda data: data[: len(data) // 2], lambda data: b"no database" * 1000],
    ids=["end", "half", "other"],
)
def test_a_file_that_is_cut_off_is_refused(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[bytes], bytes]
) -> None:
    _database(output).write_bytes(spoil(_database(output).read_bytes()))
    assert f"delete {_database(output).parent} to start over" in _refusal(images, output, capsys)


def test_undamaged_it_continues(images: Path, output: Path, tmp_path: Path) -> None:
    assert main([str(images), "-o", str(output), *OPTIONS]) == 0
    assert main([str(images), "-o", str(tmp_path / "features"), *OPTIONS]) == 0
    assert files(output) == files(tmp_path / "features")


class _Popen:
    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.Popen, (self._arguments,)


def _dotted(module: str, name: str, arguments: bytes) -> bytes:
    """A pickle of protocol 4 that calls `name`, with dots, of a module."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + b"\x93" + arguments + b"\x85R."


def _exploits(marker: Path) -> list[bytes]:
    command = ["touch", str(marker)]
    as_list = pickle.dumps(command, 4)[2:-1]
    if as_list[:1] == b"\x95":  # without the frame
        as_list = as_list[9:]
    as_text = pickle.dumps(f"touch {marker}", 4)[11:-1]
    return [
        _dotted("feature_frontend.tools.process.jobs", "subprocess.Popen", as_list),
        _dotted("feature_frontend_lab.training.export", "subprocess.check_call", as_list),
        _dotted("feature_frontend.tools.process.run", "json.codecs.sys.modules", as_text),
        _dotted("os", "system", as_text),
        _dotted("builtins", "exec", pickle.dumps(f"open({str(marker)!r}, 'w')", 4)[11:-1]),
        pickle.dumps({"position": _Popen(command)}),
        pickle.dumps({"position": _Popen(command)}, 0),
    ]


@pytest.mark.parametrize("number", range(7))
def test_planted_code_does_nothing(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, number: int
) -> None:
    marker = tmp_path / "executed"
    exploit = _exploits(marker)[number]
    # Where they are let in, they work.
    if number in {0, 3, 4, 5}:
        done = pickle.loads(exploit)
        if isinstance(done, subprocess.Popen):
            done.wait()
        elif isinstance(done, dict):
            done["position"].wait()
        assert marker.exists()
        marker.unlink()
    # In a file as this version writes them, with all its hashes right: as the state, and as an array.
    state = exploit.decode("latin-1").replace("'", "''").replace("\0", "")
    for statement in (f"UPDATE run SET state = '{state}'", f"UPDATE arrays SET data = x'{exploit.hex()}' WHERE id = 1"):
        kept = _database(output).read_bytes()
        _change(output, statement, seals=True)
        assert "the kept state cannot be read" in _refusal(images, output, capsys)
        _database(output).write_bytes(kept)
    # In one as versions before wrote them.
    _database(output).unlink()
    _change(
        output,
        "CREATE TABLE job(description TEXT NOT NULL)",
        "CREATE TABLE state(snapshot BLOB NOT NULL, is_last INTEGER NOT NULL)",
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, time_ns INTEGER, data BLOB NOT NULL)",
        f"INSERT INTO state VALUES (x'{exploit.hex()}', 0)",
    )
    told = _refusal(images, output, capsys)
    assert re.search(r"version 0\b.*\b2\)", told)
    assert f"delete {_database(output).parent} to start over" in told
    assert not marker.exists()


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    with ProgressStore(tmp_path) as store:
        store.begin({"input": "a"})
    database = sqlite3.connect(tmp_path / "progress.db")
    database.execute("PRAGMA user_version = 3")
    database.close()
    with pytest.raises(FeatureFrontendError, match=r"version 3\b.*\b2\)"):
        ProgressStore(tmp_path)


def test_what_comes_back_otherwise_is_found_at_the_end(tmp_path: Path) -> None:
    with ProgressStore(tmp_path) as store:
        store.begin({"input": "a"})
        for index in range(3):
            store.add("/status", index, bytes([index]))
        store.commit(Snapshot("{}", [b"12"]))
        assert [data for _, _, data in store.messages()] == [b"\0", b"\1", b"\2"]
        store._database.execute("UPDATE messages SET data = x'05' WHERE id = 2")
        with pytest.raises(FeatureFrontendError, match="3 messages"):
            list(store.messages())


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"sha256": 1, "images": {}, "missing": []}'], ids=range(5)
)
def test_a_damaged_record_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD_NAME).write_bytes(content)
    assert Output(tmp_path).record() == {}


def test_what_a_kill_leaves_of_the_unfinished_folder_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(tmp_path / "out")
    (output.unfinished / "frontend").mkdir(parents=True)
    output.check(overwrite=False)
    (output.unfinished / "frontend" / "letter.txt").touch()
    with pytest.raises(SettingsError, match="is in the way: it holds no unfinished output"):
        output.check(overwrite=False)
    for name in (
        "frontend/frontend.db3",
        "overwritten/metadata.yaml",
        "piece_00000/progress.db",
        "progress.db-journal",
    ):
        (output.unfinished / name).parent.mkdir(exist_ok=True)
        (output.unfinished / name).touch()
    output.check(overwrite=False)
    remove, left = shutil.rmtree, []

    def watched(path: Path, **options: bool) -> None:
        left.append({file.name for file in output.unfinished.rglob("*") if file.is_file()})
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    output.clear()
    assert left[-1] == {"progress.db", "progress.db-journal"}
    assert not output.unfinished.exists()


def test_a_large_state_is_written_less_often(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, commits = ProgressStore.commit, []

    def count(store: ProgressStore, snapshot: Snapshot, *, is_last: bool = False) -> None:
        commits.append(is_last)
        commit(store, snapshot, is_last=is_last)

    monkeypatch.setattr(ProgressStore, "commit", count)
    monkeypatch.setattr(run, "COMMIT_PERIOD_S", 1e-6)
    assert main([str(images), "-o", str(tmp_path / "small"), *OPTIONS]) == 0
    # At the beginning, behind each image, and at the end.
    assert commits == [False] * 5 + [True]
    commits.clear()
    monkeypatch.setattr(run, "STATE_BYTES", 1e-6)
    assert main([str(images), "-o", str(tmp_path / "large"), *OPTIONS]) == 0
    # The first one says how large it is.
    assert commits == [False] * 2 + [True]
