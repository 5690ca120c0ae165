"""Lower bounds of a frame's time on this device: operations at its best rate, upload and download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.floors import copying_floor, count_operations, product_floor
from benchmarks.types import Canvas
from feature_frontend.extractors.execution import whole_frame
from feature_frontend.extractors.extractor import Extractor

__all__ = ["Floors", "matching_operations"]

_MATCH_BYTES = 16  # index, similarity and margin
_POINT_BYTES = 12  # position and score


@dataclass(frozen=True)
class _Counted:
    """Operations of a run and its output: rows of descriptors with `dim` elements."""

    operations: int
    rows: int
    dim: int
    dtype: torch.dtype


class Floors:
    """Lower bounds from this device's best rates, each measured once.

    Args:
        device: "cuda" or "cpu"; on a CPU, there are no transfers.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._rates: dict[torch.dtype, float] = {}
        self._counted: dict[tuple[object, ...], _Counted] = {}
        self._copies: dict[tuple[int, bool], float] = {}

    @torch.no_grad()
    def of(self, extractor: Extractor, images: Sequence[Canvas], matching: int = 0) -> dict[str, float]:
        """Milliseconds by kind of work, and the operation count, for one run on these images.

        Args:
            extractor: Its network processes the images as one batch.
            images: Images of one size.
            matching: Operations of the matching.
        """
        counted = self._count(extractor, images)
        operations = counted.operations + matching
        floors = {
            "operations": float(operations),
            "products_ms": operations / self.rate(counted.dtype) * 1e3,
            "up_ms": 0.0,
            "down_ms": 0.0,
        }
        if self._device.type == "cuda":
            row_bytes = _POINT_BYTES + _MATCH_BYTES + counted.dim * counted.dtype.itemsize
            down = counted.rows * row_bytes
            floors["up_ms"] = self._copy_ms(sum(image.size for image in images), to_device=True)
            floors["down_ms"] = self._copy_ms(down, to_device=False)
        floors["ms"] = floors["products_ms"] + floors["up_ms"] + floors["down_ms"]
        return floors

    def rate(self, dtype: torch.dtype) -> float:
        """Operations per second of one large product, in float32 without TF32, as in the networks."""
        if dtype not in self._rates:
            self._rates[dtype] = product_floor("products", 1, self._device, dtype).rate
        return self._rates[dtype]

    def _count(self, extractor: Extractor, images: Sequence[Canvas]) -> _Counted:
        """Counts the operations in one run; each kind of work is counted once."""
        network: Any = extractor._network
        resize, options = extractor._resize(*images[0].shape[:2]), extractor._options()
        key = extractor.identity, extractor._dtype, len(images), images[0].shape, resize, options
        if key not in self._counted:
            pixels = [torch.from_numpy(image).to(self._device) for image in images]
            found = []
            operations = count_operations(lambda: found.append(whole_frame(network, pixels, resize, options)))
            descriptors = found[0].descriptors
            rows = descriptors.shape[0] * descriptors.shape[1]
            self._counted[key] = _Counted(operations, rows, descriptors.shape[2], descriptors.dtype)
        return self._counted[key]

    def _copy_ms(self, size: int, *, to_device: bool) -> float:
        if (size, to_device) not in self._copies:
            self._copies[size, to_device] = copying_floor("", size, self._device, to_device=to_device).milliseconds
        return self._copies[size, to_device]


def matching_operations(capacity: int, dim: int, matcher: Callable[[], object] | None = None) -> int:
    """For mutual nearest neighbours, one product of all descriptors; for other matchers, the operations of a call."""
    return 2 * capacity * capacity * dim if matcher is None else count_operations(matcher)
