"""Thousands of generated messages of broken and hostile senders: each is accepted, or refused with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from feature_frontend.camera.calibration import calibration_from_message, normalize_points
from feature_frontend.errors import CalibrationError, ImageError, SettingsError
from feature_frontend.image.intensity import INTENSITY_MODES, IntensityRange
from feature_frontend.ros.input.image_conversion import image_to_array
from feature_frontend.ros.parameters import declare_parameters
from feature_frontend.settings import PARAMETERS
from tests.campaign import Campaign
from tests.generated import for_each
from tests.memory import peak_mib, resident_mib
from tests.ros.hostile_messages import camera_infos, compressed_images, images

Uint8Array = npt.NDArray[np.uint8]

_MAX_PIXELS = 4_000_000
# 4 Mpx in 16 bits and three channels, once decoded and once scaled in float32; fifty times a bomb would be far above.
_MAX_GROWTH_OF_PEAK_MIB = 300
_MAX_LEAK_MIB = 20
_INTENSITIES = [IntensityRange(mode, -10.0, 1000.0) for mode in INTENSITY_MODES]
_POINTS = np.array([[0, 0], [31.5, 23.5], [63, 47]], np.float32)


def _check_reason(error: Exception) -> str:
    reason = str(error)
    assert 20 < len(reason) < 800, reason
    assert reason.isprintable(), reason
    return "refused"


def _check_image(message: Image | CompressedImage, intensity: IntensityRange) -> str:
    try:
        pixels = image_to_array(message, intensity, _MAX_PIXELS)
    except ImageError as error:
        return _check_reason(error)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    assert 0 < pixels.shape[0] * pixels.shape[1] <= _MAX_PIXELS
    if isinstance(message, Image):
        assert pixels.shape[:2] == (message.height, message.width)
    return "taken"


def _check_calibration(message: CameraInfo) -> str:
    try:
        points = normalize_points(calibration_from_message(message), _POINTS)
    except CalibrationError as error:
        return _check_reason(error)
    assert points.shape == (3, 2)
    assert points.dtype == np.float32
    return "taken"


_KINDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], str]]] = {
    "Image": (
        st.tuples(images(), st.sampled_from(_INTENSITIES)),
        lambda drawn: _check_image(*drawn),
    ),
    "CompressedImage": (
        st.tuples(compressed_images(), st.sampled_from(_INTENSITIES)),
        lambda drawn: _check_image(*drawn),
    ),
    "CameraInfo": (camera_infos(), _check_calibration),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
def test_hostile_messages_are_refused_and_nothing_else(
    kind: str, campaign: Campaign, report_figure: Callable[[str], None]
) -> None:
    messages, check = _KINDS[kind]
    outcomes: Counter[str] = Counter()
    count = campaign.count(20_000, "messages")

    def check_and_count(message: Any) -> None:
        outcomes[check(message)] += 1

    # What is allocated once and kept (caches of OpenCV and hypothesis) is no leak.
    for_each(messages, count // 4, check_and_count, campaign.seed)
    before_mib, before_peak_mib = resident_mib(), peak_mib()
    for_each(messages, count - count // 4, check_and_count, campaign.seed)
    growth_mib = resident_mib() - before_mib
    report_figure(
        f"{kind}: {outcomes.total()} hostile messages, {outcomes['taken']} taken, {outcomes['refused']} refused, "
        f"resident memory {before_mib:.0f} MiB before, {growth_mib:+.1f} MiB after"
    )
    assert outcomes.total() >= count
    assert min(outcomes["taken"], outcomes["refused"]) > count // 20
    assert growth_mib < _MAX_LEAK_MIB
    assert peak_mib() - before_peak_mib < _MAX_GROWTH_OF_PEAK_MIB


_overrides = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.sampled_from([record.default for record in PARAMETERS.values()]),
)


def test_parameter_overrides_of_any_type_are_taken_or_named(domain_id: int, campaign: Campaign) -> None:
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    outcomes: Counter[str] = Counter()

    def check(drawn: tuple[str, Any]) -> None:
        name, value = drawn
        overrides = [Parameter(name, value=value)]
        options = {"start_parameter_services": False, "enable_rosout": False, "context": context}
        node = rclpy.create_node("frontend", parameter_overrides=overrides, **options)
        try:
            declare_parameters(node)
        except SettingsError as error:
            outcomes["refused" if name in str(error) else "without its reason"] += 1
        else:
            outcomes["taken"] += 1
        finally:
            node.destroy_node()

    drawn = st.tuples(st.sampled_from(list(PARAMETERS)), _overrides)
    try:
        for_each(drawn, campaign.count(500, "overrides"), check, campaign.seed)
    finally:
        context.try_shutdown()
    assert outcomes.keys() == {"taken", "refused"}
