"""PNG files: reads the header, and limits the decompression of the pixels to the declared size.

libpng decompresses everything, even data after the picture, and prints a line for each invalid chunk.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from feature_frontend.errors import DamagedImageError, ImageError
from feature_frontend.image.image_header import ImageHeader, Limits, check_part_count, cut_off, exif_orientation

__all__ = ["PNG_SIGNATURE", "read_png"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Maximum expansion of one byte by Deflate; a pixel has at least one bit.
_MOST_INFLATION = 1032
_PIXELS_PER_BYTE = 8 * _MOST_INFLATION
# Bytes decompressed at a time, and the maximum length of an uncompressed block.
_PIECE, _BLOCK = 2**16, 2**16 - 1
# Adler-32, and the rest of the last block.
_CHECKSUM_BYTES = 64
# Colour types, with samples per pixel and allowed bits per sample.
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_LAYOUTS = {
    _GREY: (1, {1, 2, 4, 8, 16}),
    _COLOUR: (3, {8, 16}),
    _PALETTE: (1, {1, 2, 4, 8}),
    _GREY_ALPHA: (2, {8, 16}),
    _COLOUR_ALPHA: (4, {8, 16}),
}
# Adam7: first column and row, column step and row step of each pass.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_ONE_PASS = ((0, 0, 1, 1),)
# ns: per byte decompressed and filtered, per output byte, per interlaced pixel.
# docs/image_input.md has the measurements.
_NS_PER_INFLATED_BYTE, _NS_PER_BYTE, _NS_PER_INTERLACED_PIXEL = 12.0, 4.0, 12.0


@dataclass
class _Chunks:
    """The chunks of a file that a decoder needs.

    Attributes:
        header: Content of IHDR.
        palettes: Contents of all PLTE chunks.
        pixels: Contents of all IDAT chunks.
        orientation: EXIF orientation.
    """

    header: bytes = b""
    palettes: list[bytes] = field(default_factory=list)
    pixels: list[bytes] = field(default_factory=list)
    orientation: int = 1


def read_png(data: bytes, limits: Limits) -> ImageHeader:
    """Removes chunks that the picture does not need, and limits the decompression of the rest.

    Texts and colour profiles are compressed too, and a decoder decompresses them; animations allocate frames. If the
    pixel data could decompress to more than the picture, they are decompressed here up to its size and passed on
    uncompressed, so that they are decompressed only once.

    Raises:
        DamagedImageError: The file is truncated or damaged.
        ImageError: It is not a valid PNG file, or exceeds `limits`.
        struct.error: The file is truncated.
    """
    chunks = _read_chunks(data)
    header = chunks.header
    width, height, bits, colour = struct.unpack_from(">IIBB", header)
    samples, depths = _LAYOUTS.get(colour, (0, set()))
    if len(header) != 13 or bits not in depths or header[10:12] != b"\0\0" or header[12] > 1:
        raise ImageError(
            f"PNG file has the header {header[:13].hex(' ')}; expected one of the layouts that PNG defines"
        )
    limits.check_size(height, width)
    limits.check_density(height, width, len(data), _PIXELS_PER_BYTE)
    is_interlaced = header[12] == 1
    inflated = _inflated_bytes(width, height, samples * bits, is_interlaced=is_interlaced)
    given = width * height * (3 if colour == _PALETTE else samples) * max(bits // 8, 1)
    interlaced = width * height if is_interlaced else 0
    ns = _NS_PER_INFLATED_BYTE * inflated + _NS_PER_BYTE * given + _NS_PER_INTERLACED_PIXEL * interlaced
    limits.check_decoding(ns * 1e-6, f"PNG file of {width}x{height} px with {samples} samples of {bits} bits")
    file = [PNG_SIGNATURE, *_chunk(b"IHDR", [header])]
    if colour == _PALETTE:
        # For other colour types a palette is only a hint, and is removed.
        if [len(palette) in range(3, 3 * 256 + 1, 3) for palette in chunks.palettes] != [True]:
            raise _damaged(data, f"its palettes have {[len(palette) for palette in chunks.palettes[:9]]} bytes")
        file += _chunk(b"PLTE", [chunks.palettes[0][: 3 << bits]])
    compressed = b"".join(chunks.pixels)
    is_bounded = len(compressed) * _MOST_INFLATION < 2 * inflated
    file += _chunk(b"IDAT", [compressed] if is_bounded else _stored(data, compressed, inflated))
    return ImageHeader(height, width, b"".join([*file, *_chunk(b"IEND", [])]), chunks.orientation)


def _read_chunks(data: bytes) -> _Chunks:
    chunks = _Chunks()
    offset, count = len(PNG_SIGNATURE), 0
    kind = b""
    while kind != b"IEND":
        count += 1
        check_part_count(count, len(data))
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            raise cut_off(len(data))
        content = data[offset + 8 : end - 4]
        # The decoder would detect it too, but print a line for each frame.
        if data[end - 4 : end] != struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))):
            raise _damaged(data, f"the checksum of its chunk {kind!r} is wrong")
        if (count == 1) != (kind == b"IHDR"):
            raise ImageError(f"PNG file has the chunk {kind!r} as number {count}; expected IHDR once, at the beginning")
        if kind == b"IHDR":
            chunks.header = content
        elif kind == b"PLTE":
            chunks.palettes.append(content)
        elif kind == b"IDAT":
            chunks.pixels.append(content)
        elif kind == b"eXIf":
            chunks.orientation = exif_orientation(content)
        elif kind[0] & 0x20 == 0 and kind != b"IEND":
            raise ImageError(
                f"PNG file has the chunk {kind!r}, which no picture has; expected IHDR, PLTE, IDAT and IEND"
            )
        offset = end
    return chunks


def _inflated_bytes(width: int, height: int, bits_per_pixel: int, *, is_interlaced: bool) -> int:
    """Decompressed size of all rows, each with its filter byte."""
    total = 0
    for column, row, column_step, row_step in _PASSES if is_interlaced else _ONE_PASS:
        columns, rows = -(-(width - column) // column_step), -(-(height - row) // row_step)
        if columns > 0 and rows > 0:
            total += ((columns * bits_per_pixel + 7) // 8 + 1) * rows
    return total


def _stored(data: bytes, compressed: bytes, size: int) -> list[bytes]:
    """`size` decompressed bytes as an uncompressed zlib stream, in parts; ignores anything after them."""
    inflating = zlib.decompressobj()
    # The zlib header, then uncompressed Deflate blocks, each with its length and the complement of the length.
    stored, missing, checksum = [b"\x78\x01"], size, 1
    rest, position = b"", 0
    try:
        while missing and not inflating.eof:
            if not rest:
                rest, position = compressed[position : position + _PIECE], position + _PIECE
            is_last = position >= len(compressed)
            block = inflating.decompress(rest, min(missing, _BLOCK))
            rest = inflating.unconsumed_tail
            if block:
                missing -= len(block)
                checksum = zlib.adler32(block, checksum)
                stored += (struct.pack("<BHH", not missing, len(block), len(block) ^ 0xFFFF), block)
            elif is_last:
                break
        # Read up to the checksum after the last byte; one more byte would be beyond the picture.
        inflating.decompress(rest + compressed[position : position + _CHECKSUM_BYTES], 1)
    except zlib.error as error:
        raise _damaged(data, f"its pixels cannot be inflated ({error})") from error
    if missing:
        raise _damaged(data, f"{missing} of {size} bytes of its pixels are missing")
    stored.append(struct.pack(">I", checksum))
    return stored


def _chunk(kind: bytes, content: list[bytes]) -> list[bytes]:
    """A chunk in parts, to be joined only once."""
    checksum = zlib.crc32(kind)
    for part in content:
        checksum = zlib.crc32(part, checksum)
    return [struct.pack(">I", sum(map(len, content))), kind, *content, struct.pack(">I", checksum)]


def _damaged(data: bytes, what: str) -> DamagedImageError:
    return DamagedImageError(f"PNG file of {len(data)} bytes is damaged: {what}")
