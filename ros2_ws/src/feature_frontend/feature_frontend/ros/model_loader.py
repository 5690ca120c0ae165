"""Loads, verifies and warms models in a thread beside the stream, so that a change of model costs no frame."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.extractors.extractor import resolve_device
from feature_frontend.frontend import Frontend
from feature_frontend.settings import PARAMETERS, Settings

__all__ = [
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


def is_same_model(settings0: Settings, settings1: Settings) -> bool:
    """Whether both name the same model, run in the same way."""
    return all(getattr(settings0, name) == getattr(settings1, name) for name in MODEL_PARAMETERS)


def with_model_of(settings: Settings, model: Settings) -> Settings:
    """`settings` with those parameters that name the model taken from `model`."""
    return replace(settings, **{name: getattr(model, name) for name in MODEL_PARAMETERS})


def check_model(settings: Settings) -> None:
    """Accepts settings whose model may exist, as far as that can be told without loading it.

    Raises:
        SettingsError: There is no such device or no such file.
    """
    resolve_device(settings.device)
    if settings.weights_path and not Path(settings.weights_path).expanduser().is_file():
        msg = f"parameter weights_path is {settings.weights_path!r}; expected a file of weights that exists here"
        raise SettingsError(msg)


def names_left_weights(settings: Settings, model: Settings) -> bool:
    """Whether `settings` want another extractor than `model`, but name the file of weights that was meant for that."""
    return settings.extractor != model.extractor and settings.weights_path == model.weights_path != ""


@dataclass(frozen=True)
class LoadedModel:
    """What came of a wish.

    Attributes:
        settings: What was wished for.
        frontend: Holds the model, warm; None where it cannot be had.
        problem: Why not, in one line; empty where it can.
    """

    settings: Settings
    frontend: Frontend | None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class _Wish:
    settings: Settings
    image_size: tuple[int, int]


class ModelLoader:
    """Loads one model after another; only the latest wish counts. Its methods are called by one thread.

    Args:
        load: Makes a front-end with the model that settings name.
        on_done: Called in the loading thread when there is something to `take`.
    """

    def __init__(self, load: Callable[[Settings], Frontend], on_done: Callable[[], object]) -> None:
        self._load = load
        self._on_done = on_done
        self._lock = threading.Lock()
        self._wish: _Wish | None = None
        self._loaded: LoadedModel | None = None
        self._thread: threading.Thread | None = None

    @property
    def wanted(self) -> Settings | None:
        """What is being loaded or waits to be taken; None for nothing."""
        with self._lock:
            return self._wish.settings if self._wish is not None else None

    def request(self, settings: Settings, image_size: tuple[int, int]) -> None:
        """Begins to load a model instead of any earlier wish.

        Args:
            settings: Name the model.
            image_size: (height, width) px of the images to warm it for.
        """
        with self._lock:
            self._forget()
            self._wish = _Wish(settings, image_size)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="model-loader", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Wishes for nothing; a load under way goes on and is thrown away."""
        with self._lock:
            self._forget()

    def take(self) -> LoadedModel | None:
        """What came of the latest wish; None while there is nothing to take."""
        with self._lock:
            loaded = self._loaded
            if loaded is not None:
                self._wish, self._loaded = None, None
            return loaded

    def _forget(self) -> None:
        if self._loaded is not None:
            _close(self._loaded)
        self._wish, self._loaded = None, None

    def _work(self) -> None:
        while True:
            with self._lock:
                wish = self._wish
                if wish is None or self._loaded is not None:
                    self._thread = None
                    return
            loaded = self._attempt(wish)
            with self._lock:
                is_wanted = self._wish is wish
                if is_wanted:
                    self._loaded = loaded
            if is_wanted:
                self._on_done()
            else:
                _close(loaded)

    def _attempt(self, wish: _Wish) -> LoadedModel:
        # What the user asked for or nothing: while another model runs, a fallback would only surprise.
        settings = replace(wish.settings, fallback_extractor="")
        try:
            frontend = self._load(settings)
            frontend.warm_up(*wish.image_size)
        except Exception as error:
            # Out of memory, a kernel that this device lacks: whatever it is, the stream goes on with the old model.
            text = str(error) if isinstance(error, FeatureFrontendError) else f"{type(error).__name__}: {error}"
            # PyTorch lists every tensor that does not fit, a line each.
            return LoadedModel(wish.settings, None, textwrap.shorten(text, _MOST_CHARACTERS, placeholder=" ..."))
        return LoadedModel(wish.settings, frontend)


def _close(loaded: LoadedModel) -> None:
    if loaded.frontend is not None:
        loaded.frontend.close()
