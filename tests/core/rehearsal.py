"""Emulates the restrictions and behaviour of CUDA graphs on a CPU: checks captured operations and replays them.

A graph contains kernels and copies with the addresses and numbers from its capture. So during a capture

- nothing may wait for the device, as the work is not executed then ("CUDA Graphs" in PyTorch's "CUDA semantics": "CPU
  <-> GPU syncs (e.g., .item() calls) are prohibited");
- no shape may depend on values, for which the host would have to wait;
- nothing may be copied from the host's pageable memory, which PyTorch waits for; numbers become kernel arguments;
- Python runs once: its decisions and numbers are fixed.

`RehearsalDevice` raises on violations of the first three rules. It replays the operations in the same memory without
Python, so violations of the last rule change the results. It also raises on operations that a GPU executes in varying
order: the same frame must give the same bytes ("Reproducibility" in PyTorch's notes and
`torch.use_deterministic_algorithms` list them). It takes the CUDA branches that
`Tensor.is_cuda` selects.

Some operations wait inside PyTorch's CUDA code, which does not happen on a CPU: they are listed by name, from its
source (`aten/src/ATen/native/cuda`) and their documentation. PyTorch's pull request 188267 states that a number
assigned by index is copied from the host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from feature_frontend.runtime.cuda_graphs import EagerGraphDevice, Graph, tensors_of

__all__ = ["Forbidden", "RehearsalDevice", "check_capturable"]

T = TypeVar("T")
_WARM_UP_RUNS = 3  # as `CudaGraphDevice`

_WAITS = {
    "_local_scalar_dense": "item(), int(), bool() and the like read a value on the host",
    "is_nonzero": "reads a value on the host",
    "equal": "answers on the host",
    "nonzero": "its shape depends on values; so does that of indexing by a mask",
    "nonzero_numpy": "its shape depends on values",
    "argwhere": "its shape depends on values",
    "masked_select": "its shape depends on values",
    "_unique": "its shape depends on values",
    "_unique2": "its shape depends on values",
    "unique_dim": "its shape depends on values",
    "unique_consecutive": "its shape depends on values",
    "unique_dim_consecutive": "its shape depends on values",
    "bincount": "its shape depends on values",
    "histc": "reads the range on the host",
    "nanmedian": "without a dimension, counts the numbers on the host (Sorting.cpp, median_impl)",
    "_linalg_check_errors": "reads on the host whether a decomposition succeeded",
    "_linalg_eigh": "torch.linalg.eigh synchronises (documentation)",
    "_linalg_svd": "torch.linalg.svd synchronises (documentation)",
    "_linalg_det": "factorises through cuSOLVER or MAGMA",
    "_linalg_slogdet": "factorises through cuSOLVER or MAGMA",
    "_linalg_solve_ex": "factorises through cuBLAS, cuSOLVER or MAGMA, whichever is preferred",
    "linalg_inv_ex": "factorises through cuBLAS, cuSOLVER or MAGMA, whichever is preferred",
    "linalg_cholesky_ex": "factorises through cuSOLVER or MAGMA",
    "linalg_lu_factor_ex": "factorises through cuBLAS, cuSOLVER or MAGMA, whichever is preferred",
    "linalg_ldl_factor_ex": "factorises through cuSOLVER or MAGMA",
    "linalg_eig": "torch.linalg.eig synchronises (documentation)",
    "linalg_qr": "factorises through cuSOLVER or MAGMA",
    "linalg_lstsq": "factorises through cuSOLVER or MAGMA",
    "multinomial": "checks its input on the host",
    "_ctc_loss": "reads lengths on the host",
    "resize_": "allocates by content",
}
_CHANGES_ORDER = {"index_add", "index_add_", "scatter_add", "scatter_add_", "put", "put_", "cumsum", "cumprod"}
_REDUCES = {"scatter_reduce", "scatter_reduce_", "index_reduce", "index_reduce_", "scatter", "scatter_"}
_OF_THE_HOST = {
    "tensor": "copies numbers from the host; use graph.constants",
    "as_tensor": "copies numbers from the host; use graph.constants",
    "new_tensor": "copies numbers from the host; use graph.constants",
    "cpu": "copies to the host",
    "numpy": "reads on the host",
    "__array__": "reads on the host",
    "tolist": "reads on the host",
    "item": "reads on the host",
    "pin_memory": "allocates on the host",
}


class Forbidden(AssertionError):  # noqa: N818
    """Something that a CUDA graph cannot hold."""


class _Python(TorchFunctionMode):
    """Sees what Python asks of PyTorch, before it depends on the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if name in _OF_THE_HOST:
            _refuse(name, _OF_THE_HOST[name])
        if name == "to" and any(isinstance(arg, (str, torch.device)) for arg in (*args[1:], *kwargs.values())):
            _refuse("to", "copies between devices")
        if name == "__setitem__" and not isinstance(args[2], torch.Tensor) and _writes_a_number(*args[:2]):
            _refuse("tensor[rows] = number", "PyTorch copies the number from the host; use index_fill_ or fill_")
        return func(*args, **kwargs)


def _writes_a_number(tensor: torch.Tensor, index: Any) -> bool:
    """Whether it goes through a copy: by tensors always, by numbers where one element is left, never by slices."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, torch.Tensor) for part in parts):
        return True
    return sum(isinstance(part, int) for part in parts) == tensor.dim()


class _Operations(TorchDispatchMode):
    """Sees the operations, and keeps them in `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _check(func, args, kwargs)
        result = func(*args, **kwargs)
        self.seen.append((func, args, kwargs, result))
        return result


def _check(func: Any, args: Any, kwargs: Any) -> None:
    name = func.overloadpacket.__name__
    if name in _WAITS and (name, func._overloadname) != ("nanmedian", "dim"):
        _refuse(name, _WAITS[name])
    if name in {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}:
        if any(index is not None and index.dtype in {torch.bool, torch.uint8} for index in args[1]):
            _refuse(name, "by a mask: its shape depends on values")
        if name.startswith("index_put") and len(args) > 3 and args[3]:
            _refuse(name, "accumulates in any order")
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        _refuse(name, "its shape depends on values; give output_size")
    if name in _CHANGES_ORDER and args[0].is_floating_point():
        _refuse(name, "adds floats in any order")
    adds = {"sum", "prod", "mean", "add", "multiply"} & {arg for arg in (*args, *kwargs.values()) if type(arg) is str}
    if name in _REDUCES and adds and args[0].is_floating_point():
        _refuse(name, "adds floats in any order")


def _refuse(name: str, reason: str) -> None:
    msg = f"{name} in captured work: {reason}"
    raise Forbidden(msg)


class check_capturable:  # noqa: N801
    """Within it, what a CUDA graph cannot hold is refused; `operations` are those that were done."""

    def __init__(self) -> None:
        self._operations = _Operations()
        self._stack = ExitStack()

    def __enter__(self) -> check_capturable:
        self._stack.enter_context(self._operations)
        self._stack.enter_context(_Python())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def operations(self) -> list[tuple[Any, Any, Any, Any]]:
        """Each with its arguments and its result, in their order."""
        return self._operations.seen


class RehearsalDevice(EagerGraphDevice):
    """Captures operations: a replay does them again on the same memory, and runs no Python.

    Attributes:
        captured: How many pieces of work were captured.
        num_operations: Of the one captured last.
    """

    def __init__(self, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        super().__init__(device)
        self.captured = 0
        self.num_operations = 0

    def capture(self, work: Callable[[], T]) -> Graph[T]:
        """See `GraphDevice`."""
        for _ in range(_WARM_UP_RUNS):
            work()
        with check_capturable() as check:
            result = work()
        self.captured += 1
        steps = [_step(*operation) for operation in check.operations]
        steps = [step for step in steps if step is not None]
        self.num_operations = len(steps)
        # As behind a capture, in which nothing is computed.
        for tensor in tensors_of(result):
            if tensor.is_floating_point() and not _is_of_another(tensor, check.operations):
                tensor.fill_(torch.nan)

        def replay() -> None:
            for step in steps:
                step()

        return Graph(result, replay)


def _is_of_another(tensor: torch.Tensor, operations: list[tuple[Any, Any, Any, Any]]) -> bool:
    """Whether this memory was there before the work."""
    own = tensor.untyped_storage().data_ptr()
    for func, args, kwargs, result in operations:
        if own in _memory_of((args, kwargs)):
            return True
        if own in _memory_of(result) and not func._schema.is_mutable:
            return False
    return True


def _step(func: Any, args: Any, kwargs: Any, result: Any) -> Callable[[], None] | None:
    """What a replay does for an operation; nothing for a view, which is the same memory still."""
    if func._schema.is_mutable:
        return lambda: func(*args, **kwargs)
    if _memory_of(result) & _memory_of((args, kwargs)):
        return None

    def again() -> None:
        fresh = func(*args, **kwargs)
        for old, new in zip(tree_leaves(result), tree_leaves(fresh), strict=True):
            if isinstance(old, torch.Tensor):
                old.copy_(new)

    return again


def _memory_of(values: Any) -> set[int]:
    return {
        leaf.untyped_storage().data_ptr()
        for leaf in tree_leaves(values)
        if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().nbytes()
    }
