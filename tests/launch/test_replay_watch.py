"""When a replay may start and has ended, with a real node that answers at a known rate."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs feature_frontend_msgs, built by make setup")

import rclpy
from feature_frontend_msgs.msg import FrameStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from feature_frontend.errors import SourceError
from feature_frontend.ros.playback import replay_watch
from feature_frontend.ros.playback.replay_watch import ReplayWatch

_TIMEOUT_S = 10.0


@contextmanager
def _running_node(name: str, namespace: str) -> Iterator[Node]:
    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node(name, namespace=namespace, context=context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join(_TIMEOUT_S)
        node.destroy_node()
        context.try_shutdown()


def _wait(coroutine: object, timeout_s: float = _TIMEOUT_S) -> object:
    async def limited() -> object:
        return await asyncio.wait_for(coroutine, timeout_s)  # type: ignore[arg-type]

    return asyncio.run(limited())


@pytest.mark.parametrize(("kind", "topic"), [(Image, "camera/image"), (CompressedImage, "camera/image/compressed")])
def test_only_the_front_ends_own_subscription_counts(kind: type, topic: str, domain_id: int) -> None:
    with _running_node("viewer", "/robot") as viewer, ReplayWatch("/robot", "camera/image") as watch:
        viewer.create_subscription(kind, topic, lambda _: None, 1)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not watch._node.count_subscribers(f"/robot/{topic}"):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        with pytest.raises(asyncio.TimeoutError):
            _wait(watch.until_listening(), timeout_s=0.5)
        with _running_node("frontend", "/robot") as frontend:
            frontend.create_subscription(kind, topic, lambda _: None, 1)
            _wait(watch.until_listening())
    assert watch.image_topic == "/robot/camera/image"


def test_a_replay_is_over_when_the_last_frame_is_reported(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, frame_s = 5, 0.3
    monkeypatch.setattr(replay_watch, "LEAST_SILENCE_S", 0.0)
    with _running_node("frontend", "/robot") as frontend, ReplayWatch("/robot", "image") as watch:
        publisher = frontend.create_publisher(FrameStatus, "status", 10)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not publisher.get_subscription_count():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

        def work_off_the_queue() -> None:
            for count in range(1, frames + 1):
                time.sleep(frame_s)
                publisher.publish(FrameStatus(frames_received=count, extraction_ms=1e3 * frame_s))

        worker = threading.Thread(target=work_off_the_queue)
        worker.start()
        started_s = time.monotonic()
        status = _wait(watch.until_idle())
        took_s = time.monotonic() - started_s
        worker.join()
    assert status.frames_received == frames  # type: ignore[attr-defined]
    assert took_s > frame_s * (frames + replay_watch.SILENCE_PER_SLOWEST_FRAME - 1)


def test_a_front_end_without_images_is_an_error(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_watch, "FIRST_FRAME_S", 0.2)
    with ReplayWatch("/", "camera/image") as watch, pytest.raises(SourceError, match=r"/camera/image.*image_topic:="):
        _wait(watch.until_idle())


def test_what_the_launch_files_import_needs_no_network_library() -> None:
    """`ros2 launch` runs with the system's Python; also tested here where launch itself is not installed."""
    program = "import sys; sys.modules.update(torch=None, cv2=None); import feature_frontend.ros.playback.replay_watch"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=_TIMEOUT_S)
