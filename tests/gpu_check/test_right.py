"""The steps of the part `right` fail on broken code: each runs with a broken network or guard."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_frontend.extractors.extractor import Extractor
from feature_frontend.models.catalog import AUTO_EXTRACTORS
from feature_frontend.runtime.adaptive_resolution import OutOfMemoryGuard
from feature_frontend.settings import Settings
from scripts.gpu_check.fast.settings import NETWORKS
from scripts.gpu_check.models import on_device, settings_for, tensor_float32, weights_of
from scripts.gpu_check.parts import right
from scripts.gpu_check.right import execution, full_memory, gpu_tests, parity, repetition, sequences
from scripts.gpu_check.right.gpu_tests import PytestRun, judge, read_junit
from scripts.gpu_check.right.repetition import repeat
from scripts.gpu_check.step import Context, LeftOutError, Outcome
from scripts.gpu_check.timebox import TimeBox
from tests.conftest import NEEDS_TORCH_FOR_PTH, shared_folder

_BRIEFLY = 0.0  # of each step the first setting alone
Steps = Callable[[Context, TimeBox], Outcome]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A rehearsal with what is shared on this machine, which may be nothing."""
    return Context("cpu", shared_folder(), tmp_path, tmp_path, time.monotonic() + 600)


def spoiled(settings: Settings) -> Extractor:
    """The network with every weight off by a hundredth or so of itself."""
    extractor = on_device(settings)
    generator = torch.Generator().manual_seed(0)
    network: torch.nn.Module = extractor._network  # type: ignore[assignment]
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1 + 1e-2 * torch.randn(weight.shape, generator=generator))
    return extractor


def test_every_step_has_a_name_of_its_own_and_a_limit(context: Context) -> None:
    steps = right.steps(context)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalnum() and step.limit_s > 0 for name, step in zip(names, steps, strict=True))


def test_the_default_extractors_are_compared_and_timed() -> None:
    for networks in (execution._NETWORKS, parity._HALVED, NETWORKS):
        assert {*AUTO_EXTRACTORS} <= {*networks}


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (execution, execution.captured_graphs),
        (execution, execution.device_features),
        (sequences, sequences.device_trackers),
    ],
)
def test_a_network_that_computes_something_else_is_seen(
    module: object, step: Steps, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = step(context, TimeBox(_BRIEFLY))
    assert good.passed, good.text
    monkeypatch.setattr(module, "on_device", spoiled)
    bad = step(context, TimeBox(_BRIEFLY))
    assert not bad.passed
    assert "MISSED: " in bad.text
    assert any("MISSED" in row for table in bad.tables for row in table.rows)


def test_a_matcher_that_computes_something_else_is_seen(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sequences.device_matchers(context, TimeBox(_BRIEFLY)).passed
    make = sequences.make_matcher

    def make_wrong(settings: Settings) -> object:
        matcher = make(settings)
        padded = matcher.padded  # type: ignore[attr-defined]
        # The current image's rows in another order.
        matcher.padded = lambda d0, c0, d1, c1: padded(d0, c0, d1.roll(1, 0), c1)  # type: ignore[attr-defined]
        return matcher

    monkeypatch.setattr(sequences, "make_matcher", make_wrong)
    monkeypatch.setattr(sequences, "why_no_lightglue", lambda _: "not wanted")
    outcome = sequences.device_matchers(context, TimeBox(_BRIEFLY))
    assert not outcome.passed
    assert "captured" in outcome.text


def test_random_weights_that_differ_are_seen(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parity.silk_seeded(context, TimeBox(_BRIEFLY)).passed
    seeds = count()
    make = parity.seeded_silk
    monkeypatch.setattr(parity, "seeded_silk", lambda name: make(name, next(seeds)))
    assert not parity.silk_seeded(context, TimeBox(_BRIEFLY)).passed


@pytest.mark.parametrize("step", [parity.aliked_parity, pytest.param(parity.silk_parity, marks=NEEDS_TORCH_FOR_PTH)])
def test_reference_outputs_that_differ_are_seen(
    step: Steps, context: Context, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert step(context, TimeBox(_BRIEFLY)).passed
    load = np.load

    class Moved(dict):  # type: ignore[type-arg]
        files = property(list)

        def __enter__(self) -> Moved:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    def load_moved(path: Path) -> Moved:
        with load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return Moved({name: array + 1 if name.startswith("keypoints") else array for name, array in arrays.items()})

    monkeypatch.setattr(np, "load", load_moved)
    outcome = step(context, TimeBox(_BRIEFLY))
    assert not outcome.passed
    assert "MISSED" in outcome.text


def test_what_is_not_there_is_left_out_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    context = Context("cpu", tmp_path, tmp_path, tmp_path, time.monotonic() + 600)
    for step, text in (
        (parity.aliked_parity, "no weights of aliked-t16"),
        (parity.silk_parity, "no reference outputs of SiLK"),
        (parity.half_precision, "no frames"),
    ):
        with pytest.raises(LeftOutError, match=text):
            step(context, TimeBox(_BRIEFLY))
    outcome = execution.captured_graphs(context, TimeBox(_BRIEFLY))
    assert outcome.passed
    assert "not there: aliked-t16" in outcome.text
    with pytest.raises(LeftOutError, match="no weights of aliked-n16"):
        weights_of("aliked-n16", str(tmp_path))


def test_results_that_change_are_counted(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter("aabaac")
    found = repeat(lambda: next(results), 6)
    assert (found.times, found.distinct, found.odd_ones) == (6, 3, 2)
    assert repetition.same_bytes(context, TimeBox(_BRIEFLY)).passed
    noise = count(1)
    plain = repetition.fingerprint
    monkeypatch.setattr(repetition, "fingerprint", lambda *parts: plain(parts[0] + 1e-6 * next(noise), *parts[1:]))
    outcome = repetition.same_bytes(context, TimeBox(_BRIEFLY))
    assert not outcome.passed
    assert "with matches by mnn" in outcome.text


class _NeverSmaller(OutOfMemoryGuard):
    """Gives up at once."""

    def run(self, work: Callable[[], object], free: Callable[[], None], now_s: float) -> tuple[object, str]:  # type: ignore[override]
        return work(), ""


class _NeverLarger(OutOfMemoryGuard):
    """Does not come back to the whole image."""

    def run(self, work: Callable[[], object], free: Callable[[], None], now_s: float) -> tuple[object, str]:  # type: ignore[override]
        return super().run(work, free, 0.0)


@pytest.mark.slow
def _squeezed(context: Context, keeper: type[OutOfMemoryGuard]) -> tuple[Outcome, list[str]]:
    """The step's outcome and what its settings raised, with that way of keeping memory."""
    box = TimeBox(_BRIEFLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_memory, "OutOfMemoryGuard", keeper)
        return full_memory.full_memory(context, box), box.errors


def test_a_device_that_is_full_makes_images_smaller_and_is_recovered_from(context: Context) -> None:
    # In a process of its own: what others have freed in this one, a frame would take again, and no limit would bind.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        kinds = (OutOfMemoryGuard, _NeverLarger, _NeverSmaller)
        (good, none), (bad, _), (_, raised) = pool.map(partial(_squeezed, context), kinds)
    assert good.passed, good.text
    assert not none
    assert next(iter(good.data["results"].values()))["fraction"] < 1
    assert not bad.passed
    assert "did not recover" in bad.text
    assert "DefaultCPUAllocator" in raised[0]


def test_a_limit_that_never_binds_is_no_check(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_memory, "_FRACTIONS", (50.0,))
    outcome = full_memory.full_memory(context, TimeBox(_BRIEFLY))
    assert not outcome.passed
    assert "nothing was checked" in outcome.text


def test_pytest_s_report_is_read(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        """<testsuites><testsuite>
        <testcase classname="tests.core.test_a" name="test_good" />
        <testcase classname="tests.core.test_a" name="test_bad">
        <failure message="assert 1 == 2&#10;more">x</failure></testcase>
        <testcase classname="" name="tests.core.test_b"><error message="collection failure">x</error></testcase>
        <testcase classname="tests.core.test_a" name="test_not"><skipped message="needs a CUDA GPU" /></testcase>
        </testsuite></testsuites>"""
    )
    run = read_junit(report)
    assert run.passed == ("test_a::test_good",)
    assert run.failed == {"test_a::test_bad": "assert 1 == 2", "::tests.core.test_b": "collection failure"}
    assert run.skipped == {"test_a::test_not": "needs a CUDA GPU"}
    assert not judge(run, [], is_rehearsal=False).passed
    assert "test_a::test_bad: assert 1 == 2" in judge(run, [], is_rehearsal=False).text


@pytest.mark.parametrize(
    ("run", "on_a_card", "in_a_rehearsal"),
    [
        (PytestRun(("a",), {}, {}), True, True),
        (PytestRun(("a",), {}, {"b": "needs the shared data"}), True, True),
        (PytestRun((), {}, {"a": "needs a CUDA GPU"}), False, True),
        (PytestRun((), {}, {}), False, False),
        (PytestRun(("a",), {"b": "assert"}, {}), False, False),
    ],
)
def test_a_run_of_the_tests_is_judged(run: PytestRun, on_a_card: bool, in_a_rehearsal: bool) -> None:
    assert judge(run, [], is_rehearsal=False).passed is on_a_card
    assert judge(run, [], is_rehearsal=True).passed is in_a_rehearsal


def test_the_tests_marked_gpu_are_found() -> None:
    files = {path.name for path in Path(__file__).parents[1].rglob("test_*.py") if gpu_tests._runs_on_a_gpu(path)}
    assert {"test_extractor.py", "test_mask.py"} <= files


def test_tensor_float32_is_as_before_behind_the_block() -> None:
    def now() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = now()
    with tensor_float32(convolutions=not before[0], products=not before[1]):
        assert now() == (not before[0], not before[1])
    assert now() == before


def test_a_rehearsal_takes_the_captured_path(context: Context) -> None:
    extractor = on_device(settings_for(context, "silk-vggnp-mu"))
    assert extractor.graph_device is not None
    assert extractor.settings.max_num_keypoints < 1000
