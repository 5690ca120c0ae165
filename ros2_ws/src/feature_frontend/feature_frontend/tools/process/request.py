"""What is asked of `process` for one input, and what comes of it; all of it can be serialized as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

__all__ = ["Cut", "Outcome", "Part", "PieceDone", "Reporter", "Request", "Work"]


@dataclass(frozen=True)
class Request:
    """A job.

    Attributes:
        source: A bag, a video, a folder of images or a dataset: a path or, but for datasets, a URL that fsspec reads.
        output: Folder of the output; a path or a URL.
        settings: Of the front-end, by name.
        format: A key of `STORAGES`, or "parquet".
        namespace: Of the topics, absolute.
        topic: Image topic of a bag; None if it has only one.
        camera_info: Calibration file for all images; None for that of the source.
        frame_id: Frame of the headers; None for the source's own, or "camera".
        playback: Fields of `PlaybackSettings`.
        threads: Number of threads of torch and OpenCV.
        overwrite: Whether to replace a finished output.
        update: Whether to replace what was made from another input, or with other options, weights or code.
        piece_seconds: Length of the pieces that a long bag is processed in, s; None to process it as a whole.
        cache_bytes: Most bytes that copies of remote inputs may take on a machine.
        accept_fallback: Whether the fallback extractor will do; not on a cluster, whose workers must agree.
    """

    source: str
    output: str
    settings: dict[str, Any]
    format: str = "sqlite3"
    namespace: str = "/"
    topic: str | None = None
    camera_info: str | None = None
    frame_id: str | None = None
    playback: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    overwrite: bool = False
    update: bool = False
    piece_seconds: float | None = None
    cache_bytes: int = 50 << 30
    accept_fallback: bool = True


@dataclass(frozen=True)
class Part:
    """A piece of a bag, by positions of its images.

    Attributes:
        number: Of the piece, from 0.
        first: The first image to process, for warming up.
        begin: The first image whose results count.
        end: The image after the last one; None for the end of the bag.
        in_order: Whether the pieces of the bag are processed one after another, each from the state that the one before
            it ends with; `first` is then `begin`.
    """

    number: int
    first: int
    begin: int
    end: int | None
    in_order: bool = False


@dataclass(frozen=True)
class Work:
    """A unit of work for a scheduler: a whole input, one piece of it, or the joining of its pieces.

    Attributes:
        request: The input, and what to do with it. If it has `piece_seconds`, a whole input that is longer is only cut.
        part: The piece to process; None for a whole input.
        parts: All pieces; they are joined if `part` is None.
    """

    request: Request
    part: Part | None = None
    parts: tuple[Part, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a mapping for JSON."""
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Work:
        """From `to_json`."""
        part = found["part"]
        return Work(
            Request(**found["request"]),
            None if part is None else Part(**part),
            tuple(Part(**one) for one in found["parts"]),
        )


@dataclass(frozen=True)
class Cut:
    """An input that is to be done in pieces.

    Attributes:
        parts: The pieces, two or more.
        settings: For all of them, by name: "auto" is settled once.
    """

    parts: tuple[Part, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The result of a request.

    Attributes:
        output: The bag, or the folder of tables.
        sha256: Of topic, type, time and content of all its messages.
        images: Number of images by outcome: received, processed, refused.
        was_finished: Whether the same request had already finished the output.
        missing: What is lost from the source, one sentence each.
        again: Why a finished output was made again, such as "input.listing_sha256"; empty for a new one.
        joins: For a bag in parallel pieces, the number of tracks by what happened at the cuts: crossing, joined.
    """

    output: str
    sha256: str
    images: dict[str, int]
    was_finished: bool
    missing: list[str]
    again: list[str] = field(default_factory=list)
    joins: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PieceDone:
    """A piece is processed and kept."""

    number: int


class Reporter(Protocol):
    """Receives progress."""

    def done(self, images: int, *, earlier: bool = False) -> None:
        """Adds a number of processed images; `earlier`: processed by an earlier run."""

    def say(self, text: str) -> None:
        """Prints a line for the user."""
