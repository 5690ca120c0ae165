"""Captured computations in rehearsal: they respect CUDA graphs' restrictions, and replays match eager results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.image.resize import Resize
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.runtime.cuda_graphs import EagerGraphDevice, constants
from feature_frontend.settings import MatchingSettings, Settings
from tests.campaign import Campaign
from tests.conftest import REPOSITORY
from tests.core.rehearsal import Forbidden, RehearsalDevice, check_capturable
from tests.core.seeded import graph_extractor

Uint8Array = npt.NDArray[np.uint8]
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _One:
    value: torch.Tensor


_VALUES = torch.arange(6.0)
_MASK = _VALUES > 2
_ROWS = torch.tensor([0, 2])
_FORBIDDEN: dict[str, Callable[[], Any]] = {
    "item": lambda: _VALUES.sum().item(),
    "a branch": lambda: 1 if _VALUES.sum() > 0 else 0,
    "a number as a slice": lambda: _VALUES[: _ROWS[1]],
    "a number as a row": lambda: _VALUES[_ROWS[1]],
    "a list": _VALUES.tolist,
    "to the host": _VALUES.cpu,
    "to a device": lambda: _VALUES.to(_CPU),
    "to a device by name": lambda: _VALUES.to(device="cpu"),
    "to NumPy": _VALUES.numpy,
    "numbers of the host": lambda: torch.tensor([1.0, 2.0]),
    "numbers of the host, alike": lambda: _VALUES.new_tensor([1.0, 2.0]),
    "where": lambda: torch.where(_MASK),
    "nonzero": _MASK.nonzero,
    "a mask": lambda: _VALUES[_MASK],
    "writing by a mask": lambda: _VALUES.clone().__setitem__(_MASK, _VALUES[:3]),
    "writing a number by rows": lambda: _VALUES.clone().__setitem__(_ROWS, 1.0),
    "writing a number at a place": lambda: _VALUES.clone().__setitem__(-1, 1.0),
    "masked_select": lambda: _VALUES.masked_select(_MASK),
    "unique": _VALUES.unique,
    "equal": lambda: torch.equal(_VALUES, _VALUES),
    "bincount": _ROWS.bincount,
    "histc": lambda: _VALUES.histc(3),
    "nanmedian": _VALUES.nanmedian,
    "repeat_interleave": lambda: _ROWS.repeat_interleave(_ROWS),
    "eigh": lambda: torch.linalg.eigh(torch.eye(3)),
    "svd": lambda: torch.linalg.svd(torch.eye(3)),
    "solve": lambda: torch.linalg.solve(torch.eye(3), torch.eye(3)),
    "solve_ex": lambda: torch.linalg.solve_ex(torch.eye(3), torch.eye(3)),
    "inv": lambda: torch.linalg.inv(torch.eye(3)),
    "cholesky": lambda: torch.linalg.cholesky(torch.eye(3)),
    "index_add": lambda: _VALUES.index_add(0, _ROWS, _VALUES[:2]),
    "scatter_add": lambda: _VALUES.scatter_add(0, _ROWS, _VALUES[:2]),
    "scatter_reduce": lambda: _VALUES.scatter_reduce(0, _ROWS, _VALUES[:2], "sum"),
    "accumulating": lambda: _VALUES.index_put((_ROWS,), _VALUES[:2], accumulate=True),
}


@pytest.mark.parametrize("work", _FORBIDDEN.values(), ids=_FORBIDDEN)
def test_what_a_graph_cannot_hold_is_refused(work: Callable[[], Any]) -> None:
    work()
    with pytest.raises(Forbidden), check_capturable():
        work()


def test_what_a_graph_can_hold_is_not_refused() -> None:
    with check_capturable() as check:
        kept = _VALUES.clone()
        kept.index_fill_(0, _ROWS, 1.0)
        kept[-1:].fill_(2.0)
        kept[:2] = 3.0
        kept[_ROWS] = _VALUES[:2] * constants(_VALUES, 2.0, 3.0)
        torch.where(_MASK, kept, torch.nan).nanmedian(dim=0)
        _ROWS.scatter_add(0, torch.zeros_like(_ROWS), _ROWS)
        kept.to(torch.float64)
        assert kept.is_cuda, "the branch of a GPU is not followed"
    assert len(check.operations) > 10
    assert not _VALUES.is_cuda


def test_a_rehearsed_replay_runs_no_python() -> None:
    memory, count = torch.zeros(3), [0]

    def work() -> _One:
        count[0] += 1
        return _One(memory.flip(0)[1:] * count[0])

    graph = RehearsalDevice().capture(work)
    assert graph.result.value.isnan().all(), "nothing is computed before the first replay"
    runs = count[0]
    memory.copy_(_VALUES[:3])
    graph.replay()
    assert graph.result.value.tolist() == [1.0 * runs, 0.0]
    memory.add_(1.0)
    graph.replay()
    assert graph.result.value.tolist() == [2.0 * runs, 1.0 * runs]
    assert count[0] == runs


_VARIANTS = {
    "as it is": {},
    "several scales and a grid": {"multi_scale": True, "resize_height": 220, "distribution": "grid", "grid_rows": 3},
    "a grid and a border": {"distribution": "grid", "border": 20, "detection_threshold": 0.3},
    "another radius, resized": {"nms_radius": 4, "resize_height": 120},
    "no suppression": {"nms_radius": 0},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("name", ["aliked", "silk-vggnp-mu", "dotlet"])
@pytest.mark.parametrize("values", _VARIANTS.values(), ids=_VARIANTS)
def test_extraction_can_be_recorded(
    name: str, values: dict[str, Any], photographs: list[Uint8Array], campaign: Campaign
) -> None:
    if name.startswith("silk") and "precision" in values:
        campaign.only("SiLK in half precision, which a CPU computes slowly")
    settings = replace(Settings(max_num_keypoints=60), **values)
    rehearsed = graph_extractor(name, settings, RehearsalDevice())
    plain = graph_extractor(name, settings, EagerGraphDevice(_CPU))
    views = [np.ascontiguousarray(photograph[100:260, 100:300]) for photograph in photographs]
    mask = np.full(views[0].shape[:2], 255, np.uint8)
    mask[40:90, 60:150] = 0
    grey = np.ascontiguousarray(views[1][:, :, 1])
    for images, masks in (([views[0]], None), ([views[1]], None), ([views[2], grey], [None, mask])):
        for found, expected in zip(
            rehearsed.extract_batch(images, masks), plain.extract_batch(images, masks), strict=True
        ):
            assert len(found) > 10
            # In half precision scores tie, and a GPU's top-k, whose branch is followed, orders ties differently.
            is_same = (found.keypoints[:, None] == expected.keypoints).all(dim=2)
            if settings.precision == "float32":
                assert is_same.diagonal().all()
                assert torch.equal(found.scores, expected.scores)
                assert torch.equal(found.descriptors, expected.descriptors)
            else:
                assert is_same.any(dim=1).float().mean() > 0.9


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ratio_threshold": 0.9, "min_similarity": 0.2},
        {"double_softmax_threshold": 0.001},
        {"double_softmax_threshold": 0.001, "double_softmax_temperature": 0.01},
    ],
)
@pytest.mark.parametrize("block_elements", [None, 700])
def test_matching_can_be_recorded(values: dict[str, float], block_elements: int | None) -> None:
    matcher: Any = make_matcher(MatchingSettings.from_mapping({"matcher": "mnn", **values}))
    if block_elements is not None:
        matcher._block_elements = block_elements
    generator = torch.Generator().manual_seed(0)
    descriptors = torch.nn.functional.normalize(torch.randn((2, 60, 16), generator=generator), dim=2)
    descriptors[1, :40] = torch.nn.functional.normalize(descriptors[0, :40] + 0.1 * descriptors[1, :40], dim=1)
    first, second = descriptors.clone()
    counts = torch.tensor(50), torch.tensor(55)
    graph = RehearsalDevice().capture(lambda: matcher.padded(first, counts[0], second, counts[1]))
    for count0, count1 in ((50, 55), (60, 3), (0, 60), (60, 60)):
        counts[0].fill_(count0)
        counts[1].fill_(count1)
        graph.replay()
        found, expected = graph.result, matcher.padded(first, *counts[:1], second, *counts[1:])
        assert torch.equal(found.keep, expected.keep)
        assert torch.equal(found.index[found.keep], expected.index[found.keep])
        assert torch.equal(found.margin[found.keep], expected.margin[found.keep])
        assert bool(found.keep.any()) == (count0 > 0)


def test_coordinates_can_be_recorded() -> None:
    points = 100 * torch.rand((5, 2), generator=torch.Generator().manual_seed(0))
    resize = Resize(480, 640, 333, 517)
    with check_capturable():
        there = resize.apply(points)
        back = resize.invert(there)
    expected = (points + 0.5) * torch.tensor([517 / 640, 333 / 480]) - 0.5
    assert torch.equal(there, expected)
    torch.testing.assert_close(back, points)


def test_nothing_waits_for_the_whole_device() -> None:
    # While another thread captures, CUDA refuses that and ends the capture, whatever its mode.
    package = REPOSITORY / "ros2_ws" / "src" / "feature_frontend" / "feature_frontend"
    found = [str(path) for path in package.rglob("*.py") if "cuda.synchronize(" in path.read_text(encoding="utf-8")]
    assert not found, "use cuda_graphs.wait_for_own_work"
