"""Chooses tracks and ids for a receiver that assumes an id's sightings to be in consecutive images.

Such a receiver assigns every sighting after a gap to the wrong image. So a chosen track is sent as long as it is seen,
and a track that was missing from a single message returns under a new id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["IDS", "Choice", "StickyChoice"]

IDS = 1 << 24
"""Ids wrap around to 0 here: a float32 represents these integers exactly."""


@dataclass(frozen=True)
class Choice:
    """The (K,) tracks of one message that are sent; the others are counted, each by the first reason that applies.

    Attributes:
        rows: (K,) int64, rows of the message.
        ids: (K,) int64 in [0, `IDS`), the published ids.
        without_ray: Ray or keypoint not finite.
        too_young: Younger than `min_age`.
        too_close: Closer than `min_distance_px` to a sent track.
        too_many: Beyond `max_tracks`.
    """

    rows: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    without_ray: int
    too_young: int
    too_close: int
    too_many: int


class StickyChoice:
    """Chooses tracks from successive messages.

    Free places go to the oldest tracks that keep the distance. Chosen tracks that come closer later are both kept.

    Args:
        max_tracks: Maximum number of tracks sent, 1 or more.
        min_age: Minimum number of sightings to be chosen.
        min_distance_px: Minimum distance to all other sent tracks when chosen, px.

    Attributes:
        next_id: Where the search for the next new id starts.
    """

    def __init__(self, max_tracks: int, min_age: int = 1, min_distance_px: float = 0.0) -> None:
        self._max_tracks = max_tracks
        self._min_age = min_age
        self._min_distance_px = min_distance_px
        self.next_id = 0
        self._sent = np.zeros(0, np.int64)
        self.restart()

    def restart(self) -> None:
        """Ends all tracks: future tracks get new ids, whatever their ids in the messages."""
        self._tracks = np.zeros(0, np.uint64)

    def update(
        self,
        tracks: npt.NDArray[np.uint64],
        ages: npt.NDArray[np.uint32],
        keypoints: npt.NDArray[np.float32],
        rays: npt.NDArray[np.float32],
    ) -> Choice:
        """Chooses among the tracks seen in an image.

        Args:
            tracks: (T,) unique ids.
            ages: (T,) number of sightings.
            keypoints: (T, 2) px.
            rays: (T, 2) on the normalised plane. A track without one counts as not seen.
        """
        is_usable = np.isfinite(keypoints).all(axis=1) & np.isfinite(rays).all(axis=1)
        usable = np.flatnonzero(is_usable)
        _, stays, before = np.intersect1d(tracks[usable], self._tracks, assume_unique=True, return_indices=True)
        kept = usable[stays]
        is_candidate = is_usable & (ages >= self._min_age)
        is_candidate[kept] = False
        candidates = np.flatnonzero(is_candidate)
        # Stable sort: of equal age, the first row wins, which has the better score.
        candidates = candidates[np.argsort(-ages[candidates].astype(np.int64), kind="stable")]
        points = keypoints.astype(np.float64)
        new, too_close = self._spread(points[candidates], points[kept])
        rows = np.concatenate([kept, candidates[new]])
        ids = np.concatenate([self._sent[before], self._new_ids(len(new))])
        self._tracks, self._sent = tracks[rows], ids
        return Choice(
            rows=rows,
            ids=ids,
            without_ray=len(tracks) - len(usable),
            too_young=len(usable) - len(kept) - len(candidates),
            too_close=too_close,
            too_many=len(candidates) - len(new) - too_close,
        )

    def _spread(
        self, points: npt.NDArray[np.float64], taken: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Which of `points`, in order, get the free places beside `taken`; and how many others are too close."""
        is_open = np.ones(len(points), np.bool_)
        for point in taken:
            is_open &= self._keeps_distance(points, point)
        new: list[int] = []
        is_new = np.zeros(len(points), np.bool_)
        while len(taken) + len(new) < self._max_tracks and is_open.any():
            new.append(int(np.argmax(is_open)))
            is_new[new[-1]] = True
            is_open &= self._keeps_distance(points, points[new[-1]]) & ~is_new
        return np.array(new, np.int64), int(np.count_nonzero(~is_open & ~is_new))

    def _keeps_distance(self, points: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        distances: npt.NDArray[np.float64] = np.hypot(*(points - other).T)
        return distances >= self._min_distance_px

    def _new_ids(self, count: int) -> npt.NDArray[np.int64]:
        """Ids not in the latest message; the counter wraps around."""
        in_use, new = set(self._sent.tolist()), list[int]()
        while len(new) < count:
            if self.next_id not in in_use:
                new.append(self.next_id)
            self.next_id = (self.next_id + 1) % IDS
        return np.array(new, np.int64)
