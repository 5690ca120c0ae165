"""Figures of timings, in the style of the project's other figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.tables import milliseconds
from benchmarks.types import Timing
from feature_frontend_lab.evaluation.reports.plots import plain, plot_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "draw_bars", "draw_lines", "figure_of"]

_LINE_STYLES = ("-", "--", ":", "-.", (0, (1, 4)))


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: For the legend.
        points: (x, y), both above 0, x increasing.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@plot_style()
def figure_of(plots: Sequence[Callable[[Axes], None]]) -> Figure:
    """One figure of plots below each other, each drawn by a call."""
    from matplotlib.figure import Figure

    figure = Figure((9.6, 4 * len(plots)))
    for draw, axes in zip(plots, figure.subplots(len(plots), squeeze=False).flat, strict=True):
        draw(axes)
    return figure


def draw_bars(title: str, timings: Sequence[Timing], colors: Mapping[str, int], axes: Axes) -> None:
    """Medians as horizontal bars from 0 ms, each with a whisker from the first to the third quartile.

    Args:
        title: Above the bars.
        timings: From top to bottom.
        colors: Number of the colour by a timing's name; without, it is 0.
        axes: To be drawn into.
    """
    low, medians, high = ([timing.quantile(fraction) for timing in timings] for fraction in (0.25, 0.5, 0.75))
    whiskers = [[b - a for a, b in zip(low, medians, strict=True)], [b - a for a, b in zip(medians, high, strict=True)]]
    own = [f"C{colors.get(timing.name, 0)}" for timing in timings]
    bars = axes.barh(range(len(timings)), medians, height=0.5, xerr=whiskers, color=own)
    axes.bar_label(bars, [f"{milliseconds(median)} ms" for median in medians], padding=6)
    axes.set_yticks(range(len(timings)), [plain(timing.name) for timing in timings], color="black")
    axes.set(title=title, xticks=[], ylim=(max(len(timings), 6) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def draw_lines(title: str, x_title: str, lines: Sequence[Line], x_labels: Mapping[float, str], axes: Axes) -> None:
    """Curves in ms over logarithmic axes: a straight line of slope 1 is cost in proportion.

    Args:
        title: Above the curves.
        x_title: What x is.
        lines: In the order of the legend, the variants of a network one after another.
        x_labels: The ticks of x, each with its text.
        axes: To be drawn into.

    Raises:
        ValueError: There is no point, or one is not above 0.
    """
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    points = [point for line in lines for point in line.points]
    if not points or min(min(point) for point in points) <= 0:
        msg = f"{title!r} has {len(points)} points; expected at least one, all above 0 for the logarithmic axes"
        raise ValueError(msg)
    # A colour for each network, and a line style for each of its variants.
    networks: dict[str, list[str]] = {}
    for line in lines:
        variants = networks.setdefault(line.name.partition(" ")[0], [])
        axes.loglog(
            *zip(*line.points, strict=True),
            color=f"C{len(networks) - 1}",
            linestyle=_LINE_STYLES[len(variants) % len(_LINE_STYLES)],
            marker="o",
            label=plain(line.name),
        )
        variants.append(line.name)
    axes.set(title=plain(title), xlabel=x_title, ylabel="ms")
    axes.set_xticks(list(x_labels), list(x_labels.values()))
    # Wide enough for a tick or two also where all curves are level.
    axes.set_ylim(min(y for _, y in points) / 2, 2 * max(y for _, y in points))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=4)
