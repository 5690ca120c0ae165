"""Which mask a frame gets: from the file, from the topic, or a substitute for a missing one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from feature_frontend.errors import MaskError, SettingsError
from feature_frontend.pipeline.masks import FrameMasks, MaskCounts, TopicMask
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.input.mask_topic import mask_from_message
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.runtime.mask_sync import PairedMask
from feature_frontend.settings import Settings

_SIZE = (6, 8)
_LATE = "its mask did not come within 100 ms"


def _mask(*columns: int) -> TopicMask:
    """A mask that allows these columns."""
    pixels = np.zeros(_SIZE, np.uint8)
    pixels[:, columns] = 7
    return mask_from_message(array_to_image(pixels, "mono8", stamp_from_ns(0), "camera"), 1000)


def _columns(masks: FrameMasks, paired: PairedMask[TopicMask] | None, settings: Settings) -> list[int] | None:
    mask = masks.of_frame(paired, _SIZE, settings).mask
    return None if mask is None else np.flatnonzero(mask.all(axis=0)).tolist()


def test_file_and_topic_allow_what_both_allow(tmp_path: Path) -> None:
    path = str(tmp_path / "mask.png")
    cv2.imwrite(path, np.tile(np.array([0, 0, 1, 1, 1, 1, 2, 2], np.uint8), (6, 1)))
    masks, own = FrameMasks(), PairedMask(_mask(1, 2, 7), 0.0, "")
    with_file = Settings(mask_path=path)
    assert _columns(masks, None, Settings()) is None
    assert _columns(masks, own, Settings()) == [1, 2, 7]
    assert _columns(masks, None, with_file) == [2, 3, 4, 5, 6, 7]
    assert _columns(masks, own, with_file) == [2, 7]
    with pytest.raises(MaskError, match=r"mask\.png .*8x6 px.* 8x5 px"):
        masks.of_frame(own, (5, 8), with_file)
    Path(path).unlink()
    assert _columns(masks, own, with_file) == [2, 7]  # it was read once; another frame needs no file
    with pytest.raises(SettingsError, match=r"mask\.png"):
        FrameMasks().of_frame(None, _SIZE, with_file)


def test_what_stands_in_for_a_missing_mask_is_said_and_counted() -> None:
    masks = FrameMasks()
    young, old = PairedMask(_mask(3), 66.0, _LATE), PairedMask(_mask(3), 600.0, _LATE)
    nothing = PairedMask[TopicMask](None, 0.0, _LATE)
    last, none, refuse = (Settings(mask_missing=choice) for choice in ("last", "none", "refuse"))

    found = masks.of_frame(young, _SIZE, last)
    assert found.mask is not None
    assert found.note == f"{_LATE}: used that of 66 ms before (1 so far)"
    other_size = PairedMask(TopicMask(np.ones((7, 8), np.uint8)), 66.0, _LATE)
    for paired, parameters in ((old, last), (nothing, last), (young, none), (other_size, last)):
        found = masks.of_frame(paired, _SIZE, parameters)
        assert found.mask is None
        assert found.note == f"{_LATE}: used none ({masks.counts.none} so far)"
    with pytest.raises(MaskError, match=r"100 ms.* mask_missing is 'refuse'"):
        masks.of_frame(young, _SIZE, refuse)
    assert masks.of_frame(PairedMask(_mask(3), 0.0, ""), _SIZE, refuse).note == ""
    assert masks.counts == MaskCounts(own=1, last=1, none=4, refused=1)


@settings(max_examples=500)
@given(
    height=st.sampled_from([0, 1, 6, 7, 2**31, 2**32 - 1]),
    width=st.sampled_from([0, 1, 8, 9, 2**31, 2**32 - 1]),
    step=st.sampled_from([0, 7, 8, 9, 16, 2**32 - 1]),
    encoding=st.sampled_from(["mono8", "8UC1", "mono16", "rgb8", "32FC1", "", "mask"]),
    data=st.binary(max_size=120),
)
def test_no_mask_message_does_anything_but_serve_or_be_refused(
    height: int, width: int, step: int, encoding: str, data: bytes
) -> None:
    message = Image(height=height, width=width, step=step, encoding=encoding)
    message.data = data
    masks, paired = FrameMasks(), PairedMask(mask_from_message(message, 1000), 0.0, "")
    fits = (height, width, encoding in {"mono8", "8UC1"}) == (*_SIZE, True)
    if fits and step >= width and len(data) >= step * (height - 1) + width:
        mask = masks.of_frame(paired, _SIZE, Settings()).mask
        assert mask is not None
        assert mask.shape == _SIZE
    else:
        with pytest.raises(MaskError, match="the mask on topic mask"):
            masks.of_frame(paired, _SIZE, Settings())
