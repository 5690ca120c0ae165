"""`evaluate covariances`: whether the covariances of positions are true, on rendered scenes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from feature_frontend.errors import SettingsError
from feature_frontend.models.catalog import EXTRACTOR_MODELS
from feature_frontend.settings import Settings
from feature_frontend.tools.common.arguments import Parser, natural, positive
from feature_frontend_lab.evaluation.commands.arguments import add_output_argument
from feature_frontend_lab.evaluation.commands.sequence_arguments import add_configuration_arguments, common_parameters
from feature_frontend_lab.evaluation.covariances.errors import PositionErrors, TrueFrame, position_errors
from feature_frontend_lab.evaluation.covariances.fit import fit_noise
from feature_frontend_lab.evaluation.reports.covariance_report import (
    CovarianceReport,
    covariance_table,
    write_covariance_report,
)
from feature_frontend_lab.evaluation.reports.writing import make_report_folder, markdown_text
from feature_frontend_lab.evaluation.tracks.configurations import TRACKERS, Configuration, parse_configurations
from feature_frontend_lab.rendering.flights import FLIGHTS, flight

__all__ = ["add_covariances"]

_DEFAULT_COMPARE = ",".join(TRACKERS)


def add_covariances(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "covariances",
        help="whether the covariances of positions are true, on rendered scenes",
        description="Counts how many errors of tracked positions lie inside the ellipses of their covariances, by "
        "exact depth and poses (docs/evaluation.md). Writes covariances.md, covariances.json and covariances.png.",
    )
    add = command.add_argument
    add("scenes", nargs="+", choices=FLIGHTS, metavar="SCENE", help=f"rendered flights: {', '.join(FLIGHTS)}")
    add_configuration_arguments(command, _DEFAULT_COMPARE, TRACKERS)
    add("--seeds", type=natural, nargs="+", default=[0], metavar="N", help="of each scene (default: 0)")
    add("--start", type=natural, default=100, metavar="N", help="skip the first N images (default: %(default)s)")
    add("--count", type=positive, default=20, metavar="N", help="images of each seed (default: %(default)s)")
    add(
        "--fit",
        nargs="+",
        choices=list(EXTRACTOR_MODELS),
        default=[],
        metavar="EXTRACTOR",
        help="fit the constants of the covariances of these extractors to the scenes, and print them; nothing else",
    )
    add_output_argument(command)
    command.set_defaults(run=_covariances)


def _covariances(arguments: argparse.Namespace) -> int:
    configurations = parse_configurations(arguments.compare or [_DEFAULT_COMPARE], common_parameters(arguments))
    if len(set(arguments.seeds)) < len(arguments.seeds) or len(set(arguments.scenes)) < len(arguments.scenes):
        raise SettingsError("a scene or seed is named twice; expected different ones")
    if arguments.fit:
        return _fit(arguments)
    make_report_folder(arguments.output)
    reports = []
    for name in arguments.scenes:
        report = _run(name, arguments, configurations)
        reports.append(report)
        print(f"## {markdown_text(name)}\n\n{report.description}\n\n{covariance_table(report)}\n", flush=True)
    options = {name: getattr(arguments, name) for name in ("set", "seeds", "start", "count")}
    options["compare"] = [configuration.name for configuration in configurations]
    for path in write_covariance_report(arguments.output, reports, options):
        print(path)
    return 0


def _fit(arguments: argparse.Namespace) -> int:
    scenes = [
        list(_frames(name, seed, arguments.start, arguments.count))
        for name in arguments.scenes
        for seed in arguments.seeds
    ]
    for name in arguments.fit:
        settings = Settings.from_mapping({**common_parameters(arguments), "extractor": name})
        print(f"{name}: {fit_noise(settings, scenes, EXTRACTOR_MODELS[name].has_maps)}", flush=True)
    return 0


def _run(name: str, arguments: argparse.Namespace, configurations: Sequence[Configuration]) -> CovarianceReport:
    found: dict[str, list[PositionErrors]] = {configuration.name: [] for configuration in configurations}
    total = len(arguments.seeds) * arguments.count * (1 + len(configurations))
    with tqdm(total=total, desc=name, unit=" frames", disable=None, leave=False) as progress:
        for seed in arguments.seeds:
            frames = []
            for frame in _frames(name, seed, arguments.start, arguments.count):
                frames.append(frame)
                progress.update()
            for configuration in configurations:
                progress.set_postfix_str(configuration.name)
                frontend = configuration.make()
                try:
                    found[configuration.name].append(position_errors(frontend, frames, progress.update))
                finally:
                    frontend.close()
    seeds = ", ".join(map(str, arguments.seeds))
    description = f"{arguments.count} images from {arguments.start} of seeds {seeds}"
    return CovarianceReport(name, description, {one: PositionErrors.joined(parts) for one, parts in found.items()})


def _frames(name: str, seed: int, start: int, count: int) -> Iterator[TrueFrame]:
    flown = flight(name, seed)
    rows = range(len(flown))[start:][:count]
    if len(rows) < 2:
        raise SettingsError(
            f"--start {start} --count {count} take {len(rows)} of {name}'s {len(flown)} images; expected at least 2"
        )
    return (TrueFrame.of(flown, row) for row in rows)
