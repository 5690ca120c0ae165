"""Decompression bombs: refused by header, or decoded only up to their announced size, without output."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import ImageError
from feature_frontend.image.headers import read_header
from feature_frontend.image.image_file import decode_stored
from feature_frontend.image.image_header import live_decoding_ms
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.system import c_stderr
from tests.conftest import REPOSITORY
from tests.image_files import damaged_corpus, encoded, jpeg_by_hand, png_by_hand, png_chunk
from tests.memory import peak_mib

Uint8Array = npt.NDArray[np.uint8]

_OPENCV = tuple(map(int, cv2.__version__.split(".")[:2]))
_LIVE_MS = live_decoding_ms(MAX_IMAGE_PIXELS)
_PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
_DC = (b"\1\2\3", 0, 0, 0, 0)
_AC = (b"\1", 1, 63, 0, 0)
_REFINED = (b"\1", 1, 63, 1, 0)


@functools.cache
def _hostile() -> dict[str, tuple[bytes, str]]:
    """Small files that are expensive, each with the reason to expect."""
    deep = zlib.compress(bytes(2**20))
    blocks = 875 * 875
    tables = png_chunk(b"PLTE", bytes(6)) * 20_000
    return {
        "16 bits of four samples": (png_by_hand(7000, 7000, 16, 6, deep + bytes(10_000)), "about 6272 ms"),
        "interlaced": (png_by_hand(7000, 7000, 8, 2, deep + bytes(10_000), interlaced=True), "px with 3 samples of 8"),
        "a palette of one bit": (
            png_by_hand(7000, 7000, 1, 3, deep + bytes(10_000), png_chunk(b"PLTE", bytes(6))),
            "px with 1 samples of 1 bits",
        ),
        "99 scans": (jpeg_by_hand(7000, 7000, [_DC, *[_AC] * 98], bytes(blocks // 8)), "99 scan"),
        "scans that refine": (jpeg_by_hand(7000, 7000, [_DC, *[_REFINED] * 20], bytes(blocks // 8)), "21 scan"),
        "plain, in many scans": (
            jpeg_by_hand(7000, 7000, [(b"\1", 0, 63, 0, 0)] * 99, bytes(blocks // 8), frame=0xC0),
            "99 scan",
        ),
        "coded by arithmetic": (jpeg_by_hand(4000, 4000, [_DC], bytes(4_000_000), frame=0xC9), "1 scan"),
        "20,000 palettes": (png_by_hand(64, 48, 8, 0, deep, tables), "more than 1352 parts"),
        "20,000 comments": (b"\xff\xd8\xff" + b"\xfe\0\2\xff" * 20_000, "more than 1078 parts"),
        "20,000 empty pieces": (
            png_by_hand(64, 48, 8, 0, deep, png_chunk(b"IDAT", b"") * 20_000),
            "more than .* parts",
        ),
    }


@pytest.mark.parametrize("name", _hostile())
def test_what_would_keep_the_decoder_is_refused_by_its_header(name: str) -> None:
    data, reason = _hostile()[name]
    before_mib = peak_mib()
    with pytest.raises(ImageError, match=reason):
        read_header(data, max_decoding_ms=_LIVE_MS)
    assert peak_mib() - before_mib < 20


@pytest.mark.parametrize(
    ("size", "sample", "suffix", "options"),
    [
        ((3648, 5472, 3), "u1", ".jpg", ()),
        ((3000, 4000), "u1", ".jpg", _PROGRESSIVE),
        ((1080, 1920, 3), "u1", ".jpg", _PROGRESSIVE),
        ((1944, 2592, 3), "u1", ".png", ()),
        ((3000, 4000), "u1", ".png", ()),
        ((1536, 2048), "u2", ".png", ()),
        ((1080, 1920, 3), "u2", ".png", ()),
    ],
)
def test_pictures_of_cameras_pass(size: tuple[int, ...], sample: str, suffix: str, options: tuple[int, ...]) -> None:
    # Blank, so that it is written fast; the bytes of a photograph are added behind its end, where they count as well.
    data = encoded(np.zeros(size, sample), suffix, *options) + bytes(size[0] * size[1] // 4)
    header = read_header(data, max_decoding_ms=_LIVE_MS)
    assert (header.height, header.width) == size[:2]


def test_who_raises_max_image_pixels_allows_for_longer_times() -> None:
    data, _ = _hostile()["a palette of one bit"]
    with pytest.raises(ImageError, match=r"662 ms .*max_image_pixels to 133000000"):
        read_header(data, max_decoding_ms=_LIVE_MS)
    assert read_header(data, max_decoding_ms=live_decoding_ms(133_000_000)).width == 7000
    assert read_header(data).width == 7000
    assert live_decoding_ms(1024) == _LIVE_MS


def test_what_follows_the_picture_is_not_inflated() -> None:
    rows = bytes((0, *range(64))) * 48
    data = png_by_hand(64, 48, 8, 0, zlib.compress(rows + bytes(2**24)))
    header = read_header(data)
    assert len(header.data) < 4000
    np.testing.assert_array_equal(decode_stored(header), np.tile(np.arange(64, dtype=np.uint8), (48, 1)))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("colour", "bits"),
    [
        *((0, bits) for bits in (1, 2, 4, 8, 16)),
        *((3, bits) for bits in (1, 2, 4, 8)),
        *((colour, bits) for colour in (2, 4, 6) for bits in (8, 16)),
    ],
)
def test_png_files_of_every_layout_are_decoded_as_they_were(colour: int, bits: int, interlaced: bool) -> None:
    palette = png_chunk(b"PLTE", np.random.default_rng(0).bytes(3 << min(bits, 8))) if colour == 3 else b""
    for width, height in ((1, 1), (3, 2), (61, 47)):
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        passes = [(8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1)]
        rows = bytearray()
        chance = np.random.default_rng(width)
        for step_x, step_y, x, y in passes if interlaced else [(1, 1, 0, 0)]:
            columns, lines = len(range(x, width, step_x)), len(range(y, height, step_y))
            for _ in range(lines if columns else 0):
                rows += bytes([chance.integers(0, 5)]) + chance.bytes((columns * samples * bits + 7) // 8)
        compressed = zlib.compress(bytes(rows))
        cut = len(compressed) // 2
        data = png_by_hand(
            *(width, height, bits, colour, compressed[cut:]),
            palette + png_chunk(b"IDAT", compressed[:cut]),
            interlaced=interlaced,
        )
        plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        stored = cv2.imdecode(np.frombuffer(read_header(data).data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert plain is not None
        np.testing.assert_array_equal(stored, plain)


_DECODE = """
import sys
from contextlib import suppress
import cv2, numpy as np
from feature_frontend.errors import ImageError
from feature_frontend.image.headers import read_header
from feature_frontend.image.image_file import decode_stored
from tests.image_files import damaged_corpus
taken = refused = 0
for data in damaged_corpus(int(sys.argv[2])):
    if sys.argv[1] == "plain":
        with suppress(cv2.error):
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        continue
    try:
        decode_stored(read_header(data))
        taken += 1
    except ImageError:
        refused += 1
print(taken, refused)
"""


def test_no_damaged_file_of_any_kind_makes_a_decoder_print() -> None:
    count = len(damaged_corpus(30))
    printed = {}
    for how in ("plain", "ours"):
        done = subprocess.run(
            [sys.executable, "-c", _DECODE, how, "30"], cwd=REPOSITORY, capture_output=True, check=True, timeout=120
        )
        printed[how] = done.stderr
    taken, refused = map(int, done.stdout.split())
    assert taken + refused == count
    assert min(taken, refused) > count // 20
    if _OPENCV < (4, 7):
        # It prints its own exceptions through C++, of kinds that no message holds.
        printed["ours"] = re.sub(rb"imdecode_\(''\): can't read .*\n\n?", b"", printed["ours"])
    assert printed["ours"] == b""
    # What the test is about: without any of it, they do.
    assert b"libpng error: " in printed["plain"]
    assert b"Corrupt JPEG data: " in printed["plain"]


@pytest.mark.skipif(sys.platform != "linux", reason="the variable stderr of glibc")
def test_what_others_print_while_something_is_decoded_goes_out_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    library = ctypes.CDLL(None)
    library.fputs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
    with c_stderr.decoders_are_quiet(), c_stderr.decoders_are_quiet():
        stream = ctypes.c_void_p.in_dll(library, "stderr")
        for line in (b"a driver's own words\n", b"Corrupt JPEG data: 7 extraneous bytes before marker 0xd9\n", b"last"):
            library.fputs(line, stream)
        print("Python's go out at once", file=sys.stderr, flush=True)
        assert capfd.readouterr().err == "Python's go out at once\n"
    library.fputs(b" words\n", ctypes.c_void_p.in_dll(library, "stderr"))
    assert capfd.readouterr().err == "a driver's own words\nlast words\n"


def test_numbers_of_plain_pnm_files_are_counted_not_listed(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    body = "\n".join(" ".join(map(str, row)) for row in grey)
    np.testing.assert_array_equal(decode_stored(read_header(f"P2\n4 3\n255\n{body}\n".encode())), grey)
    with pytest.raises(ImageError, match="the rest is missing"):
        read_header(f"P2\n4 3\n255\n{body}".removesuffix(" 11").encode())
    before_mib = peak_mib()
    with pytest.raises(ImageError, match="the rest is missing"):
        read_header(b"P2\n7000 7000\n255\n" + b"1 " * 4_000_000)
    assert peak_mib() - before_mib < 60
