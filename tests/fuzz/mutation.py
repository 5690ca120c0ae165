"""Almost valid inputs: mutations of real ones."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

__all__ = ["Mutator"]

_NUMBER = re.compile(rb"-?\d[\d.]*(?:[eE][-+]?\d+)?")
_NUMBERS = (b"0", b"-1", b"1e308", b"1e-400", b"nan", b"-inf", b"4294967296", b"9" * 40, b"0x10", b"1" * 5000)
_LENGTHS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1)
_MOST_STEPS = 6


class Mutator:
    """Changes inputs: bits, lengths that lie, parts lost, repeated or taken from another, words of the format.

    Args:
        seeds: Inputs to take parts from; may grow.
        tokens: Words of the format.
        most: Bytes of the longest result.
    """

    def __init__(self, seeds: Sequence[bytes], tokens: Sequence[bytes], most: int) -> None:
        self._seeds, self._most = seeds, most
        self._tokens = (*tokens, b"\0", b"\n", b"\x1b[2J", b"\xff" * 8, b"A" * 2000)
        self._steps = (
            *(self._bit, self._byte, self._length, self._length, self._remove, self._repeat, self._splice),
            *(self._token, self._token, self._number, self._cut),
        )

    def __call__(self, data: bytes, chance: random.Random) -> bytes:
        """One to six changes, mostly few."""
        changed = bytearray(data)
        for _ in range(min(1 + int(chance.expovariate(0.7)), _MOST_STEPS)):
            chance.choice(self._steps)(changed, chance)
            if not changed:
                changed += chance.randbytes(chance.randrange(1, 16))
        return bytes(changed[: self._most])

    @staticmethod
    def _place(data: bytearray, chance: random.Random) -> int:
        """Half of them where the structure of a file is: near its ends."""
        near = chance.choice((len(data), len(data), min(len(data), 64), min(len(data), 1000)))
        place = chance.randrange(near)
        return place if chance.random() < 0.7 else len(data) - 1 - place

    def _span(self, data: bytearray, chance: random.Random) -> tuple[int, int]:
        begin = self._place(data, chance)
        return begin, min(begin + int(2 ** chance.uniform(0, 12)), len(data))

    def _bit(self, data: bytearray, chance: random.Random) -> None:
        data[self._place(data, chance)] ^= 1 << chance.randrange(8)

    def _byte(self, data: bytearray, chance: random.Random) -> None:
        data[self._place(data, chance)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))

    def _length(self, data: bytearray, chance: random.Random) -> None:
        size, order = chance.choice((2, 4, 4, 8)), chance.choice(("little", "big"))
        begin = self._place(data, chance)
        old = int.from_bytes(data[begin : begin + size], order)
        value = chance.choice((chance.choice(_LENGTHS), len(data), old + chance.randint(-4, 4), old * 2, old << 16))
        data[begin : begin + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, order)

    def _remove(self, data: bytearray, chance: random.Random) -> None:
        begin, end = self._span(data, chance)
        del data[begin:end]

    def _repeat(self, data: bytearray, chance: random.Random) -> None:
        begin, end = self._span(data, chance)
        times = min(chance.choice((1, 1, 2, 50, 1000)), self._most // (end - begin) + 1)
        data[begin:begin] = data[begin:end] * times

    def _splice(self, data: bytearray, chance: random.Random) -> None:
        other = bytearray(chance.choice(self._seeds) or b"\0")
        (begin, end), at = self._span(other, chance), self._place(data, chance)
        data[at : at + chance.choice((0, end - begin))] = other[begin:end]

    def _token(self, data: bytearray, chance: random.Random) -> None:
        token, at = chance.choice(self._tokens), self._place(data, chance)
        data[at : at + chance.choice((0, len(token)))] = token

    @staticmethod
    def _number(data: bytearray, chance: random.Random) -> None:
        found = list(_NUMBER.finditer(data[:20_000]))
        if found:
            begin, end = chance.choice(found).span()
            data[begin:end] = chance.choice(_NUMBERS)

    def _cut(self, data: bytearray, chance: random.Random) -> None:
        del data[self._place(data, chance) :]
