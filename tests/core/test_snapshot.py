"""What objects remember comes back in another object, and nothing else is let in."""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.errors import SnapshotError
from feature_frontend.frame_queue import FrameQueue
from feature_frontend.frontend import Frontend
from feature_frontend.recording import EagerRecorder
from feature_frontend.settings import PARAMETERS, Settings
from feature_frontend.snapshot import bring_back, take_snapshot
from feature_frontend.types import Tracks
from tests.core.seeded import seeded_extractor


class Thing:
    """Has whatever attributes it is given."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def test_state_of_all_kinds_comes_back() -> None:
    network = Thing()
    tensors = {
        "bfloat16": torch.arange(6).to(torch.bfloat16).reshape(2, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "nothing": torch.zeros(0, 2),
        "scalar": torch.tensor(True),
    }
    tracks = Tracks.empty()
    left = Thing(tensors=tensors, last=deque([1, 2], maxlen=3), network=network, lock=threading.Lock(), tracks=tracks)
    right = Thing(
        other=left, same=tracks, queue=FrameQueue(2), settings=Settings(max_num_keypoints=7), kind=torch.float16
    )
    right.numbers = np.float32(2.5), np.arange(3, dtype=np.uint64), {1, 2}
    snapshot = take_snapshot({"left": left, "right": right}, {"network": network})
    new_left, new_right, new_network = Thing(gone=1), Thing(), Thing()
    bring_back(snapshot, {"left": new_left, "right": new_right}, {"network": new_network})
    assert set(vars(new_left)) == set(vars(left))
    for name, tensor in tensors.items():
        back = new_left.tensors[name]
        assert (back.dtype, back.stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(back, tensor)
    assert (new_left.last, new_left.last.maxlen) == (left.last, 3)
    assert new_left.network is new_network
    assert new_right.other is new_left
    assert new_right.same is new_left.tracks
    assert new_right.settings == right.settings
    assert new_right.kind is torch.float16
    assert new_right.numbers[0] == 2.5
    np.testing.assert_array_equal(new_right.numbers[1], right.numbers[1])
    assert new_right.queue.put("a") is None
    with new_left.lock:
        pass


@pytest.mark.parametrize("tracker", getattr(PARAMETERS.get("tracker"), "choices", ("chain",)))
def test_a_front_end_goes_on_in_another_one(photographs: list[npt.NDArray[np.uint8]], tracker: str) -> None:
    values = {"tracker": tracker} if "tracker" in PARAMETERS else {}
    settings = Settings.from_mapping(
        {"extractor": "silk-vggnp-mu", "max_num_keypoints": 50, "compile": False, "device": "cpu", **values}
    )
    _goes_on(photographs, Frontend.from_pretrained(settings), Frontend.from_pretrained(settings))


def test_a_recorded_front_end_goes_on_in_another_one(photographs: list[npt.NDArray[np.uint8]]) -> None:
    settings = Settings(max_num_keypoints=50)
    recorder = EagerRecorder(torch.device("cpu"))
    first, second = (Frontend(seeded_extractor(settings, "cpu", recorder), settings) for _ in range(2))
    _goes_on(photographs, first, second)


def _goes_on(photographs: list[npt.NDArray[np.uint8]], first: Frontend, second: Frontend) -> None:
    images = [np.ascontiguousarray(photographs[0][100 + i : 196 + i, 100:228]) for i in range(4)]
    for index in range(2):
        first.process(images[index], index)
    fixed = [{"extractor": one.extractor, "recorder": one.extractor.recorder or object()} for one in (first, second)]
    bring_back(take_snapshot({"frontend": first}, fixed[0]), {"frontend": second}, fixed[1])
    for index in range(2, 4):
        expected, got = first.process(images[index], index), second.process(images[index], index)
        assert (got.state, got.stamp0_ns) == (expected.state, expected.stamp0_ns)
        assert len(got.matches) > 10
        np.testing.assert_array_equal(got.tracks.ids, expected.tracks.ids)
        np.testing.assert_array_equal(got.tracks.ages, expected.tracks.ages)
        assert torch.equal(got.matches.similarity, expected.matches.similarity)
        assert torch.equal(got.features.descriptors, expected.features.descriptors)


def test_what_cannot_be_kept_is_told() -> None:
    with pytest.raises(SnapshotError, match="the state of thing cannot be kept: "):
        take_snapshot({"thing": Thing(call=lambda: 1)}, {})


class _Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", pickle.dumps({"thing": _Command()}), pickle.dumps(["thing"]), pickle.dumps({"other": {}})],
)
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    thing = Thing(kept=1)
    with pytest.raises(SnapshotError, match="the kept state cannot be read"):
        bring_back(data, {"thing": thing}, {})
    assert thing.kept == 1
