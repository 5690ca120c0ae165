"""A network with random but fixed weights, for tests that must run without the published ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from feature_frontend.api import load_extractor
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.networks.aliked import ALIKED_CONFIGS, Aliked
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.networks.dotlet import DOTLET_CONFIGS, Dotlet, fold_batch_norm
from feature_frontend.extractors.networks.residual_sift import RESIDUAL_CONFIGS, Residual
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk
from feature_frontend.matchers.lightglue import build_lightglue
from feature_frontend.runtime.cuda_graphs import GraphDevice
from feature_frontend.settings import Settings

__all__ = [
    "IDENTITY",
    "graph_extractor",
    "save_lightglue",
    "seeded_dotlet",
    "seeded_extractor",
    "seeded_network",
    "seeded_residual",
    "seeded_silk",
]

IDENTITY = "aliked-t16@seeded00"


def seeded_network(name: str = "aliked-t16", seed: int = 0) -> Aliked:
    """ALIKED with random weights, its score head turned up so that scores spread over (0, 1), in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Aliked(ALIKED_CONFIGS[name])
        with torch.no_grad():
            for layer in network.score_head:
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.mul_(4.0)
            for parameter_name, parameter in network.named_parameters():
                if "offset_conv" in parameter_name:
                    parameter.mul_(3.0)
    return network.eval()


def seeded_dotlet(seed: int = 0) -> Dotlet:
    """Dotlet with random weights, its scores spread over (0, 1), with its own statistics on noise, for evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Dotlet(DOTLET_CONFIGS["dotlet"]).train()
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.weight.copy_(torch.rand(layer.weight.shape, generator=generator) + 0.5)
                    layer.bias.copy_(torch.rand(layer.bias.shape, generator=generator) - 0.5)
            network.cell_scores.weight.mul_(8.0)
            network.cell_scores.bias.zero_()
            for _ in range(20):
                network(torch.rand((1, 1, 96, 96), generator=generator))
    return network.eval()


def seeded_residual(name: str = "residual-sift", seed: int = 0) -> Residual:
    """A network of residual descriptors with random weights and statistics, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Residual(RESIDUAL_CONFIGS[name])
        for layer in network.encoder:
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(layer.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(layer.running_var, 0.01, 0.1)
    return network.eval()


def seeded_silk(name: str, seed: int = 0) -> Silk:
    """SiLK with random weights, its scores spread over (0, 1), with its own statistics on noise, for evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = Silk(SILK_CONFIGS[name]).train()
        network.keypoint_head.norm.weight.mul_(4.0)
        for _ in range(20):
            network(torch.rand((1, 1, 96, 96), generator=generator))
    return network.eval()


def seeded_extractor(
    settings: Settings | None = None, device: str = "cpu", graph_device: GraphDevice | None = None
) -> Extractor:
    """An extractor around `seeded_network`, as fast as a published one."""
    network = FastAliked(seeded_network())
    # Its tests are over before compiled code would be ready.
    settings = replace(settings or Settings(), compile=False)
    return Extractor(network, IDENTITY, settings, torch.device(device), graph_device, has_maps=True)


def graph_extractor(name: str, settings: Settings, graph_device: GraphDevice) -> Extractor:
    """On the CPU, "aliked" or "dotlet" with random weights, or a network whose weights ship with the package."""
    if name == "aliked":
        return seeded_extractor(settings, "cpu", graph_device)
    if name == "dotlet":
        network = fold_batch_norm(seeded_dotlet())
        return Extractor(network, "dotlet@seeded00", settings, torch.device("cpu"), graph_device, has_maps=True)
    shipped = load_extractor(name, device="cpu", compile=False)
    own = cast(torch.nn.Module, shipped._network)
    return Extractor(own, shipped.identity, settings, torch.device("cpu"), graph_device, has_maps=True)


def save_lightglue(path: Path, seed: int = 0) -> None:
    """Writes random weights of LightGlue; needs kornia."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = build_lightglue().state_dict()
    # What its constructor computes does not belong into a file of weights.
    torch.save({name: tensor for name, tensor in state.items() if name != "confidence_thresholds"}, path)
