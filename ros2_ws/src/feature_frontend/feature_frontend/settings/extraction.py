"""The parameters of extraction."""

from __future__ import annotations

from dataclasses import dataclass

from feature_frontend.models.catalog import AUTO, EXTRACTOR_MODELS
from feature_frontend.settings.parameter import SettingsGroup, parameter

__all__ = ["ExtractionSettings"]


@dataclass(frozen=True)
class ExtractionSettings(SettingsGroup):
    """Which keypoints and descriptors are extracted from an image."""

    extractor: str = parameter(
        AUTO,
        "Detects keypoints and computes their descriptors: a network, or OpenCV's SIFT on the CPU (sift, rootsift; "
        "-upright: without orientations), which the residual-* networks refine. auto: aliked-n16 on a GPU where its "
        "weights are or can be downloaded, otherwise dotlet; the parameter then names the one in use.",
        choices=(AUTO, *(name for name, model in EXTRACTOR_MODELS.items() if model.is_listed)),
        unlisted=tuple(name for name, model in EXTRACTOR_MODELS.items() if not model.is_listed),
        reloads=True,
    )
    weights_dir: str = parameter(
        "",
        "Folder searched first for the weights; empty: $FEATURE_FRONTEND_WEIGHTS, then the cache "
        "($XDG_CACHE_HOME/feature_frontend), then a download into the cache. Weights that you trained for a network "
        "without published ones are found in the same folders: EXTRACTOR.safetensors, .pth or .ckpt.",
        reloads=True,
    )
    weights_path: str = parameter(
        "",
        "Weights file for the extractor (.pth, .ckpt or .safetensors), used instead of the published weights: for "
        "weights that you trained, or a network without published ones. A live change of extractor alone clears it.",
        reloads=True,
    )
    device: str = parameter(
        "auto",
        "Device on which the network runs: auto (CUDA if available, otherwise the CPU), cpu, cuda or cuda:N.",
        reloads=True,
    )
    precision: str = parameter(
        "float32",
        "Floating-point type in which the network computes; coordinates and scores stay float32.",
        choices=("float32", "float16", "bfloat16"),
        reloads=True,
    )
    compile: bool = parameter(
        True,
        "On the CPU: compile the network in the background for image sizes that recur, and use the compiled code once "
        "it is ready; it is cached on disk. Needs a C++ compiler; without one the network runs uncompiled.",
        reloads=True,
    )
    max_num_keypoints: int = parameter(
        1000,
        "Maximum number of keypoints per image; those with the highest scores are kept.",
        minimum=1,
        maximum=50_000,
        live=True,
    )
    detection_threshold: float = parameter(
        0.0,
        "Minimum score of a keypoint before refinement; 0 keeps the best max_num_keypoints whatever their score. "
        "For SIFT it is OpenCV's contrastThreshold, at least 0.005.",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    nms_radius: int = parameter(
        -1,
        "Radius of non-maximum suppression and of ALIKED's and dotlet's sub-pixel refinement; 0 turns both off, -1 "
        "uses the network's default: 2 for ALIKED and dotlet, 0 for SiLK and SIFT.",
        unit="px",
        minimum=-1,
        maximum=16,
        live=True,
    )
    border: int = parameter(
        0,
        "Width of the border without keypoints, in the network's image. It is at least nms_radius for ALIKED and "
        "dotlet, and for SiLK at least what its unpadded convolutions cut off (3 to 9 px).",
        unit="px",
        minimum=0,
        maximum=1000,
        live=True,
    )
    distribution: str = parameter(
        "none",
        "How keypoints are distributed over the image. none: the highest scores, wherever they are; grid: each cell of "
        "a grid has a quota, and unused quota goes to the best remaining keypoints of all cells.",
        choices=("none", "grid"),
        live=True,
    )
    grid_rows: int = parameter(
        6,
        "Number of rows of the grid, with distribution grid.",
        minimum=1,
        maximum=64,
        live=True,
    )
    grid_columns: int = parameter(
        8,
        "Number of columns of the grid, with distribution grid.",
        minimum=1,
        maximum=64,
        live=True,
    )
    grid_slack: float = parameter(
        1.0,
        "Quota of a grid cell, as a multiple of max_num_keypoints / number of cells: 1 is the most even distribution; "
        "a larger value lets textured cells keep more.",
        minimum=1.0,
        maximum=100.0,
        live=True,
    )
    multi_scale: bool = parameter(
        False,
        "Whether the network also processes smaller copies of the image, in steps of 2^(1/4) down to 256 px on the "
        "longer side, and keeps the best scores of all scales (like R2D2's MS): for views from different distances. "
        "Takes 3 to 4 times as long. Not with tracker persistent.",
        live=True,
    )
    resize_height: int = parameter(
        0,
        "Height to which the image is resized for the network, with the same aspect ratio; 0 keeps the size. "
        "Coordinates still refer to the image as published.",
        unit="px",
        minimum=0,
        maximum=8192,
        live=True,
    )
    max_pixels: int = parameter(
        2_100_000,
        "Maximum number of pixels the network processes: a larger image is downscaled, with the same aspect ratio. "
        "Limits memory and time.",
        unit="px",
        minimum=1024,
        maximum=100_000_000,
        live=True,
    )
    min_grey_range: int = parameter(
        12,
        "An image whose grey levels, averaged over 3x3 px, span less than this counts as blank and gets no keypoints; "
        "0 turns the check off.",
        unit="grey levels",
        minimum=0,
        maximum=255,
        live=True,
    )
