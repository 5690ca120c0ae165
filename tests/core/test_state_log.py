"""Logging of states that are checked every second: begin, change, repetition, end, flapping."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from feature_frontend.runtime.health import Finding, Level
from feature_frontend.runtime.state_log import StateLog

_WARN = "warning"
_NAMES = {Level.OK: "info", Level.WARN: _WARN, Level.ERROR: "error", Level.STALE: _WARN}


class _Log:
    """A log with its own clock."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, str]] = []
        self.now_s = 0.0
        self._log = StateLog(lambda level, text: self.lines.append((self.now_s, _NAMES[level], text)))

    def second(self, *findings: Finding) -> None:
        self._log.update(findings, self.now_s)
        self.now_s += 1

    def seconds(self, count: int, *findings: Finding) -> None:
        for _ in range(count):
            self.second(*findings)

    def rest(self) -> None:
        self._log.forget()


@pytest.fixture
def log() -> _Log:
    return _Log()


def _refused(text: str = "3 of 40 images refused: too small", level: Level = Level.WARN) -> Finding:
    return Finding("refused", level, text, "no more images are refused")


def test_what_begins_and_ends_is_reported_once_each(log: _Log) -> None:
    log.seconds(5)
    for number in range(10):
        log.second(_refused(f"{number + 1} of {3.5 * number} images refused: too small"))
    log.seconds(100)
    assert log.lines == [
        (5, "warning", "1 of 0.0 images refused: too small"),
        (18, "info", "no more images are refused, after 10 s"),
    ]


def test_what_had_lasted_before_it_was_found_counts(log: _Log) -> None:
    silent = Finding("silence", Level.STALE, "no image for 6 s", "images arrive again", 6.0)
    log.seconds(300, silent)
    log.seconds(10)
    assert log.lines[0][1:] == ("warning", "no image for 6 s")
    assert log.lines[-1][1:] == ("info", "images arrive again, after 5 min")


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["too small", "encoding 'a'"], ["too small", "encoding 'a'"]),
        (["1x1 px", "2x2.5 px"], ["1x1 px"]),
    ],
)
def test_other_words_are_news_and_other_numbers_are_not(log: _Log, texts: Sequence[str], told: Sequence[str]) -> None:
    for text in texts:
        log.seconds(3, _refused(text))
    assert [text for _, _, text in log.lines] == told


def test_only_a_turn_to_the_worse_is_news(log: _Log) -> None:
    for level in (Level.WARN, Level.ERROR, Level.WARN, Level.ERROR):
        log.seconds(4, _refused(level=level))
    assert [kind for _, kind, _ in log.lines] == ["warning", "error"]


def test_of_what_is_good_each_other_text_is_news_and_none_is_repeated(log: _Log) -> None:
    for level, text in ((Level.OK, "fx 500"), (Level.OK, "fx 600"), (Level.WARN, "does not fit"), (Level.OK, "fx 600")):
        log.seconds(1000, Finding("camera_info", level, text))
    log.seconds(100)
    assert [(kind, text) for at_s, kind, text in log.lines if not (kind == "warning" and at_s > 2000)] == [
        ("info", "fx 500"),
        ("info", "fx 600"),
        ("warning", "does not fit"),
        ("info", "fx 600"),
    ]


def test_what_lasts_is_repeated_ever_more_seldom(log: _Log) -> None:
    log.seconds(20_000, _refused())
    times_s = [at_s for at_s, _, _ in log.lines]
    assert times_s[:7] == [0, 60, 120, 240, 480, 960, 1920]
    pauses_s = [later - earlier for earlier, later in pairwise(times_s)]
    assert min(pauses_s) == 60
    assert max(pauses_s) == 3600
    assert len(times_s) < 14


def test_what_comes_and_goes_each_second_is_one_thing_that_lasts(log: _Log) -> None:
    for _ in range(50):
        log.second(_refused())
        log.second()
    log.seconds(10)
    assert [text for _, _, text in log.lines] == [
        "3 of 40 images refused: too small",
        "3 of 40 images refused: too small",
        "no more images are refused, after 99 s",
    ]


@pytest.mark.parametrize(("on_s", "off_s"), [(1, 4), (4, 4), (7, 5), (20, 20)])
@pytest.mark.parametrize("is_on_at_last", [True, False])
def test_no_rhythm_fills_the_log_and_the_last_state_is_reported(
    log: _Log, on_s: int, off_s: int, is_on_at_last: bool
) -> None:
    for _ in range(40):
        log.seconds(on_s, _refused())
        log.seconds(off_s)
    log.seconds(120, *([_refused()] if is_on_at_last else []))
    times_s = [at_s for at_s, _, _ in log.lines]
    assert all(fifth - first >= 60 for first, fifth in zip(times_s, times_s[4:], strict=False))
    assert log.lines[-1][1] == ("warning" if is_on_at_last else "info")
    assert [text for _, _, text in log.lines[:2]] == [
        "3 of 40 images refused: too small",
        f"no more images are refused, after {on_s} s",
    ]


def test_kinds_do_not_share_their_lines(log: _Log) -> None:
    for number in range(20):
        log.seconds(2, *(Finding(f"kind {index}", Level.WARN, f"text {'x' * number}") for index in range(3)))
    assert {sum(text == f"text {'x' * n}" for _, _, text in log.lines) for n in range(4)} == {3}


def test_of_what_is_hidden_nothing_is_said(log: _Log) -> None:
    silent = Finding("silence", Level.STALE, "no image for 6 s", "images arrive again", 6.0, frozenset({"refused"}))
    log.seconds(3, _refused())
    log.seconds(20, silent)
    log.seconds(10, _refused())
    assert [text for _, _, text in log.lines] == [
        "3 of 40 images refused: too small",
        "no image for 6 s",
        "images arrive again, after 26 s",
    ]
    log.seconds(20)
    assert log.lines[-1][2] == "no more images are refused, after 33 s"


def test_a_node_at_rest_says_nothing_and_restarts(log: _Log) -> None:
    log.seconds(3, _refused())
    log.rest()
    log.seconds(10)
    log.rest()
    log.seconds(3, _refused())
    assert [at_s for at_s, _, _ in log.lines] == [0, 13]


def test_what_is_over_without_a_phrase_of_its_own_and_what_others_log(log: _Log) -> None:
    log.seconds(2, Finding("a", Level.WARN, "too hot"), Finding("b", Level.WARN, "told by others", is_logged=False))
    log.seconds(8000, Finding("c", Level.OK, ""))
    assert [text for _, _, text in log.lines] == ["too hot", "over: too hot, after 2 s"]
