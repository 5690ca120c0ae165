"""Loads, verifies and warms models and matchers in a thread beside the stream, so that a change costs no frame."""

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
# The others are the matcher's: the extractor stays.
EXTRACTOR_PARAMETERS = tuple(name for name, record in ExtractionSettings.records().items() if record.reloads)


def is_same_model(settings0: Settings, settings1: Settings, names: Sequence[str] = MODEL_PARAMETERS) -> bool:
    """Whether both name the same model, run in the same way, as far as the parameters of these names say."""
    return all(getattr(settings0, name) == getattr(settings1, name) for name in names)


def with_model_of(settings: Settings, model: Settings) -> Settings:
    """`settings` with those parameters that name the model taken from `model`; all of `model` where these do not fit.

    A tracker or a matcher for the model that is being loaded has to wait for it.
    """
    try:
        return replace(settings, **{name: getattr(model, name) for name in MODEL_PARAMETERS})
    except SettingsError:
        return model


def check_model(settings: Settings) -> None:
    """Accepts settings whose model may exist, as far as that can be told without loading it.

    Raises:
        SettingsError: There is no such device, or no such file that can be read.
    """
    resolve_device(settings.device)
    if settings.weights_path:
        check_file("weights_path", settings.weights_path, "a file of weights on the node's machine")


def names_left_weights(settings: Settings, model: Settings) -> bool:
    """Whether `settings` want another extractor than `model`, but name the file of weights that was meant for that."""
    return settings.extractor != model.extractor and settings.weights_path == model.weights_path != ""


@dataclass(frozen=True)
class LoadedModel:
    """What came of a wish.

    Attributes:
        settings: What was wished for.
        frontend: Holds the model, warm; None where the extractor stays, or the model cannot be had.
        problem: Why not, in one line; empty where it can.
    """

    settings: Settings
    frontend: Frontend | None
    problem: str = ""


class ModelLoader(BackgroundLoader[tuple[Settings, tuple[int, int], Extractor | None], LoadedModel]):
    """Loads one model after another; only the latest wish counts. Its methods are called by one thread.

    A wish is the settings that name the model, (height, width) px of the images to warm it for, and the extractor that
    stays, as only the matcher is another one; None to load it.

    Args:
        load: Makes a front-end with the model that settings name.
        on_done: Called in the loading thread when there is something to `take`.
    """

    def __init__(self, load: Callable[[Settings], Frontend], on_done: Callable[[], object]) -> None:
        super().__init__("model-loader", self._attempt, on_done, _close)
        self._make = load

    @property
    def wanted(self) -> Settings | None:
        """What is being loaded or waits to be taken; None for nothing."""
        wish = self.wish
        return wish[0] if wish is not None else None

    def _attempt(self, wish: tuple[Settings, tuple[int, int], Extractor | None]) -> LoadedModel:
        wanted, image_size, extractor = wish
        # What the user asked for or nothing: while another model runs, a fallback would only surprise.
        settings = replace(wanted, fallback_extractor="")
        try:
            if extractor is not None:
                # Its weights stay in memory for the one that the worker makes.
                features = _made_up(extractor, image_size)
                make_matcher(settings).match(features, features)
                return LoadedModel(wanted, None)
            frontend = self._make(settings)
            frontend.warm_up(*image_size)
        except Exception as error:
            # Out of memory, a kernel that this device lacks: whatever it is, the stream goes on with the old model.
            text = str(error) if isinstance(error, FeatureFrontendError) else f"{type(error).__name__}: {error}"
            # PyTorch lists every tensor that does not fit, a line each.
            return LoadedModel(wanted, None, textwrap.shorten(text, _MOST_CHARACTERS, placeholder=" ..."))
        return LoadedModel(wanted, frontend)


def _made_up(extractor: Extractor, image_size: tuple[int, int]) -> Features:
    """Features that match, of a model."""
    none = extractor.nothing(*image_size)
    count, like = extractor.descriptor_dim, none.descriptors
    keypoints = torch.arange(2 * count, dtype=torch.float32, device=like.device).reshape(count, 2) % min(image_size)
    descriptors = torch.eye(count, dtype=like.dtype, device=like.device)
    return replace(none, keypoints=keypoints, scores=keypoints[:, 0], descriptors=descriptors)


def _close(loaded: LoadedModel) -> None:
    if loaded.frontend is not None:
        loaded.frontend.close()
