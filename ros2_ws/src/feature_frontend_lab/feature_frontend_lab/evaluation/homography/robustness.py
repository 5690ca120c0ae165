"""Matching over rotation and scale, as in the ALIKED paper (VI-C), with rotated and downscaled photographs.

The paper rotates the reference images of HPatches' viewpoint scenes by 0 to 45 degrees in steps of 3 and scales them by
2^-s, s from 0 to 3 in steps of 0.3. Details that it leaves open are chosen here so that only the rotation or the scale
changes: no view shows a border or anything outside the photograph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SettingsError
from feature_frontend.sources.image_folder import ImageFolderSource
from feature_frontend_lab.evaluation.homography.baselines import MethodProtocol, match_points
from feature_frontend_lab.evaluation.homography.metrics import matching_accuracy
from feature_frontend_lab.evaluation.homography.pairs import HomographyPair, resize_short_side

__all__ = [
    "ANGLES_DEG",
    "OCTAVES",
    "Curve",
    "RobustnessBenchmark",
    "RobustnessResult",
    "evaluate_robustness",
    "scaled_pair",
    "turned_pair",
]

Uint8Array = npt.NDArray[np.uint8]
_Row = list[tuple[float, int]]  # accuracy and number of matches of each pair of an image

ANGLES_DEG = tuple(float(angle) for angle in range(0, 46, 3))
OCTAVES = tuple(round(0.3 * step, 1) for step in range(11))
_SMALLEST_SIDE = 32  # px, accepted by every extractor


@dataclass(frozen=True)
class RobustnessBenchmark:
    """Settings of the benchmark: the same values and images give the same pairs and numbers.

    Attributes:
        image_count: Maximum number of images; a random selection if the folder has more.
        keypoints: Maximum number of keypoints per image.
        short_side: The images are resized to this shorter side, px; 0 keeps their size.
        seed: Seed of the selection of images.
        threshold_px: Maximum error of a correct match, px of the view.

    Raises:
        SettingsError: A value is invalid.
    """

    image_count: int = 56
    keypoints: int = 1000
    short_side: int = 480
    seed: int = 0
    threshold_px: float = 3.0

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, value, least in (
            ("image_count", self.image_count, 1),
            ("keypoints", self.keypoints, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise SettingsError(f"{name} is {value}; expected at least {least}")
        smallest = math.ceil(_SMALLEST_SIDE * 2 ** max(OCTAVES))
        if self.short_side != 0 and self.short_side < smallest:
            raise SettingsError(
                f"short_side is {self.short_side} px; expected 0 or at least {smallest}, for the smallest views"
            )
        if not self.threshold_px > 0:
            raise SettingsError(f"threshold_px is {self.threshold_px}; expected above 0")


@dataclass(frozen=True)
class Curve:
    """Means over the images, one value per angle or scale.

    Attributes:
        accuracy: Fraction of correct matches, in [0, 1] (MMA).
        matches: Number of matches.
    """

    accuracy: tuple[float, ...]
    matches: tuple[float, ...]


@dataclass(frozen=True)
class RobustnessResult:
    """Results of one method.

    Attributes:
        method: Its name in this run.
        identity: Name with the version or the hash of the weights.
        rotation: Results at each of `ANGLES_DEG`.
        scale: Results at each of `OCTAVES`.
    """

    method: str
    identity: str
    rotation: Curve
    scale: Curve


def turned_pair(image: Uint8Array, angle_deg: float) -> HomographyPair:
    """A square window in the middle of an image, and the same window after rotating the image about its centre.

    The window is the largest that fits into the image at every angle: neither view has a border. The views overlap in a
    regular octagon, 83 % of the window, at 45 degrees, and more at smaller angles.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        angle_deg: Clockwise in the image. With 0, both images are the same object.

    Raises:
        SettingsError: The image is too small for a window of 32 px.
    """
    height, width = image.shape[:2]
    # The corners must stay between the outermost pixel centres, half a pixel less if the window is off-centre.
    side = math.floor((min(height, width) - 2) / math.sqrt(2)) + 1
    if side < _SMALLEST_SIDE:
        raise SettingsError(
            f"the image is {width}x{height} px, its turning window {side} px; expected at least {_SMALLEST_SIDE}"
        )
    top, left = (height - side) // 2, (width - side) // 2
    window = np.ascontiguousarray(image[top : top + side, left : left + side])
    if angle_deg == 0:
        return HomographyPair(window, window, np.eye(3))
    center = (side - 1) / 2
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    homography = np.array(
        [
            [cosine, -sine, center * (1 - cosine + sine)],
            [sine, cosine, center * (1 - cosine - sine)],
            [0.0, 0.0, 1.0],
        ]
    )
    to_window = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    turned = cv2.warpAffine(image, (homography @ to_window)[:2], (side, side), flags=cv2.INTER_LINEAR)
    return HomographyPair(window, np.asarray(turned, np.uint8), homography)


def scaled_pair(image: Uint8Array, octaves: float) -> HomographyPair:
    """An image and its copy downscaled by 2^octaves; each pixel is the mean of the area that it covers.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        octaves: s of the paper, at least 0. With 0, both images are the same object.

    Raises:
        SettingsError: The smaller image has a side below 32 px.
    """
    if octaves == 0:
        return HomographyPair(image, image, np.eye(3))
    height, width = image.shape[:2]
    small_height, small_width = round(height * 2.0**-octaves), round(width * 2.0**-octaves)
    if min(small_height, small_width) < _SMALLEST_SIDE:
        raise SettingsError(
            f"the image is {width}x{height} px and would be {small_width}x{small_height} px at a scale of "
            f"2^-{octaves:g}; expected at least {_SMALLEST_SIDE} px a side"
        )
    small = cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA)
    x, y = small_width / width, small_height / height
    homography = np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]])
    return HomographyPair(image, np.asarray(small, np.uint8), homography)


def evaluate_robustness(
    methods: Mapping[str, MethodProtocol],
    files: Sequence[Path],
    benchmark: RobustnessBenchmark,
    on_pair: Callable[[str], None] = lambda method: None,
) -> list[RobustnessResult]:
    """Runs every method on the same pairs.

    Args:
        methods: By name.
        files: Image files.
        benchmark: What to measure.
        on_pair: Called with the method's name after each pair of each method.

    Returns:
        One result per method, in their order.

    Raises:
        SourceError: A file cannot be read.
        SettingsError: An image is too small.
    """
    rows: dict[str, tuple[list[_Row], list[_Row]]] = {name: ([], []) for name in methods}
    for file in files:
        image = resize_short_side(next(ImageFolderSource(file).frames()).image, benchmark.short_side)
        turned = [turned_pair(image, angle) for angle in ANGLES_DEG]
        scaled = [scaled_pair(image, octaves) for octaves in OCTAVES]
        for name, method in methods.items():
            for of_method, pairs in zip(rows[name], (turned, scaled), strict=True):
                of_method.append(_row(method, pairs, benchmark, partial(on_pair, name)))
    return [
        RobustnessResult(name, methods[name].identity, _curve(rotation), _curve(scale))
        for name, (rotation, scale) in rows.items()
    ]


def _row(
    method: MethodProtocol, pairs: Sequence[HomographyPair], benchmark: RobustnessBenchmark, on_pair: Callable[[], None]
) -> _Row:
    """Accuracy and matches of pairs with a common first image."""
    found0 = method.detect_and_describe(pairs[0].image0, benchmark.keypoints)
    row = []
    for pair in pairs:
        is_same = pair.image1 is pair.image0
        found1 = found0 if is_same else method.detect_and_describe(pair.image1, benchmark.keypoints)
        matches = match_points(found0, found1)
        matched0, matched1 = found0.points[matches[:, 0]], found1.points[matches[:, 1]]
        accuracy = matching_accuracy(matched0, matched1, pair.homography, benchmark.threshold_px)
        row.append((accuracy, len(matches)))
        on_pair()
    return row


def _curve(rows: Sequence[_Row]) -> Curve:
    accuracy, matches = np.array(rows, dtype=np.float64).mean(axis=0).T
    return Curve(tuple(accuracy.tolist()), tuple(matches.tolist()))
