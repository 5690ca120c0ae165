"""Pairing of masks and images by stamp, in all orders of arrival."""

from __future__ import annotations

from feature_frontend.runtime.mask_sync import MaskSynchronizer, PairedMask

_MS = 1_000_000
_FRAME_NS = 33 * _MS
_TIMEOUT_MS = 100.0
_OVERTAKEN = "a later image's mask came instead of its own"
_LATE = "its mask did not come within 100 ms"
_TIME_BACK = "time went back before its mask came"
FrameMatcher = MaskSynchronizer[int, str]


def _image(pairing: FrameMatcher, frame: int, received_s: float = 0.0) -> None:
    pairing.add_image(frame, frame * _FRAME_NS, received_s, _TIMEOUT_MS)


def _mask(pairing: FrameMatcher, frame: int, name: str = "") -> None:
    pairing.add_mask(name or str(frame), frame * _FRAME_NS)


def test_an_image_gets_its_own_mask_whichever_comes_first() -> None:
    pairing = FrameMatcher(4)
    _image(pairing, 1)
    assert pairing.release(0.05) == []
    _mask(pairing, 1)
    assert pairing.release(0.05) == [(1, PairedMask("1", 0.0, ""))]
    _mask(pairing, 2)
    _image(pairing, 2, 0.1)
    assert pairing.release(0.1) == [(2, PairedMask("2", 0.0, ""))]
    assert pairing.next_deadline_s is None


def test_the_waiting_ends_at_the_deadline_with_the_last_mask() -> None:
    pairing = FrameMatcher(4)
    _image(pairing, 1)
    assert pairing.next_deadline_s == 0.1
    assert pairing.release(0.09) == []
    assert pairing.release(0.1) == [(1, PairedMask(None, 0.0, _LATE))]
    _mask(pairing, 1)
    for frame in (2, 3):
        _image(pairing, frame)
        assert pairing.release(0.2) == [(frame, PairedMask("1", 33.0 * (frame - 1), _LATE))]


def test_a_later_mask_ends_the_waiting() -> None:
    # A segmentation at a third of the camera's rate: frames 1 and 2 never get a mask of their own.
    pairing = FrameMatcher(8)
    _mask(pairing, 0)
    for frame in (1, 2, 3, 4):
        _image(pairing, frame)
    assert pairing.release(0.0) == []
    _mask(pairing, 3)
    assert pairing.release(0.0) == [
        (1, PairedMask("0", 33.0, _OVERTAKEN)),
        (2, PairedMask("0", 66.0, _OVERTAKEN)),
        (3, PairedMask("3", 0.0, "")),
    ]
    assert pairing.release(0.1) == [(4, PairedMask("3", 33.0, _LATE))]


def test_no_more_than_the_capacity_waits() -> None:
    pairing = FrameMatcher(3)
    for frame in range(5):
        _image(pairing, frame)
    crowded = PairedMask[str](None, 0.0, "its mask had not come when 3 later images waited")
    assert pairing.release(0.0) == [(0, crowded), (1, crowded)]
    for frame in range(10, 110):
        _mask(pairing, frame)
    assert [found.mask for _, found in pairing.release(0.0)] == [None] * 3
    for frame in (106, 107, 109):
        _image(pairing, frame)
    assert [found.mask for _, found in pairing.release(0.0)] == [None, "107", "109"]


def test_a_bag_that_loops_restarts() -> None:
    for mask_first in (False, True):
        pairing = FrameMatcher(4)
        for frame in (8, 9):
            _mask(pairing, frame, f"old {frame}")
        for frame in (9, 10):
            _image(pairing, frame)
        assert pairing.release(0.0) == [(9, PairedMask("old 9", 0.0, ""))]
        if mask_first:
            _mask(pairing, 0, "new 0")
        _image(pairing, 0)
        if not mask_first:
            assert pairing.release(0.0) == [(10, PairedMask("old 9", 33.0, _TIME_BACK))]
            _mask(pairing, 0, "new 0")
        released = pairing.release(0.0)
        assert released[-1] == (0, PairedMask("new 0", 0.0, ""))
        _image(pairing, 1)
        assert pairing.release(0.0) == []
        _mask(pairing, 1, "new 1")
        assert pairing.release(0.0) == [(1, PairedMask("new 1", 0.0, ""))]


def test_what_still_waits_is_handed_back() -> None:
    pairing = FrameMatcher(2)
    _mask(pairing, 0)
    for frame in (1, 2, 3):
        _image(pairing, frame)
    assert pairing.clear() == [1, 2, 3]
    assert pairing.release(1.0) == []
    _image(pairing, 4)
    assert pairing.release(1.0) == [(4, PairedMask(None, 0.0, _LATE))]


def test_a_malformed_mask_concerns_no_image_but_its_own() -> None:
    pairing = FrameMatcher(4)
    _mask(pairing, 1)
    pairing.refuse_mask("malformed", 1 * _FRAME_NS)  # a good one was there first
    pairing.refuse_mask("malformed", 3 * _FRAME_NS)
    pairing.refuse_mask("malformed", 4 * _FRAME_NS)
    _mask(pairing, 4)  # a good one after all
    for frame in (1, 2):
        _image(pairing, frame)
    assert pairing.release(0.0) == [(1, PairedMask("1", 0.0, "")), (2, PairedMask("1", 33.0, _OVERTAKEN))]
    for frame in (3, 4):
        _image(pairing, frame)
    assert pairing.release(0.0) == [(3, PairedMask("malformed", 0.0, "")), (4, PairedMask("4", 0.0, ""))]
    # One from the future ends no waiting, and one of an image that never came stands in for none.
    for frame in (5, 900):
        pairing.refuse_mask("malformed", frame * _FRAME_NS)
    _image(pairing, 6)
    assert pairing.release(0.0) == []
    assert pairing.release(0.2) == [(6, PairedMask("4", 66.0, _LATE))]
    for frame in range(1000, 2000):
        pairing.refuse_mask("malformed", frame * _FRAME_NS)
    assert len(pairing._refused) == 4
    _image(pairing, 1999)
    assert pairing.clear() == [1999]
    assert not pairing._refused


def test_masks_that_no_image_comes_for_take_bounded_memory() -> None:
    pairing = FrameMatcher(100, max_bytes=30, size=len)
    assert [pairing.add_mask("x" * 10, frame * _FRAME_NS) for frame in range(1, 6)] == [0, 0, 0, 1, 1]
    # The newest stays, however large: its image may be the next.
    assert pairing.add_mask("y" * 100, 6 * _FRAME_NS) == 3
    _image(pairing, 6)
    assert pairing.release(0.0) == [(6, PairedMask("y" * 100, 0.0, ""))]
    pairing = FrameMatcher(4)
    assert [pairing.add_mask("x", frame * _FRAME_NS) for frame in range(1, 7)] == [0, 0, 0, 0, 1, 1]
