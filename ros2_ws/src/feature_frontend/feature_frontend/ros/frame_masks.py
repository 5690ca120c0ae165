"""The mask of each frame: that of a file, that of the topic `mask`, or what stands in for one that is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image

from feature_frontend.errors import ImageError, MaskError
from feature_frontend.frontend import FrameResult
from feature_frontend.mask_file import read_mask_file
from feature_frontend.mask_pairing import MaskPairing
from feature_frontend.preprocessing import check_mask
from feature_frontend.ros.image_conversion import image_to_array
from feature_frontend.ros.message_encoding import stamp_to_ns
from feature_frontend.settings import NodeSettings

__all__ = ["FrameMask", "FrameMasks", "MaskCounts"]

# A mask waits for as long as its image waits; 300 are ten seconds of a camera whose frames are all kept.
_MOST_MASKS = {"newest": 16, "every_frame": 300}
_ENCODINGS = ("mono8", "8UC1")
_MS_PER_S = 1e3
Uint8Array = npt.NDArray[np.uint8]


@dataclass
class MaskCounts:
    """Frames by the mask that the topic gave them.

    Attributes:
        own: Their own.
        last: An earlier one.
        none: None.
        refused: Frames refused because theirs was missing.
    """

    own: int = 0
    last: int = 0
    none: int = 0
    refused: int = 0


@dataclass(frozen=True)
class FrameMask:
    """A frame's mask.

    Attributes:
        mask: (H, W) uint8, 0 = do not use; None to use all.
        note: What status shall say of it; empty for nothing.
    """

    mask: Uint8Array | None
    note: str

    def annotate(self, result: FrameResult) -> FrameResult:
        """`result` with the note added to its reason."""
        return replace(result, reason="; ".join(part for part in (result.reason, self.note) if part))


class FrameMasks:
    """`receive` and `close` are called from any thread, the rest from the one that processes frames.

    Args:
        queue_policy: The parameter of this name.
    """

    def __init__(self, queue_policy: str) -> None:
        self.counts = MaskCounts()
        self._pairing: MaskPairing[Image] = MaskPairing(_MOST_MASKS[queue_policy])
        self._path = ""
        self._of_file: Uint8Array | None = None

    def receive(self, message: Image) -> None:
        """Takes a message of the topic `mask`."""
        self._pairing.put(stamp_to_ns(message.header.stamp), message)

    def close(self) -> None:
        """Lets no frame wait any more."""
        self._pairing.close()

    def of_frame(self, stamp_ns: int, size: tuple[int, int], received_s: float, settings: NodeSettings) -> FrameMask:
        """The mask of an image; waits for it as `settings` say.

        Args:
            stamp_ns: The image's stamp.
            size: (height, width) of the image, px.
            received_s: When the image arrived, on the monotonic clock.
            settings: Those that begin with `mask_`.

        Raises:
            SettingsError: The file of `mask_path` cannot be read any more.
            MaskError: A mask is malformed or has another size than the image, or it is missing and
                `mask_missing` is refuse.
        """
        self._read_file(settings.mask_path)
        of_file = self._of_file
        if of_file is not None:
            of_file = check_mask(of_file, *size, name=f"the mask {self._path}")
        if not settings.mask_topic:
            return FrameMask(of_file, "")
        message, note = self._of_topic(stamp_ns, received_s, settings)
        if message is None:
            return FrameMask(of_file, note)
        of_topic = check_mask(_mask_from_message(message), *size, name="the mask on topic mask")
        return FrameMask(of_topic if of_file is None else np.minimum(of_file, of_topic), note)

    def _read_file(self, path: str) -> None:
        if path != self._path:
            self._of_file = read_mask_file(path) if path else None
            self._path = path

    def _of_topic(self, stamp_ns: int, received_s: float, settings: NodeSettings) -> tuple[Image | None, str]:
        """The message for a frame, and what to say of it."""
        paired = self._pairing.take(stamp_ns, received_s + settings.mask_timeout_ms / _MS_PER_S)
        if paired.is_own:
            self.counts.own += 1
            return paired.mask, ""
        cause = (
            "a later image's mask came instead of its own"
            if paired.is_overtaken
            else f"its mask did not come within {settings.mask_timeout_ms:g} ms"
        )
        if settings.mask_missing == "refuse":
            self.counts.refused += 1
            msg = f"{cause}, and parameter mask_missing is 'refuse'; raise mask_timeout_ms, or choose last or none"
            raise MaskError(msg)
        if settings.mask_missing == "last" and paired.mask is not None and paired.age_ms <= settings.mask_max_age_ms:
            self.counts.last += 1
            return paired.mask, f"{cause}: used that of {paired.age_ms:.0f} ms before ({self.counts.last} so far)"
        self.counts.none += 1
        return None, f"{cause}: used none ({self.counts.none} so far)"


def _mask_from_message(message: Image) -> Uint8Array:
    if message.encoding not in _ENCODINGS:
        msg = f"the mask on topic mask has encoding {message.encoding!r}; expected mono8, 0 = do not use"
        raise MaskError(msg)
    try:
        return image_to_array(message)
    except ImageError as error:
        msg = f"the mask on topic mask is malformed: {error}"
        raise MaskError(msg) from error
