"""Files behind a URL, such as s3://bucket/bags/drive, through fsspec and whichever of its back-ends is installed.

Credentials are those of the back-end's own configuration. They never get into a text: a URL that carries some is
refused, and whatever an environment variable with the name of a secret holds is removed from errors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from feature_frontend.errors import FeatureFrontendError, SettingsError, SourceError
from feature_frontend.system.text import quoted, short_text

__all__ = ["RemoteFile", "RemoteFolder", "is_url", "local_path"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
# What tells one version of a file from another, by back-end, the best first.
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 6


def is_url(location: str) -> bool:
    """Whether it is a URL and not a path; "webcam:0" is neither."""
    return _URL.fullmatch(location) is not None


def local_path(location: str) -> str:
    """The path that a file:// URL names; anything else unchanged."""
    found = _URL.fullmatch(location)
    if found is None or found[1].lower() not in {"file", "local"}:
        return location
    if not found[2].startswith("/"):
        raise SettingsError(f"{quoted(location)} names no path; expected file:///folder/bag, with three slashes")
    return found[2]


@dataclass(frozen=True)
class RemoteFile:
    """A file in a remote folder.

    Attributes:
        name: Relative to the folder.
        size: In bytes.
        version: Its etag, hash or time of change, whichever the back-end knows.
    """

    name: str
    size: int
    version: str


class RemoteFolder:
    """A folder behind a URL, or, for reading, a single file.

    Args:
        url: With the scheme of an fsspec back-end.

    Attributes:
        url: As given, without a slash at the end.

    Raises:
        SettingsError: The URL carries credentials, or no back-end for it is installed.
    """

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        assert found is not None
        self.url = url.rstrip("/")
        self._scheme = found[1].lower()
        if "@" in found[2].split("/")[0] or re.search(
            r"[?&][^=]*(signature|secret|token|key)[^=]*=", url, re.IGNORECASE
        ):
            raise SettingsError(
                f"a {self._scheme}:// URL carries credentials; expected them where the back-end looks, such as "
                "~/.aws/credentials or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        try:
            import fsspec

            # Not through a cache: others write, too.
            self._files, path = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            package = _PACKAGES.get(self._scheme)
            how = f"pip install {package}" if package else "pip install the package of fsspec that reads them"
            raise SettingsError(f"{self._scheme}:// URLs need a package that is not installed: {how}") from error
        except ValueError as error:
            raise SettingsError(
                f"{self._scheme}:// URLs are not known to fsspec: {_shown(error)}; expected a path, file://, s3:// or gs://"
            ) from error
        self._path = str(path).rstrip("/")

    @property
    def name(self) -> str:
        """Its last part."""
        return PurePosixPath(self._path).name

    def __truediv__(self, name: str) -> RemoteFolder:
        """A folder in it."""
        return RemoteFolder(f"{self.url}/{name}")

    def files(self) -> list[RemoteFile]:
        """The files directly in it, by name; a file itself for a file; none where there is nothing.

        Raises:
            SourceError: It cannot be listed.
        """
        with self._readable_errors("listed"):
            return sorted(self._listed(), key=lambda file: file.name)

    def is_file(self) -> bool:
        """Whether it is a file."""
        with self._readable_errors("looked at"):
            return bool(self._files.isfile(self._path))

    def folders(self) -> list[str]:
        """The names of the folders directly in it."""
        names: list[str] = []
        with self._readable_errors("listed"), _nothing_there():
            found = self._files.ls(self._path, detail=True)
            names += (PurePosixPath(one["name"]).name for one in found if one["type"] == "directory")
        return sorted(names)

    def matching(self) -> list[str]:
        """The URLs that this one, with wildcards, stands for."""
        with self._readable_errors("listed"):
            return sorted(str(self._files.unstrip_protocol(path)) for path in self._files.glob(self._path))

    def read(self, name: str) -> bytes | None:
        """The content of a small file in it; None if there is none."""
        with self._readable_errors("read"):
            try:
                return bytes(self._files.cat_file(f"{self._path}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file into it, whole."""
        with self._readable_errors("written"):
            self._files.pipe_file(f"{self._path}/{name}", content)

    def download(self, name: str, target: Path) -> None:
        """Copies a file in it, or itself where it is a file of that name, to `target`."""
        is_itself = name == self.name and self.is_file()
        with self._readable_errors("read"):
            self._files.get_file(self._path if is_itself else f"{self._path}/{name}", str(target))

    def upload(self, source: Path, name: str) -> None:
        """Copies a file into it; on success it is there whole, with all its bytes."""
        path = f"{self._path}/{name}"
        with self._readable_errors("written"):
            self._files.put_file(str(source), path)
            arrived, expected = int(self._files.size(path) or 0), source.stat().st_size
        if arrived != expected:
            raise FeatureFrontendError(
                f"{self.url}/{name} has {arrived} bytes after the upload; expected {expected}: "
                "run the same command again"
            )

    def delete(self, name: str) -> None:
        """Deletes a file in it, if it is there."""
        with self._readable_errors("deleted"), _nothing_there():
            self._files.rm_file(f"{self._path}/{name}")

    def clear(self) -> None:
        """Deletes everything in it."""
        for file in self.files():
            self.delete(file.name)

    def _listed(self) -> Iterator[RemoteFile]:
        with _nothing_there():
            for found in self._files.ls(self._path, detail=True):
                name = PurePosixPath(str(found["name"])).name
                # S3 consoles make folders as empty objects with the folder's own name.
                if found["type"] == "file" and not str(found["name"]).endswith("/"):
                    version = next((str(found[key]) for key in _VERSIONS if found.get(key)), "")
                    yield RemoteFile(name, int(found.get("size") or 0), version.strip('"'))

    @contextmanager
    def _readable_errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except FeatureFrontendError:
            raise
        except Exception as error:  # every back-end raises its own
            raise SourceError(f"{self.url} cannot be {done}: {_shown(error)}; {self._advice(error)}") from error

    def _advice(self, error: Exception) -> str:
        kind, text = type(error).__name__, str(error)
        bucket = self._path.split("/")[0]
        if "NoSuchBucket" in text or "bucket does not exist" in text.lower():
            return f"there is no bucket {bucket}: correct the name or make it, and check the region and the endpoint"
        if "Credentials" in kind or "credentials" in text.lower():
            return "give credentials, such as in ~/.aws/credentials or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if isinstance(error, PermissionError) or any(word in text for word in ("Forbidden", "AccessDenied", "403")):
            return f"check that the credentials are right and may list, read and write in {bucket}"
        if isinstance(error, FileNotFoundError):
            return f"check the URL, and that the bucket {bucket} exists"
        if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)) and "disk" in text:
            return "free space"
        return "check the network and the endpoint (AWS_ENDPOINT_URL), and run the same command again"


@contextmanager
def _nothing_there() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():
            raise


def _shown(error: Exception) -> str:
    text = short_text(error)
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text
