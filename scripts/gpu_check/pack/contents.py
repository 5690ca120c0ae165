"""The files of ../shared that the checks read, most important first, and the parts that read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from safetensors.torch import save_file

from feature_frontend.image.image_file import IMAGE_SUFFIXES
from feature_frontend.models.weights import cache_folder

__all__ = ["CONTENTS", "Content"]

# Maximum shorter side of a photograph for training, px: the size of the crops that training uses.
_PHOTOGRAPH_SIDE = 512
_PHOTOGRAPH_QUALITY = 80
# The first frames of 20 per sequence; the others add little.
_KITTI_FRAMES, _TUM_FRAMES = 12, 10


@dataclass(frozen=True)
class Content:
    """Files of ../shared that are packed together.

    Attributes:
        name: Name of the archive.
        what: Description.
        parts: Parts of the check that read it; empty for all.
        pattern: Files below ../shared.
        copy: Copies a file to its place in the packed folder.
        most_images: Maximum number of images; 0 for all.
    """

    name: str
    what: str
    parts: frozenset[str]
    pattern: str
    copy: Callable[[Path, Path], object] = shutil.copyfile
    most_images: int = 0

    def files(self, shared: Path) -> list[Path]:
        """The existing files; weights are also searched where `weights fetch` stores them."""
        found = sorted(path for path in shared.glob(self.pattern) if path.is_file())
        if not found and self.pattern.startswith("weights/"):
            found = sorted(cache_folder().glob(Path(self.pattern).name))
        images = [path for path in found if path.suffix in IMAGE_SUFFIXES]
        unwanted = set(images[self.most_images :]) if self.most_images else set()
        return [path for path in found if path not in unwanted]

    def fill(self, shared: Path, folder: Path) -> None:
        """Copies the files into `folder`, laid out as in `shared`."""
        for path in self.files(shared):
            target = folder / Path(self.pattern).parent / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy(path, target)


def _smaller(path: Path, target: Path) -> None:
    image = cv2.imread(str(path))
    if image is None:
        msg = f"cannot read {path}; expected an image"
        raise OSError(msg)
    factor = _PHOTOGRAPH_SIDE / min(image.shape[:2])
    if factor < 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    target = target.with_suffix(".webp")
    if not cv2.imwrite(str(target), image, [cv2.IMWRITE_WEBP_QUALITY, _PHOTOGRAPH_QUALITY]):
        msg = f"cannot write {target}: this OpenCV has no WebP"
        raise OSError(msg)


def _of_first_frames(path: Path, target: Path) -> None:
    """Stamps for as many frames as are packed: a file with more does not fit an image folder."""
    if path.name != "times.txt":
        shutil.copyfile(path, target)
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    target.write_text("".join(lines[:_KITTI_FRAMES]), encoding="utf-8")


def _halved(path: Path, target: Path) -> None:
    state = {name: value.half() for name, value in torch.load(path, weights_only=True).items()}
    save_file(state, target.with_name(f"{path.stem}_float16.safetensors"))


_ALL: frozenset[str] = frozenset()
_RIGHT = frozenset({"right"})
CONTENTS = (
    Content("weights-aliked", "weights of the four ALIKED", _ALL, "weights/aliked-*.pth"),
    Content(
        "kitti",
        f"KITTI: {_KITTI_FRAMES} frames, poses, camera",
        _ALL,
        "data/kitti00/*",
        _of_first_frames,
        most_images=_KITTI_FRAMES,
    ),
    Content(
        "tum",
        f"TUM freiburg2_desk: {_TUM_FRAMES} frames, poses, camera",
        _ALL,
        "data/tum_fr2_desk/*",
        most_images=_TUM_FRAMES,
    ),
    Content("golden-aliked", "outputs of the authors' ALIKED", _RIGHT, "golden/aliked/*.npz"),
    Content("golden-silk", "outputs of the authors' SiLK, its seeded checkpoints", _RIGHT, "golden/silk/*"),
    Content(
        "photographs",
        f"photographs to train on, shorter side at most {_PHOTOGRAPH_SIDE} px, WebP at quality {_PHOTOGRAPH_QUALITY}",
        frozenset({"train"}),
        "images/free/*.jpg",
        copy=_smaller,
    ),
    Content(
        "weights-lightglue",
        "weights of LightGlue for ALIKED, rounded to float16 (lightglue_weights_path)",
        frozenset({"right", "fast"}),
        "weights/aliked_lightglue.pth",
        copy=_halved,
    ),
)
