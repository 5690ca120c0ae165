"""Logs findings when they begin, change and end, with few repetitions."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from feature_frontend.runtime.health import Finding, Level

__all__ = ["StateLog"]

# A finding that comes and goes faster than this counts as lasting.
_SETTLED_S = 3.0
_REPEAT_S, _LONGEST_REPEAT_S = 60.0, 3600.0
# Limit per kind and minute: it may begin and end twice in a row before the log waits.
_MOST_LINES, _LINES_PERIOD_S = 4, 60.0
_NUMBER = re.compile(r"\d+(\.\d+)?")
_S_PER_MIN, _S_PER_H = 60, 3600


@dataclass
class _State:
    """State of one kind of finding.

    Attributes:
        latest: The current finding; None while there is none.
        said: The finding as logged last; None if the log has nothing, or says that it is over.
        began_s: When it began.
        gone_s: When it was first missing after that; None while it lasts.
        said_s: When it was logged.
        lines_s: Times of the latest log lines of this kind.
    """

    latest: Finding | None = None
    said: Finding | None = None
    began_s: float = 0.0
    gone_s: float | None = None
    said_s: float = 0.0
    lines_s: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))


class StateLog:
    """Logs findings as they begin, change and end. Not thread-safe.

    A lasting finding is repeated after a minute, and then each time its duration has doubled, at the latest after an
    hour. If only the numbers in the text change, a warning or error is not logged again, but an OK finding is. However
    often a kind comes and goes, it gets at most four lines per minute; the final state is always logged.

    Args:
        log: Called with a level and a line: WARN and STALE are warnings, OK is information.
    """

    def __init__(self, log: Callable[[Level, str], None]) -> None:
        self._log = log
        self._states: dict[str, _State] = {}

    def update(self, findings: Sequence[Finding], now_s: float) -> None:
        """Updates the log with all findings at `now_s`, s on the monotonic clock; call about once per second."""
        present = {finding.kind: finding for finding in findings if finding.text and finding.is_logged}
        hidden = frozenset[str]().union(*(finding.hides for finding in present.values()))
        for kind in [*present, *(kind for kind in self._states if kind not in present)]:
            state = self._states.setdefault(kind, _State())
            if kind in present:
                self._lasts(state, present[kind], now_s)
            elif kind in hidden:
                state.gone_s = None
            elif state.latest is not None:
                self._is_missing(state, state.latest, now_s)

    def forget(self) -> None:
        """Discards all state without logging, for a deactivated node."""
        for state in self._states.values():
            state.latest = state.said = state.gone_s = None

    def _lasts(self, state: _State, finding: Finding, now_s: float) -> None:
        if state.latest is None:
            state.began_s = now_s - finding.lasted_s
        state.latest, state.gone_s = finding, None
        said = state.said
        if said is None or _is_news(finding, said):
            self._say(state, finding.level, finding.text, finding, now_s)
        elif finding.level > Level.OK:
            pause_s = min(max(_REPEAT_S, state.said_s - state.began_s), _LONGEST_REPEAT_S)
            if now_s - state.said_s >= pause_s:
                # Keep the worst level: only a further deterioration is news.
                worst = replace(finding, level=max(finding.level, said.level))
                self._say(state, finding.level, finding.text, worst, now_s)

    def _is_missing(self, state: _State, latest: Finding, now_s: float) -> None:
        state.gone_s = now_s if state.gone_s is None else state.gone_s
        if now_s - state.gone_s < _SETTLED_S:
            return
        if state.said is None or state.said.level == Level.OK:
            state.latest = state.said = None
        else:
            over = latest.over or f"over: {state.said.text}"
            if self._say(state, Level.OK, f"{over}, after {_duration(state.gone_s - state.began_s)}", None, now_s):
                state.latest = None

    def _say(self, state: _State, level: Level, text: str, said: Finding | None, now_s: float) -> bool:
        """Logs a line unless this kind has had too many. Returns whether it did."""
        lines_s = state.lines_s
        if len(lines_s) == _MOST_LINES and now_s - lines_s[0] < _LINES_PERIOD_S:
            return False
        lines_s.append(now_s)
        state.said, state.said_s = said, now_s
        self._log(level, text)
        return True


def _is_news(finding: Finding, said: Finding) -> bool:
    if Level.OK in {finding.level, said.level}:
        return (finding.level, finding.text) != (said.level, said.text)
    return finding.level > said.level or _without_numbers(finding.text) != _without_numbers(said.text)


def _without_numbers(text: str) -> str:
    return _NUMBER.sub("#", text)


def _duration(seconds: float) -> str:
    if seconds < 2 * _S_PER_MIN:
        return f"{seconds:.0f} s"
    return f"{seconds / _S_PER_MIN:.0f} min" if seconds < 2 * _S_PER_H else f"{seconds / _S_PER_H:.1f} h"
