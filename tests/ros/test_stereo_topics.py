"""Pairs given to the worker and the resulting messages, also without message_filters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs feature_frontend_msgs, built by make setup")

from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from benchmarks.spinning_node import SpinningNode
from feature_frontend.camera.calibration import CameraCalibration
from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.pipeline.process_frame import FrameProcessor
from feature_frontend.pipeline.stereo_pairs import StereoPairs
from feature_frontend.ros.frame_store import FrameStore
from feature_frontend.ros.frame_worker import FrameWorker
from feature_frontend.ros.input.camera_info import camera_info_message
from feature_frontend.ros.input.frame import Frame
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.output.frame_status import FrameStatistics
from feature_frontend.ros.output.publishers import Publishers, ResultTopics
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from feature_frontend.settings import Settings
from tests.ros.harness import wait_until
from tests.stereo_pair import StereoPair, raw_pair, rectified_pair
from tests.tolerances import STEREO_MEDIAN_DEPTH_ERROR

_TOPICS = {
    "left/features": Features,
    "right/features": Features,
    "stereo_matches": Matches,
    "points": PointCloud2,
    "matches": Matches,
    "tracks": Tracks,
    "status": FrameStatus,
}
_FRAME_NS = 100_000_000
_RIGHT_LATER_NS = 1_000_000
_RELIABLE = qos_profile("reliable", 0)
_SETTINGS = Settings(
    camera_type="stereo", extractor="silk-vggnp-mu", tracker="chain", compile=False, queue_policy="every_frame"
)


def _image(pixels: npt.NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Image:
    return array_to_image(pixels, "mono8" if pixels.ndim == 2 else "rgb8", stamp_from_ns(stamp_ns), frame_id)


def _info(calibration: CameraCalibration) -> CameraInfo:
    return camera_info_message(calibration, stamp_from_ns(0), "camera")


class _Worker:
    """A real worker on real topics, fed by hand, and a client in a context of its own that collects what comes."""

    def __init__(self, domain_id: int, settings: Settings) -> None:
        self._server = SpinningNode("frontend", domain_id)
        self._client = SpinningNode("client", domain_id)
        self.received: dict[str, list[Any]] = {topic: [] for topic in _TOPICS}
        for topic, kind in _TOPICS.items():
            self._client.node.create_subscription(kind, topic, self.received[topic].append, _RELIABLE)
        node = self._server.node
        self.left = CalibrationWatch()
        publishers = Publishers(node, settings)
        self.pairs = StereoPairs(self.left)
        self.worker = FrameWorker(
            FrameProcessor(Frontend.from_pretrained(settings), self.left, pytest.fail, self.pairs),
            ResultTopics(publishers.publish, FrameStatistics(), 7),
            publishers,
            FrameStore(settings),
            node.get_logger(),
            node.context.ok,
            lambda where, error: pytest.fail(f"{where}: {error}"),
        )
        self._sent = 0
        self._server.start()
        self._client.start()
        self.worker.start(None)
        wait_until(lambda: all(node.count_subscribers(topic) for topic in _TOPICS), "the client's subscriptions")

    def status_of(self, left: Image, right: Image | None) -> FrameStatus:
        """What became of a pair."""
        self.worker.put(Frame(left, 0.0, right=right))
        self._sent += 1
        wait_until(lambda: len(self.received["status"]) == self._sent, "a status")
        status: FrameStatus = self.received["status"][-1]
        return status

    def wait_for(self, topic: str, count: int) -> Any:
        """The latest message of a topic of which there are `count`."""
        wait_until(lambda: len(self.received[topic]) >= count, f"{count} messages on {topic}")
        assert len(self.received[topic]) == count
        return self.received[topic][-1]

    def close(self) -> None:
        self.worker.stop()
        for node in (self._client, self._server):
            node.__exit__(None, None, None)


@pytest.fixture
def worker(domain_id: int) -> Iterator[_Worker]:
    worker = _Worker(domain_id, _SETTINGS)
    yield worker
    worker.close()


def _points(message: PointCloud2) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(P, 3) m and (P,) rows, read by the message's own fields as any consumer reads them."""
    kinds = {7: "<f4", 6: "<u4"}
    layout = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [kinds[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    rows = np.frombuffer(bytes(message.data), layout)
    assert (message.height, message.width, message.row_step) == (1, len(rows), rows.nbytes)
    assert message.is_dense
    return np.stack([rows[name] for name in "xyz"], axis=1), rows["index"].astype(np.int64)


def _rows(values: Any, columns: int = 2) -> npt.NDArray[np.float32]:
    return np.frombuffer(values, np.float32).reshape(-1, columns)


def _check_disparities(
    tracks: Tracks, pair: StereoPair, points: npt.NDArray[np.float32], indices: npt.NDArray[np.int64]
) -> None:
    """Every track knows how far it is, as the points of its keypoints say."""
    disparities = np.full(tracks.count, np.nan)
    disparities[np.array(tracks.feature_indices)] = tracks.disparities
    turn = np.eye(3) if pair.rectified else np.array(pair.calibrations[0].rectification_matrix).reshape(3, 3)
    depths = (points @ turn.T)[:, 2]
    np.testing.assert_allclose(tracks.focal_baseline / disparities[indices], depths, rtol=1e-4)
    assert np.count_nonzero(np.isfinite(disparities)) < tracks.count, "some have no match"


@pytest.mark.slow
@pytest.mark.parametrize("make", [rectified_pair, raw_pair], ids=["rectified", "raw"])
def test_a_pair_gives_features_matches_and_points(worker: _Worker, make: Any) -> None:
    pair: StereoPair = make()
    settings = replace(_SETTINGS, rectified=pair.rectified)
    worker.worker.change(lambda frontend: frontend.configure(settings))
    worker.left.take(_info(pair.calibrations[0]))
    worker.pairs.right.take(_info(pair.calibrations[1]))
    for frame in (1, 2):
        stamp_ns = frame * _FRAME_NS
        left, right = _image(pair.left, stamp_ns, "left"), _image(pair.right, stamp_ns + _RIGHT_LATER_NS, "right")
        status = worker.status_of(left, right)
        cloud, matches = worker.wait_for("points", frame), worker.wait_for("stereo_matches", frame)
        on_left, on_right = worker.wait_for("left/features", frame), worker.wait_for("right/features", frame)
        expected = "points by a baseline of 0.12 m" if frame == 1 else ""
        assert (status.state, status.reason) == (FrameStatus.FIRST if frame == 1 else FrameStatus.OK, expected)
        assert status.matching_ms > 0
        for message, name, later_ns in (
            (cloud, "left", 0),
            (on_left, "left", 0),
            (on_right, "right", _RIGHT_LATER_NS),
            (matches, "right", _RIGHT_LATER_NS),
        ):
            assert message.header.frame_id == name
            assert stamp_to_ns(message.header.stamp) == stamp_ns + later_ns
        assert (stamp_to_ns(matches.stamp0), matches.matcher) == (stamp_ns, "mnn-rows")
        points, indices = _points(cloud)
        assert 400 < len(points) <= matches.count
        assert set(indices.tolist()) <= set(matches.indices0)
        keypoints0, keypoints1 = _rows(on_left.keypoints), _rows(on_right.keypoints)
        np.testing.assert_array_equal(_rows(matches.keypoints0), keypoints0[np.array(matches.indices0)])
        np.testing.assert_array_equal(_rows(matches.keypoints1), keypoints1[np.array(matches.indices1)])
        rays = _rows(on_left.normalized_keypoints)[indices]
        np.testing.assert_allclose(points[:, :2] / points[:, 2:], rays, atol=1e-5)
        assert len(_rows(on_right.normalized_keypoints)) == on_right.count
        for side, rows_of, of_match in (
            (on_left, matches.indices0, matches.normalized_keypoints0),
            (on_right, matches.indices1, matches.normalized_keypoints1),
        ):
            np.testing.assert_array_equal(_rows(of_match), _rows(side.normalized_keypoints)[np.array(rows_of)])
        assert on_left.run_id == on_right.run_id == matches.run_id == matches.run_id0 > 0
        _check_disparities(worker.wait_for("tracks", frame), pair, points, indices)
        assert np.median(pair.depth_errors(points, keypoints0[indices])) < STEREO_MEDIAN_DEPTH_ERROR
    # The left camera is tracked as one camera is.
    assert worker.wait_for("matches", 2).count > 900
    assert max(worker.wait_for("tracks", 2).ages) == 2
    assert worker.pairs.state == "points by a baseline of 0.12 m"


def test_what_a_pair_cannot_give_is_said_once_and_stops_nothing(worker: _Worker) -> None:
    pair = rectified_pair()
    first, second = pair.calibrations
    quick = replace(_SETTINGS, resize_height=240)
    worker.worker.change(lambda frontend: frontend.configure(quick))

    def status(number: int, right: npt.NDArray[np.uint8] = pair.right) -> FrameStatus:
        stamp_ns = number * _FRAME_NS
        return worker.status_of(_image(pair.left, stamp_ns, "left"), _image(right, stamp_ns, "right"))

    unseen = "no camera_info has arrived; normalized_keypoints are empty"
    rows = "raw images have no rows in common without the camera_info of both"
    found = status(1)
    assert found.state == FrameStatus.FIRST
    assert f"right camera: {unseen}; no points: left camera: no camera_info has arrived; no stereo_matches: {rows}" in (
        found.reason
    )
    assert found.reason.endswith(unseen)
    assert (status(2).reason, worker.received["stereo_matches"]) == ("", [])

    # Said to be rectified, they match without calibrations, but nothing is known of depth.
    worker.worker.change(lambda frontend: frontend.configure(replace(quick, rectified=True)))
    assert status(3).reason == "no points: left camera: no camera_info has arrived"
    assert worker.wait_for("stereo_matches", 1).count > 100
    assert worker.pairs.warning == "", "matches alone may be what is wanted"
    small = np.ascontiguousarray(pair.right[:400])
    assert "640x480 px and the right one 640x400 px" in status(4, small).reason

    worker.left.take(_info(first))
    worker.pairs.right.take(_info(first))
    of_one = "no points: the baseline in the projection matrices P is 0 m; expected above 0: calibrate the two as one"
    assert of_one in status(5).reason
    assert worker.pairs.warning.startswith(of_one)
    received = f"P[0, 0] {first.projection_matrix[0]:g}, P[0, 3] 0 on the"
    assert worker.pairs.warning.endswith(f"(received: {received} left and {received} right)")
    assert worker.wait_for("stereo_matches", 2).count > 100
    broken = _info(second)
    broken.p[3] = float("nan")
    worker.pairs.right.take(broken)
    assert "no points: right camera: camera_info is not used: projection_matrix" in status(6).reason
    assert worker.pairs.right.warning.startswith("camera_info is not used")
    assert worker.received["points"] == []
    worker.pairs.right.take(_info(second))
    assert "points by a baseline of 0.12 m" in status(7).reason
    assert worker.pairs.warning == ""
    assert "no stereo_matches: the right image is 640x400 px" in status(8, small).reason
    assert worker.wait_for("points", 1).width > 100

    truncated = _image(pair.right, 9 * _FRAME_NS, "right")
    truncated.data = truncated.data[:1000]
    refused = worker.status_of(_image(pair.left, 9 * _FRAME_NS, "left"), truncated)
    assert refused.state == FrameStatus.ERROR
    assert refused.reason.startswith("the right image: ")
    assert status(10).state == FrameStatus.OK
    assert worker.wait_for("points", 2).width > 100
    blank = status(11, np.full_like(pair.right, 90))
    assert (blank.state, blank.keypoints) == (FrameStatus.OK, 1000)
    assert worker.wait_for("points", 3).width == 0


def test_a_calibration_that_does_not_come_is_warned_of(worker: _Worker) -> None:
    pair = rectified_pair()
    left, right = (np.ascontiguousarray(image[::4, ::4]) for image in (pair.left, pair.right))
    calibrations = [replace(one, width=left.shape[1], height=left.shape[0]) for one in pair.calibrations]
    worker.worker.change(lambda frontend: frontend.configure(replace(_SETTINGS, rectified=True)))

    def warning(number: int) -> str:
        stamp_ns = number * _FRAME_NS
        worker.status_of(_image(left, stamp_ns, "left"), _image(right, stamp_ns, "right"))
        return worker.pairs.warning

    worker.left.take(_info(calibrations[0]))
    assert warning(1) == "", "it may be on its way"
    worker.pairs._finding = replace(worker.pairs._finding, from_s=0.0)
    assert warning(2) == (
        "no points: right camera: no camera_info has arrived; "
        "points need left/camera_info and right/camera_info: publish both, or remap them"
    )
    worker.pairs.right.take(_info(calibrations[1]))
    assert warning(3) == ""


def test_the_mode_refuses_to_start_without_message_filters() -> None:
    program = (
        "import sys\n"
        "sys.modules['message_filters'] = None\n"
        "from feature_frontend.ros.main import main\n"
        "sys.exit(main(['--ros-args', '-p', 'camera_type:=stereo', '-p', 'extractor:=silk-vggnp-mu']))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("error: parameter camera_type is 'stereo', which needs the package message_filters")
    assert "-message-filters, or take camera_type:=mono" in run.stderr
    assert "Traceback" not in run.stderr
