"""The service `~/match_frames`: two earlier frames matched on request, beside the stream."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from feature_frontend_msgs.srv import MatchFrames
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from feature_frontend.api import make_matcher
from feature_frontend.errors import FeatureFrontendError
from feature_frontend.rays import MatchRays
from feature_frontend.ros.frame_store import FrameStore
from feature_frontend.ros.message_encoding import encode_pair, stamp_to_ns
from feature_frontend.settings import Settings

__all__ = ["MatchService"]


class MatchService:
    """Answers requests one after another in a thread of its own; the executor goes on receiving meanwhile.

    Args:
        node: That offers the service.
        store: Where the frames are.
        settings: Asked for the settings in force, those of the matcher.
    """

    def __init__(self, node: Node, store: FrameStore, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._store = store
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "match-frames")
        # A group of its own: while a request is being answered, its group calls nothing else.
        group = MutuallyExclusiveCallbackGroup()
        node.create_service(MatchFrames, "~/match_frames", self._on_request, callback_group=group)

    def close(self) -> None:
        """Takes no further request."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_request(self, request: MatchFrames.Request, response: MatchFrames.Response) -> MatchFrames.Response:
        executor = self._node.executor
        answer = Future(executor=executor)

        def work() -> None:
            answer.set_result(self._answer(request, response))
            executor.wake()

        self._thread.submit(work)
        return await answer

    def _answer(self, request: MatchFrames.Request, response: MatchFrames.Response) -> MatchFrames.Response:
        try:
            self._match(request, response)
        except FeatureFrontendError as error:
            response.reason = str(error)
        except Exception as error:
            self._node.get_logger().error(f"match_frames failed: {traceback.format_exc()}")
            response.reason = f"{type(error).__name__}: {error}"
        response.ok = not response.reason
        return response

    def _match(self, request: MatchFrames.Request, response: MatchFrames.Response) -> None:
        frame0, frame1 = (self._store.get(stamp_to_ns(stamp)) for stamp in (request.stamp0, request.stamp1))
        features0, features1 = frame0.features, frame1.features
        matches = make_matcher(self._settings())(features0, features1)
        keypoints = features0.keypoints[matches.indices0], features1.keypoints[matches.indices1]
        rays = MatchRays.of(matches, frame0.normalized, frame1.normalized)
        response.matches = encode_pair(frame0.origin, frame1.origin, matches, keypoints, rays)
