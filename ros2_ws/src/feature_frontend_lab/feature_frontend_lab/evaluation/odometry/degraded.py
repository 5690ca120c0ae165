"""Front-ends that are known to be bad, to show that the measure measures: `chain`, spoilt after tracking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from feature_frontend_lab.evaluation.odometry.sequences import TrackedSequence
from feature_frontend_lab.odometry.views import TrackedView

__all__ = ["DEGRADED", "DEGRADED_TRACKER", "degrade", "is_degraded"]

DEGRADED_TRACKER = "chain"
"""The tracker whose tracks are spoilt."""

_JUMP_PX = 3.0
_FRACTION_JUMPING = 0.1
_FRACTION_SWAPPED = 0.1


def is_degraded(name: str) -> bool:
    """Whether `name` is one of `DEGRADED`, or several joined by +."""
    return set(name.split("+")) <= DEGRADED.keys()


def degrade(tracked: TrackedSequence, name: str, seed: int) -> TrackedSequence:
    """The sequence with its tracks spoilt as `name`, one of `DEGRADED` or several joined by +, says."""
    rng = np.random.default_rng([seed, len(tracked.views)])
    views = tracked.views
    for part in name.split("+"):
        spoil = DEGRADED[part](rng)
        views = [spoil(view) for view in views]
    return replace(tracked, views=views)


def _jumping(rng: np.random.Generator) -> Callable[[TrackedView], TrackedView]:
    """In each image, a tenth of the tracks slips by 3 px in a random direction and goes on from there."""
    slipped: dict[int, npt.NDArray[np.float64]] = {}

    def spoil(view: TrackedView) -> TrackedView:
        jumps = rng.random(len(view.ids)) < _FRACTION_JUMPING
        angles = rng.uniform(0, 2 * np.pi, len(view.ids))
        steps = _JUMP_PX * view.px * np.column_stack([np.cos(angles), np.sin(angles)]) * jumps[:, None]
        rays = view.rays.copy()
        for row, track in enumerate(view.ids.tolist()):
            slipped[track] = slipped.get(track, np.zeros(2)) + steps[row]
            rays[row] += slipped[track]
        return replace(view, rays=rays)

    return spoil


def _swapped(rng: np.random.Generator) -> Callable[[TrackedView], TrackedView]:
    """In each image, a tenth of the tracks has the id of another one."""

    def spoil(view: TrackedView) -> TrackedView:
        rows = np.flatnonzero(rng.random(len(view.ids)) < _FRACTION_SWAPPED)
        rays = view.rays.copy()
        rays[rows] = view.rays[np.roll(rows, 1)]
        return replace(view, rays=rays)

    return spoil


DEGRADED: dict[str, Callable[[np.random.Generator], Callable[[TrackedView], TrackedView]]] = {
    "jumped": _jumping,
    "swapped": _swapped,
}
"""Makes a function that spoils one view after another, by name."""
