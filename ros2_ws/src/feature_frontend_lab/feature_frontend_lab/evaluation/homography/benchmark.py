"""Evaluates every method on the same warped pairs and averages the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SettingsError, SourceError
from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.sources.image_folder import ImageFolderSource, is_image_folder, natural_key
from feature_frontend_lab.evaluation.homography.baselines import DescribedPoints, MethodProtocol, match_points
from feature_frontend_lab.evaluation.homography.metrics import (
    corner_error,
    estimate_homography,
    homography_accuracy,
    matching_accuracy,
    matching_score,
    repeatability,
)
from feature_frontend_lab.evaluation.homography.pairs import (
    HomographyPair,
    HomographyRange,
    make_pair,
    resize_short_side,
)

__all__ = ["HomographyBenchmark", "MethodResult", "evaluate_methods", "homography_pairs", "select_images"]

Uint8Array = npt.NDArray[np.uint8]

THRESHOLDS_PX = (1.0, 3.0)


@dataclass(frozen=True)
class HomographyBenchmark:
    """Settings of the benchmark: the same values and images give the same pairs and numbers.

    Attributes:
        image_count: Maximum number of images; a random selection if the folder has more.
        homographies: Number of pairs made from each image.
        keypoints: Budgets: the maximum number of keypoints per image.
        ratio_thresholds: Thresholds of the ratio test, each evaluated separately; 1 disables it.
        short_side: The images are resized to this shorter side, px; 0 keeps their size.
        seed: Seed of the selection of images, the homographies and the photometric changes.
        limits: Range of the view changes.

    Raises:
        SettingsError: A value is invalid.
    """

    image_count: int = 100
    homographies: int = 5
    keypoints: tuple[int, ...] = (1000, 5000)
    ratio_thresholds: tuple[float, ...] = (1.0,)
    short_side: int = 480
    seed: int = 0
    limits: HomographyRange = field(default_factory=HomographyRange)

    def __post_init__(self) -> None:
        """Checks the values."""
        least = {"image_count": self.image_count, "homographies": self.homographies, "keypoints": min(self.keypoints)}
        for name, value in least.items():
            if value < 1:
                raise SettingsError(f"{name} is {value}; expected at least 1")
        if not all(0 < ratio <= 1 for ratio in self.ratio_thresholds):
            raise SettingsError(
                f"ratio thresholds are {', '.join(map(str, self.ratio_thresholds))}; expected above 0, at most 1"
            )
        if self.short_side < 0 or self.seed < 0:
            raise SettingsError(f"short_side is {self.short_side} and seed {self.seed}; expected 0 or more")


@dataclass(frozen=True)
class MethodResult:
    """Means over all pairs of one method at one budget and ratio threshold; None if it has no descriptors.

    Attributes:
        method: Its name in this run.
        identity: Name with the version or the hash of the weights.
        budget: Maximum number of keypoints per image.
        ratio_threshold: Threshold of the ratio test; 1 for none.
        pairs: Number of pairs.
        mean_points: Mean number of points per image.
        mean_matches: Mean number of matches per pair.
        repeatability: At each of `THRESHOLDS_PX`.
        matching_accuracy: At each of `THRESHOLDS_PX` (MMA).
        matching_score: At each of `THRESHOLDS_PX` (MS).
        homography_accuracy: At each of `THRESHOLDS_PX`.
        homography_auc: Up to each of `THRESHOLDS_PX`.
        median_corner_error_px: Infinite if more than half of the homographies failed.
        seconds_per_image: Median time for detection and description on this machine; not part of the comparison.
        seconds_per_match: Median time to match a pair.
    """

    method: str
    identity: str
    budget: int
    ratio_threshold: float
    pairs: int
    mean_points: float
    repeatability: tuple[float, ...]
    mean_matches: float | None
    matching_accuracy: tuple[float, ...] | None
    matching_score: tuple[float, ...] | None
    homography_accuracy: tuple[float, ...] | None
    homography_auc: tuple[float, ...] | None
    median_corner_error_px: float | None
    seconds_per_image: float
    seconds_per_match: float | None


@dataclass
class _Tally:
    """Running sums over the pairs so far: numbers only."""

    points: list[int] = field(default_factory=list)
    matches: list[int] = field(default_factory=list)
    repeatability: list[tuple[float, ...]] = field(default_factory=list)
    matching_accuracy: list[tuple[float, ...]] = field(default_factory=list)
    matching_score: list[tuple[float, ...]] = field(default_factory=list)
    corner_errors_px: list[float] = field(default_factory=list)
    extraction_seconds: list[float] = field(default_factory=list)
    matching_seconds: list[float] = field(default_factory=list)
    described: bool = True


def select_images(folder: Path, count: int, seed: int) -> list[Path]:
    """At most `count` image files of a folder, selected by the seed, in natural order of their names.

    Raises:
        SourceError: The folder does not exist or contains no images.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; expected one with image files")
    files = [path for path in folder.iterdir() if path.is_file() and is_image_folder(path) and path.name[0] != "."]
    files.sort(key=lambda path: natural_key(path.name))
    if not files:
        raise SourceError(f"folder {folder} contains no images; expected files {' '.join(IMAGE_SUFFIXES)}")
    if len(files) <= count:
        return files
    chosen = np.random.default_rng(seed).choice(len(files), count, replace=False)
    return [files[index] for index in sorted(chosen)]


def homography_pairs(image: Uint8Array, index: int, benchmark: HomographyBenchmark) -> Iterator[HomographyPair]:
    """The pairs of the image at position `index`; each depends only on the seed, the position and its own number."""
    enlarged = resize_short_side(image, benchmark.short_side)
    for number in range(benchmark.homographies):
        yield make_pair(enlarged, benchmark.limits, np.random.default_rng([benchmark.seed, index, number]))


def evaluate_methods(
    methods: Mapping[str, MethodProtocol],
    files: Sequence[Path],
    benchmark: HomographyBenchmark,
    on_pair: Callable[[str], None] = lambda method: None,
) -> list[MethodResult]:
    """Runs every method at every budget and ratio threshold on the same pairs.

    Memory does not grow with the number of pairs: only one image and its views are held at a time.

    Args:
        methods: Methods by name.
        files: Image files.
        benchmark: Settings of the benchmark.
        on_pair: Called with the method's name after each pair of each method and budget.

    Returns:
        One result per budget, ratio threshold and method, in this order.

    Raises:
        SourceError: A file cannot be read.
        ImageError: An image is too small for a method.
    """
    ratios = benchmark.ratio_thresholds
    tallies = {
        (budget, ratio, name): _Tally() for budget in benchmark.keypoints for ratio in ratios for name in methods
    }
    for index, file in enumerate(files):
        image = next(ImageFolderSource(file).frames()).image
        pairs = list(homography_pairs(image, index, benchmark))
        for budget in benchmark.keypoints:
            for name, method in methods.items():
                alike = {ratio: tallies[budget, ratio, name] for ratio in ratios}
                found0 = _extract(method, pairs[0].image0, budget, alike.values())
                for pair in pairs:
                    found1 = _extract(method, pair.image1, budget, alike.values())
                    _score(found0, found1, pair, alike)
                    on_pair(name)
    return [
        _summary(name, methods[name].identity, budget, ratio, tally) for (budget, ratio, name), tally in tallies.items()
    ]


def _extract(method: MethodProtocol, image: Uint8Array, budget: int, tallies: Iterable[_Tally]) -> DescribedPoints:
    start = time.perf_counter()
    found = method.detect_and_describe(image, budget)
    seconds = time.perf_counter() - start
    for tally in tallies:
        tally.extraction_seconds.append(seconds)
        tally.points.append(len(found.points))
        tally.described = found.norm != "none"
    return found


def _score(
    found0: DescribedPoints, found1: DescribedPoints, pair: HomographyPair, tallies: Mapping[float, _Tally]
) -> None:
    """Scores a pair for each ratio threshold."""
    truth = pair.homography
    size0, size1 = ((image.shape[0], image.shape[1]) for image in (pair.image0, pair.image1))
    repeated = tuple(repeatability(found0.points, found1.points, truth, size0, size1, limit) for limit in THRESHOLDS_PX)
    for ratio, tally in tallies.items():
        tally.repeatability.append(repeated)
        if tally.described:
            _score_matches(found0, found1, pair, ratio, tally)


def _score_matches(
    found0: DescribedPoints, found1: DescribedPoints, pair: HomographyPair, ratio: float, tally: _Tally
) -> None:
    truth = pair.homography
    size0, size1 = ((image.shape[0], image.shape[1]) for image in (pair.image0, pair.image1))
    start = time.perf_counter()
    matches = match_points(found0, found1, ratio)
    tally.matching_seconds.append(time.perf_counter() - start)
    matched0, matched1 = found0.points[matches[:, 0]], found1.points[matches[:, 1]]
    tally.matches.append(len(matches))
    tally.matching_accuracy.append(
        tuple(matching_accuracy(matched0, matched1, truth, limit) for limit in THRESHOLDS_PX)
    )
    tally.matching_score.append(
        tuple(
            matching_score(found0.points, found1.points, matches, truth, size0, size1, limit) for limit in THRESHOLDS_PX
        )
    )
    tally.corner_errors_px.append(corner_error(estimate_homography(matched0, matched1), truth, size0))


def _summary(name: str, identity: str, budget: int, ratio_threshold: float, tally: _Tally) -> MethodResult:
    score = homography_accuracy(np.array(tally.corner_errors_px), THRESHOLDS_PX)
    described = tally.described
    return MethodResult(
        method=name,
        identity=identity,
        budget=budget,
        ratio_threshold=ratio_threshold,
        pairs=len(tally.repeatability),
        mean_points=float(np.mean(tally.points)),
        repeatability=_means(tally.repeatability),
        mean_matches=float(np.mean(tally.matches)) if described else None,
        matching_accuracy=_means(tally.matching_accuracy) if described else None,
        matching_score=_means(tally.matching_score) if described else None,
        homography_accuracy=score.accuracy if described else None,
        homography_auc=score.area_under_curve if described else None,
        median_corner_error_px=score.median_error_px if described else None,
        seconds_per_image=float(np.median(tally.extraction_seconds)),
        seconds_per_match=float(np.median(tally.matching_seconds)) if described else None,
    )


def _means(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(float(mean) for mean in np.mean(np.array(rows), axis=0))
