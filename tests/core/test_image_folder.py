"""Real-world folders: stamps in files next to the images, several cameras, arbitrary file names."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SourceError
from feature_frontend.image.image_file import encode_file
from feature_frontend.sources import PlaybackSettings, open_source, schedule
from feature_frontend.sources.image_folder import stamp_from_name, stamps_from_names
from feature_frontend_lab.export.colmap_database import ColmapDatabase, guessed_camera
from feature_frontend_lab.rendering.camera import Camera
from tests.image_files import encoded, with_orientation

SECOND = 1_000_000_000
GREY = np.add.outer(np.arange(24), np.arange(32)).astype(np.uint8) * 4
DEPTH = GREY.astype(np.uint16) * 30


def write(folder: Path, *names: str, samples: npt.NDArray[Any] = GREY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        encode_file(folder / name, samples)
    return folder


def names_and_stamps(folder: Path) -> list[tuple[str, int | None]]:
    return [(frame.name, frame.stamp_ns) for frame in open_source(str(folder)).frames()]


@pytest.mark.parametrize(
    ("names", "stamps"),
    [
        # Seconds of a date restart each minute: taken for times, they would change the order.
        (["2023-11-14_22-13-59.900.png", "2023-11-14_22-14-00.000.png"], [None, None]),
        (["cam_22:13:59.9.png", "cam_22:14:00.0.png"], [None, None]),
        (
            ["cam_0_1311868169.5.png", "cam_0_1311868169.6.png"],
            [1_311_868_169_500_000_000, 1_311_868_169_600_000_000],
        ),
        # Later than a stamp can say.
        (["9999999999_000000000.png", "9999999999_100000000.png"], [None, None]),
        (["99999999999.5.png", "99999999999.6.png"], [None, None]),
    ],
)
def test_names_that_are_no_times(tmp_path: Path, names: list[str], stamps: list[int | None]) -> None:
    assert names_and_stamps(write(tmp_path, *names)) == list(zip(names, stamps, strict=True))


class TestTimesBeside:
    def test_kitti_odometry(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "image_0", "000000.png", "000001.png", "000010.png")
        (tmp_path / "times.txt").write_text("0.000000e+00\n1.036224e-01\n2.072448e-01\n")
        assert names_and_stamps(folder) == [
            ("000000.png", 0),
            ("000001.png", 103_622_400),
            ("000010.png", 207_244_800),
        ]
        source = open_source(str(folder))
        assert source.stamp_origin == "file of times"
        with pytest.raises(SourceError, match=r"file of times.* source, index or clock"):
            next(schedule(source, PlaybackSettings(stamps="name")))

    def test_part_of_a_sequence_takes_the_lines_of_its_numbers(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "image_0", "000003.png", "000001.png")
        (folder / "times.txt").write_text("0\n0.5\n1\n1.5\n2\n")
        assert names_and_stamps(folder) == [("000001.png", SECOND // 2), ("000003.png", 3 * SECOND // 2)]

    def test_kitti_raw_has_dates(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "image_00" / "data", "0000000000.png", "0000000001.png")
        lines = "2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.067\n"
        (tmp_path / "image_00" / "timestamps.txt").write_text(lines)
        first = 1_317_042_145 * SECOND + 964_389_445
        assert [stamp for _, stamp in names_and_stamps(folder)] == [first, 1_317_042_146 * SECOND + 67_000_000]

    @pytest.mark.parametrize(
        ("place", "text"),
        [
            ("rgb.txt", "# color images\n# timestamp filename\n1311868164.36 rgb/b.png\n1311868164.40 rgb/a.png\n"),
            ("rgb/times.txt", "a 1311868164.40 0.01\nb 1311868164.36 0.02\n"),
            ("rgb/data.csv", "#timestamp [ns],filename\n1311868164360000000,b.png\n1311868164400000000,a.png\n"),
            ("timestamps.txt", "1311868164360 b.png\r\n1311868164400 a.png\r\n1311868164500 c.png\r\n"),
        ],
    )
    def test_files_that_name_the_images(self, place: str, text: str, tmp_path: Path) -> None:
        folder = write(tmp_path / "rgb", "a.png", "b.png")
        (tmp_path / place).write_text(text)
        stamp_ns = 1_311_868_164 * SECOND
        # In the order of time, not of names.
        assert names_and_stamps(folder) == [("b.png", stamp_ns + 360_000_000), ("a.png", stamp_ns + 400_000_000)]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0\n1\n2\n", "3 times for 2 images"),
            ("0\nnoon\n", "'noon'"),
            ("0\n0\n", "the same time"),
            ("a 1.5\n", "1 of 2 images"),
            ("0 1\n1 1\n", "names none of the images"),
            ("", "holds no times"),
        ],
    )
    def test_a_file_that_does_not_fit_is_said_and_not_used(
        self, text: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = write(tmp_path / "s", "a.png", "b.png")
        (folder / "times.txt").write_text(text)
        assert names_and_stamps(folder) == [("a.png", None), ("b.png", None)]
        (warning,) = caplog.messages
        assert str(folder / "times.txt") in warning
        assert reason in warning

    def test_names_that_are_times_win(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", "1.5.png", "2.5.png")
        (folder / "times.txt").write_text("7\n8\n")
        assert [stamp for _, stamp in names_and_stamps(folder)] == [3 * SECOND // 2, 5 * SECOND // 2]


class TestNames:
    @pytest.mark.parametrize("separator", ["_", "-"])
    def test_seconds_and_nanoseconds(self, separator: str) -> None:
        assert stamp_from_name(f"1311868164{separator}363181000") == 1_311_868_164_363_181_000
        assert stamp_from_name(f"left_1311868164{separator}063181000") == 1_311_868_164_063_181_000
        # Without leading zeros they are known by their neighbours only.
        assert stamp_from_name(f"1311868164{separator}36318100") is None
        names = [f"1311868164{separator}963181000", f"1311868165{separator}3181000", f"1311868165{separator}103181000"]
        expected = [1_311_868_164_963_181_000, 1_311_868_165_003_181_000, 1_311_868_165_103_181_000]
        assert stamps_from_names(names) == expected
        assert stamps_from_names([f"1311868164{separator}0001", f"1311868164{separator}0002"]) is None

    @pytest.mark.parametrize(
        ("stem", "stamp_ns"),
        [
            ("out_Color_1538662397283.5", 1_538_662_397_283_500_000),
            ("1403636579763555.25", 1_403_636_579_763_555_250),
            ("20230512_101500", None),
            ("IMG_20230512_101500123", None),
        ],
    )
    def test_other_units_and_dates(self, stem: str, stamp_ns: int | None) -> None:
        assert stamp_from_name(stem) == stamp_ns

    def test_an_assumed_rate_is_said_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = write(tmp_path / "s", "a.png", "b.png", "c.png")
        assert [frame.stamp_ns for frame in schedule(open_source(str(folder)), PlaybackSettings())][1] == SECOND // 10
        (warning,) = caplog.messages
        assert re.search("10 Hz .*--rate HZ", warning)
        caplog.clear()
        for settings in (
            PlaybackSettings(rate_hz=5),
            PlaybackSettings(stamps="index"),
            PlaybackSettings(stamps="clock"),
        ):
            assert len(list(schedule(open_source(str(folder)), settings))) == 3
        assert len(list(schedule(open_source(str(folder / "a.png")), PlaybackSettings()))) == 1
        assert not caplog.messages

    def test_names_that_are_no_utf8(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xcd\xbc"))
        folder.mkdir()
        encode_file(folder / os.fsdecode(b"\xd5\xd5\xc6\xac1.png"), GREY)
        encode_file(folder / os.fsdecode(b"\xd5\xd5\xc6\xac2.png"), GREY)
        source = open_source(str(folder))
        frames = list(source.frames())
        assert [frame.name for frame in frames] == [rf"\xd5\xd5Ƭ{number}.png" for number in (1, 2)]
        assert source.description.endswith(r"/ͼ") or source.description.endswith(r"/\xcd\xbc")
        np.testing.assert_array_equal(frames[0].samples, GREY)
        assert len(caplog.messages) == 1
        with ColmapDatabase(tmp_path / "database.db") as database:
            camera = database.add_camera(guessed_camera(24, 32))
            for frame in frames:
                database.add_image(frame.name, camera, np.zeros((0, 2), np.float32))
        names = sqlite3.connect(tmp_path / "database.db").execute("select name from images").fetchall()
        assert names == [(frame.name,) for frame in frames]


class TestCalibration:
    def test_a_camera_yaml_among_the_images(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "drive", "0.png", "1.png")
        assert not open_source(str(folder)).has_camera
        camera = Camera.with_field_of_view(75, height=24, width=32)
        (folder / "camera.yaml").write_text(camera.as_yaml(), encoding="utf-8")
        source = open_source(str(folder))
        assert source.has_camera
        for frame in source.frames():
            assert frame.camera is not None
            np.testing.assert_allclose(np.reshape(frame.camera.camera_matrix, (3, 3)), camera.matrix, rtol=1e-6)
        # One image by its path is no folder.
        assert not open_source(str(folder / "0.png")).has_camera

    def test_one_that_cannot_be_read_is_named(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = write(tmp_path / "drive", "0.png")
        (folder / "camera.yaml").write_text("a: 1", encoding="utf-8")
        source = open_source(str(folder))
        assert [frame.camera for frame in source.frames()] == [None]
        (warning,) = caplog.messages
        assert "camera.yaml" in warning
        assert "--camera-info" in warning


class TestSeveralStreams:
    def test_depth_by_name_is_left_out_and_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = write(tmp_path / "s", "frame-0.color.png", "frame-1.color.png")
        write(folder, "frame-0.depth.png", "frame-1.depth.png", samples=DEPTH)
        assert [name for name, _ in names_and_stamps(folder)] == ["frame-0.color.png", "frame-1.color.png"]
        (warning,) = caplog.messages
        assert "2 of the image files" in warning
        assert "depth images by their names (frame-" in warning

    def test_depth_between_pictures_is_known_by_its_bits(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = write(tmp_path / "s", "1311868164.36.png", "1311868164.40.png")
        write(folder, "1311868164.37.png", samples=DEPTH)
        write(folder, "1311868164.38.tiff", samples=DEPTH.astype(np.float32))
        write(folder, "1311868164.39.pgm", samples=DEPTH)
        assert [name for name, _ in names_and_stamps(folder)] == ["1311868164.36.png", "1311868164.40.png"]
        assert "3 of the image files" in caplog.text

    @pytest.mark.parametrize("names", [("depth_1.png", "depth_2.png"), ("1.png", "2.png")])
    def test_a_folder_of_depth_alone_is_played(self, names: tuple[str, ...], tmp_path: Path) -> None:
        folder = write(tmp_path / "s", *names, samples=DEPTH)
        frames = list(open_source(str(folder)).frames())
        assert [frame.name for frame in frames] == list(names)
        np.testing.assert_array_equal(frames[0].samples, DEPTH)

    @pytest.mark.parametrize(
        ("one", "other"),
        [("left_{}", "right_{}"), ("img_L_{}", "img_R_{}"), ("cam0_{}", "cam1_{}"), ("{}-camera_1-2", "{}-camera_2-2")],
    )
    def test_cameras_are_not_guessed(self, one: str, other: str, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", *(f"{name.format(number)}.png" for name in (one, other) for number in (0, 1)))
        with pytest.raises(SourceError, match=r"2 cameras .*2 of .+, 2 of .+;"):
            open_source(str(folder))
        write(folder, "top_0.png")
        assert open_source(str(folder)).frame_count == 5

    def test_a_number_behind_cam_may_be_the_image_s(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", *(f"cam{number}.png" for number in range(3)))
        assert open_source(str(folder)).frame_count == 3


class TestOtherFiles:
    def test_metadata_of_another_program_makes_no_bag(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "s", "0.png", "1.png")
        for text in ("camera: some make\nfps: 20\n", "", "rosbag: no\n"):
            (folder / "metadata.yaml").write_text(text)
            assert len(names_and_stamps(folder)) == 2

    def test_jpeg_under_the_name_of_heic_is_read_and_heic_is_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "s"
        folder.mkdir()
        (folder / "IMG_0001.HEIC").write_bytes(encoded(GREY, ".jpg"))
        (folder / "IMG_0002.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        assert [name for name, _ in names_and_stamps(folder)] == ["IMG_0001.HEIC"]
        assert "1 .heic files in" in caplog.text
        (folder / "IMG_0001.HEIC").unlink()
        with pytest.raises(SourceError, match=r"1 \.heic files.* convert"):
            open_source(str(folder))

    def test_an_orientation_is_said_once_and_pixels_are_as_stored(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "s"
        folder.mkdir()
        plain = encoded(GREY, ".jpg")
        for index in range(3):
            (folder / f"{index}.jpg").write_bytes(with_orientation(plain, ".jpg", 6))
        expected = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
        for frame in open_source(str(folder)).frames():
            np.testing.assert_array_equal(frame.image, expected)
        (warning,) = caplog.messages
        assert warning.startswith("0.jpg has EXIF orientation 6")

    def test_half_of_a_picture_is_refused_in_its_place(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = tmp_path / "s"
        folder.mkdir()
        data = encoded(GREY, ".jpg")
        for index in range(3):
            (folder / f"{index}.jpg").write_bytes(data if index != 1 else data[: len(data) // 2])
        with caplog.at_level(logging.WARNING):
            assert [frame.index for frame in open_source(str(folder)).frames()] == [0, 2]
        assert "1.jpg: image ends after" in caplog.text


class TestVideos:
    @staticmethod
    def written(path: Path, fourcc: str = "mp4v", deep: npt.NDArray[np.uint16] | None = None) -> Path:
        frames = [np.full((48, 64, 3), 60 * index, np.uint8) for index in range(4)] if deep is None else [deep] * 3
        parameters = [cv2.VIDEOWRITER_PROP_IS_COLOR, int(deep is None), cv2.VIDEOWRITER_PROP_DEPTH]
        parameters.append(cv2.CV_8U if deep is None else cv2.CV_16U)
        code = cv2.VideoWriter.fourcc(*fourcc)
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10, frames[0].shape[1::-1], parameters)
        if not writer.isOpened():
            pytest.skip(f"this OpenCV writes no {fourcc} videos of this kind")
        for frame in frames:
            writer.write(frame)
        writer.release()
        return path

    def test_names_of_any_kind(self, tmp_path: Path) -> None:
        data = self.written(tmp_path / "v.mp4").read_bytes()
        for name in (b"f\xfcr.mp4", b"2019-10-02_12:30.mp4", b"100%d.mp4", b"a b?.mp4", "天.mp4".encode()):
            path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
            path.write_bytes(data)
            frames = list(open_source(str(path)).frames())
            assert [frame.stamp_ns for frame in frames] == [0, SECOND // 10, SECOND // 5, SECOND * 3 // 10]
            assert frames[0].name.encode().startswith(b"frame 0 of ")

    def test_a_relative_name_with_a_colon_is_no_url(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.move(self.written(tmp_path / "v.mp4"), tmp_path / "12:30.mp4")
        monkeypatch.chdir(tmp_path)
        assert len(list(open_source("12:30.mp4").frames())) == 4

    def test_a_rotation_is_not_applied_and_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = self.written(tmp_path / "v.mp4")
        stored = [frame.samples for frame in open_source(str(path)).frames()]
        data = bytearray(path.read_bytes())
        # The matrix of the track's header, behind its version, times, ids and volume.
        place = data.index(b"tkhd") + 44
        unit = 1 << 16
        assert int.from_bytes(data[place : place + 4], "big") == unit
        for offset, value in ((0, 0), (4, unit), (12, -unit), (16, 0)):
            data[place + offset : place + offset + 4] = (value & 0xFFFFFFFF).to_bytes(4, "big")
        path.write_bytes(data)
        source = open_source(str(path))
        for frame, expected in zip(source.frames(), stored, strict=True):
            np.testing.assert_array_equal(frame.samples, expected)
        list(source.frames())
        (warning,) = caplog.messages
        assert "90 degrees" in warning

    def test_a_variable_frame_rate(self, tmp_path: Path) -> None:
        path = self.written(tmp_path / "v.mp4")
        data = bytearray(path.read_bytes())
        # One entry of the table of times, (4, d), becomes (1, d) for all but the second frame, (1, d / 2) for it.
        place = data.index(b"stts")
        entry = data[place + 12 : place + 20]
        assert int.from_bytes(data[place + 8 : place + 12], "big") == 1
        step = int.from_bytes(entry[4:], "big")
        table = b"".join(n.to_bytes(4, "big") + d.to_bytes(4, "big") for n, d in ((1, step), (1, step // 2), (2, step)))
        data[place + 8 : place + 20] = (3).to_bytes(4, "big") + table
        for name in (b"stts", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
            at = data.index(name) - 4
            data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 16).to_bytes(4, "big")
        path.write_bytes(data)
        stamps = [frame.stamp_ns for frame in open_source(str(path)).frames()]
        assert stamps == [0, SECOND // 10, SECOND * 15 // 100, SECOND * 25 // 100]

    def test_sixteen_bits_stay(self, tmp_path: Path) -> None:
        deep = (np.add.outer(np.arange(48), np.arange(64)) * 97 + 7000).astype(np.uint16)
        path = self.written(tmp_path / "v.avi", "FFV1", deep)
        frames = list(open_source(str(path)).frames())
        assert len(frames) == 3
        for frame in frames:
            np.testing.assert_array_equal(frame.samples, deep)
