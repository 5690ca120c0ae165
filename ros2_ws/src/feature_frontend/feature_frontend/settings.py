"""Every parameter of the front-end, declared once.

The ROS parameters with their descriptors, the YAML files, the README's table, the tools' options and the keyword
arguments of the Python API all follow from the fields below. A field says its default, its unit, its bounds or choices,
what it does, and whether it may change while the node runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.encodings import MAX_IMAGE_PIXELS
from feature_frontend.epipolar_check import EpipolarSettings
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.intensity import DEFAULT_INTENSITY, INTENSITY_MODES, IntensityRange
from feature_frontend.matchers.settings import MatchingSettings, check_extractor
from feature_frontend.parameter_record import ParameterRecord, SettingsGroup, parameter
from feature_frontend.stereo.settings import StereoSettings
from feature_frontend.tracking.settings import TrackingSettings

__all__ = ["PARAMETERS", "ExtractionSettings", "MatchingSettings", "NodeSettings", "Settings", "TrackingSettings"]


@dataclass(frozen=True)
class ExtractionSettings(SettingsGroup):
    """What decides which keypoints and descriptors an image gives."""

    extractor: str = parameter(
        "aliked-n16",
        "What finds and describes the keypoints: a network, or OpenCV's SIFT on the CPU (sift, rootsift; -upright: "
        "without orientations), to which residual-* add what a network sees.",
        choices=tuple(EXTRACTORS),
        reloads=True,
    )
    weights_dir: str = parameter(
        "",
        "Folder in which the weights are looked for first; empty: $FEATURE_FRONTEND_WEIGHTS, then the cache "
        "($XDG_CACHE_HOME/feature_frontend), then a download into it. Networks without published weights find "
        "files of your own in the same folders: EXTRACTOR.safetensors, .pth or .ckpt.",
        reloads=True,
    )
    weights_path: str = parameter(
        "",
        "File of weights for the extractor (.pth, .ckpt or .safetensors), instead of the published ones: your own, or "
        "those of a network without published ones here. Live, a change of extractor alone empties it.",
        reloads=True,
    )
    device: str = parameter(
        "auto",
        "Where the network runs: auto (CUDA where there is one, else the CPU), cpu, cuda or cuda:N.",
        reloads=True,
    )
    precision: str = parameter(
        "float32",
        "Number format of the network; coordinates and scores stay float32.",
        choices=("float32", "float16", "bfloat16"),
        reloads=True,
    )
    compile: bool = parameter(
        True,
        "On the CPU: compile the network in the background for the image sizes that keep coming, and use the compiled "
        "code once it is ready; it is kept on disk. Needs a C++ compiler; without one the network runs uncompiled.",
        reloads=True,
    )
    max_num_keypoints: int = parameter(
        1000,
        "Most keypoints kept in an image, the best scores first.",
        minimum=1,
        maximum=50_000,
        live=True,
    )
    detection_threshold: float = parameter(
        0.0,
        "Lowest score a keypoint may have before refinement; 0 keeps the best max_num_keypoints whatever their score. "
        "For SIFT it is OpenCV's contrastThreshold, at least 0.005.",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    nms_radius: int = parameter(
        -1,
        "Half width of the window in which only the best keypoint stays, and of ALIKED's sub-pixel refinement; 0 turns "
        "both off, -1 is the network's own: 2 for ALIKED, 0 for SiLK and SIFT.",
        unit="px",
        minimum=-1,
        maximum=16,
        live=True,
    )
    border: int = parameter(
        0,
        "Width of the edge of the network's image that gets no keypoints; ALIKED keeps at least nms_radius free, SiLK "
        "what its convolutions without padding take (3 to 9 px).",
        unit="px",
        minimum=0,
        maximum=1000,
        live=True,
    )
    distribution: str = parameter(
        "none",
        "How keypoints spread over the image. none: the best scores, wherever they are; grid: each cell of a grid has "
        "a quota, and what a cell leaves unused goes to the best remaining keypoints of all cells.",
        choices=("none", "grid"),
        live=True,
    )
    grid_rows: int = parameter(
        6,
        "Cells from top to bottom, for the distribution grid.",
        minimum=1,
        maximum=64,
        live=True,
    )
    grid_columns: int = parameter(
        8,
        "Cells from left to right, for the distribution grid.",
        minimum=1,
        maximum=64,
        live=True,
    )
    grid_slack: float = parameter(
        1.0,
        "Quota of a cell in even shares of max_num_keypoints: 1 spreads most evenly, more lets textured cells keep "
        "more.",
        minimum=1.0,
        maximum=100.0,
        live=True,
    )
    multi_scale: bool = parameter(
        False,
        "Whether the image is also looked at smaller, in steps of 2^(1/4) down to 256 px of the longer side, and the "
        "best scores of all scales are kept (as R2D2's MS): for views from different distances. Takes 3 to 4 times as "
        "long. Not with the tracker persistent.",
        live=True,
    )
    resize_height: int = parameter(
        0,
        "Height to which the image is resized for the network, its aspect kept; 0 keeps the size. Coordinates stay "
        "those of the image as published.",
        unit="px",
        minimum=0,
        maximum=8192,
        live=True,
    )
    max_pixels: int = parameter(
        2_100_000,
        "Most pixels the network sees: a larger image is shrunk to it, its aspect kept. Bounds memory and time.",
        unit="px",
        minimum=1024,
        maximum=100_000_000,
        live=True,
    )
    min_grey_range: int = parameter(
        12,
        "An image whose grey levels, each a mean of 3x3 px, span fewer than this is taken as blank and gives no "
        "keypoints; 0 turns the check off.",
        unit="grey levels",
        minimum=0,
        maximum=255,
        live=True,
    )


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


@dataclass(frozen=True)
class Settings(StereoSettings, NodeSettings, EpipolarSettings, TrackingSettings, MatchingSettings, ExtractionSettings):
    """All parameters of the node."""

    def __post_init__(self) -> None:
        """Checks also whether extractor, matcher and tracker go together."""
        super().__post_init__()
        check_extractor(self.matcher, self.extractor)
        if self.tracker == "persistent" and not EXTRACTORS[self.extractor].has_maps:
            with_maps = ", ".join(name for name, record in EXTRACTORS.items() if record.has_maps)
            msg = (
                f"parameter tracker is 'persistent', which finds points again on a network's score map, and "
                f"{self.extractor} has none; expected tracker chain, or one of the extractors {with_maps}"
            )
            raise SettingsError(msg)
        if self.tracker == "persistent" and self.multi_scale:
            msg = (
                "parameter multi_scale is true and tracker 'persistent', which finds points again on the score map of "
                "one scale; expected multi_scale false, or tracker chain"
            )
            raise SettingsError(msg)


PARAMETERS: dict[str, ParameterRecord] = Settings.records()
