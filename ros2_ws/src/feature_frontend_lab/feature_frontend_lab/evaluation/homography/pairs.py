"""Image pairs with exact ground truth: a photograph and a random view of it, like a poster on a wall.

Convention: points are (x, y) px, pixel centres at integers. A homography maps points of image 0 to image 1 and is
    scaled
to H[2, 2] = 1. A point is in front of the camera if its third coordinate is positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SettingsError

__all__ = [
    "HomographyPair",
    "HomographyRange",
    "make_pair",
    "normalize_homography",
    "photometric_change",
    "resize_short_side",
    "sample_homography",
    "transform_points",
    "visible_in",
    "warp_image",
]

FloatArray = npt.NDArray[np.float64]
Uint8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# A homography that shrinks areas more than this at the first pixel cannot come from a real image pair.
_MINIMUM_AREA_SCALE = 1e-9


@dataclass(frozen=True)
class HomographyRange:
    """Range of view changes between the two images; values are drawn uniformly, the scale uniformly in its logarithm.

    Attributes:
        rotation_deg: Largest rotation about the image centre in either direction, degrees.
        minimum_scale: Smallest magnification at the image centre.
        maximum_scale: Largest magnification at the image centre.
        perspective: Largest relative change of depth from the centre to the middle of an edge, in [0, 0.5), along each
            axis. 0.2 is a tilt by 22 degrees for a camera whose focal length is the image's width.
        translation: Largest shift of the image centre along each axis, as a fraction of the image's side.

    Raises:
        SettingsError: A value is out of range.
    """

    rotation_deg: float = 30.0
    minimum_scale: float = 0.7
    maximum_scale: float = 1.4
    perspective: float = 0.2
    translation: float = 0.1

    def __post_init__(self) -> None:
        """Checks the values: beyond these bounds, a homography may map part of the image behind the camera."""
        if not 0.0 <= self.rotation_deg <= 180.0:
            raise SettingsError(f"rotation_deg is {self.rotation_deg}; expected 0 to 180 degrees")
        if not 0.0 < self.minimum_scale <= self.maximum_scale < math.inf:
            raise SettingsError(
                f"scale range is {self.minimum_scale} to {self.maximum_scale}; expected 0 < minimum <= maximum"
            )
        if not 0.0 <= self.perspective < 0.5:
            raise SettingsError(f"perspective is {self.perspective}; expected a fraction from 0 to below 0.5")
        if not 0.0 <= self.translation <= 1.0:
            raise SettingsError(
                f"translation is {self.translation}; expected a fraction of the image's side from 0 to 1"
            )


@dataclass(frozen=True)
class HomographyPair:
    """Two views of one plane.

    Attributes:
        image0: (H, W) grey or (H, W, 3) RGB, uint8.
        image1: Of any size; from `make_pair`, the size of image 0, and areas outside image 0 are filled by reflection.
        homography: (3, 3), maps px of image 0 to px of image 1.
    """

    image0: Uint8Array
    image1: Uint8Array
    homography: FloatArray


def normalize_homography(homography: npt.NDArray[np.floating]) -> FloatArray:
    """Returns `homography` as (3, 3) float64 with H[2, 2] = 1.

    Raises:
        SettingsError: It has another shape, is not finite, is singular, or maps pixel (0, 0) to infinity.
    """
    matrix = np.asarray(homography, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise SettingsError(f"homography is {matrix.tolist()}; expected 3x3 finite numbers")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled: FloatArray = matrix / matrix[2, 2]
        area_scale = abs(np.linalg.det(scaled)) if np.isfinite(scaled).all() else 0.0
    if not area_scale >= _MINIMUM_AREA_SCALE:
        raise SettingsError(
            f"homography {matrix.tolist()} is degenerate; expected an invertible one with H[2, 2] other than 0"
        )
    return scaled


def transform_points(points: npt.NDArray[np.floating], homography: npt.NDArray[np.floating]) -> FloatArray:
    """Maps (N, 2) points of image 0 to px of image 1; NaN for points behind the camera or at infinity.

    Args:
        points: (N, 2) px of image 0.
        homography: (3, 3), with H[2, 2] = 1 (see `normalize_homography`).
    """
    matrix = np.asarray(homography, dtype=np.float64)
    homogeneous = np.asarray(points, dtype=np.float64).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]
    depth = homogeneous[:, 2:]
    front = depth > np.finfo(np.float64).eps
    result: FloatArray = np.where(front, homogeneous[:, :2] / np.where(front, depth, 1.0), np.nan)
    return result


def sample_homography(limits: HomographyRange, height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Draws a random homography for images of `height` x `width` px.

    H = T(c + t) R S P T(-c): about the centre c a perspective P = [[1, 0, 0], [0, 1, 0], [p_x, p_y, 1]], a scaling and
    a rotation, then a shift by t. P does not change the neighbourhood of the centre, so rotation and magnification
    there are exactly the values drawn.

    Args:
        limits: Range of the view changes.
        height: Height of both images, px.
        width: Width of both images, px.
        rng: Random generator; six numbers are drawn.

    Returns:
        (3, 3) float64, maps px of image 0 to px of image 1.
    """
    angle = math.radians(rng.uniform(-limits.rotation_deg, limits.rotation_deg))
    scale = math.exp(rng.uniform(math.log(limits.minimum_scale), math.log(limits.maximum_scale)))
    half_sides = np.array([width, height]) / 2.0
    slope = rng.uniform(-limits.perspective, limits.perspective, 2) / half_sides
    shift = rng.uniform(-limits.translation, limits.translation, 2) * np.array([width, height])
    center = half_sides - 0.5
    to_center, perspective, similarity, from_center = np.eye(3), np.eye(3), np.eye(3), np.eye(3)
    to_center[:2, 2] = -center
    perspective[2, :2] = slope
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    similarity[:2, :2] = [[cosine, -sine], [sine, cosine]]
    from_center[:2, 2] = center + shift
    return normalize_homography(from_center @ similarity @ perspective @ to_center)


def visible_in(points: npt.NDArray[np.floating], size: tuple[int, int]) -> BoolArray:
    """(N,) bool: which (N, 2) points, px, lie inside an image of `size` (height, width); False for NaN."""
    height, width = size
    positions = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    inside: BoolArray = np.all((positions >= -0.5) & (positions < [width - 0.5, height - 0.5]), axis=1)
    return inside


def photometric_change(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """Applies random lighting and exposure changes to `image`.

    In this order: gamma 2^u, u in [-0.4, 0.4]; contrast 0.7 to 1.3 about mid-grey; brightness -30 to 30 grey levels; in
    colour images a gain of 0.9 to 1.1 for each channel; Gaussian noise with a standard deviation of 0 to 5 grey levels.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        rng: Random generator.
    """
    gamma = 2.0 ** rng.uniform(-0.4, 0.4)
    contrast = rng.uniform(0.7, 1.3)
    brightness = rng.uniform(-30.0, 30.0)
    gains = rng.uniform(0.9, 1.1, 3)
    deviation = rng.uniform(0.0, 5.0)
    levels = 255.0 * (np.arange(256) / 255.0) ** gamma
    levels = (levels - 127.5) * contrast + 127.5 + brightness
    changed = levels.astype(np.float32)[image]
    if image.ndim == 3:
        changed *= gains.astype(np.float32)
    changed += np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(changed), 0, 255), dtype=np.uint8)


def make_pair(image: Uint8Array, limits: HomographyRange, rng: np.random.Generator) -> HomographyPair:
    """Returns `image` and a random view of it with different lighting.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        limits: Range of the view changes.
        rng: Random generator; the same state gives the same pair.
    """
    homography = sample_homography(limits, image.shape[0], image.shape[1], rng)
    return HomographyPair(image, photometric_change(warp_image(image, homography), rng), homography)


def resize_short_side(image: Uint8Array, short_side: int) -> Uint8Array:
    """Resizes `image` to a shorter side of `short_side` px, keeping its aspect ratio; 0 keeps its size."""
    height, width = image.shape[:2]
    if short_side <= 0 or min(height, width) == short_side:
        return image
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA), np.uint8
    )


def warp_image(image: Uint8Array, homography: FloatArray) -> Uint8Array:
    """Warps `image` by `homography` with bilinear sampling, keeping its shape and filling the outside by reflection.

    A camera also sees something there, and a black surround would give every method an outline to put points on.
    """
    size = (image.shape[1], image.shape[0])
    view = cv2.warpPerspective(image, homography, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(view, dtype=np.uint8)
