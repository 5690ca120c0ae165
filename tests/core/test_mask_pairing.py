"""Masks and images joined by stamp, in the orders in which they come."""

from __future__ import annotations

import threading
import time

from feature_frontend.mask_pairing import MaskPairing, PairedMask

_MS = 1_000_000
_FRAME_NS = 33 * _MS


def _now(pairing: MaskPairing[str], frame: int) -> PairedMask[str]:
    return pairing.take(frame * _FRAME_NS, time.monotonic())


def test_an_image_gets_its_own_mask_whichever_comes_first() -> None:
    pairing: MaskPairing[str] = MaskPairing(4)
    pairing.put(_FRAME_NS, "first")
    assert _now(pairing, 1) == PairedMask("first", 0.0, is_own=True, is_overtaken=False)
    found: list[PairedMask[str]] = []
    waiting = threading.Thread(target=lambda: found.append(pairing.take(2 * _FRAME_NS, time.monotonic() + 30)))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    pairing.put(2 * _FRAME_NS, "second")
    waiting.join(5)
    assert found == [PairedMask("second", 0.0, is_own=True, is_overtaken=False)]


def test_the_waiting_ends_at_the_deadline_with_the_last_mask() -> None:
    pairing: MaskPairing[str] = MaskPairing(4)
    start_s = time.monotonic()
    assert pairing.take(_FRAME_NS, start_s + 0.1) == PairedMask(None, 0.0, is_own=False, is_overtaken=False)
    assert 0.1 <= time.monotonic() - start_s < 5
    pairing.put(_FRAME_NS, "first")
    for frame in (2, 3):
        expected = PairedMask("first", 33.0 * (frame - 1), is_own=False, is_overtaken=False)
        assert _now(pairing, frame) == expected


def test_a_later_mask_ends_the_waiting() -> None:
    # A segmentation at a third of the camera's rate: frames 1 and 2 never get a mask of their own.
    pairing: MaskPairing[str] = MaskPairing(4)
    pairing.put(0, "0")
    pairing.put(3 * _FRAME_NS, "3")
    start_s = time.monotonic()
    assert pairing.take(_FRAME_NS, start_s + 30) == PairedMask("0", 33.0, is_own=False, is_overtaken=True)
    assert pairing.take(2 * _FRAME_NS, start_s + 30) == PairedMask("0", 66.0, is_own=False, is_overtaken=True)
    assert pairing.take(3 * _FRAME_NS, start_s + 30) == PairedMask("3", 0.0, is_own=True, is_overtaken=False)
    assert time.monotonic() - start_s < 5


def test_few_masks_are_held() -> None:
    pairing: MaskPairing[str] = MaskPairing(3)
    for frame in range(100):
        pairing.put(frame * _FRAME_NS, str(frame))
    assert len(pairing) == 3
    assert _now(pairing, 50) == PairedMask(None, 0.0, is_own=False, is_overtaken=True)
    assert _now(pairing, 98).mask == "98"
    assert len(pairing) == 2


def test_a_bag_that_loops_begins_anew() -> None:
    for mask_first in (False, True):
        pairing: MaskPairing[str] = MaskPairing(4)
        for frame in (8, 9):
            pairing.put(frame * _FRAME_NS, f"old {frame}")
        assert _now(pairing, 9).mask == "old 9"
        if mask_first:
            pairing.put(0, "new 0")
            assert _now(pairing, 0) == PairedMask("new 0", 0.0, is_own=True, is_overtaken=False)
        else:
            assert _now(pairing, 0) == PairedMask(None, 0.0, is_own=False, is_overtaken=False)
        pairing.put(_FRAME_NS, "new 1")
        assert _now(pairing, 1) == PairedMask("new 1", 0.0, is_own=True, is_overtaken=False)


def test_closing_wakes_who_waits() -> None:
    pairing: MaskPairing[str] = MaskPairing(3)
    found: list[PairedMask[str]] = []
    waiting = threading.Thread(target=lambda: found.append(pairing.take(0, time.monotonic() + 30)))
    waiting.start()
    pairing.close()
    waiting.join(5)
    assert found == [PairedMask(None, 0.0, is_own=False, is_overtaken=False)]
