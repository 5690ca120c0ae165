"""Correspondences of two views compared with a slow, literal version of the paper's text."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend_lab.evaluation.homography.pairs import HomographyRange, sample_homography
from feature_frontend_lab.training.silk.pairs import find_correspondences

_SIDE = 23
_BORDER = 3


def _paper_pixel(homography: npt.NDArray[np.float64], column: int, row: int) -> tuple[int, int] | None:
    """Where the centre of a map's pixel falls: 3.4.1, with centres at +0.5 as the paper has them."""
    to_paper = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    in_paper = to_paper @ homography @ np.linalg.inv(to_paper)
    x, y, w = in_paper @ [column + _BORDER + 0.5, row + _BORDER + 0.5, 1]
    if w <= 0:
        return None
    found = math.floor(x / w) - _BORDER, math.floor(y / w) - _BORDER
    return found if 0 <= found[0] < _SIDE and 0 <= found[1] < _SIDE else None


@pytest.mark.parametrize("seed", range(8))
def test_correspondences_are_those_of_a_literal_loop(seed: int) -> None:
    size = _SIDE + 2 * _BORDER
    homography = sample_homography(HomographyRange(), size, size, np.random.default_rng(seed))
    inverse = np.linalg.inv(homography)
    expected = []
    for row in range(_SIDE):
        for column in range(_SIDE):
            there = _paper_pixel(homography, column, row)
            if there is not None and _paper_pixel(inverse, *there) == (column, row):
                expected.append((row * _SIDE + column, there[1] * _SIDE + there[0]))
    found = find_correspondences(torch.from_numpy(homography), _SIDE, _BORDER)
    assert list(zip(found.indices0.tolist(), found.indices1.tolist(), strict=True)) == expected
    assert len(expected) > 0.1 * _SIDE**2
    assert len(set(found.indices1.tolist())) == len(expected)


def test_convention_a_shift_by_whole_pixels_shifts_the_map() -> None:
    shift = torch.tensor([[1, 0, 2], [0, 1, 5], [0, 0, 1]], dtype=torch.float64)
    found = find_correspondences(shift, _SIDE, _BORDER)
    assert len(found) == (_SIDE - 2) * (_SIDE - 5)
    rows0, columns0 = found.indices0 // _SIDE, found.indices0 % _SIDE
    assert torch.equal(found.indices1, (rows0 + 5) * _SIDE + columns0 + 2)


def test_nothing_behind_the_plane_at_infinity_corresponds() -> None:
    behind = torch.diag(torch.tensor([1, 1, -1], dtype=torch.float64))
    assert len(find_correspondences(behind, _SIDE, _BORDER)) == 0


def test_without_overlap_there_are_none() -> None:
    away = torch.tensor([[1, 0, 100], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert len(find_correspondences(away, _SIDE, _BORDER)) == 0
