"""Fits the constants of `PositionNoise`, so that the ellipses hold as many errors as they should.

Covariances are sums of a few parts with these constants as factors, and tracks do not depend on them. So a front-end
runs once for each part, with that factor 1 and the others 0, and all else is done with the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from feature_frontend.extractors.covariances import PositionNoise
from feature_frontend.settings import Settings
from feature_frontend_lab.evaluation.covariances.errors import PositionErrors, TrueFrame, position_errors
from feature_frontend_lab.evaluation.tracks.baselines import FrontendSequence
from feature_frontend_lab.rendering.camera import FloatArray

__all__ = ["ELLIPSES", "TOLERANCES", "fit_noise"]

ELLIPSES = (0.5, 0.9, 0.99)
TOLERANCES = (0.03, 0.02, 0.01)
"""How far from these fractions the errors inside may be."""

_NOTHING = PositionNoise(0.0, 0.0, 0.0, first_factor=0.0, alone_factor=0.0)
_DEGREES = 5.0  # of Student's distribution: errors have heavier tails than a Gaussian
_LIKELIHOOD_WEIGHT = 10.0
_STEPS = 250
_FIRST_STEP = 0.4

Model = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, eq=False)
class _Ends:
    """A part of the covariances of (P,) pairs of consecutive images: of the earlier and of the later position."""

    ends: tuple[FloatArray, FloatArray]

    def over(self, other: _Ends) -> tuple[FloatArray, FloatArray]:
        """(P, 1, 1) ratios, of parts that differ by a factor; 1 where both are 0."""
        traces = [[np.trace(end, axis1=1, axis2=2) for end in part.ends] for part in (self, other)]
        early, late = (
            np.where(below > 0, above / np.where(below > 0, below, 1), 1)[:, None, None]
            for above, below in zip(*traces, strict=True)
        )
        return early, late


def fit_noise(settings: Settings, scenes: Sequence[Sequence[TrueFrame]], with_tracker: bool) -> PositionNoise:
    """The constants for an extractor; those of a detection by `chain`, then those of an alignment by `persistent`.

    Args:
        settings: With the extractor.
        scenes: Rendered images, in order.
        with_tracker: Whether the persistent tracker supports the extractor.
    """

    def parts(tracker: str, *noises: PositionNoise) -> tuple[list[PositionErrors], list[_Ends]]:
        runs = [[_run(replace(settings, tracker=tracker), frames, noise) for frames in scenes] for noise in noises]
        return runs[0], [_Ends(_consecutive(run)) for run in runs]

    plain_noise = replace(_NOTHING, detected_px2=1.0, first_factor=1.0, alone_factor=1.0)
    errors, (plain, shape, falling, zoomed) = parts(
        "chain",
        plain_noise,
        replace(plain_noise, detected_px2=0.0, detected_factor=1.0),
        replace(plain_noise, exponent=1.0),
        replace(plain_noise, zoom_factor=1.0),
    )
    levels, zooms = falling.over(plain), zoomed.over(plain)

    def detected(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        # A weaker point is not more exact.
        (floor, factor, zoom), exponent = np.exp(values[:3]), max(values[3], 0.0)
        early, late = (
            level**exponent * (1 + zoom * (squared - 1)) * (floor * one + factor * shaped)
            for level, squared, one, shaped in zip(levels, zooms, plain.ends, shape.ends, strict=True)
        )
        return early, late

    found = _minimized(detected, errors, [np.log(0.01), np.log(0.02), np.log(20.0), 0.5])
    px2, factor, zoom = np.exp(found[:3]).tolist()
    noise = PositionNoise(px2, factor, max(float(found[3]), 0.0), zoom)
    if not with_tracker:
        return noise
    unaligned = replace(noise, first_factor=0.0, alone_factor=0.0)
    errors, (floor, pixels, detection, whole, zoomed) = parts(
        "persistent",
        replace(_NOTHING, aligned_px2=1.0),
        replace(_NOTHING, aligned_factor=1.0),
        unaligned,
        noise,
        replace(noise, aligned_zoom_factor=1.0),
    )
    zooms = zoomed.over(whole)
    is_first = np.concatenate([one.ages0[one.gaps == 1] == 1 for one in errors])[:, None, None]

    def tracked(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        px2, factor, first, alone, zoom = np.exp(values)
        of_detection = (np.where(is_first, first, alone), alone)
        early, late = (
            (1 + zoom * (squared - 1)) * (px2 * one + factor * pixel + part + scale * (all_of_it - part))
            for squared, one, pixel, part, all_of_it, scale in zip(
                zooms, floor.ends, pixels.ends, detection.ends, whole.ends, of_detection, strict=True
            )
        )
        return early, late

    found = np.exp(_minimized(tracked, errors, [np.log(1e-3), np.log(0.01), np.log(0.2), np.log(3.0), np.log(50.0)]))
    px2, factor, first, alone, zoom = found.tolist()
    return replace(
        noise, aligned_px2=px2, aligned_factor=factor, first_factor=first, alone_factor=alone, aligned_zoom_factor=zoom
    )


def _run(settings: Settings, frames: Sequence[TrueFrame], noise: PositionNoise) -> PositionErrors:
    frontend = FrontendSequence(settings, noise)
    try:
        return position_errors(frontend, frames)
    finally:
        frontend.close()


def _consecutive(errors: Sequence[PositionErrors]) -> tuple[FloatArray, FloatArray]:
    return (
        np.concatenate([one.covariances0[one.gaps == 1] for one in errors]),
        np.concatenate([one.covariances1[one.gaps == 1] for one in errors]),
    )


def _minimized(model: Model, errors: Sequence[PositionErrors], start: Sequence[float]) -> FloatArray:
    """The parameters of the model that meet the fractions on each scene; of these, the most likely ones."""
    vectors = [one.errors[one.gaps == 1] for one in errors]
    scene = np.repeat(np.arange(len(errors)), [len(one) for one in vectors])
    joined = np.concatenate(vectors)

    def loss(values: FloatArray) -> float:
        early, late = model(values)
        covariances = early + late
        squares = (joined * np.linalg.solve(covariances, joined[:, :, None])[:, :, 0]).sum(axis=1)
        inside = -np.expm1(-squares / 2)
        off = [
            ((inside[scene == number] <= ellipse).mean() - ellipse) / tolerance
            for number in range(len(errors))
            for ellipse, tolerance in zip(ELLIPSES, TOLERANCES, strict=True)
        ]
        unlikely = np.log(np.linalg.det(covariances)) / 2 + (_DEGREES + 2) / 2 * np.log1p(squares / _DEGREES)
        return float(np.square(off).sum() / len(errors) + _LIKELIHOOD_WEIGHT * unlikely.mean())

    return _nelder_mead(loss, np.array(start, np.float64))


def _nelder_mead(loss: Callable[[FloatArray], float], start: npt.NDArray[np.float64]) -> FloatArray:
    """Nelder and Mead's simplex (1965), with a fixed number of steps."""
    points = [start, *(start + _FIRST_STEP * axis for axis in np.eye(len(start)))]
    losses = [loss(point) for point in points]
    for _ in range(_STEPS):
        order = np.argsort(losses, kind="stable")
        points, losses = [points[row] for row in order], [losses[row] for row in order]
        centre = np.mean(points[:-1], axis=0)
        tried = centre + (centre - points[-1])
        value = loss(tried)
        if value < losses[0]:
            farther = centre + 2 * (centre - points[-1])
            value_farther = loss(farther)
            points[-1], losses[-1] = (farther, value_farther) if value_farther < value else (tried, value)
        elif value < losses[-2]:
            points[-1], losses[-1] = tried, value
        else:
            nearer = centre + (points[-1] - centre) / 2
            value = loss(nearer)
            if value < losses[-1]:
                points[-1], losses[-1] = nearer, value
            else:
                points = [points[0], *((points[0] + point) / 2 for point in points[1:])]
                losses = [losses[0], *(loss(point) for point in points[1:])]
    return points[int(np.argmin(losses))]
