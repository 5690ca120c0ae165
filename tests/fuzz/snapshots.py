"""The remains of an interrupted `process`: its progress file, and the state of a front-end in it."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache

from feature_frontend.errors import FeatureFrontendError, SnapshotError
from feature_frontend.pipeline.frontend import Frontend, FrontendState
from feature_frontend.runtime.snapshot import Snapshot, unpack
from feature_frontend.settings import Settings
from feature_frontend.tools.process.progress_store import FILE_NAME as PROGRESS
from feature_frontend.tools.process.progress_store import ProgressStore
from tests.fuzz.files import FOLDER
from tests.fuzz.parser import Parser

__all__ = ["PARSERS", "PROGRESS", "SEPARATOR", "frontend"]

SEPARATOR = b"\n--- an array ---\n"


@lru_cache
def frontend() -> Frontend:
    """One that takes the state."""
    settings = {"extractor": "silk-vggnp-mu", "tracker": "chain", "max_num_keypoints": 6}
    return Frontend.from_pretrained(Settings.from_mapping({**settings, "compile": False, "device": "cpu"}))


def _state(data: bytes) -> None:
    document, *arrays = data.split(SEPARATOR)
    state = unpack(Snapshot(document.decode("utf-8", "replace"), arrays), FrontendState)
    frontend().set_state(state)


def _progress(data: bytes) -> None:
    folder = FOLDER / "progress"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / PROGRESS).write_bytes(data)
    with ProgressStore(folder) as store:
        job = store.job()
        assert job is None or isinstance(job, dict)
        json.dumps(job)
        if store.state() is not None:
            for topic, time_ns, content in store.messages():
                assert (type(topic), type(time_ns), type(content)) == (str, int, bytes)


PARSERS = (
    Parser(
        "snapshot-state",
        _state,
        (SnapshotError,),
        (
            b'"array":',
            b'"shape":[',
            b'"strides":[',
            b'"dtype":"bfloat16"',
            b'"device":"meta"',
            SEPARATOR,
            b"NaN",
            b"1e999",
        ),
    ),
    Parser("snapshot-progress", _progress, (FeatureFrontendError,), (b"CREATE TABLE", b"messages", b"arrays", b"run")),
)
