"""Engines of the suite `frame`: consecutive uint8 images in; features, and matches with the previous image, out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.engines.extraction import Found, KorniaEngine, NetworkEngine
from benchmarks.engines.matching import Pairs
from benchmarks.types import Canvas
from feature_frontend.api import load_matcher
from feature_frontend.pipeline.base import Pair
from feature_frontend.pipeline.factory import make_frame_matcher

__all__ = ["FrameEngine", "KorniaFrames", "OwnFrames"]


class FrameEngine(Protocol):
    """A front-end."""

    @property
    def name(self) -> str:
        """Name in tables: network and variant."""

    def prepare(self, image: Canvas, budget: int) -> None:
        """One-time preparation for images of this size and this budget."""

    def __call__(self, image: Canvas) -> Any:
        """The timed call: (H, W, 3) RGB in; keypoints, scores, descriptors and matches on the CPU out."""

    def found(self, result: Any) -> Found:
        """The features in the result of a call."""

    def pairs(self, result: Any) -> Pairs:
        """The matches in the result of a call."""


class OwnFrames:
    """This project's extraction and matching, as used by `Frontend`."""

    def __init__(self, engine: NetworkEngine) -> None:
        self.name = engine.name
        self.engine = engine
        self._frame_matcher = make_frame_matcher(engine.extractor, load_matcher("mnn"))

    def prepare(self, image: Canvas, budget: int) -> None:
        """Waits for one-time compilation or graph capture."""
        self.engine.prepare(image, budget)
        for _ in range(2):
            self(image)

    def __call__(self, image: Canvas) -> Any:
        """`Pair`, on the CPU."""
        return self._frame_matcher.run(image)

    def found(self, result: Pair) -> Found:
        """The features."""
        return self.engine.found(result.features)

    def pairs(self, result: Pair) -> Pairs:
        """The match indices."""
        return torch.stack([result.matches.indices0, result.matches.indices1], dim=1).numpy().astype(np.int64)


class KorniaFrames:
    """kornia's ALIKED and `match_mnn`, with the results copied to the CPU."""

    def __init__(self, engine: KorniaEngine) -> None:
        self.name = engine.name
        self._engine = engine
        self._match: Callable[..., Any] = importlib.import_module("kornia.feature").match_mnn
        self._previous: torch.Tensor | None = None

    def prepare(self, image: Canvas, budget: int) -> None:
        """Creates the network."""
        self._engine.prepare(image, budget)
        for _ in range(2):
            self(image)

    def __call__(self, image: Canvas) -> Any:
        """Keypoints, scores, descriptors and pairs (M, 2)."""
        with torch.inference_mode():
            features = self._engine(image)
            previous = features.descriptors if self._previous is None else self._previous
            _, pairs = self._match(previous, features.descriptors)
            self._previous = features.descriptors
            parts = (features.keypoints, features.keypoint_scores, features.descriptors, pairs)
            return tuple(part.cpu() for part in parts)

    def found(self, result: Any) -> Found:
        """The first and third of the four tensors: keypoints and descriptors."""
        return Found(result[0].float().numpy(), result[2].float().numpy())

    def pairs(self, result: Any) -> Pairs:
        """The last of the four tensors: the pairs."""
        return np.asarray(result[3].numpy(), np.int64)
