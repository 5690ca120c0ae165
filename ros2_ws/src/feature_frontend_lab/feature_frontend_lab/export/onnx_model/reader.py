"""Reads an exported extractor with onnxruntime, and compares it with the front-end's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import ImageError, MatchingError, SettingsError
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.image.preprocessing import check_image
from feature_frontend.system.text import short_text, shown
from feature_frontend_lab.export.onnx_model.file import CHANNELS, NORMALIZED, PIXELS, PRODUCER, package

__all__ = ["Agreement", "OnnxExtractor", "OnnxFeatures", "OnnxMatcher", "compare", "kind_of"]

FloatArray = npt.NDArray[np.float32]
Size = tuple[int, int]

# Two keypoints further apart are not the same.
_SAME_PX = 0.5

# What files of each kind say of themselves as far as it is read here, as regular expressions.
_WHOLE, _NUMBER = r"\d{1,9}", r"\d+(\.\d+)?(e-?\d+)?"
_SAID = {
    "extractor": {
        "extractor": "|".join(map(re.escape, EXTRACTORS)),
        "weights_sha256": r"[0-9a-f]{64}",
        "channels": "|".join(CHANNELS.values()),
        "keypoints": "|".join(map(re.escape, (PIXELS, NORMALIZED))),
        **dict.fromkeys(("minimum_size", "max_num_keypoints", "nms_radius", "border"), _WHOLE),
        "detection_threshold": _NUMBER,
    },
    "matcher": {"weights_sha256": r"[0-9a-f]{64}", "extractors": r".+"},
}


@dataclass(frozen=True, eq=False)
class OnnxFeatures:
    """The valid rows of one image.

    Attributes:
        keypoints: (N, 2), (x, y) px.
        scores: (N,).
        descriptors: (N, D), L2-normalised.
    """

    keypoints: FloatArray
    scores: FloatArray
    descriptors: FloatArray


@dataclass(frozen=True)
class Agreement:
    """How far two results for one image differ.

    Attributes:
        count: Keypoints of the reference.
        missing: Those further than 0.5 px from any keypoint of the other, or keypoints of the other as far from any of
            these, whichever are more.
        position_px: Largest distance of the others.
        score: Largest difference of their scores.
        cosine: Smallest similarity of the descriptors of those that both found on the same pixel, rounded down: ALIKED
            describes what is around that pixel, and 100.00001 is on another one than 99.99999.
    """

    count: int
    missing: int
    position_px: float
    score: float
    cosine: float


def kind_of(path: Path) -> str:
    """What a file is: "extractor" or "matcher".

    Raises:
        SettingsError: There is no such file, onnxruntime cannot run it, or it is none of this project's.
    """
    return _open(path, 1)[1]["kind"]


def _open(path: Path, threads: int) -> tuple[Any, dict[str, str]]:
    runtime = package("onnxruntime")
    if path.is_dir():
        raise SettingsError(f"{path} is a folder; expected a file written by: feature_frontend export onnx")
    if not path.is_file():
        raise SettingsError(f"there is no file {path}; write one: feature_frontend export onnx --output {path}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Its threads would otherwise go on waiting busily after a run, when others need the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's classes of errors have no common base: damaged files, unknown operators and versions.
        raise SettingsError(
            f"onnxruntime {runtime.__version__} cannot run {path}: {short_text(str(error))}; export it again, or "
            "install a newer onnxruntime"
        ) from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    if metadata.get("producer") != PRODUCER or metadata.get("kind") not in _SAID:
        raise SettingsError(
            f"{path} does not say that {PRODUCER} made it; expected a file written by: feature_frontend export onnx"
        )
    for name, form in _SAID[metadata["kind"]].items():
        if not re.fullmatch(form, metadata.get(name, ""), re.DOTALL):
            raise SettingsError(
                f"{path} says {shown(metadata[name]) if name in metadata else 'nothing'} for {name} in its metadata, "
                f"which is not what feature_frontend export onnx writes; export it again"
            )
    return session, metadata


class _OnnxModel:
    """An exported model, run by onnxruntime on the CPU.

    Args:
        path: The file.
        threads: Of onnxruntime; 0 for one per core.

    Attributes:
        metadata: What the file says of itself.

    Raises:
        SettingsError: There is no such file, onnxruntime cannot run it, or it is none of this project's, or of another
            kind.
    """

    _KIND: ClassVar[str]

    def __init__(self, path: Path, threads: int = 0) -> None:
        self._path = path
        self._session, self.metadata = _open(path, threads)
        if self.metadata["kind"] != self._KIND:
            raise SettingsError(f"{path} holds one {self.metadata['kind']}; expected an exported {self._KIND}")

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[np.float32]]) -> list[npt.NDArray[Any]]:
        """Raises a `SettingsError` if onnxruntime cannot run the graph on these inputs, for lack of memory too."""
        try:
            found: list[npt.NDArray[Any]] = self._session.run(list(outputs), dict(inputs))
        except Exception as error:
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise SettingsError(
                f"onnxruntime cannot run {self._path} on {shapes}: {short_text(str(error))}; export it again, or try "
                "smaller inputs"
            ) from error
        return found


class OnnxExtractor(_OnnxModel):
    """An exported extractor."""

    _KIND = "extractor"

    def extract_batch(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[OnnxFeatures]:
        """Features of images of one size.

        Args:
            images: (H, W) grey if the file wants grey, otherwise (H, W, 3) RGB, uint8.

        Raises:
            ImageError: An image has the wrong type, shape, colours or size, or the sizes differ.
        """
        minimum = int(self.metadata["minimum_size"])
        checked = [check_image(image, minimum) for image in images]
        shapes = {image.shape for image in checked}
        if len(shapes) != 1 or checked[0].ndim != (2 if self._session.get_inputs()[0].shape[1] == 1 else 3):
            wanted = f"{self.metadata['channels']} images of one size, from {minimum}x{minimum} px"
            got = f"images have shapes {', '.join(map(str, sorted(shapes)))}" if shapes else "there are no images"
            raise ImageError(f"{got}; {self._path} expects {wanted}")
        planes = np.stack([image.reshape(*image.shape[:2], -1).transpose(2, 0, 1) for image in checked])
        batch = planes.astype(np.float32) / np.float32(255)
        if self.metadata["keypoints"] == PIXELS:
            return [_valid(*rows) for rows in zip(*self.run(batch), strict=True)]
        # For OpenCV: image by image.
        half = np.array([batch.shape[3] / 2, batch.shape[2] / 2], np.float32)
        results = [self.run(batch[i : i + 1]) for i in range(len(batch))]
        return [_valid((points + 1) * half, scores, descriptors) for points, scores, descriptors in results]

    def run(self, batch: FloatArray) -> list[FloatArray]:
        """Keypoints, scores and descriptors with their padding, for the input itself."""
        return self._run(("keypoints", "scores", "descriptors"), {"image": batch})


class OnnxMatcher(_OnnxModel):
    """An exported LightGlue."""

    _KIND = "matcher"

    def match(
        self, features0: OnnxFeatures, size0: Size, features1: OnnxFeatures, size1: Size
    ) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """The row in the second image of each keypoint of the first, -1 for none, and the match's probability.

        Args:
            features0: Of the first image, at least one.
            size0: (width, height) of the image, px.
            features1: Of the second image, at least one.
            size1: Its size.

        Raises:
            MatchingError: An image has no features, or descriptors of another length.
        """
        length = self._session.get_inputs()[1].shape[2]
        inputs = {}
        for number, features, size in ((0, features0, size0), (1, features1, size1)):
            if features.descriptors.shape[1:] != (length,) or not len(features.descriptors):
                raise MatchingError(
                    f"descriptors{number} have shape {features.descriptors.shape}; {self._path} expects (N, {length}), "
                    f"N at least 1, of {self.metadata['extractors']}"
                )
            inputs[f"keypoints{number}"] = features.keypoints[None]
            inputs[f"descriptors{number}"] = features.descriptors[None]
            inputs[f"size{number}"] = np.array([size], np.float32)
        matches, scores = self._run(("matches0", "scores0"), inputs)
        return matches[0], scores[0]


def _valid(keypoints: FloatArray, scores: FloatArray, descriptors: FloatArray) -> OnnxFeatures:
    rows = scores > 0
    return OnnxFeatures(keypoints[rows], scores[rows], descriptors[rows])


def compare(reference: OnnxFeatures, other: OnnxFeatures) -> Agreement:
    """How far `other` differs from `reference`, each of whose keypoints is compared with the nearest."""
    count, others = len(reference.keypoints), len(other.keypoints)
    if not count or not others:
        return Agreement(count, count + others, 0.0, 0.0, 1.0)
    nearest, distances = _nearest(reference.keypoints, other.keypoints)
    is_found = distances < _SAME_PX
    missing = max(int((~is_found).sum()), int((~(_nearest(other.keypoints, reference.keypoints)[1] < _SAME_PX)).sum()))
    if not is_found.any():
        return Agreement(count, missing, 0.0, 0.0, 1.0)
    rows = nearest[is_found]
    is_same_pixel = (np.floor(reference.keypoints[is_found]) == np.floor(other.keypoints[rows])).all(axis=1)
    similarities = (reference.descriptors[is_found] * other.descriptors[rows]).sum(axis=1)[is_same_pixel]
    return Agreement(
        count,
        missing,
        float(distances[is_found].max()),
        float(np.abs(reference.scores[is_found] - other.scores[rows]).max()),
        float(similarities.min(initial=1.0)),
    )


def _nearest(points: FloatArray, others: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The nearest of `others` for each point, and its distance in px."""
    nearest, distances = np.zeros(len(points), np.int64), np.zeros(len(points), np.float32)
    for i, point in enumerate(points):
        squared = ((others - point) ** 2).sum(axis=1)
        nearest[i] = squared.argmin()
        distances[i] = np.sqrt(squared[nearest[i]])
    return nearest, distances
