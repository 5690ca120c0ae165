"""One photograph from every kind of source: the same size, stamps and keypoints, as in docs/image_input.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.rosbag2 import StoragePlugin

from feature_frontend.tools.process import main
from feature_frontend_lab.export.recorded_features import FeaturesRecord, read_features
from tests.conftest import REPOSITORY
from tests.image_files import encoded, tiff, with_orientation
from tests.tools.offline import STORE, header, image, write_bag

Photograph = npt.NDArray[np.uint8]

# `full` maps 16 bits and floats from 0 to 1 onto the 8 bits that they have been made of, and leaves 8 bits alone.
OPTIONS = ("--extractor", "sift", "--max-num-keypoints", "300", "--compile", "false", "--intensity-range", "full")
STEP_NS = 100_000_000
LEAST_SHARE = 0.9
WITHIN_PX = 1.0
JPEG_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 95)
DOCUMENT = REPOSITORY / "docs" / "image_input.md"
WRITE = "FEATURE_FRONTEND_WRITE_DOCS"
BEGIN, END = (
    "<!-- same photograph: made by tests/tools/test_same_photograph.py -->\n",
    "<!-- end of same photograph -->",
)


@dataclass(frozen=True)
class Kind:
    """A way to keep photographs: what the document calls it, whether it is lossless, and what writes them."""

    name: str
    is_lossless: bool
    write: Callable[[Path, Sequence[Photograph]], Path]


def _folder(suffix: str, make: Callable[[Photograph], bytes]) -> Callable[[Path, Sequence[Photograph]], Path]:
    def write(path: Path, photographs: Sequence[Photograph]) -> Path:
        path.mkdir()
        for index, photograph in enumerate(photographs):
            (path / f"{index / 10:.3f}{suffix}").write_bytes(make(photograph))
        return path

    return write


def _bag(
    storage: StoragePlugin, make: Callable[[int, Photograph], Any]
) -> Callable[[Path, Sequence[Photograph]], Path]:
    def write(path: Path, photographs: Sequence[Photograph]) -> Path:
        stamped = ((index * STEP_NS, photograph) for index, photograph in enumerate(photographs))
        return write_bag(path, [("/image", stamp, make(stamp, photograph)) for stamp, photograph in stamped], storage)

    return write


def _video(suffix: str, fourcc: str, writer: int) -> Callable[[Path, Sequence[Photograph]], Path]:
    def write(path: Path, photographs: Sequence[Photograph]) -> Path:
        file = path.with_suffix(suffix)
        size = photographs[0].shape[1::-1]
        is_deep = photographs[0].dtype == np.uint16
        depth = [cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U if is_deep else cv2.CV_8U]
        colour = [cv2.VIDEOWRITER_PROP_IS_COLOR, int(photographs[0].ndim == 3)]
        code = cv2.VideoWriter.fourcc(*fourcc)
        video = cv2.VideoWriter(str(file), writer, code, 10, size, [*depth, *colour])
        if not video.isOpened():
            pytest.skip(f"this OpenCV writes no {fourcc} videos")
        video.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
        for photograph in photographs:
            video.write(np.ascontiguousarray(photograph if photograph.ndim == 2 else photograph[..., ::-1]))
        video.release()
        return file

    return write


def _compressed(stamp_ns: int, data: bytes, description: str) -> Any:
    kind = STORE.types["sensor_msgs/msg/CompressedImage"]
    return kind(header=header(stamp_ns), format=description, data=np.frombuffer(data, np.uint8))


def _deep(photograph: Photograph) -> npt.NDArray[np.uint16]:
    return photograph.astype(np.uint16) * 257


def _jpeg(photograph: Photograph) -> bytes:
    return encoded(photograph, ".jpg", *JPEG_QUALITY)


def _turned_jpeg(photograph: Photograph) -> bytes:
    return with_orientation(_jpeg(photograph), ".jpg", 6)


_FOLDERS = (
    Kind("folder of PNG", True, _folder(".png", lambda rgb: encoded(rgb, ".png"))),
    Kind("folder of PNG, 16 bits", True, _folder(".png", lambda rgb: encoded(_deep(rgb), ".png"))),
    Kind("folder of TIFF", True, _folder(".tiff", tiff)),
    Kind("folder of TIFF, 16 bits", True, _folder(".tif", lambda rgb: tiff(_deep(rgb)))),
    Kind("folder of TIFF, 32-bit floats", True, _folder(".tif", lambda rgb: tiff(np.float32(rgb) / 255))),
    Kind("folder of TIFF, orientation 6", True, _folder(".tif", lambda rgb: tiff(rgb, tags=((274, 3, 6),)))),
    Kind("folder of PPM", True, _folder(".ppm", lambda rgb: encoded(rgb, ".ppm"))),
    Kind("folder of WebP, lossless", True, _folder(".webp", lambda rgb: encoded(rgb, ".webp"))),
    Kind("folder of JPEG", False, _folder(".jpg", _jpeg)),
    Kind(
        "folder of JPEG, EXIF orientation 6",
        False,
        _folder(".jpg", lambda rgb: with_orientation(_jpeg(rgb), ".jpg", 6)),
    ),
    Kind("video, FFV1", True, _video(".mkv", "FFV1", cv2.CAP_FFMPEG)),
    Kind("video, MJPEG", False, _video(".avi", "MJPG", cv2.CAP_OPENCV_MJPEG)),
)
_BAGS = tuple(
    kind
    for name, storage in (("sqlite3", StoragePlugin.SQLITE3), ("mcap", StoragePlugin.MCAP))
    for kind in (
        Kind(f"{name}, Image rgb8", True, _bag(storage, lambda ns, rgb: image(ns, rgb, "rgb8"))),
        Kind(f"{name}, Image bgr8", True, _bag(storage, lambda ns, rgb: image(ns, rgb[..., ::-1], "bgr8"))),
        Kind(f"{name}, Image rgb16", True, _bag(storage, lambda ns, rgb: image(ns, _deep(rgb), "rgb16"))),
        Kind(
            f"{name}, Image 32FC3",
            True,
            _bag(storage, lambda ns, rgb: image(ns, np.float32(rgb[..., ::-1]) / 255, "32FC3")),
        ),
        Kind(
            f"{name}, CompressedImage PNG",
            True,
            _bag(storage, lambda ns, rgb: _compressed(ns, encoded(rgb, ".png"), "rgb8; png compressed bgr8")),
        ),
        Kind(
            f"{name}, CompressedImage JPEG",
            False,
            _bag(storage, lambda ns, rgb: _compressed(ns, _jpeg(rgb), "rgb8; jpeg compressed bgr8")),
        ),
    )
)
KINDS = (*_FOLDERS, *_BAGS)


def _processed(source: Path, output: Path, *options: str) -> list[FeaturesRecord]:
    assert main([str(source), "--output", str(output), *OPTIONS, *options]) == 0
    missing: list[str] = []
    records = list(read_features(output, None, missing)[1])
    assert not missing
    return records


def _fraction_near(expected: FeaturesRecord, found: FeaturesRecord) -> float:
    """Of the expected keypoints, those that have been found within `WITHIN_PX`."""
    one, other = expected.features.keypoints.numpy(), found.features.keypoints.numpy()
    distances = np.linalg.norm(one[:, None] - other[None], axis=2).min(axis=1)
    return float((distances <= WITHIN_PX).mean())


@pytest.mark.slow
def test_every_source_gives_the_same(
    photographs: list[Photograph], tmp_path: Path, report_figure: Callable[[str], None]
) -> None:
    rows = []
    expected: list[FeaturesRecord] = []
    for number, kind in enumerate(KINDS):
        found = _processed(kind.write(tmp_path / f"source{number}", photographs), tmp_path / f"output{number}")
        expected = expected or found
        assert len(found) == len(photographs), kind.name
        assert [record.stamp_ns for record in found] == [index * STEP_NS for index in range(len(found))], kind.name
        size = {(record.features.width, record.features.height) for record in found}
        assert size == {(640, 480)}, kind.name
        if kind.is_lossless:
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_array_equal(one.features.keypoints, other.features.keypoints, err_msg=kind.name)
                np.testing.assert_array_equal(one.features.descriptors, other.features.descriptors, err_msg=kind.name)
            keypoints = "identical"
        else:
            fraction = min(_fraction_near(one, other) for one, other in zip(expected, found, strict=True))
            report_figure(f"{kind.name}: {fraction:.3f} of the keypoints of PNG within {WITHIN_PX:g} px, at least")
            assert fraction >= LEAST_SHARE, kind.name
            keypoints = f"at least {LEAST_SHARE:g} within {WITHIN_PX:g} px"
        stamps = ", ".join(f"{record.stamp_ns / 1e9:.1f}" for record in found)
        rows.append(f"| {kind.name} | 640x480 | {stamps} | {keypoints} |")
    table = "| source | size, px | stamps, s | keypoints |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    documented, after = rest.split(END)
    if os.environ.get(WRITE):
        DOCUMENT.write_text(before + BEGIN + table + END + after, encoding="utf-8")
        documented = table
    assert documented == table, f"the table in {DOCUMENT} is not what was measured; {WRITE}=1 has it rewritten"


# Counts of a thermal camera in 16 bits, and what settings make of them.
_COUNTS = (
    Kind("folder of PNG", True, _folder(".png", lambda counts: encoded(counts, ".png"))),
    Kind("folder of TIFF", True, _folder(".tiff", tiff)),
    Kind("folder of PGM", True, _folder(".pgm", lambda counts: encoded(counts, ".pgm"))),
    Kind("video, FFV1", True, _video(".mkv", "FFV1", cv2.CAP_FFMPEG)),
    Kind("sqlite3, mono16", True, _bag(StoragePlugin.SQLITE3, lambda ns, counts: image(ns, counts, "mono16"))),
    Kind("mcap, 16UC1", True, _bag(StoragePlugin.MCAP, lambda ns, counts: image(ns, counts, "16UC1"))),
    Kind(
        "mcap, CompressedImage PNG",
        True,
        _bag(
            StoragePlugin.MCAP, lambda ns, counts: _compressed(ns, encoded(counts, ".png"), "mono16; png compressed ")
        ),
    ),
)
_SETTINGS = {
    "percentile": (),
    "fixed": ("--intensity-low", "7000", "--intensity-high", "7200"),
    "full": (),
}


@pytest.mark.slow
def test_settings_act_on_counts_of_every_source_alike(photographs: list[Photograph], tmp_path: Path) -> None:
    counts: list[Any] = [7000 + photograph[..., 1].astype(np.uint16) * 2 for photograph in photographs[:2]]
    seen: dict[str, list[FeaturesRecord]] = {}
    for number, kind in enumerate(_COUNTS):
        source = kind.write(tmp_path / f"source{number}", counts)
        for mode, limits in _SETTINGS.items():
            output = tmp_path / f"{mode}{number}"
            found = _processed(source, output, "--intensity-range", mode, *limits)
            for one, other in zip(seen.setdefault(mode, found), found, strict=True):
                np.testing.assert_array_equal(one.features.keypoints, other.features.keypoints, err_msg=kind.name)
    numbers = {mode: len(found[0].features) for mode, found in seen.items()}
    # A span of 510 counts in 65536 is two grey levels: nothing to see.
    assert numbers["percentile"] == 300
    assert numbers["full"] == 0
    keypoints = [seen[mode][0].features.keypoints.numpy() for mode in ("percentile", "fixed")]
    assert keypoints[0].shape != keypoints[1].shape or not np.array_equal(*keypoints)
