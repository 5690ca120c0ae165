"""Step: frame time against the image's size and against the batch, beside the floor, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.measure import interleave, synchronizer
from benchmarks.plot import Line, draw_lines, figure_of
from benchmarks.tables import milliseconds
from benchmarks.types import Size, Table
from feature_frontend_lab.evaluation.reports.plots import png
from scripts.gpu_check.fast.floors import Floors
from scripts.gpu_check.fast.settings import PRECISIONS, Timed, at_turn, budgets, frames_for, sizes
from scripts.gpu_check.models import available, on_device
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import TimeBox

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curve", "draw", "speed_against_size_and_batch"]

_SIZES: tuple[Size, ...] = ((640, 480), (1920, 1080), (320, 240), (1280, 720), (960, 540))
_BATCHES = (8, 32, 2, 16, 4)
_REHEARSED_SIZES: tuple[Size, ...] = ((160, 128), (96, 64))
_REHEARSED_BATCHES = (2,)
_ROUNDS, _REHEARSED_ROUNDS = 50, 2
_MEGA = 1e6


@dataclass
class Curve:
    """Times of one number format: by what they are against, in ms.

    Attributes:
        by_size: Of one image.
        floor_by_size: Its floor.
        by_batch: Of one image of a batch at the first size.
        floor_by_batch: Its floor.
    """

    by_size: dict[Size, float] = field(default_factory=dict)
    floor_by_size: dict[Size, float] = field(default_factory=dict)
    by_batch: dict[int, float] = field(default_factory=dict)
    floor_by_batch: dict[int, float] = field(default_factory=dict)


def speed_against_size_and_batch(context: Context, box: TimeBox) -> Outcome:
    """Extraction alone, `Extractor.extract`, with as many points at every size."""
    network = "silk-vggnp-mu" if context.is_rehearsal else "aliked-n16"
    available(context, [network])
    floors = Floors(context.device)
    first = sizes(context)[0]
    own_sizes = _REHEARSED_SIZES if context.is_rehearsal else _SIZES
    own_batches = _REHEARSED_BATCHES if context.is_rehearsal else _BATCHES
    curves = {precision: Curve() for precision in PRECISIONS}
    # Ends of the curves before their middles, so that what there is time for is a curve.
    settings = [(precision, size, 1) for size in own_sizes for precision in PRECISIONS]
    settings += [(precision, first, batch) for batch in own_batches for precision in PRECISIONS]
    rows = []
    for precision, size, batch in box.each(settings, lambda each: f"{each[0]} {each[1][0]}x{each[1][1]} by {each[2]}"):
        with box.attempt(f"{precision} {size[0]}x{size[1]} by {batch}"):
            time_ms, floor_ms = _measure(context, network, precision, size, batch, floors)
            curve = curves[precision]
            if batch == 1:
                curve.by_size[size], curve.floor_by_size[size] = time_ms, floor_ms
            if size == first:
                curve.by_batch[batch], curve.floor_by_batch[batch] = time_ms / batch, floor_ms / batch
            cells = milliseconds(time_ms / batch), milliseconds(floor_ms / batch), f"{time_ms / floor_ms:.1f}"
            rows.append((f"{size[0]}x{size[1]}", precision, str(batch), *cells))
    picture = context.scratch / "speed.png"
    picture.write_bytes(png(draw(curves, network, first, context.device)))
    columns = ("image", "format", "batch", "ms an image", "floor", "times the floor")
    note = f"{network}, {budgets(context)[0]} points, images on the host in, features on the device out; medians."
    table = Table(f"Against size and batch, {context.device}", columns, tuple(sorted(rows, key=_row_order)), note)
    data: dict[str, Any] = {"network": network, "rows": [list(row) for row in rows]}
    text = f"{len(rows)} points of the curves, in {picture.name}"
    return Outcome(passed=True, text=text, tables=[table], data=data, files=[picture])


def draw(curves: dict[str, Curve], network: str, first: Size, device: str) -> Figure:
    """Two plots, below each other: by size and by batch."""
    by_size: list[Line] = []
    by_batch: list[Line] = []
    for precision, curve in curves.items():
        for lines, own, floor, x_of in (
            (by_size, curve.by_size, curve.floor_by_size, _megapixels),
            (by_batch, curve.by_batch, curve.floor_by_batch, float),
        ):
            _add(lines, precision, own, x_of)
            _add(lines, f"{precision} floor", floor, x_of)
    of_size = {size for curve in curves.values() for size in curve.by_size}
    of_batch = {batch for curve in curves.values() for batch in curve.by_batch}
    where = f"{network} on {device}"
    sizes_named = {_megapixels(size): f"{size[0]}x{size[1]}" for size in sorted(of_size)}
    plots = [partial(draw_lines, f"A frame against its size, {where}", "image", by_size, sizes_named)]
    if of_batch:
        title = f"An image against the batch, {first[0]}x{first[1]}, {where}"
        batches = {float(n): str(n) for n in sorted(of_batch)}
        plots.append(partial(draw_lines, title, "images in a batch", by_batch, batches))
    return figure_of(plots)


def _add(lines: list[Line], name: str, own: dict[Any, float], x_of: Callable[[Any], float]) -> None:
    points = tuple(sorted((x_of(key), ms) for key, ms in own.items()))
    if points:
        lines.append(Line(name, points))


def _measure(
    context: Context, network: str, precision: str, size: Size, batch: int, floors: Floors
) -> tuple[float, float]:
    """Median of a run on a batch in ms, and its floor."""
    timed = Timed(network, "chain", "mnn", size, budgets(context)[0], precision)
    extractor = on_device(timed.settings(context))
    frames = frames_for(context, size)

    def call(number: int) -> object:
        return extractor.extract_batch([at_turn(frames, number + place) for place in range(batch)])

    rounds = _REHEARSED_ROUNDS if context.is_rehearsal else _ROUNDS
    timings = interleave({"": call}, rounds, warmup=2, synchronize=synchronizer(context.device))
    floor = floors.of(extractor, [at_turn(frames, place) for place in range(batch)])
    return timings[""].median, floor["ms"]


def _megapixels(size: Size) -> float:
    return size[0] * size[1] / _MEGA


def _row_order(row: Sequence[str]) -> tuple[str, int, float]:
    width, _, height = row[0].partition("x")
    return row[1], int(row[2]), float(width) * float(height)
