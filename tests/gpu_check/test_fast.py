"""The steps of the part `fast`: what they time, their order, and that their checks can fail."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.engines.extraction import NetworkEngine
from benchmarks.engines.frames import OwnFrames
from feature_frontend.pipeline.frontend import Frontend
from scripts.gpu_check.fast import batches, peers, speed_plot, trace, whole_frames
from scripts.gpu_check.fast.aims import aim_text
from scripts.gpu_check.fast.floors import Floors, matching_operations
from scripts.gpu_check.fast.settings import NETWORKS, at_turn, frames_for, headline, settings_in_order
from scripts.gpu_check.fast.speed_plot import Curve, draw
from scripts.gpu_check.fast.trace import Kernel, longest
from scripts.gpu_check.models import on_device
from scripts.gpu_check.parts import fast
from scripts.gpu_check.step import Context, LeftOutError
from scripts.gpu_check.timebox import TimeBox
from tests.campaign import Campaign
from tests.conftest import shared_folder

_BRIEFLY = 0.0


def _context(folder: Path, device: str = "cpu", shared: Path | None = None) -> Context:
    return Context(device, shared or shared_folder(), folder, folder, time.monotonic() + 600)


def test_every_setting_is_timed_the_headline_first(tmp_path: Path) -> None:
    context = _context(tmp_path, "cuda")
    settings = settings_in_order(context, NETWORKS, has_lightglue=True)
    assert settings[0] == headline(context)
    assert settings[0].name == "aliked-n16 chain 640x480 1000 float16"
    # Five networks with two trackers and LightGlue with one, two sizes, two budgets, two formats.
    assert len(set(settings)) == len(settings) == (5 * 2 + 1) * 2 * 2 * 2
    one_thing = {each.name for each in settings[1 : whole_frames._FIRST]}
    assert one_thing >= {f"{network} chain 640x480 1000 float16" for network in NETWORKS[1:]}
    assert "aliked-n16 chain 640x480 1000 float32" in one_thing
    assert "aliked-n16 persistent 640x480 1000 float16" in one_thing
    assert "aliked-n16 chain 1920x1080 1000 float16" in one_thing
    assert "aliked-n16+lightglue chain 640x480 1000 float16" in one_thing
    assert not any(each.matcher == "lightglue" for each in settings_in_order(context, NETWORKS, has_lightglue=False))


def test_images_of_1080p_are_not_made_smaller(tmp_path: Path) -> None:
    settings = settings_in_order(_context(tmp_path), NETWORKS, has_lightglue=False)
    for timed in settings[:3]:
        assert timed.settings(_context(tmp_path)).max_pixels >= timed.size[0] * timed.size[1]


def test_a_sequence_goes_there_and_back(tmp_path: Path) -> None:
    frames = frames_for(_context(tmp_path, shared=tmp_path), (64, 48))
    assert len(frames) == 3
    order = [next(i for i in range(3) if frames.images[i] is at_turn(frames, number)) for number in range(9)]
    assert order == [0, 1, 2, 1, 0, 1, 2, 1, 0]


def test_aims_are_for_a_card(tmp_path: Path) -> None:
    assert aim_text(_context(tmp_path), is_met=False, aim="aim 1 ms") == ""
    card = _context(tmp_path, "cuda")
    assert aim_text(card, is_met=True, aim="aim 1 ms") == " (aim 1 ms: met)"
    assert aim_text(card, is_met=False, aim="aim 1 ms") == " (aim 1 ms: MISSED)"


def test_the_longest_kernels_have_shares_of_all() -> None:
    found = longest([Kernel(f"k{ms}", 1, ms) for ms in (1.0, 5.0, 2.0, 2.0)], 2)
    assert [(kernel.ms, fraction) for kernel, fraction in found] == [(5.0, 0.5), (2.0, 0.2)]
    assert longest([], 5) == []


def test_kernels_are_named_briefly() -> None:
    name = "void at::native::(anonymous namespace)::elementwise_kernel<128, 4, at::Lambda<int>>(int, float*)"
    assert trace._short(name) == "at::native::elementwise_kernel"
    assert trace._short("Memcpy HtoD (Pinned -> Device)") == "Memcpy HtoD"


def test_a_frame_has_the_operations_of_its_network_and_of_its_matching(tmp_path: Path) -> None:
    context = _context(tmp_path)
    timed = next(
        each for each in settings_in_order(context, ["silk-vggnp-mu"], has_lightglue=False) if each.tracker == "chain"
    )
    extractor = on_device(timed.settings(context))
    images = [at_turn(frames_for(context, timed.size), number) for number in (0, 1)]
    floors = Floors("cpu")
    one, two = floors.of(extractor, images[:1]), floors.of(extractor, images)
    assert two["operations"] == pytest.approx(2 * one["operations"], rel=0.01)
    width, height = timed.size
    # The first two convolutions, 1 to 64 and 64 to 64 channels, are most of it, and one product is what matches.
    assert one["operations"] > 2 * 9 * (64 + 64 * 64) * (width - 8) * (height - 8)
    assert floors.of(extractor, images[:1], 10**9)["operations"] == pytest.approx(one["operations"] + 1e9)
    assert one["ms"] > 0
    assert matching_operations(100, 32) == 2 * 100 * 100 * 32
    a, b = torch.ones(10, 4), torch.ones(4, 10)
    assert matching_operations(10, 4, lambda: a @ b) == matching_operations(10, 4)


def test_curves_are_drawn() -> None:
    curves = {
        "float16": Curve({(640, 480): 1.0, (320, 240): 0.5}, {(640, 480): 0.1}, {1: 1.0, 8: 0.4}, {1: 0.1, 8: 0.1}),
        "float32": Curve({(640, 480): 2.0}),
    }
    by_size, by_batch = draw(curves, "aliked-n16", (640, 480), "cuda").axes
    assert [line.get_label() for line in by_size.lines] == ["float16", "float16 floor", "float32"]
    assert [label.get_text() for label in by_size.get_xticklabels()] == ["320x240", "640x480"]
    assert by_size.get_yscale() == "log"
    assert np.asarray(by_batch.lines[0].get_xydata()).tolist() == [[1, 1.0], [8, 0.4]]


def test_engines_that_find_other_things_are_named(tmp_path: Path) -> None:
    context = _context(tmp_path)
    timed = next(iter(settings_in_order(context, ["silk-vggnp-mu"], has_lightglue=False)))
    frames = frames_for(context, (320, 240))
    good, same, other = (OwnFrames(NetworkEngine(name, on_device(timed.settings(context)))) for name in "abc")
    network: torch.nn.Module = other.engine.extractor._network  # type: ignore[assignment]
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    assert peers._disagreements([same, good], frames) == []
    (text,) = peers._disagreements([same, other, good], frames)
    assert text.startswith("of the better half of what c finds, a has ")


def test_a_compiler_that_does_not_work_leaves_the_step_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        def fail(*_: object) -> object:
            msg = "no C compiler found"
            raise RuntimeError(msg)

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(LeftOutError, match=r"torch\.compile does not work here: RuntimeError: no C compiler found"):
        peers.beside_compiled(_context(tmp_path), TimeBox(_BRIEFLY))


def test_without_weights_kornia_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(LeftOutError, match="no weights of aliked-t16"):
        peers.beside_kornia(_context(tmp_path, shared=tmp_path), TimeBox(_BRIEFLY))


@pytest.mark.parametrize("step", [batches.batches, whole_frames.whole_frames, speed_plot.speed_against_size_and_batch])
def test_steps_time_something_with_the_shipped_network_alone(
    step: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, campaign: Campaign
) -> None:
    if step is not whole_frames.whole_frames:
        campaign.only("the rehearsal of the whole check begins every part")
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outcome = step(_context(tmp_path, shared=tmp_path), TimeBox(_BRIEFLY))  # type: ignore[operator]
    assert outcome.passed
    assert len(outcome.tables[0].rows) == 1
    assert "aim" not in outcome.text
    assert all(path.stat().st_size > 0 for path in outcome.files)


def test_the_trace_is_of_one_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = _context(tmp_path, shared=tmp_path)
    shipped = settings_in_order(context, ["silk-vggnp-mu"], has_lightglue=False)[0]
    monkeypatch.setattr(trace, "headline", lambda *_args, **_options: shipped)
    calls = []
    process = Frontend.process
    monkeypatch.setattr(Frontend, "process", lambda self, *args: calls.append(args) or process(self, *args))
    outcome = trace.one_frame(context, TimeBox(_BRIEFLY))
    assert outcome.passed
    assert len(calls) == 3  # warm-up, without the profiler, with it
    assert [path.name for path in outcome.files] == ["frame_trace.json.gz"]
    assert len(outcome.tables[0].rows) == 6
    assert "longest: aten::" in outcome.text


def test_every_step_has_a_name(tmp_path: Path) -> None:
    names = [step.name for step in fast.steps(_context(tmp_path))]
    assert names[0] == "beside_kornia"
    assert len(set(names)) == len(names)
