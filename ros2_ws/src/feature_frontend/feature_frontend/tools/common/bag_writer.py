"""Writes serialized messages to a rosbag2 that contains the definitions of their types."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from feature_frontend.errors import FeatureFrontendError, SettingsError

__all__ = [
    "STORAGES",
    "BagContent",
    "BagWriter",
    "check_new_folder",
    "check_path",
    "message_type_name",
    "typestore_with",
]

STORAGES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}

# QoS with which rosbag2's own player will publish the topic.
_UNLIMITED = QosTime(0, 0)
_OFFERED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=_UNLIMITED,
    lifespan=_UNLIMITED,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_UNLIMITED,
    avoid_ros_namespace_conventions=False,
)


def message_type_name(message: type) -> str:
    """The name of a message class, such as "sensor_msgs/msg/Image"."""
    package, kind, *_ = message.__module__.split(".")
    return f"{package}/{kind}/{message.__name__}"


def typestore_with(types: set[str], share_folder: Callable[[str], str]) -> Typestore:
    """The definitions of standard messages and of `types`, the latter read from their packages' `.msg` files.

    Args:
        types: Names such as "feature_frontend_msgs/msg/Features".
        share_folder: Returns the share folder of an installed package by its name.

    Raises:
        FeatureFrontendError: A package has no definition of the message.
    """
    # Header, Image and CameraInfo are identical from Humble to Rolling.
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in sorted(types - set(store.fielddefs)):
        package, _, message = name.split("/")
        path = Path(share_folder(package)) / "msg" / f"{message}.msg"
        try:
            definition = path.read_text(encoding="utf-8")
        except OSError as error:
            raise FeatureFrontendError(
                f"the definition of {name} cannot be read: {error}; expected it where {package} is installed"
            ) from error
        store.register(get_types_from_msg(definition, name))
    return store


def check_new_folder(path: Path) -> None:
    """Checks that `path` is free for a new bag.

    Raises:
        SettingsError: It exists.
    """
    if path.exists():
        raise SettingsError(f"{path} exists already; delete it, or choose another folder for the bag")


def check_path(path: Path, storage: str) -> None:
    """Checks that a bag of this storage can be written to this path.

    Raises:
        SettingsError: It cannot: rosbags passes a URI to SQLite, in which some characters have a special meaning.
    """
    found = sorted(set(str(path.absolute())) & set("?#%"))
    if storage == "sqlite3" and found:
        msg = f"{path} has {' '.join(found)} in its path, where no bag of storage sqlite3 can be written; "
        msg += "choose another folder, or --storage mcap"
        raise SettingsError(msg)


class BagContent:
    """Compares the messages of two bags, ignoring the order of messages with equal times."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, topic: str, time_ns: int, data: bytes) -> None:
        """Adds a message."""
        digest = hashlib.sha256(f"{topic} {time_ns}\n".encode())
        digest.update(data)
        self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % 2**256

    def __eq__(self, other: object) -> bool:
        """Whether the messages are the same."""
        return isinstance(other, BagContent) and self._sum == other._sum

    __hash__ = None  # type: ignore[assignment]


class BagWriter(AbstractContextManager["BagWriter"]):
    """An open rosbag2; leaving the context writes its index and metadata.

    Raises:
        FeatureFrontendError: The bag cannot be written, such as to a full disk. All methods may raise it.
    """

    def __init__(self, path: Path, storage: str, typestore: Typestore) -> None:
        """Creates the bag.

        Args:
            path: Folder of the bag; must not exist.
            storage: A key of `STORAGES`.
            typestore: Definitions of all messages to write.

        Raises:
            SettingsError: The storage is unknown, or the folder exists.
        """
        if storage not in STORAGES:
            raise SettingsError(f"bag storage {storage!r} is unknown; expected one of {', '.join(STORAGES)}")
        check_new_folder(path)
        check_path(path, storage)
        self._typestore = typestore
        self._connections: dict[str, Connection] = {}
        self._counts: dict[str, int] = {}
        self._path = path
        self._metadata = ""
        with self._readable_errors():
            self._writer = Writer(path, version=9, storage_plugin=STORAGES[storage])
            self._writer.open()

    @property
    def counts(self) -> dict[str, int]:
        """Number of messages written, by topic."""
        return dict(self._counts)

    def add_topic(self, topic: str, message_type: str) -> None:
        """Adds a topic, such as "/image" of type "sensor_msgs/msg/Image"."""
        with self._readable_errors():
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=self._typestore, offered_qos_profiles=[_OFFERED]
            )
        self._counts[topic] = 0

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Writes one serialized message of a topic added before."""
        with self._readable_errors():
            self._writer.write(self._connections[topic], time_ns, data)
        self._counts[topic] += 1

    def keep(self) -> None:
        """Commits the written messages, so that they survive the end of this process or a disk that fills up later."""
        # For SQLite, the library uses a single transaction; for MCAP, it writes a chunk when it is full.
        database = getattr(self._writer.storage, "conn", None)
        if database is not None:
            with self._readable_errors():
                database.commit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the bag, also after an error, so that the messages so far can be read, if the disk allows."""
        if error is not None:
            with suppress(Exception):
                self._writer.close()
            return
        storage: Any = self._writer.storage
        close = storage.close

        def close_storage(version: int, metadata: str) -> None:
            self._metadata = metadata
            close(version, metadata)

        storage.close = close_storage
        with self._readable_errors():
            self._writer.close()

    def holds(self, content: BagContent) -> bool:
        """Reads the closed bag and returns whether it contains the added topics and these messages."""
        try:
            with Reader(self._path) as reader:
                found = BagContent()
                for connection, time_ns, data in reader.messages():
                    found.add(connection.topic, time_ns, data)
                topics = [_described(connection, connection.msgcount) for connection in reader.connections]
            (metadata,) = yaml.safe_load((self._path / "metadata.yaml").read_text(encoding="utf-8")).values()
        except Exception:  # a damaged bag can raise any error
            return False
        added = [_described(connection, self._counts[topic]) for topic, connection in self._connections.items()]
        is_same = found == content and sorted(topics) == sorted(added)
        return is_same and metadata == yaml.safe_load(self._metadata)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, WriterError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise FeatureFrontendError(
                f"the bag {self._path} cannot be written: {reason}; free space or check the disk"
            ) from error


def _described(connection: Connection, count: int) -> tuple[str, ...]:
    texts = connection.topic, connection.msgtype, connection.msgdef.data, connection.digest
    return (*texts, str(connection.ext), str(count))
