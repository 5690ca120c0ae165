"""Rendered sequences for training: written whole, kept, and read by the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from feature_frontend_lab.training import rendered
from feature_frontend_lab.training.aliked.tum_rgbd import read_tum_sequence
from tests.conftest import REPOSITORY

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"


def test_rooms_are_rendered_once_and_can_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rendered, "_FRAMES", 2)
    arguments = [str(tmp_path / "out"), "--photographs", str(_PHOTOGRAPHS), "--rooms", "2", "--halls", "0"]
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
