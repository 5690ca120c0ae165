"""Reports on stereo images with and without partners."""

from __future__ import annotations

import math

import pytest

from feature_frontend.runtime.stereo_sync import SyncStatistics

_MS = 1_000_000


def _run(left_hz: float, right_hz: float, seconds: float, apart_ms: int = 0) -> tuple[SyncStatistics, float]:
    """Statistics of images that arrive from 100 s on, the right ones stamped later, and the time at the end."""
    found = SyncStatistics(10.0, 100.0)
    for side, rate_hz in enumerate((left_hz, right_hz)):
        for number in range(round(seconds * rate_hz)):
            stamp_ns = round(number / rate_hz * 1000) * _MS + side * apart_ms * _MS
            found.arrived(side, stamp_ns, 100.0 + number / rate_hz)
    return found, 100.0 + seconds


def test_rates_and_differences_are_those_of_the_last_five_seconds() -> None:
    found, now_s = _run(10, 20, 8)
    for number, difference_ms in enumerate((50, 1, -4, 2)):
        found.paired(number * 100 * _MS, number * 100 * _MS + difference_ms * _MS, 102.0 + number)
    found.gave_up(0)
    found.gave_up(1)
    found.gave_up(1)
    summary = found.summary(now_s)
    assert summary.rates_hz == pytest.approx((10, 20), rel=0.03)
    assert (summary.pairs, summary.unpaired, summary.problem) == (4, (1, 2), "")
    # The first pair is too long ago.
    assert (summary.median_difference_ms, summary.largest_difference_ms) == (2.0, 4.0)


def test_images_that_do_not_pair_are_reported_with_their_stamps() -> None:
    found, now_s = _run(10, 10, 6, apart_ms=40)
    assert found.summary(now_s).problem == (
        "no pair for 5 s, though images arrive on the left at 10.0 Hz and on the right at 10.0 Hz: the newest stamps "
        "are 5.900000 and 5.940000 s, 40.000 ms apart, and stereo_slop_ms is 10; are the cameras "
        "triggered together and their clocks set alike?"
    )


@pytest.mark.parametrize(
    ("rates_hz", "expected"),
    [
        ((10, 0), "left images arrive at 10.0 Hz, right ones do not arrive at all"),
        ((0, 4), "right images arrive at 4.0 Hz, left ones do not arrive at all"),
    ],
)
def test_a_side_that_is_missing_is_named(rates_hz: tuple[float, float], expected: str) -> None:
    found, now_s = _run(*rates_hz, 6)
    assert found.summary(now_s).problem == f"no pair for 5 s: {expected}; compare topic and QoS"


def test_silence_and_the_first_seconds_are_no_problem() -> None:
    found, now_s = _run(10, 10, 3, apart_ms=40)
    assert found.summary(now_s).problem == ""
    assert math.isnan(found.summary(now_s).median_difference_ms)
    assert found.summary(now_s + 3).problem.startswith("no pair for 5 s, though")
    later = found.summary(now_s + 10)
    assert (later.problem, later.rates_hz) == ("", (0.0, 0.0))
    assert SyncStatistics(10.0, 100.0).summary(100.0).rates_hz == (0.0, 0.0)
