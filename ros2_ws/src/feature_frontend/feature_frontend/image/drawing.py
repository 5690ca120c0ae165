"""Draws tracks on images.

Images are (H, W, 3) uint8 RGB; drawing always returns a new image. Points are (x, y) px, pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "TrackTrails",
    "age_colours",
    "draw_caption",
    "draw_tracks",
    "to_rgb",
    "write",
]

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating]
Colour = tuple[int, int, int]

# OpenCV gets positions of points and lines in 1/16 px, so that drawings do not jump by whole pixels.
SHIFT = 4
# Each channel is half itself and half the mean of the three, darkened.
DIMMING = 0.8 * (0.5 * np.eye(3) + 0.5 / 3)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def to_rgb(image: Image) -> Image:
    """A copy of an (H, W) grey or (H, W, 3) RGB image as RGB."""
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image.copy()


def age_colours(ages: npt.NDArray[np.integer], oldest: int = 30) -> npt.NDArray[np.uint8]:
    """(N, 3) RGB by age in frames: blue for a new point, through green and yellow to red at `oldest` and beyond."""
    scaled = np.clip((np.asarray(ages, np.float64) - 1) / max(oldest - 1, 1), 0, 1) ** 0.7
    # The ends of the colour map are too dark to see on an image.
    levels = np.round(30 + 195 * scaled).astype(np.uint8).reshape(-1, 1)
    if not len(levels):
        return np.zeros((0, 3), np.uint8)
    coloured = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)
    return np.asarray(coloured, np.uint8).reshape(-1, 3)[:, ::-1]


@dataclass
class TrackTrails:
    """The latest positions of each track.

    Attributes:
        length: Number of positions kept per track, including this frame's.
        positions: The latest positions by track id, oldest first.
    """

    length: int = 12
    positions: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def update(self, ids: npt.NDArray[np.integer], keypoints: Points) -> list[Points]:
        """Adds a frame's tracks and returns their trails, (L, 2) each, in row order; discards tracks not seen."""
        before = self.positions
        self.positions = {}
        for number, (x, y) in zip(ids.tolist(), np.asarray(keypoints, np.float64).tolist(), strict=True):
            self.positions[number] = [*before.get(number, [])[1 - self.length :], (x, y)][-self.length :]
        return [np.array(self.positions[number]) for number in ids.tolist()]


def draw_tracks(
    image: Image, trails: Sequence[Points], ages: npt.NDArray[np.integer], oldest: int = 30, scale: float = 1.0
) -> Image:
    """Each track's trail (L, 2) and a dot at its end, coloured by age, on a dimmed image resized by `scale`."""
    if scale != 1:
        interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation), np.uint8)
    canvas = _dimmed(image)
    if not len(trails):
        return canvas
    # Pixel centres at integers: the centre of the first pixel moves as the image is enlarged.
    points = _fixed_point((np.concatenate(trails) + 0.5) * scale - 0.5)
    lines = np.split(points[:, None], np.cumsum([len(trail) for trail in trails])[:-1])
    thickness, radius = max(round(scale), 1), round(2.2 * max(scale, 1.0) * 2**SHIFT)
    # One call per age, the oldest on top: one call per line takes several times as long.
    for age in np.unique(ages):
        colour = _colour(age_colours(np.array([age]), oldest)[0])
        of_age = [lines[index] for index in np.flatnonzero(ages == age)]
        cv2.polylines(canvas, of_age, False, colour, thickness, cv2.LINE_AA, SHIFT)
        for line in of_age:
            cv2.circle(canvas, _xy(line[-1, 0]), radius, colour, -1, cv2.LINE_AA, SHIFT)
    return canvas


def draw_caption(image: Image, text: str, scale: float = 1.0) -> Image:
    """The image with a line of white text on a dark band along its lower edge."""
    canvas = to_rgb(image)
    band = round(28 * scale)
    canvas[-band:] = (canvas[-band:] * 0.25).astype(np.uint8)
    write(canvas, text, (round(8 * scale), canvas.shape[0] - round(9 * scale)), 0.54 * scale, (255, 255, 255))
    return canvas


def write(image: Image, text: str, at: tuple[int, int], size: float, colour: Colour, thickness: int = 1) -> None:
    """Writes `text` into the image in place, its lower left corner at (x, y) px."""
    cv2.putText(image, text, at, FONT, size, colour, max(round(thickness * size), 1), cv2.LINE_AA)


def _dimmed(image: Image) -> Image:
    """The image, darker and with less colour, so that drawings stand out."""
    return np.asarray(cv2.transform(to_rgb(image), DIMMING), np.uint8)


def _fixed_point(points: Points) -> npt.NDArray[np.int32]:
    scaled = np.asarray(points, np.float64).reshape(-1, 2) * 2**SHIFT
    return np.asarray(np.round(scaled), np.int32)


def _xy(point: npt.NDArray[np.int32]) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def _colour(colour: npt.NDArray[np.uint8]) -> Colour:
    return int(colour[0]), int(colour[1]), int(colour[2])
