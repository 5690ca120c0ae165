"""Loading in the background: the latest request wins, a failure is a result, and nothing blocks."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.model_loader import (
    LoadedModel,
    ModelLoader,
    check_model,
    is_same_model,
    names_left_weights,
    with_model_of,
)
from feature_frontend.settings import Settings
from tests.core.seeded import seeded_extractor
from tests.ros.harness import wait_until

_SIZE = (64, 64)


class _Loads:
    """A loader whose loads wait until they are let go on, and what it said when it was done."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_go_on = threading.Event()
        self.done = threading.Semaphore(0)
        self.loader = ModelLoader(self._load, self.done.release)

    def _load(self, settings: Settings) -> Frontend:
        self.begun.append(settings.weights_path)
        assert self.may_go_on.wait(10)
        assert settings.fallback_extractor == ""
        if settings.weights_path == "missing":
            msg = "cannot read weights\n  missing"
            raise WeightsError(msg)
        if settings.weights_path == "fatal":
            msg = "CUDA out of memory " + "x" * 5000
            raise RuntimeError(msg)
        return Frontend(seeded_extractor(settings), settings)

    def take(self) -> LoadedModel:
        assert self.done.acquire(timeout=20)
        loaded = self.loader.take()
        assert loaded is not None
        return loaded


def test_a_model_comes_warm_and_once() -> None:
    loads = _Loads()
    wanted = Settings(weights_path="a", device="cpu")
    loads.loader.request((wanted, _SIZE, None))
    wait_until(lambda: loads.begun == ["a"], "the load")
    assert loads.loader.take() is None
    assert loads.loader.wanted == wanted
    loads.may_go_on.set()
    loaded = loads.take()
    assert loaded.settings == wanted
    assert (loaded.problem, loaded.frontend is not None) == ("", True)
    assert loads.loader.wanted is None
    assert loads.loader.take() is None


def test_only_the_latest_wish_counts() -> None:
    loads = _Loads()
    for path in ("a", "b", "c"):
        loads.loader.request((Settings(weights_path=path, device="cpu"), _SIZE, None))
        wait_until(lambda: bool(loads.begun), "a load")
    loads.may_go_on.set()
    assert loads.take().settings.weights_path == "c"
    assert loads.begun == ["a", "c"]
    assert not loads.done.acquire(timeout=0.1)


def test_a_wish_taken_back_leads_to_nothing() -> None:
    loads = _Loads()
    loads.loader.request((Settings(weights_path="a", device="cpu"), _SIZE, None))
    wait_until(lambda: bool(loads.begun), "a load")
    loads.loader.cancel()
    loads.may_go_on.set()
    assert not loads.done.acquire(timeout=0.5)
    assert (loads.loader.take(), loads.loader.wanted) == (None, None)
    loads.loader.request((Settings(weights_path="b", device="cpu"), _SIZE, None))
    assert loads.take().settings.weights_path == "b"


@pytest.mark.parametrize(
    ("path", "problem"), [("missing", "cannot read weights missing"), ("fatal", "RuntimeError: CUDA out of memory ...")]
)
def test_a_failure_is_reported_in_one_line(path: str, problem: str) -> None:
    loads = _Loads()
    loads.may_go_on.set()
    loads.loader.request((Settings(weights_path=path, device="cpu"), _SIZE, None))
    assert loads.take() == LoadedModel(Settings(weights_path=path, device="cpu"), None, problem)


def test_what_makes_a_model() -> None:
    settings = Settings(extractor="silk-vggnp-mu")
    assert is_same_model(settings, replace(settings, max_num_keypoints=5, matcher="mnn"))
    for change in ({"precision": "float16"}, {"weights_path": "x"}, {"device": "cpu"}, {"extractor": "aliked-n16"}):
        assert not is_same_model(settings, replace(settings, **change))
    other = Settings(extractor="aliked-t16", max_num_keypoints=7)
    assert with_model_of(other, settings) == Settings(extractor="silk-vggnp-mu", max_num_keypoints=7)
    in_force = Settings(extractor="sift", max_num_keypoints=9)
    assert with_model_of(Settings(extractor="silk-vggnp-mu", tracker="persistent"), in_force) == in_force
    check_model(settings)
    with pytest.raises(SettingsError, match="weights_path is '/no/such/file'"):
        check_model(replace(settings, weights_path="/no/such/file"))
    with pytest.raises(SettingsError, match="device is 'tpu'"):
        check_model(replace(settings, device="tpu"))


def test_a_file_of_weights_belongs_to_the_extractor_that_it_was_given_for() -> None:
    model = Settings(extractor="silk-vggnp-4", weights_path="silk.ckpt")
    assert names_left_weights(replace(model, extractor="sift"), model)
    assert not names_left_weights(replace(model, extractor="silk-vggnp-3", weights_path="other.ckpt"), model)
    assert not names_left_weights(replace(model, max_num_keypoints=7), model)
    assert not names_left_weights(Settings(extractor="sift"), Settings())
