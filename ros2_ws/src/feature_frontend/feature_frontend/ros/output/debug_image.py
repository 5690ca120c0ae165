"""`debug_image`: tracks drawn on the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from feature_frontend.image.drawing import draw_caption, draw_tracks
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.types import FrameResult

__all__ = ["MAX_WIDTH_PX", "debug_image"]

MAX_WIDTH_PX = 960


def debug_image(
    header: Header, image: npt.NDArray[np.uint8], result: FrameResult, trails: Sequence[npt.NDArray[np.floating]]
) -> Image:
    """A frame's tracks with their trails and a line of figures, at most `MAX_WIDTH_PX` wide, `rgb8`.

    Args:
        header: Of the image; the message has its stamp and frame_id.
        image: (H, W) grey or (H, W, 3) RGB, uint8.
        result: Of the image.
        trails: Of its tracks, (L, 2) px each.
    """
    scale = min(1.0, MAX_WIDTH_PX / image.shape[1])
    drawn = draw_tracks(image, trails, result.tracks.ages, scale=scale)
    caption = f"{len(result.features)} keypoints  {len(result.matches)} matches  {result.features.extractor}"
    picture = draw_caption(drawn, caption, max(drawn.shape[1] / MAX_WIDTH_PX, 0.5))
    return array_to_image(picture, "rgb8", header.stamp, header.frame_id)
