"""Pairs of views: a crop of an image and the same crop warped by a random homography (3.4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.evaluation.homography.pairs import HomographyRange, sample_homography

__all__ = [
    "ATTEMPTS",
    "MINIMUM_OVERLAP",
    "MINIMUM_TEXTURE",
    "WarpedViews",
    "cut_views",
    "texture",
]

ATTEMPTS = 50
# A view of a smooth gradient, such as the sky, teaches nothing; nor does a pair with little overlap.
MINIMUM_TEXTURE = 4.0
MINIMUM_OVERLAP = 0.1


@dataclass(frozen=True)
class WarpedViews:
    """A square crop of an image, and the same place through a homography.

    Attributes:
        view0: (S, S) grey or (S, S, 3) RGB, uint8.
        view1: The same shape.
        homography: (3, 3) float64, maps px of view 0 to view 1.
    """

    view0: npt.NDArray[np.uint8]
    view1: npt.NDArray[np.uint8]
    homography: npt.NDArray[np.float64]


def cut_views(
    image: npt.NDArray[np.uint8],
    side: int,
    short_side_px: tuple[float, float],
    limits: HomographyRange,
    rng: np.random.Generator,
) -> WarpedViews | None:
    """Draws two views of an image; None if the first has no texture.

    Args:
        image: (H, W) grey or (H, W, 3) RGB.
        side: S, height and width of a view in px.
        short_side_px: Range of the shorter side to which the whole image is resized first, at least `side`.
        limits: Range of the homographies.
        rng: Random generator.
    """
    smallest, largest = np.log(short_side_px)
    short_side = max(float(np.exp(rng.uniform(smallest, largest))), side)
    resized = _resized(image, short_side / min(image.shape[:2]))
    if rng.random() < 0.5:
        resized = np.ascontiguousarray(resized[:, ::-1])
    x = int(rng.integers(resized.shape[1] - side + 1))
    y = int(rng.integers(resized.shape[0] - side + 1))
    view0 = resized[y : y + side, x : x + side]
    if texture(view0) < MINIMUM_TEXTURE:
        return None
    homography = sample_homography(limits, side, side, rng)
    # Warped from the whole image, so that areas outside view 0 show real image content if available.
    from_image = homography @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], np.float64)
    view1 = cv2.warpPerspective(
        resized, from_image, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return WarpedViews(view0, np.asarray(view1, np.uint8), homography)


def texture(view: npt.NDArray[np.uint8]) -> float:
    """Standard deviation, in grey levels, of the detail that a blur removes."""
    grey = view.astype(np.float32)
    return float((grey - cv2.blur(grey, (9, 9))).std())


def _resized(image: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    # Rounded up: the shorter side must fit a view.
    height, width = (int(np.ceil(length * scale - 1e-6)) for length in image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)
