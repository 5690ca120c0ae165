"""Pictures of a run: a strip of annotated frames and a video of the tracks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.errors import DemoError
from feature_frontend.image.drawing import FONT, Colour, TrackTrails, age_colours, draw_caption, draw_tracks, write
from feature_frontend.image.image_file import encode_file
from feature_frontend.sources.bag import BagSource
from feature_frontend.system.files import path_for_c_library
from feature_frontend_lab.demo.recording import Recording, TracksRecord

__all__ = ["draw_pictures", "picture_strip"]

Image = npt.NDArray[np.uint8]

STRIP_PICTURES = 6
STRIP_WIDTH_PX = 1920
# Three pictures side by side, two if they are wide.
WIDE = 2.0
VIDEO_WIDTH_PX = 960
CAPTION_UNIT_PX = 480
TRAIL_FRAMES = 8
OLDEST_FRAMES = 30
# Limits of common video players; other rates are shown at the nearest of these.
MIN_VIDEO_HZ, MAX_VIDEO_HZ = 2.0, 60.0

INK: Colour = (34, 37, 43)
PAPER: Colour = (250, 250, 248)
MUTED: Colour = (105, 110, 118)


def draw_pictures(
    bag: Path,
    recording: Recording,
    strip: Path,
    video: Path,
    heading: tuple[str, str],
    on_frame: Callable[[], object] = lambda: None,
) -> None:
    """Draws every recorded image with its tracks into a video, and a selection into a strip.

    Args:
        bag: The bag.
        recording: Contents of the bag.
        strip: Path of the strip to write (.png).
        video: Path of the video to write (.mp4).
        heading: Title and subtitle of the strip.
        on_frame: Called after each image.

    Raises:
        SourceError: The bag cannot be read.
        DemoError: The bag contains no images, or a file cannot be written.
    """
    tracks = {record.stamp_ns: record for record in recording.tracks}
    matches = {record.stamp1_ns: len(record.keypoints1) for record in recording.matches}
    trails = TrackTrails(TRAIL_FRAMES)
    # The first frames have no tracks to show yet.
    chosen = {int(fraction * (recording.image_count - 1)) for fraction in np.linspace(0.2, 1, STRIP_PICTURES)}
    pictures: list[Image] = []
    with _Video(video, _rate_hz(recording)) as writer:
        for number, frame in enumerate(BagSource(bag, "image").frames()):
            stamp_ns, image = frame.stamp_ns or 0, frame.image
            record = tracks.get(stamp_ns, _no_tracks(stamp_ns))
            of_frame = _Annotation(image, record, trails.update(record.ids, record.keypoints))
            caption = f"frame {number}   {len(record.ids)} keypoints   {matches.get(stamp_ns, 0)} matches"
            writer.write(of_frame.draw(VIDEO_WIDTH_PX, caption))
            if number in chosen:
                columns = 2 if image.shape[1] > WIDE * image.shape[0] else 3
                pictures.append(of_frame.draw(STRIP_WIDTH_PX // columns, caption))
            on_frame()
    if not pictures:
        raise DemoError(f"the bag {bag} holds no images; expected at least 1")
    # A source may change its image size; the strip holds one size only.
    same = [picture for picture in pictures if picture.shape == pictures[0].shape]
    drawn = picture_strip(same, *heading, OLDEST_FRAMES, STRIP_WIDTH_PX // same[0].shape[1])
    try:
        encode_file(strip, drawn)
    except OSError as error:
        raise DemoError(f"the picture {strip} cannot be written: {error.strerror or error}") from error


def _no_tracks(stamp_ns: int) -> TracksRecord:
    return TracksRecord(stamp_ns, np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros((0, 2), np.float32))


def _rate_hz(recording: Recording) -> float:
    """The frame rate of the sequence itself, independent of the playback rate."""
    stamps = [status.stamp_ns for status in recording.status]
    steps = [(later - earlier) / 1e9 for earlier, later in itertools.pairwise(stamps) if later > earlier]
    return float(np.clip(1 / np.median(steps), MIN_VIDEO_HZ, MAX_VIDEO_HZ)) if steps else 10.0


@dataclass(frozen=True)
class _Annotation:
    """An image and the trails (L, 2) of its tracks."""

    image: Image
    tracks: TracksRecord
    trails: list[npt.NDArray[np.floating]]

    def draw(self, width_px: int, caption: str) -> Image:
        scale = width_px / self.image.shape[1]
        drawn = draw_tracks(self.image, self.trails, self.tracks.ages, OLDEST_FRAMES, scale)
        return draw_caption(drawn, caption, max(min(width_px, drawn.shape[0]) / CAPTION_UNIT_PX, 1.0))


class _Video:
    """An MP4 file with the size of its first picture."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._path = path
        self._rate_hz = rate_hz
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, picture: Image) -> None:
        if self._writer is None:
            # Encoders require even sizes.
            self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            with path_for_c_library(self._path) as path:
                self._writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), self._rate_hz, self._size)
            if not self._writer.isOpened():
                raise DemoError(
                    f"the video {self._path} cannot be written: this OpenCV has no MPEG-4 encoder, or no permission"
                )
        width, height = self._size
        fitted = picture[:height, :width]
        if fitted.shape[:2] != (height, width):
            fitted = np.asarray(cv2.resize(picture, self._size), np.uint8)
        self._writer.write(cv2.cvtColor(fitted, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> _Video:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()


def picture_strip(
    pictures: Sequence[Image], title: str, subtitle: str, oldest: int, columns: int = 3, gap_px: int = 8
) -> Image:
    """Arranges pictures of one size in rows of `columns`, under a title and a legend of the age colours.

    Raises:
        ValueError: There is no picture.
    """
    if not pictures:
        raise ValueError("a strip of 0 pictures was asked for; expected at least 1")
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    used = min(columns, len(pictures))
    total_width = used * width + (used + 1) * gap_px
    unit = max(total_width / 1920, 0.35)
    header = round(104 * unit)
    canvas = np.empty((header + rows * (height + gap_px), total_width, 3), np.uint8)
    canvas[:] = PAPER
    margin = gap_px + round(8 * unit)
    write(canvas, title, (margin, round(46 * unit)), 1.15 * unit, INK, 2)
    write(canvas, subtitle, (margin, round(84 * unit)), 0.74 * unit, MUTED)
    _legend(canvas, (total_width - margin - round(420 * unit), round(26 * unit)), unit, oldest)
    for index, picture in enumerate(pictures):
        top = header + (index // columns) * (height + gap_px)
        left = gap_px + (index % columns) * (width + gap_px)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def _legend(canvas: Image, corner: tuple[int, int], unit: float, oldest: int) -> None:
    """A colour bar of track ages with its numbers."""
    left, top = corner
    width, height = round(420 * unit), round(20 * unit)
    ages = np.round(np.linspace(1, oldest, width)).astype(np.int64)
    canvas[top : top + height, left : left + width] = age_colours(ages, oldest)
    baseline = top + height + round(32 * unit)
    label, last = "age of a track (frames)", f"{oldest}+"
    size = 0.68 * unit
    write(canvas, "1", (left, baseline), size, MUTED)
    write(canvas, label, (left + (width - _text_width(label, size)) // 2, baseline), size, MUTED)
    write(canvas, last, (left + width - _text_width(last, size), baseline), size, MUTED)


def _text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, FONT, size, 1)[0][0])
