"""Rotated and downscaled views, and their metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend_lab.evaluation.commands.evaluate import main
from feature_frontend_lab.evaluation.homography.baselines import MethodOptions, load_methods
from feature_frontend_lab.evaluation.homography.robustness import (
    ANGLES_DEG,
    OCTAVES,
    Curve,
    RobustnessBenchmark,
    RobustnessResult,
    scaled_pair,
    turned_pair,
)
from feature_frontend_lab.evaluation.reports.homography_report import robustness_figure

Image = npt.NDArray[np.uint8]


def test_the_angles_and_scales_are_those_of_the_paper() -> None:
    assert ANGLES_DEG == (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45)
    assert OCTAVES == (0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4, 2.7, 3.0)


@pytest.mark.parametrize("size", [(480, 719), (641, 480), (333, 333), (50, 90)])
def test_a_turned_window_shows_no_border(size: tuple[int, int]) -> None:
    white = np.full(size, 255, np.uint8)
    for angle in ANGLES_DEG:
        pair = turned_pair(white, angle)
        assert pair.image0.shape == pair.image1.shape
        assert pair.image1.min() == 255
    # As large as that allows.
    assert min(size) / 2**0.5 - 2 < pair.image1.shape[0] <= min(size) / 2**0.5


@pytest.mark.parametrize("angle", [0.0, 3.0, 21.0, 45.0])
def test_a_turned_window_is_the_window_turned(angle: float, photographs: list[Image]) -> None:
    smooth = np.asarray(cv2.GaussianBlur(photographs[0], (0, 0), 3), np.uint8)
    pair = turned_pair(smooth, angle)
    size = pair.image1.shape[1::-1]
    warped = cv2.warpPerspective(pair.image0, pair.homography, size)
    is_shared = cv2.warpPerspective(np.full_like(pair.image0, 255), pair.homography, size) == 255
    assert is_shared.mean() > 0.82
    assert np.abs(warped.astype(int) - pair.image1)[is_shared].max() <= 2


def test_turning_is_clockwise() -> None:
    image = np.zeros((200, 200), np.uint8)
    image[95:105, 150:160] = 255  # to the right of the middle
    rows, columns = np.nonzero(turned_pair(image, 45.0).image1 > 127)
    assert rows.mean() > 95
    assert columns.mean() > 95


@pytest.mark.parametrize("octaves", OCTAVES[1:])
def test_a_smaller_view_lies_where_its_homography_says(octaves: float) -> None:
    rows, columns = np.mgrid[:480, :719]
    ramps = np.stack([columns / 3, rows / 2, np.full((480, 719), 90)], axis=2).astype(np.float32)
    pair = scaled_pair(np.rint(ramps).astype(np.uint8), octaves)
    height, width = pair.image1.shape[:2]
    assert height == round(480 * 2**-octaves)
    y, x = np.mgrid[1 : height - 1, 1 : width - 1]
    inverse = np.linalg.inv(pair.homography)
    expected = np.stack([(inverse[0, 0] * x + inverse[0, 2]) / 3, (inverse[1, 1] * y + inverse[1, 2]) / 2], axis=2)
    errors = pair.image1[1:-1, 1:-1, :2] - expected
    assert np.abs(errors).max() < 1.5
    assert np.abs(errors.mean(axis=(0, 1))).max() < 0.3


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"60x40 px.* 27 px.* at least 32"):
        turned_pair(np.zeros((40, 60), np.uint8), 3.0)
    with pytest.raises(SettingsError, match=r"300x200 px .* 38x25 px .*2\^-3.* at least"):
        scaled_pair(np.zeros((200, 300), np.uint8), 3.0)


def _run(images: Path, output: Path, *options: str) -> dict[str, Any]:
    arguments = ["robustness", "--images", str(images), "--output", str(output), "--short-side", "288"]
    assert main([*arguments, *options]) == 0
    return json.loads((output / "robustness.json").read_text(encoding="utf-8"))


@pytest.fixture
def images(tmp_path: Path, photographs: list[Image]) -> Path:
    """A folder of one photograph."""
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), cv2.cvtColor(photographs[0], cv2.COLOR_RGB2BGR))
    return folder


@pytest.mark.slow
def test_the_tool_measures_what_is_known_of_the_methods(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["sift", "sift-upright", "silk-vggnp-mu", "silk-vggnp-mu-ms", "random"]
    document = _run(images, tmp_path / "output", "--keypoints", "300", "--methods", *methods)
    table = (tmp_path / "output" / "robustness.md").read_text(encoding="utf-8")
    assert [len(re.findall(rf"^\| {name} ", table, re.MULTILINE)) for name in methods] == [2] * len(methods)
    assert table in capsys.readouterr().out.replace("\r", "")
    results = {row["method"]: row for row in document["results"]}
    assert list(results) == methods
    for name, row in results.items():
        for curve, count in ((row["rotation"], len(ANGLES_DEG)), (row["scale"], len(OCTAVES))):
            assert len(curve["accuracy"]) == len(curve["matches"]) == count
            # An image and itself.
            assert curve["accuracy"][0] == pytest.approx(0.0 if name == "random" else 1.0, abs=0.01)
    rotation = {name: row["rotation"]["accuracy"] for name, row in results.items()}
    assert min(rotation["sift"]) > 0.8
    assert rotation["sift-upright"][1] > 0.8
    assert rotation["sift-upright"][-1] < 0.1
    single, several = (results[name]["scale"]["accuracy"] for name in ("silk-vggnp-mu", "silk-vggnp-mu-ms"))
    assert np.mean(several) > np.mean(single) + 0.05
    assert results["silk-vggnp-mu-ms"]["identity"] == results["silk-vggnp-mu"]["identity"] + " at several scales"
    picture = cv2.imread(str(tmp_path / "output" / "robustness.png"))
    assert picture is not None
    assert picture.shape[1] > 1000


def test_both_runs_of_a_method_are_the_same(images: Path, tmp_path: Path) -> None:
    first, again = (_run(images, tmp_path / name, "--keypoints", "100", "--methods", "orb") for name in "ab")
    assert first == again
    assert (tmp_path / "a" / "robustness.png").read_bytes() == (tmp_path / "b" / "robustness.png").read_bytes()


def test_a_line_is_as_high_as_its_accuracy_and_dashed_at_several_scales() -> None:
    half, none = (
        [Curve((value,) * len(axis), (9.0,) * len(axis)) for axis in (ANGLES_DEG, OCTAVES)] for value in (0.5, 0.0)
    )
    results = [RobustnessResult(name, "", half[0], none[1]) for name in ("sift", "sift-ms")]
    rotation, scale = robustness_figure(results, RobustnessBenchmark(), 1).subfigs[1].axes
    for axes, xs, accuracy in ((rotation, ANGLES_DEG, 0.5), (scale, OCTAVES, 0.0)):
        plain, several = axes.lines
        assert np.asarray(plain.get_xydata()).tolist() == [[x, accuracy] for x in xs]
        assert np.array_equal(plain.get_xydata(), several.get_xydata())
        assert (plain.get_linestyle(), several.get_linestyle()) == ("-", "--")
        assert plain.get_color() == several.get_color()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "orb-ms"], "orb-ms"),
        (["--methods", "sift-ms", "sift-ms"], "sift-ms .*twice"),
        (["--short-side", "100"], "short_side is 100.* 256"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str], message: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robustness", "--images", str(images), "--output", str(tmp_path / "out"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


def test_weights_go_to_the_method_at_several_scales(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"weights .*orb"):
        load_methods(["orb", "silk-vggnp-mu-ms"], MethodOptions(), {"orb": "x"})
    path = tmp_path / "none.safetensors"
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load_methods(["silk-vggnp-mu-ms@mine"], MethodOptions(), {"silk-vggnp-mu-ms@mine": str(path)})
