"""Loads, verifies and warms up models and matchers in a background thread, so that a change costs no frame."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.background_loader import BackgroundLoader
from feature_frontend.ros.parameters import check_file
from feature_frontend.runtime.device import resolve_device
from feature_frontend.settings import PARAMETERS, ExtractionSettings, Settings
from feature_frontend.types import Features

__all__ = [
    "EXTRACTOR_PARAMETERS",
    "MODEL_PARAMETERS",
    "LoadedModel",
    "ModelLoader",
    "check_model",
    "is_same_model",
    "names_left_weights",
    "with_model_of",
]

_MOST_CHARACTERS = 500
MODEL_PARAMETERS = tuple(record.name for record in PARAMETERS.values() if record.reloads)
# The other model parameters are the matcher's and keep the extractor.
EXTRACTOR_PARAMETERS = tuple(name for name, record in ExtractionSettings.records().items() if record.reloads)


def is_same_model(settings0: Settings, settings1: Settings, names: Sequence[str] = MODEL_PARAMETERS) -> bool:
    """Whether both settings have equal values for these parameters: the same model, run in the same way."""
    return all(getattr(settings0, name) == getattr(settings1, name) for name in names)


def with_model_of(settings: Settings, model: Settings) -> Settings:
    """`settings` with the model parameters taken from `model`; all of `model` if they do not fit together.

    For example, a tracker or matcher for the model being loaded has to wait for it.
    """
    try:
        return replace(settings, **{name: getattr(model, name) for name in MODEL_PARAMETERS})
    except SettingsError:
        return model


def check_model(settings: Settings) -> None:
    """Checks as far as possible without loading it that the model exists.

    Raises:
        SettingsError: The device does not exist, or a file cannot be read.
    """
    resolve_device(settings.device)
    if settings.weights_path:
        check_file("weights_path", settings.weights_path, "a file of weights on the node's machine")


def names_left_weights(settings: Settings, model: Settings) -> bool:
    """Whether `settings` request another extractor than `model` but still name the weights file of `model`."""
    return settings.extractor != model.extractor and settings.weights_path == model.weights_path != ""


@dataclass(frozen=True)
class LoadedModel:
    """The result of a request.

    Attributes:
        settings: Requested.
        frontend: Holds the warmed-up model; None if the extractor stays, or the model cannot be loaded.
        problem: Why it cannot be loaded, in one line; empty otherwise.
    """

    settings: Settings
    frontend: Frontend | None
    problem: str = ""


class ModelLoader(BackgroundLoader[tuple[Settings, tuple[int, int], Extractor | None], LoadedModel]):
    """Loads one model at a time; only the latest request counts. Call its methods from one thread only.

    A request holds the settings that name the model, the (height, width) px of the images to warm it up for, and the
    extractor to keep if only the matcher changes, else None.

    Args:
        load: Creates a front-end with the model that the settings name.
        on_done: Called in the loading thread when a result is ready for `take`.
    """

    def __init__(self, load: Callable[[Settings], Frontend], on_done: Callable[[], object]) -> None:
        super().__init__("model-loader", self._attempt, on_done, _close)
        self._make = load

    @property
    def wanted(self) -> Settings | None:
        """The settings being loaded or ready to take; None if there are none."""
        wish = self.wish
        return wish[0] if wish is not None else None

    def _attempt(self, wish: tuple[Settings, tuple[int, int], Extractor | None]) -> LoadedModel:
        wanted, image_size, extractor = wish
        # No fallback: while another model runs, it would only surprise the user.
        settings = replace(wanted, fallback_extractor="")
        try:
            if extractor is not None:
                # Its weights stay cached for the matcher that the worker creates.
                features = _made_up(extractor, image_size)
                make_matcher(settings).match(features, features)
                return LoadedModel(wanted, None)
            frontend = self._make(settings)
            frontend.warm_up(*image_size)
        except Exception as error:
            # Out of memory, a kernel that this device lacks, ...: the stream continues with the old model.
            text = str(error) if isinstance(error, FeatureFrontendError) else f"{type(error).__name__}: {error}"
            # PyTorch lists every mismatched tensor, one per line.
            return LoadedModel(wanted, None, textwrap.shorten(text, _MOST_CHARACTERS, placeholder=" ..."))
        return LoadedModel(wanted, frontend)


def _made_up(extractor: Extractor, image_size: tuple[int, int]) -> Features:
    """Synthetic features of a model, to warm up a matcher."""
    none = extractor.nothing(*image_size)
    count, like = extractor.descriptor_dim, none.descriptors
    keypoints = torch.arange(2 * count, dtype=torch.float32, device=like.device).reshape(count, 2) % min(image_size)
    descriptors = torch.eye(count, dtype=like.dtype, device=like.device)
    return replace(none, keypoints=keypoints, scores=keypoints[:, 0], descriptors=descriptors)


def _close(loaded: LoadedModel) -> None:
    if loaded.frontend is not None:
        loaded.frontend.close()
