"""Engines of the suite `extract`: a uint8 image in, keypoints and descriptors out."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from benchmarks.types import Canvas, Options
from feature_frontend.errors import WeightsError, WeightsUnavailableError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.models.weights import FoundWeights, ensure_weights
from feature_frontend.runtime.device import resolve_device
from feature_frontend.settings import ExtractionSettings

__all__ = [
    "ENGINES",
    "SHIPPED_EXTRACTOR",
    "ExtractionEngine",
    "Found",
    "KorniaEngine",
    "NetworkEngine",
    "has_kornia",
    "load_engines",
]

ENGINES = ("fast", "plain", "kornia", "silk", "orb", "sift")
SHIPPED_EXTRACTOR = "silk-vggnp-mu"
# Names that kornia has a configuration for; it knows no other network of this project.
_KORNIA_PREFIX = "aliked-"
# An extractor compiles for a size only once it has come so often.
_CALLS_BEFORE_COMPILING = 10
# What a checkpoint does not hold: a constant that kornia's constructor computes.
_KORNIA_CONSTANTS = {"dkd.hw_grid"}


@dataclass(frozen=True)
class Found:
    """What an engine has found in an image, brought to the CPU for comparing; never part of a duration.

    Attributes:
        keypoints: (N, 2) float32, (x, y) px.
        descriptors: (N, D) float32 or uint8.
    """

    keypoints: np.ndarray[Any, np.dtype[np.float32]]
    descriptors: np.ndarray[Any, np.dtype[Any]]


class ExtractionEngine(Protocol):
    """A way to find and describe points."""

    @property
    def name(self) -> str:
        """For tables: network and variant, or the algorithm."""

    def prepare(self, image: Canvas, budget: int) -> None:
        """Does once what an image of that size with that budget needs, compiling for instance."""

    @property
    def mode(self) -> str:
        """How the latest call ran: "uncompiled", "compiled", "CUDA graph" or "native"."""

    def __call__(self, image: Canvas) -> Any:
        """What is timed: (H, W, 3) RGB in; keypoints and descriptors out, as the engine gives them."""

    def count(self, result: Any) -> int:
        """Number of keypoints in what a call has returned."""

    def found(self, result: Any) -> Found:
        """What a call has returned, in one form for all engines."""


class NetworkEngine:
    """One of this project's extractors.

    Args:
        name: For tables.
        extractor: With its weights.
    """

    def __init__(self, name: str, extractor: Extractor) -> None:
        self.name = name
        self.extractor = extractor

    def prepare(self, image: Canvas, budget: int) -> None:
        """Sets the budget, and waits for code that is compiled in the background after a first call."""
        settings = self.extractor.settings
        pixels = max(settings.max_pixels, image.shape[0] * image.shape[1])  # never shrunk: the peers do not
        self.extractor.settings = replace(settings, max_num_keypoints=budget, max_pixels=pixels)
        for _ in range(_CALLS_BEFORE_COMPILING if self.extractor._compiler else 1):
            self.extractor.extract(image)
        self.extractor.wait_until_fast()
        self.extractor.extract(image)

    @property
    def mode(self) -> str:
        """What executed the network."""
        return self.extractor.execution

    def __call__(self, image: Canvas) -> Any:
        """`Features`, on the extractor's device."""
        return self.extractor.extract(image)

    def count(self, result: Any) -> int:
        """Number of keypoints."""
        return len(result)

    def found(self, result: Any) -> Found:
        """Keypoints and descriptors of `Features`."""
        return Found(result.keypoints.float().cpu().numpy(), result.descriptors.float().cpu().numpy())


class KorniaEngine:
    """kornia's ALIKED with the same published weights, called as its documentation does.

    Args:
        network: "aliked-t16", "aliked-n16", "aliked-n16rot" or "aliked-n32".
        weights: The published ones.
        device: Where it runs.
    """

    def __init__(self, network: str, weights: FoundWeights, device: torch.device) -> None:
        self.name = f"{network} kornia"
        self._network = network
        self._state = weights.load()
        self._device = device
        self._to_tensor = importlib.import_module("kornia.image").image_to_tensor
        self._model: Any = None

    def prepare(self, image: Canvas, budget: int) -> None:
        """Makes the network anew: kornia takes the budget in the constructor.

        Raises:
            WeightsError: The weights do not fill the network.
        """
        # Threshold 0 is its top-k mode: the best `budget` maxima, whatever their score.
        aliked = importlib.import_module("kornia.feature").ALIKED
        model = aliked(self._network, max_num_keypoints=budget, detection_threshold=0.0)
        keys = model.load_state_dict(self._state, strict=False)
        unfilled = set(keys.missing_keys) - _KORNIA_CONSTANTS
        if unfilled or keys.unexpected_keys:
            names = ", ".join([*sorted(unfilled), *keys.unexpected_keys])
            msg = f"the weights of {self._network} and kornia's network differ in {names}; expected the same names"
            raise WeightsError(msg)
        self._model = model.to(self._device).eval()
        self(image)

    @property
    def mode(self) -> str:
        """One operation after another."""
        return "uncompiled"

    def __call__(self, image: Canvas) -> Any:
        """Its features of one image, on the device."""
        with torch.inference_mode():
            # The bytes go up and become floats there, the cheapest way for a GPU.
            images = self._to_tensor(image, keepdim=False).to(self._device).float() / 255.0
            return self._model(images)[0]

    def count(self, result: Any) -> int:
        """Number of keypoints."""
        return int(result.n)

    def found(self, result: Any) -> Found:
        """Keypoints and descriptors of `ALIKEDFeatures`."""
        return Found(result.keypoints.float().cpu().numpy(), result.descriptors.float().cpu().numpy())


class OpencvEngine:
    """A detector of OpenCV, which works on grey images, on the CPU.

    Args:
        name: For tables.
        create: Makes the detector for a budget.
    """

    def __init__(self, name: str, create: Callable[[int], cv2.Feature2D]) -> None:
        self.name = name
        self._create = create
        self._detector: cv2.Feature2D | None = None

    def prepare(self, image: Canvas, budget: int) -> None:
        """Makes the detector for that budget."""
        self._detector = self._create(budget)
        self(image)

    @property
    def mode(self) -> str:
        """Machine code."""
        return "native"

    def __call__(self, image: Canvas) -> Any:
        """OpenCV's keypoints and its array of descriptors."""
        assert self._detector is not None, "prepare() comes first"
        return self._detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)

    def count(self, result: Any) -> int:
        """Number of keypoints."""
        return len(result[0])

    def found(self, result: Any) -> Found:
        """Positions and descriptors; OpenCV gives None for no descriptors."""
        keypoints, descriptors = result
        positions = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
        return Found(positions, np.zeros((0, 0), np.uint8) if descriptors is None else descriptors)


def has_kornia() -> bool:
    """Whether kornia is installed."""
    return importlib.util.find_spec("kornia") is not None


def load_engines(options: Options, log: Callable[[str], None]) -> list[ExtractionEngine]:
    """The engines asked for that this machine has; `log` hears which it lacks and why.

    The order is that in which they run: the variants of one network follow each other.

    Raises:
        FeatureFrontendError: Weights are damaged or do not fit, or there is no such device.
    """
    wanted = [name for name in ENGINES if name in options.engines] or list(ENGINES)
    variants: list[str] = [name for name in ("fast", "plain", "kornia") if name in wanted]
    if "kornia" in variants and not has_kornia():
        log("kornia is not installed (pip install --no-deps -r requirements/benchmark.txt): runs without it")
        variants.remove("kornia")
    networks = [(name, variants) for name in options.extractors if variants]
    if "silk" in wanted and SHIPPED_EXTRACTOR not in options.extractors:
        networks.append((SHIPPED_EXTRACTOR, ["fast", "plain"]))
    engines: list[ExtractionEngine] = []
    for name, chosen in networks:
        try:
            engines.extend(_network_engines(name, chosen, options))
        except WeightsUnavailableError as error:
            log(f"runs without {name}: {error}")
    if "orb" in wanted:
        engines.append(OpencvEngine("orb", lambda budget: cv2.ORB.create(nfeatures=budget)))
    if "sift" in wanted:
        engines.append(OpencvEngine("sift", lambda budget: cv2.SIFT.create(nfeatures=budget)))
    return engines


def plain_extractor(settings: ExtractionSettings, weights: FoundWeights) -> Extractor:
    """The network as the paper draws it, with nothing folded, fused or compiled: the reference of the parity tests."""
    record = EXTRACTORS[settings.extractor]
    network = record.build()
    network.load_state_dict(record.rename(weights.load()), strict=True)
    return Extractor(network, weights.identity, settings, resolve_device(settings.device))


def _network_engines(name: str, variants: list[str], options: Options) -> Iterator[ExtractionEngine]:
    record = EXTRACTORS[name].weights
    if record is None:
        msg = f"no published weights of {name} come with this project; measure another of {', '.join(EXTRACTORS)}"
        raise WeightsUnavailableError(msg)
    weights = ensure_weights(record, options.weights_dir)
    settings = ExtractionSettings(
        extractor=name, device=options.device, weights_dir=options.weights_dir, detection_threshold=0.0
    )
    if "fast" in variants:
        yield NetworkEngine(f"{name} fast", Extractor.from_pretrained(settings))
    if "plain" in variants:
        yield NetworkEngine(f"{name} plain", plain_extractor(settings, weights))
    if "kornia" in variants and name.startswith(_KORNIA_PREFIX):
        yield KorniaEngine(name, weights, resolve_device(options.device))
