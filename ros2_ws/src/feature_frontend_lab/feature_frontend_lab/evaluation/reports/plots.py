"""Curves over linear axes, several plots in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from feature_frontend_lab.evaluation.reports.pen import COLORS, FAINT, GRID, INK, Canvas, Color, Pen

__all__ = ["Line", "Plot", "draw_plots", "tick_spacing"]

_PLOTS_WIDTH, _ASPECT = 1200, 290 / 400
_MARGIN, _TITLE_HEIGHT, _LEGEND_HEIGHT = 20, 34, 26
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 34, 46
_DASH_PX = 7.0

XY = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        points: (x, y); those that are not finite are left out.
        color: Number of a colour; None for the ink of the text.
        dashed: Whether it is drawn as dashes.
        dots: Whether its points are marked.
    """

    points: tuple[XY, ...]
    color: int | None
    dashed: bool = False
    dots: bool = True


@dataclass(frozen=True)
class Plot:
    """Axes with curves.

    Attributes:
        title: Above them.
        x_title: Below them.
        lines: The curves; a later one is drawn over the ones before.
        x_labels: The ticks of x with their texts; empty: round numbers.
        highest: Upper end of y; None: from the points. y begins at 0.
        is_map: Whether x and y are positions: no axis begins at 0, and both have the same scale.
    """

    title: str
    x_title: str
    lines: tuple[Line, ...]
    x_labels: Mapping[float, str] = field(default_factory=dict)
    highest: float | None = None
    is_map: bool = False


def draw_plots(title: str, legend: Sequence[tuple[str, Line]], plots: Sequence[Plot], columns: int = 3) -> Canvas:
    """The plots in rows under one title and one legend, as an (H, W, 3) RGB picture; its width is always the same.

    Args:
        title: Above all.
        legend: Names, each with a line that looks like those it stands for.
        plots: From left to right, then from top to bottom.
        columns: Plots in a row.
    """
    rows = -(-len(plots) // columns)
    cell_width = _PLOTS_WIDTH // columns
    cell_height = round(_ASPECT * cell_width)
    legend_rows = _legend_rows(legend)
    top = _MARGIN + _TITLE_HEIGHT + _LEGEND_HEIGHT * len(legend_rows)
    pen = Pen(2 * _MARGIN + _PLOTS_WIDTH, top + rows * cell_height + _MARGIN)
    pen.text(title, _MARGIN, _MARGIN + 8, 0.62, INK, bold=True)
    for row, entries in enumerate(legend_rows):
        left, middle = _MARGIN, _MARGIN + _TITLE_HEIGHT + 8 + _LEGEND_HEIGHT * row
        for name, line in entries:
            _stroke(pen, [(left, middle), (left + 30, middle)], _color(line), dashed=line.dashed)
            left += 38 + pen.text(name, left + 38, middle, 0.46, INK) + 24
    for number, plot in enumerate(plots):
        row, column = divmod(number, columns)
        _draw_plot(pen, plot, (_MARGIN + column * cell_width, top + row * cell_height), (cell_width, cell_height))
    return pen.picture()


def tick_spacing(extent: float, least: int = 4) -> float:
    """1, 2 or 5 times a power of ten, so that there are at least `least` ticks over `extent`, above 0."""
    power = 10.0 ** math.floor(math.log10(extent / least))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= extent / least * 1.0001)


def _legend_width(name: str) -> int:
    # At most: a letter is up to 9 px wide at this size.
    return 38 + 9 * len(name) + 24


def _legend_rows(legend: Sequence[tuple[str, Line]]) -> list[list[tuple[str, Line]]]:
    rows: list[list[tuple[str, Line]]] = [[]]
    used = 0
    for name, line in legend:
        width = _legend_width(name)
        if rows[-1] and used + width > _PLOTS_WIDTH:
            rows.append([])
            used = 0
        rows[-1].append((name, line))
        used += width
    return rows


def _draw_plot(pen: Pen, plot: Plot, corner: tuple[int, int], size: tuple[int, int]) -> None:
    (left, top), (width, height) = corner, size
    box = (left + _LEFT, top + _TOP, left + width - _RIGHT, top + height - _BOTTOM)
    pen.text(plot.title, box[0], top + 16, 0.48, INK, bold=True)
    pen.text(plot.x_title, (box[0] + box[2]) // 2, box[3] + 34, 0.42, FAINT, align=0.5)
    lines = [[point for point in line.points if all(map(math.isfinite, point))] for line in plot.lines]
    points = [point for line in lines for point in line]
    if not points:
        pen.text("no values", (box[0] + box[2]) // 2, (box[1] + box[3]) // 2, 0.46, FAINT, align=0.5)
        return
    (x_low, x_high), (y_low, y_high) = _ranges(plot, points, box)

    def place(x: float, y: float) -> XY:
        return (
            box[0] + (x - x_low) / (x_high - x_low) * (box[2] - box[0]),
            box[3] - (y - y_low) / (y_high - y_low) * (box[3] - box[1]),
        )

    for y in _ticks(y_low, y_high):
        start, end = place(x_low, y), place(x_high, y)
        pen.line(start, end, GRID, 1)
        pen.text(f"{y:g}", box[0] - 8, round(start[1]), 0.4, FAINT, align=1.0)
    for x, label in (plot.x_labels or {x: f"{x:g}" for x in _ticks(x_low, x_high)}).items():
        bottom = place(x, y_low)
        pen.line(bottom, place(x, y_high), GRID, 1)
        pen.text(label, round(bottom[0]), box[3] + 14, 0.4, FAINT, align=0.5)
    for line, finite in zip(plot.lines, lines, strict=True):
        pixels = [place(*point) for point in finite]
        _stroke(pen, pixels, _color(line), dashed=line.dashed)
        for pixel in pixels if line.dots else ():
            pen.dot(pixel, _color(line))


def _ranges(plot: Plot, points: Sequence[XY], box: tuple[int, int, int, int]) -> tuple[XY, XY]:
    """Lower and upper end of x and of y."""
    xs, ys = [x for x, _ in points] + list(plot.x_labels), [y for _, y in points]
    if not plot.is_map:
        room = 0.04 * (max(xs) - min(xs) or 1.0)
        highest = max(ys) if plot.highest is None else plot.highest
        spacing = tick_spacing(highest) if highest > 0 else 1.0
        return (min(xs) - room, max(xs) + room), (0.0, spacing * math.ceil(highest / spacing - 1e-9) or 1.0)
    width, height = box[2] - box[0], box[3] - box[1]
    unit = 1.1 * max((max(xs) - min(xs)) / width, (max(ys) - min(ys)) / height, 1e-9)
    x, y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return (x - unit * width / 2, x + unit * width / 2), (y - unit * height / 2, y + unit * height / 2)


def _ticks(low: float, high: float) -> list[float]:
    spacing = tick_spacing(high - low)
    # Rounded, so that 3 times 0.1 is written as 0.3.
    return [
        round(spacing * n, 12) for n in range(math.ceil(low / spacing - 1e-9), math.floor(high / spacing + 1e-9) + 1)
    ]


def _color(line: Line) -> Color:
    return INK if line.color is None else COLORS[line.color % len(COLORS)]


def _stroke(pen: Pen, pixels: Sequence[XY], color: Color, *, dashed: bool) -> None:
    for (x0, y0), (x1, y1) in pairwise(pixels):
        pieces = max(round(math.hypot(x1 - x0, y1 - y0) / _DASH_PX), 1) | 1 if dashed else 1
        for piece in range(0, pieces, 2):
            begin, end = piece / pieces, (piece + 1) / pieces
            start = (x0 + begin * (x1 - x0), y0 + begin * (y1 - y0))
            pen.line(start, (x0 + end * (x1 - x0), y0 + end * (y1 - y0)), color, 2)
