"""Image files in a known order: what folders of images and datasets have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import CalibrationError, DamagedImageError, ImageError, SourceError
from feature_frontend.image.image_file import ImageFile, read_image_file
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.sources.base import Frame, LostImages, StampOrigin, UnreadableFrame
from feature_frontend.system.files import readable_name

__all__ = ["ImageFilesSource", "calibration_or_notice"]

_logger = logging.getLogger(__name__)


def calibration_or_notice(
    path: Path, image_size: tuple[int, int] | None = None
) -> tuple[CameraCalibration | None, list[str]]:
    """The calibration of a file; without one, a notice for the user that says why.

    Args:
        path: Of the file.
        image_size: As for `read_calibration_file`.
    """
    try:
        return read_calibration_file(path, image_size), []
    except CalibrationError as error:
        return None, [f"no calibration is found: {error}; --camera-info gives one"]


class ImageFilesSource:
    """Image files, read one at a time.

    Grey files give (H, W), colour files (H, W, 3) samples of the file's depth, as stored: an orientation in the
    metadata is not applied. A file that cannot be decoded is skipped with a warning.

    Attributes:
        path: What the user asked for.
        files: The image files in order.
        stamps_ns: One for each file, ns; None if they have none.
        camera: The calibration of all images; None without one.
        lost: Truncated, damaged or missing images of `frames` read so far.
        storage_missing: What else is lost, one sentence each, such as lines of a list of images.
    """

    stamp_origin: StampOrigin = "file of times"
    is_live = False

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        stamps_ns: Sequence[int] | None,
        *,
        max_pixels: int = MAX_IMAGE_PIXELS,
        notices: Sequence[str] = (),
        camera: CameraCalibration | None = None,
        frame_id: str = "",
    ) -> None:
        """Reads nothing yet.

        Args:
            path: What the user asked for.
            files: The image files in order; one that is missing gives an `UnreadableFrame`.
            stamps_ns: One for each file, ns; None if they have none.
            max_pixels: Maximum number of pixels of an accepted image.
            notices: Warnings for the user, logged when the images are first read.
            camera: The calibration of all images.
            frame_id: Coordinate frame of the images; empty if the source has none.
        """
        self.path = path
        self.files = tuple(files)
        self.stamps_ns = None if stamps_ns is None else tuple(stamps_ns)
        self.camera = camera
        self.lost = LostImages()
        self.storage_missing: list[str] = []
        self._max_pixels = max_pixels
        self._notices = list(notices)
        self._frame_id = frame_id
        self._told: set[str] = set()

    @property
    def description(self) -> str:
        """Folder and number of images."""
        count = len(self.files)
        return f"{count} image{'' if count == 1 else 's'} from {readable_name(self.path)}"

    @property
    def images_of(self) -> str:
        """What the images belong to, for messages to the user."""
        return readable_name(self.path)

    @property
    def frame_count(self) -> int:
        """Number of image files."""
        return len(self.files)

    @property
    def has_camera(self) -> bool:
        """Whether there is a calibration."""
        return self.camera is not None

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The images from position `start` on.

        Raises:
            SourceError: None of them can be decoded.
        """
        readable = 0
        reason = ""
        for frame in self.attempts(start):
            if isinstance(frame, UnreadableFrame):
                reason = frame.reason
                if frame.is_lost:
                    self.lost.note(f"{frame.name}: {reason}")
                _logger.warning("skipped %s: %s", readable_name(self.files[frame.index]), reason)
            else:
                readable += 1
                yield frame
        if not readable and start < len(self.files):
            count = len(self.files) - start
            raise SourceError(
                f"none of the {count} image files in {readable_name(self.path)} can be read (the last one: {reason})"
            )

    def attempts(self, start: int = 0) -> Iterator[Frame | UnreadableFrame]:
        """The images from position `start` on, including those that cannot be decoded."""
        for notice in self._notices:
            self._tell_once(notice, notice)
        for index, file in enumerate(self.files[start:], start):
            stamp_ns = None if self.stamps_ns is None else self.stamps_ns[index]
            name = readable_name(file.name)
            if name != file.name:
                self._tell_once("name", f"{name} has a name that is no UTF-8, which is shown so, also in results")
            try:
                found = read_image_file(file, self._max_pixels)
            except ImageError as error:
                is_lost = isinstance(error, DamagedImageError)
                yield UnreadableFrame(index, name, str(error), stamp_ns, self._frame_id, is_lost=is_lost)
                continue
            self._tell_what_is_left_out(name, found)
            self._check_size(name, found)
            yield Frame(found.samples, index, name, stamp_ns, self._frame_id, self.camera)

    def _check_size(self, name: str, found: ImageFile) -> None:
        try:
            if self.camera is not None:
                self.camera.check_image(found.samples.shape[0], found.samples.shape[1], name)
        except CalibrationError as error:
            self._tell_once("size", str(error))

    def _tell_what_is_left_out(self, name: str, found: ImageFile) -> None:
        if found.orientation != 1:
            self._tell_once(
                "orientation",
                f"{name} has EXIF orientation {found.orientation}, which is not applied: pixels are taken as stored, "
                "as calibrations, bags and COLMAP have them",
            )
        if found.pages > 1:
            self._tell_once(
                "pages", f"{name} holds {found.pages} images, of which the first is taken; split it to have the others"
            )

    def _tell_once(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            _logger.warning("%s", text)
