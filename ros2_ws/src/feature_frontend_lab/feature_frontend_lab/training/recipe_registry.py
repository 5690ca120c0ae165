"""Which settings and data make which recipe."""

from __future__ import annotations

from feature_frontend_lab.training.aliked.pairs import AlikedPairs
from feature_frontend_lab.training.aliked.recipe import AlikedRecipe
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.images import Images
from feature_frontend_lab.training.recipe import Recipe
from feature_frontend_lab.training.residual.pairs import ResidualPairs
from feature_frontend_lab.training.residual.recipe import ResidualRecipe
from feature_frontend_lab.training.residual.settings import ResidualSettings
from feature_frontend_lab.training.settings import CommonSettings
from feature_frontend_lab.training.silk.recipe import SilkRecipe
from feature_frontend_lab.training.silk.settings import TrainingSettings

__all__ = ["TrainingData", "recipe_of"]

TrainingData = Images | AlikedPairs | ResidualPairs


def recipe_of(settings: CommonSettings, data: TrainingData) -> Recipe:
    """SiLK's recipe for `TrainingSettings` and `Images`; for ALIKED and residual descriptors their settings and pairs.

    Raises:
        TypeError: Settings and data do not go together.
    """
    if isinstance(settings, TrainingSettings) and isinstance(data, Images):
        return SilkRecipe(settings, data)
    if isinstance(settings, AlikedSettings) and isinstance(data, AlikedPairs):
        return AlikedRecipe(settings, data)
    if isinstance(settings, ResidualSettings) and isinstance(data, ResidualPairs):
        return ResidualRecipe(settings, data)
    msg = f"{type(settings).__name__} came with {type(data).__name__}; expected settings and data of one network"
    raise TypeError(msg)
