"""An output at a URL, such as s3://bucket/features/drive, uploaded whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.tools.process.job import of_part
from feature_frontend.tools.process.output import RECORD_NAME, UNFINISHED, Output, read_record
from feature_frontend.tools.process.progress_store import FILE_NAME, ProgressStore
from feature_frontend.tools.process.remote import RemoteFolder, is_url, local_path
from feature_frontend.tools.process.request import Part
from feature_frontend.tools.process.staging import work_folder

__all__ = ["output_of"]

# What makes a reader take a folder for a bag, and us for a finished output: uploaded last, in this order.
_LAST = ("metadata.yaml", RECORD_NAME)
_OURS = ("frontend", "frames.", "features.", "matches.", "tracks.", *_LAST)


def output_of(location: str) -> Output:
    """The output at a path, or at a URL by way of a folder on this machine."""
    path = local_path(location)
    return _UploadedOutput(path) if is_url(path) else Output(Path(path))


class _UploadedOutput(Output):
    """The output at a URL; made on this machine, then uploaded, its record as the last file.

    Whoever reads there sees a whole output wherever the record is, and a playable bag wherever `metadata.yaml` is.

    Args:
        url: Of the output.
    """

    def __init__(self, url: str) -> None:
        self._remote = RemoteFolder(url)
        self._remote_pieces = RemoteFolder(self._remote.url + UNFINISHED)
        super().__init__(work_folder(self._remote.url) / self._remote.name)

    def check(self, *, overwrite: bool) -> None:
        """See `Output`."""
        names = {file.name for file in self._remote.files()}
        # Ours, uploaded by half, is named like ours, and has no record yet.
        if names and RECORD_NAME not in names and not all(name.startswith(_OURS) for name in names):
            raise SettingsError(
                f"{self._remote.url} has files that are no output of this tool; choose another --output"
            )
        if RECORD_NAME in names and not overwrite and not self.record():
            raise SettingsError(
                f"{self._remote.url} exists already, with a damaged {RECORD_NAME}; choose another --output, or give "
                "--overwrite"
            )

    def record(self) -> dict[str, Any]:
        """See `Output`."""
        return read_record(self._remote.read(RECORD_NAME) or b"")

    def keep_piece(self, part: Part, job: Mapping[str, object]) -> None:
        """See `Output`."""
        folder = self.piece(part.number)
        if _is_continued(part):
            # By itself: the messages, which only the joining needs, take much more.
            with ProgressStore(folder) as store:
                store.copy_state(folder / "end")
            self._remote_pieces.upload(folder / "end" / FILE_NAME, _state_name(part, job))
        self._remote_pieces.upload(folder / FILE_NAME, _piece_name(part, job))
        for done in (folder, self._fetched_folder):
            shutil.rmtree(done, ignore_errors=True)

    def has_piece(self, part: Part, job: Mapping[str, object]) -> bool:
        """See `Output`."""
        names = {_piece_name(part, job), *([_state_name(part, job)] if _is_continued(part) else [])}
        return names <= {file.name for file in self._remote_pieces.files()}

    def finished_piece(self, part: Part, job: Mapping[str, object]) -> ProgressStore:
        """See `Output`."""
        return self._fetched(_piece_name(part, job))

    def end_of_piece(self, part: Part, job: Mapping[str, object]) -> ProgressStore:
        """See `Output`."""
        return self._fetched(_state_name(part, job))

    @property
    def _fetched_folder(self) -> Path:
        return self.unfinished / "fetched"

    def _fetched(self, name: str) -> ProgressStore:
        url = f"{self._remote_pieces.url}/{name}"
        if name not in {file.name for file in self._remote_pieces.files()}:
            raise FeatureFrontendError(f"{url} is missing; run the same command again to make that piece again")
        folder = self._fetched_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self._remote_pieces.download(name, folder / FILE_NAME)
        return ProgressStore(folder, url)

    def _place(self, folder: Path) -> None:
        for file in sorted(self._remote.files(), key=lambda file: _order(file.name), reverse=True):
            self._remote.delete(file.name)
        for name in sorted((file.name for file in folder.iterdir()), key=_order):
            self._remote.upload(folder / name, name)

    def clear(self) -> None:
        """See `Output`."""
        super().clear()
        self._remote_pieces.clear()


def _order(name: str) -> tuple[int, str]:
    return (_LAST.index(name) if name in _LAST else -1, name)


def _is_continued(part: Part) -> bool:
    """Whether another piece begins from the state that this one ends with."""
    return part.in_order and part.end is not None


def _piece_name(part: Part, job: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(of_part(job, part), sort_keys=True).encode()).hexdigest()
    return f"piece_{part.number:05d}_{digest[:16]}.db"


def _state_name(part: Part, job: Mapping[str, object]) -> str:
    return _piece_name(part, job).replace("piece", "state", 1)
