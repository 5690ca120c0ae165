"""Which settings and data make which recipe."""

from __future__ import annotations

from feature_frontend.training.images import Images
from feature_frontend.training.recipe import Recipe
from feature_frontend.training.settings import CommonSettings, TrainingSettings
from feature_frontend.training.silk_recipe import SilkRecipe

__all__ = ["TrainingData", "recipe_of"]

TrainingData = Images


def recipe_of(settings: CommonSettings, data: TrainingData) -> Recipe:
    """SiLK's recipe for `TrainingSettings` and `Images`."""
    assert isinstance(settings, TrainingSettings)
    return SilkRecipe(settings, data)
