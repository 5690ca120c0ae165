"""Steps: captured graphs compared with the plain network on the device, and the device compared with the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.images import Frames
from benchmarks.types import Canvas, Table
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.types import Features
from scripts.gpu_check.models import (
    available,
    on_cpu,
    on_device,
    plain_on_device,
    settings_for,
    tensor_float32,
)
from scripts.gpu_check.real_frames import sequences
from scripts.gpu_check.right.comparing import FeatureAgreement, compare_features
from scripts.gpu_check.right.wording import mark, sides, verdict
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import TimeBox
from tests.tolerances import DEVICE

__all__ = ["captured_graphs", "device_features", "speckled"]

_NETWORKS = ("aliked-n16", "silk-vggnp-mu", "dotlet", "aliked-t16", "aliked-n32", "aliked-n16rot")
_REHEARSED_NETWORKS = ("silk-vggnp-mu", "dotlet", "aliked-t16")
_BATCH = 8
_COLUMNS = ("setting", "points", "the same", "within 0.1 px", "median px", "worst score", "least cosine", "")


@dataclass(frozen=True)
class Variation:
    """A way to extract.

    Attributes:
        name: Name in the table.
        settings: Settings besides the network's name.
        is_masked: Whether each image has its own mask.
        batch: Number of images processed together.
    """

    name: str
    settings: dict[str, bool | float | str] = field(default_factory=dict)
    is_masked: bool = False
    batch: int = 1


_VARIATIONS = (
    Variation("as it is"),
    Variation("masks", is_masked=True),
    Variation("grid", {"distribution": "grid"}),
    Variation("multi-scale", {"multi_scale": True}),
    Variation(f"batch of {_BATCH}", batch=_BATCH),
    Variation("masks, grid, batch", {"distribution": "grid"}, is_masked=True, batch=_BATCH),
    Variation("threshold", {"detection_threshold": 0.3, "max_num_keypoints": 5000}),
    Variation("resized", {"resize_height": 300}),
    Variation("suppression 4 px, border", {"nms_radius": 4, "border": 20}),
)


def captured_graphs(context: Context, box: TimeBox) -> Outcome:
    """The fast, captured network of users compared with the network as in the paper, both on the device.

    One graph serves all images of a size; another size is used in between.
    """
    networks, missing = available(context, _REHEARSED_NETWORKS if context.is_rehearsal else _NETWORKS)
    frames = sequences(context, 3, (160, 128))
    small = speckled_image(96, 128)
    findings = Findings()
    with tensor_float32(convolutions=False, products=False):
        for network in box.each(networks):
            with box.attempt(network):
                settings = settings_for(context, network)
                graph, plain = on_device(settings), plain_on_device(settings)
                for name, own in frames.items():
                    found = [graph.extract(image).to("cpu") for image in own.images]
                    graph.extract(small)
                    again = graph.extract(own.at(0)).to("cpu")
                    expected = [plain.extract(image) for image in own.images]
                    findings.note(f"{network} on {name}", expected, found)
                    findings.note(f"{network} on {name}, after another size", expected[:1], [again])
    title = "Captured graphs against the plain network on the device, float32 without TF32"
    return findings.outcome(title, missing)


def device_features(context: Context, box: TimeBox) -> Outcome:
    """Masks, grid, multi-scale, batches of 8 and other options: the device compared with the CPU."""
    networks, missing = available(context, ("silk-vggnp-mu",) if context.is_rehearsal else _NETWORKS[:2])
    frames = sequences(context, 3, (160, 128))
    findings = Findings()
    # Each variation runs on one sequence before any runs on a second one.
    settings = [
        (network, variation, list(frames)[(number + turn) % len(frames)])
        for network, turn in product(networks, range(len(frames)))
        for number, variation in enumerate(_VARIATIONS)
    ]
    with tensor_float32(convolutions=False, products=False):
        for network, variation, name in box.each(settings, lambda each: f"{each[0]}, {each[1].name} on {each[2]}"):
            with box.attempt(f"{network}, {variation.name} on {name}"):
                device = on_device(settings_for(context, network, **variation.settings))
                cpu = on_cpu(context, network, **variation.settings)
                found, expected = (_extract(side, frames[name], variation) for side in (device, cpu))
                findings.note(f"{network}, {variation.name} on {name}", expected, found)
    return findings.outcome(f"Features: {sides(context)}; float32 without TF32", missing)


class Findings:
    """Agreements by setting."""

    def __init__(self, compare: Callable[[Features, Features], FeatureAgreement] = compare_features) -> None:
        self._compare = compare
        self._agreements: dict[str, list[FeatureAgreement]] = {}

    def note(self, setting: str, expected: Sequence[Features], found: Sequence[Features]) -> None:
        """Records one or more images."""
        self._agreements[setting] = [self._compare(*pair) for pair in zip(expected, found, strict=True)]

    def outcome(self, title: str, missing: Sequence[str]) -> Outcome:
        """Passed if every image of every setting passed."""
        missed = [name for name, own in self._agreements.items() if not all(one.passes for one in own)]
        rows = tuple((name, *_cells(own)) for name, own in self._agreements.items())
        note = (
            f"The worst of a setting's images. Bar: {DEVICE.fraction:.0%} of either side's keypoints the same: within "
            f"{DEVICE.position_px} px, score within {DEVICE.score:g}, cosine at least {DEVICE.cosine}."
        )
        data: dict[str, Any] = {name: [one.as_json() for one in own] for name, own in self._agreements.items()}
        least = min((one.fraction for own in self._agreements.values() for one in own), default=0.0)
        text = f"{verdict(len(rows), missed, missing)}; at least {least:.2%} of the points the same"
        return Outcome(not missed, text, [Table(title, _COLUMNS, rows, note)], {"results": data, "missing": missing})


def speckled(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """A mask of 16 px blocks, half of them free."""
    blocks = np.random.default_rng(seed).integers(0, 2, (height // 16 + 1, width // 16 + 1), dtype=np.uint8) * 255
    return np.ascontiguousarray(np.kron(blocks, np.ones((16, 16), np.uint8))[:height, :width])


def speckled_image(height: int, width: int) -> Canvas:
    """An image of another size, made of blocks with corners."""
    return np.repeat(speckled(height, width, 7)[..., None], 3, axis=2)


def _extract(extractor: Extractor, frames: Frames, variation: Variation) -> list[Features]:
    count = len(frames) if variation.batch == 1 else variation.batch
    images = [frames.at(number) for number in range(count)]
    height, width = images[0].shape[:2]
    masks = [speckled(height, width, number) if variation.is_masked else None for number in range(len(images))]
    if variation.batch > 1:
        return [features.to("cpu") for features in extractor.extract_batch(images, masks)]
    return [extractor.extract(image, mask).to("cpu") for image, mask in zip(images, masks, strict=True)]


def _cells(own: Sequence[FeatureAgreement]) -> tuple[str, ...]:
    return (
        str(min(one.count1 for one in own)),
        f"{min(one.fraction for one in own):.2%}",
        f"{min(one.share_coarse for one in own):.2%}",
        f"{max(one.median_px for one in own):.1e}",
        f"{max(one.worst_score for one in own):.1e}",
        f"{min(one.least_cosine for one in own):.6f}",
        mark(all(one.passes for one in own)),
    )
