"""Ground truth between views, compared with homographies and the renderer."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from feature_frontend_lab.rendering import reproject
from feature_frontend_lab.training.aliked.posed import cut_posed_views, posed_view
from feature_frontend_lab.training.aliked.warps import HomographyWarp, PerspectiveWarp, PosedView, depth_at, overlap
from tests.training.aliked.scene import CAMERA, frames, photograph, poses

_TOLERANCE = 0.02


def _random_points(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (side - 1)


def _plane_views(side: int) -> tuple[PosedView, PosedView, torch.Tensor]:
    """Two views of the plane n . X = d (camera 0), and the homography H = K (R + t n^T / d) K^-1 between them."""
    normal, distance = np.array([0.1, -0.2, 1.0]), 3.0
    matrix = np.array([[200.0, 0, 79.5], [0, 190.0, 81.0], [0, 0, 1]])
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(np.array([0.05, -0.08, 0.2]))[0]
    motion[:3, 3] = [0.2, -0.1, 0.15]
    y, x = np.mgrid[:side, :side]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(matrix).T
    depth0 = distance / (rays @ normal)
    normal1 = motion[:3, :3] @ normal
    depth1 = (distance + normal1 @ motion[:3, 3]) / (rays @ normal1)
    homography = matrix @ (motion[:3, :3] + np.outer(motion[:3, 3], normal) / distance) @ np.linalg.inv(matrix)
    first, second = (
        PosedView(torch.from_numpy(depth), torch.from_numpy(matrix), torch.from_numpy(pose), 1.0, torch.zeros(2), side)
        for depth, pose in ((depth0, np.eye(4)), (depth1, np.linalg.inv(motion)))
    )
    return first, second, torch.from_numpy(homography)


def test_a_plane_moves_by_its_homography() -> None:
    view0, view1, homography = _plane_views(160)
    points = _random_points(500, 160)
    expected, inside = HomographyWarp(homography, 160).warp(points)
    found, visible = PerspectiveWarp(view0, view1, 0.01).warp(points)
    assert 200 < int(visible.sum()) < 500
    torch.testing.assert_close(found[visible], expected[visible], atol=1e-4, rtol=0)
    # All but points whose depth in view 1 would lie between its outermost pixels and its edge.
    assert bool((inside | ~visible).all())
    assert int((inside & ~visible).sum()) < 10
    in_float32, _ = PerspectiveWarp(view0, view1, 0.01).warp(points.float())
    torch.testing.assert_close(in_float32[visible].double(), found[visible], atol=1e-2, rtol=0)


@pytest.mark.parametrize("side", [240, 150, 300])
def test_points_move_as_the_renderer_says_and_hidden_ones_are_out(side: int) -> None:
    frame0, frame1 = frames(2)
    pose0, pose1 = poses(2)
    views = cut_posed_views(
        photograph(frame0, pose0), photograph(frame1, pose1), side, _TOLERANCE, np.random.default_rng(1)
    )
    assert views is not None
    forth, back = views.warps(_TOLERANCE)
    points = _random_points(3000, side)
    moved, visible = forth.warp(points)
    view0, view1 = views.views
    truth = reproject(view0.to_photograph(points).numpy(), frame0.depth, pose0, pose1, CAMERA, frame1.depth)
    expected = view1.from_photograph(torch.from_numpy(truth.points))
    assert int(visible.sum()) > 1000
    assert float((moved - expected)[visible].norm(dim=1).max()) < 0.1
    inside = ((moved >= -0.5) & (moved < side - 0.5)).all(dim=1)
    hidden = inside & torch.from_numpy(CAMERA.contains(truth.points) & ~truth.visible)
    assert int(hidden.sum()) > 20
    assert not bool((hidden & visible).any())
    # There and back again.
    returned, still_visible = back.warp(moved[visible])
    assert float(still_visible.float().mean()) > 0.98
    assert float((returned - points[visible])[still_visible].norm(dim=1).max()) < 0.1


@pytest.mark.parametrize("side", [240, 150])
def test_views_show_at_a_point_what_the_other_shows_where_it_moves(side: int) -> None:
    frame0, frame1 = frames(2)
    pose0, pose1 = poses(2)
    views = cut_posed_views(photograph(frame0, pose0), photograph(frame1, pose1), side, 0.02, np.random.default_rng(3))
    assert views is not None
    points = _random_points(2000, side)
    moved, visible = views.warps(0.02)[0].warp(points)
    image0, image1 = (cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)[..., 0] for image in views.images)
    places = [where[visible].numpy().astype(np.float32)[None] for where in (points, moved)]
    seen0, seen1 = (
        cv2.remap(image, place[..., 0], place[..., 1], cv2.INTER_LINEAR)[0]
        for image, place in zip((image0, image1), places, strict=True)
    )
    shifted = cv2.remap(image1, places[1][..., 0] + 3, places[1][..., 1], cv2.INTER_LINEAR)[0]
    assert np.corrcoef(seen0, seen1)[0, 1] > 0.97
    assert np.corrcoef(seen0, shifted)[0, 1] < np.corrcoef(seen0, seen1)[0, 1] - 0.05


def test_gradients_are_those_of_finite_differences() -> None:
    view0, view1, homography = _plane_views(64)
    # In the view of both cameras, and between pixels: the interpolation has kinks there.
    points = (30 + _random_points(5, 8).floor() + 0.37).requires_grad_()
    assert bool(PerspectiveWarp(view0, view1, 0.01).warp(points)[1].all())
    for warp in (PerspectiveWarp(view0, view1, 0.01), HomographyWarp(homography, 64)):
        assert torch.autograd.gradcheck(lambda p, warp=warp: warp.warp(p)[0], (points,))


def test_nothing_is_seen_where_no_depth_is_known_or_behind_the_camera() -> None:
    view0, view1, homography = _plane_views(64)
    points = _random_points(50, 64).requires_grad_()
    unknown = PosedView(torch.zeros(64, 64), view0.camera_matrix, view0.pose, 1.0, view0.offset, 64)
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)) @ view1.pose
    away = PosedView(view1.depth, view1.camera_matrix, turned, 1.0, view1.offset, 64)
    for warp in (
        PerspectiveWarp(unknown, view1, 0.1),
        PerspectiveWarp(view0, unknown, 0.1),
        PerspectiveWarp(view0, away, 0.1),
        HomographyWarp(-homography, 64),
    ):
        moved, visible = warp.warp(points)
        assert not bool(visible.any())
        (gradient,) = torch.autograd.grad(moved.sum(), points)
        assert bool(torch.isfinite(moved).all())
        assert bool(torch.isfinite(gradient).all())
        assert overlap(warp, 64) == 0


def test_depth_between_pixels_is_of_one_surface() -> None:
    depth = torch.tensor([[1.0, 1.0, 5.0], [1.0, 1.0, 5.0]])
    points = torch.tensor([[0.5, 0.5], [1.4, 0.0], [1.6, 0.0], [2.4, 1.4], [2.6, 0.0], [-0.6, 0.0]])
    assert depth_at(depth, points).tolist() == [1, 1, 5, 5, 0, 0]
    # Inverse depth is linear on a plane: between 1 m and 1.01 m the middle lies nearer than 1.005 m.
    slope = depth_at(torch.tensor([[1.0, 1.01], [1.0, 1.01]]), torch.tensor([[0.5, 0.5]])).item()
    assert slope == pytest.approx(2 / (1 + 1 / 1.01), rel=1e-6)


def test_a_view_and_its_photograph_agree_on_pixels() -> None:
    view = posed_view(photograph(frames(1)[0], poses(1)[0]), 120, (7, 0))
    # The photograph is 320 x 240: half as large, pixel 0 is centred between pixels 0 and 1.
    assert view.to_photograph(torch.tensor([[-7.0, 0.0]])).tolist() == [[0.5, 0.5]]
    points = _random_points(20, 120)
    torch.testing.assert_close(view.from_photograph(view.to_photograph(points)), points)
