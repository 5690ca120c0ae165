"""What travels from a subscription to the worker."""

from __future__ import annotations

from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from feature_frontend.pipeline.masks import TopicMask
from feature_frontend.runtime.mask_sync import PairedMask

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """An image on its way.

    Attributes:
        message: As it came.
        received_s: When, on the monotonic clock, s.
        mask: What the topic `mask` has.
        right: The right image of a pair.
        runs: Of time, of the image and of the right one, from `CalibrationWatch.arrived`.
    """

    message: Image | CompressedImage
    received_s: float
    mask: PairedMask[TopicMask] | None = None
    right: Image | CompressedImage | None = None
    runs: tuple[int, int] = (0, 0)
