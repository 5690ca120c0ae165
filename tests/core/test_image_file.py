"""Image files: every depth and channel count is read as stored, and damaged files are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_frontend.errors import FeatureFrontendError, ImageError
from feature_frontend.image.encodings import encoding_of, image_samples
from feature_frontend.image.headers import is_deep_grey
from feature_frontend.image.image_file import encode_file, read_image_file
from feature_frontend.image.intensity import INTENSITY_MODES, IntensityRange
from feature_frontend.system.files import readable_name
from tests.image_files import LOSSLESS, encoded, tiff, with_orientation
from tests.image_messages import raw_image

Uint8Array = npt.NDArray[np.uint8]

_OPENCV = tuple(map(int, cv2.__version__.split(".")[:2]))
_LAYOUTS = [
    (suffix, sample, channels)
    for suffix, (samples, counts) in LOSSLESS.items()
    for sample in samples
    for channels in counts
    # Refused by OpenCV before 4.6.
    if _OPENCV >= (4, 6) or (sample, channels) != ("f8", 3)
]


def _samples(photograph: Uint8Array, sample: str, channels: int) -> npt.NDArray[Any]:
    """(47, 61[, C]) samples that use the type: negative ones, large ones, fractions."""
    cut = photograph[100:147, 200:261].astype(np.float64)
    if sample[0] == "f":
        deep = cut / 255 * 3 - 1
    else:
        info = np.iinfo(sample)
        deep = cut / 255 * (info.max - info.min) + info.min
    deep = np.dstack([deep, deep[..., :1]])[..., :channels]
    return deep.astype(sample)[..., 0] if channels == 1 else deep.astype(sample)


def _read(path: Path, data: bytes) -> npt.NDArray[Any]:
    path.write_bytes(data)
    return read_image_file(path).samples


@pytest.mark.parametrize(("suffix", "sample", "channels"), _LAYOUTS)
def test_samples_come_back_as_stored_and_go_through_a_message(
    suffix: str, sample: str, channels: int, tmp_path: Path, photographs: list[Uint8Array]
) -> None:
    samples = _samples(photographs[0], sample, channels)
    found = _read(tmp_path / f"0{suffix}", encoded(samples, suffix))
    expected = samples if samples.ndim == 2 else samples[..., :3]
    if channels > 1 and sample not in {"u1", "u2", "f4"}:
        expected = expected.astype(np.float32)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    # The same samples in a message give the same grey levels: whatever the source, whatever the settings.
    encoding, pixels = encoding_of(found)
    in_message = image_samples(raw_image(pixels, encoding, padding=5))
    for mode in INTENSITY_MODES:
        intensity = IntensityRange(mode, 0, 9)
        np.testing.assert_array_equal(intensity.to_grey_levels(in_message), intensity.to_grey_levels(found))


def test_palettes_bits_and_opacity(tmp_path: Path, photographs: list[Uint8Array]) -> None:
    grey = photographs[0][:48, :64, 1]
    two_levels = np.where(grey > 99, 255, 0).astype(np.uint8)
    png = cv2.imencode(".png", two_levels, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
    np.testing.assert_array_equal(_read(tmp_path / "bits.png", png), two_levels)
    np.testing.assert_array_equal(_read(tmp_path / "bits.pbm", encoded(two_levels, ".pbm")), two_levels)
    twelve = grey.astype(np.uint16) * 16
    bits = "".join(f"{value:012b}" for value in twelve.ravel())
    packed = tiff(twelve, bits=12, pixels=int(bits, 2).to_bytes(len(bits) // 8, "big"))
    try:
        found = _read(tmp_path / "12.tiff", packed)
    except ImageError:
        assert _OPENCV < (4, 6)
    else:
        np.testing.assert_array_equal(IntensityRange().to_grey_levels(found), IntensityRange().to_grey_levels(twelve))
    deep = np.arange(48 * 64, dtype=np.float32).reshape(48, 64)
    deep[3, 4], deep[5, 6] = np.nan, np.inf
    np.testing.assert_array_equal(_read(tmp_path / "nan.tiff", tiff(deep)), deep)
    large = np.arange(48 * 64, dtype=np.uint32).reshape(48, 64) * 1_000_000
    if _OPENCV >= (5, 0):
        np.testing.assert_array_equal(_read(tmp_path / "u4.tiff", tiff(large)), large.astype(np.float64))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_convention_an_orientation_in_the_file_is_not_applied(
    suffix: str, orientation: int, tmp_path: Path, photographs: list[Uint8Array]
) -> None:
    rgb = photographs[0][:48, :64]
    plain = encoded(rgb, suffix)
    tagged = (
        tiff(rgb, tags=((274, 3, orientation),)) if suffix == ".tiff" else with_orientation(plain, suffix, orientation)
    )
    expected = _read(tmp_path / f"plain{suffix}", plain)
    (tmp_path / f"tagged{suffix}").write_bytes(tagged)
    found = read_image_file(tmp_path / f"tagged{suffix}")
    assert found.orientation == orientation
    np.testing.assert_array_equal(found.samples, expected)
    deep = photographs[0][:48, :64, 1].astype(np.uint16) * 256
    if suffix == ".tiff":
        np.testing.assert_array_equal(_read(tmp_path / "deep.tiff", tiff(deep, tags=((274, 3, orientation),))), deep)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".pgm", ".ppm", ".bmp", ".webp", ".tiff", "_late.tiff"])
def test_no_prefix_of_a_file_passes_for_a_whole_one(suffix: str, tmp_path: Path, photographs: list[Uint8Array]) -> None:
    rgb = photographs[0][:16, :24]
    grey = suffix == ".pgm"
    data = tiff(rgb) if suffix == "_late.tiff" else encoded(rgb[..., 1] if grey else rgb, suffix)
    if suffix == ".tiff":  # as OpenCV writes it: compressed, the directory where it likes
        data = cv2.imencode(".tiff", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()
    path = tmp_path / f"0{suffix}"
    # Behind the pixels a file may hold what no picture needs.
    whole = _read(path, data)
    refused = 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            found = read_image_file(path).samples
        except ImageError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, whole, err_msg=f"{length} of {len(data)} bytes")
    assert refused > 0.9 * len(data)


def test_a_jpeg_file_that_is_filled_up_or_damaged_is_refused(tmp_path: Path, photographs: list[Uint8Array]) -> None:
    data = encoded(photographs[0], ".jpg")
    half = data[: len(data) // 2]
    thumbnail = encoded(photographs[0][:48, :64], ".jpg")
    for filled in (half + bytes(len(data) - len(half)), half + thumbnail, half + b"\xff\x02" + data[len(half) :]):
        with pytest.raises(ImageError, match=r"the rest is missing|is damaged at byte"):
            _read(tmp_path / "0.jpg", filled)
    # A second picture behind the first, as phones have it, is no damage.
    whole = _read(tmp_path / "0.jpg", data)
    np.testing.assert_array_equal(_read(tmp_path / "0.jpg", data + half), whole)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_ends_in_an_image_or_in_an_image_error(data: st.DataObject, tmp_path_factory: Any) -> None:
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".pgm", ".bmp", ".webp", ".tiff"]))
    grey = np.add.outer(np.arange(24), np.arange(32)).astype(np.uint8) * 4
    file = bytearray(encoded(grey if suffix == ".pgm" else np.dstack([grey] * 3), suffix))
    for place in data.draw(st.lists(st.integers(0, min(len(file), 400) - 1), min_size=1, max_size=4)):
        file[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    with suppress(ImageError):
        assert _read(path, bytes(file)).ndim in {2, 3}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "begins with nothing.* JPEG, PNG, TIFF, PNM, BMP, WebP"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic", "HEIF"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"P5\n6000 6000\n255\n", "ends after 17 bytes"),
        (encoded(np.zeros((9, 9), np.uint8), ".jpg").replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c"), "12 bits"),
        (tiff(np.zeros((9, 9, 3), np.uint16), planar=True), "planes"),
    ],
)
def test_the_reason_says_what_lies_there(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=reason):
        _read(tmp_path / "0.png", content)


def test_what_is_no_file_to_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image_file(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="regular file"):
        read_image_file(tmp_path / "pipe.png")
    assert not is_deep_grey(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(encoded(np.zeros((50, 60), np.uint8), ".png"))
    with pytest.raises(ImageError, match=r"60x50 px.* at most 2999 px"):
        read_image_file(tmp_path / "large.png", 2999)


def test_pages_are_counted(tmp_path: Path) -> None:
    grey = np.zeros((9, 9), np.uint16)
    (tmp_path / "0.tiff").write_bytes(tiff(grey, directories=3))
    assert read_image_file(tmp_path / "0.tiff").pages == 3
    (tmp_path / "0.tiff").write_bytes(tiff(grey) + b"ImageJ=1.47u\nimages=3997\nframes=3997\n\0")
    assert read_image_file(tmp_path / "0.tiff").pages == 3997


def test_a_name_that_is_no_utf8_is_read_written_and_printed(tmp_path: Path, photographs: list[Uint8Array]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfc\xb5r.png"))
    encode_file(path, photographs[0])
    np.testing.assert_array_equal(read_image_file(path).samples, photographs[0])
    assert readable_name(path.name) == r"f\xfc\xb5r.png"
    assert readable_name("für.png") == "für.png"
    assert str(FeatureFrontendError(f"no {path.name}")) == r"no f\xfc\xb5r.png"
    code = "import sys; from feature_frontend.system.files import print_any_name; print_any_name(); print(sys.argv[1])"
    printed = subprocess.run([sys.executable, "-c", code, path.name], capture_output=True, check=True)
    assert printed.stdout.strip() == rb"f\xfc\xb5r.png"
