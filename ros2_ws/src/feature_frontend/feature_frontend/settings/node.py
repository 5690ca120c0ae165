"""The parameters of the node: what it subscribes to and publishes."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.errors import SettingsError
from feature_frontend.image.intensity import DEFAULT_INTENSITY, INTENSITY_MODES, IntensityRange
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["NodeSettings"]


@dataclass(frozen=True)
class NodeSettings(SettingsGroup):
    """How the ROS 2 node receives images and publishes results."""

    fallback_extractor: str = parameter(
        "dotlet",
        "Extractor to use if the weights of `extractor` are not on this machine and cannot be downloaded; empty: "
        "none, the node exits with an error. A model change while the node runs has no fallback: the old model stays.",
        choices=("dotlet", "silk-vggnp-mu", ""),
    )
    queue_policy: str = parameter(
        "newest",
        "newest: at most one image waits; a newer one replaces it, and status counts the dropped one; every_frame: all "
        "images are queued, for replay.",
        choices=("newest", "every_frame"),
    )
    rectified: bool = parameter(
        False,
        "Whether the images are already rectified (image_rect): normalized_keypoints are then computed with the "
        "projection matrix P of camera_info, in the rectified camera's frame, instead of with K and the distortion.",
        live=True,
    )
    image_qos: str = parameter(
        "sensor_data",
        "QoS of the image and camera_info subscriptions: sensor_data (best effort, fits every publisher) or reliable.",
        choices=("sensor_data", "reliable"),
    )
    image_transport: str = parameter(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: sensor_msgs/CompressedImage (JPEG or PNG) on "
        "`image/compressed`; remapping `image` also remaps it, as with image_transport.",
        choices=("raw", "compressed"),
    )
    max_image_pixels: int = parameter(
        MAX_IMAGE_PIXELS,
        "Maximum size of an image, height times width; a larger one is refused before it is decoded or converted. "
        "Limits the memory that a broken or hostile sender can claim.",
        unit="px",
        minimum=1024,
        maximum=1_000_000_000,
        live=True,
    )
    intensity_range: str = parameter(
        DEFAULT_INTENSITY.mode,
        "Samples that map to black and white in images with more than 8 bits (mono16, 16UC1, 32FC1, rgb16, ...). "
        "percentile: the image's 1st and 99th percentile; minmax: its extremes; full: the range of the type, 0 to 1 "
        "for floats; fixed: intensity_low and intensity_high, the most stable for a thermal camera.",
        choices=INTENSITY_MODES,
        live=True,
    )
    intensity_low: float = parameter(
        DEFAULT_INTENSITY.low,
        "Sample that maps to black with intensity_range fixed, in the image's unit.",
        minimum=-1e9,
        maximum=1e9,
        live=True,
    )
    intensity_high: float = parameter(
        DEFAULT_INTENSITY.high,
        "Sample that maps to white with intensity_range fixed, in the image's unit; must be above intensity_low.",
        minimum=-1e9,
        maximum=1e9,
        live=True,
    )
    deadline_ms: float = parameter(
        0.0,
        "Target latency, from an image's arrival to its results; 0: none. While the median over 1 s exceeds it, the "
        "network gets smaller images, in steps of 0.7 of the usual pixels; while the median over 3 s leaves room, "
        "larger ones again. Coordinates still refer to the image as published; status reports each step.",
        unit="ms",
        minimum=0.0,
        maximum=60_000.0,
        live=True,
    )
    output_qos: str = parameter(
        "reliable",
        "QoS of the published topics: reliable or sensor_data (best effort).",
        choices=("reliable", "sensor_data"),
    )
    output_depth: int = parameter(
        10,
        "Queue depth of each published topic, for slow subscribers; 0 keeps all messages.",
        unit="messages",
        minimum=0,
        maximum=10_000,
    )
    mask_path: str = parameter(
        "",
        "Mask file for all images (PNG, same size as the images): no keypoints where it is 0. Empty: no mask.",
        live=True,
    )
    mask_topic: bool = parameter(
        False,
        "Whether each image waits for its own mask on the topic `mask` (mono8, the image's size and stamp, 0 = do not "
        "use). With mask_path, both masks must allow a pixel.",
    )
    mask_timeout_ms: float = parameter(
        100.0,
        "Maximum time that an image waits for its mask after arrival; a mask with a later stamp ends the wait. 0: no "
        "wait, only a mask that has already arrived is used.",
        unit="ms",
        minimum=0.0,
        maximum=10_000.0,
        live=True,
    )
    mask_missing: str = parameter(
        "last",
        "What happens to an image whose mask does not arrive in time. last: the latest earlier mask is used, if not "
        "older than mask_max_age_ms, otherwise no mask; none: no mask; refuse: it is refused. status reports it.",
        choices=("last", "none", "refuse"),
        live=True,
    )
    mask_max_age_ms: float = parameter(
        500.0,
        "Maximum age of the earlier mask that mask_missing last uses: the image's stamp minus the mask's stamp.",
        unit="ms",
        minimum=0.0,
        maximum=60_000.0,
        live=True,
    )
    descriptor_type: str = parameter(
        "float32",
        "Floating-point type of the published descriptors; float16 halves the message size.",
        choices=("float32", "float16"),
        live=True,
    )
    publish_descriptors: bool = parameter(
        True,
        "Whether `features` contains the descriptors; without them the messages are small, and matching still works.",
        live=True,
    )
    publish_matches: bool = parameter(
        True,
        "Whether `matches` is published; images are still matched, for the tracks.",
        live=True,
    )
    publish_tracks: bool = parameter(
        True,
        "Whether `tracks` is published; tracking continues, so that ids and ages are right when it is turned on again.",
        live=True,
    )
    store_frames: int = parameter(
        50,
        "Number of latest frames whose features are stored for the service ~/match_frames; 0: none.",
        unit="frames",
        minimum=0,
        maximum=100_000,
        live=True,
    )
    store_mib: int = parameter(
        256,
        "Maximum memory for the stored frames; the oldest are discarded first.",
        unit="MiB",
        minimum=1,
        maximum=65_536,
        live=True,
    )
    autostart: bool = parameter(
        True,
        "Whether the node configures and activates itself at start; false leaves both to a lifecycle manager.",
    )

    @property
    def intensity(self) -> IntensityRange:
        """How samples with more than 8 bits are converted to grey levels."""
        return IntensityRange(self.intensity_range, self.intensity_low, self.intensity_high)

    def __post_init__(self) -> None:
        """Also checks values against each other."""
        super().__post_init__()
        if self.intensity_low >= self.intensity_high:
            raise SettingsError(
                f"parameter intensity_low is {self.intensity_low:g} and intensity_high {self.intensity_high:g}; "
                "expected the first below the second"
            )
