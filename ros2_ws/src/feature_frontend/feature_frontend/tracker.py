"""Tracks as chains of matches: a keypoint matched to a tracked one takes over its id. State only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_frontend.types import Features, Matches, Tracks

__all__ = ["ChainTracker"]

_NS_PER_S = 1e9


@dataclass(frozen=True)
class _LastFrame:
    stamp_ns: int
    tracks: Tracks


class ChainTracker:
    """Gives every keypoint an id that lives as long as each frame's match finds it again.

    Every keypoint of a frame has a track, a new one of age 1 where nothing matched, so row i of `Tracks` is row i of
    `Features`. Ids start at 1 and are never reused, also across `reset`.
    """

    def __init__(self) -> None:
        self._next_id = 1
        self._last: _LastFrame | None = None

    def reset(self) -> None:
        """Forgets all tracks; ids go on."""
        self._last = None

    def update(self, features: Features, matches: Matches, stamp_ns: int) -> Tracks:
        """Tracks of the current image.

        Args:
            features: Of the current image.
            matches: From the previous image given to `update` to this one; empty for the first.
            stamp_ns: The image's time in ns. Where it does not advance, velocities are zero.
        """
        count = len(features)
        keypoints = features.keypoints.detach().cpu().numpy().astype(np.float32, copy=False)
        ids = np.zeros(count, np.uint64)
        ages = np.ones(count, np.uint32)
        velocities = np.zeros((count, 2), np.float32)
        is_new = np.ones(count, np.bool_)
        if self._last is not None and len(matches):
            rows0, rows1 = (indices.cpu().numpy() for indices in (matches.indices0, matches.indices1))
            last = self._last.tracks
            ids[rows1] = last.ids[rows0]
            ages[rows1] = last.ages[rows0] + np.uint32(1)
            is_new[rows1] = False
            elapsed_s = (stamp_ns - self._last.stamp_ns) / _NS_PER_S
            if elapsed_s > 0:
                velocities[rows1] = (keypoints[rows1] - last.keypoints[rows0]) / np.float32(elapsed_s)
        ids[is_new] = self._issue_ids(int(is_new.sum()))
        tracks = Tracks(
            ids=ids,
            ages=ages,
            gaps=np.zeros(count, np.uint32),
            feature_indices=np.arange(count, dtype=np.uint32),
            keypoints=keypoints,
            velocities=velocities,
        )
        self._last = _LastFrame(stamp_ns, tracks)
        return tracks

    def _issue_ids(self, count: int) -> npt.NDArray[np.uint64]:
        first = self._next_id
        self._next_id += count
        return np.arange(first, self._next_id, dtype=np.uint64)
