"""Splits one of this project's extractors into stages that can be timed separately."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.engines.extraction import NetworkEngine
from benchmarks.types import Canvas
from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.aliked import Aliked
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.networks.layers.keypoint_detection import detect_keypoints, detect_padded
from feature_frontend.image.preprocessing import check_image, grey_range, images_to_batch
from feature_frontend.image.resize import padding_to_multiple

__all__ = ["STAGES", "stage_calls"]

STAGES = ("preprocess", "dense network", "detection", "description")


def stage_calls(engine: NetworkEngine, image: Callable[[int], Canvas]) -> dict[str, Callable[[int], object]] | None:
    """The stages as calls for `interleave`, each using the previous stage's output; None if there are no stages.

    Only the plain and the fast ALIKED have stages; compiled code is used if available for the size. On a GPU, the
    stages of the fast network run one by one, unlike in its CUDA graph.

    Args:
        engine: An engine prepared for the images.
        image: Returns the image of a round.
    """
    extractor = engine.extractor
    network: Any = extractor._network
    options = extractor._options()
    if isinstance(network, Aliked):
        dense, detect, describe = network.__call__, _detect_plain, partial(_describe_plain, network)
    elif isinstance(network, FastAliked):
        dense, detect, describe = (
            extractor._compiler.run if extractor._compiler else network.dense,
            _detect_fast,
            partial(_describe_fast, network),
        )
    else:
        return None
    # Output of each stage, by name.
    left: dict[str, Any] = {}

    def preprocess(number: int) -> None:
        checked = check_image(image(number), network.minimum_size)
        grey_range(checked)
        left["images"] = images_to_batch([checked], extractor.device, network.input_channels)

    def run_dense(_: int) -> None:
        left["maps"] = dense(left["images"])

    def run_detection(_: int) -> None:
        left["detections"] = detect(left["maps"], options)

    def run_description(_: int) -> None:
        left["descriptors"] = describe(left["maps"], left["detections"])

    return {
        name: torch.no_grad()(call)
        for name, call in zip(STAGES, (preprocess, run_dense, run_detection, run_description), strict=True)
    }


def _detect_plain(maps: Any, options: DetectionOptions) -> Any:
    return detect_keypoints(maps.score_map, options)


def _describe_plain(network: Aliked, maps: Any, detections: Any) -> Any:
    return network.desc_head(maps.feature_map[0], detections[0][0])


def _detect_fast(maps: Any, options: DetectionOptions) -> Any:
    return detect_padded(maps[0], options)


def _describe_fast(network: FastAliked, maps: Any, detections: Any) -> Any:
    score_map, *levels = maps
    height, width = score_map.shape[-2:]
    padding = padding_to_multiple(height, width, network.minimum_size)
    return network.describer(levels, detections.keypoints, padding, (height, width))
