"""The parameters of extraction."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.models.catalog import EXTRACTOR_MODELS
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["ExtractionSettings"]


@dataclass(frozen=True)
class ExtractionSettings(SettingsGroup):
    """What decides which keypoints and descriptors an image gives."""

    extractor: str = parameter(
        "aliked-n16",
        "What finds and describes the keypoints: a network, or OpenCV's SIFT on the CPU (sift, rootsift; -upright: "
        "without orientations), to which residual-* add what a network sees.",
        choices=tuple(EXTRACTOR_MODELS),
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
