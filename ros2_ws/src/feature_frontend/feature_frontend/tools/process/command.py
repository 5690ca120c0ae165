"""The command line of `process`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.sources import SOURCE_KINDS, PlaybackSettings
from feature_frontend.sources.playback import DEFAULT_RATE_HZ
from feature_frontend.system.files import print_any_name
from feature_frontend.system.interrupts import interruptible
from feature_frontend.tools.common.arguments import INCOMPLETE, Parser, above_zero, natural, positive, text
from feature_frontend.tools.common.bag_writer import STORAGES
from feature_frontend.tools.common.settings_arguments import add_settings_arguments, settings_from
from feature_frontend.tools.process.inputs import image_count, open_input
from feature_frontend.tools.process.jobs import process_inputs
from feature_frontend.tools.process.output import Output
from feature_frontend.tools.process.progress import Progress
from feature_frontend.tools.process.run import Outcome, Request

__all__ = ["INTERRUPTED", "main"]

INTERRUPTED = 130

# Stamps in another order than the images could not be told from a bag that restarts.
_STAMPS = ("auto", "name", "source", "index")
_EPILOG = """\
examples:
  process my_bag --output my_bag_features
  process drive.mp4 --output features --storage mcap --camera-info camera.yaml --extractor aliked-t16
  process bags/* --output features --jobs 4          (one bag in features/ for each input)

Every image is processed; an image that cannot be gets a status with state ERROR. The same input, options and machine
give the same files, byte for byte: times in ms are written as zero, times in the bag are the stamps of the headers.
The same command resumes a run interrupted at any moment, and produces the same files (docs/offline.md).

Exit status: 0; 1 if anything failed; 3 if all intact data was processed but something is lost, such as from a bag
whose recorder was killed or a half-copied image; 130 after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 1 for errors (printed in one line each), `INCOMPLETE`, or `INTERRUPTED`."""
    print_any_name()
    keep_freed_memory()
    options = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    _log_to_stderr()
    try:
        with interruptible():
            requests = _requests(options)
            return _process(requests, options.jobs)
    except FeatureFrontendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _tell_how_to_go_on(options)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="process", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.description = (
        "Process every image of bags, videos, folders and datasets offline, into rosbag2 bags of features, matches, "
        "tracks and status."
    )
    add = parser.add_argument
    expected = "; ".join(kind.expects for kind in SOURCE_KINDS if kind.name != "webcam")
    add("sources", nargs="+", metavar="SOURCE", help=expected)
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="BAG",
        help="folder of the bag; with several sources, the parent folder of one bag per source, named after it",
    )
    add("--storage", choices=tuple(STORAGES), default="sqlite3", help="file format of the bag (default sqlite3)")
    add("--overwrite", action="store_true", help="replace an existing bag and the unfinished output of other requests")
    add("--jobs", type=positive, default=1, metavar="N", help="sources processed in parallel (default 1)")
    add("--threads", type=positive, metavar="N", help="threads per job (default: torch's, divided by the jobs)")
    add("--topic", metavar="NAME", help="image topic of a bag with several")
    add(
        "--namespace",
        type=text,
        default="/",
        metavar="NAME",
        help="of the topics in the bag, such as /robot (default /)",
    )
    add(
        "--camera-info",
        type=Path,
        metavar="YAML",
        help="calibration for all images (default: that of the bag or the dataset)",
    )
    add("--frame-id", type=text, metavar="NAME", help="frame of the headers (default: that of the bag, or camera)")
    add("--start", type=natural, default=0, metavar="N", help="skip the first N images")
    add("--count", type=positive, metavar="N", help="process N images (default: all)")
    add(
        "--stamps",
        choices=_STAMPS,
        default="auto",
        help="from the file names, the source (names, bag headers, video times), or the position divided by the rate "
        "(default auto: source, else index)",
    )
    add("--rate", type=above_zero, metavar="HZ", help=f"for the stamps index (default {DEFAULT_RATE_HZ:g})")
    add_settings_arguments(parser)
    return parser


def _requests(options: argparse.Namespace) -> list[Request]:
    playback = PlaybackSettings(rate_hz=options.rate, start=options.start, count=options.count, stamps=options.stamps)
    namespace = "/" + options.namespace.strip("/")
    settings = settings_from(options, f"{namespace.rstrip('/')}/frontend")
    if settings.deadline_ms:
        print("note: deadline_ms is for the node; offline, every image is processed at its full size", file=sys.stderr)
    jobs = min(options.jobs, len(options.sources))
    threads = options.threads or max(torch.get_num_threads() // jobs, 1)
    return [
        Request(
            source=source,
            output=str(output),
            settings=dataclasses.asdict(settings),
            storage=options.storage,
            namespace=namespace,
            topic=options.topic,
            camera_info=None if options.camera_info is None else str(options.camera_info),
            frame_id=options.frame_id,
            playback=dataclasses.asdict(playback),
            threads=threads,
            overwrite=options.overwrite,
        )
        for source, output in zip(options.sources, _outputs(options), strict=True)
    ]


def _outputs(options: argparse.Namespace) -> list[Path]:
    """The output path for each source.

    Raises:
        SettingsError: Two sources would have the same output.
    """
    if len(options.sources) == 1:
        return [options.output]
    names: dict[str, str] = {}
    for source in options.sources:
        path = Path(source).resolve()
        name = path.name if path.is_dir() else path.stem
        if name in names:
            raise SettingsError(
                f"{names[name]} and {source} would both go to {options.output / name}; process them one by one"
            )
        names[name] = source
    return [options.output / name for name in names]


def _process(requests: Sequence[Request], jobs: int) -> int:
    counts = [_count(request) for request in requests]
    total = None if None in counts else sum(count or 0 for count in counts)
    started_s = time.monotonic()
    with Progress(total) as progress:
        results = process_inputs(requests, jobs, progress)
    took_s = time.monotonic() - started_s
    for request, result in zip(requests, results, strict=True):
        if isinstance(result, Outcome):
            print(_told(request, result), flush=True)
            for sentence in result.missing:
                print(f"incomplete: {sentence}", file=sys.stderr)
        else:
            about = f"{request.source}: " if len(requests) > 1 else ""
            print(f"error: {about}{result}", file=sys.stderr)
    images = sum(result.images["received"] for result in results if isinstance(result, Outcome))
    if len(requests) > 1:
        print(f"{images} images of {len(requests)} sources in {took_s:.1f} s", flush=True)
    if not all(isinstance(result, Outcome) for result in results):
        return 1
    return INCOMPLETE if any(result.missing for result in results if isinstance(result, Outcome)) else 0


def _count(request: Request) -> int | None:
    """Number of images; 0 for a source that cannot be opened, which is reported when its turn comes."""
    try:
        source = open_input(request.source, request.topic)
    except FeatureFrontendError:
        return 0
    return image_count(source, PlaybackSettings(**request.playback))


def _told(request: Request, outcome: Outcome) -> str:
    images = outcome.images
    counts = f"{images['received']} images, {images['processed']} processed, {images['refused']} refused"
    if outcome.was_finished:
        counts = f"was finished before, by the same command ({counts}); --overwrite makes it again"
    return f"{outcome.output}: {counts}\nsha256 {outcome.sha256}"


def _tell_how_to_go_on(options: argparse.Namespace) -> None:
    outputs = [Output(path) for path in _outputs(options)]
    kept = [str(output.unfinished) for output in outputs if output.unfinished.exists()]
    where = f"what is done is kept in {', '.join(kept)}; " if kept else ""
    print(f"interrupted; {where}the same command resumes from there", file=sys.stderr)


class _StderrHandler(logging.Handler):
    """Prints one line per record, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def _log_to_stderr() -> None:
    logger = logging.getLogger("feature_frontend")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler(logging.WARNING))
    logger.propagate = False
