"""Grey pictures of a street: house fronts, road, pavement, cars, leaves. Also what a corridor's walls are made of.

Surfaces are cut at random places out of large sheets of each material, which takes a thirtieth of the time of painting
each anew, and shows no place twice in the same neighbourhood.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend_lab.rendering import textures

__all__ = [
    "PX_PER_M",
    "Sheets",
    "car_side",
    "car_top",
    "facade",
    "grey",
    "hang_poster",
    "leaves",
    "road",
    "sky",
    "window",
]

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]

PX_PER_M = 110
_SHEET_M = 16.0


def grey(picture: npt.NDArray[np.floating] | Image) -> Image:
    """A picture as uint8 grey: RGB by its luma, floats clipped."""
    if picture.ndim == 3:
        return np.asarray(cv2.cvtColor(np.asarray(picture, np.uint8), cv2.COLOR_RGB2GRAY), np.uint8)
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _asphalt(rng: np.random.Generator, size_m: float) -> Image:
    side = round(size_m * PX_PER_M)
    stones = cv2.GaussianBlur(rng.standard_normal((side, side), np.float32), (0, 0), 1.3) * 26
    image = 124 + 13 * textures.noise_octaves(rng, side, side, 3 * PX_PER_M, 9, 0.68) + stones
    image += 0.7 * textures.chips(rng, side, side, PX_PER_M, per_m2=30)
    picture = grey(image)
    for _ in range(int(size_m**2 * 0.12)):
        textures.crack(rng, picture, 2 * PX_PER_M)
    return picture


def _paint(painter: Callable[..., Image], colour: textures.Colour) -> Callable[[np.random.Generator, float], Image]:
    return lambda rng, size_m: grey(painter(rng, size_m, size_m, PX_PER_M, colour))


_MATERIALS: dict[str, Callable[[np.random.Generator, float], Image]] = {
    "asphalt": _asphalt,
    "red brick": _paint(textures.brick, (150, 92, 72)),
    "pale brick": _paint(textures.brick, (190, 178, 150)),
    "pale plaster": _paint(textures.plaster, (196, 190, 172)),
    "dark plaster": _paint(textures.plaster, (138, 128, 120)),
    "stone": _paint(textures.tiles, (164, 158, 146)),
    "floor": _paint(textures.tiles, (150, 146, 138)),
    "concrete": _paint(textures.concrete, (150, 150, 148)),
    "panels": _paint(textures.panels, (200, 198, 190)),
}


class Sheets:
    """Sheets of the materials of a scene, painted when first needed, and cut to size.

    Args:
        rng: Of the materials and of where they are cut.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._sheets: dict[str, Image] = {}

    def cut(self, material: str, width_m: float, height_m: float) -> Image:
        """A copy of a random part of the material, at `PX_PER_M`; at random mirrored and brightened or darkened."""
        if material not in self._sheets:
            self._sheets[material] = _MATERIALS[material](self._rng, _SHEET_M)
        sheet = self._sheets[material]
        height, width = (max(round(size * PX_PER_M), 8) for size in (height_m, width_m))
        again = -(-height // sheet.shape[0]), -(-width // sheet.shape[1])
        if max(again) > 1:
            sheet = np.tile(sheet, again)
        top, left = (
            int(self._rng.integers(0, all_ - part + 1)) for all_, part in zip(sheet.shape, (height, width), strict=True)
        )
        part = sheet[top : top + height, left : left + width]
        if self._rng.uniform() < 0.5:
            part = part[:, ::-1]
        return grey(part.astype(np.float32) * self._rng.uniform(0.85, 1.12))


def _px(metres: float) -> int:
    return max(round(metres * PX_PER_M), 1)


def window(rng: np.random.Generator, width_m: float, height_m: float) -> Image:
    """A window: frame, bars, dark glass with reflections, curtains or blinds."""
    height, width = _px(height_m), _px(width_m)
    glass = rng.uniform(28, 62) + 7 * textures.noise_octaves(rng, height, width, width / 2, 5, 0.55)
    slope, start = rng.uniform(-0.8, 0.8), rng.uniform(0.1, 0.7) * width
    band = np.abs(np.arange(width) - start - slope * np.arange(height)[:, None]) < rng.uniform(0.08, 0.3) * width
    glass += rng.uniform(8, 40) * band
    kind = rng.integers(4)
    if kind == 0:  # curtains
        folds = 165 + 25 * np.sin(np.arange(width) / _px(rng.uniform(0.015, 0.03)) + rng.uniform(0, 6))
        for side in (slice(0, int(rng.uniform(0.12, 0.4) * width)), slice(int(rng.uniform(0.6, 0.9) * width), width)):
            glass[:, side] = folds[side] + 0.2 * glass[:, side]
    elif kind == 1:  # blinds
        drawn = int(rng.uniform(0.2, 0.9) * height)
        glass[:drawn] = (175 - 70 * (np.arange(drawn) % _px(0.06) < _px(0.014)))[:, None] + 0.15 * glass[:drawn]
    elif kind == 2:  # plants and things on the sill
        for _ in range(int(rng.integers(2, 7))):
            at = (int(rng.uniform(0, width)), height - int(rng.uniform(0.02, 0.25) * height))
            axes = (_px(rng.uniform(0.04, 0.14)), _px(rng.uniform(0.06, 0.22)))
            cv2.ellipse(glass, at, axes, 0, 0, 360, float(rng.uniform(60, 190)), -1, cv2.LINE_AA)
    image = grey(glass)
    tone = int(rng.choice([225, 205, 70, 120]))
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), tone, _px(0.14))
    for part in range(1, int(rng.integers(1, 4))):
        cv2.line(image, (width * part // 2, 0), (width * part // 2, height), tone, _px(0.06))
    crossbar = int(rng.uniform(0.25, 0.4) * height)
    cv2.line(image, (0, crossbar), (width, crossbar), tone, _px(0.06))
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), 45, _px(0.015))
    return image


def _shop(rng: np.random.Generator, sheets: Sheets, width_m: float, height_m: float) -> Image:
    """A ground floor with a shop: sign, shop windows full of things, a door."""
    image = sheets.cut("concrete", width_m, height_m)
    height, width = image.shape
    sign = _px(0.75)
    tone = float(rng.choice([35, 60, 185, 215]))
    board = image[_px(0.1) : sign, _px(0.2) : width - _px(0.2)]
    board[:] = grey(tone + 5 * textures.noise_octaves(rng, board.shape[0], board.shape[1], PX_PER_M, 6, 0.7))
    ink = (235.0,) if tone < 128 else (25.0,)
    words = f"{textures.random_word(rng)} {textures.random_word(rng)}"
    textures.write_text(image, words, (width // 2, (_px(0.1) + sign) // 2), 0.55 * width, ink, textures.FONTS[2])
    left = _px(0.25)
    door_at = int(rng.integers(0, max(int(width_m // 2.2), 1)))
    number = 0
    while left + _px(1.0) < width:
        pane_width = min(_px(rng.uniform(1.6, 2.4)), width - left - _px(0.25))
        top, bottom = sign + _px(0.12), height - (_px(0.05) if number == door_at else _px(0.5))
        pane = image[top:bottom, left : left + pane_width]
        pane[:] = grey(48 + 10 * textures.noise_octaves(rng, pane.shape[0], pane.shape[1], PX_PER_M, 6, 0.6))
        for _ in range(int(rng.integers(10, 26))):
            size = rng.uniform(0.06, 0.5, 2)
            x, y = (int(rng.uniform(0, side)) for side in (pane.shape[1], pane.shape[0]))
            corner = (x + _px(size[0]), y + _px(size[1]))
            cv2.rectangle(pane, (x, y), corner, float(rng.uniform(20, 225)), -1)
            if rng.uniform() < 0.4:
                textures.write_text(
                    pane,
                    textures.random_word(rng),
                    (x + _px(size[0] / 2), y),
                    _px(size[0]),
                    (230.0,),
                    textures.FONTS[0],
                )
        cv2.rectangle(pane, (0, 0), (pane.shape[1] - 1, pane.shape[0] - 1), float(rng.choice([30, 190])), _px(0.09))
        if number == door_at:
            middle = pane.shape[1] // 2
            cv2.line(pane, (middle, 0), (middle, pane.shape[0]), 200, _px(0.08))
            cv2.rectangle(pane, (middle + _px(0.1), _px(1.0)), (middle + _px(0.14), _px(1.5)), 220, -1)
        left += pane_width + _px(rng.uniform(0.2, 0.5))
        number += 1
    return image


def facade(rng: np.random.Generator, sheets: Sheets, width_m: float, height_m: float) -> Image:
    """A house front of brick, plaster or stone with a shop or windows below and rows of windows above."""
    material = str(rng.choice(["red brick", "pale brick", "pale plaster", "dark plaster", "stone"]))
    image = sheets.cut(material, width_m, height_m)
    height, width = image.shape
    ground_m = rng.uniform(3.1, 3.7)
    if rng.uniform() < 0.55:
        image[height - _px(ground_m) :] = _shop(rng, sheets, width / PX_PER_M, _px(ground_m) / PX_PER_M)[:, :width]
    else:
        plinth = sheets.cut("concrete", width_m, 0.6)
        image[height - plinth.shape[0] :] = plinth[:, :width]
        _windows(rng, image, height - _px(ground_m) + _px(0.5), rng.uniform(1.2, 1.6), shutters=False)
        for _ in range(int(rng.integers(1, 5))):
            hang_poster(rng, image, ground_m)
    storey_m = rng.uniform(2.7, 3.2)
    shutters = bool(rng.uniform() < 0.4)
    window_m = rng.uniform(1.3, 1.9)
    top_m = height_m - ground_m - storey_m
    while top_m > 0.5:
        y = _px(top_m + 0.7)
        _windows(rng, image, y, window_m, shutters=shutters)
        band = _px(top_m + storey_m - 0.1)
        image[band : band + _px(0.12)] = (image[band : band + _px(0.12)] * 0.7).astype(np.uint8)
        image[band : band + _px(0.03)] = 205
        top_m -= storey_m
    cornice = _px(0.45)
    image[:cornice] = (image[:cornice] * 0.75).astype(np.uint8)
    for x in range(0, width, _px(0.3)):
        image[_px(0.1) : _px(0.3), x : x + _px(0.14)] = 190
    image[_px(0.36) : _px(0.42)] = 55
    pipe = int(rng.choice([_px(0.15), width - _px(0.25)]))
    image[:, pipe : pipe + _px(0.1)] = np.array(grey(np.linspace(70, 130, _px(0.1))))
    # Rain leaves streaks.
    streaks = cv2.resize(
        textures.noise_octaves(rng, max(height // 24, 8), width, 0.3 * PX_PER_M, 6, 0.75), (width, height)
    )
    return grey(image + 6 * streaks)


def _windows(rng: np.random.Generator, image: Image, top: int, height_m: float, *, shutters: bool) -> None:
    """A row of windows with sills, and shutters where there is room for them."""
    height, width = image.shape
    width_m = rng.uniform(0.9, 1.3)
    pitch = _px(width_m + rng.uniform(0.7, 1.5))
    first = (width - (width // pitch - 1) * pitch - _px(width_m)) // 2
    for left in range(max(first, _px(0.3)), width - _px(width_m) - _px(0.2), pitch):
        pane = window(rng, width_m, height_m)
        part = image[top : top + pane.shape[0], left : left + pane.shape[1]]
        if top < 0 or part.shape != pane.shape:
            continue
        part[:] = pane
        sill = slice(top + pane.shape[0], min(top + pane.shape[0] + _px(0.1), height))
        image[sill, left - _px(0.08) : left + pane.shape[1] + _px(0.08)] = int(rng.uniform(170, 225))
        image[sill.stop : sill.stop + _px(0.05), left - _px(0.08) : left + pane.shape[1] + _px(0.08)] //= 2
        lintel = image[max(top - _px(0.18), 0) : top, left - _px(0.08) : left + pane.shape[1] + _px(0.08)]
        lintel[:] = (lintel * 0.4 + 110).astype(np.uint8)
        if shutters:
            slats = 60 + 60 * (np.arange(pane.shape[0]) % _px(0.07) > _px(0.02))
            for side in (left - _px(0.42), left + pane.shape[1] + _px(0.04)):
                if side >= 0 and side + _px(0.38) < width:
                    image[top : top + pane.shape[0], side : side + _px(0.38)] = slats[:, None].astype(np.uint8)


def hang_poster(rng: np.random.Generator, image: Image, within_m: float) -> None:
    """A poster somewhere on the lowest `within_m` of a wall."""
    height, width = image.shape
    size_m = rng.uniform(0.5, 1.0), rng.uniform(0.7, 1.4)
    picture = grey(textures.poster(rng, *size_m, PX_PER_M, int(rng.integers(len(textures.POSTER_MOTIFS)))))
    rows, columns = picture.shape
    bottom = min(_px(within_m), height)
    if columns + 2 < width and rows + 2 < bottom:
        left = int(rng.integers(0, width - columns))
        top = height - bottom + int(rng.integers(0, bottom - rows))
        image[top : top + rows, left : left + columns] = picture


def road(rng: np.random.Generator, sheets: Sheets, s_m: float, length_m: float, width_m: float) -> Image:
    """A piece of road from `s_m` on, driven from left to right: asphalt, patches, seams, manholes, worn markings."""
    image = sheets.cut("asphalt", length_m, width_m)
    height, width = image.shape
    for _ in range(rng.poisson(length_m * 0.22)):
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        corner = (x + _px(rng.uniform(0.5, 3.5)), y + _px(rng.uniform(0.4, 1.5)))
        patch = image[y : corner[1], x : corner[0]]
        patch[:] = grey(patch.astype(np.float32) * rng.choice([0.72, 0.85, 1.15]))
        cv2.rectangle(image, (x, y), corner, 48, _px(0.035))
    for _ in range(rng.poisson(length_m * 0.12)):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0.15, 0.85) * height))
        cv2.circle(image, centre, _px(0.36), 70, -1, cv2.LINE_AA)
        cv2.circle(image, centre, _px(0.33), 125, _px(0.03), cv2.LINE_AA)
        for offset in range(-3, 4):
            start = (centre[0] - _px(0.2), centre[1] + offset * _px(0.075))
            cv2.line(image, start, (centre[0] + _px(0.2), start[1]), 118, _px(0.03))
    for _ in range(rng.poisson(length_m * 0.8)):  # oil and gum
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        axes = (_px(rng.lognormal(-2.6, 0.7)), _px(rng.lognormal(-3.0, 0.6)))
        cv2.ellipse(image, centre, axes, rng.uniform(-20, 20), 0, 360, float(rng.uniform(45, 80)), -1, cv2.LINE_AA)
    marked = np.zeros((height, width), np.float32)
    along = s_m + np.arange(width) / PX_PER_M
    middle, half = height // 2, _px(0.07)
    marked[middle - half : middle + half, along % 7 < 3] = 1
    for edge in (middle - _px(3.15), middle + _px(3.15)):
        marked[edge - half : edge + half] = 1
        for bay in range(int(s_m / 5.5), int((s_m + length_m) / 5.5) + 1):
            x = round((bay * 5.5 - s_m) * PX_PER_M)
            outward = slice(edge, height) if edge > middle else slice(0, edge)
            marked[outward, max(x, 0) : max(x + _px(0.1), 0)] = 1
    wear = np.clip(0.72 + 0.28 * textures.noise_octaves(rng, height, width, 0.5 * PX_PER_M, 6, 0.8), 0, 1)
    marked *= wear
    return grey(image * (1 - marked) + (225 + 0.3 * (image.astype(np.float32) - 124)) * marked)


def leaves(rng: np.random.Generator, width_m: float, height_m: float) -> Image:
    """Foliage: light and dark leaves at several depths."""
    height, width = _px(height_m), _px(width_m)
    image = grey(58 + 22 * textures.noise_octaves(rng, height, width, 0.6 * PX_PER_M, 6, 0.8))
    for _ in range(int(width_m * height_m * 260)):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (_px(rng.uniform(0.03, 0.07)), _px(rng.uniform(0.015, 0.035)))
        tone = float(rng.choice([35, 70, 95, 130, 165], p=[0.25, 0.25, 0.25, 0.15, 0.1]))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, tone, -1, cv2.LINE_AA)
    return image


def car_side(rng: np.random.Generator, width_m: float, height_m: float, *, wheels: bool) -> Image:
    """The body of a car from the side (with wheels), from the front or from behind: doors, lamps, plate, dirt."""
    height, width = _px(height_m), _px(width_m)
    paint = rng.uniform(50, 205)
    shine = np.linspace(1.15, 0.75, height, dtype=np.float32)[:, None]
    dirt = textures.noise_octaves(rng, height, width, 0.5 * PX_PER_M, 7, 0.7)
    image = grey(paint * shine + 6 * dirt + 0.4 * textures.chips(rng, height, width, PX_PER_M, per_m2=6))
    image[height - _px(0.2) :] = 28
    image[_px(0.42) : _px(0.45)] = int(paint * 0.5)
    if wheels:
        for x in (0.33, 0.55, 0.74):
            cv2.line(image, (int(x * width), 0), (int(x * width), height - _px(0.22)), 35, _px(0.015))
            cv2.rectangle(
                image, (int(x * width) - _px(0.3), _px(0.15)), (int(x * width) - _px(0.1), _px(0.19)), 215, -1
            )
        for x in (0.19, 0.8):
            centre = (int(x * width), height - _px(0.33))
            cv2.circle(image, centre, _px(0.37), 18, -1, cv2.LINE_AA)
            cv2.circle(image, centre, _px(0.22), 175, -1, cv2.LINE_AA)
            for spoke in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 1):
                tip = (centre[0] + int(_px(0.2) * np.cos(spoke)), centre[1] + int(_px(0.2) * np.sin(spoke)))
                cv2.line(image, centre, tip, 60, _px(0.05), cv2.LINE_AA)
    else:
        for x in (0.05, 0.72):
            lamp = ((int(x * width), _px(0.12)), (int((x + 0.23) * width), _px(0.34)))
            cv2.rectangle(image, *lamp, float(rng.choice([90, 235])), -1)
            cv2.rectangle(image, *lamp, 30, _px(0.02))
        cv2.rectangle(image, (int(0.33 * width), _px(0.5)), (int(0.67 * width), _px(0.62)), 235, -1)
        plate = f"{textures.random_word(rng)[:2]} {rng.integers(1000, 9999)}"
        textures.write_text(image, plate, (width // 2, _px(0.56)), 0.28 * width, (25.0,), textures.FONTS[0])
    return image


def car_top(rng: np.random.Generator, width_m: float, height_m: float) -> Image:
    """The cabin of a car: windows between pillars, with reflections."""
    height, width = _px(height_m), _px(width_m)
    image = grey(42 + 12 * textures.noise_octaves(rng, height, width, 0.4 * PX_PER_M, 6, 0.6))
    start = rng.uniform(0.1, 0.7) * width
    shine = np.abs(np.arange(width) - start - 0.7 * np.arange(height)[:, None]) < rng.uniform(0.05, 0.2) * width
    image[shine] += 24
    image[: _px(0.08)] = 150
    for x in (0.0, 0.48, 0.96):
        image[:, int(x * width) : int(x * width) + _px(0.09)] = 120
    return image


def sky(rng: np.random.Generator) -> Image:
    """Clouds."""
    return grey(205 + 16 * textures.noise_octaves(rng, 1024, 1024, 300, 7, 0.55))
