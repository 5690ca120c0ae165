"""MegaDepth (Li and Snavely, CVPR 2018) in the layout prepared by D2-Net's and LoFTR's scripts.

    ROOT/scene_info/SCENE.npz       image_paths, depth_paths (below ROOT), intrinsics (N, 3, 3), poses (N, 4, 4), world
                                    to camera; and which pairs overlap: overlap_matrix (N, N), or pair_infos
    the depth files                 HDF5 with the data set "depth", float, 0 if unknown; read by h5py

A path of None marks a missing photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_frontend.errors import SourceError
from feature_frontend_lab.training.aliked.object_arrays import load_npz
from feature_frontend_lab.training.aliked.posed import PosedPhotograph
from feature_frontend_lab.training.images import ColorImages

__all__ = ["MegaDepthScene", "read_megadepth"]

# Fraction of common 3D points in a pair; smaller overlaps show too little, larger ones teach too little.
_OVERLAP = (0.1, 0.7)
_KEYS = ("image_paths", "depth_paths", "intrinsics", "poses")

FloatArray = npt.NDArray[np.float64]


class MegaDepthScene:
    """The photographs of a scene file; see `PosedPhotographs`.

    Args:
        root: Folder to which the file's paths are relative.
        path: The scene file.

    Raises:
        SourceError: The file cannot be read, lacks an entry, or contains no overlapping pair.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        try:
            info = load_npz(path)
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {path}: {error}; expected a scene_info file of MegaDepth") from error
        missing = [key for key in _KEYS if key not in info]
        if missing:
            raise SourceError(f"{path} has no {', '.join(missing)}; expected a scene_info file of MegaDepth")
        self._images: Sequence[str | None] = info["image_paths"].tolist()
        self._depths: Sequence[str | None] = info["depth_paths"].tolist()
        self._matrices: list[FloatArray] = [np.asarray(value, np.float64) for value in info["intrinsics"]]
        self._poses: list[FloatArray] = [np.asarray(value, np.float64) for value in info["poses"]]
        self._pairs = self._overlapping(info)
        if not self._pairs:
            raise SourceError(f"{path} has no pair of images with an overlap from {_OVERLAP[0]} to {_OVERLAP[1]}")
        self._count = len({index for pair in self._pairs for index in pair})
        self.description = f"{self._count} images of {path}"

    def __len__(self) -> int:
        """Number of photographs that are part of a pair."""
        return self._count

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A random pair of the file, in random order."""
        first, second = self._pairs[int(rng.integers(len(self._pairs)))]
        return (first, second) if rng.random() < 0.5 else (second, first)

    def load(self, index: int) -> PosedPhotograph | None:
        """Photograph `index`; None if its files cannot be read.

        Raises:
            SourceError: The Python package h5py is missing.
        """
        image, depth = ColorImages.read(self._root / str(self._images[index])), self._depth(index)
        if image is None or depth is None or image.shape[:2] != depth.shape:
            return None
        # Poses are world to camera here.
        return PosedPhotograph(
            image, depth, self._matrices[index], np.asarray(np.linalg.inv(self._poses[index]), np.float64)
        )

    def _depth(self, index: int) -> npt.NDArray[np.float32] | None:
        path = self._root / str(self._depths[index])
        try:
            import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise SourceError(f"reading {path} needs the Python package h5py: pip install h5py") from error
        try:
            with h5py.File(path, "r") as file:
                return np.asarray(file["depth"], np.float32)
        except (OSError, KeyError):
            return None

    def _overlapping(self, info: dict[str, Any]) -> list[tuple[int, int]]:
        if "pair_infos" in info:
            listed = [((int(row[0][0]), int(row[0][1])), float(row[1])) for row in info["pair_infos"]]
        else:
            overlaps = np.asarray(info.get("overlap_matrix", np.zeros((0, 0))), np.float64)
            rows, columns = np.nonzero((overlaps >= _OVERLAP[0]) & (overlaps <= _OVERLAP[1]))
            listed = [((int(i), int(j)), float(overlaps[i, j])) for i, j in zip(rows, columns, strict=True) if i != j]
        return [
            pair
            for pair, overlap in listed
            if _OVERLAP[0] <= overlap <= _OVERLAP[1] and all(self._images[i] and self._depths[i] for i in pair)
        ]


def read_megadepth(root: Path) -> list[MegaDepthScene]:
    """Opens all scene files of a copy of MegaDepth.

    Raises:
        SourceError: There are none, or one is damaged.
    """
    files = sorted((root / "scene_info").glob("*.npz"))
    if not files:
        raise SourceError(
            f"there are no scene files {root / 'scene_info'}/*.npz; expected MegaDepth as D2-Net or LoFTR prepare it"
        )
    return [MegaDepthScene(root, file) for file in files]
