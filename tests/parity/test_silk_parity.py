"""Parity with the published SiLK code, at seeded random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import NEEDS_TORCH_FOR_PTH
from tests.parity.silk_reference import NAMES, measure_silk


@NEEDS_TORCH_FOR_PTH
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_authors_code(name: str, shared: Path) -> None:
    result = measure_silk(name, shared)
    assert result.passes, result
