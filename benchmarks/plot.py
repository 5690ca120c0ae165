"""Pictures of timings, drawn with OpenCV as the project's other charts are: no plotting library is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from benchmarks.tables import milliseconds
from benchmarks.types import Canvas, Timing

__all__ = ["Line", "draw_bars", "draw_lines", "stack"]

Color = tuple[int, int, int]

# OpenCV's fonts are lines: drawn large and made small, they come out smooth.
_OVERSAMPLING = 2
_WHITE, _INK, _FAINT, _GRID = (255, 255, 255), (40, 44, 52), (120, 126, 134), (228, 231, 234)
# Distinguishable also without colour vision (Okabe and Ito), darkest first.
_COLORS: tuple[Color, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90),
    (150, 110, 60), (128, 0, 128), (0, 70, 60),
)  # fmt: skip
_WIDTH, _MARGIN, _TITLE_HEIGHT = 960, 24, 44
_BAR_LABEL_WIDTH, _VALUE_WIDTH, _ROW_HEIGHT, _BAR_HEIGHT = 210, 150, 28, 18
_PLOT_HEIGHT, _LEFT, _RIGHT, _BOTTOM = 340, 70, 230, 46


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: For the legend.
        points: (x, y), both above 0, x increasing.
    """

    name: str
    points: tuple[tuple[float, float], ...]


def draw_bars(title: str, timings: Sequence[Timing], colors: Mapping[str, int] | None = None) -> Canvas:
    """Medians as horizontal bars from 0 ms, each with a whisker from the first to the third quartile.

    Args:
        title: Above the bars.
        timings: From top to bottom.
        colors: Number of the colour by a timing's name; by default all have the first.
    """
    pen = _Pen(_WIDTH, _TITLE_HEIGHT + _ROW_HEIGHT * len(timings) + _MARGIN)
    pen.text(title, _MARGIN, 24, 0.56, _INK, bold=True)
    left, room = _MARGIN + _BAR_LABEL_WIDTH, _WIDTH - 2 * _MARGIN - _BAR_LABEL_WIDTH - _VALUE_WIDTH
    longest = max((timing.quantile(0.75) for timing in timings), default=1.0)
    for row, timing in enumerate(timings):
        top = _TITLE_HEIGHT + row * _ROW_HEIGHT
        middle = top + _BAR_HEIGHT // 2
        pen.text(timing.name, _MARGIN, middle, 0.46, _INK)
        ends = [left + room * timing.quantile(share) / longest for share in (0.25, 0.5, 0.75)]
        pen.bar(left, top, max(ends[1] - left, 1), _BAR_HEIGHT, _COLORS[(colors or {}).get(timing.name, 0)])
        pen.line((ends[0], middle), (ends[2], middle), _INK, 2)
        pen.text(f"{milliseconds(timing.median)} ms", int(ends[2]) + 8, middle, 0.44, _INK)
    return pen.picture()


def draw_lines(title: str, x_title: str, lines: Sequence[Line], x_labels: Mapping[float, str]) -> Canvas:
    """Curves in ms over logarithmic axes: a straight line of slope 1 is cost in proportion.

    Args:
        title: Above the curves.
        x_title: What x is.
        lines: In the order of the legend.
        x_labels: The ticks of x, each with its text.

    Raises:
        ValueError: There is no point, or one is not above 0.
    """
    points = [point for line in lines for point in line.points]
    if not points or min(min(point) for point in points) <= 0:
        msg = f"{title!r} has {len(points)} points; expected at least one, all above 0 for the logarithmic axes"
        raise ValueError(msg)
    pen = _Pen(_WIDTH, _TITLE_HEIGHT + _PLOT_HEIGHT + _BOTTOM)
    pen.text(title, _MARGIN, 24, 0.56, _INK, bold=True)
    x_scale = _LogScale.around([x for x, _ in points], _LEFT + 16, _WIDTH - _RIGHT - 16)
    y_ticks = _ticks([y for _, y in points])
    y_scale = _LogScale.around([*y_ticks, *(y for _, y in points)], _TITLE_HEIGHT + _PLOT_HEIGHT, _TITLE_HEIGHT)
    for tick in y_ticks:
        y = y_scale(tick)
        pen.line((_LEFT, y), (_WIDTH - _RIGHT, y), _GRID, 1)
        pen.text(f"{tick:g}", _LEFT - 8, int(y), 0.42, _FAINT, align=1.0)
    pen.text("ms", 8, _TITLE_HEIGHT + _PLOT_HEIGHT + 14, 0.42, _FAINT)
    for x, label in x_labels.items():
        pen.line((x_scale(x), _TITLE_HEIGHT), (x_scale(x), _TITLE_HEIGHT + _PLOT_HEIGHT), _GRID, 1)
        pen.text(label, int(x_scale(x)), _TITLE_HEIGHT + _PLOT_HEIGHT + 14, 0.42, _FAINT, align=0.5)
    pen.text(x_title, _LEFT, _TITLE_HEIGHT + _PLOT_HEIGHT + 34, 0.44, _INK)
    for number, line in enumerate(lines):
        color = _COLORS[number % len(_COLORS)]
        pixels = [(x_scale(x), y_scale(y)) for x, y in line.points]
        for start, end in pairwise(pixels):
            pen.line(start, end, color, 2)
        for pixel in pixels:
            pen.dot(pixel, color)
        legend = (_WIDTH - _RIGHT + 14, _TITLE_HEIGHT + 10 + 22 * number)
        pen.line(legend, (legend[0] + 20, legend[1]), color, 3)
        pen.text(line.name, legend[0] + 28, legend[1], 0.42, _INK)
    return pen.picture()


def stack(pictures: Sequence[Canvas]) -> Canvas:
    """Pictures below each other, the narrower ones with white to their right."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255) for picture in pictures
    ]
    return np.asarray(np.vstack(padded), np.uint8)


@dataclass(frozen=True)
class _LogScale:
    """Maps [low, high] to [start, end] px, logarithmically."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> _LogScale:
        low, high = min(values), max(values)
        # One value only: it lies in the middle.
        return cls(low / 1.5, high * 1.5, start, end) if low == high else cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten, from just below the values to just above them."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    candidates = [factor * 10.0**power for power in range(low, high + 1) for factor in (1, 2, 5)]
    below = max((tick for tick in candidates if tick <= min(values)), default=candidates[0])
    above = min((tick for tick in candidates if tick >= max(values)), default=candidates[-1])
    return [tick for tick in candidates if below <= tick <= above]


class _Pen:
    """Draws on a white canvas; positions and sizes are px of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._canvas = np.full((height * _OVERSAMPLING, width * _OVERSAMPLING, 3), _WHITE, np.uint8)

    def bar(self, left: float, top: float, width: float, height: float, color: Color) -> None:
        rows = slice(round(top * _OVERSAMPLING), round((top + height) * _OVERSAMPLING))
        self._canvas[rows, round(left * _OVERSAMPLING) : round((left + width) * _OVERSAMPLING)] = color

    def line(self, start: tuple[float, float], end: tuple[float, float], color: Color, width: int) -> None:
        cv2.line(self._canvas, self._place(start), self._place(end), color, width * _OVERSAMPLING, cv2.LINE_AA)

    def dot(self, at: tuple[float, float], color: Color) -> None:
        cv2.circle(self._canvas, self._place(at), 4 * _OVERSAMPLING, color, cv2.FILLED, cv2.LINE_AA)

    def text(
        self,
        text: str,
        left: int,
        middle: int,
        size: float,
        color: Color,
        *,
        bold: bool = False,
        align: float = 0.0,
    ) -> None:
        """Writes from `left` on (`align` 0), around it (0.5) or up to it (1), vertically centred on `middle`."""
        font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, size * _OVERSAMPLING, 3 if bold else 2
        (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
        place = (left * _OVERSAMPLING - round(align * width), middle * _OVERSAMPLING + height // 2)
        cv2.putText(self._canvas, text, place, font, scale, color, thickness, cv2.LINE_AA)

    def picture(self) -> Canvas:
        return np.asarray(cv2.resize(self._canvas, self._size, interpolation=cv2.INTER_AREA), np.uint8)

    @staticmethod
    def _place(point: tuple[float, float]) -> tuple[int, int]:
        return round(point[0] * _OVERSAMPLING), round(point[1] * _OVERSAMPLING)
