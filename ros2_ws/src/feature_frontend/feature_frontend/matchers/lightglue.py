"""LightGlue (Lindenberger et al., ICCV 2023): a transformer that matches, through kornia's implementation.

It uses the positions of all keypoints of both images as well as their descriptors. kornia is imported only when this
matcher is selected, and never downloads: its network is built without weights, which are then found like all others.
"""

from __future__ import annotations

import copy
import importlib
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from feature_frontend.errors import MatchingError, SettingsError
from feature_frontend.matchers.base import MatchingOptions, check_comparable
from feature_frontend.matchers.nearest_neighbors import SimilaritySearch
from feature_frontend.models.catalog import MATCHER_MODELS, WEIGHTS
from feature_frontend.models.weights import ensure_weights, own_weights
from feature_frontend.models.weights_file import FoundWeights, fill_network
from feature_frontend.system.files import user_path
from feature_frontend.types import Features, Matches

__all__ = [
    "DESCRIPTOR_DIM",
    "LightGlueMatcher",
    "LightGlueNetwork",
    "build_lightglue",
    "load_lightglue",
]

DESCRIPTOR_DIM = 128
_WEIGHTS_NAME = "aliked_lightglue"
_DERIVED = {"confidence_thresholds"}  # computed by the constructor, not in the published file
_BLOCK_ELEMENTS = 16 * 1024 * 1024


class LightGlueNetwork:
    """A network with its weights, copied to each device on first use. Thread-safe.

    Args:
        network: On the CPU, in evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self._lock = threading.Lock()
        self._copies = {torch.device("cpu"): network}

    def __getstate__(self) -> nn.Module:
        """For `pickle`: the network, without its lock and copies."""
        return self._copies[torch.device("cpu")]

    def __setstate__(self, network: nn.Module) -> None:
        """Restores the network in another process."""
        self._lock = threading.Lock()
        self._copies = {torch.device("cpu"): network}

    def on(self, device: torch.device) -> nn.Module:
        """The network on `device`."""
        with self._lock:
            if device not in self._copies:
                self._copies[device] = copy.deepcopy(self._copies[torch.device("cpu")]).to(device)
            return self._copies[device]


class LightGlueMatcher:
    """Keeps the pairs to which the network assigns a match probability above `lightglue_threshold`.

    Of the other gates only `min_similarity` applies. `similarity` and `margin` are those of the descriptors, as with
    mutual nearest neighbours; the margin is negative if another descriptor is more similar than the match.

    Args:
        options: The gates.
        network: Computes the matches.
    """

    name = "lightglue"

    def __init__(self, options: MatchingOptions, network: LightGlueNetwork) -> None:
        self._options = options
        self._network = network

    @classmethod
    def from_pretrained(cls, options: MatchingOptions) -> LightGlueMatcher:
        """Finds, verifies and loads the weights that `options` name; matchers with the same weights use one copy.

        Raises:
            SettingsError: kornia is not installed.
            WeightsError: The weights are not available, or do not fit.
        """
        return cls(options, _load(options.lightglue_weights_path, options.weights_dir))

    @torch.no_grad()
    def match(self, features0: Features, features1: Features) -> Matches:
        """Matches of two images' features, in the order of `indices0`.

        Args:
            features0: Of the earlier image, by an ALIKED with 128 descriptor elements.
            features1: Of the current image, by the same extractor, on the same device.

        Raises:
            MatchingError: The features come from different extractors, or from one that LightGlue does not support.
        """
        check_comparable(features0, features1)
        known = MATCHER_MODELS[self.name].extractors
        if features0.descriptor_dim != DESCRIPTOR_DIM or features0.extractor.partition("@")[0] not in known:
            wanted = ", ".join(known)
            raise MatchingError(
                f"matcher lightglue knows descriptors of {wanted}, not of {features0.extractor}; use matcher mnn"
            )
        if len(features0) == 0 or len(features1) == 0:
            return Matches.empty(self.name, features1.device)
        network = self._network.on(features1.device)
        result = network({"image0": _as_input(features0), "image1": _as_input(features1)})
        indices0, indices1 = result["matches"][0].unbind(1)
        descriptors0, descriptors1 = features0.descriptors.float(), features1.descriptors.float()
        similarity = (descriptors0[indices0] * descriptors1[indices1]).sum(dim=1)
        keep = (result["scores"][0] > self._options.lightglue_threshold) & (similarity >= self._options.min_similarity)
        order = indices0[keep].argsort()
        indices0, indices1, similarity = (part[keep][order] for part in (indices0, indices1, similarity))
        nearest = SimilaritySearch(descriptors0, descriptors1, _BLOCK_ELEMENTS).nearest()
        is_nearest = nearest.index[indices0] == indices1
        rival = torch.where(is_nearest, nearest.second_similarity[indices0], nearest.similarity[indices0])
        return Matches(indices0, indices1, similarity, similarity - rival, self.name)


def build_lightglue() -> nn.Module:
    """Builds the network for ALIKED's descriptors, with random weights; it returns every mutual pair with probability.

    Raises:
        SettingsError: kornia is not installed.
    """
    try:
        # By name: kornia's annotations wrongly forbid None for `features`.
        lightglue: Any = importlib.import_module("kornia.feature").LightGlue
    except ImportError as error:
        raise SettingsError(
            f"matcher lightglue needs the Python package kornia ({error}): pip install kornia; or use matcher mnn"
        ) from error
    network: nn.Module = lightglue(features=None, input_dim=DESCRIPTOR_DIM, filter_threshold=0.0)
    return network.eval().requires_grad_(requires_grad=False)


@lru_cache(maxsize=2)
def _load(weights_path: str, weights_dir: str) -> LightGlueNetwork:
    return LightGlueNetwork(load_lightglue(weights_path, weights_dir)[0])


def load_lightglue(weights_path: str, weights_dir: str) -> tuple[nn.Module, FoundWeights]:
    """The network of `build_lightglue`, and the weights that it has.

    Args:
        weights_path: As the parameter `lightglue_weights_path`.
        weights_dir: As the parameter of that name.

    Raises:
        SettingsError: kornia is not installed.
        WeightsError: The weights are not available, or do not fit.
    """
    # First: weights may be a download, in vain without kornia.
    network = build_lightglue()
    found = _find(weights_path, weights_dir)
    fill_network(network, found, "lightglue for ALIKED", _own_names, _DERIVED)
    return network, found


def _find(weights_path: str, weights_dir: str) -> FoundWeights:
    if weights_path:
        return own_weights(_WEIGHTS_NAME, user_path(weights_path))
    return ensure_weights(WEIGHTS[_WEIGHTS_NAME], weights_dir)


def _own_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the published file's tensors to kornia's names: "self_attn.3.x" to "transformers.3.self_attn.x"."""
    renamed = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part in {"self_attn", "cross_attn"}:
            layer, _, rest = rest.partition(".")
            renamed[f"transformers.{layer}.{part}.{rest}"] = tensor
        else:
            renamed[name] = tensor
    return renamed


def _as_input(features: Features) -> dict[str, Any]:
    """The input for kornia: a batch of one."""
    size = features.keypoints.new_tensor([[features.width, features.height]])
    # Points may lie up to half a pixel outside the pixel centres; kornia rejects points outside the image.
    inside = torch.minimum(features.keypoints.clamp(min=0), size - 1)
    return {"keypoints": inside[None], "descriptors": features.descriptors.float()[None], "image_size": size}
