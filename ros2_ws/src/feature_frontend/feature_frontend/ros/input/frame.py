"""The frame passed from the subscriptions to the worker."""

from __future__ import annotations

from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from feature_frontend.pipeline.masks import TopicMask
from feature_frontend.runtime.mask_sync import PairedMask

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """An image, or a stereo pair, waiting to be processed.

    Attributes:
        message: As received.
        received_s: Arrival time on the monotonic clock, s.
        mask: From the topic `mask`.
        right: The right image of a pair.
        runs: Time segments of the image and of the right one, from `CalibrationWatch.arrived`.
    """

    message: Image | CompressedImage
    received_s: float
    mask: PairedMask[TopicMask] | None = None
    right: Image | CompressedImage | None = None
    runs: tuple[int, int] = (0, 0)
