"""The mask of each frame: from a file, from the topic `mask`, or the substitute for a missing one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import MaskError
from feature_frontend.image.image_file import read_mask_file
from feature_frontend.image.preprocessing import check_mask
from feature_frontend.runtime.mask_sync import PairedMask
from feature_frontend.settings import NodeSettings
from feature_frontend.types import FrameResult

__all__ = ["FrameMask", "FrameMasks", "MaskCounts", "TopicMask"]

Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TopicMask:
    """The content of a message on the topic `mask`.

    Attributes:
        pixels: (H, W) uint8, 0 = do not use; None if the message holds no valid mask.
        problem: Why it holds none.
    """

    pixels: Uint8Array | None
    problem: str = ""

    @property
    def num_bytes(self) -> int:
        """Memory in use."""
        return 0 if self.pixels is None else self.pixels.nbytes


@dataclass
class MaskCounts:
    """Number of frames by the mask they got from the topic.

    Attributes:
        own: The frame's own mask.
        last: An earlier mask.
        none: No mask.
        refused: Frames refused because their mask was missing.
    """

    own: int = 0
    last: int = 0
    none: int = 0
    refused: int = 0

    def __str__(self) -> str:
        """The text for /diagnostics."""
        return f"{self.own} own, {self.last} of an earlier image, {self.none} none, {self.refused} refused"


@dataclass(frozen=True)
class FrameMask:
    """A frame's mask.

    Attributes:
        mask: (H, W) uint8, 0 = do not use; None to use all.
        note: Remark for the status; empty for none.
    """

    mask: Uint8Array | None
    note: str

    def annotate(self, result: FrameResult) -> FrameResult:
        """Returns `result` with the note added to its reason."""
        return replace(result, reason="; ".join(part for part in (result.reason, self.note) if part))


class FrameMasks:
    """Chooses the mask of each frame. Not thread-safe: the thread that processes frames calls it."""

    def __init__(self) -> None:
        self.counts = MaskCounts()
        self._path = ""
        self._of_file: Uint8Array | None = None

    def use_file(self, path: str, mask: Uint8Array | None) -> None:
        """Sets the mask of the file `mask_path`, already read by the caller."""
        self._path, self._of_file = path, mask

    def of_frame(
        self, paired: PairedMask[TopicMask] | None, size: tuple[int, int], settings: NodeSettings
    ) -> FrameMask:
        """The mask of an image.

        Args:
            paired: The mask from the topic for this image; None without the topic.
            size: (height, width) of the image, px.
            settings: Its `mask_` parameters are used.

        Raises:
            SettingsError: The file `mask_path` can no longer be read.
            MaskError: A mask is malformed or differs in size from the image, or it is missing and `mask_missing` is
                refuse.
        """
        if settings.mask_path != self._path:
            path, max_pixels = settings.mask_path, settings.max_image_pixels
            self.use_file(path, read_mask_file(path, max_pixels) if path else None)
        of_file = self._of_file
        if of_file is not None:
            of_file = check_mask(of_file, *size, name=f"the mask {self._path}")
        if paired is None:
            return FrameMask(of_file, "")
        found, note = self._of_topic(paired, size, settings)
        if found is None:
            return FrameMask(of_file, note)
        if found.pixels is None:
            raise MaskError(found.problem)
        of_topic = check_mask(found.pixels, *size, name="the mask on topic mask")
        return FrameMask(of_topic if of_file is None else np.minimum(of_file, of_topic), note)

    def _of_topic(
        self, paired: PairedMask[TopicMask], size: tuple[int, int], settings: NodeSettings
    ) -> tuple[TopicMask | None, str]:
        """The mask for a frame, and the remark for its status."""
        if not paired.cause:
            self.counts.own += 1
            return paired.mask, ""
        if settings.mask_missing == "refuse":
            self.counts.refused += 1
            raise MaskError(
                f"{paired.cause}, and parameter mask_missing is 'refuse'; raise mask_timeout_ms, or choose last or none"
            )
        last = paired.mask
        # A mask of another size belongs to another camera or publisher: no reason to refuse this image.
        fits = last is not None and last.pixels is not None and last.pixels.shape == size
        if settings.mask_missing == "last" and fits and paired.age_ms <= settings.mask_max_age_ms:
            self.counts.last += 1
            return (
                last,
                f"{paired.cause}: used that of {paired.age_ms:.0f} ms before ({self.counts.last} so far)",
            )
        self.counts.none += 1
        return None, f"{paired.cause}: used none ({self.counts.none} so far)"
