"""Rendered sequences for training: written whole, kept, and read by the training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from feature_frontend_lab.rendering.camera import Camera, reproject
from feature_frontend_lab.training import rendered
from feature_frontend_lab.training.aliked.tum_rgbd import read_tum_sequence
from tests.conftest import REPOSITORY

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"


def test_rooms_are_rendered_once_and_can_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rendered, "_FRAMES", 2)
    arguments = [str(tmp_path / "out"), "--photographs", str(_PHOTOGRAPHS), "--rooms", "2", "--halls", "0"]
    arguments += ["--streets", "0"]
    (tmp_path / "out" / ".room_0.partial").mkdir(parents=True)
    assert rendered.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / f"room_{seed}") for seed in range(2)]
    sequence = read_tum_sequence(tmp_path / "out" / "room_1")
    assert len(sequence) == 2
    photograph = sequence.load(0)
    assert photograph is not None
    assert photograph.image.shape == (336, 448, 3)
    assert photograph.depth.min() > 0
    np.testing.assert_allclose(np.linalg.det(photograph.pose[:3, :3]), 1, atol=1e-6)
    assert rendered.main(arguments) == 0
    assert capsys.readouterr().out == ""
    assert rendered.main([str(tmp_path / "out"), "--photographs", str(tmp_path / "missing")]) == 1
    assert capsys.readouterr().err.startswith("error: there is no folder")


@pytest.mark.slow
def test_streets_fit_into_their_depth_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "_FRAMES", 2)
    arguments = ["--photographs", str(_PHOTOGRAPHS), "--rooms", "0", "--halls", "0", "--streets", "1"]
    assert rendered.main([str(tmp_path), *arguments]) == 0
    photographs = [read_tum_sequence(tmp_path / "street_0").load(row) for row in range(2)]
    first, second = (one for one in photographs if one is not None)
    # Files of 16 bits end at 13.1 m, which is 105 m of the street. Farther away, and in the sky, nothing is known.
    assert 0.1 < (first.depth == 0).mean() < 0.6
    assert 5 < first.depth.max() < 13.1
    x, y = np.meshgrid(np.arange(8, 632, 8.0), np.arange(8, 472, 8.0))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    camera = Camera.with_field_of_view(75, height=480, width=640)
    np.testing.assert_allclose(first.camera_matrix, camera.matrix, atol=1e-3)
    moved = reproject(points, first.depth, first.pose, second.pose, camera, second.depth)
    assert moved.visible.sum() > 2000
    grey = [cv2.GaussianBlur(cv2.cvtColor(one.image, cv2.COLOR_RGB2GRAY), (0, 0), 1.5) for one in (first, second)]
    places = [where[moved.visible].astype(np.float32)[None] for where in (points, moved.points)]
    seen = [cv2.remap(image, where, None, cv2.INTER_LINEAR)[0] for image, where in zip(grey, places, strict=True)]
    assert np.corrcoef(*seen)[0, 1] > 0.97
