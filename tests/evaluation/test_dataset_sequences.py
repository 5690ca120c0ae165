"""Evaluation on datasets: the poses of the camera, whatever frame their files are about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SourceError
from feature_frontend.sources.datasets.layouts import LAYOUTS, open_dataset
from feature_frontend_lab.evaluation.commands.evaluate import main
from feature_frontend_lab.evaluation.tracks.ground_truth import ground_truth_of, read_ground_truth, tum_text
from feature_frontend_lab.evaluation.tracks.sequence import EvaluationSequence, SequenceOptions, open_sequence
from tests.datasets import BODY_FROM_CAMERA, Flight, noise_flight, write_layout

FLIGHT = noise_flight()
WITH_POSES = [layout.layout for layout in LAYOUTS if layout.layout != "KITTI raw"]


def _poses(sequence: EvaluationSequence) -> list[npt.NDArray[np.float64] | None]:
    return [frame.pose for frame in sequence.frames()]


@pytest.mark.parametrize("layout", WITH_POSES)
def test_poses_are_those_of_the_camera(layout: str, tmp_path: Path) -> None:
    sequence = open_sequence(str(write_layout(layout, tmp_path, FLIGHT)), SequenceOptions())
    np.testing.assert_allclose(_poses(sequence), FLIGHT.poses, atol=1e-8)
    assert all(frame.camera is not None for frame in sequence.frames())
    assert (sequence.imu is not None) == (layout == "EuRoC")
    # Poses that are given are taken for the camera's.
    given = tmp_path / "given.tum"
    given.write_text(tum_text([frame.stamp_ns for frame in sequence.frames()], [np.eye(4)] * 4))
    options = SequenceOptions(ground_truth=given)
    for pose in _poses(open_sequence(str(sequence.source.path), options)):  # type: ignore[attr-defined]
        np.testing.assert_allclose(pose, np.eye(4))


def test_a_file_of_the_poses_of_the_body_beside_mav0(tmp_path: Path) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    (root / "mav0" / "state_groundtruth_estimate0" / "data.csv").unlink()
    assert _poses(open_sequence(str(root), SequenceOptions())) == [None] * 4
    bodies = [pose @ np.linalg.inv(BODY_FROM_CAMERA) for pose in FLIGHT.poses]
    (root / "groundtruth.txt").write_text(tum_text(FLIGHT.stamps_ns, bodies))
    np.testing.assert_allclose(_poses(open_sequence(str(root / "mav0"), SequenceOptions())), FLIGHT.poses, atol=1e-8)


def test_part_of_a_sequence_of_kitti_takes_the_poses_of_its_numbers(tmp_path: Path) -> None:
    folder = write_layout("KITTI odometry", tmp_path, FLIGHT)
    for number in (0, 2):
        (folder / "image_2" / f"{number:06d}.png").unlink()
    sequence = open_sequence(str(folder / "image_2"), SequenceOptions())
    np.testing.assert_allclose(_poses(sequence), [FLIGHT.poses[1], FLIGHT.poses[3]], atol=1e-8)
    poses = tmp_path / "dataset" / "poses" / "07.txt"
    poses.write_text("\n".join(poses.read_text().splitlines()[:3]))
    with pytest.raises(SourceError, match=r"07.txt has 3 poses; expected one .* the last of which is number 3"):
        open_sequence(str(folder), SequenceOptions())


def test_without_the_pose_of_the_camera_in_the_body_there_are_no_poses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    (root / "mav0" / "cam0" / "sensor.yaml").unlink()
    assert open_sequence(str(root), SequenceOptions()).ground_truth is None
    assert "the true poses in" in caplog.text
    assert "there is no calibration file" in caplog.text


def test_lines_of_poses_that_cannot_be_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    file = root / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    file.write_text(f"{file.read_text()}1403636579963555584,nan,0,0,1,0,0,0\n12\n")
    truth = ground_truth_of(open_dataset(root))
    assert truth is not None
    assert len(truth.poses) == 4
    assert "2 lines, the first of them 6, of " in caplog.text
    file.write_text(f"{FLIGHT.stamps_ns[0]},0,0,0,1,1,0,0\n")
    with pytest.raises(SourceError, match=r"pose 1 of 1 .* has no rotation"):
        ground_truth_of(open_dataset(root))


def test_stamps_of_poses_are_exact(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1403636579.763555584 0 0 0 0 0 0 1\n1403636578.000000001 0 0 0 0 0 0 1\n")
    stamps_ns = read_ground_truth(tmp_path / "a.txt").stamps_ns
    assert stamps_ns is not None
    assert stamps_ns.tolist() == [1_403_636_578_000_000_001, 1_403_636_579_763_555_584]


def test_real_datasets_are_evaluated(shared: Path, tmp_path: Path, report_figure: Callable[[str], None]) -> None:
    """KITTI's and TUM's images in their layouts, and EuRoC's: Lucas-Kanade agrees with the poses that are found."""
    data = shared / "data"
    folders = [_kitti(data / "kitti00", tmp_path), _tum(data / "tum_fr2_desk", tmp_path), data / "euroc_v101"]
    options = ["--count", "4", "--compare", "lk", "--set", "max_num_keypoints=300", "--output", str(tmp_path / "out")]
    assert main(["tracks", *map(str, folders), *options]) == 0
    document = json.loads((tmp_path / "out" / "tracks.json").read_text())
    # TUM's poses shake by more than a pixel.
    limits = ((0.1, 0.9), (0.3, 0.7), (0.1, 0.9))
    for sequence, (limit_deg, precision) in zip(document["sequences"], limits, strict=True):
        (result,) = sequence["results"]
        error_deg = result["pose"]["1"]["median_rotation_deg"]
        report_figure(f"{sequence['name']} in its layout, 4 images, lk: median rotation error {error_deg:.3f} deg")
        assert error_deg < limit_deg
        assert result["precision"]["1"] > precision


def _kitti(folder: Path, root: Path) -> Path:
    files = sorted(folder.glob("*.png"))[:6]
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 3, 4)[:6]
    return write_layout(
        "KITTI odometry",
        root,
        Flight(
            [np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), np.uint8) for file in files],
            [round(1e9 * float(line)) for line in (folder / "times.txt").read_text().split()[:6]],
            [np.vstack([pose, [0, 0, 0, 1]]) for pose in poses],
            (718.856, 718.856, 607.1928, 185.2157),
        ),
    )


def _tum(folder: Path, root: Path) -> Path:
    """Of the files of the sequence, only the list of images is not there."""
    target = root / "tum"
    (target / "rgb").mkdir(parents=True)
    files = sorted(folder.glob("*.png"))
    for file in files:
        (target / "rgb" / file.name).symlink_to(file)
    (target / "rgb.txt").write_text("".join(f"{file.stem} rgb/{file.name}\n" for file in files))
    for name in ("groundtruth.txt", "camera.yaml"):
        (target / name).symlink_to(folder / name)
    return target
