"""Pose files, and the pose at an image's stamp."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SourceError
from feature_frontend.geometry.relative_pose import rotation_error_deg
from feature_frontend_lab.evaluation.tracks.ground_truth import (
    quaternion_of,
    read_ground_truth,
    rotation_of,
    tum_text,
)
from feature_frontend_lab.rendering import default_trajectory, invert_pose

SECOND = 1_000_000_000
FloatArray = npt.NDArray[np.float64]


def _turned(degrees: float, x: float) -> FloatArray:
    angle = np.radians(degrees)
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[0, 3] = x
    return pose


def test_poses_written_as_tum_are_read_again(tmp_path: Path) -> None:
    poses, stamps_ns = default_trajectory(5), [n * SECOND + 123_456_789 for n in range(5)]
    (tmp_path / "a.tum").write_text(tum_text(stamps_ns, poses))
    truth = read_ground_truth(tmp_path / "a.tum")
    for index, (pose, stamp_ns) in enumerate(zip(poses, stamps_ns, strict=True)):
        found = truth.pose_at(index, stamp_ns)
        assert found is not None
        np.testing.assert_allclose(found, pose, atol=1e-8)


def test_convention_a_quaternion_is_x_y_z_w() -> None:
    quarter_about_z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(quaternion_of(quarter_about_z), [0, 0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(quaternion_of(np.eye(3)), [0, 0, 0, 1])
    # Neither the sign nor the length of a quaternion says anything of the rotation.
    np.testing.assert_allclose(rotation_of(np.array([0, 0, -2.0, -2.0])), quarter_about_z, atol=1e-12)


def test_between_two_poses_it_is_interpolated(tmp_path: Path) -> None:
    (tmp_path / "a.tum").write_text(
        tum_text([SECOND, SECOND + 200_000_000], [_turned(10, 1.0), _turned(40, 3.0)]), encoding="utf-8"
    )
    truth = read_ground_truth(tmp_path / "a.tum")
    found = truth.pose_at(0, SECOND + 50_000_000)
    assert found is not None
    np.testing.assert_allclose(found, _turned(17.5, 1.5), atol=1e-6)
    assert truth.pose_at(0, SECOND - 1) is None
    assert truth.pose_at(0, SECOND + 200_000_001) is None


def test_a_hole_in_the_poses_is_not_guessed_over(tmp_path: Path) -> None:
    (tmp_path / "a.tum").write_text(
        tum_text([SECOND, 2 * SECOND], [_turned(0, 0.0), _turned(0, 1.0)]), encoding="utf-8"
    )
    assert read_ground_truth(tmp_path / "a.tum").pose_at(0, SECOND + 1000) is None


def test_kitti_has_a_line_for_each_image(tmp_path: Path) -> None:
    poses = default_trajectory(3)
    np.savetxt(tmp_path / "poses.txt", [pose[:3].ravel() for pose in poses])
    truth = read_ground_truth(tmp_path / "poses.txt", frame_count=3)
    found = truth.pose_at(2, None)
    assert found is not None
    np.testing.assert_allclose(found, poses[2])
    assert truth.pose_at(3, None) is None
    with pytest.raises(SourceError, match="3 poses for 4 images"):
        read_ground_truth(tmp_path / "poses.txt", frame_count=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "3 columns.* 8 .* 12 .* 13"),
        ("1 2 3 4 5 6 7 eight\n", "table of numbers"),
        ("1 2 3 4 5 6 7 nan\n", "not finite"),
        ("1 2 3 4 5 6 7 8\n1 2\n", "table"),
        ("# nothing\n", "no numbers"),
        ("1311868169163498000 0 0 0 0 0 0 1\n", "1.31187e.18.* seconds"),
        ("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 0\n", "pose 2 of 2 .*rotation.* x y z qx"),
        ("1 0 0 5 0 -1 0 5 0 0 1 5\n", "pose 1 of 1 .*rotation.* 3x4"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "poses.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_ground_truth(tmp_path / "poses.txt")


def test_files_of_other_systems_are_read_and_others_than_files_refused(tmp_path: Path) -> None:
    text = tum_text([SECOND], [_turned(10, 1.0)])
    (tmp_path / "a.tum").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"# f\xfcr\r\n")
    assert read_ground_truth(tmp_path / "a.tum").pose_at(0, SECOND) is not None
    os.mkfifo(tmp_path / "pipe")
    for place, why in ((tmp_path / "pipe", "it is not a regular file"), (tmp_path, "Is a directory")):
        with pytest.raises(SourceError, match=f"{re.escape(str(place))} cannot be read as a table of numbers: {why}"):
            read_ground_truth(place)


def test_stamped_poses_need_stamped_images(tmp_path: Path) -> None:
    (tmp_path / "a.tum").write_text(tum_text([SECOND], [np.eye(4)]))
    with pytest.raises(SourceError, match="names that are times"):
        read_ground_truth(tmp_path / "a.tum").pose_at(0, None)
    with pytest.raises(SourceError, match=r"nowhere\.txt"):
        read_ground_truth(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("sequence", ["tum_fr2_desk", "kitti00"])
def test_real_poses_are_smooth(shared: Path, sequence: str) -> None:
    folder = shared / "data" / sequence
    truth = read_ground_truth(
        next(folder / name for name in ("groundtruth.txt", "poses.txt") if (folder / name).exists())
    )
    stamps = [round(float(file.stem) * SECOND) for file in sorted(folder.glob("*.png"))]
    poses = [truth.pose_at(index, stamp_ns) for index, stamp_ns in enumerate(stamps)]
    assert len(poses) == 20
    for pose0, pose1 in pairwise(poses):
        assert pose0 is not None
        assert pose1 is not None
        assert 0 < rotation_error_deg(pose0[:3, :3], pose1[:3, :3]) < 5
        assert np.linalg.norm((invert_pose(pose0) @ pose1)[:3, 3]) < 2
