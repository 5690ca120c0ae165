"""The front-end as a stage of Ray Data, such as `ray.data.read_mcap(...).map_batches(FrontendActor, ...)`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from std_msgs.msg import Header

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.pipeline.process_frame import Refusal
from feature_frontend.sources.bag import BagImage
from feature_frontend.sources.bags.messages import MessageReader
from feature_frontend.sources.bags.stamps import stamp_ns
from feature_frontend.sources.bags.storage import BagMessage, BagTopic
from feature_frontend.tools.process.inputs import InputFrame
from feature_frontend.types import FrameResult, FrameState

__all__ = ["FrontendActor"]

# Sequences in progress at a time; the one that has waited longest begins anew.
_MOST_SEQUENCES = 16


class FrontendActor:
    """Extracts, matches with the previous image and tracks, image by image, each sequence by itself.

    Rows of a sequence must come in the order of time, all to the same actor: with one actor (`concurrency=1`) and
    `preserve_order`, or by `groupby(sequence).map_groups` with many. All sequences share one network.

    Args:
        sequence: The column that tells sequences apart; "path" is that of `read_mcap(..., include_paths=True)`. If rows
            have no such column, all are one sequence.
        **parameters: Of the front-end, by name, such as `extractor="aliked-n16"`.

    Raises:
        SettingsError: A parameter is unknown or out of range.
        WeightsError: The weights are unavailable.
    """

    def __init__(self, sequence: str = "path", **parameters: bool | float | str) -> None:
        self._sequence = sequence
        self._first = Frontend.from_pretrained(None, **parameters)
        self._frontends: OrderedDict[object, Frontend] = OrderedDict()
        self._reader = MessageReader()

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The results of a batch: one row for each image, with what it gets from the input's sequence column.

        Args:
            batch: Messages as `read_mcap` gives them (columns data, topic, schema_name, message_encoding), of
                `sensor_msgs` Image or CompressedImage; or columns image, each (H, W) grey or (H, W, 3) RGB uint8, and
                stamp_ns.

        Returns:
            Columns stamp_ns, state (as in FrameStatus) and reason; keypoints (N, 2) px, scores (N,) and descriptors
            (N, D), float32; track_ids and track_ages (T,), with track_rows (T,) into the keypoints; matches (M, 2):
            rows of the previous image and of this one. An image that cannot be processed has state ERROR, and no
            points.

        Raises:
            SettingsError: The columns are others.
        """
        if "image" in batch and "stamp_ns" in batch:
            count = len(batch["image"])
        elif "data" in batch and "schema_name" in batch:
            count = len(batch["data"])
        else:
            raise SettingsError(
                f"a batch has columns {', '.join(batch)}; expected those of read_mcap(include_metadata=True), or image "
                "and stamp_ns"
            )
        rows = [self._row(batch, index) for index in range(count)]
        columns = {name: _column([row[name] for row in rows]) for name in _EMPTY}
        return columns if self._sequence not in batch else {self._sequence: batch[self._sequence], **columns}

    def _row(self, batch: Mapping[str, npt.NDArray[Any]], index: int) -> dict[str, Any]:
        key = batch[self._sequence][index] if self._sequence in batch else None
        time_ns = 0
        try:
            pixels, time_ns = self._image(batch, index)
            return {**_row_of(self._frontend(key).process(pixels, time_ns)), "stamp_ns": time_ns}
        except Exception as error:  # an image must not end the pipeline
            return {**_EMPTY, "stamp_ns": time_ns, "reason": Refusal.of(error).reason}

    def _frontend(self, key: object) -> Frontend:
        found = self._frontends.pop(key, None) or Frontend(self._first.extractor, self._first.settings)
        self._frontends[key] = found
        if len(self._frontends) > _MOST_SEQUENCES:
            self._frontends.popitem(last=False)
        return found

    def _image(self, batch: Mapping[str, npt.NDArray[Any]], index: int) -> tuple[npt.NDArray[np.uint8], int]:
        if "image" in batch:
            return np.asarray(batch["image"][index], np.uint8), int(batch["stamp_ns"][index])
        kind, name = str(batch["schema_name"][index]), str(batch["topic"][index])
        encoding = str(batch["message_encoding"][index]) if "message_encoding" in batch else "cdr"
        topic = BagTopic(name, kind, encoding)
        try:
            message = self._reader.read(BagMessage(topic, 0, bytes(batch["data"][index])))
        except ValueError as error:
            raise FeatureFrontendError(str(error)) from error
        if not hasattr(message, "data") or not hasattr(message, "header"):
            raise FeatureFrontendError(f"{name} has messages of {kind}; expected sensor_msgs Image or CompressedImage")
        time_ns = stamp_ns(message.header)
        image = BagImage(index, f"a message of {name}", kind, message, time_ns)
        return InputFrame(image, time_ns, Header(), []).pixels(self._first.settings), time_ns


_EMPTY: dict[str, Any] = {
    "stamp_ns": 0,
    "state": FrameState.ERROR.name,
    "reason": "",
    "keypoints": np.zeros((0, 2), np.float32),
    "scores": np.zeros(0, np.float32),
    "descriptors": np.zeros((0, 0), np.float32),
    "track_ids": np.zeros(0, np.uint64),
    "track_ages": np.zeros(0, np.uint32),
    "track_rows": np.zeros(0, np.uint32),
    "matches": np.zeros((0, 2), np.int64),
}


def _row_of(result: FrameResult) -> dict[str, Any]:
    features, tracks, matches = result.features, result.tracks, result.matches
    return {
        "state": result.state.name,
        "reason": result.reason,
        "keypoints": features.keypoints.numpy(),
        "scores": features.scores.numpy(),
        "descriptors": features.descriptors.float().numpy(),
        "track_ids": tracks.ids,
        "track_ages": tracks.ages,
        "track_rows": tracks.feature_indices,
        "matches": np.stack([matches.indices0.numpy(), matches.indices1.numpy()], axis=1).astype(np.int64),
    }


def _column(values: list[Any]) -> npt.NDArray[Any]:
    if not isinstance(values[0], np.ndarray):
        return np.array(values)
    column = np.empty(len(values), object)
    for index, value in enumerate(values):
        column[index] = value
    return column
