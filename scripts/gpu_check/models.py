"""The networks for the steps: on the device as users run them, in plain form, and on the CPU for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.engines.extraction import has_kornia, plain_extractor
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.models.catalog import WEIGHTS
from feature_frontend.models.weights import FoundWeights, find_weights
from feature_frontend.runtime.cuda_graphs import EagerGraphDevice
from feature_frontend.settings import ExtractionSettings, Settings
from scripts.gpu_check.step import Context, LeftOutError

__all__ = [
    "ALIKED",
    "LIGHTGLUE",
    "available",
    "captured",
    "on_cpu",
    "on_device",
    "plain_on_device",
    "settings_for",
    "tensor_float32",
    "weights_of",
    "why_no_lightglue",
]

ALIKED = ("aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32")
LIGHTGLUE = "aliked_lightglue"
_REHEARSED_POINTS = 200


def settings_for(context: Context, extractor: str, **changes: bool | float | str) -> Settings:
    """Settings on the check's device, without background work; with few points in a rehearsal."""
    own = {"device": context.device, "weights_dir": str(context.shared / "weights"), "compile": False}
    if _carried_lightglue(context).is_file():
        own["lightglue_weights_path"] = str(_carried_lightglue(context))
    if context.is_rehearsal:
        own["max_num_keypoints"] = _REHEARSED_POINTS
    return Settings(extractor=extractor, **{**own, **changes})  # type: ignore[arg-type]


def on_device(settings: Settings) -> Extractor:
    """As users have it on a GPU, captured; in a rehearsal, captured on the CPU, too."""
    extractor = Extractor.from_pretrained(settings)
    if extractor.graph_device is not None or not extractor.has_maps:
        return extractor
    return captured(extractor, settings)


def captured(extractor: Extractor, settings: ExtractionSettings) -> Extractor:
    """The same network on the CPU, captured."""
    network: torch.nn.Module = extractor._network  # type: ignore[assignment]
    return Extractor(
        network, extractor.identity, settings, extractor.device, EagerGraphDevice(extractor.device), has_maps=True
    )


def on_cpu(context: Context, extractor: str, **changes: bool | float | str) -> Extractor:
    """As users have it on a CPU, not captured."""
    return Extractor.from_pretrained(settings_for(context, extractor, **{**changes, "device": "cpu"}))


def plain_on_device(settings: Settings) -> Extractor:
    """The network as in the paper, on the check's device: nothing folded, fused or captured."""
    return plain_extractor(settings, weights_of(settings.extractor, settings.weights_dir))


def weights_of(extractor: str, weights_dir: str) -> FoundWeights:
    """Weights available on this machine.

    Raises:
        LeftOutError: They are not available.
    """
    capture = EXTRACTORS[extractor].weights
    found = None if capture is None else find_weights(capture, weights_dir)
    if found is None:
        msg = f"no weights of {extractor} in {weights_dir}"
        raise LeftOutError(msg)
    return found


def available(context: Context, extractors: Sequence[str]) -> tuple[list[str], list[str]]:
    """Networks with and without weights on this machine.

    Raises:
        LeftOutError: None has weights.
    """
    weights_dir = str(context.shared / "weights")
    there: list[str] = []
    missing: list[str] = []
    for name in extractors:
        capture = EXTRACTORS[name].weights
        is_there = capture is not None and find_weights(capture, weights_dir) is not None
        (there if is_there else missing).append(name)
    if not there:
        msg = f"no weights of {', '.join(missing)} in {weights_dir}"
        raise LeftOutError(msg)
    return there, missing


def why_no_lightglue(context: Context) -> str:
    """What LightGlue lacks on this machine; empty if nothing."""
    if not has_kornia():
        return "kornia is not installed"
    folder = context.shared / "weights"
    is_there = _carried_lightglue(context).is_file() or find_weights(WEIGHTS[LIGHTGLUE], str(folder)) is not None
    return "" if is_there else f"no weights {LIGHTGLUE} in {folder}"


def _carried_lightglue(context: Context) -> Path:
    """LightGlue's weights, rounded as by `make gpu-pack` to reduce their size."""
    return context.shared / "weights" / f"{LIGHTGLUE}_float16.safetensors"


@contextmanager
def tensor_float32(*, convolutions: bool, products: bool) -> Iterator[None]:
    """Sets whether float32 convolutions and matrix products on a GPU may use TF32's 10-bit mantissa in this block.

    Captured or compiled code keeps the setting: create its networks inside the block.
    """
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32, cublas.allow_tf32 = convolutions, products
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before
