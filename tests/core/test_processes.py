"""Extractors in other processes: forked after computing, or sent by `pickle`."""

from __future__ import annotations

import os
import pickle
import select
import signal
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import load_extractor, load_matcher
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings

_TIMEOUT_S = 60.0


@pytest.fixture
def two_threads() -> Iterator[None]:
    """With one thread there is no pool that a forked child could wait for."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _matches(name: str, image: npt.NDArray[np.uint8], extractor: Extractor | None = None) -> bytes:
    features = (extractor or load_extractor(name, device="cpu", compile=False)).extract(image)
    matches = load_matcher().match(features, features)
    return features.keypoints.numpy().tobytes() + matches.indices1.numpy().tobytes()


@pytest.mark.parametrize("name", ["sift", "silk-vggnp-mu"])
def test_a_pickled_extractor_finds_the_same(name: str, photographs: list[npt.NDArray[np.uint8]]) -> None:
    extractor = load_extractor(name, device="cpu")
    copy = pickle.loads(pickle.dumps(extractor))
    assert _matches(name, photographs[0], copy) == _matches(name, photographs[0], extractor)
    assert (copy.identity, copy.settings, copy.execution) == (
        extractor.identity,
        extractor.settings,
        extractor.execution,
    )
    extractor.close()
    copy.close()


@pytest.mark.parametrize("tracker", ["chain", "persistent"])
def test_a_pickled_frontend_continues(tracker: str, photographs: list[npt.NDArray[np.uint8]]) -> None:
    frontend = Frontend.from_pretrained(Settings(extractor="silk-vggnp-mu", tracker=tracker, compile=False))
    frontend.process(photographs[0], 0)
    copy = pickle.loads(pickle.dumps(frontend))
    expected, found = (one.process(photographs[1], 1).tracks for one in (frontend, copy))
    assert len(expected.ids)
    assert np.array_equal(expected.ids, found.ids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ["sift", "silk-vggnp-mu"])
def test_a_forked_child_computes(name: str, photographs: list[npt.NDArray[np.uint8]]) -> None:
    extractor = load_extractor(name, device="cpu", compile=False)
    _matches(name, photographs[0], extractor)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, len(_matches(name, photographs[0], extractor)).to_bytes(8, "little"))
        os._exit(0)
    os.close(writing)
    try:
        answered, _, _ = select.select([reading], [], [], _TIMEOUT_S)
        assert answered, "the child waits for threads that it does not have"
        assert int.from_bytes(os.read(reading, 8), "little") > 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
