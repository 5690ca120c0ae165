"""`evaluate covariances`: errors against the truth, their report, the fit of the constants, and the tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.covariances import POSITION_NOISE
from feature_frontend.types import Tracks
from feature_frontend_lab.evaluation.commands import covariances as command
from feature_frontend_lab.evaluation.commands.evaluate import main
from feature_frontend_lab.evaluation.covariances import fit
from feature_frontend_lab.evaluation.covariances.errors import GAPS, PositionErrors, TrueFrame, position_errors
from feature_frontend_lab.evaluation.homography.baselines import DescribedPoints
from feature_frontend_lab.evaluation.reports.covariance_report import CovarianceReport, covariance_table
from feature_frontend_lab.evaluation.tracks.baselines import Detections, SequenceResult
from feature_frontend_lab.rendering import Camera, Quad, Scene, Texture, look_at, render, reproject
from tests.campaign import Campaign

FloatArray = npt.NDArray[np.float64]

_COVARIANCE = np.array([[0.09, 0.03], [0.03, 0.04]])


@pytest.fixture(scope="module")
def frames(photographs: list[npt.NDArray[np.uint8]]) -> list[TrueFrame]:
    """Seven images of a wall, a floor and a board before them, of photographs; no constant was fitted to them."""
    wall, floor, board = (Texture.from_image(photograph) for photograph in photographs)
    scene = Scene(
        (
            Quad(np.array([-5.0, -4.0, 6.0]), np.array([10.0, 0, 0]), np.array([0, 7.5, 0]), wall),
            Quad(np.array([-5.0, 1.0, 6.0]), np.array([10.0, 0, 0]), np.array([0, 0, -7.5]), floor),
            Quad(np.array([0.2, -0.8, 3.5]), np.array([1.6, 0, -0.5]), np.array([0, 1.2, 0]), board),
        )
    )
    camera, rng, found = Camera.with_field_of_view(70, height=240, width=320), np.random.default_rng(0), []
    for number in range(7):
        pose = look_at((0.05 * number, -0.01 * number, 0.06 * number), (0.1, 0.0, 5.0), up=(0, -1, 0))
        frame = render(scene, camera, pose)
        grey = frame.image.mean(axis=2) + rng.normal(0, 1.5, frame.depth.shape)
        image = np.clip(grey, 0, 255).astype(np.uint8)
        found.append(TrueFrame(image, number * 50_000_000, camera, frame.depth, pose))
    return found


class _Simulated:
    """A front-end that knows the truth, with the noise that it reports, and every tenth match wrong."""

    identity = "simulated"

    def __init__(self, frames: Sequence[TrueFrame], reported: FloatArray | None) -> None:
        self._frames, self._reported = frames, reported
        self._rng = np.random.default_rng(0)
        first = frames[0]
        self._points = self._rng.uniform([5, 5], [first.camera.width - 6, first.camera.height - 6], (4000, 2))
        self._number = 0

    def process(self, _image: npt.NDArray[np.uint8], _stamp_ns: int) -> SequenceResult:
        first, now = self._frames[0], self._frames[self._number]
        true = reproject(self._points, first.depth, first.pose, now.pose, now.camera, now.depth)
        ids = np.flatnonzero(true.visible)
        noise = self._rng.multivariate_normal(np.zeros(2), _COVARIANCE, len(ids))
        noise[ids % 10 == self._number] += 12.0
        seen = (true.points[ids] + noise).astype(np.float32)
        self._number += 1
        zeros = np.zeros(len(ids), np.float32)
        rows = None
        if self._reported is not None:
            rows = np.tile(self._reported[[0, 0, 1], [0, 1, 1]], (len(ids), 1)).astype(np.float32)
        counts = np.ones(len(ids), np.uint32)
        tracks = Tracks(ids.astype(np.uint64), counts, counts, counts, seen, seen, zeros, zeros, rows)
        return SequenceResult(tracks, DescribedPoints(seen.astype(np.float64), np.zeros((0, 0)), "none"), 0.0, 0.0)

    def detect(self, _image: npt.NDArray[np.uint8]) -> Detections:
        raise AssertionError("the errors of tracks need no detections")

    def close(self) -> None:
        pass


def _inside(errors: PositionErrors, gap: int) -> list[float]:
    return [float((errors.probabilities[errors.gaps == gap] <= ellipse).mean()) for ellipse in fit.ELLIPSES]


def test_true_covariances_hold_as_many_errors_as_they_should(frames: list[TrueFrame]) -> None:
    errors = position_errors(_Simulated(frames, _COVARIANCE), frames)
    for gap in GAPS:
        np.testing.assert_allclose(_inside(errors, gap), fit.ELLIPSES, atol=0.02)
        total = sum(int((gaps == gap).sum()) for gaps in (errors.gaps, errors.wrong, errors.unknown))
        # A wrong position belongs to two pairs.
        assert 0.1 < (errors.wrong == gap).sum() / total < 0.25
        assert 0 < (errors.unknown == gap).sum() / total < 0.3
    halved = position_errors(_Simulated(frames, _COVARIANCE / 4), frames)
    assert _inside(halved, 1)[0] < 0.25


def test_a_front_end_without_covariances_is_refused(frames: list[TrueFrame]) -> None:
    with pytest.raises(SettingsError, match="simulated reports no covariances"):
        position_errors(_Simulated(frames, None), frames)


def test_the_table_says_how_many_are_inside() -> None:
    rng, count = np.random.default_rng(0), 10_000
    halves = np.tile(_COVARIANCE / 2, (count, 1, 1))
    errors = PositionErrors(
        errors=rng.multivariate_normal(np.zeros(2), _COVARIANCE, count),
        covariances0=halves,
        covariances1=halves,
        gaps=np.ones(count, np.int64),
        ages0=np.ones(count, np.int64),
        wrong=np.ones(100, np.int64),
        unknown=np.zeros(0, np.int64),
    )
    row = covariance_table(CovarianceReport("x", "", {"chain": errors})).splitlines()[2].split("|")
    cells = [cell.strip() for cell in row[1:-1]]
    assert cells[:3] == ["chain", "1", "10000"]
    np.testing.assert_allclose([float(cell) for cell in cells[3:6]], [50, 90, 99], atol=1.5)
    assert cells[7:] == [f"{np.pi * np.sqrt(np.linalg.det(_COVARIANCE / 2)):.3f}", "0.99", "0.00"]


def test_the_fit_finds_the_factors(monkeypatch: pytest.MonkeyPatch, frames: list[TrueFrame]) -> None:
    monkeypatch.setattr(fit, "_STEPS", 30)
    errors = position_errors(_Simulated(frames, _COVARIANCE), frames)
    early, late = fit._consecutive([errors])

    def model(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        return early * np.exp(values[0]), late * np.exp(values[0])

    (found,) = fit._minimized(model, [errors], [np.log(20.0)])
    assert np.exp(found) == pytest.approx(1.0, abs=0.1)


def test_the_tool_reports_and_the_shipped_constants_hold(
    frames: list[TrueFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_frames", lambda *_: iter(frames))
    arguments = ["--set", "extractor=dotlet", "--set", "max_num_keypoints=500", "--device", "cpu"]
    assert main(["covariances", "hall", "--count", "7", "--output", str(tmp_path), *arguments]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"covariances.{ending}" for ending in ("json", "md", "png")
    ]
    found = json.loads((tmp_path / "covariances.json").read_text())["scenes"]["hall"]
    assert set(found) == {"chain", "persistent"}
    for of_front_end in found.values():
        value = of_front_end["1"]
        assert value["pairs"] > 500
        assert 0.35 < value["inside_0.5"] < 0.85
        assert 0.75 < value["inside_0.9"] < 0.99
        assert value["inside_0.99"] > 0.88
    assert "in 50 %" in capsys.readouterr().out
    assert main(["covariances", "hall", "hall", "--output", str(tmp_path)]) == 1


@pytest.mark.slow
def test_constants_are_fitted_and_printed(
    frames: list[TrueFrame], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], campaign: Campaign
) -> None:
    campaign.only("runs a front-end nine times")
    monkeypatch.setattr(command, "_frames", lambda *_: iter(frames))
    assert main(["covariances", "hall", "--fit", "dotlet", "sift", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["dotlet", "sift"]
    fitted = float(lines[0].partition("detected_factor=")[2].partition(",")[0])
    # One short sequence: roughly.
    assert 0.2 < fitted / POSITION_NOISE["dotlet"].detected_factor < 5
