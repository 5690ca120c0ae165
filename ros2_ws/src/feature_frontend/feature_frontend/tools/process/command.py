"""The command line of `process`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
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
from feature_frontend.tools.common.arguments import Parser, above_zero, natural, positive, text
from feature_frontend.tools.common.bag_writer import STORAGES
from feature_frontend.tools.common.guard import INTERRUPTED, run_tool
from feature_frontend.tools.common.settings_arguments import add_settings_arguments, settings_from
from feature_frontend.tools.process.inputs import image_count, open_input
from feature_frontend.tools.process.jobs import Jobs
from feature_frontend.tools.process.locations import Inputs, find_inputs, outputs_of
from feature_frontend.tools.process.progress import Progress
from feature_frontend.tools.process.remote import is_url
from feature_frontend.tools.process.report import Report
from feature_frontend.tools.process.request import Request
from feature_frontend.tools.process.schedule import Scheduler, process_all
from feature_frontend.tools.process.tables import PARQUET, check_parquet
from feature_frontend.tools.process.uploaded_output import output_of

__all__ = ["main"]

# Stamps in another order than the images could not be told from a bag that restarts.
_STAMPS = ("auto", "name", "source", "index")
_FORMATS = ("rosbag2", PARQUET)
_EPILOG = """\
examples:
  process my_bag --output my_bag_features
  process drive.mp4 --output features --storage mcap --camera-info camera.yaml --extractor aliked-t16
  process bags --output features --jobs 4            (one bag in features/ for each in the folder)
  process 's3://fleet/2026-11-*/*' --output s3://fleet/features --cluster auto --format parquet

Every image is processed; an image that cannot be gets a status with state ERROR. The same input, options and machine
give the same files, byte for byte: times in ms are written as zero, times in the bag are the stamps of the headers.
The same command resumes a run interrupted at any moment, and produces the same files (docs/offline.md); on a Ray
cluster, too (docs/cluster.md).

Exit status: 0; 1 if anything failed; 3 if all intact data was processed but something is lost, such as from a bag
whose recorder was killed or a half-copied image; 130 after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 1 for errors (printed in one line each), `INCOMPLETE`, or `INTERRUPTED`."""
    print_any_name()
    keep_freed_memory()
    options = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    _log_to_stderr()
    requests: list[Request] = []

    def run() -> int:
        inputs = find_inputs(options.sources)
        requests.extend(_requests(options, inputs))
        return _process(requests, options, inputs)

    return run_tool(run, lambda: _say_how_to_resume(requests))


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
    places = f"{expected}; a folder or a pattern of these; but for datasets, also s3://, gs:// and other URLs of fsspec"
    add("sources", nargs="+", metavar="SOURCE", help=places)
    add(
        "-o",
        "--output",
        required=True,
        metavar="BAG",
        help="folder or URL of the bag; with several sources, the parent folder of one bag per source, named after it",
    )
    add("--format", choices=_FORMATS, default=_FORMATS[0], help="a bag, or tables for analysis (default rosbag2)")
    add("--storage", choices=tuple(STORAGES), help="file format of the bag (default sqlite3)")
    add("--overwrite", action="store_true", help="replace an existing bag and the unfinished output of other requests")
    add("--update", action="store_true", help="the same, but only where input, options, weights or code have changed")
    add("--piece-seconds", type=above_zero, metavar="S", help="process longer bags in pieces of this length")
    add(
        "--cluster", metavar="auto|ADDRESS", help="process on a Ray cluster: the one of this machine, or by its address"
    )
    add("--workers-per-gpu", type=positive, default=1, metavar="N", help="on a cluster with GPUs (default 1)")
    add("--cache-gib", type=above_zero, default=50.0, metavar="GIB", help="for copies of remote sources (default 50)")
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


def _requests(options: argparse.Namespace, inputs: Inputs) -> list[Request]:
    playback = PlaybackSettings(rate_hz=options.rate, start=options.start, count=options.count, stamps=options.stamps)
    namespace = "/" + options.namespace.strip("/")
    settings = settings_from(options, f"{namespace.rstrip('/')}/frontend")
    if settings.deadline_ms:
        print("note: deadline_ms is for the node; offline, every image is processed at its full size", file=sys.stderr)
    is_parquet = options.format == PARQUET
    if is_parquet:
        check_parquet()
        if options.storage is not None:
            raise SettingsError(f"--storage {options.storage} is for rosbag2; leave it out for --format parquet")
    return [
        Request(
            source=_absolute(source, options),
            output=_absolute(output, options),
            settings=dataclasses.asdict(settings),
            format=PARQUET if is_parquet else options.storage or "sqlite3",
            namespace=namespace,
            topic=options.topic,
            camera_info=None if options.camera_info is None else str(options.camera_info),
            frame_id=options.frame_id,
            playback=dataclasses.asdict(playback),
            threads=_threads(options, len(inputs.locations)),
            overwrite=options.overwrite,
            update=options.update,
            piece_seconds=options.piece_seconds,
            cache_bytes=round(options.cache_gib * 2**30),
            accept_fallback=options.cluster is None,
        )
        for source, output in zip(
            inputs.locations, outputs_of(inputs, options.output, "bag=" if is_parquet else ""), strict=True
        )
    ]


def _absolute(location: str, options: argparse.Namespace) -> str:
    """A location that means the same to processes with another working folder."""
    return os.path.abspath(location) if options.cluster and not is_url(location) else location


def _width(options: argparse.Namespace, inputs: int) -> int:
    return int(options.jobs if options.piece_seconds else min(options.jobs, inputs))


def _threads(options: argparse.Namespace, inputs: int) -> int:
    # A cluster does most with a thread for each worker, and its machines differ in their cores.
    default = 1 if options.cluster else max(torch.get_num_threads() // _width(options, inputs), 1)
    return int(options.threads or default)


def _process(requests: Sequence[Request], options: argparse.Namespace, inputs: Inputs) -> int:
    # A cluster begins at once, without reading thousands of bags from here.
    counts = [None] if options.cluster else [_count(request) for request in requests]
    total = None if None in counts else sum(count or 0 for count in counts)
    started_s = time.monotonic()
    with Progress(total, len(requests)) as progress, _scheduler(options, len(requests), progress) as scheduler:
        results = process_all(requests, scheduler, progress)
    report = Report(requests, results, time.monotonic() - started_s)
    report.print()
    if inputs.are_many:
        report.write(options.output)
    return report.exit_status


def _scheduler(options: argparse.Namespace, inputs: int, progress: Progress) -> Scheduler:
    if options.cluster is None:
        return Jobs(_width(options, inputs), progress)
    from feature_frontend.tools.process.cluster.scheduler import Cluster

    return Cluster(options.cluster, progress, threads=_threads(options, inputs), gpu_fraction=_gpu_fraction(options))


def _gpu_fraction(options: argparse.Namespace) -> float:
    return 0.0 if options.parameter_device == "cpu" else 1 / int(options.workers_per_gpu)


def _count(request: Request) -> int | None:
    """Number of images; 0 for a source that cannot be opened, which is reported when its turn comes."""
    if is_url(request.source):
        return None
    try:
        source = open_input(request.source, request.topic)
    except FeatureFrontendError:
        return 0
    return image_count(source, PlaybackSettings(**request.playback))


def _say_how_to_resume(requests: Sequence[Request]) -> int:
    outputs = [output_of(request.output) for request in requests]
    kept = [str(output.unfinished) for output in outputs if output.unfinished.exists()]
    where = f"what is done is kept in {', '.join(kept)}; " if kept else ""
    print(f"interrupted; {where}the same command resumes from there", file=sys.stderr)
    return INTERRUPTED


class _StderrHandler(logging.Handler):
    """Prints one line per record, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def _log_to_stderr() -> None:
    logger = logging.getLogger("feature_frontend")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler(logging.WARNING))
    logger.propagate = False
