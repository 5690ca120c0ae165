"""Visual-inertial odometry: a fixed-lag smoother on GTSAM, over smart projection factors and combined IMU factors.

The window holds keyframes and the newest image. Each image is optimized with all of them; it then stays as a keyframe
if its tracks have moved, or else makes room for the next one (Qin, Li and Shen, "VINS-Mono", T-RO 2018). Points are
eliminated in their factors (Carlone et al., ICRA 2014). When the oldest keyframe leaves, what it, the IMU and the
points that have ended say about the others becomes a prior; of points that are still seen, it takes its sighting with
it, so that nothing counts twice. Optimization, elimination and the rejection of wrong points are GTSAM's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from feature_frontend.sources.imu import ImuNoise
from feature_frontend_lab.odometry.inertial import GRAVITY, ImuBuffer, Preintegrator
from feature_frontend_lab.odometry.initialization import MotionStart, is_at_rest, start_at_rest, start_in_motion
from feature_frontend_lab.odometry.library import gtsam
from feature_frontend_lab.odometry.views import TrackedView, common_rows, median_shift_px

__all__ = ["SmootherOptions", "SmootherStep", "VisualInertialSmoother"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_NS_PER_S = 1_000_000_000
# The first state: of position and heading, which are chosen; of roll and pitch; of velocity at rest; of the biases.
_CHOSEN_SIGMA, _TILT_SIGMA, _REST_SIGMA = 1e-3, 0.05, 0.05
_ACCELEROMETER_SIGMA, _GYROSCOPE_SIGMA = 0.2, 0.02
# What no sound estimate exceeds (VINS-Mono's limits), and how many tracks make an image worth a keyframe.
_MOST_ACCELEROMETER_BIAS, _MOST_GYROSCOPE_BIAS = 2.5, 1.0
_LEAST_TRACKS = 15
_REST_NS = _NS_PER_S // 2
# A moving start: the views that it uses, over how long at least, and how long after a failure it is tried again.
_START_VIEWS, _LEAST_START_NS, _TRY_NS = 10, 4 * _NS_PER_S // 5, _NS_PER_S // 4
_NO_START = (
    "the body is neither at rest nor in a motion that shows the scale; if it is, check the pose of the camera, and "
    "units (rad/s, m/s^2) and clock of the IMU"
)


@dataclass(frozen=True)
class SmootherOptions:
    """Settings of the smoother.

    Attributes:
        keyframes: Keyframes in the window, besides the newest image.
        max_points: Points in use that the newest image sees; those seen in most images of the window come first.
        noise_px: Standard deviation of a sighting.
        outlier_px: A point is rejected if one of its sightings is off by more.
        max_distance_m: A point is ignored if it is farther away.
        min_parallax_px: Angle between two sightings of a point from which it is used, as px in the middle of the image.
        keyframe_shift_px: Median movement of the tracks that makes an image a keyframe.
        start_s: Time over which a moving start is sought.
        max_blind_s: Longest time without enough tracks before the odometry starts anew.
    """

    keyframes: int = 12
    max_points: int = 150
    noise_px: float = 1.5
    outlier_px: float = 4.0
    max_distance_m: float = 100.0
    min_parallax_px: float = 3.0
    keyframe_shift_px: float = 40.0
    start_s: float = 2.0
    max_blind_s: float = 3.0


@dataclass(frozen=True, eq=False)
class SmootherStep:
    """Result for one image.

    Attributes:
        pose: (4, 4) body in the world, whose z points up; None before the start and after a loss.
        velocity: (3,) of the body in the world, m/s.
        gyroscope_bias: (3,) rad/s.
        accelerometer_bias: (3,) m/s^2.
        points: Points in use.
        rejected: Points among them that GTSAM rejected: they fit no place, or lie behind a camera.
        lost: Why the odometry was lost with this image, to start anew; usually empty.
        waiting: Why it has not started yet; empty if it has, or if too little has been seen to tell.
    """

    pose: FloatArray | None = None
    velocity: FloatArray | None = None
    gyroscope_bias: FloatArray | None = None
    accelerometer_bias: FloatArray | None = None
    points: int = 0
    rejected: int = 0
    lost: str = ""
    waiting: str = ""


@dataclass(eq=False)
class _State:
    """An image in the window.

    Attributes:
        number: Part of its keys.
        view: Its tracks.
        is_keyframe: Whether it stays.
        motion: Preintegrated from the state before it; None for the first.
    """

    number: int
    view: TrackedView
    is_keyframe: bool
    motion: gtsam.PreintegratedCombinedMeasurements | None

    @property
    def keys(self) -> tuple[int, int, int]:
        """Keys of pose, velocity and bias."""
        return _pose_key(self.number), _velocity_key(self.number), _bias_key(self.number)


def _pose_key(number: int) -> int:
    return int(gtsam.symbol("x", number))


def _velocity_key(number: int) -> int:
    return int(gtsam.symbol("v", number))


def _bias_key(number: int) -> int:
    return int(gtsam.symbol("b", number))


class VisualInertialSmoother:
    """Takes measurements of the IMU, and one image after another once the IMU has measured up to its stamp.

    Args:
        body_from_camera: (4, 4) pose of the camera's optical frame in the IMU's frame.
        noise: Noise of the IMU; None for that of a small MEMS one.
        options: Settings.
    """

    def __init__(
        self, body_from_camera: FloatArray, noise: ImuNoise | None = None, options: SmootherOptions | None = None
    ) -> None:
        self._options = options or SmootherOptions()
        self._body_from_camera = np.asarray(body_from_camera, np.float64)
        self._extrinsic = gtsam.Pose3(self._body_from_camera)
        self._preintegrator = Preintegrator(noise)
        self.imu = ImuBuffer()
        self._waiting: list[TrackedView] = []
        self._states: list[_State] = []
        self._values = gtsam.Values()
        self._prior = gtsam.NonlinearFactorGraph()
        self._points: set[int] = set()
        self._retired = 0
        self._smart: dict[int, tuple[gtsam.SmartProjectionPoseFactorCal3_S2, set[int]]] = {}
        self._next = 0
        self._seen_ns = self._next_try_ns = 0
        self._is_resting = False
        self._last_pose = gtsam.Pose3()

    def update(self, view: TrackedView) -> SmootherStep:
        """Processes the next image. Its pose is None until the start, and where the odometry is lost.

        Args:
            view: Later than the one before; the IMU has measured up to its stamp.
        """
        before = self._states[-1].view if self._states else self._waiting[-1] if self._waiting else None
        if before is not None:
            if view.stamp_ns <= before.stamp_ns:
                return self._lose(f"an image at {view.stamp_ns} ns came after one at {before.stamp_ns} ns", view)
            if not self.imu.covers(before.stamp_ns, view.stamp_ns):
                return self._lose("the IMU was silent for more than 0.1 s between two images", view)
        if self._is_resting:
            step = self._rest(view)
            if step is not None:
                return step
        if not self._states:
            return self._start(view)
        if view.stamp_ns - self._seen_ns > self._options.max_blind_s * _NS_PER_S:
            return self._lose(f"no image had {_LEAST_TRACKS} tracks for {self._options.max_blind_s:g} s", view)
        if len(view.ids) >= _LEAST_TRACKS:
            self._seen_ns = view.stamp_ns
        try:
            self._append(view)
            self._optimize()
            lost = self._fault()
            if lost:
                return self._lose(lost, view)
            step = self._step()
            self._slide()
        except RuntimeError as error:  # GTSAM's, for a system that cannot be solved
            return self._lose(f"the estimate diverged ({str(error).strip().splitlines()[0]})", view)
        self.imu.forget_before(self._states[-2].view.stamp_ns if len(self._states) > 1 else view.stamp_ns)
        return step

    def forget_tracks(self) -> None:
        """Tells that the ids seen so far mean nothing from now on: the same numbers are other points."""
        old = np.unique(np.concatenate([np.zeros(0, np.int64), *(state.view.ids for state in self._states)]))
        old = old[old >= 0]
        renamed = dict(zip(old.tolist(), range(-1 - self._retired, -1 - self._retired - len(old), -1), strict=True))
        self._retired += len(old)
        for state in self._states:
            ids = np.array([renamed.get(number, number) for number in state.view.ids.tolist()], np.int64)
            state.view = replace(state.view, ids=ids)
        self._points = {renamed.get(number, number) for number in self._points}
        self._waiting.clear()

    def _lose(self, why: str, view: TrackedView) -> SmootherStep:
        was_running = bool(self._states)
        if was_running and all(self._values.exists(key) for key in self._states[-1].keys):
            pose = self._values.atPose3(self._states[-1].keys[0])
            if np.isfinite(pose.matrix()).all():
                self._last_pose = pose
        self._states, self._waiting, self._is_resting = [], [view], False
        self._next_try_ns = 0
        self._points = set()
        return SmootherStep(lost=why) if was_running else SmootherStep(waiting=why)

    # Start

    def _start(self, view: TrackedView) -> SmootherStep:
        self._waiting.append(view)
        begin_ns = view.stamp_ns - round(self._options.start_s * _NS_PER_S)
        self._waiting = [waiting for waiting in self._waiting if waiting.stamp_ns >= begin_ns]
        self.imu.forget_before(self._waiting[0].stamp_ns)
        start = self._start_at_rest() or self._start_in_motion()
        if start is None:
            return SmootherStep(waiting=self._why_no_start())
        views, states, is_at_rest = start
        self._begin(views, states, is_at_rest)
        try:
            self._optimize()
        except RuntimeError:
            return self._reject_start()
        step = self._step()
        if self._fault() or (not is_at_rest and step.rejected > 0.5 * step.points):
            return self._reject_start()
        self._is_resting = is_at_rest
        if not is_at_rest:
            self._waiting.clear()
        return step

    def _rest(self, view: TrackedView) -> SmootherStep | None:
        """Starts at rest once more, where the body is, for as long as it stays there; None once it moves."""
        self._waiting = [waiting for waiting in self._waiting if waiting.stamp_ns >= view.stamp_ns - _REST_NS]
        self._waiting.append(view)
        self.imu.forget_before(self._waiting[0].stamp_ns)
        start = self._start_at_rest()
        if start is None:
            self._is_resting = False
            self._waiting.clear()
            return None
        self._last_pose = self._values.atPose3(self._states[-1].keys[0])
        self._begin(*start)
        self._smart = {}
        return self._step()

    def _reject_start(self) -> SmootherStep:
        self._states = []
        self._points = set()
        return SmootherStep(waiting=_NO_START)

    def _why_no_start(self) -> str:
        begin_ns, end_ns = self._waiting[0].stamp_ns, self._waiting[-1].stamp_ns
        if end_ns - begin_ns < _LEAST_START_NS:
            return ""
        weight = float(np.linalg.norm(self.imu.samples(begin_ns, end_ns)[:, 3:], axis=1).mean())
        if not 0.5 * GRAVITY < weight < 2 * GRAVITY:
            return f"the accelerometer measures {weight:.3g} m/s^2 on average; expected about {GRAVITY}, with gravity"
        few = sum(len(view.ids) < _LEAST_TRACKS for view in self._waiting)
        if 2 * few > len(self._waiting):
            return f"{few} of the latest {len(self._waiting)} images have fewer than {_LEAST_TRACKS} tracks with a ray"
        return _NO_START

    def _start_at_rest(self) -> tuple[Sequence[TrackedView], MotionStart, bool] | None:
        end_ns = self._waiting[-1].stamp_ns
        views = [view for view in self._waiting if view.stamp_ns >= end_ns - _REST_NS]
        if end_ns - views[0].stamp_ns < 0.8 * _REST_NS:
            return None
        samples = self.imu.samples(views[0].stamp_ns, end_ns)
        return ([views[-1]], start_at_rest(samples), True) if is_at_rest(views, samples) else None

    def _start_in_motion(self) -> tuple[Sequence[TrackedView], MotionStart, bool] | None:
        views = [view for view in self._waiting if len(view.ids) >= _LEAST_TRACKS]
        end_ns = self._waiting[-1].stamp_ns
        if len(views) < _START_VIEWS or end_ns - views[0].stamp_ns < _LEAST_START_NS or end_ns < self._next_try_ns:
            return None
        self._next_try_ns = end_ns + _TRY_NS
        chosen = [views[row] for row in np.unique(np.linspace(0, len(views) - 1, _START_VIEWS).round().astype(int))]
        start = start_in_motion(chosen, self.imu, self._preintegrator, self._body_from_camera)
        return None if start is None else (chosen, start, False)

    def _begin(self, views: Sequence[TrackedView], start: MotionStart, is_at_rest: bool) -> None:
        """Fills the window; the first state gets a prior. It is put where the odometry was lost, if it was."""
        turned = gtsam.Rot3.Yaw(self._last_pose.rotation().yaw() - start.poses[0].rotation().yaw())
        world = gtsam.Pose3(turned, self._last_pose.translation() - turned.rotate(start.poses[0].translation()))
        bias = gtsam.imuBias.ConstantBias(np.zeros(3), start.gyroscope_bias)
        self._values = gtsam.Values()
        self._states = []
        self._seen_ns = views[-1].stamp_ns
        for view, pose, velocity in zip(views, start.poses, start.velocities, strict=True):
            motion = None
            if self._states:
                begin_ns = self._states[-1].view.stamp_ns
                motion = self._preintegrator.preintegrate(self.imu, begin_ns, view.stamp_ns, bias)
            state = _State(self._next, view, True, motion)
            self._next += 1
            self._insert(state, world.compose(pose), turned.rotate(velocity), bias)
            self._states.append(state)
            self._choose_points()
        first = self._states[0]
        pose = self._values.atPose3(first.keys[0])
        to_body = pose.rotation().matrix().T
        tilt = to_body @ np.diag([_TILT_SIGMA**2, _TILT_SIGMA**2, _CHOSEN_SIGMA**2]) @ to_body.T
        covariance = np.zeros((6, 6))
        covariance[:3, :3], covariance[3:, 3:] = tilt, _CHOSEN_SIGMA**2 * np.eye(3)
        sigmas = np.repeat([_ACCELEROMETER_SIGMA, _GYROSCOPE_SIGMA], 3)
        self._prior = gtsam.NonlinearFactorGraph()
        self._prior.addPriorPose3(first.keys[0], pose, gtsam.noiseModel.Gaussian.Covariance(covariance))
        self._prior.addPriorConstantBias(first.keys[2], bias, gtsam.noiseModel.Diagonal.Sigmas(sigmas))
        if is_at_rest:
            at_rest = gtsam.noiseModel.Isotropic.Sigma(3, _REST_SIGMA)
            self._prior.addPriorVector(first.keys[1], np.zeros(3), at_rest)

    # The window

    def _insert(self, state: _State, pose: gtsam.Pose3, velocity: FloatArray, bias: gtsam.imuBias.ConstantBias) -> None:
        pose_key, velocity_key, bias_key = state.keys
        self._values.insert(pose_key, pose)
        self._values.insert(velocity_key, velocity)
        self._values.insert(bias_key, bias)

    def _append(self, view: TrackedView) -> None:
        """Adds the newest image, instead of the one before it if that is no keyframe."""
        dropped = None if self._states[-1].is_keyframe else self._states.pop()
        last = self._states[-1]
        begin = dropped or last
        pose, velocity, bias = self._state_values(begin)
        onward = self._preintegrator.preintegrate(self.imu, begin.view.stamp_ns, view.stamp_ns, bias)
        predicted = onward.predict(gtsam.NavState(pose, velocity), bias)
        motion = onward
        if dropped is not None:
            motion = self._preintegrator.preintegrate(self.imu, last.view.stamp_ns, view.stamp_ns, bias)
            for key in dropped.keys:
                self._values.erase(key)
        state = _State(self._next, view, self._is_keyframe(view), motion)
        self._next += 1
        self._insert(state, predicted.pose(), predicted.velocity(), bias)
        self._states.append(state)
        self._choose_points()

    def _state_values(self, state: _State) -> tuple[gtsam.Pose3, FloatArray, gtsam.imuBias.ConstantBias]:
        pose_key, velocity_key, bias_key = state.keys
        values = self._values
        return values.atPose3(pose_key), values.atVector(velocity_key), values.atConstantBias(bias_key)

    def _is_keyframe(self, view: TrackedView) -> bool:
        """Whether the tracks have moved since the last keyframe, or half of them are new; never a blind image."""
        last = self._states[-1].view
        if len(view.ids) < _LEAST_TRACKS:
            return False
        shared = len(common_rows(last, view)[0])
        return shared < 0.5 * len(last.ids) or median_shift_px(last, view) > self._options.keyframe_shift_px

    def _choose_points(self) -> None:
        """Fills up the points in use with the tracks of the newest image that were seen most often in the window."""
        newest = self._states[-1].view.ids
        unused = np.array([number not in self._points for number in newest.tolist()], np.bool_)
        free = self._options.max_points - np.count_nonzero(~unused)
        if free <= 0 or len(self._states) < 2:
            return
        candidates = newest[unused]
        before = np.concatenate([state.view.ids for state in self._states[:-1]])
        sightings = np.bincount(np.searchsorted(candidates, before[np.isin(before, candidates)]), minlength=1)
        sightings = np.pad(sightings, (0, len(candidates) - min(len(sightings), len(candidates))))[: len(candidates)]
        order = np.argsort(-sightings, kind="stable")[:free]
        self._points.update(candidates[order[sightings[order] > 0]].tolist())

    def _smart_factors(self) -> dict[int, tuple[gtsam.SmartProjectionPoseFactorCal3_S2, set[int]]]:
        """The factor of each point in use that was seen from different places, and the numbers of the states it is for.

        Without parallax, noise decides where a point is, and GTSAM's test of the rank does not notice.
        """
        options, px = self._options, self._states[-1].view.px
        params = gtsam.SmartProjectionParams(
            gtsam.LinearizationMode.HESSIAN, gtsam.DegeneracyMode.ZERO_ON_DEGENERACY, False, False, 1e-3
        )
        params.setDynamicOutlierRejectionThreshold(options.outlier_px)
        params.setLandmarkDistanceThreshold(options.max_distance_m)
        noise = gtsam.noiseModel.Isotropic.Sigma(2, options.noise_px)
        # Pixels, as the thresholds of GTSAM's triangulation are meant for them.
        camera = gtsam.Cal3_S2(1 / px, 1 / px, 0, 0, 0)
        tracks, numbers, points, directions = self._sightings()
        first = np.flatnonzero(np.diff(tracks, prepend=tracks[:1] - 1))
        counts = np.diff(first, append=len(tracks))
        from_first = np.linalg.norm(directions - np.repeat(directions[first], counts, axis=0), axis=1)
        factors = {}
        for begin, count in zip(first.tolist(), counts.tolist(), strict=True):
            end = begin + count
            if from_first[begin:end].max() < options.min_parallax_px * px:
                continue
            factor = gtsam.SmartProjectionPoseFactorCal3_S2(noise, camera, self._extrinsic, params)
            seen = numbers[begin:end].tolist()
            for number, point in zip(seen, points[begin:end], strict=True):
                factor.add(point, _pose_key(number))
            factors[int(tracks[begin])] = factor, set(seen)
        return factors

    def _sightings(self) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """All sightings of the points in use, by point and then in order of time.

        Returns:
            (S,) ids of the points; (S,) numbers of the states; (S, 2) px from the principal point; (S, 3) unit vectors
            in the world.
        """
        # One size of a pixel for all, whatever each view found: the camera of the factors is one.
        used, px = np.array(sorted(self._points), np.int64), self._states[-1].view.px
        ids, numbers, points, directions = [], [], [], []
        for state in self._states:
            rows = np.flatnonzero(np.isin(state.view.ids, used, assume_unique=True))
            rays = state.view.rays[rows]
            camera = self._values.atPose3(state.keys[0]).rotation().matrix() @ self._body_from_camera[:3, :3]
            vectors = np.column_stack([rays, np.ones(len(rays))]) @ camera.T
            ids.append(state.view.ids[rows])
            numbers.append(np.full(len(rows), state.number))
            points.append(rays / px)
            directions.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        tracks = np.concatenate(ids)
        order = np.argsort(tracks, kind="stable")
        return (
            tracks[order],
            np.concatenate(numbers)[order],
            np.concatenate(points)[order],
            np.concatenate(directions)[order],
        )

    def _optimize(self) -> None:
        self._smart = self._smart_factors()
        graph = gtsam.NonlinearFactorGraph(self._prior)
        for before, state in pairwise(self._states):
            graph.add(_imu_factor(before, state))
        for factor, _ in self._smart.values():
            graph.add(factor)
        params = gtsam.LevenbergMarquardtParams()
        params.setMaxIterations(8)
        params.setRelativeErrorTol(1e-4)
        self._values = gtsam.LevenbergMarquardtOptimizer(graph, self._values, params).optimize()

    def _fault(self) -> str:
        """What shows that the estimate is wrong; empty if nothing does."""
        pose, velocity, bias = self._state_values(self._states[-1])
        if not np.isfinite([*pose.matrix().ravel(), *velocity, *bias.vector()]).all():
            return "the estimate is not finite"
        accelerometer, gyroscope = (float(np.linalg.norm(part)) for part in (bias.accelerometer(), bias.gyroscope()))
        if accelerometer > _MOST_ACCELEROMETER_BIAS or gyroscope > _MOST_GYROSCOPE_BIAS:
            return f"the biases grew to {accelerometer:.2g} m/s^2 and {gyroscope:.2g} rad/s"
        return ""

    def _step(self) -> SmootherStep:
        pose, velocity, bias = self._state_values(self._states[-1])
        results = [factor.point() for factor, _ in self._smart.values()]
        return SmootherStep(
            pose=pose.matrix(),
            velocity=velocity,
            gyroscope_bias=bias.gyroscope(),
            accelerometer_bias=bias.accelerometer(),
            points=len(results),
            rejected=sum(result.outlier() or result.behindCamera() for result in results),
        )

    def _slide(self) -> None:
        """Turns what the oldest keyframe knows into a prior on the others, once there are more than wanted."""
        while sum(state.is_keyframe for state in self._states) > self._options.keyframes:
            oldest = self._states.pop(0)
            alive = set(self._states[-1].view.ids.tolist())
            ended = {track for track, (_, seen) in self._smart.items() if oldest.number in seen and track not in alive}
            graph = gtsam.NonlinearFactorGraph(self._prior)
            graph.add(_imu_factor(oldest, self._states[0]))
            for track in ended:
                graph.add(self._smart[track][0])
            leaving = gtsam.Ordering()
            for key in oldest.keys:
                leaving.push_back(key)
            _, rest = graph.linearize(self._values).eliminatePartialMultifrontal(leaving)
            self._prior = gtsam.LinearContainerFactor.ConvertLinearGraph(rest, self._values)
            for key in oldest.keys:
                self._values.erase(key)
            self._forget_points(ended)

    def _forget_points(self, ended: Iterable[int]) -> None:
        """Drops the sightings of points that are part of the prior, and points that nothing in the window sees."""
        numbers = np.array(sorted(ended), np.int64)
        for state in self._states:
            keep = ~np.isin(state.view.ids, numbers)
            state.view = replace(state.view, ids=state.view.ids[keep], rays=state.view.rays[keep])
        seen = set(np.concatenate([state.view.ids for state in self._states]).tolist())
        self._points &= seen


def _imu_factor(before: _State, state: _State) -> gtsam.CombinedImuFactor:
    assert state.motion is not None
    (pose0, velocity0, bias0), (pose1, velocity1, bias1) = before.keys, state.keys
    return gtsam.CombinedImuFactor(pose0, velocity0, pose1, velocity1, bias0, bias1, state.motion)
