"""Results as Parquet tables, for pandas, DuckDB and Ray Data: frames, features, matches and tracks of one input.

A row of `frames` is an image; the rows of the others refer to it by `frame`, its number from 0, and `stamp_ns`. Values
that the messages lack, such as rays without a calibration, are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.typesys.store import Typestore

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.sources.bags.rosbags_workarounds import deserialize_cdr
from feature_frontend.sources.bags.stamps import stamp_ns
from feature_frontend.tools.common.bag_writer import BagContent
from feature_frontend.types import FrameState

__all__ = ["PARQUET", "TABLES", "TableWriter", "check_parquet"]

PARQUET = "parquet"
TABLES = ("frames", "features", "matches", "tracks")
# Rows of a row group: large enough to compress and to scan, small enough to hold in memory with their descriptors.
_GROUP_ROWS = 1 << 15
_FLOAT16 = 1
# Column, Arrow type, field of the message, and its column in a field of several.
_Column = tuple[str, str, str, int | None]
_COVARIANCE: tuple[_Column, ...] = (
    ("covariance_xx", "float32", "covariances", 0),
    ("covariance_xy", "float32", "covariances", 1),
    ("covariance_yy", "float32", "covariances", 2),
)
_FEATURES: tuple[_Column, ...] = (
    ("x", "float32", "keypoints", 0),
    ("y", "float32", "keypoints", 1),
    ("score", "float32", "scores", None),
    ("size", "float32", "sizes", None),
    ("angle", "float32", "angles", None),
    ("scale", "float32", "scales", None),
    ("ray_x", "float32", "normalized_keypoints", 0),
    ("ray_y", "float32", "normalized_keypoints", 1),
    *_COVARIANCE,
)
_MATCHES: tuple[_Column, ...] = (
    ("index0", "uint32", "indices0", None),
    ("index1", "uint32", "indices1", None),
    ("similarity", "float32", "similarity", None),
    ("margin", "float32", "margin", None),
    ("x0", "float32", "keypoints0", 0),
    ("y0", "float32", "keypoints0", 1),
    ("x1", "float32", "keypoints1", 0),
    ("y1", "float32", "keypoints1", 1),
    ("ray_x0", "float32", "normalized_keypoints0", 0),
    ("ray_y0", "float32", "normalized_keypoints0", 1),
    ("ray_x1", "float32", "normalized_keypoints1", 0),
    ("ray_y1", "float32", "normalized_keypoints1", 1),
    ("inlier", "bool", "inlier", None),
)
_TRACKS: tuple[_Column, ...] = (
    ("id", "uint64", "ids", None),
    ("age", "uint32", "ages", None),
    ("gaps", "uint32", "gaps", None),
    ("feature_index", "uint32", "feature_indices", None),
    ("x", "float32", "keypoints", 0),
    ("y", "float32", "keypoints", 1),
    ("ray_x", "float32", "normalized_keypoints", 0),
    ("ray_y", "float32", "normalized_keypoints", 1),
    ("velocity_x", "float32", "velocities", 0),
    ("velocity_y", "float32", "velocities", 1),
    ("ray_velocity_x", "float32", "normalized_velocities", 0),
    ("ray_velocity_y", "float32", "normalized_velocities", 1),
    ("score", "float32", "scores", None),
    ("quality", "float32", "quality", None),
    *_COVARIANCE,
)
# Column and Arrow type; the fields of a FrameStatus of the same names.
_FRAMES = (
    *(("reason", "string"), ("keypoints", "uint32"), ("matches", "uint32"), ("tracks", "uint32")),
    *(("inlier_ratio", "float32"), ("tracks_lost", "uint32"), ("survival", "float32"), ("parallax_px", "float32")),
    *(("input_rate_hz", "float32"), ("fx", "float64"), ("fy", "float64"), ("cx", "float64"), ("cy", "float64")),
    *(("distortion_model", "string"), ("distortion_coefficients", "list"), ("run_id", "uint64"), ("resets", "uint32")),
)


def check_parquet() -> None:
    """Checks that tables can be written here.

    Raises:
        SettingsError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"--format parquet needs pyarrow, which cannot be imported ({error}); pip install pyarrow, or leave it"
        ) from error


class TableWriter(AbstractContextManager["TableWriter"]):
    """The tables of one input, one file each; takes the messages that a `BagWriter` takes.

    Args:
        folder: Of the files; must not exist.
        typestore: Definitions of the messages.

    Raises:
        SettingsError: pyarrow is not installed.
        OSError: A file cannot be written, such as to a full disk. All methods may raise it.
    """

    def __init__(self, folder: Path, typestore: Typestore) -> None:
        check_parquet()
        folder.mkdir(parents=True)
        self._typestore = typestore
        self._types: dict[str, str] = {}
        self._frame = 0
        self._size: tuple[str, int, int] | None = None
        self._tables = {name: _Table(folder / f"{name}.parquet", name) for name in TABLES}

    def add_topic(self, topic: str, message_type: str) -> None:
        """Adds a topic, such as "/features" of type "feature_frontend_msgs/msg/Features"."""
        self._types[topic] = message_type

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Adds the rows of a serialized message; the status of an image is its last one."""
        kind = self._types[topic]
        message = deserialize_cdr(self._typestore, data, kind)
        name = kind.rpartition("/")[2]
        if name == "FrameStatus":
            self._add_frame(message)
        elif name == "Features":
            self._size = (message.extractor, message.height, message.width)
            self._add("features", message, _FEATURES, {"descriptor": _descriptors(message)})
        elif name == "Matches":
            self._add("matches", message, _MATCHES, {"stamp0_ns": np.full(message.count, _time_ns(message.stamp0))})
        elif name == "Tracks":
            self._add("tracks", message, _TRACKS, {})

    def holds(self, _: BagContent) -> bool:
        """Reads the closed files and returns whether they contain all rows, with the right checksums."""
        return all(table.is_whole() for table in self._tables.values())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the rest, and closes the files."""
        for table in self._tables.values():
            table.close(whole=kind is None)

    def _add(
        self, name: str, message: Any, columns: tuple[_Column, ...], further: Mapping[str, npt.NDArray[Any] | None]
    ) -> None:
        count = int(message.count)
        rows: dict[str, Any] = {
            "frame": np.full(count, self._frame, np.uint32),
            "stamp_ns": np.full(count, stamp_ns(message.header)),
        }
        if name == "features":
            rows["row"] = np.arange(count, dtype=np.uint32)
        for column, _, field, part in columns:
            values = np.asarray(getattr(message, field))
            if part is not None and len(values):
                values = values.reshape(count, -1)[:, part]
            rows[column] = values if len(values) == count else None
        self._tables[name].add(count, {**rows, **further})

    def _add_frame(self, status: Any) -> None:
        extractor, height, width = self._size or ("", 0, 0)
        is_processed = self._size is not None
        row: dict[str, Any] = {
            "frame": [self._frame],
            "stamp_ns": [stamp_ns(status.header)],
            "frame_id": [status.header.frame_id],
            "state": [FrameState(status.state).name],
            "extractor": [extractor if is_processed else None],
            "height": [height if is_processed else None],
            "width": [width if is_processed else None],
        }
        for name, _ in _FRAMES:
            value = getattr(status, name)
            row[name] = [value.tolist() if isinstance(value, np.ndarray) else value]
        self._tables["frames"].add(1, row)
        self._frame += 1
        self._size = None


class _Table:
    """A file of rows, written in groups."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._waiting_rows = 0
        self._rows = 0
        self._descriptor_dim = 0

    def add(self, count: int, columns: Mapping[str, Any]) -> None:
        import pyarrow

        if columns.get("descriptor") is not None:
            self._descriptor_dim = columns["descriptor"].shape[1]
        schema = _schema(self._name, self._descriptor_dim)
        arrays = [_array(columns.get(field.name), field.type, count) for field in schema]
        self._waiting.append(pyarrow.Table.from_arrays(arrays, schema=schema))
        self._waiting_rows += count
        if self._waiting_rows >= _GROUP_ROWS:
            self._flush()

    def close(self, *, whole: bool) -> None:
        if whole:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def is_whole(self) -> bool:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self._path, page_checksum_verification=True) as file:
                read = sum(file.read_row_group(number).num_rows for number in range(file.num_row_groups))
        except (OSError, pyarrow.ArrowException):
            return False
        return bool(read == self._rows == file.metadata.num_rows)

    def _flush(self) -> None:
        import pyarrow
        import pyarrow.parquet

        if self._writer is None:
            # zstd: half of the size of snappy for descriptors, as fast to read.
            self._writer = pyarrow.parquet.ParquetWriter(
                self._path, _schema(self._name, self._descriptor_dim), compression="zstd", write_page_checksum=True
            )
        if self._waiting:
            try:
                table = pyarrow.concat_tables(self._waiting)
                self._writer.write_table(table, row_group_size=_GROUP_ROWS)
            except pyarrow.ArrowInvalid as error:
                msg = f"{self._path} cannot be written: {error}; the messages differ in the length of their descriptors"
                raise FeatureFrontendError(msg) from error
            self._rows += table.num_rows
        self._waiting, self._waiting_rows = [], 0


def _time_ns(stamp: Any) -> int:
    """A `builtin_interfaces/Time` in ns."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _descriptors(message: Any) -> npt.NDArray[np.float32] | None:
    """(N, D), also for those published with half the precision."""
    if not message.descriptor_dim:
        return None
    kind = "<f2" if message.descriptor_type == _FLOAT16 else "<f4"
    found = np.frombuffer(message.descriptors.tobytes(), kind).reshape(int(message.count), int(message.descriptor_dim))
    return found.astype(np.float32, copy=False)


def _schema(name: str, descriptor_dim: int) -> Any:
    import pyarrow

    types = {
        **{kind: getattr(pyarrow, kind)() for kind in ("float32", "float64", "uint32", "uint64", "string")},
        "bool": pyarrow.bool_(),
        "list": pyarrow.list_(pyarrow.float64()),
    }
    fields = [("frame", types["uint32"]), ("stamp_ns", pyarrow.int64())]
    if name == "frames":
        texts = ("frame_id", "state", "extractor")
        fields += [(text, types["string"]) for text in texts]
        fields += [("height", types["uint32"]), ("width", types["uint32"])]
        fields += [(column, types[kind]) for column, kind in _FRAMES]
        return pyarrow.schema(fields)
    if name == "features":
        fields.append(("row", types["uint32"]))
    if name == "matches":
        fields.append(("stamp0_ns", pyarrow.int64()))
    columns = {"features": _FEATURES, "matches": _MATCHES, "tracks": _TRACKS}[name]
    fields += [(column, types[kind]) for column, kind, _, _ in columns]
    if name == "features" and descriptor_dim:
        fields.append(("descriptor", pyarrow.list_(types["float32"], descriptor_dim)))
    return pyarrow.schema(fields)


def _array(values: Any, kind: Any, count: int) -> Any:
    import pyarrow

    if values is None:
        return pyarrow.nulls(count, kind)
    if isinstance(values, np.ndarray):
        if values.ndim == 2:
            flat = pyarrow.array(np.ascontiguousarray(values).ravel())
            return pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return pyarrow.array(
            values.astype(bool) if pyarrow.types.is_boolean(kind) else np.ascontiguousarray(values), kind
        )
    return pyarrow.array(values, kind)
