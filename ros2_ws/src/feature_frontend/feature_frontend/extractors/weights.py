"""Published weights: a table of records, where they are looked for, how they are fetched and verified."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from feature_frontend.errors import WeightsError, WeightsUnavailableError

__all__ = [
    "WEIGHTS",
    "WEIGHTS_VARIABLE",
    "FoundWeights",
    "WeightsRecord",
    "download_weights",
    "ensure_weights",
    "find_own_weights",
    "find_weights",
    "own_weights",
    "search_folders",
]

WEIGHTS_VARIABLE = "FEATURE_FRONTEND_WEIGHTS"
_ALIKED_FILES = "https://github.com/Shiaoming/ALIKED/raw/683d7c65197395c0b3f01ebe76e1084a27e73a65/models"
_ALIKED_LICENCE = "BSD-3-Clause, (c) 2022 Zhao Xiaoming"
# Models of this project's own, which come with the package.
_SHIPPED = Path(__file__).resolve().parents[1] / "models"
_TIMEOUT_S = 20.0
_CHUNK_BYTES = 1 << 16
_SAFETENSORS = ".safetensors"
_SUFFIXES = (_SAFETENSORS, ".pth", ".ckpt")
_LIGHTNING_KEY = "state_dict"  # where checkpoints of PyTorch Lightning keep the tensors, beside the trainer's state


@dataclass(frozen=True)
class WeightsRecord:
    """One published checkpoint.

    Attributes:
        name: The extractor that it belongs to, or the file's name where it is a matcher's.
        file_name: Its file name, in the authors' repository and on disk.
        url: Its official address, at a fixed commit or release; empty for a model that ships with this package.
        sha256: Hash of the file, 64 hex digits.
        licence: Licence and holder.
    """

    name: str
    file_name: str
    url: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class FoundWeights:
    """A file of weights whose content is known.

    Attributes:
        name: The extractor that it belongs to.
        path: Where it is.
        sha256: Hash of the file, 64 hex digits.
    """

    name: str
    path: Path
    sha256: str

    @property
    def identity(self) -> str:
        """Name and first 8 hex digits of the hash, as in the message field `extractor`."""
        return f"{self.name}@{self.sha256[:8]}"

    def load(self) -> dict[str, torch.Tensor]:
        """The checkpoint's tensors, on the CPU. Executes nothing from the file.

        Raises:
            WeightsError: It is not a table of tensors.
        """
        try:
            if self.path.suffix == _SAFETENSORS:
                state = _load_safetensors(self.path)
            else:
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        except WeightsError:
            raise
        except Exception as error:
            # Damaged files make the readers raise anything from IndexError to UnicodeDecodeError. The further lines of
            # torch's texts advise to execute what is in the file.
            reason = (str(error).splitlines() or [""])[0]
            msg = f"cannot read weights {self.path}: {type(error).__name__}: {reason}"
            raise WeightsError(msg) from error
        if isinstance(state, Mapping):
            state = state.get(_LIGHTNING_KEY, state)
        if not isinstance(state, Mapping) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
        ):
            msg = f"weights {self.path} hold a {type(state).__name__}; expected names and tensors"
            raise WeightsError(msg)
        return dict(state)


# Trained by this project on free images; the card beside the file says how.
_SILK_MU = WeightsRecord(
    name="silk-vggnp-mu",
    file_name="silk-vggnp-mu.safetensors",
    url="",
    sha256="a11c5f534f7847550cbf0966a53c02785388da831605e470c64595ac5eeb45bc",
    licence="Apache-2.0, comes with this package",
)


# Trained by this project too, on photographs whose owners ask for research use.
_RESIDUAL_SIFT = WeightsRecord(
    name="residual-sift",
    file_name="residual-sift.safetensors",
    url="",
    sha256="56d6c173d44eb94dddf2e4b7ec9417bab8dc0004b3400cfac3670f4542bbcb7a",
    licence="Apache-2.0, comes with this package; trained on BSDS500, whose owners ask for research use",
)

_LIGHTGLUE = WeightsRecord(
    name="aliked_lightglue",
    file_name="aliked_lightglue.pth",
    url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/aliked_lightglue.pth",
    sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
    licence="Apache-2.0, (c) 2023 ETH Zurich",
)


def _aliked(name: str, sha256: str) -> WeightsRecord:
    return WeightsRecord(name, f"{name}.pth", f"{_ALIKED_FILES}/{name}.pth", sha256, _ALIKED_LICENCE)


WEIGHTS = {
    record.name: record
    for record in (
        _aliked("aliked-t16", "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085"),
        _aliked("aliked-n16", "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"),
        _aliked("aliked-n16rot", "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332"),
        _aliked("aliked-n32", "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890"),
        _SILK_MU,
        _RESIDUAL_SIFT,
        _LIGHTGLUE,
    )
}


def cache_folder() -> Path:
    """Where downloads go: `$XDG_CACHE_HOME/feature_frontend`, or `~/.cache/feature_frontend`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "feature_frontend"


def search_folders(weights_dir: str = "") -> list[Path]:
    """The folders in which weights are looked for: `weights_dir`, the variable's, the cache, the package's own."""
    given = [weights_dir, os.environ.get(WEIGHTS_VARIABLE, "")]
    return [*(Path(folder).expanduser() for folder in given if folder), cache_folder(), _SHIPPED]


def find_weights(record: WeightsRecord, weights_dir: str = "") -> FoundWeights | None:
    """The first file of that name in `search_folders`, verified; None where there is none.

    Raises:
        WeightsError: The file found is another one than the record's.
    """
    for folder in search_folders(weights_dir):
        path = folder / record.file_name
        if path.is_file():
            _verify(path, record, path)
            return FoundWeights(record.name, path, record.sha256)
    return None


def own_weights(name: str, path: Path) -> FoundWeights:
    """A file of the user's own, for the extractor `name`.

    Raises:
        WeightsError: It cannot be read.
    """
    return FoundWeights(name, path, _sha256(path))


def find_own_weights(name: str, weights_dir: str = "") -> FoundWeights | None:
    """The first NAME.safetensors, NAME.pth or NAME.ckpt in `search_folders`, for an extractor without a record.

    Raises:
        WeightsError: It cannot be read.
    """
    for folder in search_folders(weights_dir):
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return own_weights(name, path)
    return None


def download_weights(record: WeightsRecord, folder: Path | None = None) -> FoundWeights:
    """Downloads a record's file into `folder` (default: the cache), verifies it, and only then gives it its name.

    Raises:
        WeightsError: The network does not answer, the folder cannot be written, or the hash is wrong.
    """
    folder = cache_folder() if folder is None else folder
    path = folder / record.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{record.file_name}.", dir=folder)
    except OSError as error:
        msg = f"cannot write weights to {folder}: {error}; choose another cache by XDG_CACHE_HOME"
        raise WeightsError(msg) from error
    os.close(handle)
    partial = Path(name)
    try:
        _download(record, partial)
        _verify(partial, record, record.url)
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return FoundWeights(record.name, path, record.sha256)


def ensure_weights(record: WeightsRecord, weights_dir: str = "") -> FoundWeights:
    """The record's verified file: found on disk, else downloaded.

    Raises:
        WeightsUnavailableError: It is nowhere and cannot be downloaded. The text says which file is wanted, where it
            was looked for, and what to type.
        WeightsError: A file of its name is another one.
    """
    found = find_weights(record, weights_dir)
    if found is not None:
        return found
    try:
        return download_weights(record)
    except WeightsError as error:
        looked = ", ".join(str(folder) for folder in search_folders(weights_dir))
        msg = (
            f"weights {record.file_name} not found in {looked}, and {error}; fetch that file on a machine with a "
            f"network, put it into a folder, and type: export {WEIGHTS_VARIABLE}=/path/to/that/folder"
        )
        raise WeightsUnavailableError(msg) from error


def _download(record: WeightsRecord, target: Path) -> None:
    if not record.url:
        msg = f"{record.file_name} comes with this package and is not offered anywhere else"
        raise WeightsError(msg)
    try:
        with urllib.request.urlopen(record.url, timeout=_TIMEOUT_S) as response, target.open("wb") as file:
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm(total=size, unit="B", unit_scale=True, desc=record.file_name, disable=None) as progress:
                while chunk := response.read(_CHUNK_BYTES):
                    file.write(chunk)
                    progress.update(len(chunk))
    except (urllib.error.URLError, OSError, ValueError) as error:
        msg = f"cannot download {record.url} ({error})"
        raise WeightsError(msg) from error


def _verify(path: Path, record: WeightsRecord, origin: object) -> None:
    digest = _sha256(path)
    if digest != record.sha256:
        msg = (
            f"{origin} is not the published {record.file_name}: its SHA-256 is {digest}, expected {record.sha256}; "
            "remove it, then type: feature_frontend weights fetch " + record.name
        )
        raise WeightsError(msg)


def _load_safetensors(path: Path) -> object:
    # Here, not above: rosdep has no key for safetensors, and the published weights of ALIKED do without.
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        msg = f"weights {path} need the Python package safetensors: pip install safetensors"
        raise WeightsError(msg) from error
    return load_file(path)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        msg = f"cannot read weights {path}: {error}"
        raise WeightsError(msg) from error
