"""Windows of images around points, and the neighbours of points, as the plainest code would find them."""

from __future__ import annotations

import torch

from feature_frontend.extractors.networks.layers.sampling import sample_bilinear
from feature_frontend.tracking.local_motion import CLOSEST_PX, _nearest, _nearest_on_cpu
from feature_frontend.tracking.windows import (
    LENGTH,
    NUM_PIXELS,
    RADIUS_PX,
    centred_,
    has_window,
    offsets,
    read_differences,
    read_windows,
)

_HEIGHT, _WIDTH = 61, 90


def _images() -> torch.Tensor:
    return torch.rand((3, _HEIGHT, _WIDTH), generator=torch.Generator().manual_seed(0))


def _expected(images: torch.Tensor, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(C, N) bilinear values at (C, N, 2) px."""
    values = sample_bilinear(images[rows][:, None], places[:, :, None])
    return values[:, 0, :, 0]


def test_windows_are_read_between_pixels_up_to_the_edge() -> None:
    images, generator = _images(), torch.Generator().manual_seed(1)
    points = torch.rand((400, 2), generator=generator) * torch.tensor([_WIDTH - 1.0, _HEIGHT - 1.0])
    first, last = RADIUS_PX + 1.0, RADIUS_PX + 2.001
    corners = torch.tensor([[first, first], [_WIDTH - last, first], [_WIDTH - last, _HEIGHT - last]])
    points = torch.cat([points, corners])
    is_inside = has_window(points, images[0])
    assert is_inside[-3:].all()
    assert 0.3 < is_inside.float().mean() < 0.8
    rows = torch.randint(0, 3, (len(points),), generator=generator)
    own, points, rows = offsets(points), points[is_inside], rows[is_inside]
    is_pixel = (own.abs() <= RADIUS_PX).all(dim=0)
    assert own.shape == (2, LENGTH)
    assert int(is_pixel.sum()) == NUM_PIXELS
    places = points[:, None] + own.T
    window = _expected(images, rows, places)
    read = read_windows(images, rows, points)
    assert torch.allclose(read[:, is_pixel], window[:, is_pixel], atol=1e-4)
    along = [
        _expected(images, rows, places + torch.tensor(step)) - _expected(images, rows, places - torch.tensor(step))
        for step in ([1.0, 0.0], [0.0, 1.0])
    ]
    differences = read_differences(images, rows, points)
    for found, expected in zip(differences.unbind(1), (*along, window), strict=True):
        assert torch.allclose(found[:, is_pixel], expected[:, is_pixel], atol=2e-4)
    means = read[:, is_pixel].mean(dim=1, keepdim=True)
    assert torch.allclose(centred_(read.clone())[:, is_pixel], read[:, is_pixel] - means, atol=1e-5)
    assert not centred_(read.clone())[:, ~is_pixel].any()


def test_numpy_finds_the_neighbours_that_pytorch_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    for count, matched in ((700, 500), (300, 12), (40, 1), (5, 0)):
        points = torch.rand((count, 2), generator=generator) * torch.tensor([640.0, 480.0])
        points[count // 2 :] = points[: count - count // 2] + 3.0  # too near to count
        is_matched = torch.randperm(count, generator=generator) < matched
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        distances = torch.where(is_matched & (distances > CLOSEST_PX), distances, torch.inf).sort(dim=1).values
        for rows, is_valid in (_nearest(points, is_matched), _nearest_on_cpu(points, is_matched)):
            own = (points[rows] - points[:, None]).norm(dim=2)
            assert not (is_valid & (~is_matched[rows] | (own <= CLOSEST_PX))).any()
            found = torch.where(is_valid, own, torch.inf).sort(dim=1).values
            # Of neighbours that are almost equally far away, either counts.
            assert torch.allclose(found, distances[:, : found.shape[1]], rtol=2e-3)
