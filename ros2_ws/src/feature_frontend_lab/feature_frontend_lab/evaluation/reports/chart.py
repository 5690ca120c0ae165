"""A chart of shares in [0, 1] as horizontal bars, drawn with OpenCV: no plotting library is needed."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend_lab.evaluation.reports.pen import FAINT, INK, Canvas, Color, Pen

__all__ = ["Chart", "Group", "Panel", "draw_chart"]

_MARGIN, _TITLE_HEIGHT, _GROUP_HEADING, _PANEL_HEADING = 24, 64, 34, 26
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
    width = 2 * _MARGIN + _LABEL_WIDTH + panels * (_PANEL_WIDTH + _VALUE_WIDTH + _PANEL_GAP) - _PANEL_GAP
    height = _MARGIN + _TITLE_HEIGHT + sum(_group_height(group) for group in chart.groups)
    pen = Pen(width, height)
    pen.text(chart.title, _MARGIN, _MARGIN + 8, 0.62, INK, bold=True)
    left = _MARGIN
    for name, color in zip(chart.series, _SERIES, strict=False):
        pen.bar(left, _MARGIN + 28, 14, 14, color)
        left += 22 + pen.text(name, left + 22, _MARGIN + 35, 0.46, INK) + 24
    top = _MARGIN + _TITLE_HEIGHT
    for group in chart.groups:
        _draw_group(pen, group, top)
        top += _group_height(group)
    return pen.picture()


def _group_height(group: Group) -> int:
    return _GROUP_HEADING + _PANEL_HEADING + _ROW_HEIGHT * len(group.rows) + _MARGIN


def _draw_group(pen: Pen, group: Group, top: int) -> None:
    pen.text(group.title, _MARGIN, top + 14, 0.52, INK, bold=True)
    first_row = top + _GROUP_HEADING + _PANEL_HEADING
    for number, name in enumerate(group.rows):
        pen.text(name, _MARGIN, first_row + number * _ROW_HEIGHT + _BAR_HEIGHT // 2, 0.46, INK)
    for number, panel in enumerate(group.panels):
        left = _MARGIN + _LABEL_WIDTH + number * (_PANEL_WIDTH + _VALUE_WIDTH + _PANEL_GAP)
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
