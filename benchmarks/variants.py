"""Compares the variants of one network: whether they compute the same, and which one is faster.

An engine's name is "network variant", as in "aliked-n16 fast"; a name without a space has no variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.agreement import POSITION_PX, Agreement, compare_found
from benchmarks.engines.extraction import Found
from benchmarks.ratios import CONFIDENCE, Ratio, compare
from benchmarks.types import Canvas, Table, Timing

__all__ = ["agreement_table", "agreements_of_variants", "ratio_table", "ratios_of_variants"]


_OURS = ("plain", "fast")


class Variant(Protocol):
    """An engine with comparable results."""

    @property
    def name(self) -> str:
        """Network and variant."""

    def __call__(self, image: Canvas) -> Any:
        """Runs the engine."""

    def found(self, result: Any) -> Found:
        """The features of a result."""


def agreements_of_variants(engines: Sequence[Variant], image: Canvas) -> dict[str, Agreement]:
    """Compares each network's variants with its plain one, or with the fast one if the plain one is not run.

    Raises:
        DisagreementError: A variant's results differ.
    """
    by_name = {engine.name: engine for engine in engines}
    agreements = {}
    for network in dict.fromkeys(engine.name.rpartition(" ")[0] for engine in engines if " " in engine.name):
        variants = [engine for name, engine in by_name.items() if name.startswith(f"{network} ")]
        reference, *others = sorted(variants, key=lambda engine: _rank(engine.name))
        expected = reference.found(reference(image))
        for other in others:
            agreement = compare_found(expected, other.found(other(image)))
            agreement.check(other.name)
            agreements[f"{other.name} vs {reference.name.rpartition(' ')[2]}"] = agreement
    return agreements


def ratios_of_variants(timings: dict[str, Timing]) -> dict[str, Ratio]:
    """A peer's time over ours for each network's variants, and the plain one's over the fast one's."""
    kinds: dict[str, list[str]] = {}
    for name in timings:
        network, separator, kind = name.rpartition(" ")
        if separator:
            kinds.setdefault(network, []).append(kind)
    return {
        f"{network}: {slow} / {ours}": compare(timings[f"{network} {slow}"], timings[f"{network} {ours}"])
        for network, own in kinds.items()
        for slow in sorted(own, key=lambda kind: kind in _OURS)
        for ours in reversed(_OURS)
        if ours in own and slow not in {ours, "fast"}
    }


def _rank(name: str) -> int:
    """Ours come first, the plain one before the fast one."""
    kind = name.rpartition(" ")[2]
    return _OURS.index(kind) if kind in _OURS else len(_OURS)


def ratio_table(title: str, ratios: dict[str, Ratio], timings: dict[str, Timing]) -> Table:
    """The named ratios of these timings."""
    rows = []
    for name, ratio in ratios.items():
        network, _, pair = name.partition(": ")
        slow, _, ours = pair.partition(" / ")
        slower, faster = (timings[f"{network} {kind}"].samples_ms for kind in (slow, ours))
        won = sum(one > other for one, other in zip(slower, faster, strict=True))
        interval = "-" if ratio.low is None else f"{ratio.low:.2f} to {ratio.high:.2f}"
        rows.append((name, f"{ratio.of_rounds:.2f}", interval, f"{ratio.of_medians:.2f}", f"{won} of {len(faster)}"))
    columns = ("time / time", "median of rounds", f"{CONFIDENCE:.0%} interval", "of medians", "rounds won")
    note = (
        "Above 1 the second of the two is the faster. The interval is that of the median of the rounds' ratios, by the "
        "sign test."
    )
    return Table(title, columns, tuple(rows), note)


def agreement_table(agreements: dict[str, Agreement]) -> Table:
    """Agreement of each pair of engines."""
    rows = tuple(
        (
            name,
            f"{agreement.strongest_fraction:.1%}",
            f"{agreement.fraction:.1%}",
            f"{agreement.median_distance_px:.1e}",
            f"{agreement.median_cosine:.5f}",
        )
        for name, agreement in agreements.items()
    )
    columns = ("engine vs reference", "its better half shared", "reference's shared", "median px", "median cosine")
    note = (
        f"Keypoints within {POSITION_PX} px on the first frame, before timing. kornia suppresses non-maxima in one "
        "round, the authors and this project in three: the same network, but other points near stronger ones."
    )
    return Table("Do they compute the same?", columns, rows, note)
