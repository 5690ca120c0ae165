"""A long bag in pieces: where it is cut, and how the results of the pieces are joined into those of one run.

The tracker `chain` remembers one image, so its pieces are processed in parallel: each begins some images before its
own, for warming up. The tracker, the rate and the calibration then know what they would know. In these images, which
the piece before has processed too, a track of one is recognised as that of the other by its position. Ids, ages and
counts continue; ids are given in the order of a run without pieces.

What `persistent` remembers no warm-up brings back, so its pieces continue one another (`Part.in_order`), and their
messages are those of one run already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_frontend.sources import PlaybackSettings
from feature_frontend.sources.bag import BagSource
from feature_frontend.sources.bags.rosbags_workarounds import deserialize_cdr
from feature_frontend.sources.playback import DEFAULT_RATE_HZ
from feature_frontend.tools.process.output import BagMessages
from feature_frontend.tools.process.request import Part

__all__ = ["Joiner", "cut", "image_stamps"]

# As many as the input rate in the status is an average of, and more than the rhythm of the stream needs.
WARM_UP_IMAGES = 32
# A point is at the same place in both runs; other points are farther.
_SAME_PX = 0.5
_NS_PER_S = 1_000_000_000
_COUNTS = ("frames_received", "frames_processed", "frames_dropped", "frames_refused")

Message = tuple[str, int, bytes]


def image_stamps(source: BagSource, playback: PlaybackSettings) -> list[int]:
    """The stamps in ns of the images that `playback` selects."""
    count = max(source.frame_count - playback.start, 0)
    count = count if playback.count is None else min(count, playback.count)
    if playback.stamps == "index":
        return [round(index * _NS_PER_S / (playback.rate_hz or DEFAULT_RATE_HZ)) for index in range(count)]
    return list(source.stamps_ns())[playback.start : playback.start + count]


def cut(stamps_ns: Sequence[int], start: int, piece_seconds: float, *, in_order: bool) -> tuple[Part, ...]:
    """The pieces of a bag; one for a bag that is not longer than one and a half.

    Args:
        stamps_ns: Of the images to process.
        start: Position of the first of them in the bag.
        piece_seconds: Length of a piece, s.
        in_order: As in `Part`; otherwise each begins `WARM_UP_IMAGES` earlier, where there are so many.
    """
    if not len(stamps_ns):
        return ()
    # A stamp that goes back belongs to the piece that it is in.
    times = (np.maximum.accumulate(np.asarray(stamps_ns, np.int64)) - stamps_ns[0]) / _NS_PER_S
    number = max(int(times[-1] / piece_seconds + 0.5), 1)
    begins = np.unique(np.searchsorted(times, np.arange(number) * piece_seconds))
    begins = begins[begins < len(times)]
    firsts = begins if in_order else (begins - WARM_UP_IMAGES).clip(0)
    ends: list[int | None] = [start + int(begin) for begin in begins[1:]]
    parts = zip(firsts, begins, [*ends, None], strict=True)
    return tuple(
        Part(index, start + int(first), start + int(begin), end, in_order)
        for index, (first, begin, end) in enumerate(parts)
    )


@dataclass
class _Seen:
    """The tracks of an image in the joined run."""

    ids: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]
    keypoints: npt.NDArray[np.float32]


@dataclass
class _Continuation:
    """How a piece continues the run: what its tracks are there, and what to add to its counts.

    Attributes:
        tracks: For an id of the piece: its id, and what to add to its age and its gaps.
        counts: What to add to each count of a status.
        resets: What to add to the number of resets.
    """

    tracks: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    resets: int = 0


class Joiner:
    """Turns the messages of parallel pieces, in order, into those of one run.

    Args:
        messages: Defines topics and types.
        parts: All pieces.

    Attributes:
        crossing: Number of tracks seen on both sides of a cut by the piece behind it.
        joined: Number of these that continue a track of the piece before.
    """

    def __init__(self, messages: BagMessages, parts: Sequence[Part]) -> None:
        self.crossing = self.joined = 0
        self._messages = messages
        self._kinds = {topic: kind.rpartition("/")[2] for topic, kind in messages.topics.items()}
        self._parts = parts
        self._next_id = 1
        self._seen: dict[int, _Seen] = {}
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._resets = 0

    @property
    def images(self) -> dict[str, int]:
        """Number of images so far, as in `Outcome`."""
        return {name: self._counts[f"frames_{name}"] for name in ("received", "processed", "refused")}

    def join(self, pieces: Iterable[Iterable[Message]]) -> Iterator[Message]:
        """The messages of the joined run; `pieces` are those of each piece, in order, with those for warming up."""
        for part, piece in zip(self._parts, pieces, strict=True):
            frames = enumerate(self._frames(piece), part.first)
            warm_up = [next(frames)[1] for _ in range(part.begin - part.first)]
            continuation = self._continuation(part, warm_up)
            is_last = part.number + 1 == len(self._parts)
            keep_from = math.inf if is_last else self._parts[part.number + 1].first
            self._seen = {index: seen for index, seen in self._seen.items() if index >= keep_from}
            joined = set(continuation.tracks)
            before = self._tracks_in(warm_up[-1]) if warm_up else None
            for index, frame in frames:
                yield from self._rewritten(index, frame, continuation, keep=index >= keep_from)
                after = None if before is None else self._tracks_in(frame)
                if before is not None and after is not None:
                    crossing = set(map(int, before.ids)) & set(map(int, after.ids))
                    self.crossing += len(crossing)
                    self.joined += len(crossing & joined)
                    before = None

    def _frames(self, piece: Iterable[Message]) -> Iterator[list[Message]]:
        """The messages image by image; a status is the last one of its image."""
        frame: list[Message] = []
        for message in piece:
            frame.append(message)
            if self._kinds[message[0]] == "FrameStatus":
                yield frame
                frame = []

    def _continuation(self, part: Part, warm_up: Sequence[list[Message]]) -> _Continuation:
        continuation = _Continuation()
        if not warm_up:
            return continuation
        status = self._read(warm_up[-1][-1])
        continuation.resets = self._resets - int(status.resets)
        continuation.counts = {name: self._counts[name] - int(getattr(status, name)) for name in _COUNTS}
        taken: set[int] = set()
        known: set[int] = set()
        for index in reversed(range(part.first, part.begin)):
            tracks, seen = self._tracks_in(warm_up[index - part.first]), self._seen.get(index)
            if tracks is None or seen is None:
                continue
            # Each track where it was seen last.
            rows = np.flatnonzero([int(one) not in known for one in tracks.ids])
            known.update(int(one) for one in tracks.ids)
            keypoints = tracks.keypoints.reshape(-1, 2)
            for row, other in _nearest(keypoints[rows], seen.keypoints):
                track, joined = int(rows[row]), int(seen.ids[other])
                if joined not in taken:
                    taken.add(joined)
                    age = int(seen.ages[other]) - int(tracks.ages[track])
                    gaps = int(seen.gaps[other]) - int(tracks.gaps[track])
                    continuation.tracks[int(tracks.ids[track])] = (joined, age, gaps)
        return continuation

    def _rewritten(
        self, index: int, frame: Sequence[Message], continuation: _Continuation, *, keep: bool
    ) -> Iterator[Message]:
        for topic, time_ns, data in frame:
            kind = self._kinds[topic]
            if kind in {"Features", "Matches"} and not continuation.resets:
                yield topic, time_ns, data
                continue
            message = self._read((topic, time_ns, data))
            message.resets += continuation.resets
            if kind == "Tracks":
                self._continue(message, continuation)
                if keep:
                    self._seen[index] = _Seen(
                        message.ids,
                        message.ages.astype(np.int64),
                        message.gaps.astype(np.int64),
                        message.keypoints.reshape(-1, 2),
                    )
            elif kind == "FrameStatus":
                for name, more in continuation.counts.items():
                    self._counts[name] = int(getattr(message, name)) + more
                    setattr(message, name, self._counts[name])
                self._resets = int(message.resets)
            yield topic, time_ns, bytes(self._messages.typestore.serialize_cdr(message, self._messages.topics[topic]))

    def _continue(self, tracks: Any, continuation: _Continuation) -> None:
        known = continuation.tracks
        # In ascending order, as they were issued.
        for one in sorted(set(map(int, tracks.ids)) - known.keys()):
            known[one] = (self._next_id, 0, 0)
            self._next_id += 1
        found = [known[int(one)] for one in tracks.ids]
        new = np.array(found, np.int64).reshape(-1, 3)
        tracks.ids = new[:, 0].astype(np.uint64)
        tracks.ages = (tracks.ages + new[:, 1]).astype(np.uint32)
        tracks.gaps = (tracks.gaps + new[:, 2]).clip(0).astype(np.uint32)

    def _tracks_in(self, frame: Sequence[Message]) -> Any:
        return next((self._read(message) for message in frame if self._kinds[message[0]] == "Tracks"), None)

    def _read(self, message: Message) -> Any:
        topic, _, data = message
        return deserialize_cdr(self._messages.typestore, data, self._messages.topics[topic])


def _nearest(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Rows of points that are each other's nearest, within `_SAME_PX`."""
    if not len(one) or not len(other):
        return
    distances = np.hypot(one[:, None, 0] - other[None, :, 0], one[:, None, 1] - other[None, :, 1])
    to_other, to_one = distances.argmin(axis=1), distances.argmin(axis=0)
    for row, column in enumerate(to_other):
        if to_one[column] == row and distances[row, column] <= _SAME_PX:
            yield row, int(column)
