"""The exception hierarchy: every error that the package raises on purpose derives from `FeatureFrontendError`."""

from __future__ import annotations

from feature_frontend.system.text import printable


class FeatureFrontendError(Exception):
    """Base class of every error that this package raises on purpose; its text is meant for the user.

    The text is safe to print, log and put into messages, even if it quotes file names or input from a sender.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class SettingsError(FeatureFrontendError):
    """A parameter has an unknown name, a wrong type, or a value out of range."""


class WeightsError(FeatureFrontendError):
    """Weights are unknown, cannot be found or downloaded, have a wrong hash, or do not fit the network."""


class WeightsUnavailableError(WeightsError):
    """Weights are not on this machine and cannot be downloaded."""


class DownloadError(FeatureFrontendError):
    """A download failed, or returned something unexpected.

    Attributes:
        status: The HTTP status if the server answered with an error; None otherwise.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class ImageError(FeatureFrontendError):
    """An image has an unsupported type, shape, size or encoding, or an inconsistent buffer."""


class DamagedImageError(ImageError):
    """An image is truncated, empty or damaged."""


class MaskError(ImageError):
    """A mask has an unsupported type or shape, differs in size from its image, or is missing."""


class OutOfMemoryError(FeatureFrontendError):
    """The device or the machine has too little memory to process an image."""


class MatchingError(FeatureFrontendError):
    """Two sets of features cannot be compared."""


class CalibrationError(FeatureFrontendError):
    """A camera calibration is malformed, unsupported, or does not belong to the image."""


class SourceError(FeatureFrontendError):
    """An input (folder, video, bag, camera) cannot be opened or read."""


class SnapshotError(FeatureFrontendError):
    """State cannot be saved for another process, or saved state cannot be read."""


class DemoError(FeatureFrontendError):
    """The demo ran, but its results miss its requirements."""
