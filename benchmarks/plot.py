"""Pictures of timings, drawn with OpenCV as the project's other charts are: no plotting library is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.tables import milliseconds
from benchmarks.types import Canvas, Timing
from feature_frontend_lab.evaluation.reports.plots import COLORS, FAINT, GRID, INK, Pen

__all__ = ["Line", "draw_bars", "draw_lines", "stack"]

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
    pen = Pen(_WIDTH, _TITLE_HEIGHT + _ROW_HEIGHT * len(timings) + _MARGIN)
    pen.text(title, _MARGIN, 24, 0.56, INK, bold=True)
    left, room = _MARGIN + _BAR_LABEL_WIDTH, _WIDTH - 2 * _MARGIN - _BAR_LABEL_WIDTH - _VALUE_WIDTH
    longest = max((timing.quantile(0.75) for timing in timings), default=1.0)
    for row, timing in enumerate(timings):
        top = _TITLE_HEIGHT + row * _ROW_HEIGHT
        middle = top + _BAR_HEIGHT // 2
        pen.text(timing.name, _MARGIN, middle, 0.46, INK)
        ends = [left + room * timing.quantile(share) / longest for share in (0.25, 0.5, 0.75)]
        pen.bar(left, top, max(ends[1] - left, 1), _BAR_HEIGHT, COLORS[(colors or {}).get(timing.name, 0)])
        pen.line((ends[0], middle), (ends[2], middle), INK, 2)
        pen.text(f"{milliseconds(timing.median)} ms", int(ends[2]) + 8, middle, 0.44, INK)
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
    pen = Pen(_WIDTH, _TITLE_HEIGHT + _PLOT_HEIGHT + _BOTTOM)
    pen.text(title, _MARGIN, 24, 0.56, INK, bold=True)
    x_scale = _LogScale.around([x for x, _ in points], _LEFT + 16, _WIDTH - _RIGHT - 16)
    y_ticks = _ticks([y for _, y in points])
    y_scale = _LogScale.around([*y_ticks, *(y for _, y in points)], _TITLE_HEIGHT + _PLOT_HEIGHT, _TITLE_HEIGHT)
    for tick in y_ticks:
        y = y_scale(tick)
        pen.line((_LEFT, y), (_WIDTH - _RIGHT, y), GRID, 1)
        pen.text(f"{tick:g}", _LEFT - 8, int(y), 0.42, FAINT, align=1.0)
    pen.text("ms", 8, _TITLE_HEIGHT + _PLOT_HEIGHT + 14, 0.42, FAINT)
    for x, label in x_labels.items():
        pen.line((x_scale(x), _TITLE_HEIGHT), (x_scale(x), _TITLE_HEIGHT + _PLOT_HEIGHT), GRID, 1)
        pen.text(label, int(x_scale(x)), _TITLE_HEIGHT + _PLOT_HEIGHT + 14, 0.42, FAINT, align=0.5)
    pen.text(x_title, _LEFT, _TITLE_HEIGHT + _PLOT_HEIGHT + 34, 0.44, INK)
    for number, line in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        pixels = [(x_scale(x), y_scale(y)) for x, y in line.points]
        for start, end in pairwise(pixels):
            pen.line(start, end, color, 2)
        for pixel in pixels:
            pen.dot(pixel, color)
        legend = (_WIDTH - _RIGHT + 14, _TITLE_HEIGHT + 10 + 22 * number)
        pen.line(legend, (legend[0] + 20, legend[1]), color, 3)
        pen.text(line.name, legend[0] + 28, legend[1], 0.42, INK)
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
