"""Writes a graph as an ONNX file with metadata that says what it is."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.automatic import with_extractor
from feature_frontend.extractors.base import DetectionOptions, NetworkProtocol
from feature_frontend.extractors.extractor import find_extractor_weights
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.matchers.lightglue import DESCRIPTOR_DIM, load_lightglue
from feature_frontend.models.catalog import MATCHER_MODELS
from feature_frontend.models.weights_file import FoundWeights, fill_network
from feature_frontend.settings import ExtractionSettings
from feature_frontend.system.files import new_file
from feature_frontend_lab.export.onnx_model.lightglue import LightGlueGraph
from feature_frontend_lab.export.onnx_model.networks import GRAPHS

__all__ = [
    "CHANNELS",
    "NORMALIZED",
    "OPSET",
    "PIXELS",
    "PRODUCER",
    "TensorShape",
    "export_extractor",
    "export_lightglue",
    "package",
    "write_graph",
]

# GridSample came with 16, LayerNormalization with 17.
OPSET = 17
PRODUCER = "feature_frontend"
PIXELS = "(x, y) px, the centre of the first pixel is (0, 0)"
NORMALIZED = "(x, y), 2 px / side - 1, the centre of the first pixel is (-1, -1), as cv::ALIKED reads them"
CHANNELS = {1: "grey", 3: "RGB"}
"""What the metadata call the channels of the image, by their number."""
# Not multiples of a stride, and different: margins that would be missing, or a side that became a number, show.
_TRACED_HEIGHT, _TRACED_WIDTH, _TRACED_BATCH = 70, 90, 2


@dataclass(frozen=True)
class TensorShape:
    """Name and dimensions of an input or output: a number is fixed, a name stands for any."""

    name: str
    dims: tuple[int | str, ...]


def package(name: str) -> ModuleType:
    """Imports `onnx` or `onnxruntime`, which only these exports need.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SettingsError(
            f"ONNX files need the Python package {name} ({error}): pip install onnx onnxruntime, or the extra onnx of "
            "feature_frontend_lab"
        ) from error


def export_extractor(settings: ExtractionSettings, path: Path, *, for_opencv: bool = False) -> None:
    """Writes the extractor that `settings` name, by "auto" too, with its weights, budget, threshold, radius and border.

    Args:
        settings: The other settings of extraction do not apply to a file.
        path: The file, which must not exist.
        for_opencv: See `ExtractorGraph`.

    Raises:
        SettingsError: The extractor is no network, or the package onnx is not installed.
        WeightsError: The weights are not available, or do not fit.
        OSError: The file cannot be written.
    """
    package("onnx")
    settings, _ = with_extractor(settings)
    record = EXTRACTORS[settings.extractor]
    if not record.has_maps:
        able = ", ".join(name for name, other in EXTRACTORS.items() if other.has_maps)
        raise SettingsError(
            f"extractor {settings.extractor} finds its keypoints with OpenCV, which is no graph of a network; expected "
            f"one of {able}"
        )
    found = find_extractor_weights(settings)
    network = record.build()
    fill_network(network, found, settings.extractor, record.rename)
    network = record.inference(network.eval()).requires_grad_(requires_grad=False)
    described = cast(NetworkProtocol, network)
    radius = settings.nms_radius if settings.nms_radius >= 0 else described.default_nms_radius
    budget, border = settings.max_num_keypoints, settings.border
    options = DetectionOptions(budget, settings.detection_threshold, radius, border)
    graph = GRAPHS[type(network)](network, options, for_opencv=for_opencv)
    channels, dim = described.input_channels, described.descriptor_dim
    inputs = [TensorShape("image", (1 if for_opencv else "N", channels, "H", "W"))]
    batch = () if for_opencv else ("N",)
    outputs = [
        TensorShape("keypoints", (*batch, budget, 2)),
        TensorShape("scores", (*batch, budget)),
        TensorShape("descriptors", (*batch, budget, dim)),
    ]
    metadata = {
        **_provenance(found, "extractor"),
        **_conventions(described, inputs[0], for_opencv=for_opencv),
        "max_num_keypoints": budget,
        "detection_threshold": settings.detection_threshold,
        "nms_radius": radius,
        "border": border,
    }
    example = torch.rand(1 if for_opencv else _TRACED_BATCH, channels, _TRACED_HEIGHT, _TRACED_WIDTH)
    write_graph(graph, [example], (inputs, outputs), metadata, path)


def export_lightglue(weights_path: str, weights_dir: str, path: Path) -> None:
    """Writes LightGlue for ALIKED's descriptors, for any number of points and pairs.

    Args:
        weights_path: As the matcher's parameter `lightglue_weights_path`.
        weights_dir: As the parameter of that name.
        path: The file, which must not exist.

    Raises:
        SettingsError: kornia or onnx is not installed.
        WeightsError: The weights are not available, or do not fit.
        OSError: The file cannot be written.
    """
    package("onnx")
    network, found = load_lightglue(weights_path, weights_dir)
    graph = LightGlueGraph(network)
    inputs, examples = [], []
    for number, count in ((0, "M"), (1, "N")):
        inputs += [
            TensorShape(f"keypoints{number}", ("B", count, 2)),
            TensorShape(f"descriptors{number}", ("B", count, DESCRIPTOR_DIM)),
            TensorShape(f"size{number}", ("B", 2)),
        ]
        points = 30 + number
        examples += [
            torch.rand(_TRACED_BATCH, points, 2) * 80,
            torch.rand(_TRACED_BATCH, points, DESCRIPTOR_DIM) / DESCRIPTOR_DIM**0.5,
            torch.tensor([[90.0 + number, 70.0]] * _TRACED_BATCH),
        ]
    metadata = {
        **_provenance(found, "matcher"),
        "extractors": ", ".join(MATCHER_MODELS["lightglue"].extractors),
        "keypoints": PIXELS,
        "sizes": "(width, height) px of the images",
        "matches0": "row in the second image of each point of the first, -1 for none",
        "scores0": "probability of the match, 0 for none",
    }
    outputs = [TensorShape("matches0", ("B", "M")), TensorShape("scores0", ("B", "M"))]
    write_graph(graph, examples, (inputs, outputs), metadata, path)


def _provenance(found: FoundWeights, kind: str) -> dict[str, object]:
    return {"producer": PRODUCER, "kind": kind, kind: found.name, "weights_sha256": found.sha256}


def _conventions(network: NetworkProtocol, image: TensorShape, *, for_opencv: bool) -> dict[str, object]:
    return {
        "input": f"image ({', '.join(map(str, image.dims))}) float32, 0 to 1",
        "channels": CHANNELS[network.input_channels],
        "minimum_size": network.minimum_size,
        "descriptor_dim": network.descriptor_dim,
        "keypoints": NORMALIZED if for_opencv else PIXELS,
        "scores": "0 to 1, best first; rows with score 0 are padding",
    }


def write_graph(
    graph: nn.Module,
    examples: Sequence[torch.Tensor],
    shapes: tuple[Sequence[TensorShape], Sequence[TensorShape]],
    metadata: Mapping[str, object],
    path: Path,
) -> None:
    """Traces a graph, checks it with ONNX's checker, and writes it.

    Args:
        graph: The graph.
        examples: An input for each of the inputs' shapes.
        shapes: Those of the inputs and of the outputs.
        metadata: Written as text.
        path: The file, which must not exist.

    Raises:
        OSError: The file cannot be written.
    """
    onnx = package("onnx")
    inputs, outputs = shapes
    dynamic = {shape.name: {i: dim for i, dim in enumerate(shape.dims) if isinstance(dim, str)} for shape in inputs}
    traced = io.BytesIO()
    with warnings.catch_warnings():
        # The tracer warns of every Python number; tests run the files at other sizes than the traced one.
        warnings.simplefilter("ignore")
        # Not torch.export's exporter: it needs another package, onnxscript (docs/research/onnx.md).
        newer: dict[str, Any] = {"dynamo": False} if torch.__version__ >= "2.5" else {}
        torch.onnx.export(
            graph.eval(),
            tuple(examples),
            cast(Any, traced),  # a file, which its annotations forget
            input_names=[shape.name for shape in inputs],
            output_names=[shape.name for shape in outputs],
            dynamic_axes=dynamic,
            opset_version=OPSET,
            **newer,
        )
    model = onnx.load_from_string(traced.getvalue())
    for value, shape in zip(model.graph.output, outputs, strict=True):
        for dim, known in zip(value.type.tensor_type.shape.dim, shape.dims, strict=True):
            if isinstance(known, str):
                dim.dim_param = known
            else:
                dim.dim_value = known
    onnx.helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(model.SerializeToString())
