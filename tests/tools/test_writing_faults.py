"""`train`, `weights fetch` and the writer of `record` on a failing disk: complete files, or a one-line error."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import http.server
import json
import random
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.typesys import Stores, get_typestore

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.models.catalog import WeightsRecord
from feature_frontend.sources.bags.sequence import Bag
from feature_frontend.tools import weights
from feature_frontend.tools.common.bag_writer import BagWriter
from tests.campaign import Campaign
from tests.conftest import REPOSITORY
from tests.faults import EIO, FLIP, FULL, KILL, NONE, SHORT, Ended, FaultyDisk, faulty_disk

_KINDS = (EIO, FULL, SHORT, FLIP, KILL)
_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
_MESSAGES, _KEPT = 12, 5


def fetch(arguments: Sequence[str]) -> int:
    """`weights fetch` of one file: its address, SHA-256, size, and the folder."""
    url, sha256, size, folder = arguments
    record = WeightsRecord("small", "small.pth", url, sha256, "none", size_bytes=int(size))
    weights.WEIGHTS = {"small": record}  # type: ignore[attr-defined]
    return weights.main(["fetch", "small", "--to", folder])


def write_bag(arguments: Sequence[str]) -> int:
    """Writes messages as `record` does: some, which it keeps, and some more."""
    folder, storage = arguments
    try:
        with BagWriter(Path(folder), storage, get_typestore(Stores.ROS2_JAZZY)) as bag:
            bag.add_topic("/text", "std_msgs/msg/String")
            for index in range(_MESSAGES):
                bag.write("/text", index, _text(index))
                if index == _KEPT - 1:
                    bag.keep()
                    print(ctypes.CDLL(None).fault_calls(), flush=True)
    except FeatureFrontendError as error:
        print(f"error: {error}")
        return 1
    return 0


def _text(index: int) -> bytes:
    content = f"{index:4000}".encode() + b"\0"
    return b"\0\1\0\0" + len(content).to_bytes(4, "little") + content


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    with faulty_disk(tmp_path_factory.mktemp("disk"), __name__, "feature_frontend_lab.training.command") as found:
        yield found


def _check(ended: Ended, kind: int) -> str:
    """What came of it, in a word."""
    if ended.code == -signal.SIGKILL:
        assert kind == KILL
        return "killed"
    assert "Traceback" not in ended.out + ended.err, ended
    assert ended.code in {0, 1}, ended
    if ended.code:
        (line,) = [line for line in (ended.out + ended.err).splitlines() if line.startswith("error: ")]
        assert len(line) < 1000
    return "told" if ended.code else "not noticed"


_NAMES = {EIO: "EIO", FULL: "full", SHORT: "short write", FLIP: "bit flip", KILL: "kill"}


def _report(campaign: Campaign, outcomes: Counter[str]) -> None:
    for name, count in sorted(outcomes.items()):
        campaign.report(f"{count} {name}")


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetched_weights_are_whole_or_not_there(disk: FaultyDisk, tmp_path: Path, campaign: Campaign) -> None:
    chance, outcomes = random.Random(campaign.seed), Counter[str]()
    content = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "small.pth").write_bytes(content)
    with _served(tmp_path / "served") as address:
        arguments = (f"{address}/small.pth", hashlib.sha256(content).hexdigest(), len(content), tmp_path / "weights")

        def run(kind: int = NONE, call: int = 0, bit: int = 0) -> Ended:
            return disk.run(f"{__name__}:fetch", *arguments, folder=tmp_path / "weights", kind=kind, call=call, bit=bit)

        undisturbed = run()
        assert undisturbed.code == 0, undisturbed
        for number in range(campaign.count(20, "storage faults")):
            shutil.rmtree(tmp_path / "weights")
            kind = _KINDS[number % len(_KINDS)]
            name = _check(run(kind, chance.randint(1, undisturbed.calls), chance.randrange(2**30)), kind)
            found = tmp_path / "weights" / "small.pth"
            assert not found.exists() or found.read_bytes() == content
            assert name != "not noticed" or found.exists()
            assert run().code == 0
            assert found.read_bytes() == content
            outcomes[f"{_NAMES[kind]}: {name}"] += 1
    _report(campaign, outcomes)


def test_a_bag_holds_what_was_kept(disk: FaultyDisk, tmp_path: Path, campaign: Campaign) -> None:
    chance, outcomes = random.Random(campaign.seed), Counter[str]()
    expected = [_text(index) for index in range(_MESSAGES)]
    calls: dict[str, tuple[int, int]] = {}
    for number in range(campaign.count(20, "storage faults")):
        storage = chance.choice(["sqlite3", "mcap"])
        bag, kind = tmp_path / str(number), _KINDS[number % (len(_KINDS))]

        def run(folder: Path, kind: int = NONE, call: int = 0, bit: int = 0, storage: str = storage) -> Ended:
            return disk.run(f"{__name__}:write_bag", folder, storage, folder=folder, kind=kind, call=call, bit=bit)

        if storage not in calls:
            undisturbed = run(tmp_path / storage)
            assert (undisturbed.code, _texts(tmp_path / storage)) == (0, expected), undisturbed
            calls[storage] = int(undisturbed.out), undisturbed.calls
        kept_at, last = calls[storage]
        call = chance.randint(1, last)
        name = _check(run(bag, kind, call, chance.randrange(2**30)), kind)
        found = None
        with contextlib.suppress(FeatureFrontendError):
            found = _texts(bag)
        if kind != FLIP:
            assert found is None or found == expected[: len(found)]
            # MCAP's chunks are larger than these messages; of them a bag holds all or none.
            assert call <= kept_at or storage == "mcap" or len(found or []) >= _KEPT
            assert name != "not noticed" or found == expected
        outcomes[f"{storage}, {_NAMES[kind]}: {name}, {len(found or [])} of {_MESSAGES} messages"] += 1
    _report(campaign, outcomes)


def _texts(bag: Path) -> list[bytes]:
    return [bytes(message.data) for message in Bag(bag).messages({"/text"}) if not message.problem]


@pytest.mark.slow
def test_a_run_of_train_goes_on_or_says_why_not(disk: FaultyDisk, tmp_path: Path, campaign: Campaign) -> None:
    campaign.only("trains again and again")
    chance, outcomes = random.Random(campaign.seed), Counter[str]()
    small = ("--images", _PHOTOGRAPHS, "--map-size", "24", "--device", "cpu", "--validation-pairs", "0")
    small = (*small, "--workers", "0", "--output")

    def run(folder: Path, *options: object, kind: int = NONE, call: int = 0, bit: int = 0) -> Ended:
        arguments = (*small, folder, *options)
        return disk.run(
            "feature_frontend_lab.training.command:main", *arguments, folder=folder, kind=kind, call=call, bit=bit
        )

    assert run(tmp_path / "begun", "--steps", 1).code == 0
    shutil.copytree(tmp_path / "begun", tmp_path / "whole")
    undisturbed = run(tmp_path / "whole", "--steps", 2, "--resume")
    assert undisturbed.code == 0, undisturbed
    expected = (tmp_path / "whole" / "silk-vggnp-mu.safetensors").read_bytes()
    for number in range(campaign.count(10, "storage faults")):
        folder, kind = tmp_path / str(number), _KINDS[number % len(_KINDS)]
        shutil.copytree(tmp_path / "begun", folder)
        call, bit = chance.randint(1, undisturbed.calls), chance.randrange(2**30)
        name = _check(run(folder, "--steps", 2, "--resume", kind=kind, call=call, bit=bit), kind)
        found = folder / "silk-vggnp-mu.safetensors"
        if name != "not noticed":
            again = run(folder, "--steps", 2, "--resume")
            assert again.code == 0 or (kind == FLIP and "cannot resume" in again.err), again
            name += ", goes on" if again.code == 0 else ", then refused"
        card = json.loads((folder / "silk-vggnp-mu.json").read_text()) if kind != FLIP else {}
        if kind != FLIP:
            assert card["sha256"] == hashlib.sha256(expected).hexdigest()
            assert found.read_bytes() == expected
        outcomes[f"{_NAMES[kind]}: {name}"] += 1
    _report(campaign, outcomes)
