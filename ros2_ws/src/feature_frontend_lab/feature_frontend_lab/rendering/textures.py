"""Mip-mapped textures, and procedural ones with detail at many scales: stone, brick, tiles, wood, plaster, posters.

Every function draws an (H, W, 3) uint8 RGB picture from a `numpy.random.Generator`; the result is the same for the same
seed and OpenCV version (version 5 draws text in a different font than version 4). Sizes are in metres and the
resolution in px/m, so that bricks have the same size on every wall.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "FONTS",
    "POSTER_MOTIFS",
    "Texture",
    "brick",
    "chips",
    "concrete",
    "crack",
    "noise_octaves",
    "panels",
    "plaster",
    "poster",
    "random_word",
    "tiles",
    "wood",
    "write_text",
]

# cv2.remap does not accept maps with sides of 32767 px or more; a list of samples is folded into rows of this length.
ROW_LENGTH = 4096


@dataclass(frozen=True)
class Texture:
    """A picture and its mip levels.

    Attributes:
        levels: (H, W, 3) RGB or (H, W) grey, uint8, each half the size of the previous one.
    """

    levels: tuple[npt.NDArray[np.uint8], ...]

    @staticmethod
    def from_image(image: npt.NDArray[np.uint8]) -> Texture:
        """Creates the texture of an (H, W, 3) RGB or (H, W) grey picture, uint8."""
        levels = [np.ascontiguousarray(image)]
        while min(levels[-1].shape[:2]) > 1:
            height, width = levels[-1].shape[:2]
            half = cv2.resize(levels[-1], (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        return Texture(tuple(levels))

    @property
    def height(self) -> int:
        """Height of the full-size picture in px."""
        return int(self.levels[0].shape[0])

    @property
    def width(self) -> int:
        """Width of the full-size picture in px."""
        return int(self.levels[0].shape[1])

    def grey(self) -> Texture:
        """The texture in grey, with the luma of ITU-R BT.601; itself if it is grey."""
        if self.levels[0].ndim == 2:
            return self
        return Texture(tuple(np.asarray(cv2.cvtColor(level, cv2.COLOR_RGB2GRAY), np.uint8) for level in self.levels))

    def sample(
        self,
        horizontal: npt.NDArray[np.float32],
        vertical: npt.NDArray[np.float32],
        level: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.uint8]:
        """Samples (N, 3) or, if grey, (N,) uint8 colours, linear in both directions and between levels.

        Args:
            horizontal: (N,) position in [0, 1], 0 the left edge of the picture and 1 its right edge.
            vertical: (N,) position in [0, 1], 0 the top edge and 1 the bottom edge.
            level: (N,) base-2 logarithm of the footprint in px of the full-size picture; negative values use full size.
        """
        level = np.clip(level, 0, len(self.levels) - 1)
        lower = np.floor(level).astype(np.int32)
        channels = self.levels[0].shape[2:]
        colours = np.empty((len(level), *channels), np.uint8)
        for index in range(int(lower.min(initial=0)), int(lower.max(initial=-1)) + 1):
            chosen = np.flatnonzero(lower == index)
            if not len(chosen):
                continue
            at = horizontal[chosen], vertical[chosen]
            fine = self._read(index, *at)
            fraction = level[chosen] - index
            if index + 1 < len(self.levels) and fraction.any():
                coarse = self._read(index + 1, *at)
                share = fraction.reshape(-1, *(1 for _ in channels))
                blended = fine + (coarse.astype(np.float32) - fine) * share + 0.5
                fine = blended.astype(np.uint8)
            colours[chosen] = fine
        return colours

    def _read(
        self, index: int, horizontal: npt.NDArray[np.float32], vertical: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        picture = self.levels[index]
        count = len(horizontal)
        rows = -(-count // ROW_LENGTH)
        folded = np.zeros((2, rows * ROW_LENGTH), np.float32)
        folded[0, :count] = horizontal * picture.shape[1] - 0.5
        folded[1, :count] = vertical * picture.shape[0] - 0.5
        maps = folded.reshape(2, rows, ROW_LENGTH)
        read = cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(read, np.uint8).reshape(-1, *picture.shape[2:])[:count]


Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

WORDS = (
    "ALIKED", "KEYPOINT", "DESCRIPTOR", "EPIPOLE", "ODOMETRY", "HORIZON", "PARALLAX", "CORNER", "LANDMARK", "GALLERY",
    "MATCH 42", "TRACK 07", "HALL 3", "EXIT B", "POSE", "OCTAVE", "BASELINE", "FRAME 128", "SIGNAL", "ATLAS",
)  # fmt: skip
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX)


def noise_octaves(
    rng: np.random.Generator, height: int, width: int, coarsest_px: float, octaves: int = 6, persistence: float = 0.6
) -> FloatImage:
    """(H, W) float32 noise with mean 0 and standard deviation 1: octaves of smooth random values.

    Args:
        rng: Random generator.
        height: Height in px.
        width: Width in px.
        coarsest_px: Distance in px between the values of the first octave; each further octave halves it.
        octaves: Number of octaves; those finer than a pixel are omitted.
        persistence: Ratio of an octave's amplitude to the previous one's.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = coarsest_px / 2**octave
        if octave and cell < 1:
            break
        grid = rng.standard_normal((int(height / cell) + 4, int(width / cell) + 4)).astype(np.float32)
        grown = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        start = int(1.5 * cell)
        total += persistence**octave * grown[start : start + height, start : start + width]
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6), np.float32)


def _coloured(base: FloatImage | Colour, *layers: FloatImage) -> Image:
    """A base colour plus grey layers, in grey levels, clipped to uint8."""
    grey = np.sum(layers, axis=0)
    return np.asarray(np.clip(np.asarray(base, np.float32) + grey[..., None], 0, 255), np.uint8)


def _darker(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _pixels(width_m: float, height_m: float, px_per_m: float) -> tuple[int, int]:
    return max(round(height_m * px_per_m), 8), max(round(width_m * px_per_m), 8)


def plaster(rng: np.random.Generator, width_m: float, height_m: float, px_per_m: float, colour: Colour) -> Image:
    """Painted plaster: large stains, fine grain, scratches, cracks and chips."""
    height, width = _pixels(width_m, height_m, px_per_m)
    stains = 9 * noise_octaves(rng, height, width, 1.2 * px_per_m, 8, 0.62)
    image = _coloured(colour, stains, chips(rng, height, width, px_per_m, per_m2=14))
    for _ in range(int(width_m * height_m * 0.6) + 1):
        crack(rng, image, px_per_m)
    return image


def concrete(rng: np.random.Generator, width_m: float, height_m: float, px_per_m: float, colour: Colour) -> Image:
    """Cast concrete: cloudy, pitted, with the joints and tie holes of its formwork."""
    height, width = _pixels(width_m, height_m, px_per_m)
    clouds = 15 * noise_octaves(rng, height, width, 0.7 * px_per_m, 8, 0.68)
    image = _coloured(colour, clouds, chips(rng, height, width, px_per_m, per_m2=45))
    for y_m in np.arange(0.6, height_m, 1.2):
        y = round(y_m * px_per_m)
        cv2.line(image, (0, y), (width, y), _darker(colour, 0.45), max(round(0.012 * px_per_m), 1))
        for x_m in np.arange(0.3, width_m, 0.9):
            centre = (round((x_m + rng.uniform(-0.02, 0.02)) * px_per_m), y + round(0.3 * px_per_m))
            cv2.circle(image, centre, max(round(0.025 * px_per_m), 1), _darker(colour, 0.3), -1, cv2.LINE_AA)
    return image


def brick(rng: np.random.Generator, width_m: float, height_m: float, px_per_m: float, colour: Colour) -> Image:
    """Brickwork in running bond; each brick has an individual shade and wear."""
    return _masonry(
        rng, (width_m, height_m), px_per_m, colour, unit_m=(0.26, 0.085), joint_m=0.012, bond=0.5, spread=24
    )


def tiles(rng: np.random.Generator, width_m: float, height_m: float, px_per_m: float, colour: Colour) -> Image:
    """Stone tiles of individual shades with veins that run across them."""
    image = _masonry(rng, (width_m, height_m), px_per_m, colour, unit_m=(0.6, 0.6), joint_m=0.014, bond=0.0, spread=20)
    height, width = image.shape[:2]
    folds = np.abs(noise_octaves(rng, height, width, 0.8 * px_per_m, 6, 0.55))
    veins = 40 * np.exp(-((folds / 0.05) ** 2)).astype(np.float32)
    return _coloured(image.astype(np.float32), -veins)


def panels(rng: np.random.Generator, width_m: float, height_m: float, px_per_m: float, colour: Colour) -> Image:
    """Perforated acoustic panels for a ceiling."""
    image = _masonry(rng, (width_m, height_m), px_per_m, colour, unit_m=(1.2, 0.6), joint_m=0.025, bond=0.0, spread=9)
    for _ in range(int(width_m * height_m * 60)):
        centre = tuple(int(rng.integers(0, size)) for size in (image.shape[1], image.shape[0]))
        radius = max(round(rng.uniform(0.006, 0.016) * px_per_m), 1)
        cv2.circle(image, centre, radius, _darker(colour, rng.uniform(0.45, 0.7)), -1, cv2.LINE_AA)
    return image


def _masonry(
    rng: np.random.Generator,
    size_m: tuple[float, float],
    px_per_m: float,
    colour: Colour,
    unit_m: tuple[float, float],
    joint_m: float,
    bond: float,
    spread: float,
) -> Image:
    """Rectangular units of `unit_m` (width, height) in rows, every other row shifted by `bond` of a unit."""
    height, width = _pixels(*size_m, px_per_m)
    x = np.arange(width, dtype=np.float32)[None] / px_per_m / unit_m[0]
    y = np.arange(height, dtype=np.float32)[:, None] / px_per_m / unit_m[1]
    wobble = (
        0.012 / np.asarray(unit_m) * np.stack([noise_octaves(rng, height, width, 0.3 * px_per_m, 4) for _ in "xy"], -1)
    )
    y = (y + 0.25 * wobble[..., 1]).astype(np.float32)
    row = np.floor(y).astype(np.int64)
    x = (x + 0.25 * wobble[..., 0] + bond * (row % 2)).astype(np.float32)
    column = np.floor(x).astype(np.int64)
    row, column = row - row.min(), column - column.min()
    to_edge = np.minimum(
        np.minimum(x - np.floor(x), np.ceil(x) - x) * unit_m[0], np.minimum(y - np.floor(y), np.ceil(y) - y) * unit_m[1]
    )
    solid = np.clip((to_edge - joint_m / 2) * px_per_m + 0.5, 0, 1)[..., None]
    shades = np.asarray(colour) + spread * rng.standard_normal((row.max() + 1, column.max() + 1, 1))
    shades = shades + 0.12 * spread * rng.standard_normal((row.max() + 1, column.max() + 1, 3))
    face = shades.astype(np.float32)[row, column]
    joint = np.full(3, 0.35 * np.mean(colour) + 35, np.float32)
    grain = 11 * noise_octaves(rng, height, width, 0.25 * px_per_m, 7, 0.75)
    return _coloured(joint + (face - joint) * solid, grain, chips(rng, height, width, px_per_m, per_m2=40))


def wood(rng: np.random.Generator, width_m: float, height_m: float, px_per_m: float, colour: Colour) -> Image:
    """A crate's side: horizontal planks in a frame, nails, and a stencilled word."""
    height, width = _pixels(width_m, height_m, px_per_m)
    plank_px = max(round(height / max(round(height_m / 0.16), 1)), 4)
    rows = np.arange(height) // plank_px
    fibres = _stretched(noise_octaves(rng, height, max(width // 12, 8), 0.03 * px_per_m, 4, 0.8), (width, height))
    shade = 16 * rng.standard_normal(int(rows.max()) + 1)[rows][:, None]
    image = _coloured(colour, 17 * fibres, np.broadcast_to(shade, (height, width)).astype(np.float32))
    image[np.arange(height) % plank_px < max(round(0.008 * px_per_m), 1)] //= 3
    rim = max(round(0.09 * min(width_m, height_m) * px_per_m), 3)
    for side in (slice(0, rim), slice(width - rim, width)):
        upright = _stretched(noise_octaves(rng, max(height // 12, 8), rim, 0.03 * px_per_m, 4, 0.8), (rim, height))
        image[:, side] = _coloured(_darker(colour, 0.8), 17 * upright)
        edge = side.stop - 1 if side.start == 0 else side.start
        image[:, edge] //= 3
        for y in range(plank_px // 2, height, plank_px):
            nail = ((side.start + side.stop) // 2 + int(rng.integers(-2, 3)), y)
            cv2.circle(image, nail, max(round(0.012 * px_per_m), 1), (40, 38, 36), -1, cv2.LINE_AA)
    centre = (width // 2, int(height * rng.uniform(0.35, 0.65)))
    write_text(image, random_word(rng), centre, 0.62 * width, _darker(colour, 0.25), FONTS[2])
    return image


def _stretched(noise: FloatImage, size: tuple[int, int]) -> FloatImage:
    return np.asarray(cv2.resize(noise, size), np.float32)


def chips(rng: np.random.Generator, height: int, width: int, px_per_m: float, per_m2: float) -> FloatImage:
    """Small dark and bright blobs and scratches of random size, as a layer of grey levels."""
    layer = np.zeros((height, width), np.float32)
    for _ in range(int(per_m2 * height * width / px_per_m**2)):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = tuple(max(round(float(rng.lognormal(-4.6, 0.7)) * px_per_m), 1) for _ in "ab")
        strength = float(rng.choice([-1, -1, 1]) * rng.uniform(18, 60))
        cv2.ellipse(layer, centre, axes, float(rng.uniform(0, 180)), 0, 360, strength, -1)
    return np.asarray(cv2.GaussianBlur(layer, (3, 3), 0), np.float32)


def crack(rng: np.random.Generator, image: Image, px_per_m: float) -> None:
    """Draws a dark random walk into the picture, RGB or grey."""
    height, width = image.shape[:2]
    steps = int(rng.integers(8, 30))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.45, steps))
    walk = np.cumsum(np.column_stack([np.cos(heading), np.sin(heading)]) * 0.03 * px_per_m, axis=0)
    points = (walk + rng.uniform(0, 1, 2) * (width, height)).round().astype(np.int32)
    tone = float(rng.uniform(50, 110))
    cv2.polylines(image, [points], False, (tone, tone, tone), max(round(0.004 * px_per_m), 1), cv2.LINE_AA)


def random_word(rng: np.random.Generator) -> str:
    """A word for a sign, a title or a stencil."""
    return WORDS[int(rng.integers(len(WORDS)))]


def write_text(
    image: Image, text: str, centre: tuple[int, int], width_px: float, colour: tuple[float, ...], font: int
) -> None:
    """Writes `text` into the picture, RGB or grey, centred on `centre` (x, y) px and `width_px` wide."""
    (unit_width, unit_height), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = width_px / unit_width
    origin = (round(centre[0] - width_px / 2), round(centre[1] + scale * unit_height / 2))
    cv2.putText(image, text, origin, font, scale, colour, max(round(2.5 * scale), 1), cv2.LINE_AA)


def _palette(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """(count, 3) harmonious colours: neighbouring hues and one opposite, of varied brightness."""
    hue = (rng.uniform(0, 180) + np.append(rng.normal(0, 14, count - 1), 90)) % 180
    hsv = np.column_stack([hue, rng.uniform(60, 200, count), np.linspace(60, 250, count)]).astype(np.uint8)
    return np.asarray(cv2.cvtColor(rng.permutation(hsv)[None], cv2.COLOR_HSV2RGB)[0], np.float64)


def _discs(rng: np.random.Generator, image: Image, palette: npt.NDArray[np.float64]) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(10, 22))):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        for radius in sorted(rng.uniform(0.01, 0.2, int(rng.integers(1, 4))) * width, reverse=True):
            cv2.circle(image, centre, int(radius), tuple(palette[rng.integers(len(palette))]), -1, cv2.LINE_AA)


def _triangles(rng: np.random.Generator, image: Image, palette: npt.NDArray[np.float64]) -> None:
    height, width = image.shape[:2]
    for size in np.geomspace(0.7, 0.06, 34):
        centre = rng.uniform(0, 1, 2) * (width, height)
        points = (centre + rng.normal(0, size / 2, (3, 2)) * width).astype(np.int32)
        cv2.fillPoly(image, [points], tuple(palette[rng.integers(len(palette))]), cv2.LINE_AA)


def _blocks(rng: np.random.Generator, image: Image, palette: npt.NDArray[np.float64]) -> None:
    """A recursively split plane, after Mondrian."""
    line = max(image.shape[1] // 120, 2)

    def split(x0: int, y0: int, x1: int, y1: int, depth: int) -> None:
        if depth == 0 or min(x1 - x0, y1 - y0) < 8 * line:
            cv2.rectangle(image, (x0, y0), (x1, y1), tuple(palette[rng.integers(len(palette))]), -1)
            cv2.rectangle(image, (x0, y0), (x1, y1), (24, 24, 26), line)
        elif x1 - x0 > y1 - y0:
            middle = int(x0 + rng.uniform(0.3, 0.7) * (x1 - x0))
            split(x0, y0, middle, y1, depth - 1)
            split(middle, y0, x1, y1, depth - 1)
        else:
            middle = int(y0 + rng.uniform(0.3, 0.7) * (y1 - y0))
            split(x0, y0, x1, middle, depth - 1)
            split(x0, middle, x1, y1, depth - 1)

    split(0, 0, image.shape[1], image.shape[0], 6)


def _landscape(rng: np.random.Generator, image: Image, palette: npt.NDArray[np.float64]) -> None:
    """Layered ridges under a sun."""
    height, width = image.shape[:2]
    sun = (int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.15, 0.35) * height))
    cv2.circle(image, sun, width // 9, tuple(palette[-1]), -1, cv2.LINE_AA)
    x = np.arange(width)
    for ridge, horizon in enumerate(np.linspace(0.3, 0.85, 7)):
        rough = noise_octaves(rng, 8, width, width / 3, 7, 0.55)[4]
        y = (horizon + 0.07 * rough) * height
        outline = np.column_stack([np.append(x, [width, 0]), np.append(y, [height, height])]).astype(np.int32)
        cv2.fillPoly(image, [outline], tuple(palette[ridge % len(palette)]), cv2.LINE_AA)


def _writing(rng: np.random.Generator, image: Image, palette: npt.NDArray[np.float64]) -> None:
    """A page of lines in several sizes."""
    height, width = image.shape[:2]
    y = 0.1 * height
    while y < 0.97 * height:
        width_px = rng.uniform(0.35, 0.86) * width
        ink = tuple(palette[rng.integers(len(palette))] * 0.55)
        write_text(image, random_word(rng), (width // 2, int(y)), width_px, ink, FONTS[rng.integers(len(FONTS))])
        y += rng.uniform(0.07, 0.16) * height


POSTER_MOTIFS: tuple[Callable[[np.random.Generator, Image, npt.NDArray[np.float64]], None], ...] = (
    _discs, _triangles, _blocks, _landscape, _writing,
)  # fmt: skip


def poster(rng: np.random.Generator, width_m: float, height_m: float, px_per_m: float, motif: int) -> Image:
    """A printed poster with a border and a title; `motif` chooses one of `POSTER_MOTIFS`, modulo their number."""
    height, width = _pixels(width_m, height_m, px_per_m)
    palette = _palette(rng, 6)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = (palette[0] * 0.3 + 175).astype(np.uint8)
    rim = max(round(0.05 * width), 2)
    title = height - round(0.16 * width)
    picture = np.ascontiguousarray(image[rim : title - rim, rim : width - rim])
    POSTER_MOTIFS[motif % len(POSTER_MOTIFS)](rng, picture, palette)
    image[rim : title - rim, rim : width - rim] = picture
    write_text(
        image, random_word(rng), (width // 2, (title + height - rim) // 2), 0.66 * width, (30, 30, 34), FONTS[motif % 4]
    )
    paper = 4 * noise_octaves(rng, height, width, 0.2 * px_per_m, 6, 0.8)
    return _coloured(image.astype(np.float32), paper)
