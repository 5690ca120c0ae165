"""The table of layouts, and how to open a folder in one of them."""

from __future__ import annotations

from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.image.limits import MAX_IMAGE_PIXELS
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.datasets.euroc import EurocSource
from feature_frontend.sources.datasets.kitti import KittiOdometrySource, KittiRawSource
from feature_frontend.sources.datasets.tum import TumSource

__all__ = ["LAYOUTS", "layout_of", "open_dataset"]

# In order of precedence.
LAYOUTS: tuple[type[DatasetSource], ...] = (EurocSource, TumSource, KittiOdometrySource, KittiRawSource)


def layout_of(path: Path) -> type[DatasetSource] | None:
    """The layout of a folder; None if it is in none of them."""
    return next((layout for layout in LAYOUTS if path.is_dir() and layout.matches(path)), None)


def open_dataset(path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> DatasetSource:
    """Opens a folder in one of the layouts.

    Raises:
        SourceError: It is in none of them, or an essential part is missing; the text names it.
    """
    layout = layout_of(path)
    if layout is None:
        names = ", ".join(layout.layout for layout in LAYOUTS)
        raise SourceError(f"folder {path} has none of the layouts {names}")
    return layout(path, max_pixels)
