"""The first state of a visual-inertial odometry: standing still, or in motion.

In motion, the gyroscope's bias follows from the rotations between images (Qin, Li and Shen, "VINS-Mono", T-RO 2018,
section V). Then each sighting of a point gives linear equations in the first velocity, gravity and the distance of the
point (Martinelli, "Closed-form solution of visual-inertial structure from motion", IJCV 2014): no map is needed, and
the scale is there from the start. The accelerometer's bias is taken for 0: in a second or two it hardly shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from feature_frontend.geometry.relative_pose import relative_pose
from feature_frontend_lab.odometry.inertial import GRAVITY, ImuBuffer, Preintegrator
from feature_frontend_lab.odometry.library import gtsam
from feature_frontend_lab.odometry.views import TrackedView, common_rows, median_shift_px

__all__ = ["MotionStart", "is_at_rest", "start_at_rest", "start_in_motion"]

FloatArray = npt.NDArray[np.float64]

# At rest: what a standing IMU's measurements vary by, and tracks by their noise.
_REST_RATE, _REST_ACCELERATION, _REST_SHIFT_PX = 0.03, 0.2, 1.5
_GRAVITY_TOLERANCE = 0.5
_LEAST_MEASUREMENTS = 20
_EYE = np.eye(3)
# In motion: the fewest tracks, the sightings of each, and how sure the first velocity must be.
_LEAST_TRACKS, _LEAST_SIGHTINGS = 25, 3
_MOST_TRACKS = 120
_LEAST_SHIFT_PX = 15.0
_GRAVITY_ERROR = 1.0
_VELOCITY_SIGMA, _VELOCITY_FRACTION = 0.15, 0.1
_RESIDUAL_PX = 3.0
_FRACTION_AHEAD = 0.7
_ROUNDS = 3
_LEAST_DISTANCE = 0.1
_NUDGE = 1e-4


@dataclass(frozen=True, eq=False)
class MotionStart:
    """The states of some views, in a world frame with z up whose origin is the body at the first of them.

    Attributes:
        poses: Body in the world, one for each view.
        velocities: (3,) in the world, m/s, likewise.
        gyroscope_bias: (3,) rad/s.
    """

    poses: Sequence[gtsam.Pose3]
    velocities: Sequence[FloatArray]
    gyroscope_bias: FloatArray


def is_at_rest(views: Sequence[TrackedView], samples: FloatArray) -> bool:
    """Whether neither the tracks moved from the first view to the last nor the IMU (samples (M, 6)) noticed anything.

    Steady driving leaves the IMU as quiet as standing, so tracks must be there and stay where they are.
    """
    if len(samples) < _LEAST_MEASUREMENTS:
        return False
    spread = samples.std(axis=0)
    weight = float(np.linalg.norm(samples[:, 3:].mean(axis=0)))
    return (
        median_shift_px(views[0], views[-1]) < _REST_SHIFT_PX
        and bool((spread[:3] < _REST_RATE).all() and (spread[3:] < _REST_ACCELERATION).all())
        and abs(weight - GRAVITY) < _GRAVITY_TOLERANCE
    )


def start_at_rest(samples: FloatArray) -> MotionStart:
    """The state of a body that stands still, from measurements (M, 6): gravity and the gyroscope's bias are means."""
    mean = samples.mean(axis=0)
    return MotionStart([gtsam.Pose3(_upright(mean[3:]), np.zeros(3))], [np.zeros(3)], mean[:3])


def start_in_motion(
    views: Sequence[TrackedView], imu: ImuBuffer, preintegrator: Preintegrator, body_from_camera: FloatArray
) -> MotionStart | None:
    """The states of a moving body at some views; None if these do not determine them.

    Args:
        views: In ascending order of time, a second or two from the first to the last.
        imu: Covers their times.
        preintegrator: That of the odometry.
        body_from_camera: (4, 4) pose of the camera in the body frame.
    """
    if not median_shift_px(views[0], views[-1]) >= _LEAST_SHIFT_PX and not _have_moved(views):
        return None
    bias = _gyroscope_bias(views, imu, preintegrator, body_from_camera[:3, :3])
    if bias is None:
        return None
    constant = gtsam.imuBias.ConstantBias(np.zeros(3), bias)
    begin_ns = views[0].stamp_ns
    motions = [preintegrator.preintegrate(imu, begin_ns, view.stamp_ns, constant) for view in views]
    times = np.array([motion.deltaTij() for motion in motions])
    rotations = np.array([motion.deltaRij().matrix() for motion in motions])
    falls = np.array([motion.deltaPij() for motion in motions])
    solved = _velocity_and_gravity(views, times, rotations, falls, body_from_camera)
    if solved is None:
        return None
    velocity, gravity = solved
    world = _upright(-gravity)
    down = world.rotate(gravity)
    first_velocity = world.rotate(velocity)
    poses, velocities = [], []
    for motion, time in zip(motions, times.tolist(), strict=True):
        place = first_velocity * time + 0.5 * down * time**2 + world.rotate(motion.deltaPij())
        poses.append(gtsam.Pose3(world.compose(motion.deltaRij()), place))
        velocities.append(first_velocity + down * time + world.rotate(motion.deltaVij()))
    return MotionStart(poses, velocities, bias)


def _have_moved(views: Sequence[TrackedView]) -> bool:
    """Whether the tracks have moved in sum, where few live from the first view to the last."""
    shifts = [median_shift_px(view0, view1) for view0, view1 in pairwise(views)]
    return bool(np.nansum(shifts) >= _LEAST_SHIFT_PX)


def _upright(up: FloatArray) -> gtsam.Rot3:
    """The rotation from body to world that turns `up` (3,) upwards along the shortest way."""
    up = up / np.linalg.norm(up)
    axis = np.cross(up, [0.0, 0.0, 1.0])
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return gtsam.Rot3() if up[2] > 0 else gtsam.Rot3.Expmap(np.array([np.pi, 0, 0]))
    return gtsam.Rot3.Expmap(axis / sine * np.arctan2(sine, up[2]))


def _gyroscope_bias(
    views: Sequence[TrackedView], imu: ImuBuffer, preintegrator: Preintegrator, camera: FloatArray
) -> FloatArray | None:
    """The bias that turns the integrated rotations into those of the images; median over the pairs of views."""
    pairs = []
    for view0, view1 in pairwise(views):
        rows0, rows1 = common_rows(view0, view1)
        found = relative_pose(view0.rays[rows0], view1.rays[rows1], _EYE, view1.px)
        if found is not None and np.count_nonzero(found.inliers) >= _LEAST_TRACKS:
            # From "points of camera 0 to camera 1" to "body 1 in body 0".
            pairs.append((view0.stamp_ns, view1.stamp_ns, gtsam.Rot3(camera @ found.rotation.T @ camera.T)))
    if 2 * len(pairs) < len(views) - 1:
        return None
    bias = np.zeros(3)
    for _ in range(3):
        steps = []
        for begin_ns, end_ns, seen in pairs:
            turns = [
                preintegrator.preintegrate(
                    imu, begin_ns, end_ns, gtsam.imuBias.ConstantBias(np.zeros(3), bias + nudge)
                ).deltaRij()
                for nudge in (np.zeros(3), *_NUDGE * _EYE)
            ]
            slopes = np.column_stack([gtsam.Rot3.Logmap(turns[0].between(turn)) / _NUDGE for turn in turns[1:]])
            steps.append(np.linalg.solve(slopes, gtsam.Rot3.Logmap(turns[0].between(seen))))
        bias = bias + np.median(steps, axis=0)
    return bias


@dataclass(frozen=True, eq=False)
class _Sightings:
    """Of the longest tracks, each sighting but the first, which is its anchor. Directions in the first body's frame.

    Attributes:
        tracks: (N,) number of the track.
        frames: (N,) number of the view.
        directions: (N, 3) unit vectors.
        anchors: (N,) number of the view that saw the track first.
        anchor_directions: (N, 3) unit vectors there.
    """

    tracks: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    directions: FloatArray
    anchors: npt.NDArray[np.int64]
    anchor_directions: FloatArray


def _velocity_and_gravity(
    views: Sequence[TrackedView],
    times: FloatArray,
    rotations: FloatArray,
    falls: FloatArray,
    body_from_camera: FloatArray,
) -> tuple[FloatArray, FloatArray] | None:
    """(3,) first velocity and (3,) gravity in the first body's frame; None if they are not determined well.

    With the unknown distance d of a point from the camera that saw it first, in direction r0 from c0, its direction r
    from a later camera c satisfies r x (c0 + d r0 - c) = 0, where c = v t + g t^2 / 2 + known.
    """
    seen = _sightings(views, rotations @ body_from_camera[:3, :3])
    if seen is None:
        return None
    offsets = falls + rotations @ body_from_camera[:3, 3]
    apart = offsets[seen.anchors] - offsets[seen.frames]
    since = times[seen.anchors] - times[seen.frames]
    since_squared = 0.5 * (times[seen.anchors] ** 2 - times[seen.frames] ** 2)
    cross = _cross_matrices(seen.directions)
    numbers = np.arange(len(since))
    count = int(seen.tracks.max()) + 1
    rows = np.zeros((len(since), 3, 6 + count))
    rows[:, :, :3] = cross * since[:, None, None]
    rows[:, :, 3:6] = cross * since_squared[:, None, None]
    rows[numbers, :, 6 + seen.tracks] = np.einsum("nij,nj->ni", cross, seen.anchor_directions)
    right = -np.einsum("nij,nj->ni", cross, apart)
    weights = np.ones(len(since))
    # Whatever gravity solves it, then, its length being known, only what lies across.
    gravity, sought = np.zeros(3), _EYE
    for stage in range(2):
        system = np.concatenate([rows[:, :, :3], rows[:, :, 3:6] @ sought, rows[:, :, 6:]], axis=2)
        for _ in range(_ROUNDS):
            values = right - rows[:, :, 3:6] @ gravity
            solution, inverse = _least_squares(system, values, weights)
            velocity, distances = solution[:3], solution[3 + sought.shape[1] :]
            found = gravity + sought @ solution[3 : 3 + sought.shape[1]]
            places = seen.anchor_directions * distances[seen.tracks][:, None] + apart
            places += since[:, None] * velocity + since_squared[:, None] * found
            # Errors across the direction, over the distance: angles, in px; weights as of a Cauchy loss.
            far = np.maximum(np.einsum("ni,ni->n", places, seen.directions), _LEAST_DISTANCE)
            angles_px = np.linalg.norm(system @ solution - values, axis=1) / far / views[-1].px
            weights = 1 / (far * views[-1].px * np.sqrt(1 + angles_px**2))
        length = float(np.linalg.norm(found))
        if stage == 0 and abs(length - GRAVITY) > _GRAVITY_ERROR:
            return None
        gravity = found * GRAVITY / length
        sought = np.linalg.svd(gravity[None])[2][1:].T
    error_px = float(np.median(angles_px))
    sigma = float(np.sqrt(np.trace(inverse[:3, :3]))) * max(1.0, error_px)
    is_certain = (
        error_px < _RESIDUAL_PX
        and np.count_nonzero(distances > 0) >= max(_LEAST_TRACKS, _FRACTION_AHEAD * count)
        and sigma < max(_VELOCITY_SIGMA, _VELOCITY_FRACTION * float(np.linalg.norm(velocity)))
    )
    return (velocity, gravity) if is_certain else None


def _least_squares(system: FloatArray, values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(U,) solution and (U, U) inverse of the normal matrix, of equations (N, 3, U) and their right sides (N, 3)."""
    weighted = (system * weights[:, None, None]).reshape(-1, system.shape[2])
    normal = weighted.T @ weighted
    scales = np.sqrt(np.maximum(np.diag(normal), np.finfo(float).tiny))
    inverse = np.linalg.pinv(normal / np.outer(scales, scales), hermitian=True) / np.outer(scales, scales)
    return inverse @ (weighted.T @ (values * weights[:, None]).ravel()), inverse


def _sightings(views: Sequence[TrackedView], cameras: FloatArray) -> _Sightings | None:
    """The sightings; `cameras` (V, 3, 3) turns from a view's camera into the first body's frame. None if too few."""
    ids = np.concatenate([view.ids for view in views])
    frames = np.repeat(np.arange(len(views)), [len(view.ids) for view in views])
    rays = np.concatenate([view.rays for view in views])
    unique, numbers, counts = np.unique(ids, return_inverse=True, return_counts=True)
    longest = np.argsort(-counts, kind="stable")[:_MOST_TRACKS]
    longest = longest[counts[longest] >= _LEAST_SIGHTINGS]
    if len(longest) < _LEAST_TRACKS:
        return None
    renumbered = np.full(len(unique), -1)
    renumbered[longest] = np.arange(len(longest))
    tracks = renumbered[numbers]
    used = np.flatnonzero(tracks >= 0)
    used = used[np.lexsort((frames[used], tracks[used]))]
    tracks, frames = tracks[used], frames[used]
    directions = np.column_stack([rays[used], np.ones(len(used))])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.einsum("nij,nj->ni", cameras[frames], directions)
    _, first = np.unique(tracks, return_index=True)
    anchors = first[tracks]
    later = anchors != np.arange(len(tracks))
    anchors = anchors[later]
    return _Sightings(tracks[later], frames[later], directions[later], frames[anchors], directions[anchors])


def _cross_matrices(vectors: FloatArray) -> FloatArray:
    """(N, 3, 3) matrices of the cross product with vectors (N, 3) from the left."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
