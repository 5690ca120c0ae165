"""A sequence for evaluation: images with stamps, the camera's calibration and, if known, its poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import SourceError
from feature_frontend.image.intensity import DEFAULT_INTENSITY, IntensityRange
from feature_frontend.sources import (
    ImuMeasurements,
    PlaybackSettings,
    Source,
    SourceOptions,
    imu_of,
    open_source,
    schedule,
)
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.image_folder import CAMERA_FILE
from feature_frontend.sources.registry import missing_of
from feature_frontend.system.text import printable
from feature_frontend_lab.evaluation.tracks.ground_truth import (
    GROUND_TRUTH_FILES,
    GroundTruth,
    ground_truth_of,
    read_ground_truth,
)

__all__ = ["EvaluationSequence", "SequenceFrame", "SequenceOptions", "known_poses", "open_sequence"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SequenceOptions:
    """Options for reading a sequence.

    Attributes:
        topic: Image topic, for bags with several.
        start: Number of images to skip at the beginning.
        count: Number of images to use after those; None for all.
        intensity: Conversion of samples of more than 8 bits to grey levels.
        camera_info: Calibration file; None for the source's calibration or camera.yaml next to the images.
        ground_truth: File of the camera's poses; None for the dataset's, or groundtruth.txt or poses.txt next to the
            images.
    """

    topic: str | None = None
    start: int = 0
    count: int | None = None
    intensity: IntensityRange = DEFAULT_INTENSITY
    camera_info: Path | None = None
    ground_truth: Path | None = None


@dataclass(frozen=True, eq=False)
class SequenceFrame:
    """One image of a sequence.

    Attributes:
        image: (H, W) grey or (H, W, 3) RGB, uint8.
        stamp_ns: Its stamp in ns.
        camera: Calibration of the camera; None if not available.
        pose: (4, 4) camera-to-world; None if unknown.
    """

    image: npt.NDArray[np.uint8]
    stamp_ns: int
    camera: CameraCalibration | None
    pose: FloatArray | None


@dataclass(frozen=True, eq=False)
class EvaluationSequence:
    """Images that can be read repeatedly, with one image in memory at a time.

    Attributes:
        name: Name used in reports.
        source: The images.
        options: Selection of images.
        camera: Calibration that overrides the source's; None to use the source's.
        ground_truth: Known poses; None if there are none.
        missing: Known image losses, one sentence each; filled once all images have been read.
    """

    name: str
    source: Source
    options: SequenceOptions
    camera: CameraCalibration | None
    ground_truth: GroundTruth | None
    missing: list[str] = field(default_factory=list)

    @property
    def imu(self) -> ImuMeasurements | None:
        """The IMU of the source; None if it has none."""
        return imu_of(self.source)

    def frames(self) -> Iterator[SequenceFrame]:
        """Yields the images in order.

        Raises:
            SourceError: There is no image, an image lacks the stamp that the poses need, or the pose files do not fit.
            CalibrationError: The calibration is for a different image size.
        """
        for scheduled in schedule(self.source, PlaybackSettings(start=self.options.start, count=self.options.count)):
            frame = scheduled.frame
            camera = self.camera or frame.camera
            if camera is not None:
                camera.check_image(frame.samples.shape[0], frame.samples.shape[1], frame.name)
            pose = None if self.ground_truth is None else self.ground_truth.pose_at(frame.index, frame.stamp_ns)
            pixels = self.options.intensity.to_grey_levels(frame.samples)
            yield SequenceFrame(pixels, scheduled.stamp_ns or 0, camera, pose)
        if not self.missing:  # a source keeps counting when it is read again
            self.missing.extend(missing_of(self.source))


def open_sequence(location: str, options: SequenceOptions) -> EvaluationSequence:
    """Opens images and the files that belong to them: those of a dataset, or camera.yaml, groundtruth.txt or poses.txt.

    Args:
        location: A bag, a folder of images, a dataset or a video.
        options: Selection of images, and files to use instead of those next to them.

    Raises:
        SourceError: There are no images, the source is live, or a pose file cannot be read or does not fit.
        CalibrationError: A calibration cannot be read.
    """
    source = open_source(location, SourceOptions(topic=options.topic))
    if source.is_live:
        raise SourceError(
            f"{location} is live; expected images that can be gone through again: a bag, a folder or a video"
        )
    path = Path(location).resolve()
    name, camera_file = path.name, options.camera_info
    if isinstance(source, DatasetSource):
        name = source.name
    else:
        camera_file = camera_file or _existing(_folder_of(location), (CAMERA_FILE,))
    return EvaluationSequence(
        name=printable(name),
        source=source,
        options=options,
        camera=None if camera_file is None else read_calibration_file(camera_file),
        ground_truth=known_poses(location, options.ground_truth, source, source.frame_count),
    )


def known_poses(location: str, file: Path | None, source: Source | None, frame_count: int | None) -> GroundTruth | None:
    """Reads the poses of a sequence; None if there are none.

    Args:
        location: As for `open_sequence`.
        file: File of poses; None for the dataset's, or groundtruth.txt or poses.txt next to the images.
        source: The images at that location, if they are read.
        frame_count: Number of images, if known.

    Raises:
        SourceError: A pose file cannot be read or does not fit.
    """
    if file is None and isinstance(source, DatasetSource):
        return ground_truth_of(source)
    file = file or _existing(_folder_of(location), GROUND_TRUTH_FILES)
    return None if file is None else read_ground_truth(file, frame_count)


def _folder_of(location: str) -> Path:
    path = Path(location).resolve()
    return path if path.is_dir() else path.parent


def _existing(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
