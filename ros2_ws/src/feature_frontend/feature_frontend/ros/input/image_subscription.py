"""The node's image subscriptions: raw or compressed topics, named as in image_transport."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from feature_frontend.ros.guarded_node import GuardedNode
from feature_frontend.ros.input.image_conversion import image_to_array
from feature_frontend.ros.qos import COMPRESSED_SUFFIX, compressed_topic, qos_profile
from feature_frontend.settings import NodeSettings

__all__ = ["cut_frame_id", "offers", "pixels_of", "subscribe_to_images", "why_silent"]

_FRAME_ID_CHARACTERS = 1000


def subscribe_to_images(
    node: GuardedNode,
    transport: str,
    callback: Callable[[Image | CompressedImage], None],
    qos: QoSProfile,
    name: str = "image",
    answer: Callable[[str, Image | CompressedImage], None] | None = None,
) -> Subscription:
    """Subscribes to the topic `name`, or to its compressed images.

    As in image_transport, the base topic is resolved first: remapping `image` to `/camera/image_raw` also moves the
    compressed topic to `/camera/image_raw/compressed`. A rule for `image/compressed` itself applies too.

    Args:
        node: The subscriber.
        transport: The parameter `image_transport`, raw or compressed.
        callback: Receives each message, in the executor's thread.
        qos: Of the subscription.
        name: Of the topic before remapping.
        answer: Receives the reason and the message if the callback raises.
    """
    base_topic = node.resolve_topic_name(name)
    kind, topic = (CompressedImage, compressed_topic(base_topic)) if transport == "compressed" else (Image, name)
    if kind is Image and base_topic.endswith(COMPRESSED_SUFFIX):
        node.get_logger().warning(
            f"{base_topic} is the topic of compressed images by its name, but image_transport is raw: expected "
            f"image_transport:=compressed, with `{name}` remapped to the topic without that ending"
        )
    return node.create_subscription(kind, topic, callback, qos, answer=answer)


def offers(node: Node, topic: str) -> str:
    """The publishers of a topic by reliability, such as "1 best effort publisher"; empty for none."""
    infos = node.get_publishers_info_by_topic(topic)
    counts = Counter(info.qos_profile.reliability.name.lower().replace("_", " ") for info in infos)
    return ", ".join(f"{count} {kind} publisher{'s' if count > 1 else ''}" for kind, count in counts.items())


def why_silent(node: Node, topic: str, image_qos: str) -> str:
    """Why no image arrives on a topic, as far as the graph shows, and what to do.

    Args:
        node: The subscriber.
        topic: Full name.
        image_qos: The parameter.
    """
    seen = offers(node, topic)
    if not seen:
        return f"nobody publishes {topic}; start the camera, or remap it to the camera's topic"
    profiles = [info.qos_profile for info in node.get_publishers_info_by_topic(topic)]
    wanted = qos_profile(image_qos, 1)
    if all(qos_check_compatible(profile, wanted)[0] == QoSCompatibility.ERROR for profile in profiles):
        return f"{topic} has {seen}, which image_qos {image_qos} does not match; set image_qos to sensor_data"
    return f"{topic} has {seen}; is the camera paused? `doctor` looks at topic, QoS and images"


def pixels_of(
    message: Image | CompressedImage, settings: NodeSettings, max_decoding_ms: float = math.inf
) -> npt.NDArray[np.uint8]:
    """The pixels of `message`, (H, W) grey or (H, W, 3) RGB uint8, converted as the parameters say.

    Args:
        message: As received.
        settings: Limits and intensity conversion.
        max_decoding_ms: As in `image_to_array`.

    Raises:
        ImageError: As `image_to_array`.
    """
    return image_to_array(message, settings.intensity, settings.max_image_pixels, max_decoding_ms)


def cut_frame_id(header: Header) -> bool:
    """Truncates an absurdly long `frame_id`, which all results would repeat; returns whether it did."""
    is_endless = len(header.frame_id) > _FRAME_ID_CHARACTERS
    if is_endless:
        header.frame_id = f"{header.frame_id[:_FRAME_ID_CHARACTERS]}..."
    return is_endless
