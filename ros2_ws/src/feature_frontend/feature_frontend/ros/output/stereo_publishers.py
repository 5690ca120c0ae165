"""What a stereo pair gives beside the left image's results: right features, stereo matches, points, and their state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from feature_frontend_msgs.msg import Features, Matches
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.errors import CalibrationError
from feature_frontend.geometry.rays import MatchRays
from feature_frontend.ros.input.camera_info_history import CalibrationWatch
from feature_frontend.ros.output.messages import Origin, encode_features, encode_pair
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.runtime.stereo_sync import SIDES
from feature_frontend.settings import Settings
from feature_frontend.stereo.matching import Disparities, StereoResult, match_stereo
from feature_frontend.stereo.rig import StereoRig
from feature_frontend.types import FrameResult

__all__ = ["StereoTopics", "encode_points"]

Uint8Array = npt.NDArray[np.uint8]
_MS_PER_S = 1e3
# A camera_info may come later than the first images.
_PATIENCE_S = 5.0
_MISSING = "points need left/camera_info and right/camera_info: publish both, or remap them"
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("index", "<u4")])
_FIELD_TYPES = {"<f4": PointField.FLOAT32, "<u4": PointField.UINT32}
_FIELDS = [
    PointField(name=name, offset=of[1], datatype=_FIELD_TYPES[of[0].str], count=1)
    for name, of in (_POINT.fields or {}).items()
]


@dataclass(frozen=True)
class _Finding:
    """What deserves a warning from a time on, on the monotonic clock, s; empty for nothing."""

    text: str = ""
    from_s: float = 0.0


class StereoTopics:
    """Matches and publishes pairs. The thread that processes frames calls it, but for what says otherwise.

    Args:
        node: That publishes.
        settings: Name the QoS.
        left: Calibrations of the left camera.
    """

    def __init__(self, node: Node, settings: Settings, left: CalibrationWatch) -> None:
        self._node = node
        self._left = left
        self._right = CalibrationWatch()
        self._state = "no pair yet"
        self._finding = _Finding()
        output = qos_profile(settings.output_qos, settings.output_depth)
        self._features = node.create_publisher(Features, "right/features", output)
        self._matches = node.create_publisher(Matches, "stereo_matches", output)
        self._points = node.create_publisher(PointCloud2, "points", output)

    def destroy(self) -> None:
        """Ends the topics."""
        for publisher in (self._features, self._matches, self._points):
            self._node.destroy_publisher(publisher)

    @property
    def state(self) -> str:
        """What the latest pair gave, or why it gave less, in one line. Any thread may ask."""
        return self._state

    @property
    def right(self) -> CalibrationWatch:
        """Calibrations of the right camera."""
        return self._right

    @property
    def warning(self) -> str:
        """Why there are no points or matches, but for what is wrong with a `camera_info`. Any thread may ask."""
        finding = self._finding
        is_known = not (self._left.warning or self._right.warning) and time.monotonic() >= finding.from_s
        return finding.text if is_known else ""

    @property
    def outcome(self) -> tuple[str, str]:
        """`warning` and `state`."""
        return self.warning, self.state

    def publish(
        self,
        right_header: Header,
        left: Origin,
        result: FrameResult,
        left_rays: npt.NDArray[np.float32] | None,
        images: tuple[Uint8Array, Uint8Array],
        runs: tuple[int, int],
        settings: Settings,
    ) -> tuple[FrameResult, Disparities | None]:
        """Matches a pair and publishes what came of it.

        Args:
            right_header: The right image's.
            left: The left image.
            result: Of the pair.
            left_rays: (N, 2) undistorted (x/z, y/z) of the left keypoints; None without a calibration.
            images: Left and right.
            runs: Of time, of both.
            settings: In force.

        Returns:
            `result` with the time that this took added to `matching_ms`, and what has changed in its reason. The
            disparities of the left keypoints; None where the pair cannot be matched.
        """
        start_s = time.perf_counter()
        assert result.right is not None
        right = replace(left, header=right_header)
        left_ns, right_ns = stamp_to_ns(left.header.stamp), stamp_to_ns(right_header.stamp)
        normalized = self._right.normalize(result.right, right_ns, runs[1], rectified=settings.rectified)
        descriptor_type = settings.descriptor_type if settings.publish_descriptors else None
        self._features.publish(encode_features(right, result.right, normalized, descriptor_type))
        state, rig, disparities = "", None, None
        infos = self._left.at(left_ns, runs[0]), self._right.at(right_ns, runs[1])
        try:
            rig = _rig(infos, rectified=settings.rectified)
        except CalibrationError as error:
            state = f"no points: {error}"
        try:
            found = match_stereo(result.features, result.right, rig, settings, images)
        except CalibrationError as error:
            state = "; ".join(part for part in (state, f"no stereo_matches: {error}") if part)
        else:
            disparities = found.disparities
            self._publish(left, right, result, found, (left_rays, normalized))
            if rig is not None:
                self._points.publish(encode_points(left.header, found))
                state = f"points by a baseline of {rig.baseline_m:.4g} m"
        known = [calibration is not None for calibration, _ in infos]
        # Matches alone may be what is wanted of rectified images: whoever wants points has published a calibration.
        is_fine = disparities is not None and (rig is not None or not any(known))
        self._find("" if is_fine else state, is_missing=not all(known))
        news = [result.reason, *self._news(state)]
        took_ms = (time.perf_counter() - start_s) * _MS_PER_S
        times = replace(result.times, matching_ms=result.times.matching_ms + took_ms)
        return replace(result, reason="; ".join(part for part in news if part), times=times), disparities

    def _publish(
        self,
        left: Origin,
        right: Origin,
        result: FrameResult,
        found: StereoResult,
        rays: tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None],
    ) -> None:
        assert result.right is not None
        rows0, rows1 = found.matches.indices0, found.matches.indices1
        keypoints = result.features.keypoints[rows0], result.right.keypoints[rows1]
        of_matches = MatchRays.of(found.matches, *rays)
        self._matches.publish(encode_pair(left, right, found.matches, keypoints, of_matches))

    def _find(self, problem: str, *, is_missing: bool) -> None:
        text = f"{problem}; {_MISSING}" if problem and is_missing else problem
        if text != self._finding.text:
            self._finding = _Finding(text, time.monotonic() + (_PATIENCE_S if is_missing else 0.0))

    def _news(self, state: str) -> Sequence[str]:
        of_right = self._right.news()
        news = [f"right camera: {of_right}" if of_right else "", state if state != self._state else ""]
        self._state = state
        return news


def _rig(infos: Sequence[tuple[CameraCalibration | None, str]], *, rectified: bool) -> StereoRig:
    """Of the left and the right calibration, each None with the reason where there is none."""
    cameras = []
    for name, (calibration, problem) in zip(SIDES, infos, strict=True):
        if calibration is None:
            msg = f"{name} camera: {problem}"
            raise CalibrationError(msg)
        cameras.append(calibration)
    left, right = cameras
    return StereoRig(left, right, rectified=rectified)


def encode_points(header: Header, found: StereoResult) -> PointCloud2:
    """The message of a pair's points: x y z float32, m, and `index` uint32 into the left features.

    Args:
        header: The left image's.
        found: Of the pair.
    """
    rows = np.empty(len(found.points), _POINT)
    for axis, name in enumerate("xyz"):
        rows[name] = found.points[:, axis]
    rows["index"] = found.indices
    message = PointCloud2(header=header, height=1, width=len(rows), fields=_FIELDS, is_dense=True)
    message.point_step, message.row_step = _POINT.itemsize, rows.nbytes
    message.data.frombytes(rows.tobytes())
    return message
