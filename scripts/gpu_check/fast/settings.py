"""The timed settings: networks, trackers, matchers, sizes, budgets and number formats; most informative first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.images import Frames
from benchmarks.types import Canvas, Size
from feature_frontend.settings import Settings
from scripts.gpu_check.models import settings_for
from scripts.gpu_check.real_frames import frames_of
from scripts.gpu_check.step import Context

__all__ = ["FRAME_NS", "NETWORKS", "PRECISIONS", "Timed", "at_turn", "frames_for", "headline", "settings_in_order"]

FRAME_NS = 33_333_333
PRECISIONS = ("float16", "float32")
NETWORKS = ("aliked-n16", "aliked-t16", "silk-vggnp-mu", "aliked-n32", "dotlet")
_FRAME_COUNT = 8


@dataclass(frozen=True)
class Timed:
    """A front-end on frames of one size."""

    network: str
    tracker: str
    matcher: str
    size: Size
    budget: int
    precision: str

    @property
    def name(self) -> str:
        """Name in tables and lists."""
        return f"{self.model} {self.tracker} {self.where} {self.precision}"

    @property
    def model(self) -> str:
        """The network, and the matcher unless it is mnn."""
        return self.network if self.matcher == "mnn" else f"{self.network}+{self.matcher}"

    @property
    def where(self) -> str:
        """Size and budget."""
        return f"{self.size[0]}x{self.size[1]} {self.budget}"

    def settings(self, context: Context) -> Settings:
        """The front-end's settings; images are not downscaled."""
        return settings_for(
            context,
            self.network,
            tracker=self.tracker,
            matcher=self.matcher,
            max_num_keypoints=self.budget,
            precision=self.precision,
            max_pixels=max(2_100_000, self.size[0] * self.size[1]),
        )


def headline(context: Context, precision: str = "float16", tracker: str = "chain") -> Timed:
    """aliked-n16 at 640x480 with 1000 points; in a rehearsal, a setting that a CPU computes in tenths of a second."""
    size, budget = sizes(context)[0], budgets(context)[0]
    return Timed("aliked-t16" if context.is_rehearsal else "aliked-n16", tracker, "mnn", size, budget, precision)


def settings_in_order(context: Context, networks: Sequence[str], *, has_lightglue: bool) -> list[Timed]:
    """All settings: the headline, then those that differ from it in one value, then in two, and so on."""
    known = [network for network in NETWORKS if network in networks]
    models = [(network, tracker, "mnn") for network in known for tracker in ("chain", "persistent")]
    if has_lightglue and "aliked-n16" in known:
        models.append(("aliked-n16", "chain", "lightglue"))
    if context.is_rehearsal:
        models.sort(key=lambda each: (each[0] != "silk-vggnp-mu", each[0] != "aliked-t16"))
    choices: list[Sequence[tuple[object, ...]]] = [
        models,
        [(size,) for size in sizes(context)],
        [(budget,) for budget in budgets(context)],
        [(precision,) for precision in PRECISIONS],
    ]
    # A model counts as one value; persistent and the other format directly follow the headline.
    ranked = sorted(
        product(*(list(enumerate(each)) for each in choices)), key=lambda each: sum(number > 0 for number, _ in each)
    )
    return [Timed(*model, *size, *budget, *precision) for model, size, budget, precision in map(_values, ranked)]  # type: ignore[arg-type]


def sizes(context: Context) -> tuple[Size, ...]:
    """The timed sizes, the headline's first."""
    return ((160, 128), (320, 192)) if context.is_rehearsal else ((640, 480), (1920, 1080))


def budgets(context: Context) -> tuple[int, ...]:
    """The timed budgets, the headline's first."""
    return (100, 200) if context.is_rehearsal else (1000, 4096)


def frames_for(context: Context, size: Size) -> Frames:
    """Real frames of this size."""
    frames = frames_of(context, "tum", _FRAME_COUNT, size)
    assert frames is not None, "the tests' own frames are always there"
    return frames


def at_turn(frames: Frames, number: int) -> Canvas:
    """Forwards and backwards in alternation, without jumps: 0 1 2 ... 2 1 0 1 2 ..."""
    count = len(frames)
    if count == 1:
        return frames.at(0)
    place = number % (2 * count - 2)
    return frames.at(min(place, 2 * count - 2 - place))


def _values(ranked: Sequence[tuple[int, tuple[object, ...]]]) -> list[tuple[object, ...]]:
    return [value for _, value in ranked]
