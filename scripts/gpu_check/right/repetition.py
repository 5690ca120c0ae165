"""Step: the same input repeatedly gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.images import Frames
from benchmarks.types import Table
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.types import Features, FrameResult, Matches
from scripts.gpu_check.models import available, on_device, settings_for, why_no_lightglue
from scripts.gpu_check.real_frames import sequences
from scripts.gpu_check.right.comparing import fingerprint
from scripts.gpu_check.right.sequences import run_sequence
from scripts.gpu_check.right.wording import mark, verdict
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import TimeBox

__all__ = ["Repeated", "repeat", "same_bytes"]

_TIMES, _REHEARSED_TIMES = 100, 3
_SEQUENCE_TIMES = 2
_BATCH = 8


@dataclass(frozen=True)
class Repeated:
    """Results of repeated runs.

    Attributes:
        times: Number of runs.
        distinct: Number of different results, at least 1.
        odd_ones: Number of results that differ from the most frequent one.
    """

    times: int
    distinct: int
    odd_ones: int


@dataclass(frozen=True)
class _Subject:
    """A function to repeat: `run` returns the fingerprint of what must not change."""

    name: str
    times: int
    make: Callable[[], Callable[[], str]]


def repeat(run: Callable[[], str], times: int) -> Repeated:
    """Runs it repeatedly and counts the results."""
    counts = Counter(run() for _ in range(times))
    return Repeated(times, len(counts), times - max(counts.values()))


def same_bytes(context: Context, box: TimeBox) -> Outcome:
    """Features, batches, frames with matches, LightGlue and the persistent tracker."""
    first = "silk-vggnp-mu" if context.is_rehearsal else "aliked-n16"
    networks, missing = available(context, list(dict.fromkeys((first, "silk-vggnp-mu"))))
    frames = next(iter(sequences(context, 2 if context.is_rehearsal else 10, (160, 128)).values()))
    why_not = why_no_lightglue(context)
    subjects = [subject for network in networks for subject in _subjects(context, network, frames)]
    if not why_not and "aliked-n16" in networks:
        subjects.append(_chain(context, "aliked-n16", frames, matcher="lightglue"))
    elif not context.is_rehearsal:
        missing.append(f"lightglue ({why_not or 'no aliked-n16'})")
    rows, data, missed = [], {}, []
    for subject in box.each(subjects, lambda each: each.name):
        with box.attempt(subject.name):
            result = repeat(subject.make(), subject.times)
            passes = result.distinct == 1
            rows.append((subject.name, str(result.times), str(result.distinct), str(result.odd_ones), mark(passes)))
            data[subject.name] = vars(result)
            missed += [] if passes else [subject.name]
    note = "A frame comes after another one each time, so that nothing of that one may be left in what follows."
    table = Table("The same input again and again", ("what", "times", "different", "odd ones", ""), tuple(rows), note)
    return Outcome(not missed, verdict(len(rows), missed, missing), [table], {"results": data, "missing": missing})


def _subjects(context: Context, network: str, frames: Frames) -> list[_Subject]:
    times = _REHEARSED_TIMES if context.is_rehearsal else _TIMES
    batch = [frames.at(number) for number in range(2 if context.is_rehearsal else _BATCH)]

    def alone(precision: str) -> Callable[[], Callable[[], str]]:
        def make() -> Callable[[], str]:
            extractor = on_device(settings_for(context, network, precision=precision))

            def run() -> str:
                extractor.extract(frames.at(1))
                return _of_features(extractor.extract(frames.at(0)))

            return run

        return make

    def in_batch() -> Callable[[], str]:
        extractor: Extractor = on_device(settings_for(context, network))
        return lambda: fingerprint(*(part for each in extractor.extract_batch(batch) for part in _parts(each)))

    def followed() -> Callable[[], str]:
        settings = settings_for(context, network, tracker="persistent")
        frontend = Frontend(on_device(settings), settings)

        def run() -> str:
            results = run_sequence(frontend, frames)
            # Ids continue from run to run; ages start again.
            ages = [torch.from_numpy(result.tracks.ages.astype(np.int64)) for result in results]
            return "".join([*map(_of_result, results), fingerprint(*ages)])

        return run

    precisions = ("float32", "bfloat16") if context.is_rehearsal else ("float32", "float16", "bfloat16")
    return [
        _chain(context, network, frames),
        _Subject(f"{network} persistent, {len(frames)} images", _SEQUENCE_TIMES, followed),
        *(_Subject(f"{network} {precision}", times, alone(precision)) for precision in precisions),
        _Subject(f"{network}, batch of {len(batch)}", max(times // 4, 2), in_batch),
    ]


def _chain(context: Context, network: str, frames: Frames, matcher: str = "mnn") -> _Subject:
    """A frame and its matches with the previous one."""

    def make() -> Callable[[], str]:
        settings = settings_for(context, network, tracker="chain", matcher=matcher)
        frontend = Frontend(on_device(settings), settings)
        stamps = iter(range(10**6))

        def run() -> str:
            frontend.process(frames.at(1), next(stamps))
            return _of_result(frontend.process(frames.at(0), next(stamps)))

        return run

    times = _REHEARSED_TIMES if context.is_rehearsal else _TIMES
    return _Subject(f"{network} with matches by {matcher}", times, make)


def _parts(features: Features) -> tuple[torch.Tensor, ...]:
    return features.keypoints, features.scores, features.descriptors


def _of_features(features: Features) -> str:
    return fingerprint(*_parts(features))


def _of_result(result: FrameResult) -> str:
    matches: Matches = result.matches
    return fingerprint(*_parts(result.features), matches.indices0, matches.indices1, matches.similarity, matches.margin)
