"""Converts samples with more than 8 bits (thermal, depth, machine-vision cameras) to 256 grey levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DEFAULT_INTENSITY", "INTENSITY_MODES", "IntensityRange"]

INTENSITY_MODES = ("percentile", "minmax", "full", "fixed")

_PERCENTILES = (1.0, 99.0)
# Percentiles of a regular subset of this size differ by a fraction of a per cent from those of the whole image.
_COUNTED_SAMPLES = 65_536
_WHITE = 255


@dataclass(frozen=True)
class IntensityRange:
    """Which sample maps to black and which to white. Samples between are scaled linearly, samples outside are clipped.

    In the modes that depend on the image, an integer count never spans more than one grey level: a blank image stays
    blank instead of showing its noise. Floats have no such unit: only `fixed` and `full` keep a blank image blank.

    Attributes:
        mode: `percentile`: the image's 1st and 99th percentile, so that a few hot or dead pixels do not matter;
            `minmax`: its smallest and largest sample; `full`: the range of the sample type, 0 to 1 for floats;
            `fixed`: `low` and `high`, the same for all images.
        low: Sample that maps to black in `fixed`, in the image's unit (counts, mm, K).
        high: Sample that maps to white in `fixed`; above `low`.
    """

    mode: str = "percentile"
    low: float = 0.0
    high: float = 65_535.0

    def to_grey_levels(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """`samples` scaled to uint8, with the same shape; uint8 samples are returned unchanged.

        NaN and infinite samples become black and do not affect the limits.

        Args:
            samples: Integers or floats of any shape, in native byte order.
        """
        if samples.dtype == np.uint8:
            return samples
        low, high = self.limits(samples)
        span = high - low
        gain = _WHITE / span if span > 0 and math.isfinite(span) else 0.0
        # float32 represents every 16-bit count exactly; larger samples need float64.
        work: type[np.floating[Any]] = np.float32 if samples.dtype in _FIT_FLOAT32 else np.float64
        with np.errstate(all="ignore"):
            scaled = samples.astype(work)
            scaled -= work(low)
            scaled *= work(gain)
            scaled += work(0.5)
            if samples.dtype.kind == "f":
                scaled[~(np.isfinite(samples) & np.isfinite(scaled))] = 0
            return np.clip(scaled, 0, _WHITE, out=scaled).astype(np.uint8)

    def limits(self, samples: npt.NDArray[Any]) -> tuple[float, float]:
        """The samples that map to black and white in this image; equal if the image is blank."""
        is_float = samples.dtype.kind == "f"
        if self.mode == "fixed":
            return self.low, self.high
        if self.mode == "full":
            if is_float:
                return 0.0, 1.0
            info = np.iinfo(samples.dtype)
            return float(info.min), float(info.max)
        counted = samples if self.mode == "minmax" else _subset(samples)
        if is_float:
            counted = counted[np.isfinite(counted)]
        if counted.size == 0:
            return 0.0, 0.0
        if self.mode == "minmax":
            low, high = float(counted.min()), float(counted.max())
        else:
            with np.errstate(all="ignore"):
                low, high = map(float, np.percentile(counted.astype(np.float64), _PERCENTILES))
        return (low, high) if is_float else (low, max(high, low + _WHITE))


DEFAULT_INTENSITY = IntensityRange()

_FIT_FLOAT32 = tuple(map(np.dtype, ("i1", "u2", "i2", "f4")))


def _subset(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    stride = max(1, math.isqrt(samples.size // _COUNTED_SAMPLES))
    return samples[::stride, ::stride]
