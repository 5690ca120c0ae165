"""Steps: whole frames compared with kornia's ALIKED and the plain network with torch.compile, in alternation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.agreement import compare_found
from benchmarks.engines.extraction import KorniaEngine, NetworkEngine, has_kornia
from benchmarks.engines.frames import FrameEngine, KorniaFrames, OwnFrames
from benchmarks.images import Frames
from benchmarks.measure import interleave, synchronizer
from benchmarks.ratios import Ratio, compare
from benchmarks.tables import milliseconds
from benchmarks.types import Canvas, Table
from feature_frontend.extractors.extractor import Extractor
from scripts.gpu_check.fast.aims import AIMS, aim_text
from scripts.gpu_check.fast.floors import Floors, matching_operations
from scripts.gpu_check.fast.settings import PRECISIONS, Timed, at_turn, frames_for, headline
from scripts.gpu_check.fast.whole_frames import COLUMNS, percentiles, rounds_within
from scripts.gpu_check.models import available, on_device, plain_on_device, weights_of
from scripts.gpu_check.step import Context, LeftOutError, Outcome
from scripts.gpu_check.timebox import TimeBox

__all__ = ["beside_compiled", "beside_kornia", "beside_kornia_half"]

# Of a step's time; the rest is for setup and graph capture.
_TIMED_FRACTION = 0.7
# kornia suppresses non-maxima in one round, so its points near stronger ones differ.
_LEAST_STRONGEST, _LEAST_COSINE = 0.95, 0.98


class _KorniaHalf(KorniaFrames):
    """kornia has no half-precision mode: uses torch's autocast, as in its documentation of training."""

    def __call__(self, image: Canvas) -> Any:
        """As in float32."""
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.autocast(kind, dtype=torch.float16 if kind == "cuda" else torch.bfloat16):
            return super().__call__(image)


def beside_kornia(context: Context, box: TimeBox) -> Outcome:
    """The headline: aliked-n16 in float16 and float32, compared with kornia's and the plain network in float32."""
    timed = headline(context)
    available(context, [timed.network])
    own = [_own(context, headline(context, precision)) for precision in PRECISIONS]
    engines: list[FrameEngine] = [*own, _plain(context, headline(context, "float32"))]
    why_not = "" if has_kornia() else "kornia is not installed: nothing to compare with"
    if not why_not:
        engines.append(_kornia(context, timed, KorniaFrames))
    measured = _Measured(context, box, timed, engines)
    text = "; ".join(f"{engine.name} p50 {measured.timings[engine.name].median:.2f} ms" for engine in engines)
    half = measured.timings[own[0].name].median
    text += aim_text(context, half <= AIMS.frame_ms, f"aim {AIMS.frame_ms:g} ms in float16")
    if why_not:
        text += f"; {why_not}"
    else:
        best = measured.ratios(engines[-1].name)[own[0].name].of_rounds
        text += f"; {best:.1f} times as fast in float16 as kornia in float32"
        text += aim_text(context, best >= AIMS.times_kornia, f"aim {AIMS.times_kornia:g}")
    return measured.outcome(text, engines[-1].name, own)


def beside_kornia_half(context: Context, box: TimeBox) -> Outcome:
    """float16 on both sides. A separate step, as on a CPU, kornia with autocast has crashed the process."""
    if not has_kornia():
        msg = "kornia is not installed"
        raise LeftOutError(msg)
    timed = headline(context)
    available(context, [timed.network])
    own, kornia = _own(context, timed), _kornia(context, timed, _KorniaHalf, " autocast")
    measured = _Measured(context, box, timed, [own, kornia])
    ratio = measured.ratios(kornia.name)[own.name]
    return measured.outcome(f"kornia with autocast takes {ratio} times as long as {own.name}", kornia.name, [own])


def beside_compiled(context: Context, box: TimeBox) -> Outcome:
    """The plain network with torch.compile, mode reduce-overhead: the speed without this project's optimisations."""
    model = "silk-vggnp-mu" if context.is_rehearsal else "aliked-n16"
    available(context, [model])
    timed = headline(context)
    timed = Timed(model, "chain", "mnn", timed.size, timed.budget, "float32" if context.is_rehearsal else "float16")
    own, compiled = _own(context, timed), _compiled(context, timed)
    measured = _Measured(context, box, timed, [own, compiled])
    ratio = measured.ratios(compiled.name)[own.name]
    how = "by the backend eager, in a rehearsal" if context.is_rehearsal else "in mode reduce-overhead"
    text = f"the plain network compiled {how} takes {ratio} times as long as {own.name}"
    return measured.outcome(text, compiled.name, [own])


class _Measured:
    """Engines timed in alternation on the same frames, with their agreement."""

    def __init__(self, context: Context, box: TimeBox, timed: Timed, engines: Sequence[FrameEngine]) -> None:
        self._context, self._timed = context, timed
        self._frames = frames_for(context, timed.size)
        for engine in engines:
            engine.prepare(self._frames.at(0), timed.budget)
        self.matches: dict[str, list[int]] = {engine.name: [] for engine in engines}
        self._differing = _disagreements(engines, self._frames)
        by_name = {engine.name: engine for engine in engines}

        def call(engine: FrameEngine, number: int) -> Any:
            return engine(at_turn(self._frames, number))

        calls: dict[str, Callable[[int], Any]] = {name: partial(call, engine) for name, engine in by_name.items()}
        self.rounds = rounds_within(context, _TIMED_FRACTION * box.left_s, lambda: [each(0) for each in calls.values()])
        self.timings = interleave(
            calls,
            self.rounds,
            warmup=1 if context.is_rehearsal else 10,
            synchronize=synchronizer(context.device),
            inspect=lambda name, result: self.matches[name].append(len(by_name[name].pairs(result))),
        )

    def ratios(self, peer: str) -> dict[str, Ratio]:
        """The peer's time over that of each other engine."""
        return {name: compare(self.timings[peer], timing) for name, timing in self.timings.items() if name != peer}

    def outcome(self, text: str, peer: str, own: Sequence[OwnFrames]) -> Outcome:
        """Failed if two engines' results differ: then their times cannot be compared."""
        floors = Floors(self._context.device)
        dim = own[0].engine.extractor.descriptor_dim
        matching = matching_operations(self._timed.budget, dim)
        floor_ms = {engine.name: floors.of(engine.engine.extractor, [self._frames.at(0)], matching) for engine in own}
        ratios = self.ratios(peer)
        rows = tuple(
            (
                name,
                str(int(np.median(self.matches[name]))),
                *percentiles(timing),
                milliseconds(floor_ms[name]["ms"]) if name in floor_ms else "-",
                str(ratios[name]) if name in ratios else "1",
            )
            for name, timing in self.timings.items()
        )
        note = (
            f"{self.rounds} rounds in turns over {self._frames.description}; image on the host in, keypoints, scores, "
            f"descriptors and matches with the frame before on the host out. Last column: time of {peer} over "
            "this one's, median of the rounds (95 % interval). float32 is without TF32, for all of them."
        )
        title = f"{self._timed.model} {self._timed.where}, {self._context.device}"
        table = Table(title, ("engine", "matches", *COLUMNS, "floor", "times as fast"), rows, note)
        data = {
            "setting": self._timed.name,
            "engines": {name: timing.as_json() for name, timing in self.timings.items()},
            "matches": {name: float(np.median(counts)) for name, counts in self.matches.items()},
            "ratios": {name: ratio.as_json() for name, ratio in ratios.items()},
            "floors": floor_ms,
            "differing": self._differing,
        }
        if self._differing:
            text += f"; NOT THE SAME: {'; '.join(self._differing)}"
        return Outcome(passed=not self._differing, text=text, tables=[table], data=data)


def _own(context: Context, timed: Timed) -> OwnFrames:
    return OwnFrames(NetworkEngine(f"{timed.network} {timed.precision}", on_device(timed.settings(context))))


def _plain(context: Context, timed: Timed) -> OwnFrames:
    extractor = plain_on_device(timed.settings(context))
    return OwnFrames(NetworkEngine(f"{timed.network} plain {timed.precision}", extractor))


def _kornia(
    context: Context, timed: Timed, kind: Callable[[KorniaEngine], KorniaFrames], suffix: str = ""
) -> KorniaFrames:
    weights = weights_of(timed.network, str(context.shared / "weights"))
    frames = kind(KorniaEngine(timed.network, weights, torch.device(context.device)))
    frames.name += suffix
    return frames


def _compiled(context: Context, timed: Timed) -> OwnFrames:
    """Compiled beforehand, so that its failure can be told apart from ours.

    Raises:
        LeftOutError: torch.compile does not work on this machine.
    """
    extractor = plain_on_device(timed.settings(context))
    # In a rehearsal any backend suffices; inductor takes a minute on a CPU.
    _compile(extractor, {"backend": "eager"} if context.is_rehearsal else {"mode": "reduce-overhead"})
    try:
        extractor.extract(frames_for(context, timed.size).at(0))
    except Exception as error:
        reason = str(error).strip().splitlines()
        msg = f"torch.compile does not work here: {type(error).__name__}: {reason[0] if reason else 'no text'}"
        raise LeftOutError(msg) from error
    return OwnFrames(NetworkEngine(f"{timed.network} torch.compile {timed.precision}", extractor))


def _compile(extractor: Extractor, how: dict[str, str]) -> None:
    network: Any = extractor._network
    compile_: Callable[[Any], Any] = partial(torch.compile, dynamic=False, **how)
    if hasattr(network, "_encode"):
        # SiLK computes its maps in parts; the convolutions dominate.
        network._encode = compile_(network._encode)
    else:
        network.forward = compile_(network.forward)


def _disagreements(engines: Sequence[FrameEngine], frames: Frames) -> list[str]:
    """Describes which engines' results differ from the last one's."""
    image = frames.at(0)
    *others, last = engines
    expected = last.found(last(image))
    texts = []
    for engine in others:
        agreement = compare_found(expected, engine.found(engine(image)))
        if agreement.strongest_fraction < _LEAST_STRONGEST or agreement.median_cosine < _LEAST_COSINE:
            texts.append(
                f"of the better half of what {engine.name} finds, {last.name} has {agreement.strongest_fraction:.1%}, "
                f"median cosine {agreement.median_cosine:.4f}"
            )
    return texts
