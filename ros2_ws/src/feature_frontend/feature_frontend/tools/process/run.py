"""Does a unit of work: processes one input, or a piece of it, into one output; resumes an interrupted run."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from builtin_interfaces.msg import Time

from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.errors import FeatureFrontendError, SettingsError, SnapshotError, SourceError
from feature_frontend.models.catalog import AUTO, AUTO_EXTRACTORS
from feature_frontend.pipeline.frame import FrameImage
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.pipeline.process_frame import FrameProcessor, ProcessorState, Refusal
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.output.frame_status import FrameStatistics, StatisticsState
from feature_frontend.ros.output.publishers import ResultTopics, result_topics
from feature_frontend.runtime.snapshot import Snapshot, pack, unpack
from feature_frontend.settings import Settings
from feature_frontend.sources import PlaybackSettings, Source
from feature_frontend.sources.bag import BagSource
from feature_frontend.sources.base import LostImages
from feature_frontend.sources.registry import missing_of
from feature_frontend.tools.common.bag_writer import STORAGES, check_path
from feature_frontend.tools.process.inputs import InputFrame, image_count, input_frames, open_input
from feature_frontend.tools.process.job import differences, job_of, of_part, run_id_for
from feature_frontend.tools.process.output import BagMessages, Output
from feature_frontend.tools.process.pieces import Joiner, cut, image_stamps
from feature_frontend.tools.process.progress_store import FILE_NAME, ProgressStore
from feature_frontend.tools.process.remote import local_path
from feature_frontend.tools.process.request import Cut, Outcome, Part, PieceDone, Reporter, Request, Work
from feature_frontend.tools.process.staging import Input
from feature_frontend.tools.process.uploaded_output import output_of

__all__ = ["do", "process_input"]

# Compiling takes 35 s of CPU time and saves 0.25 s per ten images.
COMPILE_FROM_IMAGES = 1000
COMMIT_PERIOD_S = 2.0
# A larger state is written less often: the persistent tracker's images take 35 bytes per pixel.
STATE_BYTES = 8_000_000
_NS_PER_S = 1e9


@dataclass
class _Position:
    """The progress of a run.

    Attributes:
        next_index: Position of the next image in the source.
        compiled_for: (H, W[, 3]), image shape that compilation was requested for; None before the first image.
        is_compiled: Whether compilation succeeded.
        missing: As in `Outcome`, without images, once no image is left.
        images_of: What lost images are images of, once no image is left.
    """

    next_index: int | None = None
    compiled_for: tuple[int, ...] | None = None
    is_compiled: bool = False
    missing: list[str] = field(default_factory=list)
    images_of: str = ""

    def all_missing(self, lost: LostImages) -> list[str]:
        """As in `Outcome`."""
        return self.missing + lost.sentences(self.images_of)


@dataclass(frozen=True)
class _State:
    """Everything that the next image's results depend on, apart from the image and the job."""

    position: _Position
    processor: ProcessorState
    book: StatisticsState
    resets: int
    lost: LostImages


def process_input(request: Request, reporter: Reporter) -> Outcome:
    """Processes a request as a whole, or resumes it; see `do`."""
    result = do(Work(dataclasses.replace(request, piece_seconds=None)), reporter)
    assert isinstance(result, Outcome)
    return result


def do(work: Work, reporter: Reporter) -> Outcome | PieceDone | Cut:
    """Does a unit of work, or resumes it.

    Returns:
        The outcome of an input; for a piece, that it is kept; for an input that is to be done in pieces, where to cut.

    Raises:
        FeatureFrontendError: It failed; the progress is kept, unless it belongs to another request.
    """
    request = work.request
    output = output_of(request.output)
    output.check(overwrite=request.overwrite or request.update)
    if request.format in STORAGES:
        check_path(output.path, request.format)
    location = local_path(request.source)
    found = Input(location, request.cache_bytes)
    if not found.is_remote and output.path.resolve() == Path(location).resolve():
        raise SettingsError(f"--output {output.path} is the input itself; choose another one")
    with _computing_the_same_again(request.threads):
        return _Task(work, found, output, reporter).do()


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


class _Task:
    """A unit of work in progress."""

    def __init__(self, work: Work, found: Input, output: Output, reporter: Reporter) -> None:
        self._work = work
        self._request = work.request
        self._input = found
        self._output = output
        self._reporter = reporter
        self._playback = PlaybackSettings(**work.request.playback)
        self._record = output.record()
        self._again: list[str] = []
        self._choices = ""

    def do(self) -> Outcome | PieceDone | Cut:
        """See `do`."""
        if self._input.is_remote and self._record:
            # What is done is not copied here once more.
            images = self._record["images"].get("received")
            outcome = self._finished(self._job(self._frontend(images), None))
            if outcome is not None:
                return outcome
        with self._input.here() as path, ExitStack() as stack:
            source = open_input(
                path, self._request.topic, Settings.from_mapping(self._request.settings).max_image_pixels
            )
            frontend = self._frontend(image_count(source, self._playback))
            stack.callback(frontend.close)
            job = self._job(frontend, source)
            run_id = run_id_for(job, path, source)
            if self._work.part is not None:
                return self._piece(self._work.part, run_id, source, frontend, job)
            outcome = self._finished(job)
            if outcome is not None:
                return outcome
            if self._work.parts:
                return self._join(self._work.parts, run_id, job)
            if self._request.piece_seconds is not None and isinstance(source, BagSource):
                stamps = image_stamps(source, self._playback)
                in_order = frontend.settings.tracker == "persistent"
                parts = cut(stamps, self._playback.start, self._request.piece_seconds, in_order=in_order)
                if len(parts) > 1:
                    self._say_what_runs(frontend)
                    return Cut(parts, dataclasses.asdict(frontend.settings))
            return self._whole(run_id, source, frontend, job)

    def _frontend(self, images: int | None) -> Frontend:
        settings = _offline(Settings.from_mapping(self._request.settings), images)
        if settings.extractor == AUTO and not self._request.overwrite:
            settings = dataclasses.replace(settings, extractor=self._earlier_choice())
        frontend = Frontend.from_pretrained(settings)
        self._choices = frontend.choices(settings)
        if frontend.notice and not self._request.accept_fallback:
            raise FeatureFrontendError(f"{frontend.notice}; give every machine of the cluster the weights")
        return frontend

    def _earlier_choice(self) -> str:
        """The extractor that "auto" stood for when this was begun; "auto" if it was not, or with another one."""
        job: Mapping[str, Any] = self._record
        for folder in (self._output.unfinished, self._output.piece(0)):
            if not job and (folder / FILE_NAME).is_file():
                with ProgressStore(folder) as store:
                    job = store.job() or {}
        settings = job.get("settings")
        name = settings.get("extractor") if isinstance(settings, dict) else None
        return name if name in AUTO_EXTRACTORS else AUTO

    def _job(self, frontend: Frontend, source: Source | None) -> dict[str, object]:
        # The files of a remote input are all in its identity.
        local = None if self._input.is_remote else source
        return job_of(self._request, frontend, local, self._input.identity(source))

    def _finished(self, job: Mapping[str, object]) -> Outcome | None:
        """The outcome of an earlier run, if it stands."""
        record, request = self._record, self._request
        if not record or request.overwrite:
            return None
        self._again = differences({name: record.get(name) for name in job}, job)
        if not self._again:
            self._output.clear()
            joins = record.get("joins") or {}
            return Outcome(request.output, record["sha256"], record["images"], True, record["missing"], joins=joins)
        if request.update:
            return None
        raise SettingsError(
            f"{request.output} exists already, made with other options (it differs in {', '.join(self._again)}); "
            "choose another --output, or give --update or --overwrite"
        )

    def _whole(self, run_id: int, source: Source, frontend: Frontend, job: Mapping[str, object]) -> Outcome:
        self._say_what_runs(frontend)
        with ProgressStore(self._output.unfinished) as store:
            run = self._run(store, run_id, source, frontend, job, None)
            missing = run.position.all_missing(run.lost)
            record = self._record_of(job, run_id, run.images, missing, is_compiled=run.position.is_compiled)
            complete = self._output.complete(store.messages(), run.messages, self._request.format, lambda: record)
        self._output.clear()
        sha256 = str(complete["sha256"])
        return Outcome(self._request.output, sha256, run.images, False, missing, self._again)

    def _piece(
        self, part: Part, run_id: int, source: Source, frontend: Frontend, job: Mapping[str, object]
    ) -> PieceDone:
        if not self._output.has_piece(part, job):
            with ProgressStore(self._output.piece(part.number)) as store:
                self._run(store, run_id, source, frontend, job, part)
            self._output.keep_piece(part, job)
        return PieceDone(part.number)

    def _run(
        self,
        store: ProgressStore,
        run_id: int,
        source: Source,
        frontend: Frontend,
        job: Mapping[str, object],
        part: Part | None,
    ) -> _Run:
        """Processes the images that the store does not have yet."""
        request, output = self._request, self._output
        _begin_or_resume(store, job if part is None else of_part(job, part), request, lambda: self._before(part, job))
        run = _Run(request, frontend, store, self._reporter, run_id, part)
        run.resume()
        if not run.is_over:
            for image in input_frames(source, self._playback, request.frame_id, run.position.next_index, part):
                run.process(image)
            if not run.images["received"]:
                output.clear()
                raise SourceError(
                    f"there is nothing to process in {source.description} from image {self._playback.start} on"
                )
            missing = [*run.position.missing, *missing_of(source, LostImages())]
            run.position.missing = list(dict.fromkeys(missing))
            run.position.images_of = getattr(source, "images_of", "")
            run.end()
        return run

    def _say_what_runs(self, frontend: Frontend) -> None:
        if frontend.notice:
            self._reporter.say(f"warning: {frontend.notice}")
        if self._choices:
            self._reporter.say(self._choices)

    def _before(self, part: Part | None, job: Mapping[str, object]) -> Snapshot | None:
        """The state that a run begins from; None for a run that continues no piece."""
        if part is None or not part.in_order or part.number == 0:
            return None
        before = self._work.parts[part.number - 1]
        with self._output.end_of_piece(before, job) as store:
            return _end_of(store, before, job)

    def _join(self, parts: Sequence[Part], run_id: int, job: Mapping[str, object]) -> Outcome:
        messages = BagMessages(self._request.namespace, result_topics("mono"))
        joiner = None if parts[0].in_order else Joiner(messages, parts)
        ends: list[_State] = []

        def pieces() -> Iterator[Iterator[tuple[str, int, bytes]]]:
            for part in parts:
                with self._output.finished_piece(part, job) as store:
                    ends.append(unpack(_end_of(store, part, job), _State))
                    yield store.messages()

        def record() -> dict[str, object]:
            images, missing, joins = _sums(ends, joiner)
            is_compiled = any(end.position.is_compiled for end in ends)
            found = self._record_of(job, run_id, images, missing, is_compiled=is_compiled)
            return found if joiner is None else {**found, "joins": joins}

        found = itertools.chain.from_iterable(pieces()) if joiner is None else joiner.join(pieces())
        complete = self._output.complete(found, messages, self._request.format, record)
        self._output.clear()
        images, missing, joins = _sums(ends, joiner)
        return Outcome(self._request.output, str(complete["sha256"]), images, False, missing, self._again, joins)

    def _record_of(
        self,
        job: Mapping[str, object],
        run_id: int,
        images: Mapping[str, int],
        missing: Sequence[str],
        *,
        is_compiled: bool,
    ) -> dict[str, object]:
        results = {"is_compiled": is_compiled, "images": dict(images), "missing": list(missing)}
        return {**job, "run_id": run_id, **results}


class _Run:
    """Processes images one by one, from an input into a store.

    Attributes:
        position: The progress.
        messages: Collects results.
        is_over: Whether no image is left.
        lost: Truncated or damaged images, including those of earlier runs, without those for warming up.
    """

    def __init__(
        self,
        request: Request,
        frontend: Frontend,
        store: ProgressStore,
        reporter: Reporter,
        run_id: int,
        part: Part | None,
    ) -> None:
        self.position = _Position()
        self.messages = BagMessages(request.namespace, result_topics("mono"))
        self.is_over = False
        self.lost = LostImages()
        self._part = part
        self._start = PlaybackSettings(**request.playback).start
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
        # The images of the pieces before have been reported by these.
        before = 0 if self._part is None or not self._part.in_order else self._part.begin - self._start
        self._reporter.done(self.images["received"] - before, earlier=True)

    @property
    def images(self) -> dict[str, int]:
        """As in `Outcome`, with those of the pieces before that this one continues."""
        return _images_of(self._book.get_state())

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
            self._refuse(image, Refusal.of(error))
        self._warn_of_calibration()
        for topic, data in self.messages.take():
            self._store.add(topic, max(image.stamp_ns, 0), data)
        self.position.next_index = image.found.index + 1
        self._reporter.done(1)
        if time.monotonic() >= self._next_commit_s:
            self._commit()

    def _refuse(self, image: InputFrame, refusal: Refusal) -> None:
        if refusal.is_lost and (self._part is None or image.found.index >= self._part.begin):
            self.lost.note(refusal.reason)
        # An input with one bad image often has thousands: report a reason only when it changes.
        if refusal.reason != self._last_refusal:
            self._warn(f"image refused: {refusal.reason}")
            self._last_refusal = refusal.reason
        self._topics.refused(image.header, 0.0, refusal.reason)

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
        self._commit(is_last=True)

    def _commit(self, *, is_last: bool = False) -> None:
        snapshot = pack(self._get_state())
        self._store.commit(snapshot, is_last=is_last)
        state_bytes = sum(memoryview(array).nbytes for array in snapshot.arrays)
        self._next_commit_s = time.monotonic() + COMMIT_PERIOD_S * max(state_bytes / STATE_BYTES, 1.0)

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


def _images_of(book: StatisticsState) -> dict[str, int]:
    """As in `Outcome`."""
    return {"received": book.processed + book.refused, "processed": book.processed, "refused": book.refused}


def _end_of(store: ProgressStore, part: Part, job: Mapping[str, object]) -> Snapshot:
    """The state that a piece ends with, which must be a finished one of this job."""
    found = store.state()
    if found is None or not found[1] or store.job() != of_part(job, part):
        store.refuse("it is not the finished piece that is expected here")
    return found[0]


def _sums(ends: Sequence[_State], joiner: Joiner | None) -> tuple[dict[str, int], list[str], dict[str, int]]:
    """Images, missing and joins of an `Outcome`, from the states that the pieces end with."""
    last = ends[-1]
    if joiner is None:
        return _images_of(last.book), last.position.all_missing(last.lost), {}
    lost = LostImages(
        sum(end.lost.count for end in ends), next((end.lost.reason for end in ends if end.lost.count), "")
    )
    sentences = dict.fromkeys(one for end in ends for one in end.position.missing)
    missing = [*sentences, *lost.sentences(last.position.images_of)]
    return joiner.images, missing, {"crossing": joiner.crossing, "joined": joiner.joined}


def _begin_or_resume(
    store: ProgressStore, job: Mapping[str, object], request: Request, state: Callable[[], Snapshot | None]
) -> None:
    earlier = store.job()
    if earlier == job:
        return
    if earlier is not None and not (request.overwrite or request.update):
        differing = ", ".join(differences(earlier, job))
        raise SettingsError(
            f"{request.output}.unfinished is the unfinished output of a run that differs in {differing}; "
            "run that one again, choose another --output, or give --update or --overwrite"
        )
    store.begin(job, state())
