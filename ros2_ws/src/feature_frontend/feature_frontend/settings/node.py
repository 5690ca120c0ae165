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
    """How the ROS 2 node takes images and publishes results."""

    fallback_extractor: str = parameter(
        "silk-vggnp-mu",
        "Extractor to use when the weights of `extractor` are nowhere on this machine and no network answers; empty: "
        "none, the node ends with an error. A change of model while the node runs has no fallback: the old one stays.",
        choices=("silk-vggnp-mu", ""),
    )
    queue_policy: str = parameter(
        "newest",
        "newest: one image waits at most, a newer one replaces it and the dropped one is counted in status; "
        "every_frame: all images wait their turn, for replay.",
        choices=("newest", "every_frame"),
    )
    rectified: bool = parameter(
        False,
        "Whether the images are rectified already (image_rect): normalized_keypoints then come from the projection "
        "matrix P of camera_info, in the rectified camera's frame, instead of from K and the distortion.",
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
        "`image/compressed`, which remapping `image` moves too, as with image_transport.",
        choices=("raw", "compressed"),
    )
    max_image_pixels: int = parameter(
        MAX_IMAGE_PIXELS,
        "Largest image that is accepted, height times width; a larger one is refused before it is decoded or "
        "converted. Bounds the memory that a broken or hostile sender can claim.",
        unit="px",
        minimum=1024,
        maximum=1_000_000_000,
        live=True,
    )
    intensity_range: str = parameter(
        DEFAULT_INTENSITY.mode,
        "Which sample of an image with more than 8 bits (mono16, 16UC1, 32FC1, rgb16, ...) becomes black and which "
        "white: percentile: the image's 1st and 99th percentile; minmax: its extremes; full: the range of the type, 0 "
        "to 1 for floats; fixed: intensity_low and intensity_high, the steadiest for a thermal camera.",
        choices=INTENSITY_MODES,
        live=True,
    )
    intensity_low: float = parameter(
        DEFAULT_INTENSITY.low,
        "Sample that becomes black with intensity_range fixed, in the image's own unit.",
        minimum=-1e9,
        maximum=1e9,
        live=True,
    )
    intensity_high: float = parameter(
        DEFAULT_INTENSITY.high,
        "Sample that becomes white with intensity_range fixed, in the image's own unit; above intensity_low.",
        minimum=-1e9,
        maximum=1e9,
        live=True,
    )
    deadline_ms: float = parameter(
        0.0,
        "Latency to hold, from an image's arrival to its results; 0: none. While the median of a second is later, the "
        "network gets a smaller image, in steps of 0.7 of its usual pixels; while that of 3 s leaves room, a larger "
        "one again. Coordinates stay those of the image as published; each step is in status.",
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
        "Messages of each published topic that are kept for slow subscribers; 0 keeps all.",
        unit="messages",
        minimum=0,
        maximum=10_000,
    )
    mask_path: str = parameter(
        "",
        "File of a mask for all images (PNG, of the images' size): keypoints lie where it is not 0. Empty: none.",
        live=True,
    )
    mask_topic: bool = parameter(
        False,
        "Whether each image waits for a mask of its own on the topic `mask` (mono8, the image's size and stamp, 0 = do "
        "not use). Together with mask_path, both must allow a pixel.",
    )
    mask_timeout_ms: float = parameter(
        100.0,
        "How long after its arrival an image waits for its mask; a mask of a later stamp ends the waiting. 0 takes "
        "what is there.",
        unit="ms",
        minimum=0.0,
        maximum=10_000.0,
        live=True,
    )
    mask_missing: str = parameter(
        "last",
        "What becomes of an image whose mask does not come in time. last: the last mask before it is used, if it is "
        "not older than mask_max_age_ms, else none; none: it goes without; refuse: it is refused. status says which.",
        choices=("last", "none", "refuse"),
        live=True,
    )
    mask_max_age_ms: float = parameter(
        500.0,
        "How much older than the image, by their stamps, the mask may be that stands in for a missing one.",
        unit="ms",
        minimum=0.0,
        maximum=60_000.0,
        live=True,
    )
    descriptor_type: str = parameter(
        "float32",
        "Number format of the published descriptors; float16 halves the messages.",
        choices=("float32", "float16"),
        live=True,
    )
    publish_descriptors: bool = parameter(
        True,
        "Whether `features` carries the descriptors; without them its messages are small, and matching goes on inside.",
        live=True,
    )
    publish_matches: bool = parameter(
        True,
        "Whether `matches` is published; matching goes on for the tracks.",
        live=True,
    )
    publish_tracks: bool = parameter(
        True,
        "Whether `tracks` is published; tracking goes on, so that ids and ages are right when it is turned on again.",
        live=True,
    )
    store_frames: int = parameter(
        50,
        "Latest frames whose features stay in memory for the service ~/match_frames; 0: none.",
        unit="frames",
        minimum=0,
        maximum=100_000,
        live=True,
    )
    store_mib: int = parameter(
        256,
        "Most memory that those frames take; the oldest go first.",
        unit="MiB",
        minimum=1,
        maximum=65_536,
        live=True,
    )
    autostart: bool = parameter(
        True,
        "Whether the node configures and activates itself when it starts; false leaves both to a lifecycle manager.",
    )

    @property
    def intensity(self) -> IntensityRange:
        """How samples of more than 8 bits become grey levels."""
        return IntensityRange(self.intensity_range, self.intensity_low, self.intensity_high)

    def __post_init__(self) -> None:
        """Checks also what concerns two values."""
        super().__post_init__()
        if self.intensity_low >= self.intensity_high:
            msg = (
                f"parameter intensity_low is {self.intensity_low:g} and intensity_high {self.intensity_high:g}; "
                "expected the first below the second"
            )
            raise SettingsError(msg)
