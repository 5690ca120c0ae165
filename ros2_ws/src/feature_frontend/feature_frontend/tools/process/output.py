"""The output of a run: serialized messages, the unfinished folder, and the finished output with its record."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from rclpy.serialization import serialize_message
from rosbags.typesys.store import Typestore

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.sources.bags.rosbags_workarounds import deserialize_cdr
from feature_frontend.system.files import read_regular_file
from feature_frontend.tools.common.bag_writer import BagContent, BagWriter, message_type_name, typestore_with
from feature_frontend.tools.process.progress_store import FILE_NAME, ProgressStore
from feature_frontend.tools.process.request import Part
from feature_frontend.tools.process.tables import PARQUET, TableWriter

__all__ = ["RECORD_NAME", "UNFINISHED", "BagMessages", "Output", "read_record"]

RECORD_NAME = "process.json"
# Not the output's name: so the bag's files are the same wherever they are written.
_MAX_RECORD_BYTES = 64 * 1024 * 1024
_BAG_NAME = "frontend"
UNFINISHED = ".unfinished"
_OVERWRITTEN = "overwritten"
# Required entries of the record.
_KINDS = {"sha256": str, "images": dict, "missing": list}


class BagMessages:
    """Serializes and collects messages for a bag.

    Args:
        namespace: Of the topics, absolute.
        types: Message types by topic relative to the namespace.

    Attributes:
        topics: Type of each topic, by its full name.
    """

    def __init__(self, namespace: str, types: Mapping[str, type]) -> None:
        self._namespace = namespace.rstrip("/")
        self.topics = {f"{self._namespace}/{name}": message_type_name(kind) for name, kind in types.items()}
        self._collected: list[tuple[str, bytes]] = []

    @cached_property
    def typestore(self) -> Typestore:
        """The definitions of all messages."""
        return typestore_with(set(self.topics.values()), get_package_share_directory)

    def publish(self, name: str, message: Any) -> None:
        """Collects a message, with its durations in ms set to zero.

        Uses the bag library's serializer: ROS's leaves padding bytes uninitialised, so they differ from run to run; the
        library sets them to zero.
        """
        topic = f"{self._namespace}/{name}"
        for field in message.get_fields_and_field_types():
            if field.endswith("_ms"):
                setattr(message, field, 0.0)
        read = deserialize_cdr(self.typestore, serialize_message(message), self.topics[topic])
        self._collected.append((topic, bytes(self.typestore.serialize_cdr(read, self.topics[topic]))))

    def take(self) -> list[tuple[str, bytes]]:
        """Returns and clears the messages collected since the last call: topic and content of each."""
        taken, self._collected = self._collected, []
        return taken


class Output:
    """The bag, or the folder of tables, to be written at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def unfinished(self) -> Path:
        """The folder of the progress so far."""
        return self.path.with_name(self.path.name + UNFINISHED)

    def piece(self, number: int) -> Path:
        """The folder of the progress of a piece."""
        return self.unfinished / f"piece_{number:05d}"

    def keep_piece(self, part: Part, job: Mapping[str, object]) -> None:
        """Puts a finished piece where other machines find it."""

    def has_piece(self, part: Part, job: Mapping[str, object]) -> bool:
        """Whether the piece is finished and no longer on this machine."""
        return False

    def finished_piece(self, part: Part, job: Mapping[str, object]) -> ProgressStore:
        """The progress of a finished piece."""
        return ProgressStore(self.piece(part.number))

    def end_of_piece(self, part: Part, job: Mapping[str, object]) -> ProgressStore:
        """The job of a finished piece and the state that it ends with; the messages may be missing."""
        return self.finished_piece(part, job)

    def check(self, *, overwrite: bool) -> None:
        """Checks that no foreign file is at the output path.

        Raises:
            SettingsError: There is one.
        """
        if self._is_foreign():
            raise SettingsError(
                f"{self.unfinished} is in the way: it holds no unfinished output of this tool; delete or rename it"
            )
        if not self.path.exists():
            return
        if overwrite and not any((self.path / name).is_file() for name in ("metadata.yaml", RECORD_NAME)):
            raise SettingsError(
                f"{self.path} is not overwritten: it is no bag; delete it yourself, or choose another --output"
            )
        if not overwrite and not self.record():
            raise SettingsError(f"{self.path} exists already; delete it, choose another --output, or give --overwrite")

    def record(self) -> dict[str, Any]:
        """The record of a finished output; empty if there is none of this tool."""
        try:
            return read_record(read_regular_file(self.path / RECORD_NAME, _MAX_RECORD_BYTES))
        except OSError:
            return {}

    def complete(
        self,
        found: Iterable[tuple[str, int, bytes]],
        messages: BagMessages,
        storage: str,
        record: Callable[[], Mapping[str, object]],
    ) -> dict[str, object]:
        """Writes the output, and moves it into place when complete.

        Args:
            found: Topic, time in ns and content of all messages, in order.
            messages: Defines topics and types.
            storage: A key of `STORAGES`, or "parquet".
            record: Stored next to the output; documents how it was made. Called once all messages are written.

        Returns:
            The record with the number of messages of each topic, and the hash of all messages.

        Raises:
            FeatureFrontendError: The output cannot be written, such as to a full disk.
        """
        try:
            folder = self.unfinished / _BAG_NAME
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            counts = Counter(dict.fromkeys(messages.topics, 0))
            digest = hashlib.sha256()
            written = BagContent()
            with _writer(folder, storage, messages.typestore) as bag:
                for topic, type_name in messages.topics.items():
                    bag.add_topic(topic, type_name)
                for topic, time_ns, data in found:
                    bag.write(topic, time_ns, data)
                    counts[topic] += 1
                    digest.update(f"{topic} {messages.topics[topic]} {time_ns} {len(data)}\n".encode())
                    digest.update(data)
                    written.add(topic, time_ns, data)
            complete = {**record(), "messages": dict(counts), "sha256": digest.hexdigest()}
            text = json.dumps(complete, indent=2) + "\n"
            (folder / RECORD_NAME).write_text(text, encoding="utf-8")
            if (folder / RECORD_NAME).read_bytes() != text.encode() or not bag.holds(written):
                msg = f"the output {folder} does not hold what was written into it; check the disk, and run the same "
                msg += "command again to rewrite it"
                raise FeatureFrontendError(msg)
            self._place(folder)
            return complete
        except OSError as error:
            msg = f"{self.path} cannot be written: {error.strerror or error}; free space or check the disk, and run "
            msg += "the same command again to resume"
            raise FeatureFrontendError(msg) from error

    def _place(self, folder: Path) -> None:
        """Moves the complete folder to where it belongs."""
        if self.path.exists():
            overwritten = self.unfinished / _OVERWRITTEN
            shutil.rmtree(overwritten, ignore_errors=True)
            self.path.rename(overwritten)
        folder.rename(self.path)

    def clear(self) -> None:
        """Removes the temporary files of the run next to the finished bag."""
        # The progress last: if this is killed, it shows that the rest is ours.
        for name in (_BAG_NAME, _OVERWRITTEN):
            shutil.rmtree(self.unfinished / name, ignore_errors=True)
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def _is_foreign(self) -> bool:
        """Whether the place of the unfinished folder is taken by something that this tool has not made."""
        if not self.unfinished.is_dir():
            return self.unfinished.exists()
        # A process killed at its beginning or its end leaves folders without files.
        files = [path.name for path in self.unfinished.rglob("*") if not path.is_dir()]
        return bool(files) and not any(name.startswith(FILE_NAME) for name in files)


def _writer(folder: Path, storage: str, typestore: Typestore) -> BagWriter | TableWriter:
    return TableWriter(folder, typestore) if storage == PARQUET else BagWriter(folder, storage, typestore)


def read_record(content: bytes) -> dict[str, Any]:
    """The record of a finished output from its file; empty if it is not whole."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    is_whole = isinstance(found, dict) and _KINDS.items() <= {name: type(found[name]) for name in found}.items()
    return found if is_whole else {}
