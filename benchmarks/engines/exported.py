"""Engines of the suite `onnx`: an exported extractor in the programs that run ONNX files, on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.engines.extraction import Found
from benchmarks.types import Canvas
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.settings import ExtractionSettings
from feature_frontend_lab.export.onnx_model.file import export_extractor
from feature_frontend_lab.export.onnx_model.reader import OnnxExtractor

__all__ = ["PROGRAMS", "ExportedEngine"]

# Keypoints (K, 2), px, descriptors (K, D) and which of these rows are no padding (K,).
Output = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]
Call = Callable[[Canvas], Output]

PROGRAMS: dict[str, str] = {"onnxruntime": "onnxruntime", "openvino": "openvino", "opencv": "cv2"}
"""The programs by name, with the Python package that each one needs."""


class ExportedEngine:
    """A network's exported file in another program.

    Args:
        program: One of `PROGRAMS`.
        settings: Of the export; the budget comes with `prepare`.
        folder: For the files.
        threads: Of the program. OpenCV has one number for the whole process.
    """

    def __init__(self, program: str, settings: ExtractionSettings, folder: Path, threads: int) -> None:
        self.name = f"{settings.extractor} {program}"
        self._program, self._settings, self._folder, self._threads = program, settings, folder, threads
        # Its networks for grey images have no class of their own in OpenCV.
        self._is_aliked = program == "opencv" and settings.extractor.startswith("aliked-")
        self._is_grey = EXTRACTORS[settings.extractor].build().input_channels == 1
        self._call: Call | None = None

    def prepare(self, image: Canvas, budget: int) -> None:
        """Exports the network with this budget, and opens the file for images of this size."""
        path = self._folder / f"{self._settings.extractor}-{budget}{'-opencv' * self._is_aliked}.onnx"
        if not path.exists():
            export_extractor(replace(self._settings, max_num_keypoints=budget), path, for_opencv=self._is_aliked)
        height, width = image.shape[:2]
        if self._program == "onnxruntime":
            self._call = _onnxruntime(path, self._threads)
        elif self._program == "openvino":
            self._call = _openvino(path, self._threads, (1, 1 if self._is_grey else 3, height, width))
        elif self._is_aliked:
            self._call = _opencv_aliked(path, (width, height))
        else:
            self._call = _opencv_dnn(path)
        self(image)

    @property
    def mode(self) -> str:
        """Native code."""
        return "native"

    def __call__(self, image: Canvas) -> Output:
        """Keypoints, descriptors and which rows are none of the padding."""
        assert self._call is not None, "prepare() comes first"
        return self._call(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) if self._is_grey else image)

    def count(self, result: Output) -> int:
        """Number of keypoints."""
        return int(result[2].sum())

    def found(self, result: Output) -> Found:
        """Keypoints and descriptors without padding."""
        keypoints, descriptors, is_valid = result
        return Found(keypoints[is_valid], descriptors[is_valid])


def _blob(image: Canvas) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.dnn.blobFromImage(image, 1 / 255), np.float32)


def _onnxruntime(path: Path, threads: int) -> Call:
    extractor = OnnxExtractor(path, threads)

    def call(image: Canvas) -> Output:
        keypoints, scores, descriptors = extractor.run(_blob(image))
        return keypoints[0], descriptors[0], scores[0] > 0

    return call


def _openvino(path: Path, threads: int, shape: tuple[int, int, int, int]) -> Call:
    core: Any = importlib.import_module("openvino").Core()
    model = core.read_model(str(path))
    model.reshape(list(shape))
    hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", hints)

    def call(image: Canvas) -> Output:
        results = compiled({"image": _blob(image)})
        keypoints, scores, descriptors = (results[name] for name in ("keypoints", "scores", "descriptors"))
        return keypoints[0], descriptors[0], scores[0] > 0

    return call


def _opencv_aliked(path: Path, size: tuple[int, int]) -> Call:
    opencv: Any = cv2  # in OpenCV 5 only
    parameters = opencv.ALIKED.Params()
    parameters.inputSize = size
    detector = opencv.ALIKED.create(str(path), parameters)

    def call(image: Canvas) -> Output:
        keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), None)
        points = np.asarray(cv2.KeyPoint.convert(keypoints), np.float32).reshape(-1, 2)
        return points, descriptors, np.ones(len(points), np.bool_)

    return call


def _opencv_dnn(path: Path) -> Call:
    network = cv2.dnn.readNetFromONNX(str(path))

    def call(image: Canvas) -> Output:
        network.setInput(_blob(image), "image")
        keypoints, scores, descriptors = network.forward(["keypoints", "scores", "descriptors"])
        return keypoints[0], descriptors[0], scores[0] > 0

    return call
