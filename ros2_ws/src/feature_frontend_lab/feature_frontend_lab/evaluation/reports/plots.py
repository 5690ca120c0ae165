"""What reports draw, with OpenCV, so that no plotting library is needed: curves over linear axes, bars of shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.system.text import printable

__all__ = [
    "COLORS",
    "FAINT",
    "GRID",
    "INK",
    "Canvas",
    "Chart",
    "Color",
    "Group",
    "Line",
    "Panel",
    "Pen",
    "Plot",
    "draw_chart",
    "draw_plots",
    "tick_spacing",
]

Canvas = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

INK, FAINT, GRID = (40, 44, 52), (120, 126, 134), (228, 231, 234)
# Distinguishable also without colour vision (Okabe and Ito), darkest first.
COLORS: tuple[Color, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90),
    (150, 110, 60), (128, 0, 128), (0, 70, 60),
)  # fmt: skip

# OpenCV's fonts are lines: drawn large and made small, they come out smooth.
_OVERSAMPLING = 2


class Pen:
    """Draws on a white canvas; positions and sizes are px of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._canvas = np.full((height * _OVERSAMPLING, width * _OVERSAMPLING, 3), (255, 255, 255), np.uint8)

    def bar(self, left: float, top: float, width: float, height: float, color: Color) -> None:
        """A filled rectangle."""
        rows = slice(round(top * _OVERSAMPLING), round((top + height) * _OVERSAMPLING))
        self._canvas[rows, round(left * _OVERSAMPLING) : round((left + width) * _OVERSAMPLING)] = color

    def line(self, start: tuple[float, float], end: tuple[float, float], color: Color, width: int) -> None:
        """A straight line from `start` to `end`, (x, y)."""
        cv2.line(self._canvas, self._place(start), self._place(end), color, width * _OVERSAMPLING, cv2.LINE_AA)

    def dot(self, at: tuple[float, float], color: Color) -> None:
        """A filled circle of 8 px."""
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
    ) -> int:
        """Writes from `left` on (`align` 0), around it (0.5) or up to it (1), vertically centred on `middle`.

        Returns:
            The width of the text.
        """
        text = printable(text)  # OpenCV ends the process for names that are no UTF-8
        font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, size * _OVERSAMPLING, 3 if bold else 2
        (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
        place = (left * _OVERSAMPLING - round(align * width), middle * _OVERSAMPLING + height // 2)
        cv2.putText(self._canvas, text, place, font, scale, color, thickness, cv2.LINE_AA)
        return width // _OVERSAMPLING

    def picture(self) -> Canvas:
        """What was drawn, (H, W, 3) RGB."""
        return np.asarray(cv2.resize(self._canvas, self._size, interpolation=cv2.INTER_AREA), np.uint8)

    @staticmethod
    def _place(point: tuple[float, float]) -> tuple[int, int]:
        return round(point[0] * _OVERSAMPLING), round(point[1] * _OVERSAMPLING)


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


_CHART_MARGIN, _CHART_TITLE, _GROUP_HEADING, _PANEL_HEADING = 24, 64, 34, 26
_LABEL_WIDTH, _PANEL_WIDTH, _PANEL_GAP, _VALUE_WIDTH = 170, 230, 30, 80
_ROW_HEIGHT, _BAR_HEIGHT = 26, 18
_TRACK = (240, 242, 244)
# Dark for the strictest series, then lighter; of one hue, since the second bar contains the first.
_SERIES: tuple[Color, ...] = ((24, 92, 140), (150, 196, 226), (205, 226, 240))


@dataclass(frozen=True)
class Panel:
    """One measure.

    Attributes:
        title: Its name.
        values: For each row, a share for each series, not decreasing; None where there is no value.
    """

    title: str
    values: tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True)
class Group:
    """Panels side by side that share their rows."""

    title: str
    rows: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Chart:
    """Groups below each other. A bar of a later series lies behind those of the series before it."""

    title: str
    series: tuple[str, ...]
    groups: tuple[Group, ...]


def draw_chart(chart: Chart) -> Canvas:
    """The chart as an (H, W, 3) RGB picture; its size follows from the number of rows, panels and groups."""
    panels = max((len(group.panels) for group in chart.groups), default=1)
    width = 2 * _CHART_MARGIN + _LABEL_WIDTH + panels * (_PANEL_WIDTH + _VALUE_WIDTH + _PANEL_GAP) - _PANEL_GAP
    height = _CHART_MARGIN + _CHART_TITLE + sum(_group_height(group) for group in chart.groups)
    pen = Pen(width, height)
    pen.text(chart.title, _CHART_MARGIN, _CHART_MARGIN + 8, 0.62, INK, bold=True)
    left = _CHART_MARGIN
    for name, color in zip(chart.series, _SERIES, strict=False):
        pen.bar(left, _CHART_MARGIN + 28, 14, 14, color)
        left += 22 + pen.text(name, left + 22, _CHART_MARGIN + 35, 0.46, INK) + 24
    top = _CHART_MARGIN + _CHART_TITLE
    for group in chart.groups:
        _draw_group(pen, group, top)
        top += _group_height(group)
    return pen.picture()


def _group_height(group: Group) -> int:
    return _GROUP_HEADING + _PANEL_HEADING + _ROW_HEIGHT * len(group.rows) + _CHART_MARGIN


def _draw_group(pen: Pen, group: Group, top: int) -> None:
    pen.text(group.title, _CHART_MARGIN, top + 14, 0.52, INK, bold=True)
    first_row = top + _GROUP_HEADING + _PANEL_HEADING
    for number, name in enumerate(group.rows):
        pen.text(name, _CHART_MARGIN, first_row + number * _ROW_HEIGHT + _BAR_HEIGHT // 2, 0.46, INK)
    for number, panel in enumerate(group.panels):
        left = _CHART_MARGIN + _LABEL_WIDTH + number * (_PANEL_WIDTH + _VALUE_WIDTH + _PANEL_GAP)
        pen.text(panel.title, left, top + _GROUP_HEADING + 8, 0.46, FAINT)
        for row, values in enumerate(panel.values):
            _draw_bar(pen, values, left, first_row + row * _ROW_HEIGHT)


def _draw_bar(pen: Pen, values: tuple[float, ...] | None, left: int, top: int) -> None:
    middle = top + _BAR_HEIGHT // 2
    if values is None:
        pen.text("-", left, middle, 0.42, FAINT)
        return
    pen.bar(left, top, _PANEL_WIDTH, _BAR_HEIGHT, _TRACK)
    for value, color in reversed(list(zip(values, _SERIES, strict=False))):
        pen.bar(left, top, round(_PANEL_WIDTH * min(max(value, 0.0), 1.0)), _BAR_HEIGHT, color)
    pen.text(" / ".join(f"{value:.2f}" for value in values), left + _PANEL_WIDTH + 6, middle, 0.4, INK)
