"""Curves are where their values are."""

from __future__ import annotations

import numpy as np
import pytest

from feature_frontend_lab.evaluation.reports.plots import Line, Plot, draw_plots, tick_spacing


@pytest.mark.parametrize(("extent", "spacing"), [(1.0, 0.2), (4.0, 1.0), (0.37, 0.05), (250.0, 50.0), (8e-4, 2e-4)])
def test_ticks_are_round_and_at_least_four(extent: float, spacing: float) -> None:
    assert tick_spacing(extent) == pytest.approx(spacing)


def test_a_curve_is_as_high_as_its_values() -> None:
    line = Line(((0.0, 0.0), (1.0, 1.0), (2.0, float("nan")), (3.0, 0.5)), 0)
    picture = draw_plots("title", [("name", Line((), 0))], [Plot("plot", "x", (line,), highest=1.0)])
    drawn = np.all(picture[90:] == (0, 114, 178), axis=2)
    columns = np.flatnonzero(drawn.any(axis=0))
    heights = [drawn.shape[0] - np.flatnonzero(drawn[:, column]).mean() for column in (columns[0], columns[-1])]
    top = drawn.shape[0] - np.flatnonzero(drawn.any(axis=1))[0]
    assert heights[1] - heights[0] == pytest.approx((top - heights[0]) / 2, abs=4)


def test_a_plot_without_values_says_so_and_many_names_take_more_rows() -> None:
    one = draw_plots("title", [("name", Line((), 0))], [Plot("plot", "x", (Line((), 0),))])
    many = draw_plots(
        "title", [("a long name" * 3, Line((), 0))] * 8, [Plot("plot", "x", (Line(((1.0, 2.0),), 0),))] * 4
    )
    assert one.shape[1] == many.shape[1]
    assert many.shape[0] > one.shape[0] + 290
