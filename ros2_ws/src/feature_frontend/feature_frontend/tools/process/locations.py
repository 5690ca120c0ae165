"""Which inputs the arguments of `process` name, and where the output of each goes."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from feature_frontend.errors import SettingsError, SourceError
from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.sources.bags.files import BAG_SUFFIXES, is_bag
from feature_frontend.sources.datasets.layouts import layout_of
from feature_frontend.sources.video import VIDEO_SUFFIXES, is_video
from feature_frontend.system.files import readable_name
from feature_frontend.system.text import listed
from feature_frontend.tools.process.remote import RemoteFolder, is_url, local_path
from feature_frontend.tools.process.staging import layout_of_remote

__all__ = ["Inputs", "find_inputs", "outputs_of"]

_logger = logging.getLogger(__name__)

_WILDCARDS = frozenset("*?[")
_METADATA = "metadata.yaml"
_SINGLE_SUFFIXES = (".bag", *VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Inputs:
    """The inputs, as paths and URLs.

    Attributes:
        locations: In order, each once.
        are_many: Whether the user named several, or a place that may hold several.
    """

    locations: list[str]
    are_many: bool


def find_inputs(arguments: Sequence[str]) -> Inputs:
    """The inputs that paths, folders of bags, patterns and URLs name; a missing one is found missing in its turn.

    Raises:
        SourceError: A pattern matches nothing, or a URL cannot be read.
        SettingsError: A URL cannot be used here.
    """
    locations: list[str] = []
    are_many = len(arguments) > 1
    for argument in arguments:
        location = local_path(argument)
        found = _remote(location) if is_url(location) else _local(location)
        are_many = are_many or found != [location]
        locations += found
    return Inputs(locations, are_many)


def outputs_of(inputs: Inputs, output: str, partition: str) -> list[str]:
    """The output of each input.

    Args:
        inputs: From `find_inputs`.
        output: Path or URL of the only output, or of the folder of all.
        partition: Goes before the name of each output, such as "bag="; even a single one is then in a folder.

    Raises:
        SettingsError: Two inputs would have the same output.
    """
    if not inputs.are_many and not partition:
        return [output]
    taken: dict[str, str] = {}
    short = [_name(location) for location in inputs.locations]
    # Recorders name all bags alike and their folders differently.
    names = short if len(set(short)) == len(short) else _long_names(inputs.locations)
    outputs = []
    for location, name in zip(inputs.locations, names, strict=True):
        path = f"{output.rstrip('/')}/{partition}{name}" if is_url(output) else str(Path(output) / f"{partition}{name}")
        if name in taken:
            raise SettingsError(f"{taken[name]} and {location} would both go to {path}; process them one by one")
        taken[name] = location
        outputs.append(path)
    return outputs


def _name(location: str) -> str:
    if is_url(location):
        path: PurePosixPath = PurePosixPath(location)
        return path.stem if path.suffix.lower() in (*BAG_SUFFIXES, *VIDEO_SUFFIXES) else path.name
    resolved = Path(location).resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def _long_names(locations: Sequence[str]) -> list[str]:
    """Names from all parts of the paths that are not common to all."""
    parts = [PurePosixPath(one if is_url(one) else str(Path(one).resolve())).parts[:-1] for one in locations]
    common = 0
    while all(len(one) > common and one[common] == parts[0][common] for one in parts):
        common += 1
    return ["_".join([*folders[common:], _name(location)]) for folders, location in zip(parts, locations, strict=True)]


def _local(location: str) -> list[str]:
    path = Path(location)
    if not _exists(path) and _WILDCARDS & set(location):
        matching = sorted(glob.glob(location, recursive=True))
        if not matching:
            raise SourceError(
                f"nothing matches {location}; expected a pattern of bags, videos, datasets or folders of images"
            )
        return matching
    if not _exists(path) or not path.is_dir() or _is_input(path):
        return [location]
    # An unfinished output holds a bag, too.
    found = [one for one in sorted(path.iterdir()) if one.suffix != ".unfinished" and not one.name.startswith(".")]
    inputs = [one for one in found if _is_input(one)]
    others = [readable_name(one.name) for one in found if one.is_dir() and one not in inputs]
    if inputs and others:
        _logger.warning(
            "%s: %s left out, in which there is no bag, dataset or image that can be read; to have what is further "
            "down, name it, or a pattern such as '%s/*/*'",
            readable_name(location),
            listed(others),
            readable_name(location),
        )
    return list(map(str, inputs)) or [location]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_input(path: Path) -> bool:
    try:
        if path.is_dir():
            is_dataset = layout_of(path) is not None
            return is_bag(path) or is_dataset or any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
        return is_bag(path) or is_video(path)
    except (OSError, SourceError):
        return False


def _remote(location: str) -> list[str]:
    if _WILDCARDS & set(location):
        matching = RemoteFolder(location).matching()
        if not matching:
            raise SourceError(f"nothing matches {location}; check the URL")
        return matching
    folder = RemoteFolder(location)
    files = [file.name.lower() for file in folder.files()]
    if any(name == _METADATA or _is_part_of_one(name) for name in files) or layout_of_remote(folder) is not None:
        return [folder.url]
    found = [f"{folder.url}/{name}" for name in folder.folders() if not name.endswith(".unfinished")]
    found += [f"{folder.url}/{file.name}" for file in folder.files() if file.name.lower().endswith(_SINGLE_SUFFIXES)]
    return sorted(found) or [folder.url]


def _is_part_of_one(name: str) -> bool:
    """Whether a file makes its folder one bag, or one folder of images."""
    stem = name
    for suffix in (".zstd", ".zst", ".active"):
        stem = stem.removesuffix(suffix)
    return stem.endswith((*(one for one in BAG_SUFFIXES if one != ".bag"), *IMAGE_SUFFIXES))
