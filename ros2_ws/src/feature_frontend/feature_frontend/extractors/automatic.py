"""The extractor that the value "auto" of the parameter `extractor` stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from feature_frontend.errors import SettingsError, WeightsUnavailableError
from feature_frontend.models.catalog import AUTO, AUTO_EXTRACTORS, WEIGHTS
from feature_frontend.models.weights import ensure_weights
from feature_frontend.runtime.device import resolve_device
from feature_frontend.settings import ExtractionSettings

__all__ = ["preferred_extractor", "with_extractor"]

S = TypeVar("S", bound=ExtractionSettings)
_ON_GPU, _ANYWHERE = AUTO_EXTRACTORS


def preferred_extractor(settings: ExtractionSettings) -> str:
    """The extractor in use if its weights are available: that of `settings`, or for "auto" the device's.

    Raises:
        SettingsError: The device does not exist, or weights are named for "auto".
    """
    if settings.extractor != AUTO:
        return settings.extractor
    if settings.weights_path:
        raise SettingsError(
            f"parameter weights_path is {settings.weights_path!r} and extractor {AUTO!r}, which chooses a network by "
            "itself; expected extractor to name the network of these weights"
        )
    return _ON_GPU if resolve_device(settings.device).type == "cuda" else _ANYWHERE


def with_extractor(settings: S) -> tuple[S, str]:
    """`settings` with the extractor that "auto" stands for here, unchanged if they name one.

    On a GPU this may download weights.

    Returns:
        The settings, and one line for the user if the device's extractor is not available; else "".

    Raises:
        SettingsError: As `preferred_extractor`.
        WeightsError: A file of weights is not the published one.
    """
    name = preferred_extractor(settings)
    notice = ""
    if settings.extractor == AUTO and name != _ANYWHERE:
        try:
            ensure_weights(WEIGHTS[name], settings.weights_dir)
        except WeightsUnavailableError as error:
            notice = f"using {_ANYWHERE}, which comes with this package, instead of {name}: {error}"
            name = _ANYWHERE
    return replace(settings, extractor=name), notice
