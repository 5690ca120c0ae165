"""`export onnx`: an extractor or LightGlue as a file for onnxruntime, TensorRT and OpenCV, and its check."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from feature_frontend.errors import ImageError, SettingsError
from feature_frontend.extractors.automatic import with_extractor
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.image.image_file import read_image_file
from feature_frontend.matchers.lightglue import DESCRIPTOR_DIM, load_lightglue
from feature_frontend.settings import PARAMETERS, ExtractionSettings
from feature_frontend.tools.common.arguments import add_parameters
from feature_frontend_lab.export.onnx_model.file import export_extractor, export_lightglue, package
from feature_frontend_lab.export.onnx_model.reader import OnnxExtractor, OnnxFeatures, OnnxMatcher, compare, kind_of

__all__ = ["add_onnx_parser"]

_OPTIONS = (
    *("extractor", "weights_dir", "weights_path"),
    *("max_num_keypoints", "detection_threshold", "nms_radius", "border"),
)
_WRITTEN = ("max_num_keypoints", "detection_threshold", "nms_radius", "border")
_DESCRIPTION = """\
Writes an extractor as one ONNX file, from images of any size to keypoints, scores and descriptors; or LightGlue, from
two images' keypoints and descriptors to matches. Compares it with the front-end's own by onnxruntime, if that is
installed. See docs/onnx.md."""

# Of the check, beyond which a file counts as different: keypoints of which fraction, px, and the rest.
_MISSING, _POSITION_PX, _SCORE, _COSINE = 0.005, 0.02, 1e-4, 0.9999
_CHECK_SIZES = ((240, 320), (201, 333), (96, 64))
_CHECK_BATCH = 2
_CHECK_PLACE, _CHECK_POINTS, _PROBABILITY = (640, 480), 200, 1e-3
_DIFFERENT = 1

Images = list[npt.NDArray[np.uint8]]


def add_onnx_parser(commands: Any) -> None:
    """Adds the subcommand `onnx`."""
    command = commands.add_parser(
        "onnx",
        help="an extractor, or LightGlue, as an ONNX file, for onnxruntime, TensorRT and OpenCV",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--output", type=Path, metavar="FILE", help="default: the extractor's name, .onnx")
    add_parameters(command, _OPTIONS)
    add("--matcher", choices=("lightglue",), help="write this matcher instead of an extractor")
    add(
        "--lightglue-weights-path",
        default="",
        metavar="VALUE",
        help=PARAMETERS["lightglue_weights_path"].description,
    )
    add("--for-opencv", action="store_true", help="as cv::ALIKED of OpenCV 5 reads it: keypoints in -1 to 1, no batch")
    add(
        "--check", type=Path, metavar="FILE", help="write nothing: compare this file with the front-end's own extractor"
    )
    add("--images", type=Path, nargs="+", metavar="FILE", help="compare on these images, instead of generated ones")
    command.set_defaults(run=_onnx, unfinished="not checked")


def _onnx(options: argparse.Namespace) -> int:
    _refuse_without_effect(options)
    for image in options.images or ():
        _image(image)
    if options.check is not None:
        return _check(options.check, options)
    settings, notice = with_extractor(
        ExtractionSettings.from_mapping({name: getattr(options, name) for name in _OPTIONS})
    )
    if notice:
        print(f"note: {notice}", file=sys.stderr)
    name = options.matcher or settings.extractor
    path = options.output or Path(f"{name}.onnx")
    if os.path.lexists(path):
        raise SettingsError(f"{path} exists already; delete it, or choose another file by --output")
    options.output = path
    try:
        if options.matcher:
            export_lightglue(options.lightglue_weights_path, options.weights_dir, path)
        else:
            export_extractor(settings, path, for_opencv=options.for_opencv)
        print(f"{path}: {name}, {path.stat().st_size:,} bytes")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        package("onnxruntime")
    except SettingsError as error:
        print(f"not checked: {error}")
        return 0
    return _check(path, options)


def _refuse_without_effect(options: argparse.Namespace) -> None:
    """Raises a `SettingsError` for options that the others make useless."""
    unused: tuple[str, ...]
    if options.check is not None:
        what = "--check, which compares the file as it is,"
        unused = ("output", "matcher", "for_opencv", "extractor", *_WRITTEN)
    elif options.matcher:
        what, unused = f"--matcher {options.matcher}", ("extractor", "weights_path", *_WRITTEN, "for_opencv", "images")
    else:
        what, unused = "an extractor", ("lightglue_weights_path",)
    for name in unused:
        value = getattr(options, name)
        if value and not (name in PARAMETERS and value == PARAMETERS[name].default):
            raise SettingsError(f"--{name.replace('_', '-')} has no effect on {what}; leave it out")


def _check(path: Path, options: argparse.Namespace) -> int:
    """Prints how far the file's results differ from ours; returns the exit status."""
    is_matcher = kind_of(path) == "matcher"
    if is_matcher and options.images:
        raise SettingsError(f"{path} holds one matcher, which is compared on generated points; leave --images out")
    is_same, identity = _check_matcher(path, options) if is_matcher else _check_extractor(path, options)
    print(f"{path}: {'the same as' if is_same else 'NOT the same as'} {identity}")
    return 0 if is_same else _DIFFERENT


def _check_matcher(path: Path, options: argparse.Namespace) -> tuple[bool, str]:
    """Compares on random points, half of which the second image has, too."""
    exported = OnnxMatcher(path)
    network: Any
    network, found = load_lightglue(options.lightglue_weights_path, options.weights_dir)
    _check_weights(path, exported.metadata, found.identity, "--lightglue-weights-path")
    # As in the file: all layers, all points.
    network.conf.depth_confidence = network.conf.width_confidence = -1
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0), _CHECK_PLACE, (_CHECK_POINTS, 2)).astype(np.float32)
    descriptors = rng.normal(size=(_CHECK_POINTS, DESCRIPTOR_DIM)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    moved = np.concatenate([points[::2] * 0.9 + 10, points[1::4]])
    images = [(points, descriptors), (moved, np.concatenate([descriptors[::2], -descriptors[1::4]]))]
    inputs = {
        f"image{i}": {
            "keypoints": torch.from_numpy(keypoints)[None],
            "descriptors": torch.from_numpy(own)[None],
            "image_size": torch.tensor([_CHECK_PLACE]),
        }
        for i, (keypoints, own) in enumerate(images)
    }
    with torch.no_grad():
        expected = network(inputs)
    sides = [OnnxFeatures(keypoints, np.ones(len(own), np.float32), own) for keypoints, own in images]
    matches, scores = exported.match(sides[0], _CHECK_PLACE, sides[1], _CHECK_PLACE)
    own_matches, own_scores = expected["matches0"][0].numpy(), expected["matching_scores0"][0].numpy()
    different, apart = int((matches != own_matches).sum()), float(np.abs(scores - own_scores).max())
    print(
        f"{(own_matches >= 0).sum()} matches, {different} of {_CHECK_POINTS} points matched otherwise, probabilities "
        f"within {apart:.1e}"
    )
    return different <= _MISSING * _CHECK_POINTS and apart <= _PROBABILITY, found.identity


def _check_weights(path: Path, metadata: Mapping[str, str], identity: str, option: str) -> None:
    digest = metadata["weights_sha256"]
    if identity.partition("@")[2] != digest[:8]:
        raise SettingsError(
            f"{path} has the weights {digest[:8]}, but those found here are {identity}; name the same file by {option}"
        )


def _check_extractor(path: Path, options: argparse.Namespace) -> tuple[bool, str]:
    exported = OnnxExtractor(path)
    metadata = exported.metadata
    written = {name: type(PARAMETERS[name].default)(metadata[name]) for name in _WRITTEN}
    own = Extractor.from_pretrained(
        ExtractionSettings.from_mapping(
            {
                **{name: getattr(options, name) for name in ("weights_dir", "weights_path")},
                **written,
                **{"extractor": metadata["extractor"], "device": "cpu", "compile": False, "min_grey_range": 0},
            }
        )
    )
    _check_weights(path, metadata, own.identity, "--weights-path")
    is_same, total = True, 0
    for images in _batches(options.images, int(metadata["minimum_size"]), is_grey=metadata["channels"] == "grey"):
        found = own.extract_batch(images)
        for features, other in zip(found, exported.extract_batch(images), strict=True):
            reference = OnnxFeatures(features.keypoints.numpy(), features.scores.numpy(), features.descriptors.numpy())
            agreement = compare(reference, other)
            print(
                f"{features.width}x{features.height} px, batch of {len(images)}: {agreement.count} keypoints, "
                f"{agreement.missing} elsewhere, the others within {agreement.position_px:.1e} px, scores within "
                f"{agreement.score:.1e}, cosine from {agreement.cosine:.6f}"
            )
            total += agreement.count
            is_same &= agreement.missing <= _MISSING * agreement.count
            is_same &= agreement.position_px <= _POSITION_PX and agreement.score <= _SCORE
            is_same &= agreement.cosine >= _COSINE
    if is_same and not total:
        raise SettingsError(
            f"{path} and {own.identity} find no keypoint on these images, so nothing is compared; name others by "
            "--images"
        )
    return is_same, own.identity


def _batches(paths: Sequence[Path] | None, minimum_size: int, *, is_grey: bool) -> Iterator[Images]:
    """Batches of images of one size; those of files one by one."""
    if paths is None:
        rng = np.random.default_rng(0)
        for height, width in _CHECK_SIZES:
            shape = (_CHECK_BATCH, height, width) if is_grey else (_CHECK_BATCH, height, width, 3)
            noise = rng.integers(0, 256, shape).astype(np.uint8)
            # Blurred, and turned up to full contrast again.
            yield [(np.clip(cv2.GaussianBlur(one, (0, 0), 2.0), 96, 159) - 96) * 4 for one in noise]
        return
    for path in paths:
        samples: npt.NDArray[Any] = _image(path)
        height, width = samples.shape[:2]
        if min(height, width) < minimum_size:
            raise SettingsError(f"{path} is {width}x{height} px; expected at least {minimum_size}x{minimum_size}")
        if is_grey and samples.ndim == 3:
            samples = cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)
        elif not is_grey and samples.ndim == 2:
            samples = cv2.cvtColor(samples, cv2.COLOR_GRAY2RGB)
        yield [samples]


def _image(path: Path) -> npt.NDArray[np.uint8]:
    """The pixels of an image file of 8 bits, (H, W) grey or (H, W, 3) RGB."""
    try:
        samples = read_image_file(path).samples
    except ImageError as error:
        raise SettingsError(f"{path}: {error}") from error
    if samples.dtype != np.uint8:
        raise SettingsError(f"{path} has samples of {samples.dtype}; expected 8 bits")
    return samples
