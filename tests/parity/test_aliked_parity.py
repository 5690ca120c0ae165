"""Parity with the published ALIKED models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.aliked_reference import IMAGES, MODELS, measure


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("model", MODELS)
def test_outputs_are_those_of_the_authors_code(model: str, image: str, shared: Path) -> None:
    result = measure(model, image, shared)
    assert result.passes, result
