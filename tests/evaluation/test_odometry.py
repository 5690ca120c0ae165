"""`evaluate odometry`: its metrics, the front-ends that are known to be bad, sequences without an IMU, and the tool."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.evaluation.commands.evaluate import main
from feature_frontend_lab.evaluation.odometry.benchmark import PIECE_FRAMES, SequenceResults, run_odometry
from feature_frontend_lab.evaluation.odometry.degraded import DEGRADED, degrade
from feature_frontend_lab.evaluation.odometry.metrics import trajectory_errors
from feature_frontend_lab.evaluation.odometry.sequences import TrackedSequence
from feature_frontend_lab.evaluation.reports.odometry_report import odometry_figure, odometry_table
from feature_frontend_lab.evaluation.tracks.ground_truth import read_ground_truth
from feature_frontend_lab.rendering.flights import flight
from tests.odometry.simulated import simulated_views

FloatArray = npt.NDArray[np.float64]

_ROWS = range(100, 150)


@pytest.fixture(scope="module")
def tracked() -> TrackedSequence:
    flown = flight("hall", 0)
    return TrackedSequence(simulated_views(flown, _ROWS), list(flown.poses[_ROWS]), flown.imu)


def _line(count: int) -> list[FloatArray]:
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = np.arange(count) * 0.1
    poses[:, 1, 3] = np.sin(np.arange(count))
    return list(poses)


def test_errors_do_not_depend_on_the_world_frame_but_on_the_scale() -> None:
    truth = _line(40)
    stamps_ns = [k * 50_000_000 for k in range(40)]
    world = np.array([[0.0, -1, 0, 5], [1, 0, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1]])
    moved = [world @ pose for pose in truth]
    exact = trajectory_errors(stamps_ns, moved, truth, [0] * 40)
    assert exact.ate_m == pytest.approx(0, abs=1e-9)
    assert exact.relative_m == pytest.approx(0, abs=1e-9)
    assert exact.relative_deg == pytest.approx(0, abs=1e-4)
    longer = [pose.copy() for pose in truth]
    for pose in longer:
        pose[:3, 3] *= 1.1
    assert trajectory_errors(stamps_ns, longer, truth, [0] * 40).ate_m > 0.05
    assert trajectory_errors(stamps_ns, longer, truth, [0] * 40, with_scale=True).ate_m == pytest.approx(0, abs=1e-9)


def test_nothing_is_relative_across_a_loss() -> None:
    truth = _line(40)
    stamps_ns = [k * 50_000_000 for k in range(40)]
    jumped = [pose.copy() for pose in truth]
    for pose in jumped[20:]:
        pose[2, 3] += 7
    assert trajectory_errors(stamps_ns, jumped, truth, [0] * 40).relative_m > 1
    apart = trajectory_errors(stamps_ns, jumped, truth, [0] * 20 + [1] * 20)
    assert np.isnan(apart.relative_m)
    assert np.isnan(trajectory_errors(stamps_ns[:2], truth[:2], truth[:2], [0, 0]).ate_m)


def test_front_ends_that_are_known_to_be_bad_come_out_worse(tracked: TrackedSequence) -> None:
    pytest.importorskip("gtsam", reason="needs gtsam, which the extra odometry installs")
    good = run_odometry(tracked)
    assert good.covered > 0.3
    for name in ("jumped", "+".join(DEGRADED)):  # GTSAM copes with some wrong ids alone
        bad = run_odometry(degrade(tracked, name, seed=0))
        assert not bad.errors.ate_m < 2 * good.errors.ate_m, name  # NaN if there is no pose
        assert not bad.rejected <= good.rejected or not bad.poses, name


def test_spoilt_tracks_are_as_said(tracked: TrackedSequence) -> None:
    jumped, swapped = (degrade(tracked, name, seed=1) for name in ("jumped", "swapped"))
    before, after = tracked.views[0], jumped.views[0]
    steps_px = np.linalg.norm(after.rays - before.rays, axis=1) / before.px
    assert set(np.unique(steps_px.round(6))) == {0.0, 3.0}
    assert 0.02 < (steps_px > 0).mean() < 0.25
    wrong = [
        (view.rays != clean.rays).any(axis=1).mean() for view, clean in zip(swapped.views, tracked.views, strict=True)
    ]
    assert 0.07 < np.mean(wrong) < 0.13
    np.testing.assert_array_equal(np.sort(swapped.views[5].rays, axis=0), np.sort(tracked.views[5].rays, axis=0))


def test_without_an_imu_pieces_of_ten_images_are_measured(tracked: TrackedSequence) -> None:
    result = run_odometry(TrackedSequence(tracked.views, tracked.poses, None))
    assert set(result.pieces) <= set(range(len(_ROWS) // PIECE_FRAMES))
    assert result.covered > 0.5
    assert result.errors.ate_m < 0.05
    assert np.isnan(result.rejected)


def test_why_the_odometry_was_lost_is_reported(tracked: TrackedSequence) -> None:
    pytest.importorskip("gtsam", reason="needs gtsam, which the extra odometry installs")
    assert tracked.imu is not None
    stamps_ns = tracked.imu.stamps_ns
    hole_ns = tracked.views[30].stamp_ns
    kept = (stamps_ns < hole_ns) | (stamps_ns > hole_ns + 200_000_000)
    imu = replace(
        tracked.imu,
        stamps_ns=stamps_ns[kept],
        angular_velocity=tracked.imu.angular_velocity[kept],
        linear_acceleration=tracked.imu.linear_acceleration[kept],
    )
    result = run_odometry(TrackedSequence(tracked.views, tracked.poses, imu))
    assert len(result.losses) == 1
    assert "silent for more than 0.1 s" in result.losses[0]
    report = SequenceResults("hole", True, None, [([], [])], {"lk": [result]})
    assert f"lk lost 1x: {result.losses[0]}" in odometry_table(report)


def test_why_there_are_no_poses_or_errors_is_reported(tracked: TrackedSequence) -> None:
    pytest.importorskip("gtsam", reason="needs gtsam, which the extra odometry installs")
    assert tracked.imu is not None
    in_g = replace(tracked.imu, linear_acceleration=tracked.imu.linear_acceleration / 9.81)
    result = run_odometry(TrackedSequence(tracked.views, tracked.poses, in_g))
    short = run_odometry(TrackedSequence(tracked.views[:3], tracked.poses[:3], tracked.imu))
    table = odometry_table(SequenceResults("g", True, None, [([], [])], {"lk": [result], "orb": [short]}))
    assert "lk without a pose 1x: the accelerometer measures 1" in table
    assert "orb without a pose 1x: the images end before a start" in table
    assert "no true poses" in table
    assert np.isnan(result.rejected)


def test_without_truth_the_plot_shows_the_estimates(tracked: TrackedSequence) -> None:
    result = run_odometry(TrackedSequence(tracked.views, [None] * len(tracked.views), None))
    own = odometry_figure(SequenceResults("none", False, None, [([], [])], {"lk": [result]})).axes[0]
    assert len(own.lines[0].get_xdata()) == len(result.poses) > 0
    assert "not aligned" in own.get_title(loc="left") + own.get_title()


@pytest.mark.slow
def test_the_tool_writes_tables_and_trajectories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gtsam", reason="needs gtsam, which the extra odometry installs")
    options = ["--start", "20", "--count", "12", "--seeds", "1", "--compare", "lk+max_num_keypoints=150"]
    assert main(["odometry", "rendered:hall", *options, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "12 images, visual-inertial, seeds 0" in printed
    document = json.loads((tmp_path / "odometry.json").read_text())
    (sequence,) = document["sequences"]
    results = sequence["results"]["lk+max_num_keypoints=150"]
    assert [result["images"] for result in results] == [12]
    assert (tmp_path / "odometry_rendered_hall.png").stat().st_size > 1000
    assert len(read_ground_truth(tmp_path / "rendered_hall_seed0_ground_truth.tum").poses) == 12
    assert (tmp_path / "rendered_hall_seed0_lk+max_num_keypoints=150.tum").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rendered:moon"], "no rendered flight is called 'moon'; expected one of hall"),
        (["rendered:hall", "--compare", "lk,lk"], "expected different ones"),
        (["rendered:hall", "rendered:hall", "--compare", "lk"], "expected different ones"),
        (["rendered:hall", "--compare", "klt"], "no configuration is called 'klt'"),
        (["nowhere", "--compare", "lk"], "nowhere"),
        (["rendered:hall", "--start", "100000", "--compare", "lk"], "no image 100000"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["odometry", *arguments, "--output", str(tmp_path)]) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
