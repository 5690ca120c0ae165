"""Reads weights files safely, and loads them into networks."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from feature_frontend.errors import WeightsError
from feature_frontend.system.files import open_regular_file, read_regular_file
from feature_frontend.system.text import printable, short_text

__all__ = ["MAX_FILE_BYTES", "FoundWeights", "file_sha256", "fill_network", "shown_path"]

# 20 times the largest of the published files: a trainer's checkpoints also contain the optimizer's state.
MAX_FILE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20
_SAFETENSORS = ".safetensors"
# Before it, files could corrupt memory also with `weights_only` (CVE-2026-24747), and before 2.6 call anything
# (CVE-2025-32434). TorchVersion compares as versions do.
_FIRST_SAFE_TORCH = "2.10"
_LIGHTNING_KEY = "state_dict"  # key of the tensors in checkpoints of PyTorch Lightning
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_NAMED, _NAME_CHARACTERS, _PATH_CHARACTERS = 3, 120, 400


@dataclass(frozen=True)
class FoundWeights:
    """A weights file with a known hash.

    Attributes:
        name: Name of its extractor.
        path: Path of the file.
        sha256: Hash of the file, 64 hex digits.
        is_published: Whether it is the hash of a known published file.
    """

    name: str
    path: Path
    sha256: str
    is_published: bool = False

    @property
    def identity(self) -> str:
        """Name and first 8 hex digits of the hash, as in the message field `extractor`."""
        return f"{self.name}@{self.sha256[:8]}"

    @property
    def shown(self) -> str:
        """The path for messages, shortened if it is overlong."""
        return shown_path(self.path)

    def load(self) -> dict[str, torch.Tensor]:
        """Loads the checkpoint's tensors on the CPU. Executes nothing from the file.

        Raises:
            WeightsError: The file has changed since it was hashed, or is not a table of tensors.
        """
        if self.path.suffix != _SAFETENSORS and not self.is_published and torch.__version__ < _FIRST_SAFE_TORCH:
            raise WeightsError(
                f"weights {self.shown} may execute code in torch {torch.__version__}, whatever it is told "
                f"(CVE-2026-24747); expected torch {_FIRST_SAFE_TORCH} or newer, or the same tensors as .safetensors: "
                "load them with a newer torch and write them by safetensors.torch.save_file"
            )
        try:
            content = read_regular_file(self.path, MAX_FILE_BYTES)
        except OSError as error:
            raise WeightsError(f"cannot read weights {self.shown}: {short_text(error)}") from error
        # Hash the bytes that are loaded: another process may have replaced the file since it was found.
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise WeightsError(
                f"weights {self.shown} have changed since they were verified: SHA-256 {digest}; start again"
            )
        try:
            state = _load_safetensors(content) if self.path.suffix == _SAFETENSORS else _load_torch(content)
        except ImportError as error:
            raise WeightsError(
                f"weights {self.shown} need the Python package safetensors: pip install safetensors"
            ) from error
        except Exception as error:
            # For damaged files the readers raise anything from IndexError to UnicodeDecodeError. Torch's text for a
            # pickle with other objects advises executing the file's content, in its first line or further down.
            reason = short_text(str(error).partition("\n")[0] or type(error).__name__)
            if type(error).__name__ == "UnpicklingError":
                reason = "it holds other things than tensors, or is no file that torch.save has written"
            raise WeightsError(f"cannot read weights {self.shown}: {type(error).__name__}: {reason}") from error
        if isinstance(state, Mapping):
            state = state.get(_LIGHTNING_KEY, state)
        if not isinstance(state, Mapping) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
        ):
            raise WeightsError(f"weights {self.shown} hold a {type(state).__name__}; expected names and tensors")
        return dict(state)


def fill_network(
    network: nn.Module,
    weights: FoundWeights,
    title: str,
    rename: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] = dict,
    derived: Collection[str] = (),
) -> None:
    """Loads a network's weights strictly: all tensors of the network, and no others.

    Accepts 16, 32 and 64-bit floating point, and converts it to the network's type.

    Args:
        network: On the CPU.
        weights: The file.
        title: Name of the network in errors.
        rename: Renames the file's tensors to the network's names.
        derived: Names that may be absent from the file: the network computes them itself.

    Raises:
        WeightsError: The weights cannot be read, do not fit the network in names, shapes or types, or are not finite.
    """
    state = rename(weights.load())
    wanted = network.state_dict()
    problems = [
        _listed("missing ", [name for name in wanted if name not in state and name not in derived]),
        _listed("unexpected ", [name for name in state if name not in wanted]),
    ]
    # Check shapes first: a few bytes can declare a tensor of any size.
    common = [(name, state[name], tensor) for name, tensor in wanted.items() if name in state]
    problems.append(_listed("", [text for row in common if (text := _misfit(*row))]))
    if not any(problems):
        common = [(name, given.to(tensor.dtype), tensor) for name, given, tensor in common]
        problems.append(_listed("not finite ", [name for name, given, _ in common if not given.isfinite().all()]))
    if any(problems):
        raise WeightsError(f"weights {weights.shown} do not fit {title}: {'; '.join(filter(None, problems))}")
    network.load_state_dict({name: given for name, given, _ in common}, strict=False)


def shown_path(path: Path) -> str:
    """A path for a message: in full, unless it is longer than any valid path."""
    return printable(str(path), _PATH_CHARACTERS)


def file_sha256(path: Path) -> str:
    """Hash of a file's content, 64 hex digits.

    Raises:
        OSError: It cannot be read, is not a regular file, or exceeds `MAX_FILE_BYTES`. The text omits the path.
    """
    digest, size = hashlib.sha256(), 0
    with open_regular_file(path) as file:
        announced = file.seek(0, io.SEEK_END)
        file.seek(0)
        while announced <= MAX_FILE_BYTES and (piece := file.read(_CHUNK_BYTES)):
            size += len(piece)
            announced = max(announced, size)
            digest.update(piece)
    if announced > MAX_FILE_BYTES:
        raise OSError(
            f"it has {announced:,} bytes; expected at most {MAX_FILE_BYTES:,}, far more than any weights have"
        )
    return digest.hexdigest()


def _load_torch(content: bytes) -> object:
    if zipfile.is_zipfile(io.BytesIO(content)):
        # torch stores uncompressed; a compressed file of 1 MB may expand to 1 GB, and torch reads it in full.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > len(content):
            raise ValueError(f"its parts have {size:,} bytes, more than the file; torch.save does not write such files")
    with warnings.catch_warnings():
        # Warnings about damaged files, in addition to the error.
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _load_safetensors(content: bytes) -> object:
    # Imported here: rosdep has no key for safetensors, and the published weights of ALIKED do not need it.
    from safetensors.torch import load

    return load(content)


def _misfit(name: str, given: torch.Tensor, wanted: torch.Tensor) -> str:
    """What is wrong with a tensor's shape or type; empty if it fits."""
    shown = _cut(name)
    if given.shape != wanted.shape:
        return f"{shown} is {_cut(str(tuple(given.shape)))}, expected {tuple(wanted.shape)}"
    taken = _FLOATS if wanted.is_floating_point() else _INTEGERS
    if given.dtype not in taken:
        return f"{shown} is {given.dtype}, expected {wanted.dtype}"
    is_plain = given.layout == torch.strided and given.device.type == "cpu"
    return "" if is_plain else f"{shown} is {given.layout} on {given.device}, expected a plain tensor"


def _listed(title: str, names: list[str]) -> str:
    if not names:
        return ""
    further = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{title}{', '.join(_cut(name) for name in names[:_NAMED])}{further}"


def _cut(name: str) -> str:
    return printable(name, _NAME_CHARACTERS)
