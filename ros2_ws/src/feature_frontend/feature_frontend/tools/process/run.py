"""Processes one input into one bag; resumes an interrupted run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

import feature_frontend
from feature_frontend.camera.calibration_file import file_and_camera, read_calibration_file
from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.errors import FeatureFrontendError, SettingsError, SnapshotError, SourceError
from feature_frontend.models.catalog import AUTO, AUTO_EXTRACTORS
from feature_frontend.models.weights_file import file_sha256
from feature_frontend.pipeline.frame import FrameImage
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.pipeline.process_frame import FrameProcessor, ProcessorState, Refusal
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.output.frame_status import FrameStatistics, StatisticsState
from feature_frontend.ros.output.publishers import ResultTopics, result_topics
from feature_frontend.ros.output.run_identity import run_id_of
from feature_frontend.runtime.snapshot import pack, unpack
from feature_frontend.settings import Settings
from feature_frontend.sources import PlaybackSettings, Source
from feature_frontend.sources.base import LostImages
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.image_folder import ImageFolderSource
from feature_frontend.sources.registry import missing_of
from feature_frontend.system.files import user_path
from feature_frontend.tools.common.bag_writer import check_path
from feature_frontend.tools.process.inputs import (
    InputFrame,
    describe_content,
    describe_files,
    image_count,
    input_frames,
    open_input,
)
from feature_frontend.tools.process.output import BagMessages, Output
from feature_frontend.tools.process.progress_store import FILE_NAME, ProgressStore

__all__ = ["Outcome", "Reporter", "Request", "process_input"]

# Compiling takes 35 s of CPU time and saves 0.25 s per ten images.
COMPILE_FROM_IMAGES = 1000
COMMIT_PERIOD_S = 2.0
_NS_PER_S = 1e9
_LIBRARIES = ("torch", "numpy", "opencv-python-headless", "opencv-python", "kornia", "rosbags")


@dataclass(frozen=True)
class Request:
    """A job; can be serialized as JSON.

    Attributes:
        source: A bag, a video or a folder of images.
        output: Folder of the output bag.
        settings: Of the front-end, by name.
        storage: A key of `STORAGES`.
        namespace: Of the topics, absolute.
        topic: Image topic of a bag; None if it has only one.
        camera_info: Calibration file for all images; None for that of the source.
        frame_id: Frame of the headers; None for the source's own, or "camera".
        playback: Fields of `PlaybackSettings`.
        threads: Number of threads of torch and OpenCV.
        overwrite: Whether to replace a bag at `output`.
    """

    source: str
    output: str
    settings: dict[str, Any]
    storage: str = "sqlite3"
    namespace: str = "/"
    topic: str | None = None
    camera_info: str | None = None
    frame_id: str | None = None
    playback: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a request.

    Attributes:
        output: The bag.
        sha256: Of topic, type, time and content of all its messages.
        images: Number of images by outcome: received, processed, refused.
        was_finished: Whether the same request had already finished the bag.
        missing: What is lost from the source, one sentence each.
    """

    output: str
    sha256: str
    images: dict[str, int]
    was_finished: bool
    missing: list[str]


class Reporter(Protocol):
    """Receives progress."""

    def done(self, images: int, *, earlier: bool = False) -> None:
        """Adds a number of processed images; `earlier`: processed by an earlier run."""

    def say(self, text: str) -> None:
        """Prints a line for the user."""


@dataclass
class _Position:
    """The progress of a run.

    Attributes:
        next_index: Position of the next image in the source.
        compiled_for: (H, W[, 3]), image shape that compilation was requested for; None before the first image.
        is_compiled: Whether compilation succeeded.
        missing: As in `Outcome`, once no image is left.
    """

    next_index: int | None = None
    compiled_for: tuple[int, ...] | None = None
    is_compiled: bool = False
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _State:
    """Everything that the next image's results depend on, apart from the image and the job."""

    position: _Position
    processor: ProcessorState
    book: StatisticsState
    resets: int
    lost: LostImages


def process_input(request: Request, reporter: Reporter) -> Outcome:
    """Processes a request, or resumes it.

    Raises:
        FeatureFrontendError: It failed; the progress is kept, unless it belongs to another request.
    """
    output = Output(Path(request.output))
    output.check(overwrite=request.overwrite)
    check_path(output.path, request.storage)
    if output.path.resolve() == Path(request.source).resolve():
        raise SettingsError(f"--output {output.path} is the input itself; choose another one")
    with _computing_the_same_again(request.threads):
        return _process(request, reporter, output)


@contextmanager
def _computing_the_same_again(threads: int) -> Iterator[None]:
    """Context with this number of threads and deterministic kernels; restores the caller's options afterwards."""
    before = torch.get_num_threads(), cv2.getNumThreads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
        torch.backends.cudnn.deterministic = before[2]


def _process(request: Request, reporter: Reporter, output: Output) -> Outcome:
    playback = PlaybackSettings(**request.playback)
    settings = Settings.from_mapping(request.settings)
    source = open_input(request.source, request.topic, settings.max_image_pixels)
    settings = _offline(settings, image_count(source, playback))
    if settings.extractor == AUTO and not request.overwrite:
        settings = dataclasses.replace(settings, extractor=_earlier_choice(output))
    frontend = Frontend.from_pretrained(settings)
    job = _job(request, frontend, source)
    record = output.record()
    if record and not request.overwrite:
        if {name: record.get(name) for name in job} != job:
            raise SettingsError(
                f"{output.path} exists already, made with other options; choose another --output, or give --overwrite"
            )
        output.clear()
        return Outcome(request.output, record["sha256"], record["images"], True, record["missing"])
    if frontend.notice:
        reporter.say(f"warning: {frontend.notice}")
    if settings.extractor == AUTO:
        reporter.say(f"extractor {AUTO} is {frontend.extractor.identity} on {frontend.extractor.device}")
    with ProgressStore(output.unfinished) as store:
        _begin_or_resume(store, job, output, overwrite=request.overwrite)
        run_id = _run_id(job, request.source, source)
        run = _Run(request, frontend, store, reporter, run_id)
        run.resume()
        if not run.is_over:
            for image in input_frames(source, playback, request.frame_id, run.position.next_index):
                run.process(image)
            if not run.images["received"]:
                output.clear()
                raise SourceError(f"there is nothing to process in {source.description} from image {playback.start} on")
            run.position.missing = missing_of(source, run.lost)
            run.end()
        position = run.position
        record = {
            **job,
            "run_id": run_id,
            "is_compiled": position.is_compiled,
            "images": run.images,
            "missing": position.missing,
        }
        complete = output.complete(store, run.messages, request.storage, record)
    output.clear()
    return Outcome(request.output, str(complete["sha256"]), run.images, False, position.missing)


class _Run:
    """Processes images one by one, from an input into a store.

    Attributes:
        position: The progress.
        messages: Collects results.
        is_over: Whether no image is left.
        lost: Truncated or damaged images, including those of earlier runs.
    """

    def __init__(
        self, request: Request, frontend: Frontend, store: ProgressStore, reporter: Reporter, run_id: int
    ) -> None:
        self.position = _Position()
        self.messages = BagMessages(request.namespace, result_topics("mono"))
        self.is_over = False
        self.lost = LostImages()
        self._request = request
        self._store = store
        self._reporter = reporter
        self._frontend = frontend
        self._calibrations = CalibrationWatch()
        self._last_calibration_warning = self._last_refusal = self._where = ""
        if request.camera_info is not None:
            calibration = read_calibration_file(Path(request.camera_info))
            self._calibrations.take(camera_info_message(calibration, Time(), ""))
        self._book = FrameStatistics()
        self._topics = ResultTopics(self.messages.publish, self._book, run_id)
        self._processor = FrameProcessor(frontend, self._calibrations, self._warn)
        self._next_commit_s = time.monotonic() + COMMIT_PERIOD_S

    def resume(self) -> None:
        """Restores the state of an earlier run, if there is one."""
        state = self._store.state()
        if state is None:
            return
        snapshot, self.is_over = state
        try:
            self._set_state(unpack(snapshot, _State))
        except SnapshotError as error:
            self._store.refuse(str(error))
        compiled_for, extractor = self.position.compiled_for, self._frontend.extractor
        if compiled_for and extractor.compile_only_for(compiled_for) != self.position.is_compiled:
            raise SettingsError(
                "the network can be compiled now and could not when this run was begun, or the other way round, so the "
                "results would differ; give --overwrite to start over, with --compile false to do without"
            )
        self._reporter.done(self.images["received"], earlier=True)

    @property
    def images(self) -> dict[str, int]:
        """As in `Outcome`."""
        book = self._book.get_state()
        return {"received": book.processed + book.refused, "processed": book.processed, "refused": book.refused}

    def process(self, image: InputFrame) -> None:
        """Processes an image and stores its results."""
        if self._request.camera_info is None:
            for info in image.camera_infos:
                self._calibrations.take(info)
        # Image stamps are the clock of this run.
        self._topics.note_arrival(image.stamp_ns / _NS_PER_S)
        _seed_generators()
        self._where = f"{self._request.source}, image {image.found.index}"
        run = self._calibrations.arrived(image.stamp_ns)
        try:
            settings = self._frontend.settings
            pixels = image.pixels(settings)
            self._compile_for_first(pixels.shape)
            output = self._topics.of_frame(image.header, settings)
            report = self._processor.process_frame(FrameImage(pixels, image.stamp_ns, run), output)
            self._topics.processed(image.header, 0.0, report, conversion_ms=0.0)
        except Exception as error:
            self._refuse(image.header, Refusal.of(error))
        self._warn_of_calibration()
        for topic, data in self.messages.take():
            self._store.add(topic, max(image.stamp_ns, 0), data)
        self.position.next_index = image.found.index + 1
        self._reporter.done(1)
        if time.monotonic() >= self._next_commit_s:
            self._commit()

    def _refuse(self, header: Header, refusal: Refusal) -> None:
        if refusal.is_lost:
            self.lost.note(refusal.reason)
        # An input with one bad image often has thousands: report a reason only when it changes.
        if refusal.reason != self._last_refusal:
            self._warn(f"image refused: {refusal.reason}")
            self._last_refusal = refusal.reason
        self._topics.refused(header, 0.0, refusal.reason)

    def _warn(self, text: str) -> None:
        self._reporter.say(f"warning: {self._where}: {text}")

    def _get_state(self) -> _State:
        processor = self._processor.get_state()
        return _State(self.position, processor, self._book.get_state(), self._topics.resets, self.lost)

    def _set_state(self, state: _State) -> None:
        self.position = state.position
        self._processor.set_state(state.processor)
        self._book.set_state(state.book)
        self._topics.resets, self.lost = state.resets, state.lost

    def _warn_of_calibration(self) -> None:
        warning = self._calibrations.warning
        if warning and warning != self._last_calibration_warning:
            self._warn(f"{warning}; normalized_keypoints are empty")
        self._last_calibration_warning = warning

    def end(self) -> None:
        """Ends the run: no image is left."""
        self._frontend.close()
        self._commit(is_last=True)

    def _commit(self, *, is_last: bool = False) -> None:
        self._store.commit(pack(self._get_state()), is_last=is_last)
        self._next_commit_s = time.monotonic() + COMMIT_PERIOD_S

    def _compile_for_first(self, shape: tuple[int, ...]) -> None:
        """Compiles before the first good image: code swapped in later would change the results from then on."""
        if self.position.compiled_for is not None or not self._frontend.settings.compile:
            return
        # If this fails, the front-end reports what is wrong with the image.
        with suppress(Exception):
            self.position.is_compiled = self._frontend.extractor.compile_only_for(shape)
            self.position.compiled_for = shape


def _seed_generators() -> None:
    """Seeds all generators before each image, so that a resumed run draws the same numbers as an uninterrupted one."""
    cv2.setRNGSeed(0)
    torch.manual_seed(0)


def _offline(settings: Settings, images: int | None) -> Settings:
    """`settings` without features that depend on time."""
    if settings.mask_topic:
        raise SettingsError(
            "parameter mask_topic is True, which is for the node; expected a mask for all images in mask_path"
        )
    if settings.camera_type != "mono":
        raise SettingsError(
            f"parameter camera_type is {settings.camera_type!r}, which is for the node; expected mono, side by side"
        )
    is_worth_it = settings.compile and (images is None or images >= COMPILE_FROM_IMAGES)
    return dataclasses.replace(settings, compile=is_worth_it, deadline_ms=0.0)


def _earlier_choice(output: Output) -> str:
    """The extractor that "auto" stood for when this output was begun; "auto" if it was not, or with another one."""
    job: Mapping[str, Any] = output.record()
    if not job and (output.unfinished / FILE_NAME).is_file():
        with ProgressStore(output.unfinished) as store:
            job = store.job() or {}
    settings = job.get("settings")
    name = settings.get("extractor") if isinstance(settings, dict) else None
    return name if name in AUTO_EXTRACTORS else AUTO


def _begin_or_resume(store: ProgressStore, job: dict[str, object], output: Output, *, overwrite: bool) -> None:
    earlier = store.job()
    if earlier == job:
        return
    if earlier is not None and not overwrite:
        differing = ", ".join(_differences(earlier, job))
        raise SettingsError(
            f"{output.unfinished} is the unfinished output of a run that differs in {differing}; "
            "run that one again, choose another --output, or give --overwrite"
        )
    store.begin(job)


def _differences(earlier: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    """Names of the entries that differ; "name.inner" for nested mappings."""
    names = []
    for name in dict.fromkeys([*earlier, *job]):
        one, other = earlier.get(name), job.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{name}.{inner}" for inner in _differences(one, other)]
        elif one != other:
            names.append(name)
    return names


def _job(request: Request, frontend: Frontend, source: Source) -> dict[str, object]:
    """Everything that the output depends on, normalised by a JSON round trip."""
    settings = frontend.settings
    files = {"mask_path": settings.mask_path}
    if request.camera_info is not None:
        file, camera = file_and_camera(Path(request.camera_info))
        files[f"camera_info#{camera}" if camera else "camera_info"] = str(file)
    if isinstance(source, ImageFolderSource) and source.times_file is not None:
        files["times"] = str(source.times_file)
    if isinstance(source, DatasetSource):
        files |= {name: str(table) for name, table in source.tables.items()}
    if settings.matcher == "lightglue":
        files["lightglue_weights_path"] = settings.lightglue_weights_path
    job = {
        "input": describe_files(request.source, source),
        "topic": request.topic,
        "playback": request.playback,
        "frame_id": request.frame_id,
        "namespace": request.namespace,
        "storage": request.storage,
        "settings": dataclasses.asdict(settings),
        "extractor": frontend.extractor.identity,
        "device": str(frontend.extractor.device),
        "threads": request.threads,
        "files_sha256": {name: _file_digest(path) for name, path in files.items() if path},
        "code_sha256": _code_digest(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
    }
    return dict(json.loads(json.dumps(job)))


def _run_id(job: Mapping[str, object], location: str, source: Source) -> int:
    """The `run_id` of the messages, independent of the input's location and the machine."""
    named_by = {name: job[name] for name in ("topic", "playback", "settings", "extractor", "files_sha256")}
    return run_id_of(json.dumps({**named_by, "input": describe_content(location, source)}, sort_keys=True))


def _file_digest(path: str) -> str:
    try:
        return file_sha256(user_path(path))
    except OSError as error:
        raise FeatureFrontendError(f"{path} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=1)
def _code_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(feature_frontend.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
