"""Suite `match`: mutual nearest neighbours of descriptors; ours compared with OpenCV's brute force and kornia."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.engines.extraction import SHIPPED_EXTRACTOR
from benchmarks.engines.matching import ENGINES, MatchingEngine, MatchingInput, load_engines
from benchmarks.images import load_frames, resized
from benchmarks.measure import interleave, synchronizer
from benchmarks.plot import Line, draw_lines
from benchmarks.ratios import Ratio, compare
from benchmarks.tables import TIMING_COLUMNS, timing_cells
from benchmarks.ties import TIE, PairDifference, compare_pairs
from benchmarks.types import Options, SuiteResult, Table, Timing
from feature_frontend.errors import FeatureFrontendError, WeightsUnavailableError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.runtime.device import resolve_device
from feature_frontend.settings import ExtractionSettings
from feature_frontend.types import Features

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ENGINES", "HELP", "run"]

HELP = "descriptors in, mutual nearest neighbours out: ours, OpenCV's brute force with cross-check, kornia"

_POINTS = (256, 512, 1024, 2048, 4096, 10_000)
# Large enough for 10,000 local maxima.
_SIZE = (1280, 960)
_FRAME_COUNT = 4
_ROUNDS, _QUICK_ROUNDS, _FEWEST_ROUNDS = 30, 5, 5
# Above this number of similarities, for which OpenCV takes about 0.1 s, the number of rounds decreases.
_FULL_ROUNDS_UP_TO = 2048 * 2048
_NOISE = 0.02  # standard deviation of each component of the descriptors added to an image's

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Measurement:
    """All engines in the same rounds, with `points` descriptors per side."""

    points: int
    timings: dict[str, Timing]
    ratios: dict[str, Ratio]
    differences: dict[str, PairDifference]

    def as_json(self) -> dict[str, Any]:
        return {
            "points": self.points,
            "engines": {name: timing.as_json() for name, timing in self.timings.items()},
            "ratios": {f"{name} / ours": ratio.as_json() for name, ratio in self.ratios.items()},
            "pairs": {f"{name} vs ours": difference.as_json() for name, difference in self.differences.items()},
        }


class PairsDifferError(FeatureFrontendError):
    """A peer's pairs differ from ours by more than ties."""


def run(options: Options, log: Log) -> SuiteResult:
    """Measures each number of points.

    Raises:
        FeatureFrontendError: Images or weights cannot be read, or engines find different pairs that are not ties.
    """
    points = options.keypoints or (_POINTS[:4] if options.quick else _POINTS)
    engines = load_engines(options, log)
    features, source = _real_features(options, max(points), log)
    measured = []
    for count in points:
        rounds = _rounds(options, count)
        log(f"match: {count} x {count}, {rounds} rounds")
        measured.append(_measure(options, engines, [_exactly(one, count) for one in features], rounds))
    dim = features[0].descriptor_dim
    data = {"descriptors": source, "descriptor_dim": dim, "measurements": [row.as_json() for row in measured]}
    tables = [_time_table(measured, dim, source)]
    tables += [table for table in (_ratio_table(measured), _pairs_table(measured)) if table.rows]
    return SuiteResult("match", tuple(tables), data, (partial(_plot, measured, dim),))


def _rounds(options: Options, points: int) -> int:
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    return max(min(rounds, _FEWEST_ROUNDS), min(rounds, rounds * _FULL_ROUNDS_UP_TO // points**2))


def _real_features(options: Options, points: int, log: Log) -> tuple[list[Features], str]:
    """Features of successive frames, each with at most `points`, and their source."""
    settings = ExtractionSettings(
        extractor=options.extractors[0],
        device=options.device,
        weights_dir=options.weights_dir,
        max_num_keypoints=points,
    )
    try:
        extractor = Extractor.from_pretrained(settings)
    except WeightsUnavailableError as error:
        log(f"match: takes descriptors of {SHIPPED_EXTRACTOR}: {error}")
        extractor = Extractor.from_pretrained(replace(settings, extractor=SHIPPED_EXTRACTOR))
    frames = resized(load_frames(options.images, _FRAME_COUNT), options.sizes[0] if options.sizes else _SIZE)
    log(f"match: describing at most {points} points of each of {len(frames)} frames by {extractor.identity}")
    features = [extractor.extract(image) for image in frames.images]
    fewest = min(len(one) for one in features)
    source = f"{extractor.identity}, the best of {frames.description}, successive frames against each other"
    if fewest < points:
        source += f"; beyond {fewest}, copies of these with Gaussian noise of {_NOISE} a component"
    return features, source


def _exactly(features: Features, count: int) -> Features:
    """The best `count` rows, filled up with noisy copies if there are fewer."""
    missing = count - len(features)
    keypoints, scores, descriptors = features.keypoints, features.scores, features.descriptors.float()
    if missing > 0:
        generator = torch.Generator().manual_seed(len(features))
        rows = torch.randint(len(features), (missing,), generator=generator).to(descriptors.device)
        noise = torch.randn(missing, features.descriptor_dim, generator=generator).to(descriptors.device)
        copies = torch.nn.functional.normalize(descriptors[rows] + _NOISE * noise, dim=1)
        keypoints = torch.cat([keypoints, keypoints[rows]])
        scores = torch.cat([scores, scores[rows]])
        descriptors = torch.cat([descriptors, copies])
    return replace(
        features, keypoints=keypoints[:count], scores=scores[:count], descriptors=descriptors[:count].contiguous()
    )


def _measure(
    options: Options, engines: Sequence[MatchingEngine], features: Sequence[Features], rounds: int
) -> _Measurement:
    device = resolve_device(options.device)
    inputs = [
        MatchingInput.of(earlier, current, device)
        for earlier, current in zip(features, features[1:] or features, strict=False)
    ]
    differences = _check_pairs(engines, inputs)

    def call(engine: MatchingEngine, number: int) -> Any:
        return engine(inputs[number % len(inputs)])

    timings = interleave(
        {engine.name: partial(call, engine) for engine in engines},
        rounds,
        warmup=options.warmup,
        synchronize=synchronizer(options.device),
    )
    ratios = {name: compare(peer, timings["ours"]) for name, peer in timings.items() if "ours" in timings}
    ratios.pop("ours", None)
    return _Measurement(len(features[0]), timings, ratios, differences)


def _check_pairs(engines: Sequence[MatchingEngine], inputs: Sequence[MatchingInput]) -> dict[str, PairDifference]:
    """Compares each engine's pairs with ours over all inputs.

    Raises:
        PairsDifferError: They differ by more than ties.
    """
    by_name = {engine.name: engine for engine in engines}
    ours = by_name.pop("ours", None)
    if ours is None:
        return {}
    totals = {}
    for name, engine in by_name.items():
        parts = [
            compare_pairs(ours.pairs(ours(one)), engine.pairs(engine(one)), one.descriptors0, one.descriptors1)
            for one in inputs
        ]
        total = PairDifference(
            sum(part.pairs for part in parts), sum(part.differing for part in parts), sum(part.ties for part in parts)
        )
        if not total.is_same:
            msg = (
                f"{name} and ours differ in {total.differing} of {total.pairs} pairs, and only {total.ties} of these "
                f"are ties (rivals within {TIE:g}); expected the same pairs: times of different results do not compare"
            )
            raise PairsDifferError(msg)
        totals[name] = total
    return totals


def _time_table(measured: Sequence[_Measurement], dim: int, source: str) -> Table:
    rows = tuple(
        (f"{row.points} x {row.points}: {name}", str(len(timing.samples_ms)), *timing_cells(timing))
        for row in measured
        for name, timing in row.timings.items()
    )
    note = f"Descriptors: {source}. Interleaved rounds; each engine from what its user has to what its user gets."
    return Table(
        f"Mutual nearest neighbours, {dim}-d float32", ("points: engine", "rounds", *TIMING_COLUMNS), rows, note
    )


def _ratio_table(measured: Sequence[_Measurement]) -> Table:
    names = list(dict.fromkeys(name for row in measured for name in row.ratios))
    rows = tuple((f"{row.points} x {row.points}", *(str(row.ratios[name]) for name in names)) for row in measured)
    note = "Peer's time over ours, median of the rounds' ratios and its 95 % interval; above 1 ours is the faster."
    return Table("How many times as fast as each peer", ("points", *names), rows if names else (), note)


def _pairs_table(measured: Sequence[_Measurement]) -> Table:
    rows = tuple(
        (f"{row.points} x {row.points}: {name}", str(total.pairs), str(total.differing), str(total.ties))
        for row in measured
        for name, total in row.differences.items()
    )
    note = f"Over all frame pairs, before timing. A tie: a rival within {TIE:g} in similarity, computed in float64."
    return Table(
        "Are they the same pairs as ours?", ("points: engine", "pairs", "differing", "of these ties"), rows, note
    )


def _plot(measured: Sequence[_Measurement], dim: int, axes: Axes) -> None:
    names = list(measured[0].timings)
    lines = [Line(name, tuple((row.points, row.timings[name].median) for row in measured)) for name in names]
    labels = {float(row.points): str(row.points) for row in measured}
    draw_lines(f"Mutual nearest neighbours, {dim}-d float32", "descriptors a side", lines, labels, axes)
