"""Time gaps between two images: nothing is matched across them, and merely slow streams are unaffected."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from feature_frontend.errors import ImageError, SnapshotError
from feature_frontend.pipeline.frontend import Frontend, FrontendState
from feature_frontend.pipeline.stream_rhythm import RhythmState, StreamRhythm
from feature_frontend.runtime.snapshot import pack, unpack
from feature_frontend.settings import Settings
from feature_frontend.types import FrameState
from tests.campaign import Campaign
from tests.core.seeded import seeded_extractor
from tests.generated import for_each

_SECOND_NS = 1_000_000_000
_FRAME_NS = _SECOND_NS // 30
# Never reaches the network, which makes a front-end cheap enough for thousands of images.
_BLANK = np.full((32, 32), 7, np.uint8)


def _frontend(**settings: object) -> Frontend:
    given = Settings.from_mapping({"max_num_keypoints": 60, "device": "cpu", "tracker": "chain", **settings})
    return Frontend(seeded_extractor(given), given)


def _cuts(frontend: Frontend, *intervals_s: float) -> list[int]:
    """Which images of a stream with these intervals are first ones, but for the very first."""
    stamps_ns = accumulate((round(interval_s * _SECOND_NS) for interval_s in intervals_s), initial=_SECOND_NS)
    firsts = [frontend.process(_BLANK, stamp_ns).stamp0_ns is None for stamp_ns in stamps_ns]
    assert firsts[0]
    return [index for index, is_first in enumerate(firsts) if is_first and index]


@pytest.mark.parametrize("gap_s", [20.3, 11 * 86_400])
@pytest.mark.parametrize("tracker", ["chain", "persistent"])
def test_nothing_is_matched_across_a_gap(photographs: list[npt.NDArray[np.uint8]], tracker: str, gap_s: float) -> None:
    frontend = _frontend(tracker=tracker)
    image = photographs[0][:200, :300]
    before = [frontend.process(image, index * _FRAME_NS) for index in range(3)][-1]
    assert (before.state, before.resets) == (FrameState.OK, 0)
    stamp_ns = 2 * _FRAME_NS + round(gap_s * _SECOND_NS)
    with pytest.raises(ImageError):
        frontend.process(np.zeros((5, 5), np.uint8), stamp_ns - _FRAME_NS)
    first = frontend.process(image, stamp_ns)
    assert (first.state, first.stamp0_ns, first.resets) == (FrameState.FIRST, None, 1)
    # A refused image between them is none: the last good one counts.
    said = f"{gap_s:g} s have passed since the previous image (max_gap_s is 1)"
    assert first.reason == f"{said}: nothing is matched across"
    assert (len(first.matches), set(first.tracks.ages.tolist())) == (0, {1})
    assert first.tracks.ids.min() > before.tracks.ids.max()
    after = frontend.process(image, stamp_ns + _FRAME_NS)
    assert (after.state, after.reason, after.resets) == (FrameState.OK, "", 1)
    assert set(first.tracks.ids.tolist()) & set(after.tracks.ids.tolist())


def test_a_blank_image_behind_a_gap_says_both() -> None:
    frontend = _frontend()
    for stamp_ns in (0, _FRAME_NS):
        frontend.process(_BLANK, stamp_ns)
    result = frontend.process(_BLANK, 5 * _SECOND_NS)
    assert result.state == FrameState.DEGENERATE
    assert result.reason.startswith("no keypoints: the image is blank")
    assert result.reason.endswith(
        "; 4.96667 s have passed since the previous image (max_gap_s is 1): nothing is matched across"
    )


@pytest.mark.parametrize(
    ("intervals_s", "cuts"),
    [
        ([2.0] * 30, []),
        ([3600.0] * 30, []),
        ([0.03, 20.0, 0.03, 0.03, 20.0, 20.0 * 86_400, 0.03], [2, 5, 6]),
        ([0.03] * 3 + [0.9] * 5, []),
        ([0.5] * 9 + [2.4, 0.5, 2.6, 0.5], [12]),
        ([0.03] * 30 + [2.0] * 30 + [0.03] * 30 + [20.0], [31, 91]),
        ([0.1] * 20 + [0.4] * 4 + [1.9], [25]),
        ([0.1] * 20 + [0.4] * 5 + [1.9], []),
        ([2.0, 1.0, 3.0] * 10, []),
        ([0.0] * 20 + [5.0] * 20, []),
        ([0.03, 0.03, -1.0, 5.0, 5.0], [3]),
    ],
    ids=[
        "0.5 Hz",
        "hourly",
        "gaps",
        "faster than max_gap_s",
        "five medians",
        "other rates",
        "4 of the latest 9",
        "5 of the latest 9",
        "uneven",
        "equal",
        "back",
    ],
)
def test_only_an_interval_out_of_rhythm_is_a_gap(intervals_s: list[float], cuts: list[int]) -> None:
    assert _cuts(_frontend(), *intervals_s) == cuts
    turned_off = [index for index in cuts if intervals_s[index - 1] < 0]
    assert _cuts(_frontend(max_gap_s=0), *intervals_s) == turned_off


def test_after_a_reset_another_stream_may_come() -> None:
    frontend = _frontend()
    assert _cuts(frontend, *[0.03] * 20) == []
    frontend.reset("another folder")
    stamps_ns = [(100 + 2 * index) * _SECOND_NS for index in range(5)]
    assert [frontend.process(_BLANK, stamp_ns).stamp0_ns for stamp_ns in stamps_ns] == [None, *stamps_ns[:-1]]
    assert frontend.resets == 1


@pytest.mark.parametrize("state", [RhythmState((0,)), RhythmState((5,) * 10), RhythmState((), -1)])
def test_a_state_of_no_stream_is_refused(state: RhythmState) -> None:
    with pytest.raises(SnapshotError, match="at most 9 intervals"):
        StreamRhythm().set_state(state)


@dataclass
class _Naive:
    """What the documents say, computed from all intervals of the stream."""

    max_gap_s: float
    stamps_ns: tuple[int, ...] = ()
    previous_ns: int | None = None
    resets: int = 0

    def image(self, stamp_ns: int) -> int | None:
        """Takes an image; the stamp of the one before it, if it is matched with one."""
        before_ns = self.previous_ns
        if before_ns is not None and stamp_ns < before_ns:
            self.reset()
            before_ns = None
        elif before_ns is not None and self._is_cut(stamp_ns):
            self.resets += 1
            before_ns = None
        self.previous_ns = stamp_ns
        self.stamps_ns += (stamp_ns,)
        return before_ns

    def reset(self) -> None:
        self.resets += 1
        self.previous_ns, self.stamps_ns = None, ()

    def _is_cut(self, stamp_ns: int) -> bool:
        stamps_ns = sorted({*self.stamps_ns, stamp_ns})
        intervals_ns = np.diff(stamps_ns).tolist()
        is_new = stamp_ns not in self.stamps_ns
        return bool(is_new and 0 < self.max_gap_s < intervals_ns[-1] / _SECOND_NS and _are_long(intervals_ns)[-1])


def _are_long(intervals_ns: list[int]) -> list[bool]:
    """Which intervals are more than five medians of the 9 usual ones before them, and no second one of another rate."""
    answers: list[bool] = []
    usual: list[int] = []
    for index, interval_ns in enumerate(intervals_ns):
        median = sorted(usual[-9:])[len(usual[-9:]) // 2] if usual else interval_ns
        is_long = interval_ns > 5 * median
        latest = intervals_ns[index - 1] if index and answers[-1] else 0
        if is_long and max(latest, interval_ns) <= 5 * min(latest, interval_ns):
            is_long, usual = False, [latest]
        if not is_long:
            usual.append(interval_ns)
        answers.append(is_long)
    return answers


_INTERVALS_NS = st.one_of(
    st.sampled_from([_FRAME_NS, _SECOND_NS, 2 * _SECOND_NS, 20 * _SECOND_NS]).flatmap(
        lambda usual: st.lists(st.integers(usual // 2, usual * 3 // 2), min_size=1, max_size=15)
    ),
    # From 10 ms to 100 s, each order of magnitude as often.
    st.lists(st.floats(7.0, 11.0).map(lambda digits: round(10**digits)), min_size=1, max_size=8),
    st.lists(st.sampled_from([0, 0, 1, _SECOND_NS + 1, 10 * _SECOND_NS, 10**15]), min_size=1, max_size=3),
    st.lists(st.integers(-5 * _SECOND_NS, -1), min_size=1, max_size=1),
    st.sampled_from(["reset", "bad image", "snapshot"]).map(lambda event: [event]),
)


def test_random_streams_are_cut_as_the_documents_say(campaign: Campaign) -> None:
    frontends = _frontend(), _frontend()
    seen = {"cut": 0, "matched": 0}

    def check(example: tuple[float, list[list[int | str]]]) -> None:
        max_gap_s, parts = example
        frontend, spare = frontends
        frontend.configure(Settings(max_num_keypoints=60, device="cpu", max_gap_s=max_gap_s))
        frontend.reset()
        naive = _Naive(max_gap_s, resets=frontend.resets)
        stamp_ns = 10**15
        for step in (step for part in parts for step in part):
            if step == "reset":
                frontend.reset()
                naive.reset()
            elif step == "bad image":
                with pytest.raises(ImageError):
                    frontend.process(np.zeros((5, 5), np.uint8), stamp_ns)
            elif step == "snapshot":
                settings = frontend.settings
                spare.configure(settings)
                spare.set_state(unpack(pack(frontend.get_state()), FrontendState))
                frontend, spare = spare, frontend
            else:
                assert isinstance(step, int)
                stamp_ns += step
                resets = naive.resets
                result = frontend.process(_BLANK, stamp_ns)
                assert (result.stamp0_ns, result.resets) == (naive.image(stamp_ns), naive.resets)
                seen["cut" if naive.resets > resets else "matched"] += 1

    streams = st.tuples(st.sampled_from([1.0, 1.0, 0.0, 0.001, 30.0]), st.lists(_INTERVALS_NS, max_size=8))
    count = campaign.count(1000, "streams")
    for_each(streams, count, check, campaign.seed)
    assert min(seen.values()) > count // 10


def test_a_steady_stream_is_never_cut_and_a_pause_of_it_always(campaign: Campaign) -> None:
    def check(example: tuple[float, list[float], float]) -> None:
        period_s, shares, pause_s = example
        rhythm = StreamRhythm()
        intervals_ns = [round(period_s * share * _SECOND_NS) for share in shares]
        for interval_ns in intervals_ns:
            assert not rhythm.is_long(interval_ns)
            rhythm.add(interval_ns)
        pause_ns = round(max(pause_s, 7.6 * period_s) * _SECOND_NS)
        assert rhythm.is_long(pause_ns)
        rhythm.add(pause_ns)
        for interval_ns in intervals_ns:
            assert not rhythm.is_long(interval_ns)
            rhythm.add(interval_ns)

    # A jitter of half a period either way.
    jitter = st.lists(st.floats(0.5, 1.5), min_size=1, max_size=40)
    streams = st.tuples(st.floats(0.002, 100.0), jitter, st.floats(1.0, 1e6))
    for_each(streams, campaign.count(2000, "streams"), check, campaign.seed)
