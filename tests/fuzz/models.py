"""Weight files."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from feature_frontend.errors import WeightsError
from feature_frontend.models.weights import own_weights
from tests.fuzz.downloads import repaired_zip
from tests.fuzz.files import written
from tests.fuzz.parser import Parser

__all__ = ["PARSERS"]


def _weights(suffix: str) -> Callable[[bytes], None]:
    def load(data: bytes) -> None:
        state = own_weights("net", written(data, f"net{suffix}")).load()
        assert all(isinstance(value, torch.Tensor) for value in state.values())

    return load


# torch's, of each damaged file.
warnings.filterwarnings("ignore", "Detected pickle protocol")

PARSERS = (
    Parser(
        "weights-pth",
        _weights(".pth"),
        (WeightsError,),
        (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"cposix\nsystem\n", b"PK\1\2", b"\x80\2}"),
        repaired_zip,
    ),
    Parser(
        "weights-safetensors",
        _weights(".safetensors"),
        (WeightsError,),
        (b'"dtype":"F32"', b'"BF16"', b'"shape":[', b'"data_offsets":[', b"__metadata__", b"[[[[[["),
    ),
)
