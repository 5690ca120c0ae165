"""The persistent tracker, recorded, against the same padded work done operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.api import load_extractor
from feature_frontend.errors import ImageError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.geometry.fundamental import epipolar_residuals, fundamental_by_reweighting
from feature_frontend.geometry.small_matrices import smallest_eigenvector, solve_symmetric
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.pipeline.frontend import Frontend, FrontendState
from feature_frontend.pipeline.persistent import PersistentFrameMatcher
from feature_frontend.pipeline.persistent_cuda_graphs import PersistentGraphFrameMatcher
from feature_frontend.runtime.cuda_graphs import EagerGraphDevice
from feature_frontend.runtime.snapshot import pack, unpack
from feature_frontend.settings import Settings
from feature_frontend.types import FrameResult, FrameState
from tests.campaign import Campaign
from tests.core.rehearsal import RehearsalDevice
from tests.core.seeded import graph_extractor
from tests.tolerances import TRACKING

Uint8Array = npt.NDArray[np.uint8]
_CPU = torch.device("cpu")
_SETTINGS = Settings(max_num_keypoints=60, tracker="persistent", device="cpu", compile=False)
_HEIGHT, _WIDTH = 160, 200


class _Both:
    """A front-end whose frames are recorded and one whose frames are not, which must always say the same."""

    def __init__(self, make: Callable[[Any], Extractor], settings: Settings = _SETTINGS) -> None:
        self.recorder = RehearsalDevice()
        self.recorded = Frontend(make(self.recorder), settings)
        self.plain = Frontend(make(EagerGraphDevice(_CPU)), settings)
        assert isinstance(self.recorded._frame_matcher, PersistentGraphFrameMatcher)
        # The same padded shapes, not recorded.
        self.plain._frame_matcher = PersistentFrameMatcher(self.plain.extractor, make_matcher(settings), settings)
        self.number = 0

    def process(self, image: Uint8Array, mask: Uint8Array | None = None) -> FrameResult:
        self.number += 1
        found, expected = (
            frontend.process(image, self.number * 100_000_000, mask) for frontend in (self.recorded, self.plain)
        )
        assert (found.state, found.stamp0_ns) == (expected.state, expected.stamp0_ns)
        for name in ("keypoints", "scores", "descriptors"):
            assert torch.equal(getattr(found.features, name), getattr(expected.features, name)), name
        for name in ("indices0", "indices1", "similarity", "margin"):
            assert torch.equal(getattr(found.matches, name), getattr(expected.matches, name)), name
        for name in ("ids", "ages", "gaps", "velocities"):
            assert np.array_equal(getattr(found.tracks, name), getattr(expected.tracks, name)), name
        return found

    def each(self, action: Callable[[Frontend], object]) -> None:
        for frontend in (self.recorded, self.plain):
            action(frontend)

    def configure(self, **values: Any) -> None:
        self.each(lambda frontend: frontend.configure(replace(_SETTINGS, **values)))


def _windows(photograph: Uint8Array, count: int, height: int = _HEIGHT, width: int = _WIDTH) -> list[Uint8Array]:
    """What a camera sees that moves to the right and down."""
    corners = [(100 + 3 * number, 100 + 2 * number) for number in range(count)]
    return [np.ascontiguousarray(photograph[y : y + height, x : x + width]) for x, y in corners]


def _masks(both: _Both, views: list[Uint8Array]) -> None:
    mask = np.full((_HEIGHT, _WIDTH), 255, np.uint8)
    mask[40:90, 60:150] = 0
    for number, view in enumerate(views):
        both.process(view, mask if number % 3 else None)
    # The step without a mask and the one with it, of two recordings each.
    assert both.recorder.captured == 4


def _blank_images(both: _Both, views: list[Uint8Array]) -> None:
    blank = np.full((_HEIGHT, _WIDTH), 90, np.uint8)
    for image in [blank, *views[:3], blank, views[3], views[4], blank, blank, views[5]]:
        both.process(image)
    assert both.recorder.captured == 2
    both.each(lambda frontend: frontend.reset())
    assert both.process(blank).state == FrameState.DEGENERATE


def _forgetting(both: _Both, views: list[Uint8Array]) -> None:
    for number, view in enumerate(views):
        if number in {2, 5}:
            both.each(lambda frontend: frontend.reset("asked for"))
        both.process(view)
    assert both.recorder.captured == 2, "what was recorded before serves again"


def _other_sizes(both: _Both, views: list[Uint8Array]) -> None:
    small = [np.ascontiguousarray(view[:128, :160]) for view in views]
    for image in (*views[:3], *small[3:6], *views[6:]):
        both.process(image)
    assert both.recorder.captured == 4, "what was recorded before serves again"
    with pytest.raises(ImageError):
        both.recorded.process(np.zeros((5, 5), np.uint8), 10**12)
    assert len(both.process(views[7]).matches) > 10, "a bad image has changed something"


def _less_time(both: _Both, views: list[Uint8Array]) -> None:
    for number, view in enumerate(views):
        fraction = 0.5 if number in {3, 4, 5} else 1.0
        for frontend in (both.recorded, both.plain):
            frontend.extractor.pixel_fraction = fraction
        both.process(view)
    assert both.recorder.captured == 4


def _less_memory(both: _Both, views: list[Uint8Array]) -> None:
    for number, view in enumerate(views):
        if number == 4:
            both.each(lambda frontend: frontend.free_memory())
        both.process(view)
    assert both.recorder.captured == 4, "what has been freed is recorded again"


def _more_and_fewer_points(both: _Both, views: list[Uint8Array]) -> None:
    for budget, numbers in ((60, (0, 1, 2)), (90, (3, 4, 5)), (30, (6, 7, 6)), (60, (5, 4, 3))):
        both.configure(max_num_keypoints=budget)
        for number in numbers:
            assert len(both.process(views[number]).features) <= budget


def _changed_options(both: _Both, views: list[Uint8Array]) -> None:
    changes: list[dict[str, Any]] = [
        {"track_max_gap": 0},
        {"track_min_similarity": 0.9},
        {"track_epipolar_px": 0.0},
        {"track_survival_fraction": 0.0},
        {"nms_radius": 4, "border": 12, "detection_threshold": 0.3},
        {"distribution": "grid", "grid_rows": 3},
        {"resize_height": 120},
    ]
    for change in changes:
        both.configure(**change)
        for view in views[:3]:
            both.process(view)
    assert len(both.recorded.extractor._execution._frames) == 4  # type: ignore[attr-defined]


_SCENARIOS = [
    _masks,
    _blank_images,
    _forgetting,
    _other_sizes,
    _less_time,
    _less_memory,
    _more_and_fewer_points,
    _changed_options,
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aliked", "silk-vggnp-mu"])
@pytest.mark.parametrize("scenario", _SCENARIOS, ids=lambda scenario: scenario.__name__.strip("_"))
def test_recorded_frames_give_what_plain_ones_give(
    scenario: Callable[[_Both, list[Uint8Array]], None], name: str, photographs: list[Uint8Array], campaign: Campaign
) -> None:
    if not campaign.is_whole and name != "aliked":
        pytest.skip("a second network: make campaign")
    scenario(_Both(lambda recorder: graph_extractor(name, _SETTINGS, recorder)), _windows(photographs[0], 8))


def test_a_real_sequence_is_recorded_once(photographs: list[Uint8Array]) -> None:
    both = _Both(lambda recorder: graph_extractor("silk-vggnp-mu", _SETTINGS, recorder))
    results = [both.process(np.ascontiguousarray(photograph[:240, :320])) for photograph in photographs]
    assert both.recorder.captured == 2
    assert [result.state for result in results] == [FrameState.FIRST, FrameState.OK, FrameState.OK]
    assert (results[2].tracks.ages == 3).sum() > 10
    assert results[1].times.extraction_ms > 0
    assert results[1].times.matching_ms > 0
    kept = results[1].features.keypoints.clone()
    both.process(photographs[0][:240, :320])
    assert torch.equal(results[1].features.keypoints, kept), "the next frame has overwritten it"


def test_dotlet_is_recorded_once_too(photographs: list[Uint8Array]) -> None:
    # Random weights find a point again only where the image has not changed.
    both = _Both(lambda recorder: graph_extractor("dotlet", _SETTINGS, recorder))
    results = [both.process(np.ascontiguousarray(photographs[0][:240, :320])) for _ in range(3)]
    assert both.recorder.captured == 2
    assert [result.state for result in results] == [FrameState.FIRST, FrameState.OK, FrameState.OK]
    assert (results[2].tracks.ages == 3).sum() > 10


def test_a_right_image_goes_beside_it(photographs: list[Uint8Array]) -> None:
    settings = replace(_SETTINGS, camera_type="stereo")
    recorded, alone = (
        Frontend(graph_extractor("silk-vggnp-mu", settings, recorder), settings)
        for recorder in (RehearsalDevice(), EagerGraphDevice(_CPU))
    )
    for number, view in enumerate(_windows(photographs[0], 3)):
        right = np.ascontiguousarray(photographs[1][:_HEIGHT, :_WIDTH])
        result, expected = recorded.process(view, number, right=right), alone.process(view, number)
        assert result.tracks.ids.tobytes() == expected.tracks.ids.tobytes()
        assert result.right is not None
        assert torch.equal(result.right.keypoints, alone.extractor.extract(right).keypoints)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aliked-t16", "aliked-n16"])
@pytest.mark.parametrize("sequence", ["tum_fr2_desk", "kitti00"])
def test_published_weights_on_real_sequences(name: str, sequence: str, shared: Path, weights_dir: str) -> None:
    paths = sorted((shared / "data" / sequence).glob("*.png"))[:6]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.uint8) for path in paths]
    settings = replace(_SETTINGS, max_num_keypoints=300, resize_height=240)

    def make(recorder: Any) -> Extractor:
        loaded = load_extractor(name, device="cpu", compile=False, weights_dir=weights_dir)
        return Extractor(loaded._network, loaded.identity, settings, _CPU, recorder, has_maps=True)  # type: ignore[arg-type]

    both = _Both(make, settings)
    ages = [both.process(image).tracks.ages for image in images]
    assert both.recorder.captured == 2
    assert (ages[-1] == len(images)).mean() > 0.2


def test_a_recorded_run_continues_in_another_process(photographs: list[Uint8Array]) -> None:
    views = _windows(photographs[0], 6)
    first, second = (
        Frontend(graph_extractor("silk-vggnp-mu", _SETTINGS, recorder), _SETTINGS)
        for recorder in (RehearsalDevice(), RehearsalDevice())
    )
    for number in range(4):
        first.process(views[number], number)
    second.set_state(unpack(pack(first.get_state()), FrontendState))
    for number in range(4, 6):
        expected, found = (frontend.process(views[number], number) for frontend in (first, second))
        assert len(found.matches) > 10
        assert found.tracks.ids.tobytes() == expected.tracks.ids.tobytes()
        assert found.tracks.ages.tobytes() == expected.tracks.ages.tobytes()
        assert torch.equal(found.features.keypoints, expected.features.keypoints)
        assert torch.equal(found.matches.margin, expected.matches.margin)
    assert second.extractor.graph_device is not None
    assert second.extractor.graph_device.captured == 2  # type: ignore[attr-defined]


class _FullRecorder(RehearsalDevice):
    """Has no memory to record with."""

    is_full = False

    def capture(self, work: Callable[[], Any]) -> Any:
        if self.is_full:
            work()
            msg = "CUDA out of memory"
            raise torch.cuda.OutOfMemoryError(msg)
        return super().capture(work)


def test_what_cannot_be_recorded_changes_nothing(photographs: list[Uint8Array]) -> None:
    views, recorder = _windows(photographs[0], 6), _FullRecorder()
    frontend, undisturbed = (
        Frontend(graph_extractor("silk-vggnp-mu", _SETTINGS, one), _SETTINGS)
        for one in (recorder, EagerGraphDevice(_CPU))
    )
    mask = np.full((_HEIGHT, _WIDTH), 255, np.uint8)
    for number, view in enumerate(views):
        if number == 3:
            recorder.is_full = True
            with pytest.raises(torch.cuda.OutOfMemoryError):
                frontend.process(view, number, mask)
            frontend.free_memory()
            recorder.is_full = False
        found, expected = frontend.process(view, number), undisturbed.process(view, number)
        assert found.tracks.ids.tobytes() == expected.tracks.ids.tobytes()
        assert torch.equal(found.features.keypoints, expected.features.keypoints)


def test_small_matrices_are_decomposed_as_lapack_does() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (3, 9):
        for smallest in (1.0, 1e-3, 1e-9, 0.0):
            rotation = torch.linalg.qr(torch.randn((size, size), generator=generator).double()).Q
            values = torch.cat([torch.tensor([smallest]), 2.0 + torch.rand(size - 1, generator=generator)]).double()
            matrix = rotation @ torch.diag(values) @ rotation.T
            vector = smallest_eigenvector(matrix)
            assert float((vector @ rotation[:, 0]).abs()) == pytest.approx(1.0, abs=1e-12)
    assert torch.isfinite(smallest_eigenvector(torch.zeros((9, 9), dtype=torch.float64))).all()
    design = torch.randn((200, 5, 3), generator=generator)
    matrices = design.transpose(1, 2) @ design + 0.01 * torch.eye(3)
    values = torch.randn((200, 3, 2), generator=generator)
    truth = torch.linalg.solve(matrices.double(), values.double())
    own = (solve_symmetric(matrices, values) - truth).abs()
    of_lapack = (torch.linalg.solve(matrices, values) - truth).abs()
    # Without pivots, which costs half a bit.
    assert own.square().mean() <= 4.0 * of_lapack.square().mean()


@pytest.mark.parametrize("is_planar", [False, True])
def test_the_epipolar_geometry_is_the_same_without_waiting(*, is_planar: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.tensor([-3, -2, 4.0]) + torch.tensor([6, 4, 6.0]) * torch.rand((300, 3), generator=generator)
    if is_planar:
        points[:, 2] = 5.0 + 0.1 * points[:, 0]
    moved = points + torch.tensor([0.3, 0.05, 0.1])
    points0, points1 = (p[:, :2] / p[:, 2:] * 500 + torch.tensor([320.0, 240.0]) for p in (points, moved))
    points1 = points1 + 0.2 * torch.randn((300, 2), generator=generator)
    points1[:30] += 40 * torch.randn((30, 2), generator=generator)
    for is_used in (torch.ones(300, dtype=torch.bool), torch.arange(300) % 3 > 0):
        residuals = [
            epipolar_residuals(
                points0, points1, fundamental_by_reweighting(points0, points1, is_used, is_padded=is_padded)
            )
            for is_padded in (False, True)
        ]
        # In a plane the geometry is not unique, and found by rounding; what fits it is what fits it.
        assert float((residuals[0][30:] - residuals[1][30:]).abs().quantile(0.99)) < (0.1 if is_planar else 1e-6)
    nothing = fundamental_by_reweighting(points0, points1, is_used & False, is_padded=True)
    assert nothing.shape == (3, 3)


_on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=_on_gpu)])
def test_a_device_follows_as_a_cpu_does(device: str, precision: str, photographs: list[Uint8Array]) -> None:
    images = [photograph[:240, :320] for photograph in photographs]
    settings = replace(_SETTINGS, extractor="silk-vggnp-mu", max_num_keypoints=150)
    on_device, on_cpu = (
        Frontend.from_pretrained(one) for one in (replace(settings, device=device, precision=precision), settings)
    )
    is_exact = precision == "float32"
    within_px, least = (TRACKING.same_point_px, TRACKING.fraction_same_when_padded) if is_exact else (1.5, 0.85)
    for number, image in enumerate(images):
        found, expected = (frontend.process(image, number) for frontend in (on_device, on_cpu))
        points, truth = found.features.keypoints, expected.features.keypoints
        distances = torch.cdist(points, truth, compute_mode="donot_use_mm_for_euclid_dist")
        assert found.features.keypoints.device.type == "cpu"
        assert (distances.amin(dim=1) < within_px).float().mean() >= least
        assert abs(int(found.tracks.ages.sum()) - int(expected.tracks.ages.sum())) <= 0.1 * found.tracks.ages.sum()
    if device == "cuda":
        assert isinstance(on_device._frame_matcher, PersistentGraphFrameMatcher)
        assert not (is_exact and torch.backends.cudnn.allow_tf32)


@pytest.mark.parametrize("tracker", ["chain", "persistent"])
@pytest.mark.parametrize(
    ("device", "count"), [("cpu", 3), pytest.param("cuda", 100, marks=_on_gpu)], ids=["cpu", "cuda"]
)
def test_the_same_frame_gives_the_same_bytes(
    device: str, count: int, tracker: str, photographs: list[Uint8Array]
) -> None:
    settings = replace(_SETTINGS, extractor="silk-vggnp-mu", max_num_keypoints=150, device=device, tracker=tracker)
    frontend = Frontend.from_pretrained(settings)
    images = [photograph[:240, :320] for photograph in photographs]
    seen: set[bytes] = set()
    for _ in range(count):
        frontend.reset()
        results = [frontend.process(image, number) for number, image in enumerate(images)]
        arrays = [
            array.numpy()
            for result in results
            for array in (result.features.keypoints, result.features.descriptors, result.matches.margin)
        ]
        seen.add(b"".join(array.tobytes() for array in arrays))
    assert len(seen) == 1
