"""Compares our SiLK with the authors' outputs for the same seeded random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from feature_frontend import Features, load_extractor, load_matcher
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk, from_published_names
from tests.tolerances import PARITY, SILK_PARITY

__all__ = ["NAMES", "SilkParityResult", "measure_silk"]

NAMES = ("vggnp-4", "vggnp-1", "vggnp-mu")
_SCALE = 1.41  # the published code scales its descriptors; only its double softmax sees that
_CENTRE = 0.5  # where the published code has a pixel's centre
_MATCHERS: dict[str, dict[str, float]] = {
    "mnn": {},
    "ratio090": {"ratio_threshold": 0.9},
    "double_softmax_t01": {
        "double_softmax_temperature": 0.1 / _SCALE**2,
        "double_softmax_threshold": 1e-12,
    },
}


@dataclass(frozen=True)
class SilkParityResult:
    """One network on its image pair.

    Attributes:
        worst_logit: Largest difference of the logit maps.
        found: Share of the reference keypoints of both images found within `SILK_PARITY.position_px`.
        worst_cosine: Smallest cosine similarity of their descriptors.
        pairs: For each way of matching the reference's number of pairs.
        different: For each way of matching the pairs in one set only that are no ties.
        ties: For each way of matching the pairs in one set only that are ties.
    """

    worst_logit: float
    found: float
    worst_cosine: float
    pairs: dict[str, int]
    different: dict[str, int]
    ties: dict[str, int]

    @property
    def passes(self) -> bool:
        """Whether every bar is met."""
        return (
            self.worst_logit <= SILK_PARITY.logit
            and self.found == 1.0
            and self.worst_cosine >= PARITY.cosine
            and not any(self.different.values())
        )


def measure_silk(name: str, shared: Path, device: str = "cpu") -> SilkParityResult:
    """Runs `silk-<name>` with the seeded weights on both images and compares."""
    folder = shared / "golden" / "silk"
    weights = folder / f"{name}_seeded.ckpt"
    with np.load(folder / f"{name}.npz") as stored:
        reference = {key: stored[key] for key in stored.files}
    found, cosines, features = [], [], []
    for side in (0, 1):
        points = reference[f"keypoints{side}_yx_score"]
        extractor = load_extractor(
            f"silk-{name}", weights_path=str(weights), device=device, max_num_keypoints=len(points), min_grey_range=0
        )
        ours = extractor.extract(reference[f"image{side}"]).to("cpu")
        theirs = torch.from_numpy(points[:, 1::-1] - _CENTRE)
        distance, nearest = torch.cdist(theirs.double(), ours.keypoints.double()).min(dim=1)
        found.append((distance <= SILK_PARITY.position_px).double().mean())
        descriptors = torch.from_numpy(reference[f"descriptors{side}"]) / _SCALE
        cosines.append((descriptors * ours.descriptors[nearest]).sum(dim=1).min())
        features.append(_in_order(ours, nearest))
    pairs, different, ties = _compare_pairs(features[0], features[1], reference)
    return SilkParityResult(
        worst_logit=_worst_logit(name, weights, reference, device),
        found=float(torch.stack(found).mean()),
        worst_cosine=float(torch.stack(cosines).min()),
        pairs=pairs,
        different=different,
        ties=ties,
    )


def _worst_logit(name: str, weights: Path, reference: Mapping[str, npt.NDArray[np.float32]], device: str) -> float:
    network = Silk(SILK_CONFIGS[f"silk-{name}"])
    state = torch.load(weights, weights_only=True)["state_dict"]
    network.load_state_dict(from_published_names(state), strict=True)
    image = torch.from_numpy(reference["image0"]).to(device)[None, None].float() / 255
    with torch.no_grad():
        logits = network.eval().to(device)(image).logits[0].cpu()
    return float((logits - torch.from_numpy(reference["logits0"])).abs().max())


def _in_order(features: Features, rows: torch.Tensor) -> Features:
    return Features(
        features.keypoints[rows],
        features.scores[rows],
        features.descriptors[rows],
        features.height,
        features.width,
        features.extractor,
    )


def _compare_pairs(
    features0: Features, features1: Features, reference: Mapping[str, npt.NDArray[np.int64]]
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    similarity = features0.descriptors.double() @ features1.descriptors.double().T
    pairs, different, ties = {}, {}, {}
    for key, options in _MATCHERS.items():
        matches = load_matcher("mnn", **options).match(features0, features1)
        ours = set(zip(matches.indices0.tolist(), matches.indices1.tolist(), strict=True))
        theirs = {(int(first), int(second)) for first, second in reference[key]}
        value = similarity
        if "double_softmax_temperature" in options:
            logits = similarity / options["double_softmax_temperature"]
            value = logits.softmax(dim=1) * logits.softmax(dim=0)
        rows, columns = (value.topk(2, dim=dim).values for dim in (1, 0))
        close0, close1 = rows[:, 0] - rows[:, 1] < SILK_PARITY.tie, columns[0] - columns[1] < SILK_PARITY.tie
        of_ties = {(i, j) for i, j in ours ^ theirs if close0[i] or close1[j]}
        pairs[key], ties[key] = len(theirs), len(of_ties)
        different[key] = len((ours ^ theirs) - of_ties)
    return pairs, different, ties
