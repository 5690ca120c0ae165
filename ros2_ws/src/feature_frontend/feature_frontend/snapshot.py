"""What living objects remember, as bytes, so that another process can go on where this one was.

The format is that of `pickle`, but only state is read back: objects of this package, arrays, tensors and containers.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from feature_frontend.errors import SnapshotError

__all__ = ["bring_back", "take_snapshot"]

_PACKAGE = "feature_frontend."
_LOCK = type(threading.Lock())
_OTHERS = {
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("collections", "deque"),
    ("_codecs", "encode"),
    ("_thread", "allocate_lock"),
    ("threading", "Condition"),
    ("torch", "Size"),
    ("torch", "device"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    # NumPy 1 and 2.
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
}


def take_snapshot(objects: Mapping[str, object], fixed: Mapping[str, object]) -> bytes:
    """The attributes of `objects`, and all that hangs on them but what is `fixed`.

    Args:
        objects: Whose attributes are taken, by names of the caller's.
        fixed: What is not state, such as networks and open files, by names of the caller's. Where the objects refer to
            one of these, or to one another, only its name is kept.

    Raises:
        SnapshotError: Something that hangs on them cannot be copied.
    """
    buffer = io.BytesIO()
    names = {id(thing): name for name, thing in {**objects, **fixed}.items()}
    try:
        _Pickler(buffer, names).dump({name: vars(thing) for name, thing in objects.items()})
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        msg = f"the state of {', '.join(objects)} cannot be kept: {error}"
        raise SnapshotError(msg) from error
    return buffer.getvalue()


def bring_back(snapshot: bytes, objects: Mapping[str, object], fixed: Mapping[str, object]) -> None:
    """Gives `objects` the attributes that they had when the snapshot was taken; `fixed` has the same names as then.

    Raises:
        SnapshotError: These bytes are no snapshot of such objects.
    """
    try:
        states = _Unpickler(io.BytesIO(snapshot), {**objects, **fixed}).load()
        if not isinstance(states, dict) or set(states) != set(objects):
            msg = f"it is not of {', '.join(objects)}"
            raise pickle.UnpicklingError(msg)
        for name, thing in objects.items():
            vars(thing).clear()
            vars(thing).update(states[name])
    except (pickle.UnpicklingError, EOFError, TypeError, AttributeError, ValueError, KeyError, IndexError) as error:
        msg = f"the kept state cannot be read: {error}"
        raise SnapshotError(msg) from error


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, names: Mapping[int, str]) -> None:
        super().__init__(file, protocol=pickle.DEFAULT_PROTOCOL)
        self._names = names

    def persistent_id(self, obj: object) -> str | None:
        return self._names.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            # As bytes: NumPy has no bfloat16. With its strides: a product rounds differently with another layout.
            raw = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            layout = tuple(obj.shape), obj.stride()
            return _tensor, (raw, str(obj.dtype).removeprefix("torch."), *layout, str(obj.device))
        if isinstance(obj, _LOCK):
            return threading.Lock, ()
        if isinstance(obj, threading.Condition):
            return threading.Condition, ()
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, things: Mapping[str, object]) -> None:
        super().__init__(file)
        self._things = things

    def persistent_load(self, pid: Any) -> object:
        return self._things[pid]

    def find_class(self, module_name: str, global_name: str) -> Any:
        found: Callable[..., Any] = super().find_class(module_name, global_name)
        is_own = module_name.startswith(_PACKAGE) and (isinstance(found, type) or found is _tensor)
        if is_own or (module_name, global_name) in _OTHERS or isinstance(found, torch.dtype):
            return found
        msg = f"{module_name}.{global_name} does not belong into it"
        raise pickle.UnpicklingError(msg)


def _tensor(raw: bytes, dtype: str, shape: tuple[int, ...], stride: tuple[int, ...], device: str) -> torch.Tensor:
    values = torch.from_numpy(np.frombuffer(bytearray(raw), np.uint8)).view(getattr(torch, dtype)).reshape(shape)
    return torch.empty_strided(shape, stride, dtype=values.dtype, device=device).copy_(values)
