"""Visual-inertial odometry on simulated tracks: starts, accuracy, loss of sight, and what it is not meant for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.sources.imu import ImuNoise
from feature_frontend_lab.odometry.views import TrackedView
from feature_frontend_lab.rendering.flights import Flight, flight
from tests.odometry.simulated import simulated_views

pytest.importorskip("gtsam", reason="needs gtsam, which the extra odometry installs")

from feature_frontend_lab.evaluation.odometry.metrics import TrajectoryErrors, trajectory_errors
from feature_frontend_lab.odometry.smoother import SmootherStep, VisualInertialSmoother

FloatArray = npt.NDArray[np.float64]

_MOVING = range(100, 170)


@pytest.fixture(scope="module")
def flown() -> Flight:
    return flight("hall", 0)


@pytest.fixture(scope="module")
def views(flown: Flight) -> list[TrackedView]:
    return simulated_views(flown, _MOVING)


@pytest.fixture(scope="module")
def steps(flown: Flight, views: list[TrackedView]) -> list[SmootherStep]:
    return _run(flown, views)


def _smoother(flown: Flight) -> VisualInertialSmoother:
    smoother = VisualInertialSmoother(flown.imu.body_from_camera, flown.imu.noise)
    smoother.imu.add(flown.imu.stamps_ns, flown.imu.angular_velocity, flown.imu.linear_acceleration)
    return smoother


def _run(flown: Flight, views: Sequence[TrackedView]) -> list[SmootherStep]:
    smoother = _smoother(flown)
    return [smoother.update(view) for view in views]


def _errors(flown: Flight, views: Sequence[TrackedView], steps: Sequence[SmootherStep]) -> TrajectoryErrors:
    rows = np.searchsorted(flown.stamps_ns, [view.stamp_ns for view in views])
    found = [
        (view.stamp_ns, step.pose @ flown.imu.body_from_camera, flown.poses[row])
        for view, row, step in zip(views, rows, steps, strict=True)
        if step.pose is not None
    ]
    stamps_ns, poses, truth = zip(*found, strict=True)
    return trajectory_errors(stamps_ns, poses, truth, [0] * len(found))


def test_a_moving_start_finds_scale_and_gravity(
    flown: Flight, views: list[TrackedView], steps: list[SmootherStep]
) -> None:
    first = next(row for row, step in enumerate(steps) if step.pose is not None)
    assert first < 40
    assert all(step.pose is not None and not step.lost for step in steps[first:])
    truth = flown.body_poses[_MOVING]
    for row, step in list(enumerate(steps))[first:]:
        assert step.pose is not None
        up, true_up = step.pose[2, :3], truth[row][2, :3]
        assert np.degrees(np.arccos(np.clip(up @ true_up, -1, 1))) < 2
    errors = _errors(flown, views, steps)
    length = np.linalg.norm(np.diff(truth[first:, :3, 3], axis=0), axis=1).sum()
    assert errors.ate_m < 0.02 * length
    last = steps[-1]
    assert last.gyroscope_bias is not None
    np.testing.assert_allclose(last.gyroscope_bias, flown.gyroscope_biases[_MOVING[-1]], atol=0.003)


def test_a_start_at_rest_is_immediate_and_stays_in_place(flown: Flight) -> None:
    rows = range(50)
    views = simulated_views(flown, rows)
    steps = _run(flown, views)
    first = next(row for row, step in enumerate(steps) if step.pose is not None)
    assert first < 12  # half a second
    resting = [step.pose for step in steps[first:20]]
    np.testing.assert_allclose([pose[:3, 3] for pose in resting if pose is not None], 0, atol=0.01)
    assert _errors(flown, views, steps).ate_m < 0.03


def test_steady_motion_is_no_rest(flown: Flight) -> None:
    """Only the tracks tell driving from standing."""
    from feature_frontend_lab.odometry.initialization import is_at_rest

    still = simulated_views(flown, range(12))
    samples = np.tile([0.0, 0, 0, 0, 0, 9.81], (100, 1))
    assert is_at_rest(still, samples)
    passing = [replace(still[-1], rays=still[-1].rays + 0.05)]
    assert not is_at_rest([*still, *passing], samples)
    assert not is_at_rest(still, samples + np.array([0, 0, 0, 0, 0, 2]))
    assert not is_at_rest(still, np.zeros((0, 6)))


def test_it_goes_on_after_a_second_without_tracks(flown: Flight, views: list[TrackedView]) -> None:
    blind = list(views)
    for row in range(40, 60):
        blind[row] = replace(views[row], ids=views[row].ids[:0], rays=views[row].rays[:0])
    # What is seen afterwards has new ids.
    blind[60:] = [replace(view, ids=view.ids + 1_000_000) for view in views[60:]]
    steps = _run(flown, blind)
    assert all(step.pose is not None and not step.lost for step in steps[40:])
    assert _errors(flown, blind, steps).ate_m < 0.15


def test_it_goes_on_after_a_second_without_images_and_a_reset(flown: Flight, views: list[TrackedView]) -> None:
    smoother = _smoother(flown)
    steps = [smoother.update(view) for view in views[:45]]
    smoother.forget_tracks()
    # The same numbers are other points now.
    renamed = [replace(view, ids=view.ids[::-1].copy()) for view in views[65:]]
    steps += [smoother.update(view) for view in renamed]
    assert all(step.pose is not None and not step.lost for step in steps[45:])
    assert _errors(flown, [*views[:45], *renamed], steps).ate_m < 0.15


def test_without_sight_for_long_it_is_lost_and_says_why(flown: Flight, views: list[TrackedView]) -> None:
    smoother = _smoother(flown)
    assert [smoother.update(view) for view in views[:40]][-1].pose is not None
    blind = [
        TrackedView(views[39].stamp_ns + k * 100_000_000, views[0].ids[:0], views[0].rays[:0], views[0].px)
        for k in range(1, 35)
    ]
    steps = [smoother.update(view) for view in blind]
    (lost,) = [step.lost for step in steps if step.lost]
    assert "no image had 15 tracks for 3 s" in lost
    assert steps[-1].pose is None


def test_without_images_for_long_it_is_lost(flown: Flight, views: list[TrackedView]) -> None:
    smoother = _smoother(flown)
    assert [smoother.update(view) for view in views[:40]][-1].pose is not None
    later = simulated_views(flown, range(139 + 65, 139 + 66))[0]
    assert "for 3 s" in smoother.update(later).lost


def test_a_long_rest_is_no_loss_of_sight(flown: Flight, views: list[TrackedView]) -> None:
    still = flown.imu.stamps_ns <= flown.stamps_ns[20]
    values = np.concatenate([flown.imu.angular_velocity[still], flown.imu.linear_acceleration[still]], axis=1).mean(
        axis=0
    )
    rest = simulated_views(flown, range(20))[0]
    smoother = VisualInertialSmoother(flown.imu.body_from_camera, flown.imu.noise)
    stamps_ns = np.arange(0, 6_000_000_000, 5_000_000)
    smoother.imu.add(stamps_ns, *(np.tile(part, (len(stamps_ns), 1)) for part in (values[:3], values[3:])))
    steps = [smoother.update(replace(rest, stamp_ns=k * 50_000_000)) for k in range(100)]
    moved = replace(rest, stamp_ns=5_000_000_000, rays=rest.rays + 0.02)
    steps.append(smoother.update(moved))
    assert not any(step.lost for step in steps)
    assert steps[-1].pose is not None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("in g", "measures 1.0"),
        ("in degrees", "units"),
        ("other camera", "pose of the camera"),
        ("no tracks", "fewer than 15 tracks"),
        ("silent", "silent for more than 0.1 s"),
    ],
)
def test_why_there_is_no_start_is_said(flown: Flight, views: list[TrackedView], fault: str, words: str) -> None:
    rates, accelerations, kept = flown.imu.angular_velocity, flown.imu.linear_acceleration, slice(None)
    seen = views[:50]
    if fault == "in g":
        accelerations = accelerations / 9.81
    elif fault == "in degrees":
        rates = np.rad2deg(rates)
    elif fault == "other camera":
        seen = [replace(view, rays=-view.rays) for view in seen]
    elif fault == "no tracks":
        seen = [replace(view, ids=view.ids[:5], rays=view.rays[:5]) for view in seen]
    else:
        kept = slice(0, 10)
    smoother = VisualInertialSmoother(flown.imu.body_from_camera, flown.imu.noise)
    smoother.imu.add(flown.imu.stamps_ns[kept], rates[kept], accelerations[kept])
    steps = [smoother.update(view) for view in seen]
    assert all(step.pose is None for step in steps)
    assert words in steps[-1].waiting
    assert not steps[0].waiting


@pytest.mark.parametrize("densities", [(0, 0, 0, 0), (1e-3, 0, 1e-2, 0), (0, 5e-5, 0, 3e-3)])
def test_densities_of_0_stand_for_unknown_ones(
    flown: Flight, views: list[TrackedView], densities: tuple[float, float, float, float]
) -> None:
    smoother = VisualInertialSmoother(flown.imu.body_from_camera, ImuNoise(*densities))
    smoother.imu.add(flown.imu.stamps_ns, flown.imu.angular_velocity, flown.imu.linear_acceleration)
    steps = [smoother.update(view) for view in views]
    assert not any(step.lost for step in steps)
    assert _errors(flown, views, steps).ate_m < 0.15


@pytest.mark.parametrize("fault", ["silent", "backwards"])
def test_what_makes_no_sequence_ends_the_estimate_with_a_reason(
    flown: Flight, views: list[TrackedView], fault: str
) -> None:
    smoother = VisualInertialSmoother(flown.imu.body_from_camera, flown.imu.noise)
    imu = flown.imu
    kept = np.ones(len(imu.stamps_ns), np.bool_)
    if fault == "silent":
        kept = ~((imu.stamps_ns > views[40].stamp_ns) & (imu.stamps_ns < views[43].stamp_ns))
    smoother.imu.add(imu.stamps_ns[kept], imu.angular_velocity[kept], imu.linear_acceleration[kept])
    order = list(range(45)) if fault == "silent" else [*range(41), 39]
    steps = [smoother.update(views[row]) for row in order]
    (lost,) = [step.lost for step in steps if step.lost]
    assert ("silent for more than 0.1 s" if fault == "silent" else "came after one at") in lost
    assert steps[-1].pose is None


def test_the_size_of_a_pixel_may_differ_from_view_to_view(
    flown: Flight, views: list[TrackedView], steps: list[SmootherStep]
) -> None:
    """As where it is estimated from the tracks of each image."""
    differing = [replace(view, px=view.px * (1 + 0.05 * (row % 3))) for row, view in enumerate(views)]
    found = _run(flown, differing)
    assert _errors(flown, differing, found).ate_m < 2 * _errors(flown, views, steps).ate_m


def test_measurements_that_are_none_are_left_out_and_counted(flown: Flight) -> None:
    smoother = VisualInertialSmoother(np.eye(4))
    values = np.zeros((6, 3))
    values[[1, 4, 5], 0] = np.nan, 1e30, -1e308
    smoother.imu.add(np.array([0, 5, 10, 10, 15, 20]), values, np.zeros((6, 3)))
    assert smoother.imu.refused == 4
    assert smoother.imu.end_ns == 10


def test_wrong_sightings_are_rejected(flown: Flight, views: list[TrackedView], steps: list[SmootherStep]) -> None:
    rng = np.random.default_rng(0)
    spoilt = []
    for row, view in enumerate(views):
        rays = view.rays.copy()
        wrong = rng.random(len(rays)) < (0.02 if row >= 40 else 0)  # after the start
        rays[wrong] = rng.uniform(-0.5, 0.5, (np.count_nonzero(wrong), 2))
        spoilt.append(replace(view, rays=rays))
    found = _run(flown, spoilt)
    assert _errors(flown, spoilt, found).ate_m < 0.2
    shares = [sum(s.rejected for s in some) / sum(s.points for s in some) for some in (found, steps)]
    assert shares[0] > shares[1] + 0.01
