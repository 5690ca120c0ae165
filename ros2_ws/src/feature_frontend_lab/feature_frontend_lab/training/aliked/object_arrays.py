"""Reads NumPy's .npz files with object arrays without executing their contents."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

__all__ = ["load_npz"]

# The only names that may be looked up: those that pickled arrays of strings, numbers, tuples and arrays need, with
# NumPy 1 and 2.
_HARMLESS = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{core}.multiarray", "_reconstruct"),
        (f"{core}.multiarray", "scalar"),
        (f"{core}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return super().find_class(module, name)


def load_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Reads the arrays of a file by name.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not an .npz file, is damaged, or contains objects other than numbers, text, tuples and arrays.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as file:
                    arrays[entry.removesuffix(".npy")] = _read_array(file)
    except (zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ValueError(f"it is no .npz file, or damaged ({error})") from error
    return arrays


def _read_array(file: Any) -> np.ndarray[Any, Any]:
    version = npy_format.read_magic(file)
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        try:
            return np.asarray(_Unpickler(file).load(), object).reshape(shape)
        except Exception as error:  # damaged data can raise anything
            raise ValueError(f"{type(error).__name__}: {error}; expected numbers, text, tuples and arrays") from error
    # What is behind the array is not read, whatever its size.
    values = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype).reshape(
        shape, order="F" if is_fortran else "C"
    )
    return values.copy()  # torch warns about read-only buffers
