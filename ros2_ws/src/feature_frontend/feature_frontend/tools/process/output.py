"""The finished bag, the record beside it, and where both come from: a folder that says it is unfinished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.tools.common.bag_writer import BagContent, BagWriter
from feature_frontend.tools.process.bag_node import BagNode
from feature_frontend.tools.process.progress_store import FILE_NAME, ProgressStore

__all__ = ["RECORD_NAME", "Output"]

RECORD_NAME = "process.json"
# Not the output's name: the bag's files are then the same wherever they lie.
_BAG_NAME = "frontend"
_UNFINISHED = ".unfinished"
# What must be in the record.
_KINDS = {"sha256": str, "images": dict, "missing": list}


@dataclass(frozen=True)
class Output:
    """A bag that is to be made at `path`."""

    path: Path

    @property
    def unfinished(self) -> Path:
        """The folder of what has been made so far."""
        return self.path.with_name(self.path.name + _UNFINISHED)

    def check(self, *, overwrite: bool) -> None:
        """Checks that nothing of others is in the way.

        Raises:
            SettingsError: Something is.
        """
        if self.unfinished.exists() and not (self.unfinished / FILE_NAME).is_file():
            msg = f"{self.unfinished} is in the way: it holds no unfinished output of this tool; delete or rename it"
            raise SettingsError(msg)
        if not self.path.exists():
            return
        if overwrite and not (self.path / "metadata.yaml").is_file():
            msg = f"{self.path} is not overwritten: it is no bag; delete it yourself, or choose another --output"
            raise SettingsError(msg)
        if not overwrite and not self.record():
            msg = f"{self.path} exists already; delete it, choose another --output, or give --overwrite"
            raise SettingsError(msg)

    def record(self) -> dict[str, Any]:
        """What stands beside a finished bag; empty where there is none of this tool."""
        try:
            found = json.loads((self.path / RECORD_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        is_whole = isinstance(found, dict) and _KINDS.items() <= {name: type(found[name]) for name in found}.items()
        return found if is_whole else {}

    def complete(
        self,
        store: ProgressStore,
        node: BagNode,
        storage: str,
        record: Mapping[str, object],
    ) -> dict[str, object]:
        """Writes the bag from all that is in `store`, and puts it into its place when it is whole.

        Args:
            store: Of the run, at its end.
            node: Knows topics and messages.
            storage: A key of `STORAGES`.
            record: What to put beside the bag, for those who ask later how it was made.

        Returns:
            `record` with the number of messages of each topic, and the hash of them all.

        Raises:
            FeatureFrontendError: It cannot be written, such as to a full disk.
        """
        try:
            return self._complete(store, node, storage, record)
        except OSError as error:
            msg = f"{self.path} cannot be written: {error.strerror or error}; free space or see to the disk, and run "
            msg += "the same command again, it goes on from there"
            raise FeatureFrontendError(msg) from error

    def clear(self) -> None:
        """Removes what the run has left beside the finished bag."""
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def _complete(
        self,
        store: ProgressStore,
        node: BagNode,
        storage: str,
        record: Mapping[str, object],
    ) -> dict[str, object]:
        folder = self.unfinished / _BAG_NAME
        shutil.rmtree(folder, ignore_errors=True)
        counts = Counter(dict.fromkeys(node.topics, 0))
        digest = hashlib.sha256()
        written = BagContent()
        with BagWriter(folder, storage, node.typestore) as bag:
            for topic, type_name in node.topics.items():
                bag.add_topic(topic, type_name)
            for topic, time_ns, data in store.messages():
                bag.write(topic, time_ns, data)
                counts[topic] += 1
                digest.update(f"{topic} {node.topics[topic]} {time_ns} {len(data)}\n".encode())
                digest.update(data)
                written.add(topic, time_ns, data)
        complete = {**record, "messages": dict(counts), "sha256": digest.hexdigest()}
        text = json.dumps(complete, indent=2) + "\n"
        (folder / RECORD_NAME).write_text(text, encoding="utf-8")
        if (folder / RECORD_NAME).read_bytes() != text.encode() or not bag.holds(written):
            msg = f"the bag {folder} does not hold what was written into it; see to the disk, and run the same command "
            msg += "again, it writes it anew"
            raise FeatureFrontendError(msg)
        if self.path.exists():
            overwritten = self.unfinished / "overwritten"
            shutil.rmtree(overwritten, ignore_errors=True)
            self.path.rename(overwritten)
        folder.rename(self.path)
        return complete
