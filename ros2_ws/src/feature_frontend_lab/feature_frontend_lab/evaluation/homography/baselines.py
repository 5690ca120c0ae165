"""The methods under comparison: this project's extractors, OpenCV's ORB, and random points."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.api import load_extractor, load_matcher
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.matchers.base import MatcherProtocol, MatchingOptions
from feature_frontend.matchers.lightglue import LightGlueMatcher
from feature_frontend.models.catalog import MATCHER_MODELS
from feature_frontend.types import Features, Matches

__all__ = [
    "LIGHTGLUE",
    "METHODS",
    "MULTI_SCALE",
    "DescribedPoints",
    "MethodOptions",
    "MethodProtocol",
    "Norm",
    "load_methods",
    "match_points",
]

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Norm = Literal["cosine", "hamming", "none"]
MatchIndices = npt.NDArray[np.int64]

MULTI_SCALE = "-ms"  # suffix of an extractor's name: multi-scale extraction
LIGHTGLUE = "+lightglue"  # suffix after that: matched by LightGlue


@dataclass(frozen=True)
class DescribedPoints:
    """Points and descriptors of one image.

    Attributes:
        points: (N, 2) float64, (x, y) px, pixel centres at integers.
        descriptors: (N, D) float32 or uint8; N x 0 if there are none.
        norm: Comparison of descriptors: "cosine" similarity or "hamming" distance; "none" if they cannot be compared.
        features: The same as `Features` from an extractor, for `matcher`.
        matcher: Matcher to use instead of mutual nearest neighbours.
    """

    points: FloatArray
    descriptors: npt.NDArray[np.float32] | Uint8Array
    norm: Norm
    features: Features | None = None
    matcher: MatcherProtocol | None = None


class MethodProtocol(Protocol):
    """A method that detects and describes points."""

    @property
    def identity(self) -> str:
        """Name and version: an extractor with its weights' hash, or OpenCV's version."""

    def detect_and_describe(self, image: Uint8Array, count: int) -> DescribedPoints:
        """At most `count` best points of an (H, W) grey or (H, W, 3) RGB image; deterministic."""


@dataclass(frozen=True)
class MethodOptions:
    """Options for creating methods; each method reads those that apply to it.

    Attributes:
        seed: Seed of random points.
        device: Where networks run: "auto", "cpu", "cuda", "cuda:N".
        weights_path: File of a network's weights; empty for the published ones.
        weights_dir: Folder searched first for published weights.
        multi_scale: Whether extractors use multi-scale extraction.
        lightglue: Whether extractors' points are matched by LightGlue.
    """

    seed: int = 0
    device: str = "auto"
    weights_path: str = ""
    weights_dir: str = ""
    multi_scale: bool = False
    lightglue: bool = False


class NetworkMethod:
    """One of this project's extractors with default settings.

    Args:
        name: A name in `EXTRACTORS`.
        options: Device and weights.

    Raises:
        FeatureFrontendError: The weights are not available or do not fit.
    """

    def __init__(self, name: str, options: MethodOptions) -> None:
        self._extractor = load_extractor(
            name,
            device=options.device,
            weights_path=options.weights_path,
            weights_dir=options.weights_dir,
            multi_scale=options.multi_scale,
            # The switch to compiled code depends on the machine, and compiled code rounds differently.
            compile=False,
        )
        gates = MatchingOptions(-1.0, 1.0, 0.1, 0.0, weights_dir=options.weights_dir)
        self._matcher = LightGlueMatcher.from_pretrained(gates) if options.lightglue else None

    @property
    def identity(self) -> str:
        """Name and hash of the weights."""
        at_scales = " at several scales" if self._extractor.settings.multi_scale else ""
        return self._extractor.identity + at_scales + (", by LightGlue" if self._matcher is not None else "")

    def detect_and_describe(self, image: Uint8Array, count: int) -> DescribedPoints:
        """The `count` points with the best scores."""
        self._extractor.settings = replace(self._extractor.settings, max_num_keypoints=count)
        features = self._extractor.extract(image)
        points = features.keypoints.cpu().numpy().astype(np.float64)
        descriptors = features.descriptors.float().cpu().numpy()
        return DescribedPoints(points, descriptors, "cosine", features, self._matcher)


class OrbMethod:
    """OpenCV's ORB with default options; in smooth images it finds fewer points than `count`."""

    identity = f"OpenCV {cv2.__version__}"

    def __init__(self, _: MethodOptions) -> None:
        self._empty = np.zeros((0, 32), np.uint8)

    def detect_and_describe(self, image: Uint8Array, count: int) -> DescribedPoints:
        """The `count` points with the best Harris responses, distributed over the pyramid levels by ORB."""
        # A new detector for each call: `nfeatures` determines the number of points per level.
        keypoints, descriptors = cv2.ORB.create(nfeatures=count).detectAndCompute(_grey(image), None)
        if len(keypoints) == 0:
            return DescribedPoints(np.zeros((0, 2)), self._empty, "hamming")
        best = _strongest(keypoints, count)
        return DescribedPoints(_positions(keypoints)[best], np.asarray(descriptors, np.uint8)[best], "hamming")


class RandomMethod:
    """Uniformly random points without descriptors: the repeatability achieved by chance."""

    def __init__(self, options: MethodOptions) -> None:
        self._seed = options.seed

    @property
    def identity(self) -> str:
        """The seed."""
        return f"seed {self._seed}"

    def detect_and_describe(self, image: Uint8Array, count: int) -> DescribedPoints:
        """`count` points, uniform over the image, determined by the seed and the image's content."""
        height, width = image.shape[:2]
        rng = np.random.default_rng([self._seed, zlib.crc32(np.ascontiguousarray(image).tobytes())])
        points = rng.uniform(-0.5, [width - 0.5, height - 0.5], (count, 2))
        return DescribedPoints(points, np.zeros((count, 0), np.float32), "none")


METHODS: dict[str, Callable[[MethodOptions], MethodProtocol]] = {
    "orb": OrbMethod,
    **{name: partial(NetworkMethod, name) for name in EXTRACTORS},
    "random": RandomMethod,
}


def load_methods(
    names: Sequence[str], options: MethodOptions, weights: Mapping[str, str] | None = None
) -> dict[str, MethodProtocol]:
    """Loads methods by name.

    Args:
        names: Names in `METHODS`. "NAME-ms" is the extractor NAME with multi-scale extraction; "NAME+lightglue" and
            "NAME-ms+lightglue" are matched by LightGlue. "NAME@LABEL" is a second instance of NAME, to compare two
            weights of one network.
        options: Options of all methods.
        weights: Weight files by name, including the label if there is one.

    Raises:
        SettingsError: A name is unknown or duplicated, or weights are given for a method not in `names` or without any.
        FeatureFrontendError: A method's weights are not available or do not fit.
    """
    files = dict(weights or {})
    unknown = sorted({name for name in names if _method_name(name) not in METHODS})
    if unknown:
        raise SettingsError(f"no method is called {', '.join(unknown)}; expected some of {', '.join(METHODS)}")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise SettingsError(
            f"method(s) {', '.join(twice)} are named twice; give the second a label, as in {twice[0]}@mine"
        )
    homeless = sorted(name for name in files if name not in names or _method_name(name) not in EXTRACTORS)
    if homeless:
        networks = [name for name in names if _method_name(name) in EXTRACTORS]
        raise SettingsError(
            f"weights are given for {', '.join(homeless)}; expected networks of this run: {', '.join(networks)}"
        )
    return {
        name: METHODS[_method_name(name)](
            replace(
                options,
                weights_path=files.get(name, options.weights_path),
                multi_scale=MULTI_SCALE in _suffixes(name),
                lightglue=LIGHTGLUE in _suffixes(name),
            )
        )
        for name in names
    }


def match_points(found0: DescribedPoints, found1: DescribedPoints, ratio_threshold: float = 1.0) -> MatchIndices:
    """(M, 2) indices of mutual nearest neighbours, or of the points' own matcher; empty for the norm "none".

    Args:
        found0: Points of the earlier image.
        found1: Points of the current image, by the same method.
        ratio_threshold: Ratio test from image 0 to image 1: keeps a match if its distance is below this fraction of the
            second-best distance. Distances are 1 - cosine and Hamming. 1 disables the test. LightGlue ignores it.
    """
    if len(found0.points) == 0 or len(found1.points) == 0:
        return np.zeros((0, 2), np.int64)
    if found0.matcher is not None and found0.features is not None and found1.features is not None:
        return _rows(found0.matcher.match(found0.features, found1.features))
    return _MATCHING[found0.norm](found0, found1, ratio_threshold)


def _match_cosine(found0: DescribedPoints, found1: DescribedPoints, ratio_threshold: float) -> MatchIndices:
    """Matches with this project's matcher."""
    matcher = load_matcher("mnn", min_similarity=-1.0, ratio_threshold=ratio_threshold, double_softmax_threshold=0.0)
    return _rows(matcher.match(_as_features(found0), _as_features(found1)))


def _rows(matches: Matches) -> MatchIndices:
    return torch.stack([matches.indices0, matches.indices1], dim=1).cpu().numpy().astype(np.int64)


def _match_hamming(found0: DescribedPoints, found1: DescribedPoints, ratio_threshold: float) -> MatchIndices:
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(found0.descriptors, found1.descriptors)
    if ratio_threshold < 1.0:
        best_two = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(found0.descriptors, found1.descriptors, k=2)
        distances = [[match.distance for match in pair] for pair in best_two]
        distinct = {row for row, pair in enumerate(distances) if len(pair) < 2 or pair[0] < ratio_threshold * pair[1]}
        matches = [match for match in matches if match.queryIdx in distinct]
    return np.array([(match.queryIdx, match.trainIdx) for match in matches], np.int64).reshape(-1, 2)


def _match_nothing(_0: DescribedPoints, _1: DescribedPoints, _ratio: float) -> MatchIndices:
    return np.zeros((0, 2), np.int64)


_MATCHING: dict[Norm, Callable[[DescribedPoints, DescribedPoints, float], MatchIndices]] = {
    "cosine": _match_cosine,
    "hamming": _match_hamming,
    "none": _match_nothing,
}


def _as_features(found: DescribedPoints) -> Features:
    keypoints = torch.from_numpy(found.points).float()
    return Features(keypoints, torch.ones(len(keypoints)), torch.from_numpy(found.descriptors), 0, 0, "evaluation")


def _method_name(name: str) -> str:
    """The key of `METHODS`; for an unknown name, the name without its label."""
    method = name.partition("@")[0]
    extractor = method.removesuffix(LIGHTGLUE)
    if extractor != method and extractor.removesuffix(MULTI_SCALE) not in MATCHER_MODELS["lightglue"].extractors:
        return method
    extractor = extractor.removesuffix(MULTI_SCALE)
    return extractor if extractor in EXTRACTORS else method


def _suffixes(name: str) -> set[str]:
    method = name.partition("@")[0]
    return {suffix for suffix in (MULTI_SCALE, LIGHTGLUE) if suffix in method.removeprefix(_method_name(name))}


def _grey(image: Uint8Array) -> Uint8Array:
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), np.uint8)


def _positions(keypoints: Sequence[cv2.KeyPoint]) -> FloatArray:
    return np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)


def _strongest(keypoints: Sequence[cv2.KeyPoint], count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` best responses, in ascending order: OpenCV also keeps all ties with the last one."""
    responses = np.array([keypoint.response for keypoint in keypoints])
    return np.sort(np.argsort(-responses, kind="stable")[:count]).astype(np.int64)
