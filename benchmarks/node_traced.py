"""The node `frontend` with timestamps at trace points of each frame, for the breakdown of the suite `node`.

It subclasses the shipped node; the overhead is microseconds. `FEATURE_FRONTEND_TRACE` names the output file.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import feature_frontend.ros.node as node_module
from feature_frontend.ros.main import main
from feature_frontend.ros.stamps import stamp_to_ns

_points: dict[int, dict[str, int]] = defaultdict(dict)


class _TracedNode(node_module.FrontendNode):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert self._worker is not None
        worker, publisher = self._worker, self._result_publishers._publishers["features"]
        frontend = worker._processor.frontend
        worker._process = partial(self._timed_frame, worker._process)  # type: ignore[method-assign]
        frontend.process = partial(self._timed_process, frontend.process)  # type: ignore[method-assign]
        publisher.publish = partial(self._timed_publish, publisher.publish)  # type: ignore[method-assign]

    def stop(self) -> bool:
        Path(os.environ["FEATURE_FRONTEND_TRACE"]).write_text(json.dumps(_points), encoding="utf-8")
        return super().stop()

    def _on_image(self, message: Any) -> None:
        _points[stamp_to_ns(message.header.stamp)]["arrived"] = time.monotonic_ns()
        super()._on_image(message)

    @staticmethod
    def _timed_frame(process: Any, frame: Any) -> None:
        _points[stamp_to_ns(frame.message.header.stamp)]["taken"] = time.monotonic_ns()
        process(frame)

    @staticmethod
    def _timed_process(process: Any, image: Any, stamp_ns: int, *others: Any) -> Any:
        _points[stamp_ns]["converted"] = time.monotonic_ns()
        result = process(image, stamp_ns, *others)
        _points[stamp_ns]["processed"] = time.monotonic_ns()
        return result

    @staticmethod
    def _timed_publish(publish: Any, message: Any) -> None:
        points = _points[stamp_to_ns(message.header.stamp)]
        points["encoded"] = time.monotonic_ns()
        publish(message)
        points["published"] = time.monotonic_ns()


if __name__ == "__main__":
    node_module.FrontendNode = _TracedNode  # type: ignore[assignment, misc]
    main()
