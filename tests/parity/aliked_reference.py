"""Compares our ALIKED with the authors' outputs for the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from feature_frontend import Features, load_extractor
from tests.tolerances import PARITY

__all__ = ["IMAGES", "MODELS", "ParityResult", "image_path", "measure", "read_image"]

MODELS = ("aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32")
IMAGES = ("tum", "kitti", "odd")
_FILES = {
    "tum": "data/tum_fr2_desk/1311868169.163498.png",
    "kitti": "data/kitti00/000100.png",
    "odd": "data/tum_fr2_desk/1311868169.163498.png",
}


@dataclass(frozen=True)
class ParityResult:
    """One model on one image.

    Attributes:
        fraction: Fraction of the reference's 500 keypoints found within `PARITY.position_px`.
        worst_position_px: Largest distance of a reference keypoint to ours.
        worst_score: Largest difference of scores among the keypoints found; 1 where none is.
        worst_cosine: Smallest cosine similarity of descriptors among the keypoints found; -1 where none is.
        reference_count: Reference keypoints in threshold mode.
        set_difference: Keypoints in one set and not in the other, in threshold mode.
    """

    fraction: float
    worst_position_px: float
    worst_score: float
    worst_cosine: float
    reference_count: int
    set_difference: int

    @property
    def passes(self) -> bool:
        """Whether every bar is met."""
        return (
            self.fraction >= PARITY.fraction
            and self.worst_score <= PARITY.score
            and self.worst_cosine >= PARITY.cosine
            and self.set_difference <= PARITY.set_difference
        )


def measure(model: str, image_name: str, shared: Path, device: str = "cpu") -> ParityResult:
    """Runs `model` on `image_name` in both modes and compares."""
    image = read_image(image_name, shared)
    golden = shared / "golden" / "aliked"
    with np.load(golden / f"{model}_{image_name}_top500.npz") as reference:
        ours = _extract(model, image, shared, device, max_num_keypoints=500)
        points = torch.from_numpy(reference["keypoints"])
        distance, nearest = torch.cdist(points.double(), ours.keypoints.double()).min(dim=1)
        found = distance <= PARITY.position_px
        scores = torch.from_numpy(reference["scores"])[found] - ours.scores[nearest[found]]
        descriptors = torch.from_numpy(reference["descriptors"])[found]
        cosines = (descriptors * ours.descriptors[nearest[found]]).sum(dim=1)
    with np.load(golden / f"{model}_{image_name}_thr0.2.npz") as reference:
        ours = _extract(model, image, shared, device, max_num_keypoints=5000, detection_threshold=0.2)
        theirs = torch.from_numpy(reference["keypoints"])
        between = torch.cdist(theirs.double(), ours.keypoints.double())
        missing = int((between.min(dim=1).values > PARITY.position_px).sum())
        extra = int((between.min(dim=0).values > PARITY.position_px).sum())
    return ParityResult(
        fraction=float(found.double().mean()),
        worst_position_px=float(distance.max()),
        worst_score=float(scores.abs().max()) if found.any() else 1.0,
        worst_cosine=float(cosines.min()) if found.any() else -1.0,
        reference_count=len(theirs),
        set_difference=missing + extra,
    )


def image_path(name: str, shared: Path) -> Path:
    """Where the image of that name lies."""
    return shared / _FILES[name]


def read_image(name: str, shared: Path) -> npt.NDArray[np.uint8]:
    """The image of that name as the reference saw it, RGB."""
    path = image_path(name, shared)
    stored = cv2.imread(str(path))
    assert stored is not None, path
    image = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB).astype(np.uint8)
    return image[37:350, 21:540] if name == "odd" else image


def _extract(
    model: str, image: npt.NDArray[np.uint8], shared: Path, device: str, **options: bool | float | str
) -> Features:
    extractor = load_extractor(model, device=device, weights_dir=str(shared / "weights"), **options)
    return extractor.extract(image).to("cpu")
