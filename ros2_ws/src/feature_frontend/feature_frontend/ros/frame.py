"""What travels from a subscription to the worker."""

from __future__ import annotations

from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from feature_frontend.ros.input.mask_topic import TopicMask
from feature_frontend.runtime.mask_sync import PairedMask

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """An image message, when it came, on the monotonic clock, s, what the topic `mask` has, and the right image."""

    message: Image | CompressedImage
    received_s: float
    mask: PairedMask[TopicMask] | None = None
    right: Image | CompressedImage | None = None
