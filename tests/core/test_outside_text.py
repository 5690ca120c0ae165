"""External text and paths: displayed short and printable, opened or refused, never an exception."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.system.files import read_regular_file, user_path
from feature_frontend.system.text import printable, quoted, short_text

_HOSTILE = ("\x1b[2J\x1b]0;owned\x07", "\0", "\udcfc", "\ud800", "\u202egnp.exe", "a\rb", "\x85", "x" * 100_000)


@pytest.mark.parametrize("text", _HOSTILE)
def test_words_of_others_are_short_and_printable(text: str) -> None:
    for shown in (quoted(text), short_text(text), printable(text), str(FeatureFrontendError(f"it says {text}"))):
        assert shown.replace("\n", "").isprintable()
        shown.encode("utf-8")
        assert len(shown) < 4100
    assert len(quoted(text)) < 70
    assert quoted(text).isprintable()
    assert len(short_text(ValueError(text))) < 610


def test_texts_of_libraries_are_cut_to_three_lines() -> None:
    assert short_text(RuntimeError("a\n\n  b\r\nc\nd\n" + "e\n" * 10_000)) == "a\nb\nc ..."
    assert short_text("one line, für alle") == "one line, für alle"
    assert short_text(MemoryError()) == "MemoryError"
    assert printable("names \udcfc and \ud800, tabs\t\nand lines") == "names \\xfc and \\ud800, tabs\\t\nand lines"


def test_paths_of_users_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular_file(user_path("~/file"), 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    refused = {
        "~/file": "5 bytes.* at most 4",
        "~/pipe": "regular file",
        "/dev/zero": "regular file",
        "/proc/self/status": "more than the 0 bytes",
        "~/": "Is a directory",
        "": "Is a directory",
        "~/nothing": "No such file",
        "~nobody-at-all/x.pth": "No such file",
        "~\0/x": "name",
        "~\ud800/x": "name",
        "a\0b": "name",
        "\ud800": "name",
        "x" * 5000: "name too long",
        "x/" * 5000: "name too long",
    }
    for text, reason in refused.items():
        with pytest.raises(OSError, match=reason):
            read_regular_file(user_path(text), 4)
