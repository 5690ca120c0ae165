"""Image sources and their timeline, on real files written by the tests."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SourceError
from feature_frontend.image.intensity import IntensityRange
from feature_frontend.sources import Frame, PlaybackSettings, SourceOptions, open_source, schedule
from feature_frontend.sources.image_folder import natural_key, stamp_from_name
from feature_frontend.sources.registry import missing_of
from feature_frontend.sources.webcam import WebcamSource

HEIGHT, WIDTH = 24, 36


def colour_image(index: int = 0) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB, red rising to the right and blue downwards, different for each index."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, WIDTH, dtype=np.uint8)
    image[..., 1] = index
    image[..., 2] = np.linspace(0, 255, HEIGHT, dtype=np.uint8)[:, None]
    return image


def write_image(path: Path, rgb: npt.NDArray[Any]) -> None:
    assert cv2.imwrite(str(path), rgb[..., ::-1] if rgb.ndim == 3 else rgb)


def write_folder(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        write_image(folder / name, colour_image(index))
    return folder


def write_video(path: Path, fourcc: str, count: int = 12, rate_hz: float = 25.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), rate_hz, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {fourcc} videos")
    for index in range(count):
        writer.write(np.full((48, 64, 3), index * 20, np.uint8))
    writer.release()
    return path


class TestImageFolder:
    def test_natural_order_and_no_stamps(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "s", ["frame10.png", "frame2.png", "frame1.PNG"])
        frames = list(open_source(str(tmp_path / "s")).frames())
        assert [frame.name for frame in frames] == ["frame1.PNG", "frame2.png", "frame10.png"]
        assert [frame.index for frame in frames] == [0, 1, 2]
        assert {frame.stamp_ns for frame in frames} == {None}
        np.testing.assert_array_equal(frames[2].image, colour_image(0))

    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
    def test_colour_is_rgb_in_every_lossless_format(self, tmp_path: Path, suffix: str) -> None:
        write_image(tmp_path / f"0{suffix}", colour_image(7))
        (frame,) = open_source(str(tmp_path)).frames()
        np.testing.assert_array_equal(frame.image, colour_image(7))

    @pytest.mark.parametrize("suffix", [".png", ".pgm", ".jpg"])
    def test_grey_stays_two_dimensional(self, tmp_path: Path, suffix: str) -> None:
        write_image(tmp_path / f"0{suffix}", np.full((HEIGHT, WIDTH), 90, np.uint8))
        (frame,) = open_source(str(tmp_path)).frames()
        np.testing.assert_array_equal(frame.image, np.full((HEIGHT, WIDTH), 90, np.uint8))

    def test_sixteen_bits_stay_and_are_scaled_for_those_who_want_eight(self, tmp_path: Path) -> None:
        deep = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 70
        write_image(tmp_path / "0.png", deep)
        (frame,) = open_source(str(tmp_path)).frames()
        np.testing.assert_array_equal(frame.samples, deep)
        np.testing.assert_array_equal(frame.image, IntensityRange().to_grey_levels(deep))

    def test_unreadable_files_are_skipped_with_a_warning_and_keep_their_place(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_folder(tmp_path, ["0.png", "2.png"])
        (tmp_path / "1.png").write_bytes(b"not a picture")
        (tmp_path / "notes.txt").write_text("ignored")
        (tmp_path / "._0.png").write_bytes(b"ignored too")
        with caplog.at_level(logging.WARNING):
            frames = list(open_source(str(tmp_path)).frames())
        assert [frame.index for frame in frames] == [0, 2]
        (record,) = caplog.records
        assert re.search(rf"{tmp_path / '1.png'}: .* 13 bytes .* 6e 6f", record.getMessage())

    def test_reads_one_image_at_a_time(self, tmp_path: Path) -> None:
        write_folder(tmp_path, ["0.png", "1.png", "2.png"])
        frames = open_source(str(tmp_path)).frames()
        next(frames)
        (tmp_path / "1.png").unlink()
        assert [frame.name for frame in frames] == ["2.png"]

    def test_start_and_a_single_file(self, tmp_path: Path) -> None:
        write_folder(tmp_path, ["0.png", "1.png", "2.png"])
        assert [frame.index for frame in open_source(str(tmp_path)).frames(start=1)] == [1, 2]
        source = open_source(str(tmp_path / "1.png"))
        assert source.frame_count == 1
        assert source.description == f"1 image from {tmp_path / '1.png'}"

    def test_empty_and_unreadable_folders(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"\.png"):
            open_source(str(tmp_path))
        (tmp_path / "data").mkdir()
        with pytest.raises(SourceError, match="folders data"):
            open_source(str(tmp_path))
        (tmp_path / "0.png").write_bytes(b"")
        with pytest.raises(SourceError, match=r"none of the 1 image files .* can be read"):
            list(open_source(str(tmp_path)).frames())


class TestStampsFromNames:
    @pytest.mark.parametrize(
        ("stem", "stamp_ns"),
        [
            ("1311868169.163498", 1311868169163498000),
            ("1311868169.163498123", 1311868169163498123),
            ("0.25", 250_000_000),
            ("left_1311868169.5", 1311868169500000000),
            ("1403636579763555584", 1403636579763555584),
            ("cam0-1403636579763555584", 1403636579763555584),
            ("1403636579763555", 1403636579763555000),
            ("1403636579763", 1403636579763000000),
            ("000100", None),
            ("0000000012", None),
            ("frame12", None),
            ("9999999999999999999", None),
            ("1311868169.163498_left", None),
        ],
    )
    def test_name(self, stem: str, stamp_ns: int | None) -> None:
        assert stamp_from_name(stem) == stamp_ns

    def test_order_is_that_of_the_times(self, tmp_path: Path) -> None:
        # Natural order would take .5 before .45.
        write_folder(tmp_path, ["7.5.png", "7.45.png", "10.0.png"])
        frames = list(open_source(str(tmp_path)).frames())
        assert [frame.stamp_ns for frame in frames] == [7_450_000_000, 7_500_000_000, 10_000_000_000]

    @pytest.mark.parametrize("names", [["1.1.png", "1.10.png"], ["1.5.png", "last.png"]])
    def test_all_names_must_carry_different_times(self, tmp_path: Path, names: list[str]) -> None:
        source = open_source(str(write_folder(tmp_path / "s", names)))
        assert [frame.stamp_ns for frame in source.frames()] == [None, None]
        with pytest.raises(SourceError, match="names in seconds"):
            next(schedule(source, PlaybackSettings(stamps="name")))

    def test_natural_key_orders_mixed_names(self) -> None:
        names = ["b1", "a10", "10", "a9", "9", "a"]
        assert sorted(names, key=natural_key) == ["9", "10", "a", "a9", "a10", "b1"]


class TestVideo:
    @pytest.mark.parametrize(("name", "fourcc"), [("v.mp4", "mp4v"), ("v.avi", "MJPG")])
    def test_frames_with_container_times(self, tmp_path: Path, name: str, fourcc: str) -> None:
        source = open_source(str(write_video(tmp_path / name, fourcc)))
        frames = list(source.frames())
        assert source.frame_count == len(frames) == 12
        assert [frame.stamp_ns for frame in frames] == [index * 40_000_000 for index in range(12)]
        assert frames[3].image.shape == (48, 64, 3)
        # Both codecs are lossy: a few grey levels of 60.
        assert abs(int(frames[3].image.mean()) - 60) < 6

    def test_start_keeps_times_and_pixels(self, tmp_path: Path) -> None:
        source = open_source(str(write_video(tmp_path / "v.avi", "MJPG")))
        whole = list(source.frames())
        rest = list(source.frames(start=9))
        assert [frame.stamp_ns for frame in rest] == [frame.stamp_ns for frame in whole[9:]]
        np.testing.assert_array_equal(rest[0].image, whole[9].image)

    def test_colours_are_rgb(self, tmp_path: Path) -> None:
        path = tmp_path / "v.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
        writer.release()
        (frame,) = open_source(str(path)).frames()
        red, green, blue = frame.image.reshape(-1, 3).mean(axis=0)
        assert red > 240
        assert max(green, blue) < 15

    @pytest.mark.parametrize(("suffix", "fourcc"), [("avi", "MJPG"), ("mkv", "FFV1")])
    @pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
    def test_a_file_that_is_cut_off(
        self, tmp_path: Path, suffix: str, fourcc: str, share: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / f"whole.{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 25.0, (64, 48))
        if not writer.isOpened():
            pytest.skip(f"this OpenCV writes no {fourcc} videos")
        for noise in np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8):
            writer.write(noise)
        writer.release()
        data = path.read_bytes()
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(data[: int(len(data) * share)])
        source = open_source(str(cut))
        count = sum(1 for _ in source.frames())
        assert (count == 12) == (share == 1.0)
        expected = [] if share == 1.0 else [f"{cut} announces 12 frames and ends after {count}, at "]
        assert [text.partition(f"{(count - 1) / 25:g} s")[0] for text in missing_of(source)] == expected
        assert ("it is cut off" in caplog.text) == (share < 1.0)

    def test_a_file_that_is_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "v.mp4").write_bytes(b"not a video" * 100)
        with pytest.raises(SourceError, match=r"v\.mp4"):
            open_source(str(tmp_path / "v.mp4"))


class TestWebcam:
    def test_reads_with_the_time_of_arrival_until_the_camera_is_gone(self, tmp_path: Path) -> None:
        # To OpenCV a device path and a file are the same; a file is a camera that is unplugged after its last frame.
        source = WebcamSource(str(write_video(tmp_path / "v.avi", "MJPG", count=3)))
        frames: list[Frame] = []
        with pytest.raises(SourceError, match="after 3"):
            frames.extend(source.frames())
        frames = list(_until_error(source.frames()))
        stamps = [frame.stamp_ns or 0 for frame in frames]
        assert len(stamps) == 3
        assert stamps == sorted(stamps)
        assert stamps[0] > 1_700_000_000 * 10**9

    def test_rate_drops_pictures(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "v.avi", "MJPG", count=12)
        assert len(list(_until_error(WebcamSource(str(path), max_rate_hz=0.5).frames()))) == 1

    def test_errors(self) -> None:
        with pytest.raises(SourceError, match="webcam:N"):
            open_source("webcam:front")
        with pytest.raises(SourceError, match="webcam:97"):
            open_source("webcam:97")
        with pytest.raises(SourceError, match="/dev/video97"):
            open_source("/dev/video97")


def _until_error(frames: Iterator[Frame]) -> Iterator[Frame]:
    try:
        yield from frames
    except SourceError:
        return


def test_unknown_locations_say_what_can_be_played(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"/nowhere.* webcam:0.*rosbag2"):
        open_source("/nowhere")
    (tmp_path / "scene.xyz").touch()
    with pytest.raises(SourceError, match=r"'\.xyz'.*\.mp4"):
        open_source(str(tmp_path / "scene.xyz"))
    (tmp_path / "V1_01_easy.zip").touch()
    with pytest.raises(SourceError, match=r"V1_01_easy.zip is an archive; unpack it, and name the folder"):
        open_source(str(tmp_path / "V1_01_easy.zip"))


class TestSchedule:
    @pytest.fixture
    def plain(self, tmp_path: Path) -> str:
        return str(write_folder(tmp_path / "plain", [f"{index}.png" for index in range(4)]))

    @pytest.fixture
    def stamped(self, tmp_path: Path) -> str:
        return str(write_folder(tmp_path / "stamped", ["100.0.png", "100.2.png", "100.3.png"]))

    def times(self, location: str, settings: PlaybackSettings, limit: int = 100) -> list[tuple[float, float | None]]:
        """(due, stamp) in s of the first `limit` frames."""
        result = []
        for scheduled in schedule(open_source(location), settings):
            stamp_ns = scheduled.stamp_ns
            result.append((round(scheduled.due_s, 6), None if stamp_ns is None else stamp_ns / 1e9))
            if len(result) == limit:
                break
        return result

    def test_without_times_the_default_is_10_hz(self, plain: str) -> None:
        assert self.times(plain, PlaybackSettings()) == [(0, 0), (0.1, 0.1), (0.2, 0.2), (0.3, 0.3)]

    def test_rate_sets_pace_and_index_stamps(self, plain: str) -> None:
        assert self.times(plain, PlaybackSettings(rate_hz=4)) == [(0, 0), (0.25, 0.25), (0.5, 0.5), (0.75, 0.75)]

    def test_rate_zero_has_no_pace(self, plain: str) -> None:
        assert self.times(plain, PlaybackSettings(rate_hz=0)) == [(0, 0), (0, 0.1), (0, 0.2), (0, 0.3)]

    def test_own_times_set_the_pace(self, stamped: str) -> None:
        assert self.times(stamped, PlaybackSettings()) == [(0, 100), (0.2, 100.2), (0.3, 100.3)]

    def test_rate_overrides_the_pace_but_not_the_stamps(self, stamped: str) -> None:
        assert self.times(stamped, PlaybackSettings(rate_hz=2)) == [(0, 100), (0.5, 100.2), (1, 100.3)]

    def test_clock_stamps_are_left_to_the_publisher(self, stamped: str) -> None:
        assert self.times(stamped, PlaybackSettings(stamps="clock")) == [(0, None), (0.2, None), (0.3, None)]

    def test_index_stamps_ignore_the_names(self, stamped: str) -> None:
        assert self.times(stamped, PlaybackSettings(stamps="index")) == [(0, 0), (0.1, 0.1), (0.2, 0.2)]

    def test_start_and_count(self, plain: str) -> None:
        settings = PlaybackSettings(start=1, count=2)
        names = [scheduled.frame.name for scheduled in schedule(open_source(plain), settings)]
        assert names == ["1.png", "2.png"]
        assert self.times(plain, settings) == [(0, 0), (0.1, 0.1)]

    def test_loop_keeps_stamps_increasing_by_the_duration_and_a_mean_interval(self, stamped: str) -> None:
        assert self.times(stamped, PlaybackSettings(loop=True), limit=7) == [
            (0, 100),
            (0.2, 100.2),
            (0.3, 100.3),
            (0.45, 100.45),
            (0.65, 100.65),
            (0.75, 100.75),
            (0.9, 100.9),
        ]

    def test_loop_of_part_of_a_folder(self, plain: str) -> None:
        settings = PlaybackSettings(loop=True, start=2, rate_hz=10)
        assert self.times(plain, settings, limit=5) == [(0, 0), (0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.4, 0.4)]

    def test_nothing_to_play(self, plain: str) -> None:
        with pytest.raises(SourceError, match="image 9 of 4"):
            next(schedule(open_source(plain), PlaybackSettings(start=9)))

    def test_file_name_stamps_of_a_video(self, tmp_path: Path) -> None:
        source = open_source(str(write_video(tmp_path / "v.avi", "MJPG")), SourceOptions())
        with pytest.raises(SourceError, match=r"container.* source, index or clock"):
            next(schedule(source, PlaybackSettings(stamps="name")))

    def test_a_camera_does_not_repeat(self, tmp_path: Path) -> None:
        source = WebcamSource(str(write_video(tmp_path / "v.avi", "MJPG")))
        with pytest.raises(SourceError, match="has no end"):
            next(schedule(source, PlaybackSettings(loop=True)))
