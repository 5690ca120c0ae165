"""What the teacher says about a pair: the score map of each view, and descriptors of points that both views show."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from feature_frontend.errors import WeightsError
from feature_frontend.extractors.base import DetectionOptions
from feature_frontend.extractors.networks.aliked import ALIKED_CONFIGS, Aliked
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.networks.layers.keypoint_detection import detect_padded
from feature_frontend.models.catalog import WEIGHTS
from feature_frontend.models.weights import ensure_weights
from feature_frontend.models.weights_file import fill_network
from feature_frontend_lab.training.checkpoint import write_atomically
from feature_frontend_lab.training.distill.pairs import DistillPair
from feature_frontend_lab.training.distill.settings import DistillSettings

__all__ = ["Teacher", "TeacherTargets", "published_network"]

_BORDER_PX = 4
# What the targets of a pair depend on, besides the data and the pair's number.
_DEPENDS_ON = (
    "teacher",
    "teacher_keypoints",
    "map_side",
    "seed",
    "rotation_deg",
    "perspective_share",
    "occlusion_tolerance",
)


@dataclass(frozen=True)
class TeacherTargets:
    """The teacher's output for one pair.

    Attributes:
        scores: (2, S, S) float16 in [0, 1].
        points: (2, P, 2) float32, (x, y) px: the teacher's keypoints of either view that the other one shows, and
            where the other one shows them; row by row the same points.
        descriptors: (2, P, D) float16, L2-normalised, of these points.
    """

    scores: torch.Tensor
    points: torch.Tensor
    descriptors: torch.Tensor

    def to(self, device: torch.device) -> TeacherTargets:
        """The same on `device`, in float32."""
        scores, descriptors = self.scores.to(device).float(), self.descriptors.to(device).float()
        return TeacherTargets(scores, self.points.to(device), descriptors)

    def as_bytes(self) -> bytes:
        """For a file; read by `from_bytes`."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: tensor.cpu().numpy() for name, tensor in vars(self).items()})
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> TeacherTargets:
        """Reads `as_bytes`; executes nothing."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return TeacherTargets(*(torch.from_numpy(arrays[name]) for name in ("scores", "points", "descriptors")))


def published_network(name: str) -> tuple[Aliked, str]:
    """A network of `ALIKED_CONFIGS` with its published weights, and their identity.

    Raises:
        WeightsError: They are not available.
    """
    found = ensure_weights(WEIGHTS[name])
    network = Aliked(ALIKED_CONFIGS[name])
    fill_network(network, found, name)
    return network.eval(), found.identity


class Teacher:
    """The teacher, with what it said kept in a folder.

    Args:
        settings: Which network, and how many keypoints.
        data: Description of the training data, which determines the pairs.
        folder: Where targets are kept; None: nowhere. Pays with a pool only.

    Raises:
        WeightsError: The teacher's weights are not available.
    """

    def __init__(self, settings: DistillSettings, data: str, folder: Path | None = None) -> None:
        network, identity = published_network(settings.teacher)
        self._network = FastAliked(network)
        self._options = DetectionOptions(settings.teacher_keypoints, 0.0, self._network.default_nms_radius, _BORDER_PX)
        self._folder = None
        if folder is not None and settings.pool:
            key = {"data": data, "weights": identity, **{name: getattr(settings, name) for name in _DEPENDS_ON}}
            self._folder = folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

    def targets(self, pairs: Sequence[DistillPair], device: torch.device) -> list[TeacherTargets]:
        """The targets of each pair, on `device`, where the teacher runs too."""
        kept = [self._read(pair) for pair in pairs]
        missing = [pair for pair, targets in zip(pairs, kept, strict=True) if targets is None]
        made = self._make(missing, device) if missing else []
        for pair, targets in zip(missing, made, strict=True):
            self._keep(pair, targets)
        new = iter(made)
        return [(next(new) if targets is None else targets).to(device) for targets in kept]

    @torch.no_grad()
    def _make(self, pairs: Sequence[DistillPair], device: torch.device) -> list[TeacherTargets]:
        network = self._network.to(device)
        dense = network.dense(torch.cat([pair.originals for pair in pairs]).to(device).float() / 255)
        found = detect_padded(network.score_maps(dense), self._options)
        made = []
        for number, pair in enumerate(pairs):
            both = slice(2 * number, 2 * number + 2)
            points = _shared(
                pair, [found.keypoints[row, : int(found.counts[row])] for row in (both.start, both.stop - 1)]
            )
            descriptors = network.describe(tuple(maps[both] for maps in dense), points)
            made.append(TeacherTargets(dense[0][both, 0].half(), points, descriptors.half()))
        return made

    def _path(self, pair: DistillPair) -> Path | None:
        return None if self._folder is None else self._folder / f"{pair.drawn}.npz"

    def _read(self, pair: DistillPair) -> TeacherTargets | None:
        path = self._path(pair)
        if path is None or not path.exists():
            return None
        try:
            return TeacherTargets.from_bytes(path.read_bytes())
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise WeightsError(f"{path} cannot be read: {error}; delete it, it is made again") from error

    def _keep(self, pair: DistillPair, targets: TeacherTargets) -> None:
        path = self._path(pair)
        if path is not None:
            write_atomically(path, targets.as_bytes())


def _shared(pair: DistillPair, keypoints: Sequence[torch.Tensor]) -> torch.Tensor:
    """(2, P, 2) points of either view that both show, from (N, 2) keypoints of each."""
    there0, visible0 = pair.warps[0].to(keypoints[0].device).warp(keypoints[0])
    there1, visible1 = pair.warps[1].to(keypoints[1].device).warp(keypoints[1])
    in_view0 = torch.cat([keypoints[0][visible0], there1[visible1]])
    in_view1 = torch.cat([there0[visible0], keypoints[1][visible1]])
    return torch.stack([in_view0, in_view1])
