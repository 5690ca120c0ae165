"""`evaluate tracks`: front-ends on sequences, without a back-end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from feature_frontend.errors import SettingsError
from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.image.intensity import IntensityRange
from feature_frontend.settings import Settings
from feature_frontend.sources.image_folder import ImageFolderSource, is_image_folder
from feature_frontend.tools.common.arguments import Parser
from feature_frontend_lab.evaluation.commands.arguments import report_missing
from feature_frontend_lab.evaluation.commands.sequence_arguments import (
    add_configuration_arguments,
    add_sequence_arguments,
    common_parameters,
    sequence_options,
)
from feature_frontend_lab.evaluation.reports.track_report import tables_of, write_track_report
from feature_frontend_lab.evaluation.reports.writing import make_report_folder, markdown_table, markdown_text
from feature_frontend_lab.evaluation.tracks.benchmark import SequenceReport, TrackResult, measure
from feature_frontend_lab.evaluation.tracks.configurations import (
    BASELINES,
    TRACKERS,
    Configuration,
    parse_configurations,
)
from feature_frontend_lab.evaluation.tracks.sequence import EvaluationSequence, open_sequence
from feature_frontend_lab.evaluation.tracks.track_history import (
    FRAMES_BEFORE_UNRELATED,
    TrackHistory,
    fraction_seen_in_unrelated,
    record_sequence,
)

__all__ = ["add_tracks"]

_DEFAULT_COMPARE = ",".join([*TRACKERS, *BASELINES])


def add_tracks(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "tracks",
        help="length and accuracy of tracks on sequences",
        description="Compares front-ends on sequences (docs/evaluation.md). Writes tracks.html, tracks.md, "
        "tracks.json, a PNG and trajectories in TUM format. Reads camera.yaml, times.txt and the poses in "
        "groundtruth.txt (TUM) or poses.txt (KITTI) from the folder of the images.",
    )
    add = command.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder of images, dataset (EuRoC, TUM RGB-D, KITTI), rosbag2 or video",
    )
    add_configuration_arguments(command, _DEFAULT_COMPARE, (*TRACKERS, *BASELINES))
    add(
        "--unrelated",
        type=Path,
        metavar="IMAGE",
        help="unrelated image that replaces the middle frame, to count false matches",
    )
    add_sequence_arguments(command)
    command.set_defaults(run=_tracks)


def _tracks(arguments: argparse.Namespace) -> int:
    configurations = parse_configurations(arguments.compare or [_DEFAULT_COMPARE], common_parameters(arguments))
    sequences = _sequences(arguments, Settings.from_mapping(common_parameters(arguments)).intensity)
    unrelated = None if arguments.unrelated is None else _image(arguments.unrelated)
    make_report_folder(arguments.output)
    reports = []
    for name, sequence in sequences.items():
        report = _run(name, sequence, configurations, unrelated)
        reports.append(report)
        print(f"## {markdown_text(name)}\n\n{report.description}\n")
        for table in tables_of(report):
            print(f"{markdown_text(table.heading)}:\n\n{markdown_table(table.header, table.rows)}\n", flush=True)
    options = {
        "compare": [configuration.name for configuration in configurations],
        "set": arguments.set,
        "params_file": [str(path) for path in arguments.params_file],
        "unrelated": None if arguments.unrelated is None else str(arguments.unrelated),
        "start": arguments.start,
        "count": arguments.count,
    }
    for path in write_track_report(arguments.output, reports, options):
        print(path)
    return report_missing(sequences.values())


def _sequences(arguments: argparse.Namespace, intensity: IntensityRange) -> dict[str, EvaluationSequence]:
    """Opens the sequences under unique names."""
    options = sequence_options(arguments, intensity)
    sequences: dict[str, EvaluationSequence] = {}
    for location in arguments.sources:
        sequence = open_sequence(location, options)
        taken = sequence.name in sequences
        sequences[f"{sequence.name} ({len(sequences) + 1})" if taken else sequence.name] = sequence
    return sequences


def _run(
    name: str,
    sequence: EvaluationSequence,
    configurations: Sequence[Configuration],
    unrelated: npt.NDArray[np.uint8] | None,
) -> SequenceReport:
    results: list[TrackResult] = []
    total = _frames_to_run(sequence, unrelated is not None)
    total = None if total is None else total * len(configurations)
    with tqdm(total=total, desc=name, unit=" frames", disable=None, leave=False) as progress:
        for configuration in configurations:
            progress.set_postfix_str(configuration.name)
            recording = _recorded(configuration, sequence, progress)
            seen = None if unrelated is None else _seen(configuration, sequence, recording, unrelated, progress)
            results.append(measure(configuration.name, recording, seen))
    return SequenceReport(name, _description(recording), recording.stamps_ns, recording.poses, results)


def _frames_to_run(sequence: EvaluationSequence, with_unrelated: bool) -> int | None:
    """Number of frames that a configuration processes; None if the source does not know its length."""
    if sequence.source.frame_count is None:
        return None
    count = max(sequence.source.frame_count - sequence.options.start, 0)
    count = min(count, sequence.options.count or count)
    return count + (min(count // 2, FRAMES_BEFORE_UNRELATED) + 1 if with_unrelated else 0)


def _recorded(configuration: Configuration, sequence: EvaluationSequence, progress: tqdm[NoReturn]) -> TrackHistory:
    frontend = configuration.make()
    try:
        return record_sequence(frontend, sequence, progress.update)
    finally:
        frontend.close()


def _seen(
    configuration: Configuration,
    sequence: EvaluationSequence,
    recording: TrackHistory,
    unrelated: npt.NDArray[np.uint8],
    progress: tqdm[NoReturn],
) -> float:
    frontend = configuration.make()
    try:
        count = len(recording.tracks)
        return fraction_seen_in_unrelated(frontend, sequence, count, unrelated, progress.update)
    finally:
        frontend.close()


def _description(recording: TrackHistory) -> str:
    camera = "no calibration" if recording.camera is None else "calibrated"
    known = sum(pose is not None for pose in recording.poses)
    truth = f"poses of {known} known" if known else "no ground truth"
    return f"{len(recording.tracks)} images of {recording.width}x{recording.height} px, {camera}, {truth}"


def _image(path: Path) -> npt.NDArray[np.uint8]:
    if path.is_dir() or not is_image_folder(path):
        raise SettingsError(f"--unrelated is {path}, which is no image file; expected one ({' '.join(IMAGE_SUFFIXES)})")
    return next(ImageFolderSource(path).frames()).image
