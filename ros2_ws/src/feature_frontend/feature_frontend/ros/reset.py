"""`~/reset`: a service if `std_srvs` is installed, else a topic."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import Empty

__all__ = ["offer_reset"]

_TOPIC_DEPTH = 1


def offer_reset(node: Node, reset: Callable[[], None]) -> str:
    """Calls `reset` on request; returns the request's type, such as "std_srvs/srv/Empty"."""
    try:
        # Imported here: the ROS 2 wheels lack it.
        from std_srvs.srv import Empty as EmptyService
    except ImportError:
        node.create_subscription(Empty, "~/reset", lambda _message: reset(), _TOPIC_DEPTH)
        return "std_msgs/msg/Empty"

    def answer(_request: EmptyService.Request, response: EmptyService.Response) -> EmptyService.Response:
        reset()
        return response

    node.create_service(EmptyService, "~/reset", answer)
    return "std_srvs/srv/Empty"
