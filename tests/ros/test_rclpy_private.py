"""The private parts of rclpy in use exist and behave as expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from std_msgs.msg import Empty

from feature_frontend.ros.rclpy_private import destroy_state_machine, given_parameters, guard_takes, start_errors
from tests.ros.harness import wait_until


def test_private_parts_of_rclpy(domain_id: int) -> None:
    context, arguments = Context(), ["--ros-args", "-p", "detection_threshold:=0.5"]
    with pytest.raises(start_errors()):
        rclpy.init(args=["--ros-args", "-p"], context=Context(), domain_id=domain_id)
    rclpy.init(args=arguments, context=context, domain_id=domain_id)
    watcher, node = rclpy.create_node("watcher", context=context), LifecycleNode("frontend", context=context)
    given = given_parameters(node)
    assert given["detection_threshold"].value == 0.5
    given["detection_threshold"] = Parameter("detection_threshold", value=0.25)
    assert node.declare_parameter("detection_threshold", 0.0).value == 0.25
    assert [service.srv_name for service in node.services if service.srv_type is ChangeState] == [
        "/frontend/change_state"
    ]

    taken: set[type] = set()

    def around(take: Callable[[Any], Any], entity: Any) -> Any:
        taken.add(type(entity))
        return take(entity)

    executor = SingleThreadedExecutor(context=context)
    guard_takes(executor, around)
    executor.add_node(node)
    publisher = node.create_publisher(Empty, "empty", 1)
    node.create_subscription(Empty, "empty", lambda _: None, 1)
    client = node.create_client(GetState, "frontend/get_state")
    node.create_timer(0.01, lambda: publisher.publish(Empty()))
    assert client.wait_for_service(10.0)
    answer = client.call_async(GetState.Request())

    def all_are_taken() -> bool:
        executor.spin_once(0.1)
        return answer.done() and taken >= {Subscription, Service, Client, Timer}

    wait_until(all_are_taken, "everything to be taken by what was put around")
    executor.shutdown()
    wait_until(lambda: "frontend" in watcher.get_node_names(), "the node to be seen")
    destroy_state_machine(node)
    node.destroy_node()
    wait_until(lambda: "frontend" not in watcher.get_node_names(), "the node to be gone")
    watcher.destroy_node()
    context.try_shutdown()
