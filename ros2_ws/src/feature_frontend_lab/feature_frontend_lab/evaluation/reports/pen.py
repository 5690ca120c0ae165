"""What the charts are drawn with: OpenCV, so that no plotting library is needed."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.system.text import printable

__all__ = ["COLORS", "FAINT", "GRID", "INK", "Canvas", "Color", "Pen"]

Canvas = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

INK, FAINT, GRID = (40, 44, 52), (120, 126, 134), (228, 231, 234)
# Distinguishable also without colour vision (Okabe and Ito), darkest first.
COLORS: tuple[Color, ...] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90),
    (150, 110, 60), (128, 0, 128), (0, 70, 60),
)  # fmt: skip

# OpenCV's fonts are lines: drawn large and made small, they come out smooth.
_OVERSAMPLING = 2


class Pen:
    """Draws on a white canvas; positions and sizes are px of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._canvas = np.full((height * _OVERSAMPLING, width * _OVERSAMPLING, 3), (255, 255, 255), np.uint8)

    def bar(self, left: float, top: float, width: float, height: float, color: Color) -> None:
        """A filled rectangle."""
        rows = slice(round(top * _OVERSAMPLING), round((top + height) * _OVERSAMPLING))
        self._canvas[rows, round(left * _OVERSAMPLING) : round((left + width) * _OVERSAMPLING)] = color

    def line(self, start: tuple[float, float], end: tuple[float, float], color: Color, width: int) -> None:
        """A straight line from `start` to `end`, (x, y)."""
        cv2.line(self._canvas, self._place(start), self._place(end), color, width * _OVERSAMPLING, cv2.LINE_AA)

    def dot(self, at: tuple[float, float], color: Color) -> None:
        """A filled circle of 8 px."""
        cv2.circle(self._canvas, self._place(at), 4 * _OVERSAMPLING, color, cv2.FILLED, cv2.LINE_AA)

    def text(
        self,
        text: str,
        left: int,
        middle: int,
        size: float,
        color: Color,
        *,
        bold: bool = False,
        align: float = 0.0,
    ) -> int:
        """Writes from `left` on (`align` 0), around it (0.5) or up to it (1), vertically centred on `middle`.

        Returns:
            The width of the text.
        """
        text = printable(text)  # OpenCV ends the process for names that are no UTF-8
        font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, size * _OVERSAMPLING, 3 if bold else 2
        (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
        place = (left * _OVERSAMPLING - round(align * width), middle * _OVERSAMPLING + height // 2)
        cv2.putText(self._canvas, text, place, font, scale, color, thickness, cv2.LINE_AA)
        return width // _OVERSAMPLING

    def picture(self) -> Canvas:
        """What was drawn, (H, W, 3) RGB."""
        return np.asarray(cv2.resize(self._canvas, self._size, interpolation=cv2.INTER_AREA), np.uint8)

    @staticmethod
    def _place(point: tuple[float, float]) -> tuple[int, int]:
        return round(point[0] * _OVERSAMPLING), round(point[1] * _OVERSAMPLING)
