"""Saves the state of a run as JSON and plain arrays, so that another process can continue from it.

State is a dataclass of numbers, text, arrays and tensors. It is read back as the expected type: the data name no
classes or attributes, and reading calls nothing but the constructors of such dataclasses.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

from feature_frontend.errors import FeatureFrontendError, SnapshotError

__all__ = ["SCHEMA", "VERSION", "Snapshot", "pack", "require", "unpack"]

SCHEMA = "feature_frontend.state"
VERSION = 1

T = TypeVar("T")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.bool)
}
_DEVICES = ("cpu", "cuda", "mps")
_MOST_BYTES = 2**32  # per tensor; forged strides can claim any size
_LAST_INT = 2**63 - 1
# Errors that Python, NumPy, torch and the dataclasses' checks raise for invalid values.
_REFUSALS = (
    ArithmeticError,
    AssertionError,
    FeatureFrontendError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_UNIONS = {Union, getattr(types, "UnionType", Union)}


@dataclass(frozen=True)
class Snapshot:
    """Serialised state.

    Attributes:
        document: JSON with the schema's name, its version and the state, in which arrays are replaced by indices.
        arrays: The bytes of these arrays. They may be views of the packed object: write them before it changes.
    """

    document: str
    arrays: Sequence[bytes | memoryview]


def pack(state: object) -> Snapshot:
    """Serialises `state`, a dataclass whose fields have one of these types, or are such dataclasses themselves.

    bool, int, float, str, `X | None`, `list[X]`, `dict[str, X]`, `tuple[X, ...]`, `tuple[X, Y]`, `NDArray[X]` and
    `torch.Tensor`; tensors keep type, layout and device.

    Raises:
        SnapshotError: A value is not of its declared type.
    """
    packer = _Packer()
    try:
        value = packer.pack(type(state), state)
        document = json.dumps({"schema": SCHEMA, "version": VERSION, "state": value}, separators=(",", ":"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise SnapshotError(f"the state cannot be kept: {error}") from error
    return Snapshot(document, packer.arrays)


def unpack(snapshot: Snapshot, kind: type[T]) -> T:
    """Reads back the state as an object of type `kind`, with its own copies of the arrays.

    Raises:
        SnapshotError: It is not of this type, or was saved by another version of this program.
    """
    try:
        document = json.loads(snapshot.document)
        found = document["schema"], document["version"]
        if found != (SCHEMA, VERSION):
            raise ValueError(
                f"it is {found[0]!r:.80} of version {found[1]!r:.80}; expected {SCHEMA} of version {VERSION}"
            )
        state: T = _Unpacker(snapshot.arrays).unpack(kind, document["state"])
    except _REFUSALS as error:
        raise SnapshotError(f"the kept state cannot be read: {_first_line(error)}") from error
    return state


def require(fits: bool, what: str) -> None:
    """Checks conditions that the types of a state do not express, such as equal lengths.

    Raises:
        SnapshotError: The condition `what` does not hold.
    """
    if not fits:
        raise SnapshotError(f"the kept state cannot be read: expected {what}")


def _first_line(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return text[:300] if text and not isinstance(error, LookupError) else f"{type(error).__name__} {text}"[:300]


@cache
def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _inner(kind: Any) -> Any:
    """The X of `X | None`."""
    (inner,) = (one for one in get_args(kind) if one is not type(None))
    return inner


def _item_kinds(kind: Any, count: int) -> list[Any]:
    """The declared type of each of the `count` items of a tuple."""
    kinds = list(get_args(kind))
    if kinds[-1] is Ellipsis:
        return kinds[:1] * count
    if len(kinds) != count:
        raise ValueError(f"{count} values; expected {len(kinds)}")
    return kinds


def _array_dtype(kind: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(get_args(get_args(kind)[1])[0])
    return dtype


def _refuse(kind: Any, value: object) -> NoReturn:
    raise TypeError(f"a {type(value).__name__} where a {getattr(kind, '__name__', kind)} belongs")


class _Packer:
    def __init__(self) -> None:
        self.arrays: list[bytes | memoryview] = []
        # By id: an object used in two places is written once. Kept alive here, so that its id is not reused.
        self._packed: dict[int, tuple[object, dict[str, Any]]] = {}

    def pack(self, kind: Any, value: Any) -> Any:
        origin = get_origin(kind)
        if origin in _UNIONS:
            return None if value is None else self.pack(_inner(kind), value)
        if origin is np.ndarray:
            return self._once(value, lambda: self._array(_array_dtype(kind), value))
        # Python's type checkers accept an int as a float.
        accepted: Any = (int, float) if kind is float else origin or kind
        if not isinstance(value, accepted):
            _refuse(kind, value)
        if kind is torch.Tensor:
            return self._once(value, lambda: self._tensor(value))
        if origin is tuple:
            return [self.pack(*pair) for pair in zip(_item_kinds(kind, len(value)), value, strict=True)]
        if origin is list:
            return [self.pack(get_args(kind)[0], item) for item in value]
        if origin is dict:
            return {name: self.pack(get_args(kind)[1], item) for name, item in value.items()}
        if dataclasses.is_dataclass(value):
            return {name: self.pack(inner, getattr(value, name)) for name, inner in _fields(kind).items()}
        if kind in (bool, int, float, str):
            return kind(value)
        _refuse("state", value)

    def _once(self, value: object, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if id(value) not in self._packed:
            self._packed[id(value)] = value, describe()
        return self._packed[id(value)][1]

    def _array(self, dtype: np.dtype[Any], value: Any) -> dict[str, Any]:
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            _refuse(f"{dtype} array", value)
        return {"array": self._add(np.ascontiguousarray(value)), "shape": list(value.shape)}

    def _tensor(self, value: torch.Tensor) -> dict[str, Any]:
        name = str(value.dtype).removeprefix("torch.")
        if name not in _DTYPES:
            _refuse(f"tensor of {', '.join(_DTYPES)}", value)
        # As bytes: NumPy has no bfloat16. With strides: a product rounds differently in another layout.
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        layout = {"shape": list(value.shape), "strides": list(value.stride()), "device": str(value.device)}
        return {"array": self._add(raw), "dtype": name, **layout}

    def _add(self, values: np.ndarray[Any, Any]) -> int:
        self.arrays.append(values.reshape(-1).view(np.uint8).data if values.size else b"")
        return len(self.arrays) - 1


class _Unpacker:
    def __init__(self, arrays: Sequence[bytes | memoryview]) -> None:
        self._arrays = arrays
        self._tensors: dict[str, torch.Tensor] = {}

    def unpack(self, kind: Any, value: Any) -> Any:
        origin = get_origin(kind)
        if origin in _UNIONS:
            return None if value is None else self.unpack(_inner(kind), value)
        if origin is np.ndarray:
            dtype = _array_dtype(kind)
            (shape,) = self._described(value, "shape")
            return np.frombuffer(self._bytes(value, shape, dtype.itemsize), dtype).reshape(shape)
        if kind is torch.Tensor:
            return self._tensor(value)
        if origin in (tuple, list):
            if not isinstance(value, list):
                _refuse(kind, value)
            kinds = _item_kinds(kind, len(value)) if origin is tuple else get_args(kind) * len(value)
            return origin(self.unpack(*pair) for pair in zip(kinds, value, strict=True))
        if origin is dict or dataclasses.is_dataclass(kind):
            return self._mapping(kind, value)
        # Exact type: a bool is an int in Python.
        if kind not in (bool, int, float, str) or type(value) is not kind:
            _refuse(kind, value)
        if kind is int and abs(value) > _LAST_INT:
            raise ValueError("a number beyond 64 bits")
        return value

    def _mapping(self, kind: Any, value: Any) -> Any:
        if not isinstance(value, dict):
            _refuse(kind, value)
        if get_origin(kind) is dict:
            return {name: self.unpack(get_args(kind)[1], item) for name, item in value.items()}
        fields = _fields(kind)
        if set(value) != set(fields):
            raise LookupError(f"{', '.join(sorted(set(value) ^ set(fields)))[:200]} of {kind.__name__}")
        return kind(**{name: self.unpack(inner, value[name]) for name, inner in fields.items()})

    def _tensor(self, value: Any) -> torch.Tensor:
        shape, strides = self._described(value, "shape", "strides")
        dtype, device = _DTYPES[value["dtype"]], torch.device(value["device"])
        if device.type not in _DEVICES:
            _refuse("device", value)
        key = json.dumps(value, sort_keys=True)
        if key not in self._tensors:
            room = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
            if math.prod(shape) and room * dtype.itemsize > _MOST_BYTES:
                raise ValueError(f"a tensor of {room} values")
            raw = np.frombuffer(self._bytes(value, shape, dtype.itemsize), np.uint8)
            values = torch.from_numpy(raw).view(dtype).reshape(shape)
            self._tensors[key] = torch.empty_strided(shape, strides, dtype=dtype, device=device).copy_(values)
        return self._tensors[key]

    def _described(self, value: Any, *names: str) -> list[tuple[int, ...]]:
        if not isinstance(value, dict) or type(value["array"]) is not int or value["array"] < 0:
            _refuse("array", value)
        found = [value[name] for name in names]
        if not all(isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers) for numbers in found):
            _refuse("array", value)
        return [tuple(numbers) for numbers in found]

    def _bytes(self, value: dict[str, Any], shape: tuple[int, ...], item_bytes: int) -> bytearray:
        raw = self._arrays[value["array"]]
        if len(raw) != math.prod(shape) * item_bytes:
            raise ValueError(f"{len(raw)} bytes; expected {math.prod(shape) * item_bytes}")
        return bytearray(raw)
