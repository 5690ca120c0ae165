"""Saved state is restored bit by bit in another object, and anything else is refused."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.camera.calibration import CameraCalibration, RegionOfInterest
from feature_frontend.errors import SnapshotError
from feature_frontend.pipeline.frontend import Frontend, FrontendState
from feature_frontend.runtime.cuda_graphs import EagerGraphDevice
from feature_frontend.runtime.snapshot import VERSION, Snapshot, pack, unpack
from feature_frontend.settings import Settings
from feature_frontend.types import Features, Tracks
from tests.core.seeded import seeded_extractor


@dataclass(frozen=True)
class _All:
    """One of each kind."""

    yes: bool
    count: int
    share: float
    nothing: float
    text: str
    gone: Tracks | None
    names: list[str]
    counts: dict[str, int]
    many: tuple[float, ...]
    pair: tuple[int, torch.Tensor]
    tracks: Tracks | None
    calibration: CameraCalibration
    tensors: dict[str, torch.Tensor]


def _all() -> _All:
    tensors = {
        "bfloat16": torch.arange(6).to(torch.bfloat16).reshape(2, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "nothing": torch.zeros(0, 2),
        "scalar": torch.tensor(True),
        "odd bits": torch.tensor([math.nan, -0.0, math.inf, 1e-45]),
    }
    tracks = Tracks.empty()
    tracks = Tracks(np.array([2**63], np.uint64), *(getattr(tracks, name) for name in list(vars(tracks))[1:]))
    calibration = CameraCalibration(
        480, 640, "cam", "plumb_bob", (500.1, 0, 320, 0, 500, 240, 0, 0, 1), (0.1, 0, 0.001, 0), binning_x=2
    )
    return _All(
        yes=True,
        count=2**62,
        share=0.1,
        nothing=math.nan,
        text="Größe \x00 '\"",
        gone=None,
        names=["a"],
        counts={"received": 3},
        many=(1.5, -0.0),
        pair=(3, tensors["transposed"]),
        tracks=tracks,
        calibration=calibration,
        tensors=tensors,
    )


def test_state_of_all_kinds_comes_back() -> None:
    state = _all()
    snapshot = pack(state)
    back = unpack(Snapshot(snapshot.document, [bytes(array) for array in snapshot.arrays]), _All)
    for name in ("yes", "count", "share", "text", "gone", "names", "counts", "many", "calibration"):
        assert getattr(back, name) == getattr(state, name)
    assert math.isnan(back.nothing)
    assert back.tracks is not None
    np.testing.assert_array_equal(back.tracks.ids, [2**63])
    assert back.tracks.ids.dtype == np.uint64
    assert back.tracks.ids.flags.writeable
    for name, tensor in state.tensors.items():
        found = back.tensors[name]
        assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        assert found.contiguous().reshape(-1).view(torch.uint8).tolist() == (
            tensor.contiguous().reshape(-1).view(torch.uint8).tolist()
        )
    assert back.pair[1] is back.tensors["transposed"], "what two parts share is written once"
    back.tensors["transposed"].zero_()
    assert state.tensors["transposed"].any()


@pytest.mark.parametrize("tracker", ["chain", "persistent"])
def test_a_front_end_continues_in_another_one(photographs: list[npt.NDArray[np.uint8]], tracker: str) -> None:
    settings = Settings.from_mapping(
        {
            "extractor": "silk-vggnp-mu",
            "max_num_keypoints": 50,
            "compile": False,
            "device": "cpu",
            "tracker": tracker,
        }
    )
    _continues(photographs, Frontend.from_pretrained(settings), Frontend.from_pretrained(settings))


@pytest.mark.parametrize("tracker", ["chain", "persistent"])
def test_a_recorded_front_end_continues_in_another_one(photographs: list[npt.NDArray[np.uint8]], tracker: str) -> None:
    settings = Settings.from_mapping({"max_num_keypoints": 50, "tracker": tracker})
    graph_device = EagerGraphDevice(torch.device("cpu"))
    first, second = (Frontend(seeded_extractor(settings, "cpu", graph_device), settings) for _ in range(2))
    _continues(photographs, first, second)


def _continues(photographs: list[npt.NDArray[np.uint8]], first: Frontend, second: Frontend) -> None:
    images = [np.ascontiguousarray(photographs[0][100 + i : 196 + i, 100:228]) for i in range(5)]
    for index in range(2):
        first.process(images[index], index)
    second.set_state(unpack(pack(first.get_state()), FrontendState))
    for index in range(2, 4):
        expected, got = first.process(images[index], index), second.process(images[index], index)
        assert (got.state, got.stamp0_ns) == (expected.state, expected.stamp0_ns)
        assert len(got.matches) > 10
        np.testing.assert_array_equal(got.tracks.ids, expected.tracks.ids)
        np.testing.assert_array_equal(got.tracks.ages, expected.tracks.ages)
        assert torch.equal(got.matches.similarity, expected.matches.similarity)
        assert torch.equal(got.features.descriptors, expected.features.descriptors)
    # A gap, to one who knows what was usual before.
    second.set_state(unpack(pack(first.get_state()), FrontendState))
    assert second.process(images[4], 10**10).reason.startswith("10 s have passed")


@dataclass(frozen=True)
class _Wrong:
    count: int
    call: object = None


def test_what_cannot_be_kept_is_reported() -> None:
    with pytest.raises(SnapshotError, match=r"str .*int"):
        pack(_Wrong("three"))  # type: ignore[arg-type]
    with pytest.raises(SnapshotError, match="function"):
        pack(_Wrong(3, pack))


def _with(path: tuple[Any, ...], value: object) -> Snapshot:
    """A snapshot of `_all` with something else at a place in its document."""
    snapshot = pack(_all())
    document = json.loads(snapshot.document)
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return Snapshot(json.dumps(document), [bytes(array) for array in snapshot.arrays])


_TENSOR = {"array": 0, "dtype": "float32", "shape": [3, 2], "strides": [1, 3], "device": "cpu"}
_PLACE = ("state", "pair", 1)
_HOSTILE = [
    # Names of what is not declared, in all places that hold a name.
    (("state", "os.system"), "true"),
    (("state", "__class__"), "subprocess.Popen"),
    (("state", "pair"), ["subprocess.Popen", "true"]),
    (("state", "tracks"), {"__reduce__": ["subprocess.Popen", ["true"]]}),
    (("state", "calibration", "__init__"), 1),
    (_PLACE, {**_TENSOR, "dtype": "load"}),
    (_PLACE, {**_TENSOR, "dtype": "__builtins__"}),
    (_PLACE, {**_TENSOR, "device": "meta"}),
    (_PLACE, {**_TENSOR, "device": "cuda:9999"}),
    (_PLACE, {**_TENSOR, "device": "privateuseone"}),
    # Arrays that are not there, or other than they say.
    (_PLACE, {**_TENSOR, "array": -1}),
    (_PLACE, {**_TENSOR, "array": 10**6}),
    (_PLACE, {**_TENSOR, "array": True}),
    (_PLACE, {**_TENSOR, "array": "subprocess.Popen"}),
    (_PLACE, {**_TENSOR, "shape": [3, 3]}),
    (_PLACE, {**_TENSOR, "shape": [-3, -2]}),
    (_PLACE, {**_TENSOR, "shape": [10**30, 10**30]}),
    (_PLACE, {**_TENSOR, "strides": [0, 0]}),
    (_PLACE, {**_TENSOR, "strides": [10**12, 1]}),
    (_PLACE, {**_TENSOR, "strides": [1]}),
    (_PLACE, {**_TENSOR, "strides": [-1, 3]}),
    (_PLACE, [1.0]),
    (("state", "tracks", "ids"), [1, 2]),
    (("state", "tracks", "ids", "shape"), [1, 1, 1, 0]),
    # Values of other types, and values that the type's own checks refuse.
    (("state", "count"), True),
    (("state", "count"), 10**400),
    (("state", "count"), "1"),
    (("state", "yes"), 1),
    (("state", "text"), None),
    (("state", "names"), "abc"),
    (("state", "counts"), [1]),
    (("state", "calibration", "height"), -1),
    (("state",), []),
    (("version",), VERSION + 1),
    (("schema",), ["other"]),
]


@pytest.mark.parametrize(("path", "value"), _HOSTILE, ids=[str(index) for index in range(len(_HOSTILE))])
def test_hostile_documents_are_refused(path: tuple[Any, ...], value: object) -> None:
    with pytest.raises(SnapshotError) as refused:
        unpack(_with(path, value), _All)
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("document", ["", "nonsense", "[]", "{}", "null", "[" * 100_000, '{"schema": "\ud800"}'])
def test_what_is_no_document_is_refused(document: str) -> None:
    with pytest.raises(SnapshotError):
        unpack(Snapshot(document, []), _All)


def test_another_version_is_named() -> None:
    expected = rf"version {VERSION + 1}\b.* version {VERSION}\b"
    with pytest.raises(SnapshotError, match=expected):
        unpack(_with(("version",), VERSION + 1), _All)


def test_arrays_that_do_not_belong_together_are_refused(photographs: list[npt.NDArray[np.uint8]]) -> None:
    for tracker in ("chain", "persistent"):
        settings = Settings.from_mapping({"max_num_keypoints": 50, "tracker": tracker})
        frontend = Frontend(seeded_extractor(settings, "cpu"), settings)
        frontend.process(np.ascontiguousarray(photographs[0][100:196, 100:228]), 0)
        snapshot = pack(frontend.get_state())
        refused = 0
        for shapes in _shortened(json.loads(snapshot.document)):
            with pytest.raises(SnapshotError, match="expected"):
                frontend.set_state(unpack(Snapshot(json.dumps(shapes), _cut(snapshot, shapes)), FrontendState))
            refused += 1
        assert refused > 8, tracker


def _shortened(document: Any) -> list[Any]:
    """The document with each of its arrays a row shorter in turn."""
    found = []

    def visit(value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, dict) and "array" in value:
            if value["shape"]:
                changed = copy.deepcopy(document)
                place = changed
                for name in path:
                    place = place[name]
                place["shape"][0] -= 1
                place["array"] = 10_000 + value["array"]
                found.append(changed)
        elif isinstance(value, (dict, list)):
            for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
                visit(inner, (*path, name))

    visit(document, ())
    return found


class _Cut(list[Any]):
    """Arrays, and from number 10,000 on the same ones without their last row."""

    def __init__(self, arrays: Any, rows: int) -> None:
        super().__init__(arrays)
        self._rows = rows

    def __getitem__(self, index: Any) -> Any:
        if index < 10_000:
            return super().__getitem__(index)
        raw = bytes(super().__getitem__(index - 10_000))
        return raw[: len(raw) // (self._rows + 1) * self._rows]


def _cut(snapshot: Snapshot, document: Any) -> _Cut:
    rows: list[int] = []

    def visit(value: Any) -> None:
        if isinstance(value, dict) and value.get("array", 0) >= 10_000:
            rows.append(value["shape"][0])
        elif isinstance(value, (dict, list)):
            for inner in value.values() if isinstance(value, dict) else value:
                visit(inner)

    visit(document)
    return _Cut(snapshot.arrays, rows[0])


def test_features_and_calibrations_check_themselves() -> None:
    features = Features.empty(96, 128, "a", 8)
    assert features.is_whole
    broken = Features(torch.zeros(3, 2), torch.zeros(2), torch.zeros(3, 8), 96, 128, "a")
    assert not broken.is_whole
    calibration = _all().calibration
    assert CameraCalibration(**vars(calibration)) == calibration
    assert isinstance(calibration.region_of_interest, RegionOfInterest)
