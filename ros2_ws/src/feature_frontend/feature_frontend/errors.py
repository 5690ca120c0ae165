"""The exception tree: everything the package raises on purpose derives from `FeatureFrontendError`."""

from __future__ import annotations

from feature_frontend.system.text import printable


class FeatureFrontendError(Exception):
    """Base of every error this package raises on purpose; its text is meant for the user.

    It can be printed, logged and put into messages, whatever names of files and words of senders are in it.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class SettingsError(FeatureFrontendError):
    """A parameter has an unknown name, a wrong type, or a value out of its range."""


class WeightsError(FeatureFrontendError):
    """Weights are unknown, cannot be found or downloaded, have a wrong hash, or do not fit the network."""


class WeightsUnavailableError(WeightsError):
    """Weights are nowhere on this machine, and cannot be downloaded."""


class DownloadError(FeatureFrontendError):
    """Something cannot be downloaded, or is not what was expected.

    Attributes:
        status: The HTTP status where the answer was an error; None otherwise.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class ImageError(FeatureFrontendError):
    """An image has an unsupported type, shape, size, encoding or an inconsistent buffer."""


class DamagedImageError(ImageError):
    """Of an image that was whole once, a part is lost: it is cut off, empty or damaged."""


class MaskError(ImageError):
    """A mask has an unsupported type or shape, or not the size of its image; or an image's mask is missing."""


class OutOfMemoryError(FeatureFrontendError):
    """The memory of the device, or of the machine, does not suffice for an image."""


class MatchingError(FeatureFrontendError):
    """Two sets of features cannot be compared."""


class CalibrationError(FeatureFrontendError):
    """A camera calibration is malformed, unsupported, or does not belong to the image."""


class SourceError(FeatureFrontendError):
    """An input (folder, video, bag, camera) cannot be opened or read."""


class SnapshotError(FeatureFrontendError):
    """State cannot be kept for another process, or what was kept cannot be read."""


class DemoError(FeatureFrontendError):
    """The demo ran but did not show what it must show."""
