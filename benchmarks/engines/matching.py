"""Engines of the suite `match`: two sets of descriptors in, pairs of indices out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.engines.extraction import has_kornia
from benchmarks.types import Options
from feature_frontend.api import load_matcher
from feature_frontend.runtime.device import resolve_device
from feature_frontend.types import Features

__all__ = ["ENGINES", "MatchingEngine", "MatchingInput", "Pairs", "load_engines"]

ENGINES = ("ours", "opencv", "opencv arrays", "kornia")

Pairs = npt.NDArray[np.int64]  # (M, 2): rows of the earlier and of the current descriptors


@dataclass(frozen=True)
class MatchingInput:
    """Two sets of L2-normalised float32 descriptors, in the form that each engine expects.

    Attributes:
        features0: Features of the earlier image, on the device.
        features1: Features of the current image, on the device.
        descriptors0: (N, D), the same values for OpenCV.
        descriptors1: (N, D).
    """

    features0: Features
    features1: Features
    descriptors0: npt.NDArray[np.float32]
    descriptors1: npt.NDArray[np.float32]

    @classmethod
    def of(cls, features0: Features, features1: Features, device: torch.device) -> MatchingInput:
        """Creates the inputs from two images' features."""
        on_device = [
            replace(features.to(device), descriptors=features.descriptors.float().to(device).contiguous())
            for features in (features0, features1)
        ]
        arrays = [features.descriptors.cpu().numpy() for features in on_device]
        return cls(on_device[0], on_device[1], arrays[0], arrays[1])


class MatchingEngine(Protocol):
    """A method that finds mutual nearest neighbours."""

    @property
    def name(self) -> str:
        """Name in tables."""

    def __call__(self, descriptors: MatchingInput) -> Any:
        """The timed call: from the user's input to the output on the CPU."""

    def pairs(self, result: Any) -> Pairs:
        """Converts the result of a call to a common form; not timed."""


class OwnMatcher:
    """This project's matcher without gates: `Features` in, `Matches` on the CPU out, with similarities and margins."""

    name = "ours"

    def __init__(self) -> None:
        self._matcher = load_matcher("mnn", min_similarity=-1.0, ratio_threshold=1.0, double_softmax_threshold=0.0)

    def __call__(self, descriptors: MatchingInput) -> Any:
        """`Matches` on the CPU."""
        return self._matcher.match(descriptors.features0, descriptors.features1).to("cpu")

    def pairs(self, result: Any) -> Pairs:
        """The match indices."""
        return torch.stack([result.indices0, result.indices1], dim=1).numpy().astype(np.int64)


class OpencvMatcher:
    """OpenCV's brute-force matcher with cross-check: arrays in, a list of DMatch out."""

    name = "opencv"

    def __init__(self) -> None:
        self._matcher = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)

    def __call__(self, descriptors: MatchingInput) -> Any:
        """One DMatch per pair."""
        return self._matcher.match(descriptors.descriptors0, descriptors.descriptors1)

    def pairs(self, result: Any) -> Pairs:
        """The indices of the DMatches."""
        return _indices(result)


class OpencvArrays(OpencvMatcher):
    """The same, including the conversion of the list to an index array, which computing with the pairs requires."""

    name = "opencv arrays"

    def __call__(self, descriptors: MatchingInput) -> Any:
        """(M, 2) indices."""
        return _indices(super().__call__(descriptors))

    def pairs(self, result: Any) -> Pairs:
        """The same array."""
        return np.asarray(result, np.int64)


class KorniaMatcher:
    """kornia's `match_mnn`: tensors in, distances and pairs out, copied to the CPU."""

    name = "kornia"

    def __init__(self) -> None:
        self._match: Callable[..., Any] = importlib.import_module("kornia.feature").match_mnn

    def __call__(self, descriptors: MatchingInput) -> Any:
        """Distances (M, 1) and indices (M, 2)."""
        with torch.inference_mode():
            found = self._match(descriptors.features0.descriptors, descriptors.features1.descriptors)
            return tuple(tensor.cpu() for tensor in found)

    def pairs(self, result: Any) -> Pairs:
        """The second tensor: the indices."""
        return np.asarray(result[1].numpy(), np.int64)


def load_engines(options: Options, log: Callable[[str], None]) -> list[MatchingEngine]:
    """The requested engines that are available on this machine; reports missing ones and the reason to `log`.

    Raises:
        SettingsError: The device does not exist.
    """
    resolve_device(options.device)
    wanted = [name for name in ENGINES if name in options.engines] or list(ENGINES)
    if "kornia" in wanted and not has_kornia():
        log("kornia is not installed (pip install --no-deps -r requirements/benchmark.txt): runs without it")
        wanted.remove("kornia")
    kinds: tuple[Callable[[], MatchingEngine], ...] = (OwnMatcher, OpencvMatcher, OpencvArrays, KorniaMatcher)
    return [kind() for name, kind in zip(ENGINES, kinds, strict=True) if name in wanted]


def _indices(matches: Any) -> Pairs:
    return np.array([(match.queryIdx, match.trainIdx) for match in matches], np.int64).reshape(-1, 2)
