"""The demo's figures, on synthetic recordings with known geometry."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import DemoError
from feature_frontend_lab.demo.analysis import Distribution, summarize
from feature_frontend_lab.demo.recording import (
    STAGES,
    FeaturesRecord,
    MatchesRecord,
    Recording,
    StatusRecord,
    TracksRecord,
)
from feature_frontend_lab.demo.report import as_json, as_sentence, as_text, problems
from feature_frontend_lab.demo.sequence import RenderedSequence, render_sequence
from feature_frontend_lab.rendering import render_depth, reproject

FRAMES = 3


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> RenderedSequence:
    return render_sequence(tmp_path_factory.mktemp("demo") / "sequence", FRAMES)


def calibration(sequence: RenderedSequence) -> CameraCalibration:
    return read_calibration_file(sequence.folder / "camera.yaml")


def perfect_matches(sequence: RenderedSequence, number: int, count: int = 300) -> MatchesRecord:
    """Matches of frame `number` and the next one, where the geometry puts them."""
    stamps, poses = list(sequence.poses), list(sequence.poses.values())
    depth = render_depth(sequence.scene, sequence.camera, poses[number])
    points = np.random.default_rng(number).uniform((5, 5), (634, 474), (3 * count, 2))
    there = reproject(points, depth, poses[number], poses[number + 1], sequence.camera)
    chosen = np.flatnonzero(there.visible)[:count]
    return MatchesRecord(
        stamps[number],
        stamps[number + 1],
        points[chosen].astype(np.float32),
        there.points[chosen].astype(np.float32),
    )


def recording_of(sequence: RenderedSequence, matches: list[MatchesRecord]) -> Recording:
    stamps = list(sequence.poses)
    points = np.arange(20, dtype=np.float32).reshape(10, 2) * 20
    ids = np.arange(10, dtype=np.uint64)
    return Recording(
        image_count=len(stamps),
        camera=calibration(sequence),
        features=[FeaturesRecord(stamp, "aliked-n16@5be87048", points) for stamp in stamps],
        matches=matches,
        tracks=[
            TracksRecord(stamp, ids + np.uint64(5 * number), np.full(10, number + 1, np.uint32), points)
            for number, stamp in enumerate(stamps)
        ],
        status=[
            StatusRecord(stamp, "OK" if number else "FIRST", "", dict.fromkeys(STAGES, 10.0 * (number + 1)))
            for number, stamp in enumerate(stamps)
        ],
    )


def test_sequence_is_a_folder_that_play_understands(sequence: RenderedSequence) -> None:
    images = sorted(sequence.folder.glob("*.png"))
    assert [path.stem for path in images] == [f"1700000000.{number}00000000" for number in range(FRAMES)]
    assert cv2.imread(str(images[0])).shape == (480, 640, 3)
    camera = calibration(sequence)
    assert (camera.height, camera.width) == (480, 640)
    np.testing.assert_array_equal(np.reshape(camera.camera_matrix, (3, 3)), sequence.camera.matrix)
    rows = np.loadtxt(sequence.folder / "poses.txt")
    assert rows.shape == (FRAMES, 13)
    for row, pose in zip(rows, sequence.poses.values(), strict=True):
        np.testing.assert_allclose(row[1:].reshape(3, 4), pose[:3], atol=1e-8)


def test_perfect_matches_are_inliers_and_give_the_pose(sequence: RenderedSequence) -> None:
    summary = summarize(recording_of(sequence, [perfect_matches(sequence, n) for n in range(FRAMES - 1)]), sequence)
    assert (summary.frames, summary.features_messages, summary.matches_messages) == (3, 3, 2)
    assert summary.matches.median == 300
    assert summary.inlier_ratio.minimum > 0.995
    assert summary.pose is not None
    assert summary.pose.pairs_without_pose == 0
    assert summary.pose.rotation_deg.maximum < 0.02
    assert summary.pose.translation_deg.maximum < 0.5
    assert problems(summary, FRAMES) == []


def test_wrong_matches_are_distinguished_from_right_ones(sequence: RenderedSequence) -> None:
    good = perfect_matches(sequence, 0)
    moved = good.keypoints1.copy()
    moved[:75] += 12
    summary = summarize(recording_of(sequence, [dataclasses.replace(good, keypoints1=moved)]), sequence)
    assert summary.inlier_ratio.median == pytest.approx(0.75, abs=0.02)
    assert summary.pose is not None
    assert summary.pose.rotation_deg.median < 0.05


def test_wrong_steps_of_tracks_are_counted(sequence: RenderedSequence) -> None:
    steps = [perfect_matches(sequence, number) for number in range(FRAMES - 1)]
    steps[1].keypoints1[:30] += 4
    # Each step has tracks of its own; in the frame between them, those of both are seen.
    stamps, ids = list(sequence.poses), np.arange(600, dtype=np.uint64)
    points = [steps[0].keypoints0, np.concatenate([steps[0].keypoints1, steps[1].keypoints0]), steps[1].keypoints1]
    rows = [slice(300), slice(None), slice(300, None)]
    recording = recording_of(sequence, steps)
    recording.tracks = [
        TracksRecord(stamp, ids[row], np.ones(len(there), np.uint32), there)
        for stamp, row, there in zip(stamps, rows, points, strict=True)
    ]
    summary = summarize(recording, sequence)
    assert (summary.wrong_steps.count, summary.wrong_steps.maximum) == (2, pytest.approx(0.1, abs=0.01))
    assert summary.wrong_steps.minimum < 0.01
    assert "off by over 3 px" in as_text(summary, {})
    assert "off by over" not in as_text(summarize(recording, None), {})


def test_a_match_on_a_silhouette_may_be_of_the_nearer_surface(sequence: RenderedSequence) -> None:
    stamps, poses = list(sequence.poses), list(sequence.poses.values())
    depth = render_depth(sequence.scene, sequence.camera, poses[0])
    jump = depth[:, :-1] - depth[:, 1:]
    y, x = np.argwhere(jump[50:400, 100:500] > 3)[0] + (50, 100)
    on_edge = np.array([[x, y]], np.float32)
    nearer = depth.copy()
    nearer[y, x] = depth[y, x + 1]
    for surface in (depth, nearer):
        there = reproject(on_edge, surface, poses[0], poses[1], sequence.camera).points.astype(np.float32)
        assert sequence.residuals_px(stamps[0], stamps[1], on_edge, there)[0] < 0.3


def test_an_image_that_was_not_rendered_has_no_geometry(sequence: RenderedSequence) -> None:
    with pytest.raises(DemoError, match="stamp 5 ns"):
        sequence.motion(5, next(iter(sequence.poses)))


def test_pairs_without_a_pose_count_as_failures(sequence: RenderedSequence) -> None:
    few = [perfect_matches(sequence, number, count=4) for number in range(2)]
    summary = summarize(recording_of(sequence, few), sequence)
    assert summary.pose is not None
    assert summary.pose.pairs_without_pose == 2
    assert summary.pose.rotation_deg.median == 180
    (problem,) = problems(summary, FRAMES)
    assert re.search("rotation .*180.000 degrees.* 0.2", problem)
    assert "2 pairs gave no pose" in as_text(summary, {})


def test_matches_turned_by_a_wrong_camera_exceed_the_limit(sequence: RenderedSequence) -> None:
    """The check must be able to fail: an image rolled by 1 degree is not the motion that is known."""
    good = perfect_matches(sequence, 0)
    centre = sequence.camera.matrix[:2, 2]
    angle = np.radians(1.0)
    roll = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rolled = ((good.keypoints1 - centre) @ roll.T + centre).astype(np.float32)
    summary = summarize(recording_of(sequence, [dataclasses.replace(good, keypoints1=rolled)]), sequence)
    assert summary.pose is not None
    assert summary.pose.rotation_deg.median == pytest.approx(1.0, abs=0.1)
    assert len(problems(summary, FRAMES)) == 1


def test_fewer_features_than_frames_is_a_failure(sequence: RenderedSequence) -> None:
    recording = recording_of(sequence, [perfect_matches(sequence, 0)])
    recording.features.pop()
    recording.status[-1] = dataclasses.replace(recording.status[-1], state="ERROR", reason="encoding 'xyz'")
    summary = summarize(recording, sequence)
    (problem,) = problems(summary, FRAMES)
    assert re.search("2 Features .*3 frames.* 1 FIRST, 1 OK, 1 ERROR", problem)
    assert "encoding 'xyz'" in as_text(summary, {})
    assert len(problems(summary, expected_frames=None)) == 1
    assert "no frame arrived" in problems(summarize(Recording(), None), None)[0]


def test_own_footage_is_judged_by_its_epipolar_geometry(sequence: RenderedSequence) -> None:
    good = perfect_matches(sequence, 0)
    moved = good.keypoints1.copy()
    moved[:60] = np.random.default_rng(0).uniform(0, 480, (60, 2))
    recording = recording_of(sequence, [dataclasses.replace(good, keypoints1=moved)])
    calibrated = summarize(recording, None)
    assert calibrated.pose is None
    assert calibrated.inlier_ratio.median == pytest.approx(0.8, abs=0.03)
    assert calibrated.inlier_method == "of the essential matrix, RANSAC 1 px"
    recording.camera = None
    uncalibrated = summarize(recording, None)
    assert uncalibrated.inlier_ratio.median == pytest.approx(0.8, abs=0.04)
    assert uncalibrated.inlier_method == "of the fundamental matrix, RANSAC 1 px"


def test_distorted_footage_is_undistorted_before_its_geometry_is_judged(sequence: RenderedSequence) -> None:
    matrix = sequence.camera.matrix
    distortion = (-0.3, 0.1, 0.001, -0.001, 0.0)
    good = perfect_matches(sequence, 0)

    def distorted(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        rays = sequence.camera.rays(points)
        projected, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, np.array(distortion))
        return projected.reshape(-1, 2).astype(np.float32)

    record = dataclasses.replace(good, keypoints0=distorted(good.keypoints0), keypoints1=distorted(good.keypoints1))
    recording = recording_of(sequence, [record])
    recording.camera = dataclasses.replace(calibration(sequence), distortion_coefficients=distortion)
    summary = summarize(recording, sequence)
    assert summary.pose is not None
    assert summary.pose.rotation_deg.median < 0.02


def test_tracks_and_times_are_summed_up(sequence: RenderedSequence) -> None:
    summary = summarize(recording_of(sequence, []), sequence)
    # Ids 0-4 are seen once, 5-9 twice, 10-14 to age 3 as do 15-19; each age is that of the last sighting.
    assert summary.track_length.count == 20
    assert summary.track_length.maximum == 3
    assert summary.track_length.mean == pytest.approx((5 * 1 + 5 * 2 + 10 * 3) / 20)
    assert summary.track_age.count == 30
    assert summary.milliseconds["extraction"].median == 20
    assert summary.milliseconds["extraction"].p95 == pytest.approx(29)
    assert math.isnan(summary.matches.median)


def test_distribution_ignores_nan_and_knows_when_there_is_nothing() -> None:
    values = Distribution.of([1.0, float("nan"), 3.0])
    assert (values.count, values.median, values.minimum, values.maximum) == (2, 2.0, 1.0, 3.0)
    assert Distribution.of([]).count == 0
    assert math.isnan(Distribution.of([]).p95)


def test_report_as_text_and_as_json(sequence: RenderedSequence) -> None:
    summary = summarize(recording_of(sequence, [perfect_matches(sequence, 0)]), sequence)
    text = as_text(summary, {"sequence": "rendered hall"})
    assert max(map(len, text.splitlines())) <= 100
    assert "sequence:   rendered hall" in text
    assert "3 images -> 3 features, 1 matches; states: 1 FIRST, 2 OK" in text
    assert "within 2 px of the known geometry" in text
    document = json.loads(as_json(summary, {"sequence": "rendered hall"}))
    assert document["sequence"] == "rendered hall"
    assert document["matches"]["median"] == 300
    assert document["pose"]["rotation_deg"]["count"] == 1
    assert "300 matches a pair" in as_sentence(summary)
    empty = json.loads(as_json(summarize(Recording(), None), {}))
    assert empty["matches"]["median"] is None
    assert empty["pose"] is None
    assert as_sentence(summarize(Recording(), None)) == "0 frames, - matches a pair, - % of them inliers (medians)"
