"""Datasets in the layouts of EuRoC, TUM RGB-D and KITTI, and folders that are nearly one."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feature_frontend.errors import SourceError
from feature_frontend.sources import ImuNoise, imu_of, open_source
from feature_frontend.sources.base import Frame, UnreadableFrame
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.datasets.layouts import LAYOUTS, open_dataset
from feature_frontend.sources.image_folder import ImageFolderSource
from feature_frontend.sources.imu import gaps_between
from feature_frontend.sources.registry import missing_of
from tests.datasets import BODY_FROM_CAMERA, RIGHT_SHIFT_M, imu_rows, noise_flight, write_layout

FLIGHT = noise_flight()
NAMES = [layout.layout for layout in LAYOUTS]


@pytest.mark.parametrize("layout", NAMES)
def test_images_stamps_and_calibration_are_found(layout: str, tmp_path: Path) -> None:
    folder = write_layout(layout, tmp_path, FLIGHT)
    source = open_source(str(folder))
    assert isinstance(source, DatasetSource)
    frames = list(source.frames())
    expected_ns = list(FLIGHT.stamps_ns)
    if layout == "KITTI odometry":  # whose times begin at 0, and have 7 digits
        expected_ns = [
            stamp_ns - expected_ns[0] for stamp_ns in [1_403_636_579_763_555_584 + 50_000_000 * i for i in range(4)]
        ]
    assert [frame.stamp_ns for frame in frames] == expected_ns
    for frame, image in zip(frames, FLIGHT.images, strict=True):
        np.testing.assert_array_equal(frame.samples, image)
        assert frame.camera is not None
        assert (frame.camera.camera_matrix[0], frame.camera.camera_matrix[4]) == (60.0, 61.0)
        assert frame.camera.image_size == (48, 64)
    assert source.description.endswith(f" ({layout})")
    assert (source.frame_count, source.has_camera, missing_of(source)) == (4, True, [])
    assert [frame.index for frame in source.frames(start=3)] == [3]
    # A relative path, and one through a symbolic link of another name.
    (tmp_path / "link").symlink_to(folder)
    assert open_source(str(tmp_path / "link")).frame_count == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert open_dataset(Path(".")).name == source.name


def test_the_places_that_mean_an_euroc_sequence(tmp_path: Path) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    for place in ("", "mav0", "mav0/cam0"):
        source = open_dataset(root / place)
        assert (source.name, source.folder.name, next(source.frames()).frame_id) == ("V1_01_easy", "cam0", "cam0")
        assert imu_of(source) is not None
    assert open_dataset(root / "mav0" / "cam1").folder.name == "cam1"
    # Its images alone are a folder of images, as ever.
    plain = open_source(str(root / "mav0" / "cam0" / "data"))
    assert isinstance(plain, ImageFolderSource)
    assert (plain.stamp_origin, plain.has_camera, imu_of(plain)) == ("file name", False, None)


def test_the_imu_of_euroc(tmp_path: Path) -> None:
    source = open_dataset(write_layout("EuRoC", tmp_path, FLIGHT))
    imu = source.imu
    assert imu is not None
    rows = imu_rows(FLIGHT)
    assert imu.stamps_ns.tolist() == [stamp_ns for stamp_ns, _ in rows]
    np.testing.assert_array_equal(np.hstack([imu.angular_velocity, imu.linear_acceleration]), [row for _, row in rows])
    np.testing.assert_array_equal(imu.body_from_camera, BODY_FROM_CAMERA)
    assert imu.noise == ImuNoise(2e-4, 3e-5, 4e-3, 5e-3)
    assert imu.frame_id == "imu0"


def test_the_pose_of_an_imu_that_is_not_the_body(tmp_path: Path) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    file = root / "mav0" / "imu0" / "sensor.yaml"
    shifted = "[1.0, 0.0, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]"
    file.write_text(file.read_text().replace(str([float(value) for value in np.eye(4).ravel()]), shifted))
    imu = open_dataset(root).imu
    assert imu is not None
    expected = BODY_FROM_CAMERA.copy()
    expected[0, 3] -= 0.3
    np.testing.assert_allclose(imu.body_from_camera, expected, atol=1e-12)


def test_the_poses_of_cameras_of_kitti_are_those_of_the_first_one_shifted(tmp_path: Path) -> None:
    source = open_dataset(write_layout("KITTI odometry", tmp_path, FLIGHT))
    assert source.poses is not None
    assert source.poses.path == tmp_path / "dataset" / "poses" / "07.txt"
    assert source.poses.frame_from_camera[0, 3] == pytest.approx(RIGHT_SHIFT_M)
    assert source.poses.lines == (0, 1, 2, 3)


def test_raw_images_of_kitti_before_their_rectification(tmp_path: Path) -> None:
    flight = noise_flight()
    images = [np.pad(image, ((0, 10), (0, 10))) for image in flight.images]
    folder = write_layout("KITTI raw", tmp_path, flight)
    for file, image in zip(sorted((folder / "image_00" / "data").iterdir()), images, strict=True):
        file.write_bytes(b"P5 74 58 255\n" + image.tobytes())
    camera = open_dataset(folder).camera
    assert camera is not None
    assert (camera.image_size, camera.camera_matrix[0]) == ((58, 74), 61.0)
    assert camera.distortion_coefficients == (-0.37, 0.2, 0.001, 0.002, -0.07)


Damage = Callable[[Path], object]


def _remove(name: str) -> Damage:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def _replace(name: str, old: str, new: str) -> Damage:
    def replace(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_bytes(text.replace(old, new).encode())

    return replace


def _write(name: str, text: str) -> Damage:
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("layout", "damage", "expected"),
    [
        ("EuRoC", _remove("mav0/cam0/data.csv"), "cam0 has no data.csv, which lists the images .* play .*cam0/data as"),
        ("EuRoC", _remove("mav0/cam0/data"), "cam0 has no folder data; expected the images there"),
        ("EuRoC", _write("mav0/cam0/data.csv", ""), r"data.csv has no line such as 14036.*: it has none"),
        ("EuRoC", _write("mav0/cam0/data.csv", "stamp,name\n1.5e9,a.png\n"), "no line such as .*: line 2 is '1.5e9,a"),
        ("TUM RGB-D", _remove("rgb.txt"), "freiburg2_desk has no rgb.txt, which lists the images .* play .*/rgb as"),
        ("TUM RGB-D", _write("rgb.txt", "# nothing\n"), "rgb.txt has no line such as 1311868164.363181 rgb/13"),
        ("KITTI odometry", _remove("times.txt"), "07 has no times.txt with the time of each image; .* play .*/image_2"),
        ("KITTI odometry", _write("times.txt", "0\n1\n"), "times.txt has 2 times for 4 images"),
        (
            "KITTI odometry",
            _remove("image_2"),
            "07 has no images; expected them in one of the folders image_0, image_1, ",
        ),
        ("KITTI raw", _remove("image_00/data"), "image_00/data contains no images; expected those of the camera"),
        ("KITTI raw", _remove("image_00/timestamps.txt"), "image_00 has no timestamps.txt with the time of each image"),
    ],
)
def test_an_essential_part_that_is_missing_is_named(layout: str, damage: Damage, expected: str, tmp_path: Path) -> None:
    root = write_layout(layout, tmp_path, FLIGHT)
    damage(root)
    with pytest.raises(SourceError, match=expected):
        open_source(str(root))


def test_a_sequence_without_a_camera(tmp_path: Path) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    for camera in ("cam0", "cam1"):
        shutil.rmtree(root / "mav0" / camera)
    with pytest.raises(SourceError, match=r"mav0 has no camera; expected a folder cam0 with data.csv, sensor.yaml and"):
        open_source(str(root))
    with pytest.raises(SourceError, match="has none of the layouts EuRoC, TUM RGB-D, KITTI odometry, KITTI raw"):
        open_dataset(tmp_path)


SECOND_STAMP = str(FLIGHT.stamps_ns[1])


@pytest.mark.parametrize(
    ("layout", "damage", "expected"),
    [
        ("EuRoC", _remove("mav0/cam0/sensor.yaml"), "no calibration is found: there is no calibration file .*cam0/sen"),
        (
            "EuRoC",
            _replace("mav0/cam0/sensor.yaml", ": pinhole", ": omni"),
            "no cal.*camera_model .omni.; expected pinhole",
        ),
        ("EuRoC", _write("mav0/cam0/sensor.yaml", "a: [\n"), "no calibration is found: .*sensor.yaml.*not valid YAML"),
        ("EuRoC", _remove("mav0/imu0"), "the IMU is left out: there is no .*mav0/imu0/data.csv"),
        ("EuRoC", _remove("mav0/imu0/sensor.yaml"), "there is no .*: imu0 is taken to be the frame of the body"),
        ("EuRoC", _write("mav0/imu0/data.csv", "#\n1,2,3\n"), "the IMU is left out: .* no line of stamp .* is '1,2,3'"),
        (
            "EuRoC",
            _write("mav0/imu0/data.csv", "1,0,1,2,3,4,5,6\n2,0,1,2,3,4,5,6\n"),
            "the IMU is left out: .* no line of stamp .*; expected|no line of stamp .* is '1,0,1,2",
        ),
        (
            "EuRoC",
            _replace("mav0/imu0/sensor.yaml", "2.0e-04", "-2.0e-04"),
            "the IMU is left out: .*imu0/sensor.yaml: gyroscope_noise_density of .* is -0.0002; expected a density",
        ),
        (
            "EuRoC",
            _replace("mav0/imu0/sensor.yaml", "2.0e-04", ".nan"),
            "the IMU is left out: .*imu0/sensor.yaml: gyroscope_noise_density of .* is nan; expected a finite number",
        ),
        (
            "EuRoC",
            _write("mav0/imu0/data.csv", "1403636579,1,2,3,4,5,6\n1403636580,1,2,3,4,5,6\n"),
            "imu0/data.csv has no measurement between the first image, at 14036.*: it has those of 1403636579 to",
        ),
        (
            "EuRoC",
            _replace("mav0/imu0/sensor.yaml", "[1.0", "[2.0"),
            "the IMU is left out: .*imu0/sensor.yaml: T_BS is no pose",
        ),
        (
            "EuRoC",
            _replace("mav0/cam0/sensor.yaml", "T_BS", "T"),
            "the IMU is left out: .*sensor.yaml: is a .*, in which T_BS is miss",
        ),
        ("EuRoC", _replace("mav0/cam0/sensor.yaml", "[64,", "[65,"), "is 64x48 px, but the calibration is for 65x48"),
        (
            "EuRoC",
            _write("mav0/cam0/data/9.png", "x"),
            "1 of the images in .*data left out, as data.csv does not list .*9",
        ),
        (
            "TUM RGB-D",
            _remove("camera.yaml"),
            "no calibration is found: there is no calibration file .*camera.yaml; --cam",
        ),
        (
            "EuRoC",
            _write("mav0/cam0/data.csv", "".join(f"{stamp},{FLIGHT.stamps_ns[0]}.png\n" for stamp in FLIGHT.stamps_ns)),
            "3 lines of .*data.csv name an image that another line names, too",
        ),
        (
            "EuRoC",
            lambda root: [shutil.rmtree(root / "mav0" / "cam0"), (root / "mav0" / "cam0").mkdir()],
            "cam1 is taken: cam0 has no data.csv and no folder data",
        ),
        ("KITTI odometry", _remove("calib.txt"), "no calibration is found: there is no calibration file .*calib.txt"),
        ("KITTI odometry", _replace("calib.txt", "P2", "P5"), "KITTI with P0, P1, P3; it has no 'P2'"),
        ("KITTI odometry", _remove("image_2/000002.png"), "image_2 lacks 1 of the images 0 to 3, the first of them 2"),
        ("KITTI raw", _remove("../calib_cam_to_cam.txt"), "no calibration .*2011_09_26/calib_cam_to_cam.txt"),
    ],
)
def test_a_part_that_is_not_essential_is_named_and_done_without(
    layout: str, damage: Damage, expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_layout(layout, tmp_path, FLIGHT)
    damage(root)
    source = open_source(str(root))
    count = sum(1 for _ in source.frames())
    imu_of(source)
    assert count == (3 if "lacks" in expected else 4)
    # Without the camera's sensor.yaml, there is no pose of the IMU either.
    assert 1 <= len(caplog.messages) <= 2
    assert any(re.search(expected, message) for message in caplog.messages), caplog.messages
    caplog.clear()
    list(source.frames())
    imu_of(source)
    assert caplog.messages == []


def test_lists_as_people_have_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Windows line ends, blank lines, a header without "#", spaces, a byte order mark, another order, a path, tabs."""
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    stamps = FLIGHT.stamps_ns
    rows = ["timestamp [ns],filename", *(f" {stamps[i]} , data\\{stamps[i]}.png ,," for i in (1, 0, 3, 2)), "", " ", ""]
    (root / "mav0" / "cam0" / "data.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    assert [frame.stamp_ns for frame in open_source(str(root)).frames()] == list(stamps)
    table = root / "mav0" / "cam0" / "data.csv"
    assert caplog.messages == [f"the lines of {table} are not in the order of their stamps, in which they are taken"]
    table.write_text("\n".join(['"#timestamp [ns]","filename"', *(f"{stamp},{stamp}.png" for stamp in stamps)]))
    assert missing_of(open_source(str(root))) == [] == caplog.messages[1:]
    table = write_layout("TUM RGB-D", tmp_path, FLIGHT) / "rgb.txt"
    table.write_text(table.read_text().replace(" rgb/", "\trgb/"))
    assert [frame.stamp_ns for frame in open_source(str(table.parent)).frames()] == list(stamps)


def test_lines_that_cannot_be_read_are_lost_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    stamps = FLIGHT.stamps_ns
    rows = ["#", *(f"{stamp_ns},{stamp_ns}.png" for stamp_ns in stamps[:3])]
    rows += [
        f"{stamps[0]},another.png",
        "../../x",
        f"{stamps[3]},/",
        "-1,a.png",
        "9999999999999999999,a.png",
        str(stamps[3])[:9],
    ]
    (root / "mav0" / "cam0" / "data.csv").write_text("\n".join(rows))
    source = open_source(str(root))
    with caplog.at_level(logging.WARNING):
        assert [frame.stamp_ns for frame in source.frames()] == list(stamps[:3])
    (missing,) = missing_of(source)
    assert missing.startswith("5 lines, the first of them 6, of ")
    assert "data.csv cannot be read ('../../x'); expected lines such as 1403636579763555584," in missing
    assert missing in caplog.messages
    assert any(
        "line 5 of" in message and "left out, with the stamp of an earlier" in message for message in caplog.messages
    )
    assert any("does not list" in message and str(stamps[3]) in message for message in caplog.messages)


def test_measurements_that_cannot_be_read_are_lost_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    file = root / "mav0" / "imu0" / "data.csv"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, rows[1], rows[0], *rows[2:], "1403636579999555584,1,2,nan,4,5,6", "14036"]))
    source = open_dataset(root)
    assert source.imu is not None
    assert source.imu.stamps_ns.tolist() == [stamp_ns for stamp_ns, _ in imu_rows(FLIGHT)]
    assert any("2 lines, the first of them 41, of" in sentence for sentence in missing_of(source))
    assert any("not in the order of their stamps" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("layout", "name", "scale"),
    [
        ("EuRoC", "mav0/cam0/data.csv", 1e-3),
        ("EuRoC", "mav0/cam0/data.csv", 1e-6),
        ("KITTI odometry", "times.txt", 1e9),
        ("KITTI odometry", "times.txt", 1e6),
    ],
)
def test_times_in_another_unit_are_told(
    layout: str, name: str, scale: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_layout(layout, tmp_path, FLIGHT)
    table = root / name
    rows = [line.split(",") for line in table.read_text().splitlines() if line[0].isdigit()]
    table.write_text("\n".join(",".join([str(round(float(row[0]) * scale)), *row[1:]]) for row in rows))
    list(open_source(str(root)).frames())
    assert any(
        re.search(rf"by {re.escape(str(table))} the images are .* s apart; if they are not, its times are in ano", text)
        for text in caplog.messages
    )


def test_a_gap_of_the_imu_is_told() -> None:
    images = range(0, 2_000_000_000, 50_000_000)
    stamps = [stamp for stamp in range(-20_000_000, 2_100_000_000, 5_000_000) if not 5e8 < stamp < 9e8]
    assert gaps_between(stamps, images) == [
        "1 gap of over 0.1 s while there are images, the longest of 0.4 s from 500000000 ns on; estimators may lose "
        "track there"
    ]
    assert gaps_between([stamp for stamp in stamps if stamp < 15e8], images)[0].startswith("2 gaps of over 0.1 s")
    assert gaps_between(range(0, 2_000_000_000, 100_000_000), images) == []
    assert gaps_between(stamps, [0]) == []


def test_an_image_that_is_listed_and_missing_keeps_its_place(tmp_path: Path) -> None:
    root = write_layout("EuRoC", tmp_path, FLIGHT)
    gone = root / "mav0" / "cam0" / "data" / f"{FLIGHT.stamps_ns[1]}.png"
    gone.unlink()
    source = open_dataset(root)
    found = list(source.attempts())
    assert [type(frame) for frame in found] == [Frame, UnreadableFrame, Frame, Frame]
    lost = found[1]
    assert isinstance(lost, UnreadableFrame)
    assert (lost.name, lost.stamp_ns, lost.is_lost) == (gone.name, FLIGHT.stamps_ns[1], True)
    assert "No such file" in lost.reason
    assert [frame.index for frame in source.frames()] == [0, 2, 3]
    (missing,) = missing_of(source)
    assert gone.name in missing


def test_a_folder_with_the_name_of_an_image_is_none(tmp_path: Path) -> None:
    root = write_layout("KITTI odometry", tmp_path, FLIGHT)
    (root / "image_2" / "000000.png").rename(root / "image_2" / "000000.PNG")
    (root / "image_2" / "old.png").mkdir()
    assert open_source(str(root)).frame_count == 4


def test_folders_of_images_stay_what_they_were(tmp_path: Path) -> None:
    """Images beside files and folders of a dataset, but not in its layout."""
    image = write_layout("EuRoC", tmp_path / "e", FLIGHT) / "mav0" / "cam0" / "data" / f"{FLIGHT.stamps_ns[0]}.png"
    for number, others in enumerate(
        (
            ["rgb.txt", "groundtruth.txt", "camera.yaml"],
            ["rgb/", "groundtruth.txt"],
            ["times.txt", "calib.txt"],
            ["image_0/", "image_1/"],
            ["data/", "cam0/data/"],
            ["data.csv", "sensor.yaml"],
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("1.5.png", "2.5.png"):
            shutil.copy(image, folder / name)
        for other in others:
            (folder / other).mkdir(parents=True) if other.endswith("/") else (folder / other).write_text("x")
        source = open_source(str(folder))
        assert isinstance(source, ImageFolderSource), others
        assert [frame.stamp_ns for frame in source.frames()] == [1_500_000_000, 2_500_000_000]


def test_real_sequences(shared: Path) -> None:
    source = open_source(str(shared / "data" / "euroc_v101"))
    frames = list(source.frames())
    lines = (shared / "data" / "euroc_v101" / "mav0" / "cam0" / "data.csv").read_text().split()
    assert [frame.stamp_ns for frame in frames] == [int(line.split(",")[0]) for line in lines if line[0].isdigit()]
    imu = imu_of(source)
    assert imu is not None
    assert 199 < 1e9 / float(np.median(np.diff(imu.stamps_ns))) < 201
    # The drone stands or hovers: gravity is most of what the accelerometer measures.
    assert np.linalg.norm(imu.linear_acceleration.mean(axis=0)) == pytest.approx(9.81, abs=0.3)
    assert all(
        isinstance(open_source(str(shared / "data" / name)), ImageFolderSource) for name in ("kitti00", "tum_fr2_desk")
    )
