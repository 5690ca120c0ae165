"""The rule behind /diagnostics: which window of frames is OK, WARN, ERROR or STALE, and the message."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from feature_frontend.runtime.health import (
    SILENCE_S,
    WINDOW_S,
    Finding,
    FrameFacts,
    Health,
    HealthWindow,
    Level,
    assess,
    findings_of,
)
from feature_frontend.types import FrameState

_GOOD = Health(
    silence_s=0.1,
    has_seen_images=True,
    received=100,
    processed=100,
    input_rate_hz=10.0,
    output_rate_hz=10.0,
    latency_ms=(40.0, 50.0, 60.0),
    keypoints=1000,
    matches=600,
    inlier_ratio=0.8,
)


def _judge(health: Health, *warnings: Finding) -> tuple[Level, str]:
    return assess(health, findings_of(health, warnings))


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({}, Level.OK, "10.0 Hz, 1000 keypoints, 40 ms"),
        ({"inlier_ratio": math.nan}, Level.OK, "10.0 Hz"),
        ({"silence_s": SILENCE_S + 1}, Level.STALE, "no image for 6 s"),
        ({"silence_s": 7.0, "has_seen_images": False}, Level.STALE, "no image yet for 7 s"),
        ({"stalled_s": SILENCE_S + 2}, Level.ERROR, "none has been done with for 7 s"),
        ({"silence_s": 9.0, "stalled_s": 9.0}, Level.ERROR, "none has been done with for 9 s"),
        ({"processed": 99, "refused": 1, "last_refusal": "1x1 px"}, Level.WARN, "1 of 100 images refused: 1x1 px"),
        ({"processed": 40, "refused": 60, "last_refusal": "1x1 px"}, Level.ERROR, "60 of 100 images refused"),
        ({"processed": 60, "dropped": 40}, Level.OK, "10.0 Hz"),
        ({"processed": 49, "dropped": 51}, Level.WARN, "51 of 100 images dropped"),
        ({"blank": 10}, Level.OK, "10.0 Hz"),
        ({"blank": 11}, Level.WARN, "11 of 100 images without keypoints"),
        ({"blank": 51}, Level.ERROR, "51 of 100 images without keypoints"),
        ({"matches": 99}, Level.WARN, "99 matches of 1000 keypoints"),
        ({"matches": 7}, Level.ERROR, "7 matches (median): too few for a pose"),
        ({"inlier_ratio": 0.29}, Level.WARN, "29% of the matches fit a motion"),
    ],
)
def test_the_level_and_its_reason(changes: dict[str, float], level: Level, text: str) -> None:
    judged, message = _judge(replace(_GOOD, **changes))  # type: ignore[arg-type]
    assert (judged, text in message) == (level, True), message


def test_all_reasons_are_reported_the_worst_first() -> None:
    health = replace(_GOOD, processed=49, dropped=51, matches=3)
    fallback = Finding("extractor", Level.WARN, "the fallback is in use")
    level, message = _judge(health, fallback, Finding("none", Level.WARN, ""), Finding("good", Level.OK, "news"))
    assert level == Level.ERROR
    reasons = message.split("; ")
    assert len(reasons) == 3
    assert reasons[0].startswith("3 matches")
    assert reasons[-1] == "the fallback is in use"
    assert _judge(_GOOD, fallback) == (Level.WARN, "the fallback is in use")
    level, message = _judge(replace(_GOOD, silence_s=6.0, processed=49, dropped=51), fallback)
    assert level == Level.STALE
    assert message == "no image for 6 s: is the camera running, and are topic and QoS right?; the fallback is in use"


def _frame(time_s: float, state: FrameState = FrameState.OK, latency_ms: float = 20.0, matches: int = 50) -> FrameFacts:
    keypoints = 0 if state is FrameState.DEGENERATE else 100
    return FrameFacts(time_s, state, state.name.lower(), keypoints, matches, math.nan, latency_ms)


def test_a_window_sums_up_the_latest_frames_only() -> None:
    window = HealthWindow(start_s=100.0)
    assert _judge(window.summary(101.0)) == (Level.OK, "waiting for images")
    assert _judge(window.summary(106.0))[0] == Level.STALE
    for index in range(300):  # 30 s at 10 Hz
        arrived_s = 110.0 + index / 10
        window.arrived(arrived_s)
        state = FrameState.DROPPED if index % 2 else FrameState.OK
        window.add(_frame(arrived_s + index / 1e4, state, latency_ms=index / 10, matches=index))
    health = window.summary(140.0)
    assert health.received == pytest.approx(WINDOW_S * 10, abs=2)
    assert health.processed == health.dropped == pytest.approx(WINDOW_S * 5, abs=1)
    assert health.input_rate_hz == pytest.approx(10.0)
    assert health.output_rate_hz == pytest.approx(5.0, rel=0.01)
    assert health.latency_ms == pytest.approx((24.9, 29.3, 29.7), abs=0.2)
    assert health.matches == pytest.approx(249, abs=2)
    assert math.isnan(health.inlier_ratio)
    assert health.stalled_s == 0
    assert window.summary(1000.0).received == 0


def test_kinds_of_frames_are_distinguished() -> None:
    window = HealthWindow(start_s=0.0)
    for index, state in enumerate(FrameState):
        window.arrived(1.0 + index)
        window.add(_frame(1.1 + index, state, latency_ms=100.0))
    health = window.summary(6.0)
    assert (health.received, health.processed, health.dropped, health.refused, health.blank) == (5, 3, 1, 1, 1)
    assert health.last_refusal == "error"


def test_images_that_nobody_finishes_are_no_silence() -> None:
    window = HealthWindow(start_s=0.0)
    window.arrived(1.0)
    for index in range(100):  # one frame hangs; the queue goes on replacing what waits
        window.arrived(1.1 + index / 10)
        window.add(_frame(1.1 + index / 10, FrameState.DROPPED, latency_ms=100.0))
    health = window.summary(11.1)
    assert health.stalled_s == pytest.approx(10.1)
    assert _judge(health)[0] == Level.ERROR
    window.add(_frame(11.2, latency_ms=10_200.0))
    assert window.summary(11.3).stalled_s == pytest.approx(0.1)
    window.add(_frame(11.4, latency_ms=400.0))
    assert window.summary(11.5).stalled_s == 0
