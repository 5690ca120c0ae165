"""Where points may be in the next image: several predictions for each, among which the image decides.

A point moves as its neighbours do, or keeps its depth, or keeps its velocity, or is where a detection along its
epipolar line looks like it. None of these is right for all points: neighbours fail for near points in a drive, a depth
for what moves on its own, and a velocity where the camera turns.

With padded shapes, nothing here waits for the device, and no shape depends on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from feature_frontend.geometry.parallax import ViewMotion
from feature_frontend.image.resize import Resize
from feature_frontend.tracking.local_motion import LocalMotion
from feature_frontend.tracking.state import TrackState

__all__ = ["CameraMotion", "Predictions", "along_lines", "camera_motion", "predict", "slopes_of"]

_FEWEST_WITH_DEPTH = 8
# If most points move less by the camera's translation, depths from this step are worse than earlier ones.
_LEAST_PARALLAX_PX = 1.0
# Detections are looked for up to twice the inverse depth of nearly all points that are matched.
# Pairs; fewer say which lines a motion allows, but hardly in which direction it is.
_FEWEST_FOR_DIRECTION = 64
# If this part of the nearest matches' parallax points the wrong way, the translation fits the noise.
_LARGEST_BACKWARD = 0.2
_RANGE_QUANTILES = (0.02, 0.98)
_RANGE_FACTOR = 2.0
_RANGE_MARGIN_PX = 4.0


@dataclass(frozen=True)
class CameraMotion:
    """The camera's motion in this step, and what it says about (C,) points.

    Attributes:
        view: The motion itself.
        is_known: () bool, whether enough pairs determine an epipolar geometry.
        is_clear: () bool, whether the pairs also determine the direction of the translation. If the camera stands
            still or only turns, or sees few points, any direction fits.
        pace: () float64, distance that the camera moved, in the unit of the state's inverse depths; NaN if unknown.
        nearest: () float64, inverse depth of the nearest matches, in units of this step's distance.
        farthest: () float64, that of the farthest ones.
    """

    view: ViewMotion
    is_known: torch.Tensor
    is_clear: torch.Tensor
    pace: torch.Tensor
    nearest: torch.Tensor
    farthest: torch.Tensor

    def expected_inverse_depths(self, state: TrackState) -> torch.Tensor:
        """(C,) float64, in units of this step's distance; NaN if unknown."""
        expected: torch.Tensor = self.pace * state.inverse_depths.double()
        return expected

    def knows_depth(self, state: TrackState) -> torch.Tensor:
        """(C,) bool, whether a point's own depth predicts where it is."""
        return self.is_clear & ~torch.isnan(self.expected_inverse_depths(state))

    def next_inverse_depths(
        self, state: TrackState, points0: torch.Tensor, points1: torch.Tensor, is_measured: torch.Tensor
    ) -> torch.Tensor:
        """(C,) float32 for the next state.

        Args:
            state: Before the step.
            points0: (C, 2) px in the earlier image.
            points1: (C, 2) px in the later image.
            is_measured: (C,) bool, whether the point was seen at both.
        """
        expected = self.expected_inverse_depths(state)
        measured = self.view.inverse_depths(points0, points1)
        known = torch.where(is_measured, measured, expected)
        after = self.view.next_inverse_depths(points0, known).float()
        return torch.where(self.is_clear, after, state.inverse_depths)


@dataclass(frozen=True)
class Predictions:
    """H predictions for each of C points.

    Attributes:
        points: (C, H, 2) float32 px in the current image.
        slopes: (C, H, 2, 2), gradient of the displacement, px per px, as in `LocalMotion.slopes`.
        is_known: (C, H) bool; ignore the others.
    """

    points: torch.Tensor
    slopes: torch.Tensor
    is_known: torch.Tensor

    def select(self, rows: torch.Tensor) -> Predictions:
        """The given points."""
        return Predictions(
            self.points.index_select(0, rows), self.slopes.index_select(0, rows), self.is_known.index_select(0, rows)
        )

    def preceded_by(self, points: torch.Tensor, slopes: torch.Tensor, is_known: torch.Tensor) -> Predictions:
        """With one more prediction, (C, 2), (C, 2, 2) and (C,), before the others."""
        return Predictions(
            torch.cat([points[:, None], self.points], dim=1),
            torch.cat([slopes[:, None], self.slopes], dim=1),
            torch.cat([is_known[:, None], self.is_known], dim=1),
        )

    def followed_by(self, other: Predictions) -> Predictions:
        """With the predictions of the same points behind these."""
        return Predictions(
            torch.cat([self.points, other.points], dim=1),
            torch.cat([self.slopes, other.slopes], dim=1),
            torch.cat([self.is_known, other.is_known], dim=1),
        )

    def first(self) -> torch.Tensor:
        """(C,) int64, the first known prediction; 0 if there is none."""
        return self.is_known.to(torch.uint8).argmax(dim=1)

    def without_unknown(self) -> Predictions:
        """Without predictions that are known for no point; at least one is left."""
        known = self.is_known.any(dim=0)
        columns = known.nonzero()[:, 0] if bool(known.any()) else torch.zeros_like(self.is_known[0, :1].long())
        if len(columns) == self.is_known.shape[1]:
            return self
        return Predictions(
            self.points.index_select(1, columns),
            self.slopes.index_select(1, columns),
            self.is_known.index_select(1, columns),
        )

    def differ(self, within_px: float) -> torch.Tensor:
        """(C,) bool, whether a known prediction is farther than `within_px` from the first known one."""
        offsets = self.points - self.at(self.first())[0][:, None]
        x, y = offsets.unbind(2)
        return ((x * x + y * y > within_px * within_px) & self.is_known).any(dim=1)

    def at(self, choice: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(C, 2) points and (C, 2, 2) slopes of the chosen predictions (C,)."""
        rows = torch.arange(len(choice), device=choice.device) * self.points.shape[1] + choice
        return self.points.flatten(0, 1).index_select(0, rows), self.slopes.flatten(0, 1).index_select(0, rows)


def camera_motion(
    view: ViewMotion,
    is_known: torch.Tensor,
    state: TrackState,
    points0: torch.Tensor,
    points1: torch.Tensor,
    is_used: torch.Tensor,
) -> CameraMotion:
    """Compares the depths of this step's pairs (C, 2) px, of those used (C,), with the earlier ones."""
    depths = view.inverse_depths(points0, points1)
    earlier = state.inverse_depths.double()
    has_both = is_used & ~torch.isnan(earlier) & (state.missed == 0)
    # The nearer half of the points says more about the distance than the farther one.
    is_near = has_both & (earlier >= _quantile(earlier, has_both, 0.5))
    pace = _quantile(depths / earlier, is_near, 0.5)
    pace = torch.where((is_near.sum() >= _FEWEST_WITH_DEPTH) & (pace > 0), pace, torch.nan)
    still, _ = view.move(points0, torch.zeros_like(depths))
    parallax = _quantile((points1 - still).norm(dim=1).double(), is_used, 0.5)
    farthest, nearest = _quantiles(depths, is_used, *_RANGE_QUANTILES)
    is_clear = is_known & (parallax >= _LEAST_PARALLAX_PX) & (farthest >= -_LARGEST_BACKWARD * nearest)
    is_clear &= is_used.sum() >= _FEWEST_FOR_DIRECTION
    return CameraMotion(view, is_known, is_clear, pace, nearest, farthest)


def predict(
    state: TrackState, points: torch.Tensor, resize: Resize, neighbours: LocalMotion, camera: CameraMotion
) -> Predictions:
    """Predictions from the neighbours, from the point's own depth and from its own velocity, in this order.

    Args:
        state: After the previous image.
        points: (C, 2) px, its points in the network's image.
        resize: To the network's image.
        neighbours: Their motion around the points.
        camera: Its motion in this step.
    """
    depths = camera.expected_inverse_depths(state)
    by_depth, growth = camera.view.move(points, depths)
    flown = resize.apply(state.points + state.flows)
    along = camera.view.inverse_depths(points, flown)
    on_line, own_growth = camera.view.move(points, along)
    has_flow = ~torch.isnan(state.flows[:, 0])
    by_velocity = torch.where(camera.is_clear, on_line, flown)
    own_growth = torch.where(camera.is_clear, own_growth, 1.0)
    return Predictions(
        points=torch.stack([points + neighbours.flow, by_depth, by_velocity], dim=1).nan_to_num(0.0),
        slopes=torch.stack(
            [neighbours.slopes, slopes_of(camera, growth), slopes_of(camera, own_growth)], dim=1
        ).nan_to_num(0.0),
        is_known=torch.stack([neighbours.is_known, camera.knows_depth(state), has_flow], dim=1),
    )


def spread(camera: CameraMotion, points: torch.Tensor, is_wanted: torch.Tensor, count: int) -> Predictions:
    """`count` predictions along each epipolar line, evenly over the range of inverse depths."""
    fractions = torch.arange(count, device=points.device) / max(count - 1, 1)
    nearest = _RANGE_FACTOR * camera.nearest
    depths = camera.farthest + fractions * (nearest - camera.farthest)
    every = points.repeat_interleave(count, dim=0)
    places, growth = camera.view.move(every, depths.repeat(len(points)))
    shape = len(points), count
    return Predictions(
        places.reshape(*shape, 2),
        slopes_of(camera, growth).reshape(*shape, 2, 2),
        (camera.is_clear & is_wanted)[:, None].expand(*shape),
    )


def slopes_of(camera: CameraMotion, growth: torch.Tensor) -> torch.Tensor:
    """(C, 2, 2) slopes of surroundings that grow by (C,) factors and turn with the camera."""
    turn = torch.where(camera.is_clear, camera.view.rotation[:2, :2].T, torch.eye(2, device=growth.device)).float()
    identity = torch.eye(2, device=growth.device)
    return growth[:, None, None] * turn - identity


def along_lines(
    camera: CameraMotion,
    points: torch.Tensor,
    detected: torch.Tensor,
    similarity: torch.Tensor,
    farthest_px: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most similar detection along each point's epipolar line, in the range of depths that the image has.

    Args:
        camera: Its motion.
        points: (R, 2) px in the earlier image.
        detected: (K, 2) px in the current image.
        similarity: (R, K), of their descriptors; below -1 for detections that are not available.
        farthest_px: From the line.

    Returns:
        (R,) rows of detections, and (R,) their similarity; -1 if there is none.
    """
    far, _ = camera.view.move(points, camera.farthest.expand(len(points)))
    near, _ = camera.view.move(points, (_RANGE_FACTOR * camera.nearest).expand(len(points)))
    length = (near - far).norm(dim=1, keepdim=True).clamp(min=1e-3)
    along = (near - far) / length
    across = torch.stack([-along[:, 1], along[:, 0]], dim=1)
    offsets = along @ detected.T - (far * along).sum(dim=1, keepdim=True)
    distances = across @ detected.T - (far * across).sum(dim=1, keepdim=True)
    is_near = (distances.abs() <= farthest_px) & (offsets >= -_RANGE_MARGIN_PX)
    is_near &= offsets <= length + _RANGE_MARGIN_PX
    best = torch.where(is_near & camera.is_clear, similarity, -1.0).max(dim=1)
    return best.indices, best.values


def _quantile(values: torch.Tensor, is_used: torch.Tensor, fraction: float) -> torch.Tensor:
    """() of the used values (C,); 0 if none is used."""
    return _quantiles(values, is_used, fraction)[0]


def _quantiles(values: torch.Tensor, is_used: torch.Tensor, *fractions: float) -> list[torch.Tensor]:
    """() each, of the used values (C,); 0 if none is used."""
    ordered = torch.where(is_used, values, torch.inf).sort().values
    count = is_used.sum()
    rows = [((count - 1) * fraction).long().clamp(min=0) for fraction in fractions]
    return [torch.where(count > 0, ordered.index_select(0, row[None])[0], 0.0) for row in rows]
