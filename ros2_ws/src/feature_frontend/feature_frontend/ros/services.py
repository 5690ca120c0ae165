"""The service `~/match_frames`: matches two stored frames on request, in parallel to the stream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from feature_frontend_msgs.srv import MatchFrames
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.geometry.rays import MatchRays
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.ros.frame_store import FrameStore
from feature_frontend.ros.guarded_node import GuardedNode
from feature_frontend.ros.output.messages import encode_pair
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.settings import Settings
from feature_frontend.system.text import short_text

__all__ = ["MOST_WAITING", "MatchService"]

MOST_WAITING = 50
"""Maximum number of waiting requests; the executor checks all of them after each message."""
# With the default of 10, requests would be overwritten before the executor takes them.
_DEPTH = 1000


class MatchService:
    """Answers requests one by one in a separate thread; the executor keeps receiving meanwhile.

    If `MOST_WAITING` requests wait, the next one is refused at once.

    Args:
        node: Offers the service.
        store: Holds the frames.
        settings: Returns the settings in force, for the matcher.
    """

    def __init__(self, node: GuardedNode, store: FrameStore, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._store = store
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "match-frames")
        # Changed in the executor's thread only.
        self._waiting = 0
        node.create_service(
            MatchFrames,
            "~/match_frames",
            self._on_request,
            qos_profile=qos_profile("reliable", _DEPTH),
            callback_group=ReentrantCallbackGroup(),
        )

    def close(self) -> None:
        """Stops accepting requests."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_request(self, request: MatchFrames.Request, response: MatchFrames.Response) -> MatchFrames.Response:
        if self._waiting >= MOST_WAITING:
            response.reason = f"busy: {self._waiting} requests wait for their answer; ask again once some have theirs"
            return response
        executor = self._node.executor
        # This callback runs in it.
        assert executor is not None
        answer = Future(executor=executor)

        def work() -> None:
            answer.set_result(self._answer(request, response))
            executor.wake()

        self._waiting += 1
        try:
            self._thread.submit(work)
            return await answer
        finally:
            self._waiting -= 1

    def _answer(self, request: MatchFrames.Request, response: MatchFrames.Response) -> MatchFrames.Response:
        try:
            self._match(request, response)
        except FeatureFrontendError as error:
            response.reason = str(error)
        except Exception as error:
            self._node.guard.note("matching two frames on request", error)
            response.reason = f"{type(error).__name__}: {short_text(error)}"
        response.ok = not response.reason
        return response

    def _match(self, request: MatchFrames.Request, response: MatchFrames.Response) -> None:
        frame0, frame1 = (self._store.get(stamp_to_ns(stamp)) for stamp in (request.stamp0, request.stamp1))
        features0, features1 = frame0.features, frame1.features
        matches = make_matcher(self._settings()).match(features0, features1)
        keypoints = features0.keypoints[matches.indices0], features1.keypoints[matches.indices1]
        rays = MatchRays.of(matches, frame0.normalized, frame1.normalized)
        response.matches = encode_pair(frame0.origin, frame1.origin, matches, keypoints, rays)
