"""`evaluate odometry`: front-ends measured by what a fixed back-end makes of their tracks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, closing

from tqdm import tqdm

from feature_frontend.errors import SettingsError
from feature_frontend.settings import Settings
from feature_frontend.tools.common.arguments import Parser, positive
from feature_frontend_lab.evaluation.commands.arguments import report_missing
from feature_frontend_lab.evaluation.commands.sequence_arguments import (
    add_configuration_arguments,
    add_sequence_arguments,
    common_parameters,
    sequence_options,
)
from feature_frontend_lab.evaluation.odometry.benchmark import OdometryResult, SequenceResults, run_odometry
from feature_frontend_lab.evaluation.odometry.degraded import DEGRADED, DEGRADED_TRACKER, degrade, is_degraded
from feature_frontend_lab.evaluation.odometry.sequences import (
    RENDERED,
    OdometrySequence,
    open_odometry_sequence,
    track,
)
from feature_frontend_lab.evaluation.reports.odometry_report import describe, odometry_table, write_odometry_report
from feature_frontend_lab.evaluation.reports.writing import make_report_folder, markdown_text
from feature_frontend_lab.evaluation.tracks.configurations import (
    BASELINES,
    TRACKERS,
    Configuration,
    parse_configurations,
)
from feature_frontend_lab.rendering.flights import FLIGHTS

__all__ = ["add_odometry"]

_DEFAULT_COMPARE = ",".join([*TRACKERS, *BASELINES])


def add_odometry(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "odometry",
        help="how far a fixed back-end gets with the tracks of each front-end",
        description="Visual-inertial odometry on GTSAM with the same settings for all front-ends; monocular odometry "
        "of pieces of ten images where there is no IMU (docs/evaluation.md). Writes odometry.md, odometry.json, a PNG "
        "and trajectories in TUM's format, for evo.",
    )
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder of images (with IMU: EuRoC's layout), rosbag2, video, or a rendered flight: "
        + ", ".join(f"{RENDERED}{name}" for name in FLIGHTS),
    )
    add_configuration_arguments(command, _DEFAULT_COMPARE, (*TRACKERS, *BASELINES, *DEGRADED))
    command.add_argument(
        "--seeds",
        type=positive,
        default=5,
        metavar="N",
        help="of each rendered flight: other places, paths and noise; a recording has one (default: %(default)s)",
    )
    add_sequence_arguments(command)
    command.set_defaults(run=_odometry)


def _odometry(arguments: argparse.Namespace) -> int:
    parameters = common_parameters(arguments)
    names = [name.strip() for joined in arguments.compare or [_DEFAULT_COMPARE] for name in joined.split(",")]
    if len(set(names)) < len(names):
        raise SettingsError(f"--compare names {', '.join(names)}; expected different ones")
    if len(set(arguments.sources)) < len(arguments.sources):
        raise SettingsError(f"the sources are {' '.join(arguments.sources)}; expected different ones")
    configurations = _configurations(names, parameters)
    options = sequence_options(arguments, Settings.from_mapping(parameters).intensity)
    sources = [open_odometry_sequence(location, options, arguments.seeds) for location in arguments.sources]
    if any(sequence.imu is not None for of_source in sources for sequence in of_source):
        # Missed now, and not after all tracking.
        import feature_frontend_lab.odometry.library  # noqa: F401
    make_report_folder(arguments.output)
    reports = []
    for location, of_source in zip(arguments.sources, sources, strict=True):
        report = _run(
            location if location.startswith(RENDERED) else of_source[0].name, of_source, names, configurations
        )
        reports.append(report)
        print(f"## {markdown_text(report.name)}\n\n{describe(report)}\n\n{odometry_table(report)}\n", flush=True)
    asked = {name: getattr(arguments, name) for name in ("set", "seeds", "start", "count")} | {
        "compare": names,
        "params_file": [str(path) for path in arguments.params_file],
    }
    for path in write_odometry_report(arguments.output, reports, asked):
        print(path)
    return report_missing([sequence for of_source in sources for sequence in of_source])


def _configurations(names: Sequence[str], parameters: object) -> dict[str, Configuration]:
    """The front-ends to run, by name: those named, and the one whose tracks are degraded."""
    wanted = [name for name in names if not is_degraded(name)]
    if len(wanted) < len(names) and DEGRADED_TRACKER not in wanted:
        wanted.append(DEGRADED_TRACKER)
    configurations = [parse_configurations([name], parameters)[0] for name in wanted]  # type: ignore[arg-type]
    return dict(zip(wanted, configurations, strict=True))


def _run(
    name: str, of_source: Sequence[OdometrySequence], names: Sequence[str], configurations: dict[str, Configuration]
) -> SequenceResults:
    results: dict[str, list[OdometryResult]] = {one: [] for one in names}
    truth = []
    known = [sequence.count for sequence in of_source if sequence.count is not None]
    total = sum(known) * len(configurations) if len(known) == len(of_source) else None
    with tqdm(total=total, desc=name, unit=" frames", disable=None, leave=False) as progress:
        for sequence in of_source:
            with ExitStack() as opened:
                frontends = {wanted: opened.enter_context(closing(c.make())) for wanted, c in configurations.items()}
                tracked = track(frontends, sequence, progress.update)
            for one in names:
                views = tracked[one] if one in tracked else degrade(tracked[DEGRADED_TRACKER], one, sequence.seed or 0)
                results[one].append(run_odometry(views))
            first = next(iter(tracked.values()))
            rows = [row for row, pose in enumerate(first.poses) if pose is not None]
            truth.append(([first.views[row].stamp_ns for row in rows], [p for p in first.poses if p is not None]))
    seeds = [sequence.seed for sequence in of_source if sequence.seed is not None]
    return SequenceResults(name, of_source[0].imu is not None, seeds or None, truth, results)
