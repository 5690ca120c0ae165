"""Half precision compared with this project's own float32, with the published weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from feature_frontend import load_extractor
from tests.parity.aliked_reference import read_image
from tests.tolerances import REDUCED_PRECISION

__all__ = ["PrecisionResult", "measure_precision"]


@dataclass(frozen=True)
class PrecisionResult:
    """One model on one image, 1000 keypoints.

    Attributes:
        fraction: Fraction of float32's keypoints that half precision finds within `ReducedPrecision.position_px`.
        cosine: Median cosine similarity of the descriptors of those.
        passes: Whether both bars are met.
    """

    fraction: float
    cosine: float
    passes: bool


def measure_precision(
    model: str, dtype: torch.dtype, image_name: str, shared: Path, device: str = "cpu"
) -> PrecisionResult:
    """Runs `model` in float32 and in `dtype` and compares."""
    image = read_image(image_name, shared)
    options: dict[str, bool | str] = {"weights_dir": str(shared / "weights"), "device": device, "compile": False}
    full = load_extractor(model, **options).extract(image)
    half = load_extractor(model, precision=str(dtype).removeprefix("torch."), **options).extract(image)
    bars = REDUCED_PRECISION[dtype]
    distance, nearest = torch.cdist(full.keypoints.double(), half.keypoints.double()).min(dim=1)
    found = distance <= bars.position_px
    cosines = (full.descriptors * half.descriptors.float()[nearest]).sum(dim=1)[found]
    fraction, cosine = float(found.double().mean()), float(cosines.median())
    return PrecisionResult(fraction, cosine, fraction >= bars.fraction and cosine >= bars.cosine)
