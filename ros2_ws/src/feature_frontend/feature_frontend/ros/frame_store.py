"""The features of the latest frames, by stamp, for matching on request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from std_msgs.msg import Header

from feature_frontend.errors import MatchingError
from feature_frontend.settings import NodeSettings
from feature_frontend.types import Features

__all__ = ["FrameStore", "StoredFrame"]

_BYTES_PER_MIB = 1 << 20
_NS_PER_S = 1_000_000_000
_MOST_NAMED = 10


@dataclass(frozen=True)
class StoredFrame:
    """One image's header, and its features where the network ran."""

    header: Header
    features: Features

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors; of the whole storage where they are parts of one."""
        tensors = (self.features.keypoints, self.features.scores, self.features.descriptors)
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


class FrameStore:
    """Holds the latest frames within the bounds `store_frames` and `store_mib`. Any thread may use it.

    Of two frames with the same stamp the later one stays.

    Args:
        settings: Name the bounds.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, StoredFrame] = OrderedDict()
        self._num_bytes = 0
        self.configure(settings)

    def configure(self, settings: NodeSettings) -> None:
        """Takes over the bounds; what exceeds them goes at once, the oldest first."""
        with self._lock:
            self._max_frames = settings.store_frames
            self._max_bytes = settings.store_mib * _BYTES_PER_MIB
            self._trim()

    def put(self, stamp_ns: int, frame: StoredFrame) -> None:
        """Adds the latest frame."""
        with self._lock:
            self._remove(stamp_ns)
            self._frames[stamp_ns] = frame
            self._num_bytes += frame.num_bytes
            self._trim()

    def get(self, stamp_ns: int) -> StoredFrame:
        """The frame of that stamp.

        Raises:
            MatchingError: It is not held; the text says which are.
        """
        with self._lock:
            if stamp_ns in self._frames:
                return self._frames[stamp_ns]
            held = list(self._frames)
        latest = ", ".join(_seconds(stamp) for stamp in held[-_MOST_NAMED:])
        msg = (
            f"no frame with stamp {_seconds(stamp_ns)} is held; expected one of {len(held)} held frames, the latest of "
            f"them {latest}; store_frames and store_mib say how many stay"
            if held
            else f"no frame with stamp {_seconds(stamp_ns)} is held: none is, either because none was processed since "
            "the node was configured, or because store_frames is 0"
        )
        raise MatchingError(msg)

    def clear(self) -> None:
        """Lets go of all frames."""
        with self._lock:
            self._frames.clear()
            self._num_bytes = 0

    def __len__(self) -> int:
        """Number of frames held."""
        with self._lock:
            return len(self._frames)

    def _trim(self) -> None:
        while self._frames and (len(self._frames) > self._max_frames or self._num_bytes > self._max_bytes):
            self._remove(next(iter(self._frames)))

    def _remove(self, stamp_ns: int) -> None:
        frame = self._frames.pop(stamp_ns, None)
        if frame is not None:
            self._num_bytes -= frame.num_bytes


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // _NS_PER_S}.{stamp_ns % _NS_PER_S:09d}"
