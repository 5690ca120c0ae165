"""Frontend, tracker and queue."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import Features, Matches
from feature_frontend.errors import ImageError, SettingsError
from feature_frontend.models.catalog import AUTO
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.runtime.cuda_graphs import EagerGraphDevice
from feature_frontend.runtime.frame_queue import FrameQueue
from feature_frontend.settings import PARAMETERS, ExtractionSettings, MatchingSettings, Settings
from feature_frontend.settings.parameter import ParameterRecord
from feature_frontend.settings.tracking import TrackingSettings
from feature_frontend.tracking.track_table import TrackTable
from feature_frontend.types import FrameState
from tests.core.seeded import seeded_extractor

Uint8Array = npt.NDArray[np.uint8]
_SECOND_NS = 1_000_000_000


def _features(points: list[tuple[float, float]]) -> Features:
    keypoints = torch.tensor(points, dtype=torch.float32).reshape(-1, 2)
    return Features(keypoints, torch.ones(len(points)), torch.ones((len(points), 4)), 480, 640, "test@00000000")


def _matches(pairs: list[tuple[int, int]]) -> Matches:
    indices = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    values = torch.ones(len(pairs))
    return Matches(indices[:, 0], indices[:, 1], values, values, "test")


def test_convention_velocity_is_px_per_second_along_a_chain() -> None:
    tracker = TrackTable()
    first = tracker.update(_features([(0, 0), (10, 10), (20, 20)]), _matches([]), 0)
    assert first.ids.tolist() == [1, 2, 3]
    assert first.ages.tolist() == [1, 1, 1]
    assert not first.velocities.any()
    second = tracker.update(_features([(22, 20), (5, 5), (0, 3)]), _matches([(2, 0), (0, 2)]), _SECOND_NS // 2)
    assert second.ids.tolist() == [3, 4, 1]
    assert second.ages.tolist() == [2, 1, 2]
    assert second.velocities.tolist() == [[4, 0], [0, 0], [0, 6]]
    assert second.feature_indices.tolist() == [0, 1, 2]
    third = tracker.update(_features([(22, 20)]), _matches([(0, 0)]), _SECOND_NS)
    assert (third.ids.tolist(), third.ages.tolist(), third.gaps.tolist()) == ([3], [3], [0])


def test_convention_ids_start_at_one_and_are_never_reused() -> None:
    tracker = TrackTable()
    seen: set[int] = set()
    first = 1
    for stamp_ns in range(5):
        if stamp_ns == 3:
            tracker.reset()
        ids = set(tracker.update(_features([(1, 1), (2, 2)]), _matches([]), stamp_ns).ids.tolist())
        assert not ids & seen
        assert min(ids) >= first
        first = max(ids) + 1
        seen |= ids


def test_time_that_does_not_advance_gives_no_velocity() -> None:
    tracker = TrackTable()
    tracker.update(_features([(0, 0)]), _matches([]), 5)
    for stamp_ns in (5, 3):
        tracks = tracker.update(_features([(9, 9)]), _matches([(0, 0)]), stamp_ns)
        assert tracks.velocities.tolist() == [[0, 0]]


def test_a_stamp_that_goes_back_restarts_and_one_that_stands_still_is_said(photographs: list[Uint8Array]) -> None:
    settings = Settings(max_num_keypoints=100, tracker="chain")
    frontend = Frontend(seeded_extractor(settings), settings)
    image = photographs[0][:200, :300]
    first = frontend.process(image, 5 * _SECOND_NS)
    again = frontend.process(image, 5 * _SECOND_NS)
    assert again.state == FrameState.OK
    assert again.reason.startswith("the stamp is that of the previous image")
    assert len(again.matches) > 50
    assert not again.tracks.velocities.any()
    looped = frontend.process(image, 2 * _SECOND_NS)
    assert (looped.state, looped.stamp0_ns, len(looped.matches)) == (FrameState.FIRST, None, 0)
    assert looped.reason == "the stamp went back by 3 s, as in a bag that is played again"
    assert not set(looped.tracks.ids.tolist()) & set(first.tracks.ids.tolist())
    following = frontend.process(image, 3 * _SECOND_NS)
    assert (following.state, following.reason, following.stamp0_ns) == (FrameState.OK, "", 2 * _SECOND_NS)


def test_convention_zero_is_the_earlier_image_and_one_the_current(photographs: list[Uint8Array]) -> None:
    settings = Settings(max_num_keypoints=150, tracker="chain")
    frontend = Frontend(seeded_extractor(settings), settings)
    first = frontend.process(photographs[0], 0)
    assert (first.state, first.reason, first.stamp0_ns, len(first.matches)) == (FrameState.FIRST, "", None, 0)
    assert first.keypoints0.shape == (0, 2)
    with pytest.raises(ImageError):
        frontend.process(np.zeros((5, 5), np.uint8), 1)
    again = frontend.process(photographs[0], 2)
    assert (again.state, again.stamp0_ns) == (FrameState.OK, 0)
    assert again.tracks.ids.tolist() == first.tracks.ids.tolist()
    assert torch.equal(again.keypoints0, again.features.keypoints[again.matches.indices1])
    assert min(again.times.extraction_ms, again.times.matching_ms, again.times.tracking_ms) > 0

    blank = frontend.process(np.full((480, 640), 7, np.uint8), 3)
    assert blank.state == FrameState.DEGENERATE
    assert "blank" in blank.reason
    assert len(blank.features) == len(blank.matches) == len(blank.tracks) == 0
    after = frontend.process(photographs[1][:200, :300], 4)
    assert (after.state, len(after.matches)) == (FrameState.OK, 0)
    assert set(after.tracks.ages.tolist()) == {1}
    frontend.reset()
    assert frontend.process(photographs[1], 5).state == FrameState.FIRST


def test_live_settings_act_from_the_next_image_on(photographs: list[Uint8Array]) -> None:
    settings = Settings(max_num_keypoints=50, tracker="chain")
    frontend = Frontend(seeded_extractor(), settings)
    frontend.warm_up(64, 64)
    assert len(frontend.process(photographs[0], 0).features) == 50
    frontend.configure(replace(settings, max_num_keypoints=20, min_similarity=1.0))
    result = frontend.process(photographs[1], 1)
    assert (len(result.features), len(result.matches)) == (20, 0)


# What a parameter of a group may have rebuilt, of `_parts`; nothing for the other groups.
_MAY_BE_NEW: dict[type, set[str]] = {
    ExtractionSettings: {"captured extraction", "captured matching", "captured following"},
    MatchingSettings: {"matcher", "captured matching"},
    TrackingSettings: {"captured following"},
}


def _parts(frontend: Frontend) -> dict[str, list[object]]:
    pairing: Any = frontend._frame_matcher
    execution: Any = frontend.extractor._execution
    frames = execution._frames.values()
    return {
        "extractor": [frontend.extractor, execution, execution._network],
        "pairing": [pairing],
        "matcher": [pairing.matcher],
        "captured extraction": [frame.graph for frame in frames],
        "captured matching": [pairing._matching] if hasattr(pairing, "_matching") else [],
        "captured following": [frame.behind[1] for frame in frames if frame.behind is not None],
    }


def _changed(settings: Settings, capture: ParameterRecord) -> Settings | None:
    """With another value of a parameter; None where no other one goes with the rest."""
    default = capture.default
    # "auto" may stand for what there is.
    texts = [*(choice for choice in capture.choices if choice != AUTO), "another"] if isinstance(default, str) else []
    numbers = [] if isinstance(default, str) else [not default, capture.minimum, default + 1, default / 2]
    for value in [*texts, *numbers]:
        if value != getattr(settings, capture.name):
            with suppress(SettingsError):
                return Settings.from_mapping({**vars(settings), capture.name: value})
    return None


@pytest.mark.parametrize("tracker", ["chain", "persistent"])
def test_a_live_parameter_has_only_that_rebuilt_which_depends_on_it(
    photographs: list[Uint8Array], tracker: str
) -> None:
    settings = Settings(tracker=tracker, max_num_keypoints=20, compile=False, device="cpu")
    frontend = Frontend(seeded_extractor(settings, "cpu", EagerGraphDevice(torch.device("cpu"))), settings)
    table: dict[str, set[str]] = {}
    stamp_ns = 0
    for capture in PARAMETERS.values():
        (group,) = [each for each in Settings.__mro__ if capture.name in vars(each)]
        changed = _changed(settings, capture) if capture.live and not capture.reloads else None
        # The persistent tracker is slow, and the same but for what its own parameters do.
        if changed is None or (tracker == "persistent" and group != TrackingSettings):
            continue
        snapshots = []
        for each in (settings, changed):
            frontend.configure(each)
            for _ in range(2 if tracker == "persistent" else 1):
                stamp_ns += 1
                frontend.process(photographs[0][100:132, 100:140], stamp_ns)
            snapshots.append(_parts(frontend))
        before, after = snapshots
        known = {id(part) for parts in before.values() for part in parts}
        found = {name for name, parts in after.items() if any(id(part) not in known for part in parts)}
        assert found <= _MAY_BE_NEW.get(group, set()) or capture.name == "tracker", (capture.name, found)
        table[capture.name] = found
    assert table["tracker"] >= {"pairing", "matcher"}
    assert "extractor" not in table["tracker"]
    if tracker == "persistent":
        assert table["track_max_gap"] == {"captured following"}
        return
    assert len(table) > 30
    assert table["max_num_keypoints"] == {"captured extraction", "captured matching"}
    assert table["ratio_threshold"] == {"matcher", "captured matching"}
    assert table["track_max_gap"] == set()


def test_a_swapped_model_is_never_matched_across(photographs: list[Uint8Array]) -> None:
    settings = Settings(max_num_keypoints=60, compile=False, device="cpu", tracker="chain")
    frontend = Frontend(seeded_extractor(settings), settings)
    before = [frontend.process(photograph, stamp) for stamp, photograph in enumerate(photographs[:2])][-1]
    old = weakref.ref(frontend.extractor)
    shipped = replace(settings, extractor="silk-vggnp-mu", max_num_keypoints=40)
    frontend.swap_model(Frontend.from_pretrained(shipped), "another model")
    assert old() is None, "the old model is still held"
    assert (frontend._previous, frontend.settings) == (None, shipped)
    with pytest.raises(ImageError):
        frontend.process(np.zeros((5, 5), np.uint8), 2)
    first = frontend.process(photographs[2], 3)
    assert (first.state, first.reason, first.stamp0_ns, len(first.matches)) == (
        FrameState.FIRST,
        "another model",
        None,
        0,
    )
    assert first.features.extractor.startswith("silk-vggnp-mu@")
    assert first.tracks.ids.min() > before.tracks.ids.max()
    again = frontend.process(photographs[2], 4)
    assert (again.state, again.reason, len(again.matches)) == (FrameState.OK, "", 40)
    frontend.reset("asked for")
    assert frontend.process(photographs[2], 5).reason == "asked for"


def test_the_newest_item_wins_a_full_queue() -> None:
    queue: FrameQueue[int] = FrameQueue(1)
    assert [queue.put(item) for item in range(4)] == [None, 0, 1, 2]
    assert (queue.get(), len(queue)) == (3, 0)


def test_a_queue_without_bound_keeps_everything_in_order() -> None:
    queue: FrameQueue[int] = FrameQueue(None)
    assert [queue.put(item) for item in range(100)] == [None] * 100
    assert [queue.get() for _ in range(100)] == list(range(100))


def test_closing_wakes_who_waits() -> None:
    queue: FrameQueue[int] = FrameQueue(1)
    taken: list[int | None] = []
    waiting = threading.Thread(target=lambda: taken.append(queue.get()))
    waiting.start()
    queue.close()
    waiting.join(timeout=5)
    assert taken == [None]
    queue.put(1)
    assert queue.get() is None


def test_closing_returns_what_nobody_has_taken() -> None:
    queue: FrameQueue[int] = FrameQueue(None)
    for item in range(3):
        queue.put(item)
    assert queue.get() == 0
    assert queue.close() == [1, 2]
    assert (queue.close(), len(queue)) == ([], 0)
