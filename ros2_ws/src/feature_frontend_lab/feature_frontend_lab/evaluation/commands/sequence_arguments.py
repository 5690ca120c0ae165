"""Options shared by the tools that run front-ends over sequences."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from feature_frontend.errors import SettingsError
from feature_frontend.image.intensity import IntensityRange
from feature_frontend.settings.parameter_file import read_parameter_files
from feature_frontend.tools.common.arguments import natural, positive
from feature_frontend_lab.evaluation.commands.arguments import add_output_argument
from feature_frontend_lab.evaluation.tracks.configurations import parse_assignment
from feature_frontend_lab.evaluation.tracks.sequence import SequenceOptions

__all__ = ["add_configuration_arguments", "add_sequence_arguments", "common_parameters", "sequence_options"]


def add_configuration_arguments(command: argparse.ArgumentParser, default: str, names: Sequence[str]) -> None:
    """Adds the options that choose front-ends: those of `default`, or any of `names`."""
    add = command.add_argument
    add(
        "--compare",
        action="append",
        metavar="NAME,...",
        help=f"comma-separated configurations: {', '.join(names)}, KEY=VALUE, a parameter file (.yaml), or "
        f"several of these joined by +, as in chain+extractor=silk-vggnp-mu (default: {default})",
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="parameter for all configurations; repeatable")
    add(
        "--params-file",
        type=Path,
        action="append",
        default=[],
        metavar="YAML",
        help="parameter file for all configurations; repeatable, later files override earlier ones",
    )
    add("--weights-dir", default="", metavar="DIR", help="folder searched first for published weights")
    add("--device", default="auto", help="device for networks (default: %(default)s)")


def add_sequence_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the options that select images, and the folder of the report."""
    add = command.add_argument
    add("--topic", metavar="NAME", help="image topic of a bag that has several")
    add("--start", type=natural, default=0, metavar="N", help="skip the first N images")
    add("--count", type=positive, metavar="N", help="use N images (default: all)")
    add(
        "--camera-info",
        type=Path,
        metavar="YAML",
        help="calibration file (default: the bag's or dataset's, or camera.yaml)",
    )
    add(
        "--ground-truth",
        type=Path,
        metavar="FILE",
        help="ground-truth poses (default: the dataset's, or groundtruth.txt or poses.txt)",
    )
    add_output_argument(command)


def common_parameters(arguments: argparse.Namespace) -> Mapping[str, object]:
    """Parameters of all configurations, from the options.

    Raises:
        SettingsError: An option sets no parameter, or a file cannot be read.
    """
    # The switch to compiled code depends on the machine, and compiled code rounds differently.
    parameters: dict[str, object] = {
        "compile": False,
        "device": arguments.device,
        "weights_dir": arguments.weights_dir,
    }
    parameters |= read_parameter_files(arguments.params_file)
    return parameters | dict(map(parse_assignment, arguments.set))


def sequence_options(arguments: argparse.Namespace, intensity: IntensityRange) -> SequenceOptions:
    """How to read `arguments.sources`.

    Raises:
        SettingsError: A file is given for several sources.
    """
    given = [name for name in ("camera_info", "ground_truth") if getattr(arguments, name) is not None]
    if given and len(arguments.sources) > 1:
        option = f"--{given[0].replace('_', '-')}"
        raise SettingsError(
            f"{option} is given for {len(arguments.sources)} sources; expected one, or the files beside the images"
        )
    return SequenceOptions(
        topic=arguments.topic,
        start=arguments.start,
        count=arguments.count,
        intensity=intensity,
        camera_info=arguments.camera_info,
        ground_truth=arguments.ground_truth,
    )
