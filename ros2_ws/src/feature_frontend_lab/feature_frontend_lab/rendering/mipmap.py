"""Mip-mapped textures: a picture at all the sizes from which a renderer reads without aliasing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Texture"]

# cv2.remap refuses maps of 32767 px a side; a list of samples is folded into rows of this length.
ROW_LENGTH = 4096


@dataclass(frozen=True)
class Texture:
    """A picture and its halvings.

    Attributes:
        levels: (H, W, 3) uint8 RGB, each half as large as the one before.
    """

    levels: tuple[npt.NDArray[np.uint8], ...]

    @staticmethod
    def from_image(image: npt.NDArray[np.uint8]) -> Texture:
        """The texture of an (H, W, 3) uint8 RGB picture."""
        levels = [np.ascontiguousarray(image)]
        while min(levels[-1].shape[:2]) > 1:
            height, width = levels[-1].shape[:2]
            half = cv2.resize(levels[-1], (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        return Texture(tuple(levels))

    @property
    def height(self) -> int:
        """Height of the full picture in px."""
        return int(self.levels[0].shape[0])

    @property
    def width(self) -> int:
        """Width of the full picture in px."""
        return int(self.levels[0].shape[1])

    def sample(
        self,
        horizontal: npt.NDArray[np.float32],
        vertical: npt.NDArray[np.float32],
        level: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.uint8]:
        """Reads (N, 3) uint8 colours, linear in both directions and between levels.

        Args:
            horizontal: (N,) position in [0, 1], 0 the left edge of the picture and 1 its right edge.
            vertical: (N,) position in [0, 1], 0 its top edge.
            level: (N,) base-2 logarithm of the footprint, in px of the full picture; below 0 reads the full picture.
        """
        level = np.clip(level, 0, len(self.levels) - 1)
        lower = np.floor(level).astype(np.int32)
        colours = np.empty((len(level), 3), np.uint8)
        for index in range(int(lower.min(initial=0)), int(lower.max(initial=-1)) + 1):
            chosen = np.flatnonzero(lower == index)
            if not len(chosen):
                continue
            at = horizontal[chosen], vertical[chosen]
            fine = self._read(index, *at)
            fraction = level[chosen] - index
            if index + 1 < len(self.levels) and fraction.any():
                coarse = self._read(index + 1, *at)
                blended = fine + (coarse.astype(np.float32) - fine) * fraction[:, None] + 0.5
                fine = blended.astype(np.uint8)
            colours[chosen] = fine
        return colours

    def _read(
        self, index: int, horizontal: npt.NDArray[np.float32], vertical: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        picture = self.levels[index]
        count = len(horizontal)
        rows = -(-count // ROW_LENGTH)
        folded = np.zeros((2, rows * ROW_LENGTH), np.float32)
        folded[0, :count] = horizontal * picture.shape[1] - 0.5
        folded[1, :count] = vertical * picture.shape[0] - 0.5
        maps = folded.reshape(2, rows, ROW_LENGTH)
        read = cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(read, np.uint8).reshape(-1, 3)[:count]
