"""Figures of matplotlib in one style; nothing here needs a display."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_frontend.system.text import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["FAINT", "add_header", "finish_axes", "plain", "plot_curve", "plot_grid", "plot_style", "png"]

# Imported where something is drawn, since that takes a while; but missed before a long run and not after it.
if find_spec("matplotlib") is None:
    _msg = "matplotlib is not installed, which draws the lab's plots; add it by `pip install matplotlib`"
    raise ImportError(_msg)

FAINT = "0.45"  # grey
# Distinguishable also without colour vision: Okabe and Ito's, and four more.
_COLORS = ["0072b2", "d55e00", "009e73", "cc79a7", "e69f00", "56b4e9", "5a5a5a", "966e3c", "800080", "00463c"]
_STYLE: Any = {
    "axes.edgecolor": "0.9",
    "axes.labelcolor": FAINT,
    "axes.grid": True,
    "axes.prop_cycle": f"cycler(color={_COLORS})",
    "axes.spines.top": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.titlesize": "large",
    "figure.titleweight": "bold",
    "font.size": 9,
    "grid.color": "0.9",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "xtick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.color": FAINT,
    "ytick.major.size": 0,
}
# Inches; a letter is at most so wide.
_WIDTH_IN, _ASPECT, _TITLE_IN, _NAMES_IN, _LETTER_IN = 12.4, 0.72, 0.4, 0.22, 0.085


@contextmanager
def plot_style() -> Iterator[None]:
    """The look of every figure, whatever the user's matplotlibrc says; also decorates a function that draws."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


@plot_style()
def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def plain(text: str) -> str:
    """A text from outside as it is: no formula between dollars, no label that a legend leaves out."""
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def add_header(part: SubFigure, title: str, legend: Mapping[str, Artist], columns: int) -> None:
    """The title of all, and below it what looks how; `part` holds nothing else."""
    part.suptitle(plain(title), x=0.01, ha="left")
    part.legend(list(legend.values()), [plain(name) for name in legend], loc="lower left", ncol=columns)


def plot_grid(
    title: str, legend: Mapping[str, Mapping[str, Any]], count: int, columns: int
) -> tuple[Figure, Sequence[Axes]]:
    """`count` empty axes in rows below one title and one legend, which gives each name its properties of a line."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = -(-count // columns)
    body_in = rows * _ASPECT * _WIDTH_IN / columns
    names_in_row = max(1, int(_WIDTH_IN / (0.6 + _LETTER_IN * max(map(len, legend), default=0))))
    header_in = _TITLE_IN + _NAMES_IN * -(-len(legend) // names_in_row)
    figure = Figure((_WIDTH_IN, header_in + body_in))
    header, body = figure.subfigures(2, 1, squeeze=False, height_ratios=[header_in, body_in])[:, 0]
    add_header(header, title, {name: Line2D([], [], **style) for name, style in legend.items()}, names_in_row)
    axes = body.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def plot_curve(axes: Axes, points: Iterable[tuple[float, float]], **style: Any) -> None:
    """A curve through the points (x, y) that are finite."""
    values = np.array(list(points), float).reshape(-1, 2)
    axes.plot(*values[np.isfinite(values).all(axis=1)].T, clip_on=False, in_layout=False, **style)


def finish_axes(
    axes: Axes, title: str, x_title: str, ticks: Mapping[float, str] | None = None, highest: float | None = None
) -> None:
    """Titles, the ticks of x with their texts, and y from 0 to `highest`; without a value, axes that say so."""
    axes.set_title(plain(title))
    axes.set_xlabel(x_title)
    if not any(np.size(line.get_xdata()) for line in axes.lines):
        axes.text(0.5, 0.5, "no values", ha="center", color=FAINT, transform=axes.transAxes)
        axes.grid(visible=False)
        axes.set(xticks=[], yticks=[])
        return
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_ylim(0, highest)
