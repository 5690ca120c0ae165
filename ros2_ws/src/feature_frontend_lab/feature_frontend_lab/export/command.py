"""Exports features and matches, or the models that make them. Subcommands: `colmap`, a database; `onnx`, a model."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from feature_frontend.camera.calibration import CameraCalibration, normalize_points
from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import ImageError, SettingsError
from feature_frontend.geometry.epipolar_check import check_matches
from feature_frontend.image.image_file import encode_file
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.settings import Settings
from feature_frontend.sources import Source, SourceOptions, open_source
from feature_frontend.sources.image_files import ImageFilesSource
from feature_frontend.sources.registry import missing_of
from feature_frontend.system.files import print_any_name
from feature_frontend.tools.common.arguments import INCOMPLETE, Parser, above_zero, add_parameters, positive
from feature_frontend.tools.common.guard import INTERRUPTED, run_tool
from feature_frontend.types import Features
from feature_frontend_lab.evaluation.tracks.ground_truth import GroundTruth
from feature_frontend_lab.evaluation.tracks.sequence import known_poses
from feature_frontend_lab.export.colmap_database import (
    ColmapCamera,
    ColmapDatabase,
    camera_from_calibration,
    guessed_camera,
)
from feature_frontend_lab.export.mapper import has_pycolmap
from feature_frontend_lab.export.onnx_command import add_onnx_parser
from feature_frontend_lab.export.reconstruction import MODELS, Exported, check_new, reconstruct
from feature_frontend_lab.export.recorded_features import FeaturesRecord, has_features, read_features

__all__ = ["main"]

ItemT = TypeVar("ItemT")

DEFAULT_GAPS = (1, 2, 3, 5, 10)
_UNKNOWN_RATE_NS = 100_000_000
_FRONTEND_OPTIONS = (
    *("extractor", "weights_dir", "weights_path", "device", "max_num_keypoints", "resize_height"),
    *("intensity_range", "intensity_low", "intensity_high", "max_image_pixels"),
)
_DESCRIPTION = """\
Writes a COLMAP database with cameras, keypoints, matches and verified pairs, ready for COLMAP's or pycolmap's mapper.

SOURCE is a bag with recorded features (and tracks), or images: a folder, a video or a bag, which the front-end then
processes frame by frame."""


@dataclass(frozen=True, eq=False)
class ExportFrame:
    """One image of the export.

    Attributes:
        name: Name of the image in COLMAP.
        features: On the CPU.
        track_ids: (T,) ids of the tracks seen in it.
        track_rows: (T,) their indices in `features`.
        camera: Calibration; None if not available.
        pose: True pose (4, 4), camera-to-world; None if unknown.
    """

    name: str
    features: Features
    track_ids: npt.NDArray[np.uint64]
    track_rows: npt.NDArray[np.uint32]
    camera: CameraCalibration | None
    pose: npt.NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class _Written:
    """A frame in the database: its id, keypoints (N, 2) px, their rays if available, and the focal length."""

    image_id: int
    frame: ExportFrame
    keypoints: npt.NDArray[np.float32]
    normalized: npt.NDArray[np.float32] | None
    focal_px: float


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 if everything was written, `INCOMPLETE` if part of the source is lost."""
    print_any_name()
    keep_freed_memory()
    options = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    return run_tool(lambda: int(options.run(options)), lambda: _say_interrupted(options))


def _say_interrupted(options: argparse.Namespace) -> int:
    # Without a name, `onnx` chooses one.
    output: Path | None = options.output
    is_written = output is not None and output.exists()
    said = f"{output} is written, {options.unfinished}" if is_written else "nothing is written"
    print(f"interrupted; {said}", file=sys.stderr)
    return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="export", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "colmap",
        help="a database for COLMAP",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("source", metavar="SOURCE", help="a bag, a folder of images, a dataset or a video")
    add("--output", type=Path, default=Path("database.db"), metavar="FILE", help="default: database.db")
    add("--images", type=Path, metavar="DIR", help="also write the images to this folder, named as in the database")
    add(
        "--gaps",
        type=positive,
        nargs="+",
        default=list(DEFAULT_GAPS),
        metavar="N",
        help=f"pair each image with those N frames earlier (default: {' '.join(map(str, DEFAULT_GAPS))})",
    )
    add(
        "--by",
        choices=("matching", "tracks"),
        default="matching",
        help="source of matches: matching of descriptors (default), or common track ids",
    )
    add("--threshold-px", type=above_zero, default=2.0, metavar="PX", help="inlier threshold (default: %(default)s)")
    add("--camera-info", type=Path, metavar="YAML", help="calibration file, instead of the source's own")
    add("--rectified", action="store_true", help="the images are rectified: use the projection matrix P as the camera")
    add("--topic", metavar="NAME", help="image or features topic of a bag with several")
    add("--frames", type=positive, metavar="N", help="maximum number of frames to export")
    add(
        "--reconstruct",
        action="store_true",
        help=f"also map with COLMAP (pycolmap): models in the folder {MODELS} beside the database, and their error "
        "against true poses; without pycolmap, print the commands",
    )
    add(
        "--ground-truth",
        type=Path,
        metavar="FILE",
        help="for --reconstruct: ground-truth poses (default: the dataset's, or groundtruth.txt or poses.txt)",
    )
    add_parameters(command, _FRONTEND_OPTIONS, "for images: ")
    command.set_defaults(run=_colmap, unfinished="no model is")
    add_onnx_parser(commands)
    return parser


def _colmap(options: argparse.Namespace) -> int:
    if options.output.exists():
        raise SettingsError(f"{options.output} exists already; delete it, or choose another file by --output")
    if options.ground_truth is not None and not options.reconstruct:
        raise SettingsError("--ground-truth is what models are compared with; expected --reconstruct too")
    if options.reconstruct:
        check_new(options.output)
        if not has_pycolmap():
            print("pycolmap is not installed: only the database will be written", file=sys.stderr)
    calibration = None if options.camera_info is None else read_calibration_file(options.camera_info)
    missing: list[str] = []
    frames = _frames(options, missing)
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with ColmapDatabase(options.output) as database:
            export = _Export(database, calibration, options)
            for frame in frames.items:
                export.add(frame)
            if not export.pairs:
                raise SettingsError(
                    f"{options.source}: {export.images} image{'' if export.images == 1 else 's'} and no pair with "
                    "matches; expected images that overlap"
                )
    except OSError as error:
        raise SettingsError(
            f"{error.filename or options.output} cannot be written: {error.strerror or error}; nothing is left of the "
            "database"
        ) from error
    print(
        f"{options.output}: {export.images} images, {len(export.cameras)} "
        f"{'camera' if len(export.cameras) == 1 else 'cameras'}, {export.pairs} pairs, {export.matches} matches, "
        f"{export.verified} of them verified",
        flush=True,
    )
    if not all(camera.is_known for camera in export.cameras):
        print(f"{options.source} has no calibration: the camera is guessed; --camera-info gives one", file=sys.stderr)
    if options.reconstruct:
        reconstruct(Exported(options.output, export.cameras, export.poses, frames.folder, frames.truth))
    return INCOMPLETE if missing else 0


@dataclass(frozen=True, eq=False)
class _Frames:
    """The frames to export, the folder with their images, and the file of their true poses; None if there is none."""

    items: Iterable[ExportFrame]
    folder: Path | None
    truth: Path | None


def _frames(options: argparse.Namespace, missing: list[str]) -> _Frames:
    """The frames of the source: recorded features if available, otherwise images; appends losses to `missing`."""
    if has_features(Path(options.source)):
        if options.images is not None:
            raise SettingsError(
                f"{options.source} holds recorded features: --images is for what the front-end itself processes"
            )
        count, records = read_features(Path(options.source), options.topic, missing)
        truth = _truth(options, None, count)
        return _Frames(_recorded(options, records, count, truth), None, _path_of(truth))
    # Compiled code rounds differently, and the image at which it comes into use varies.
    values = {name: getattr(options, name) for name in _FRONTEND_OPTIONS} | {"compile": False}
    if options.by == "matching":
        # Detections are all that is needed.
        values["tracker"] = "chain"
    settings = Settings.from_mapping(values)
    source = open_source(options.source, SourceOptions(options.topic, max_image_pixels=settings.max_image_pixels))
    folder: Path | None = options.images
    if folder is None and isinstance(source, ImageFilesSource):
        folder = source.files[0].parent
    truth = _truth(options, source, source.frame_count)
    return _Frames(_processed(options, settings, source, truth, missing), folder, _path_of(truth))


def _path_of(truth: GroundTruth | None) -> Path | None:
    return None if truth is None else truth.path


def _recorded(
    options: argparse.Namespace, records: Iterable[FeaturesRecord], count: int | None, truth: GroundTruth | None
) -> Iterator[ExportFrame]:
    for index, record in enumerate(_limited(records, count, options.frames)):
        yield ExportFrame(
            f"{record.stamp_ns}.png",
            record.features,
            record.track_ids,
            record.track_rows,
            record.camera,
            None if truth is None else truth.pose_at(index, record.stamp_ns),
        )


def _truth(options: argparse.Namespace, source: Source | None, count: int | None) -> GroundTruth | None:
    return known_poses(options.source, options.ground_truth, source, count) if options.reconstruct else None


def _processed(
    options: argparse.Namespace, settings: Settings, source: Source, truth: GroundTruth | None, missing: list[str]
) -> Iterator[ExportFrame]:
    frontend = Frontend.from_pretrained(settings)
    if frontend.notice:
        print(frontend.notice, file=sys.stderr)
    if options.images is not None:
        options.images.mkdir(parents=True, exist_ok=True)
    with closing(frontend):
        for frame in _limited(source.frames(), source.frame_count, options.frames):
            stamp_ns = frame.index * _UNKNOWN_RATE_NS if frame.stamp_ns is None else frame.stamp_ns
            pixels = settings.intensity.to_grey_levels(frame.samples)
            try:
                result = frontend.process(pixels, stamp_ns)
            except ImageError as error:
                tqdm.write(f"skipped {frame.name}: {error}", file=sys.stderr)
                continue
            name = frame.name if isinstance(source, ImageFilesSource) else f"{frame.index:06d}.png"
            if options.images is not None:
                _write_image(options.images / name, pixels)
            tracks = result.tracks
            pose = None if truth is None else truth.pose_at(frame.index, frame.stamp_ns)
            yield ExportFrame(name, result.features, tracks.ids, tracks.feature_indices, frame.camera, pose)
    missing += missing_of(source)


def _limited(items: Iterable[ItemT], count: int | None, most: int | None) -> Iterable[ItemT]:
    total = most if count is None else min(count, most or count)
    return tqdm(islice(items, most), total=total, unit=" frames", disable=None, leave=False)


def _write_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_file(path, pixels)
    except OSError as error:
        raise SettingsError(f"the image {path} cannot be written: {error.strerror or error}") from error


class _Export:
    """Writes frame after frame with its pairs with earlier frames, and counts them."""

    def __init__(
        self, database: ColmapDatabase, calibration: CameraCalibration | None, options: argparse.Namespace
    ) -> None:
        self.images = self.pairs = self.matches = self.verified = 0
        self.cameras: dict[ColmapCamera, int] = {}
        self.poses: dict[str, npt.NDArray[np.float64] | None] = {}
        self._database = database
        self._calibration = calibration
        self._options = options
        self._gaps = sorted(set(options.gaps))
        self._matcher = make_matcher(Settings())
        self._before: deque[_Written] = deque(maxlen=self._gaps[-1])

    def add(self, frame: ExportFrame) -> None:
        """Writes a frame."""
        calibration = self._calibration or frame.camera
        keypoints = frame.features.keypoints.numpy()
        camera = guessed_camera(frame.features.height, frame.features.width)
        normalized, focal_px = None, float("nan")
        if calibration is not None:
            rectified = self._options.rectified
            calibration.check_image(frame.features.height, frame.features.width, frame.name)
            camera = camera_from_calibration(calibration, rectified=rectified)
            normalized = normalize_points(calibration, keypoints, rectified=rectified)
            focal_px = calibration.focal_px(rectified=rectified)
        if camera not in self.cameras:
            self.cameras[camera] = self._database.add_camera(camera)
        image_id = self._database.add_image(frame.name, self.cameras[camera], keypoints)
        self.images += 1
        self.poses[frame.name] = frame.pose
        written = _Written(image_id, frame, keypoints, normalized, focal_px)
        for gap in self._gaps:
            if gap <= len(self._before):
                self._add_pair(self._before[-gap], written)
        self._before.append(written)

    def _add_pair(self, one: _Written, other: _Written) -> None:
        rows = self._rows(one.frame, other.frame)
        if not len(rows):
            return
        is_calibrated = one.normalized is not None and other.normalized is not None
        check = check_matches(
            one.keypoints[rows[:, 0]],
            other.keypoints[rows[:, 1]],
            None if one.normalized is None else one.normalized[rows[:, 0]],
            None if other.normalized is None else other.normalized[rows[:, 1]],
            other.focal_px,
            self._options.threshold_px,
        )
        inlier = check.inlier.astype(np.bool_) if len(check.inlier) else np.zeros(len(rows), np.bool_)
        self._database.add_pair(one.image_id, other.image_id, rows, inlier, is_calibrated=is_calibrated)
        self.pairs += 1
        self.matches += len(rows)
        self.verified += int(inlier.sum())

    def _rows(self, frame0: ExportFrame, frame1: ExportFrame) -> npt.NDArray[np.int64]:
        """(M, 2) indices of corresponding features of two frames."""
        if self._options.by == "tracks":
            ids = frame0.track_ids, frame1.track_ids
            _, at0, at1 = np.intersect1d(*ids, assume_unique=True, return_indices=True)
            return np.column_stack([frame0.track_rows[at0], frame1.track_rows[at1]]).astype(np.int64)
        for frame in (frame0, frame1):
            if len(frame.features) and not frame.features.descriptor_dim:
                raise SettingsError(
                    f"{self._options.source} has no descriptors to match; expected them, or --by tracks"
                )
        if frame0.features.extractor != frame1.features.extractor:
            return np.zeros((0, 2), np.int64)
        matches = self._matcher.match(frame0.features, frame1.features)
        return np.column_stack([matches.indices0.numpy(), matches.indices1.numpy()])


if __name__ == "__main__":
    raise SystemExit(main())
