"""Any exception in a callback of the node is counted, reported and answered, and frames continue."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from feature_frontend_msgs.msg import FrameStatus
from feature_frontend_msgs.srv import MatchFrames
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros import frame_worker
from feature_frontend.ros.callback_guard import CallbackGuard
from feature_frontend.ros.frame_worker import FrameWorker
from feature_frontend.ros.input import mask_loader
from feature_frontend.ros.node import FrontendNode
from feature_frontend.ros.output.publishers import ResultTopics
from feature_frontend.ros.qos import qos_profile
from tests.ros.harness import Client, node_in_this_process, wait_until
from tests.ros.remote import Remote

_FRAME_NS = 100_000_000
Uint8Array = npt.NDArray[np.uint8]
_ERRORS = (RuntimeError("thrown by the test"), MemoryError(), RecursionError("thrown by the test"))


class _Bombs:
    """Stands between the guard and every callback that it gets, and throws on demand."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.armed: Callable[..., Any] | None = None
        self.thrown = 0

    def plant(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(callback)
        def bomb(*arguments: Any) -> Any:
            self._throw_if(bomb)
            return callback(*arguments)

        @functools.wraps(callback)
        async def coroutine_bomb(*arguments: Any) -> Any:
            self._throw_if(coroutine_bomb)
            return await callback(*arguments)

        return coroutine_bomb if asyncio.iscoroutinefunction(callback) else bomb

    def _throw_if(self, bomb: Callable[..., Any]) -> None:
        if self.armed is bomb and self.error is not None:
            error, self.error = self.error, None
            self.thrown += 1
            raise error


class _Rig:
    """A node in this process, spun by a thread, a client beside it, and frames that must go on."""

    def __init__(self, client: Client, node: FrontendNode, bombs: _Bombs, image: Uint8Array) -> None:
        self.client, self.node, self.bombs = client, node, bombs
        self.remote = Remote(client.node)
        self._image = image
        self.sent = 0
        self.masks = client.node.create_publisher(_image_type(), "mask", qos_profile("reliable", 0))

    def send(self) -> FrameStatus:
        """What became of the next image."""
        self.sent += 1
        self.client.send_pixels(self._image, self.sent * _FRAME_NS)
        status: FrameStatus = self.client.wait_for("status", self.sent)[-1]
        return status

    def frames_go_on(self) -> None:
        status = self.send()
        assert status.state in {FrameStatus.FIRST, FrameStatus.OK}, status
        assert status.frames_received == self.sent

    def throw_into(self, guarded: Callable[..., Any], trigger: Callable[[], object], error: Exception) -> object:
        """Arms what is inside of a guarded callback, triggers it and waits for the guard to have counted it."""
        before = self.node.guard.failures
        self.bombs.armed, self.bombs.error = guarded.__wrapped__, error
        result = trigger()
        wait_until(lambda: self.node.guard.failures == before + 1, f"{guarded} to be thrown into", 20.0)
        return result


def _image_type() -> type:
    from sensor_msgs.msg import Image

    return Image


@pytest.fixture
def rig(domain_id: int, photographs: list[Uint8Array], monkeypatch: pytest.MonkeyPatch) -> Iterator[_Rig]:
    bombs = _Bombs()
    around = CallbackGuard.around

    def planted(self: CallbackGuard, name: str, callback: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
        return around(self, name, bombs.plant(callback), *rest)

    monkeypatch.setattr(CallbackGuard, "around", planted)
    parameters = "queue_policy:=every_frame image_qos:=reliable mask_topic:=true mask_timeout_ms:=0.0 compile:=false"
    given = [part for parameter in (*parameters.split(), "use_sim_time:=true") for part in ("-p", parameter)]
    rclpy.init(args=["--ros-args", *given], domain_id=domain_id)
    try:
        with node_in_this_process() as node, Client(domain_id) as client:
            client.wait_for_node()
            small = np.ascontiguousarray(photographs[0][:120, :160])
            yield _Rig(client, node, bombs, small)
    finally:
        rclpy.shutdown()


def _trigger_topic(rig: _Rig, subscription: Any) -> None:
    if subscription.topic_name.endswith("/image"):
        status = rig.send()
        assert status.state == FrameStatus.ERROR
        assert any(type(error).__name__ in status.reason for error in _ERRORS), status.reason
        return
    publisher = rig.client.node.create_publisher(subscription.msg_type, subscription.topic_name, 10)
    wait_until(lambda: publisher.get_subscription_count() > 0, f"{subscription.topic_name} to be heard")
    publisher.publish(subscription.msg_type())
    rig.client.node.destroy_publisher(publisher)


def _trigger_service(rig: _Rig, service: Any) -> None:
    """Every request has an answer, which says that it failed as far as it has words for it."""
    name = service.srv_name.rpartition("/")[2]
    request = service.srv_type.Request()
    if service.srv_type in {SetParameters, SetParametersAtomically}:
        request.parameters = [Parameter("max_num_keypoints", value=100).to_parameter_msg()] * 2
    response = rig.remote.call(service.srv_type, name, request)
    if service.srv_type is MatchFrames:
        assert not response.ok
        assert response.reason
    if service.srv_type is ChangeState:
        assert not response.success
    results = [*getattr(response, "results", []), *([response.result] if hasattr(response, "result") else [])]
    if service.srv_type in {SetParameters, SetParametersAtomically}:
        assert len(results) == (2 if service.srv_type is SetParameters else 1)
        assert not any(result.successful for result in results)
        assert all("could not be checked" in result.reason for result in results)


def _trigger_timer(timer: Any) -> None:
    period_ns, timer.timer_period_ns = timer.timer_period_ns, 1_000_000
    timer.reset()
    timer.timer_period_ns = period_ns


def test_what_any_callback_raises_ends_nothing(rig: _Rig) -> None:
    node = rig.node
    entities = [*node.timers, *node.subscriptions, *node.services, *node.guards]
    assert [timer.callback.__name__ for timer in node.timers] == ["_publish", "_follow_publishers", "_release_ready"]
    # The names of those that there are, so that a rewrite of this test cannot pass by finding none.
    topics = {subscription.topic_name for subscription in node.subscriptions}
    assert topics >= {"/image", "/mask", "/camera_info", "/clock"}
    assert {"/frontend/match_frames", "match_frames", "~/match_frames"} & {
        service.srv_name for service in node.services
    }
    assert len(list(node.services)) >= 12
    assert {"EventHandler"} >= {type(waitable).__name__ for waitable in node.waitables}
    assert not list(node.clients)
    thrown = 0
    for entity in entities:
        guarded = entity.callback
        for error in _ERRORS if getattr(entity, "topic_name", "") == "/image" else _ERRORS[:1]:
            thrown += 1
            if hasattr(entity, "topic_name"):
                rig.throw_into(guarded, lambda entity=entity: _trigger_topic(rig, entity), error)
            elif hasattr(entity, "srv_type"):
                rig.throw_into(guarded, lambda entity=entity: _trigger_service(rig, entity), error)
            elif hasattr(entity, "trigger"):
                rig.throw_into(guarded, entity.trigger, error)
            else:
                rig.throw_into(guarded, lambda entity=entity: _trigger_timer(entity), error)
        rig.frames_go_on()
    assert rig.bombs.thrown == thrown == node.guard.failures
    checks = list(node._on_set_parameters_callbacks)
    assert "_on_parameters" in {check.__name__ for check in checks}
    for check in checks:
        rig.throw_into(check, lambda: _refused_change(rig), _ERRORS[1])
    rig.frames_go_on()
    assert dict(node.guard.values)["Failed callbacks since start"] == str(thrown + len(checks))
    assert "the check of parameters: MemoryError" in node.guard.warning
    assert node.get_parameter("max_num_keypoints").value != 77


def _refused_change(rig: _Rig) -> None:
    assert rig.remote.set(max_num_keypoints=77) == [(False, "the change could not be checked: MemoryError")]


def test_what_the_executor_and_the_threads_raise_ends_nothing(rig: _Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.frames_go_on()

    # A message for which there is no memory is lost, and the callback group is not left occupied.
    take = SingleThreadedExecutor._take_subscription
    failing = [MemoryError()]

    def take_or_fail(self: SingleThreadedExecutor, subscription: Any) -> Any:
        if failing:
            raise failing.pop()
        return take(self, subscription)

    executor = rig.node.executor
    monkeypatch.setattr(
        executor,
        "_take_subscription",
        functools.partial(executor._take_guarded, functools.partial(take_or_fail, executor)),
    )
    rig.masks.publish(_image_type()())
    wait_until(lambda: not failing and rig.node.guard.failures == 1, "a message that cannot be taken")
    rig.frames_go_on()

    # The thread of the frames: a frame that fails, and one whose refusal fails, too.
    with monkeypatch.context() as patched:
        patched.setattr(FrameWorker, "_process", _raise)
        status = rig.send()
        assert (status.state, status.reason) == (FrameStatus.ERROR, "RuntimeError: thrown by the test")
        patched.setattr(ResultTopics, "refused", _raise)
        rig.client.send_pixels(np.zeros((64, 64), np.uint8), 1)
        wait_until(lambda: rig.node.guard.failures == 2, "a refusal that fails")
    rig.frames_go_on()
    with monkeypatch.context() as patched:
        patched.setattr(Frontend, "configure", _raise)
        assert rig.remote.set(min_similarity=0.5) == [(True, "")]
        wait_until(lambda: len(rig.client.received["status"]) == rig.sent, "the change")
        rig.frames_go_on()
    assert rig.node.guard.failures == 3
    assert "a change between two frames: RuntimeError" in rig.node.guard.warning


def _raise(*_arguments: object, **_options: object) -> None:
    msg = "thrown by the test"
    raise RuntimeError(msg)


def test_what_ends_a_program_passes(domain_id: int) -> None:
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain_id)
    node = rclpy.create_node("guarded", context=context)
    guard = CallbackGuard(node)
    for wanted in (KeyboardInterrupt, SystemExit):

        def end(wanted: type[BaseException] = wanted) -> None:
            raise wanted

        with pytest.raises(wanted):
            guard.around("the end", end)()
    assert guard.failures == 0
    assert guard.around("an answer that fails, too", _raise, _raise)(1) is None
    assert guard.failures == 1
    node.destroy_node()
    context.try_shutdown()
    # While ROS shuts down, what can no longer be published is no failure.
    guard.around("after the end", _raise)()
    assert guard.failures == 1


def test_a_failure_that_comes_again_and_again_is_reported_once(
    domain_id: int, capfd: pytest.CaptureFixture[str]
) -> None:
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain_id)
    node = rclpy.create_node("guarded", context=context)
    guard = CallbackGuard(node)
    for _ in range(300):
        guard.around("one", _raise)()
        guard.around("another", _raise)()
    printed = capfd.readouterr().err
    node.destroy_node()
    context.try_shutdown()
    assert printed.count("one failed in test_callback_guard.py") == 1
    assert len(printed.splitlines()) == 2
    assert (guard.failures, inspect.iscoroutinefunction(guard.around("a", _raise))) == (600, False)


def test_neither_a_slow_decoder_nor_a_slow_disk_holds_up_the_executor(
    rig: _Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rig.frames_go_on()
    path, released = str(tmp_path / "mask.png"), threading.Event()
    assert cv2.imwrite(path, np.full((120, 160), 255, np.uint8))

    def slowly(work: Callable[..., Any]) -> Callable[..., Any]:
        def wait_first(*arguments: Any) -> Any:
            assert released.wait(60)
            return work(*arguments)

        return wait_first

    with monkeypatch.context() as patched:
        patched.setattr(frame_worker, "pixels_of", slowly(frame_worker.pixels_of))
        rig.sent += 1
        rig.client.send_pixels(np.zeros((64, 64), np.uint8), rig.sent * _FRAME_NS)
        assert rig.remote.get("mask_path") == ""
        assert len(rig.client.received["status"]) == rig.sent - 1
        released.set()
        rig.client.wait_for("status", rig.sent)

    released.clear()
    with monkeypatch.context() as patched:
        patched.setattr(mask_loader, "read_mask_file", slowly(mask_loader.read_mask_file))
        assert rig.remote.set(mask_path=path) == [(True, "")]
        rig.frames_go_on()
        assert rig.node._mask_path == ""
        released.set()
        wait_until(lambda: rig.node._mask_path == path, "the mask")
    rig.frames_go_on()

    # What cannot be read leaves the mask as it is, and the parameter says so.
    (tmp_path / "none.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert rig.remote.set(mask_path=str(tmp_path / "none.png")) == [(True, "")]
    wait_until(lambda: rig.remote.get("mask_path") == path, "the parameter to go back")
    rig.frames_go_on()
    printed = capfd.readouterr().err
    assert printed.count("the mask stays '") == printed.count("which holds no image") == 1
    assert rig.node.guard.failures == 0
