"""Figures of reports: their values are where they belong, and look the same wherever they are drawn."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes

from feature_frontend_lab.evaluation.homography.benchmark import HomographyBenchmark, MethodResult
from feature_frontend_lab.evaluation.reports.homography_report import homography_figure
from feature_frontend_lab.evaluation.reports.plots import finish_axes, plot_curve, plot_grid, plot_style, png


def test_a_curve_leaves_out_what_is_not_finite_and_begins_at_0() -> None:
    _, (axes, empty) = plot_grid("title", {"name": {"color": "C0"}}, 2, columns=3)
    plot_curve(axes, [(0.0, 0.2), (1.0, 1.0), (2.0, float("nan")), (3.0, 0.5)], color="C0")
    finish_axes(axes, "plot", "x", {0.0: "none", 3.0: "three"}, highest=1)
    assert np.asarray(axes.lines[0].get_xydata()).tolist() == [[0, 0.2], [1, 1], [3, 0.5]]
    assert axes.get_ylim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "three"]
    plot_curve(empty, [])
    finish_axes(empty, "plot", "x")
    assert [text.get_text() for text in empty.texts] == ["no values"]


def test_names_are_shown_as_they_are_in_as_many_rows_as_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"a$b$c": {"color": "C0"}, "_hidden": {"color": "C1"}, "\udcfc": {"color": "C2"}}
    # Neither LaTeX nor a name that is a formula of it.
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    with plot_style():
        figure, _ = plot_grid("$\\frac$", names, 1, columns=3)
        many, axes = plot_grid("title", {f"a long name{'!' * number * 9}": {} for number in range(8)}, 4, columns=3)
    assert png(figure) == png(figure)
    shown = [text.get_text() for text in figure.subfigs[0].legends[0].texts]
    assert shown == ["a\\$b\\$c", " _hidden", "\\xfc"]
    assert many.get_figwidth() == figure.get_figwidth()
    assert many.get_figheight() > 1.9 * figure.get_figheight()
    assert len(axes) == 4
    picture = cv2.imdecode(np.frombuffer(png(many), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == (int(many.get_figheight() * 100), 1240)


def _row(method: str, *values: tuple[float, ...] | None) -> MethodResult:
    return MethodResult(method, "", 100, 1.0, 5, 99.0, (0.25, 0.75), None, *values, None, 0.1, None)


def _widths(axes: Axes) -> list[list[float]]:
    return [[bar.get_width() for bar in bars] for bars in axes.containers]


def test_the_bars_of_the_homographies_are_as_long_as_their_values() -> None:
    both = (0.0, 1.0)
    rows = [_row("one", both, both, both, both), _row("points alone", None, None, None, None)]
    figure = homography_figure(rows, HomographyBenchmark(), 7)
    header, group = figure.subfigs
    assert header.texts[0].get_text() == "5 warped pairs of 7 images, seed 0"
    assert group.texts[0].get_text() == "at most 100 keypoints"
    repeatability, accuracy, *_ = group.axes
    # From 0 to 1, within 3 px and, before it, within 1 px.
    assert _widths(repeatability) == [[1, 1], [0.75, 0.75], [0.25, 0.25]]
    assert _widths(accuracy) == [[1, 0], [1, 0], [0, 0]]
    assert [text.get_text() for text in accuracy.texts] == ["0.00 / 1.00", "-"]
    assert [label.get_text() for label in repeatability.get_yticklabels()] == ["one", "points alone"]
    empty = homography_figure([], HomographyBenchmark(), 0)
    assert [part.texts[0].get_text() for part in empty.subfigs] == ["0 warped pairs of 0 images, seed 0"]
