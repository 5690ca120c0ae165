"""The parameters of the node as command-line options and from files, for tools that run the front-end themselves."""

from __future__ import annotations

import argparse
import logging
import os
from contextlib import suppress
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from feature_frontend.errors import SettingsError
from feature_frontend.image.image_file import read_mask_file
from feature_frontend.settings import PARAMETERS, Settings
from feature_frontend.settings.parameter import with_present_names
from feature_frontend.settings.parameter_file import read_parameter_files
from feature_frontend.system.files import user_path
from feature_frontend.system.text import quoted
from feature_frontend.tools.common.arguments import parameter_reader

__all__ = ["add_settings_arguments", "settings_from"]

_PREFIX = "parameter_"
_logger = logging.getLogger(__name__)


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--params-file` and an option for each parameter."""
    parser.add_argument(
        "--params-file",
        action="append",
        default=[],
        metavar="YAML",
        help="parameters as the node takes them, also of several files: a path, or a file of config/ by name",
    )
    group = parser.add_argument_group("parameters of the front-end", "as the node's; they win over --params-file")
    for record in PARAMETERS.values():
        default = repr(record.default).lower() if isinstance(record.default, bool) else repr(record.default)
        group.add_argument(
            _option(record.name),
            dest=_PREFIX + record.name,
            type=parameter_reader(record),
            metavar="|".join(record.choices) if 0 < len(record.choices) < 4 else "VALUE",
            help=f"{record.description} (default {default})".replace("%", "%%"),
        )
        if record.formerly:
            dest = _PREFIX + record.formerly
            group.add_argument(
                _option(record.formerly), dest=dest, type=parameter_reader(record), help=argparse.SUPPRESS
            )


def settings_from(options: argparse.Namespace, node: str = "/frontend") -> Settings:
    """The settings from the options of `add_settings_arguments`.

    Args:
        options: The parsed arguments.
        node: Full name of the node whose sections of the files apply.

    Raises:
        SettingsError: A file cannot be read, a value has a wrong type or is out of range, or the file of `mask_path`
            contains no mask.
    """
    values = read_parameter_files([_find(name) for name in options.params_file], node)
    given = {name.removeprefix(_PREFIX): value for name, value in vars(options).items() if name.startswith(_PREFIX)}
    given = {name: value for name, value in given.items() if value is not None}
    values.update(with_present_names(given, PARAMETERS.values(), _logger.warning))
    settings = Settings.from_mapping(values)
    if settings.mask_path:
        read_mask_file(settings.mask_path)
    return settings


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _find(name: str) -> Path:
    folders: list[Path] = []
    with suppress(PackageNotFoundError):
        folders.append(Path(get_package_share_directory("feature_frontend")) / "config")
    for path in (user_path(name), *(folder / name for folder in folders)):
        if os.path.isfile(path):
            return path
    shipped = sorted(path.name for folder in folders for path in folder.glob("*.yaml"))
    raise SettingsError(f"no parameter file {quoted(name)}; expected a path or one of {', '.join(shipped)}")
