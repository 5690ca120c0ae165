"""The renderer compared with closed forms of a pinhole camera's view of flat surfaces."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.rendering import (
    Camera,
    Lamp,
    Quad,
    Scene,
    Texture,
    box,
    default_scene,
    default_trajectory,
    depth_at,
    invert_pose,
    lit,
    look_at,
    render,
    render_depth,
    reproject,
    smooth_path,
    textures,
)

CAMERA = Camera(np.array([[300.0, 0, 161.3], [0, 310.0, 117.9], [0, 0, 1]]), height=240, width=320)
WHITE = (255, 255, 255)


def uniform(colour: tuple[int, int, int] = WHITE) -> Texture:
    return Texture.from_image(np.full((16, 16, 3), colour, np.uint8))


def noisy(seed: int, height: int = 512, width: int = 512) -> Texture:
    rng = np.random.default_rng(seed)
    image = 128 + 40 * textures.noise_octaves(rng, height, width, 64, 6)
    return Texture.from_image(np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2))


def facing(depth_m: float, left_m: float, top_m: float, width_m: float, height_m: float, texture: Texture) -> Quad:
    """A fronto-parallel quad before a camera at the identity pose."""
    corner = np.array([left_m, top_m, depth_m])
    return Quad(corner, np.array([width_m, 0, 0]), np.array([0, height_m, 0]), texture)


def tilted(seed: int = 1) -> Quad:
    """A quad that fills the image of `CAMERA` at the identity pose, nearer on the left and below."""
    return Quad(np.array([-5.0, -4.0, 5.0]), np.array([10.0, 0.5, 3.0]), np.array([0.3, 8.0, -2.0]), noisy(seed))


@pytest.fixture(scope="module")
def hall() -> Scene:
    return default_scene(seed=0)


@pytest.fixture(scope="module")
def hall_camera() -> Camera:
    return Camera.with_field_of_view(70, 480, 640)


def test_a_wall_has_its_distance_as_depth_everywhere() -> None:
    frame = render(Scene((facing(4.0, -10, -10, 20, 20, uniform()),)), CAMERA, np.eye(4))
    assert frame.image.shape == (240, 320, 3)
    assert frame.image.dtype == np.uint8
    assert frame.depth.dtype == np.float32
    np.testing.assert_allclose(frame.depth, 4.0, rtol=1e-6)
    assert (frame.image == 255).all()


def test_depth_of_a_tilted_wall_is_that_of_the_plane() -> None:
    quad = tilted()
    pose = look_at((0.2, -0.1, 0.3), (0.3, 0.2, 4.0), up=(0, -1, 0))
    depth = render_depth(Scene((quad,)), CAMERA, pose)
    y, x = np.mgrid[:240, :320]
    rays = CAMERA.rays(np.column_stack([x.ravel(), y.ravel()])) @ pose[:3, :3].T
    expected = (quad.normal @ (quad.corner - pose[:3, 3])) / (rays @ quad.normal)
    np.testing.assert_allclose(depth.ravel(), expected, rtol=1e-5)


def test_convention_pixel_centres_are_at_integers() -> None:
    """A quad from the centre of pixel 100.5 to that of 200.5 covers pixels 101 to 200 fully and no part of others."""
    corners = CAMERA.rays(np.array([[100.5, 60.5], [200.5, 150.5]])) * 2.0
    size = corners[1] - corners[0]
    frame = render(Scene((facing(2.0, *corners[0, :2], *size[:2], uniform()),)), CAMERA, np.eye(4))
    expected = np.zeros((240, 320), bool)
    expected[61:151, 101:201] = True
    np.testing.assert_array_equal(frame.image[..., 0] == 255, expected)
    np.testing.assert_array_equal(frame.image[..., 0] == 0, ~expected)
    np.testing.assert_array_equal(frame.depth > 0, expected)


def test_an_edge_within_a_pixel_gives_it_its_fraction() -> None:
    left = CAMERA.rays(np.array([[100.0, 60.0]]))[0, 0] * 2.0
    frame = render(Scene((facing(2.0, left, -5, 10, 10, uniform()),)), CAMERA, np.eye(4), supersampling=4)
    np.testing.assert_allclose(frame.image[:, 100], 255 / 2, atol=1)
    assert (frame.image[:, 101] == 255).all()


def test_a_quad_covers_the_polygon_that_the_camera_projects() -> None:
    pose = look_at((0.4, 0.2, -1.0), (0.1, 0.0, 4.0), up=(0, -1, 0))
    quad = facing(3.0, -0.6, -0.4, 1.1, 0.9, uniform())
    fraction = render(Scene((quad,)), CAMERA, pose, supersampling=4).image[..., 0] / 255
    moments = cv2.moments(CAMERA.project((quad.corners - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32))
    y, x = np.mgrid[:240, :320]
    assert fraction.sum() == pytest.approx(moments["m00"], rel=1e-3)
    assert (fraction * x).sum() / fraction.sum() == pytest.approx(moments["m10"] / moments["m00"], abs=0.01)
    assert (fraction * y).sum() / fraction.sum() == pytest.approx(moments["m01"] / moments["m00"], abs=0.01)


def test_a_texture_seen_at_its_own_scale_is_reproduced() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    top_left = CAMERA.rays(np.array([[-0.5, -0.5]]))[0] * 300
    quad = facing(300.0, *top_left[:2], 320.0, 240 * 300 / 310, Texture.from_image(picture))
    frame = render(Scene((quad,)), CAMERA, np.eye(4), supersampling=1)
    assert np.abs(frame.image.astype(int) - picture).max() <= 4


def test_a_distant_checkerboard_turns_grey_instead_of_flickering() -> None:
    board = np.kron(np.indices((128, 128)).sum(axis=0) % 2, np.ones((4, 4)))[..., None] * np.full(3, 255)
    quad = facing(40.0, -4, -4, 8, 8, Texture.from_image(board.astype(np.uint8)))
    image = render(Scene((quad,)), CAMERA, np.eye(4)).image
    inside = image[100:135, 145:180]
    assert abs(float(inside.mean()) - 127.5) < 4
    assert float(inside.std()) < 10


def test_the_nearer_surface_hides_the_farther_whatever_their_order() -> None:
    near, far = facing(2.0, -0.5, -0.5, 1, 1, uniform((200, 0, 0))), facing(5.0, -9, -9, 18, 18, uniform((0, 0, 200)))
    for quads in ((near, far), (far, near)):
        frame = render(Scene(quads), CAMERA, np.eye(4))
        assert frame.image[118, 161].tolist() == [200, 0, 0]
        assert frame.depth[118, 161] == pytest.approx(2.0)
        assert frame.image[5, 5].tolist() == [0, 0, 200]


def test_a_quad_is_seen_from_its_front_only_and_nothing_is_background() -> None:
    behind = look_at((0, 0, 8), (0, 0, 0), up=(0, -1, 0))
    scene = Scene((facing(4.0, -10, -10, 20, 20, uniform()),), background=(10, 20, 30))
    frame = render(scene, CAMERA, behind)
    assert (frame.image == (10, 20, 30)).all()
    assert (frame.depth == 0).all()


def test_a_floor_that_reaches_behind_the_camera_is_drawn_up_to_the_horizon() -> None:
    floor = Quad(np.array([-500.0, 500, 0]), np.array([1000.0, 0, 0]), np.array([0, -1000.0, 0]), uniform())
    pose = look_at((0, 0, 1.5), (10, 0, 1.5))
    depth = render_depth(Scene((floor,)), CAMERA, pose)
    rows = np.arange(240)
    below = rows > 118.9
    np.testing.assert_allclose(depth[below, 160], 1.5 * 310.0 / (rows[below] - 117.9), rtol=1e-5)
    assert (depth[~below] == 0).all()


def test_a_box_shows_its_faces_outward() -> None:
    faces = box((1, 2, 0), (2.0, 1.0, 0.5), lambda _w, _h: uniform(), turn_deg=30)
    middle = np.array([1, 2, 0.25])
    assert len(faces) == 5
    for face in faces:
        assert face.normal @ (face.corners.mean(axis=0) - middle) > 0.2
    assert np.concatenate([face.corners for face in faces])[:, 2].max() == pytest.approx(0.5)


def test_reprojection_of_a_sideways_step_is_the_disparity() -> None:
    depth = render_depth(Scene((facing(4.0, -10, -10, 20, 20, uniform()),)), CAMERA, np.eye(4))
    pose1 = np.eye(4)
    pose1[0, 3] = 0.2
    points = np.array([[100.25, 50.75], [5.0, 20.0], [319.0, 239.0]])
    there = reproject(points, depth, np.eye(4), pose1, CAMERA)
    np.testing.assert_allclose(there.points, points - [300 * 0.2 / 4.0, 0], atol=1e-4)
    assert there.visible.tolist() == [True, False, True]


def test_reprojection_there_and_back_returns_to_the_start() -> None:
    scene = Scene((tilted(),))
    pose0, pose1 = np.eye(4), look_at((0.4, -0.2, 0.5), (0.2, 0.1, 5.0), up=(0, -1, 0))
    depth0, depth1 = (render_depth(scene, CAMERA, pose) for pose in (pose0, pose1))
    points = np.random.default_rng(0).uniform((1, 1), (318, 238), (500, 2))
    there = reproject(points, depth0, pose0, pose1, CAMERA, depth1)
    assert there.visible.mean() > 0.7
    back = reproject(there.points[there.visible], depth1, pose1, pose0, CAMERA, depth0)
    np.testing.assert_allclose(back.points, points[there.visible], atol=0.01)


def test_hidden_points_are_known_as_hidden() -> None:
    scene = Scene((facing(8.0, -20, -20, 40, 40, uniform()), facing(2.0, 0.3, -5, 10, 10, uniform())))
    pose1 = np.eye(4)
    pose1[0, 3] = -0.4
    depth0, depth1 = (render_depth(scene, CAMERA, pose) for pose in (np.eye(4), pose1))
    # From the left the near quad, whose edge is at x = 206.3 and then at 266.3, uncovers; from the right it hides.
    points = np.array([[150.0, 100.0], [250.0, 100.0]])
    assert reproject(points, depth0, np.eye(4), pose1, CAMERA, depth1).visible.tolist() == [True, True]
    pose1[0, 3] = 0.4
    depth1 = render_depth(scene, CAMERA, pose1)
    # At 8 m the wall moves by 15 px; the near quad moves by 60 px, from x = 206 on to x = 146 on.
    beside = np.array([[190.0, 100.0]])
    assert reproject(beside, depth0, np.eye(4), pose1, CAMERA, depth1).visible.tolist() == [False]
    assert reproject(beside, depth0, np.eye(4), pose1, CAMERA).visible.tolist() == [True]


def test_points_without_a_surface_have_no_depth_and_are_not_visible() -> None:
    depth = np.zeros((240, 320), np.float32)
    depth[:, :100] = 3.0
    points = np.array([[50.0, 50.0], [200.0, 50.0], [-3.0, 50.0], [99.4, 50.0]])
    np.testing.assert_allclose(depth_at(points, depth), [3.0, 0.0, 0.0, 3.0])
    there = reproject(points, depth, np.eye(4), np.eye(4), CAMERA)
    assert there.visible.tolist() == [True, False, False, True]
    assert np.isnan(there.points[1]).all()


def test_depth_between_pixels_does_not_mix_surfaces() -> None:
    depth = np.full((4, 4), 2.0, np.float32)
    depth[:, 2:] = 6.0
    np.testing.assert_allclose(depth_at(np.array([[1.4, 1.0], [1.6, 1.0]]), depth), [2.0, 6.0])


def test_hall_is_closed_deterministic_and_varies_with_its_seed(hall: Scene, hall_camera: Camera) -> None:
    poses = default_trajectory(60)
    for pose in poses[::6]:
        depth = render_depth(hall, hall_camera, pose)
        assert depth.min() > 0.5
        assert depth.max() < 25
    rng0, rng1 = np.random.default_rng(3), np.random.default_rng(3)
    first, second = (textures.brick(rng, 1.0, 1.0, 100, (150, 80, 60)) for rng in (rng0, rng1))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first.astype(int) - textures.brick(rng0, 1.0, 1.0, 100, (150, 80, 60))).mean() > 5


def grey_at(image: npt.NDArray[np.uint8], points: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    at = points.astype(np.float32).reshape(-1, 1, 2)
    return np.asarray(cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR), np.float32).ravel()


def test_images_of_the_hall_agree_with_the_ground_truth(hall: Scene, hall_camera: Camera) -> None:
    """Corners of one image look the same where the ground truth puts them in the next, and nowhere else near."""
    poses = default_trajectory(60)
    for index in (5, 30, 50):
        frame0, frame1 = (render(hall, hall_camera, poses[index + step]) for step in (0, 1))
        found = cv2.goodFeaturesToTrack(cv2.cvtColor(frame0.image, cv2.COLOR_RGB2GRAY), 500, 0.01, 8)
        points = found.reshape(-1, 2).astype(np.float64)
        assert len(points) > 400
        there = reproject(points, frame0.depth, poses[index], poses[index + 1], hall_camera, frame1.depth)
        assert there.visible.mean() > 0.75
        before = grey_at(frame0.image, points[there.visible])
        after = grey_at(frame1.image, there.points[there.visible])
        beside = grey_at(frame1.image, there.points[there.visible] + [2.0, 2.0])
        assert np.median(np.abs(before - after)) < 6
        assert np.corrcoef(before, after)[0, 1] > 0.9
        assert np.median(np.abs(before - beside)) > 2.5 * np.median(np.abs(before - after))


def test_trajectory_moves_and_turns_smoothly() -> None:
    poses = default_trajectory(60)
    steps = [np.linalg.inv(pose0) @ pose1 for pose0, pose1 in itertools.pairwise(poses)]
    metres = np.array([np.linalg.norm(step[:3, 3]) for step in steps])
    degrees = np.array([np.degrees(np.arccos((np.trace(step[:3, :3]) - 1) / 2)) for step in steps])
    assert 0.1 < metres.min() < metres.max() < 0.3
    assert 1.0 < np.median(degrees) < 3.0
    assert degrees.max() < 3.5
    assert np.abs(np.diff(metres)).max() < 0.05
    for pose in poses:
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        assert pose[2, 1] < -0.9, "the camera is upright: its y axis points down"


def test_trajectory_of_another_length() -> None:
    short, usual, long = default_trajectory(7), default_trajectory(60), default_trajectory(119)
    np.testing.assert_allclose(short, usual[:7])
    np.testing.assert_allclose(long[::2], usual, atol=1e-12)


def test_smooth_path_goes_through_its_points() -> None:
    points = np.array([[0.0, 0], [1, 2], [3, 1], [4, 4]])
    path = smooth_path(points, 31)
    np.testing.assert_allclose(path[::10], points, atol=1e-12)
    np.testing.assert_allclose(smooth_path(np.arange(8.0).reshape(4, 2), 7), np.linspace((0, 1), (6, 7), 7))
    with pytest.raises(ValueError, match=r"2 points.* at least 3"):
        smooth_path(points[:2], 5)


def test_look_at_refuses_to_look_straight_up() -> None:
    with pytest.raises(ValueError, match=r"\[0, 0, 5\]"):
        look_at((0, 0, 0), (0, 0, 5))


def test_inverse_pose() -> None:
    pose = look_at((1, 2, 3), (4, -2, 1))
    np.testing.assert_allclose(invert_pose(pose) @ pose, np.eye(4), atol=1e-12)


def test_camera_projects_its_own_rays_back_and_nothing_behind_it() -> None:
    points = np.array([[0.0, 0.0], [319.0, 239.0], [12.5, 200.25]])
    np.testing.assert_allclose(CAMERA.project(CAMERA.rays(points) * [[1], [2], [30]]), points, atol=1e-9)
    assert np.isnan(CAMERA.project(np.array([[0.0, 0.0, -1.0]]))).all()
    assert CAMERA.contains(np.array([[0, 0], [319, 239], [319.1, 0], [np.nan, 3]])).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_light_falls_off_and_casts_shadows() -> None:
    floor = Quad(np.array([-4.0, 2, 0]), np.array([8.0, 0, 0]), np.array([0, -4.0, 0]), uniform((100, 100, 100)))
    screen = Quad(np.array([1.0, -1, 1.0]), np.array([1.0, 0, 0]), np.array([0, 2.0, 0]), uniform())
    lamp = Lamp(np.array([0.0, 0, 3.0]), strength=2.0)
    open_floor = lit([floor], [lamp], ambient=0.3)[0].texture.levels[0]
    shaded_floor = lit([floor, screen], [lamp], ambient=0.3)[0].texture.levels[0]
    middle, edge, shadow = (8, 8), (8, 0), (8, 12)
    assert open_floor[middle][0] > open_floor[edge][0] > 30
    assert shaded_floor[shadow][0] == pytest.approx(30, abs=2)
    assert open_floor[shadow][0] > 60
    np.testing.assert_array_equal(shaded_floor[:, :6], open_floor[:, :6])
    assert lit([floor], [], ambient=0.5)[0].texture.levels[0].max() == 50


@pytest.mark.parametrize("motif", range(len(textures.POSTER_MOTIFS)))
def test_posters_have_corners(motif: int) -> None:
    image = textures.poster(np.random.default_rng(motif), 0.9, 1.3, 200, motif)
    assert image.shape == (260, 180, 3)
    found = cv2.goodFeaturesToTrack(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 200, 0.05, 5)
    assert len(found) > 30
