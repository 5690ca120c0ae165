"""HTTP client for downloads of known files: time limits, size limits, and one kind of error."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.client
import netrc
import ssl
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from tqdm import tqdm

from feature_frontend.errors import DownloadError
from feature_frontend.system.text import printable

__all__ = ["HttpClient", "body", "site"]

T = TypeVar("T")

# Time until the response starts, including redirects. After one source has timed out, others get less time: without a
# network all of them time out, and the start of the node waits for them.
ANSWER_S, ANSWER_AFTER_SILENCE_S = 8.0, 3.0
_SILENCE_S = 20.0
# Time allowed for a body: this long, plus the time that the bytes received so far take at the minimum rate.
_BODY_S, _SLOWEST_BYTES_PER_S = 30.0, 16_000
_CHUNK_BYTES = 1 << 16
_GZIP = 16 + zlib.MAX_WBITS
# Errors that a server can cause in Python's client: lengths beyond C's integers raise OverflowError.
_FAILURES = (OSError, ValueError, ArithmeticError, MemoryError, http.client.HTTPException, zlib.error)


def site(url: str) -> str:
    """The scheme and host of a URL, without possible secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is none"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class HttpClient:
    """Opens URLs, through the environment's proxies, with credentials from the URL or from `~/.netrc`.

    Args:
        proxy: Proxy to use instead of the environment's; empty: the environment's.
        certificates: File or folder of additional certificates to trust; empty: only the system's.

    Raises:
        DownloadError: The certificates cannot be read.
    """

    def __init__(self, proxy: str = "", certificates: str = "") -> None:
        context = ssl.create_default_context()
        if certificates:
            try:
                is_folder = Path(certificates).is_dir()
                context.load_verify_locations(*((None, certificates) if is_folder else (certificates,)))
            except OSError as error:
                raise DownloadError(f"cannot read the certificates {certificates}: {_reason(error)}") from error
        proxies = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
        https = urllib.request.HTTPSHandler(context=context)
        self._opener = urllib.request.build_opener(https, _Redirects(self.authorize), *proxies)
        self._credentials: dict[str, tuple[str, str]] = {}
        self._patience_s = ANSWER_S

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        """Sends a GET request; returns the response with its body unread.

        Raises:
            DownloadError: No response came in time, or it is an error, with its `status`.
        """
        try:
            parts = urlsplit(url)
            host = parts.netloc.rpartition("@")[2]
            if parts.scheme not in {"http", "https"}:
                raise DownloadError(f"{parts.scheme}: addresses cannot be downloaded from")
            if parts.username is not None:
                self._credentials[host] = unquote(parts.username), unquote(parts.password or "")
            address = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
            request = urllib.request.Request(address, headers=dict(headers or {}))
            self.authorize(request)
            answer: http.client.HTTPResponse = _within(
                self._patience_s, lambda: self._opener.open(request, timeout=_SILENCE_S)
            )
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadError(_reason(error), error.code) from error
        except concurrent.futures.TimeoutError as error:
            msg = f"no answer within {self._patience_s:g} s"
            self._patience_s = min(self._patience_s, ANSWER_AFTER_SILENCE_S)
            raise DownloadError(msg) from error
        except _FAILURES as error:
            raise DownloadError(_reason(error)) from error
        return answer

    def authorize(self, request: urllib.request.Request) -> None:
        """Adds the credentials of the request's host; a redirect to another host does not inherit them."""
        credentials = self._credentials.get(request.host)
        if credentials is None:
            with contextlib.suppress(OSError, UnicodeError, netrc.NetrcParseError):
                known = netrc.netrc().authenticators(request.host.partition(":")[0])
                credentials = None if known is None else (known[0], known[2] or "")
        if credentials is not None:
            token = base64.b64encode(":".join(credentials).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")


def body(answer: http.client.HTTPResponse, most: int, least: int = 0, title: str = "") -> Iterator[bytes]:
    """The body of a response, decompressed, in pieces.

    Args:
        answer: From `HttpClient.open`; closed at the end.
        most: Maximum size in bytes; nothing is read beyond it.
        least: Minimum size in bytes.
        title: Title of a progress bar on a terminal; empty: no bar.

    Raises:
        DownloadError: The body is too long, too short, interrupted, of unknown encoding, or too slow.
    """
    packing = answer.headers.get("Content-Encoding", "identity").lower()
    declared, received, size = answer.length, 0, 0
    expected = f"{most:,} bytes" if most == least else f"at most {most:,} bytes"
    kind = answer.headers.get_content_type()
    begun_s = time.monotonic()
    with answer, tqdm(total=most, unit="B", unit_scale=True, desc=title, disable=None if title else True) as bar:
        if packing not in {"identity", "gzip"}:
            raise DownloadError(f"it comes packed as {packing!r:.40}; expected as it is, or gzip")
        if packing == "identity" and declared is not None and not least <= declared <= most:
            raise DownloadError(f"it offers {printable(f'{declared:,}', 40)} bytes ({kind:.60}); expected {expected}")
        unpacker = zlib.decompressobj(_GZIP) if packing == "gzip" else None
        try:
            while (declared is None or received < declared) and (packed := answer.read1(_CHUNK_BYTES)):
                received += len(packed)
                pieces = [packed] if unpacker is None else _unpacked(unpacker, packed)
                for piece in pieces:
                    size += len(piece)
                    if size > most:
                        raise DownloadError(f"it goes on after {most:,} bytes ({kind:.60}); expected {expected}")
                    bar.update(len(piece))
                    yield piece
                taken_s = time.monotonic() - begun_s
                if taken_s > _BODY_S + received / _SLOWEST_BYTES_PER_S:
                    raise DownloadError(f"it is too slow: {size:,} bytes in {taken_s:.0f} s")
        except _FAILURES as error:
            raise DownloadError(f"it broke off after {size:,} bytes: {_reason(error)}") from error
    is_whole = (declared is None or received == declared) and (unpacker is None or unpacker.eof)
    if size < least or not is_whole:
        whole = expected if declared is None else printable(f"{declared:,}", 40)
        raise DownloadError(f"it ended after {size:,} bytes; expected {whole}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTP and HTTPS only, with the credentials of the new host."""

    def __init__(self, authorize: Callable[[urllib.request.Request], None]) -> None:
        self._authorize = authorize

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("http://", "https://")):
            raise urllib.error.HTTPError(newurl, code, f"redirected to {newurl[:40]}", headers, fp)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            self._authorize(request)
        return request


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Returns the result of `call`, run in a separate thread: name resolution has no time limit."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="download-open", daemon=True).start()
    return future.result(seconds)


def _unpacked(unpacker: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """Pieces of limited size, however large the decompressed data."""
    while packed and not unpacker.eof:
        piece = unpacker.decompress(packed, _CHUNK_BYTES)
        packed = unpacker.unconsumed_tail
        yield piece


def _reason(error: Exception) -> str:
    """The error in one short line of printable characters."""
    if isinstance(error, urllib.error.HTTPError):
        text = f"HTTP Error {error.code}: {error.reason}"
    elif isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _reason(error.reason)
    elif isinstance(error, OSError):
        text = error.strerror or str(error) or type(error).__name__
    else:
        text = f"{type(error).__name__}: {error}"
    return "".join(character if character.isprintable() else " " for character in text)[:160]
