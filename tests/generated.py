"""Examples that hypothesis makes up, by the thousand, and how it damages files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

__all__ = ["damaged_files", "for_each", "spoiled_parts"]

Example = TypeVar("Example")

# Examples that hypothesis keeps track of at a time: its own memory would hide a leak of ours.
_CHUNK = 500


def for_each(
    examples: st.SearchStrategy[Example], count: int, check: Callable[[Example], None], first_seed: int = 0
) -> None:
    """Calls `check` with `count` examples, drawn from `first_seed` on; a failing one is shrunk and shown."""
    for chunk in range(0, count, _CHUNK):

        @seed(first_seed + chunk)
        @settings(
            max_examples=min(_CHUNK, count - chunk),
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(examples)
        def check_chunk(example: Example) -> None:
            check(example)

        check_chunk()


def spoiled_parts(draw: st.DrawFn, *parts: str) -> set[str]:
    """Which parts of an example are wrong: none, one or two, so that each check comes to be the one that fails."""
    return draw(st.sets(st.sampled_from(parts), min_size=draw(st.integers(0, 2)), max_size=2))


@st.composite
def damaged_files(draw: st.DrawFn, files: Sequence[bytes]) -> bytes:
    """One of `files` with bytes overwritten, most of them in its header, parts repeated, or its end missing."""
    file = bytearray(draw(st.sampled_from(files)))
    damage = spoiled_parts(draw, "overwritten", "repeated", "cut off")
    if "overwritten" in damage:
        for _ in range(draw(st.integers(1, 8))):
            near = draw(st.sampled_from([40, 200, len(file) - 1]))
            file[draw(st.integers(0, min(near, len(file) - 1)))] = draw(st.integers(0, 255))
    if "repeated" in damage:
        begin, end = sorted(draw(st.tuples(st.integers(0, len(file)), st.integers(0, len(file)))))
        file[begin:begin] = file[begin:end] * draw(st.integers(1, 3))
    if "cut off" in damage:
        del file[draw(st.integers(0, len(file))) :]
    return bytes(file)
