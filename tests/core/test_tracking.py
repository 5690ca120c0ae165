"""The persistent tracker: the shipped network on windows that move over photographs, with known motion."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.api import load_extractor
from feature_frontend.errors import SettingsError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.geometry.fundamental import epipolar_residuals, fundamental_by_reweighting
from feature_frontend.geometry.relative_pose import epipolar_distances, fundamental_matrix
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.runtime.cuda_graphs import EagerGraphDevice
from feature_frontend.settings import Settings
from feature_frontend.tracking.local_motion import local_motion
from feature_frontend.tracking.lucas_kanade import align_patches
from feature_frontend.tracking.track_table import TrackAssociation, TrackTable
from feature_frontend.types import Features, FrameResult, FrameState
from feature_frontend_lab.evaluation.tracks.metrics import fraction_alive, fraction_seen, pairs_at, position_drift_px
from tests.tolerances import TRACKING

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

_HEIGHT, _WIDTH = 240, 320
_STEP_PX = np.array([3, 2])
_BUDGET = 150
_SETTINGS = Settings(
    extractor="silk-vggnp-mu", device="cpu", compile=False, max_num_keypoints=_BUDGET, tracker="persistent"
)


def _windows(photograph: Uint8Array, count: int) -> list[Uint8Array]:
    """What a camera sees that moves to the right and down: points move by -`_STEP_PX`."""
    corners = [(30 + number * _STEP_PX).tolist() for number in range(count)]
    return [np.ascontiguousarray(photograph[y : y + _HEIGHT, x : x + _WIDTH]) for x, y in corners]


def _noisy(images: list[Uint8Array]) -> list[Uint8Array]:
    """With noise, which changes from image to image who is among the best."""
    generator = np.random.default_rng(0)
    noisy = [image + generator.normal(0.0, 6.0, (*image.shape[:2], 1)) for image in images]
    return [image.clip(0, 255).astype(np.uint8) for image in noisy]


def _run(images: list[Uint8Array], settings: Settings = _SETTINGS) -> list[FrameResult]:
    frontend = Frontend.from_pretrained(settings)
    return [frontend.process(image, number * 100_000_000) for number, image in enumerate(images)]


def _distances(points0: torch.Tensor, points1: torch.Tensor) -> torch.Tensor:
    """(N0, N1) px, exact also where points are near each other."""
    return torch.cdist(points0, points1, compute_mode="donot_use_mm_for_euclid_dist")


def _check_consistent(results: list[FrameResult], budget: int) -> None:
    """Features, matches and tracks of each image tell the same story."""
    for result in results:
        tracks, features = result.tracks, result.features
        assert len(tracks) == len(features) <= budget
        assert tracks.feature_indices.tolist() == list(range(len(tracks)))
        assert np.array_equal(tracks.keypoints, features.keypoints.numpy())
        assert len(np.unique(tracks.ids)) == len(tracks)
        torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(len(features)), atol=1e-4, rtol=0)
        assert ((features.scores >= 0) & (features.scores <= 1)).all()
    for earlier, later in pairwise(results):
        rows0, rows1 = later.matches.indices0.numpy(), later.matches.indices1.numpy()
        ids0, ids1 = earlier.tracks.ids[rows0], later.tracks.ids[rows1]
        assert np.array_equal(ids0, ids1)
        assert set(ids0.tolist()) == set(earlier.tracks.ids.tolist()) & set(later.tracks.ids.tolist())
        assert (np.diff(rows0) > 0).all()
        assert torch.equal(later.keypoints0, earlier.features.keypoints[later.matches.indices0])
        cosine = (earlier.features.descriptors[rows0] * later.features.descriptors[rows1]).sum(dim=1)
        torch.testing.assert_close(later.matches.similarity, cosine, atol=1e-4, rtol=0)


def test_points_live_on_where_a_small_budget_drops_them(photographs: list[Uint8Array]) -> None:
    images = _noisy(_windows(photographs[0], 8))
    results = _run(images)
    _check_consistent(results, _BUDGET)
    tracks = [result.tracks for result in results]
    chain = [result.tracks for result in _run(images, replace(_SETTINGS, tracker="chain"))]
    alive, of_chain = fraction_alive(tracks), fraction_alive(chain)
    assert alive[5] >= TRACKING.fraction_alive_in_noise
    assert alive[5] >= 1.5 * of_chain[5]
    extractor = load_extractor("silk-vggnp-mu", device="cpu", compile=False, max_num_keypoints=_BUDGET)
    detections = [extractor.extract(image).keypoints.numpy() for image in images]
    assert position_drift_px(tracks, detections) <= TRACKING.drift_px
    picked = [
        float((np.abs(of_frame.keypoints[:, None] - detected).max(axis=2).min(axis=1) < 0.5).mean())
        for of_frame, detected in zip(tracks[1:], detections[1:], strict=True)
    ]
    assert max(picked) < 0.95, "hardly a point was found again that the budget did not pick"
    velocities = results[-1].tracks.velocities[results[-1].tracks.ages > 1]
    assert np.abs(np.median(velocities, axis=0) + 10 * _STEP_PX).max() <= TRACKING.velocity_px_s


def test_points_are_where_they_should_be_in_noise(photographs: list[Uint8Array]) -> None:
    of_photographs = [[result.tracks for result in _run(_noisy(_windows(photograph, 8)))] for photograph in photographs]
    for gap in (1, 5):
        is_true = [
            np.linalg.norm(points1 - points0 + gap * _STEP_PX, axis=1) <= 1.0
            for tracks in of_photographs
            for _, points0, points1 in pairs_at(tracks, gap)
        ]
        assert np.concatenate(is_true).mean() >= TRACKING.fraction_true_in_noise


def test_an_image_that_shows_nothing_of_them_is_bridged(photographs: list[Uint8Array]) -> None:
    images = _windows(photographs[0], 6)
    images[3] = np.full_like(images[3], 90)
    results = _run(images)
    _check_consistent(results, _BUDGET)
    before, blank, after = results[2], results[3], results[4]
    assert (blank.state, len(blank.tracks), len(blank.matches)) == (FrameState.DEGENERATE, 0, 0)
    assert (after.state, len(after.matches)) == (FrameState.OK, 0)
    linked = np.isin(after.tracks.ids, before.tracks.ids)
    assert linked.mean() >= TRACKING.fraction_relinked
    assert set(after.tracks.gaps[linked].tolist()) <= {1, 2, 3}
    assert (after.tracks.gaps[linked] == 1).mean() > 0.8
    ages = dict(zip(before.tracks.ids.tolist(), before.tracks.ages.tolist(), strict=True))
    assert all(
        age == ages[name] + 1
        for name, age in zip(after.tracks.ids[linked].tolist(), after.tracks.ages[linked].tolist(), strict=True)
    )
    # Over two images, at 10 Hz.
    fastest = after.tracks.velocities[linked]
    assert np.abs(np.median(fastest, axis=0) + 10 * _STEP_PX).max() <= TRACKING.velocity_px_s
    assert set(_run(images, replace(_SETTINGS, track_max_gap=0))[4].tracks.ages.tolist()) == {1}


def test_no_track_is_seen_in_an_unrelated_image(photographs: list[Uint8Array]) -> None:
    images = _windows(photographs[0], 6)
    unrelated = np.ascontiguousarray(photographs[0][::-1, ::-1][:_HEIGHT, :_WIDTH])
    noise = np.random.default_rng(0).integers(0, 256, unrelated.shape, dtype=np.uint8)
    for intruder in (unrelated, noise):
        results = _run([*images[:4], intruder, images[5]])
        tracks = [result.tracks for result in results]
        assert fraction_seen(tracks, 4) <= TRACKING.fraction_invented
        assert np.isin(tracks[3].ids, tracks[5].ids).mean() >= TRACKING.fraction_relinked
        _check_consistent(results, _BUDGET)


def test_the_same_images_give_the_same_tracks(photographs: list[Uint8Array]) -> None:
    images = [photograph[:_HEIGHT, :_WIDTH] for photograph in photographs]
    for one, other in zip(_run(images), _run(images), strict=True):
        assert one.tracks.ids.tobytes() == other.tracks.ids.tobytes()
        assert one.tracks.keypoints.tobytes() == other.tracks.keypoints.tobytes()
        assert torch.equal(one.features.descriptors, other.features.descriptors)
        assert torch.equal(one.matches.margin, other.matches.margin)


def test_masks_border_and_threshold_hold_for_points_found_again(photographs: list[Uint8Array]) -> None:
    mask = np.full((_HEIGHT, _WIDTH), 255, np.uint8)
    mask[60:120, 100:220] = 0
    frontend = Frontend.from_pretrained(replace(_SETTINGS, border=20, detection_threshold=0.3, resize_height=200))
    continued: list[int] = []
    for number, image in enumerate(_windows(photographs[0], 5)):
        result = frontend.process(image, number, mask)
        x, y = (result.features.keypoints + 0.5).floor().long().unbind(1)
        assert (mask[y.numpy(), x.numpy()] > 0).all()
        edge = 20 * _HEIGHT / 200 - 1
        assert min(x.min(), y.min()) >= edge
        assert min(_WIDTH - 1 - x.max(), _HEIGHT - 1 - y.max()) >= edge
        assert (result.features.scores > 0.3).all()
        continued.append(int((result.tracks.ages > 1).sum()))
    assert min(continued[1:]) > 30


def test_results_may_be_used_with_autograd(photographs: list[Uint8Array]) -> None:
    result = _run(_windows(photographs[0], 2))[1]
    weight = torch.ones((), requires_grad=True)
    tensors = (result.features.keypoints, result.features.scores, result.features.descriptors)
    for tensor in (*tensors, result.matches.similarity, result.matches.margin):
        (weight * tensor).sum().backward()
        tensor.add_(1.0)
    assert weight.grad is not None


def test_what_forgets_ends_all_tracks_and_ids_go_on(photographs: list[Uint8Array]) -> None:
    image = photographs[0][:_HEIGHT, :_WIDTH]
    frontend = Frontend.from_pretrained(_SETTINGS)
    seen: set[int] = set()

    def process(stamp_ns: int) -> FrameResult:
        result = frontend.process(image, stamp_ns)
        ids = set(result.tracks.ids.tolist())
        assert (result.state, set(result.tracks.ages.tolist()), ids & seen) == (FrameState.FIRST, {1}, set())
        seen.update(ids)
        assert len(frontend.process(image, stamp_ns + 1).matches) > 0.7 * len(ids)
        return result

    process(10)
    frontend.reset("asked for")
    assert process(20).reason == "asked for"
    assert process(3).reason.startswith("the stamp went back")
    frontend.configure(replace(_SETTINGS, tracker="chain"))
    assert process(30).reason == "tracker is now chain"
    frontend.configure(_SETTINGS)
    assert process(40).reason == "tracker is now persistent"
    frontend.swap_model(Frontend.from_pretrained(replace(_SETTINGS, max_num_keypoints=80)), "another model")
    assert process(50).reason == "another model"
    frontend.configure(replace(_SETTINGS, max_num_keypoints=40, track_survival_fraction=1.0))
    assert 20 < len(frontend.process(image, 60).features) <= 40


def test_padded_shapes_find_the_same_points(photographs: list[Uint8Array]) -> None:
    images = [photograph[:_HEIGHT, :_WIDTH] for photograph in photographs]
    plain = _run(images)
    extractor = load_extractor("silk-vggnp-mu", device="cpu", compile=False)
    network, identity = extractor._network, extractor.identity
    captured = Extractor(
        network, identity, _SETTINGS, torch.device("cpu"), EagerGraphDevice(torch.device("cpu")), has_maps=True
    )  # type: ignore[arg-type]
    frontend = Frontend(captured, _SETTINGS)
    for number, (image, expected) in enumerate(zip(images, plain, strict=True)):
        found = frontend.process(image, number * 100_000_000)
        distances = _distances(found.features.keypoints, expected.features.keypoints)
        # Of neighbours equally far away either may count, which moves a point by hundredths of a pixel.
        assert (distances.amin(dim=1) < TRACKING.same_point_px).float().mean() >= TRACKING.fraction_same_when_padded
        assert abs(int(found.tracks.ages.sum()) - int(expected.tracks.ages.sum())) <= 0.05 * found.tracks.ages.sum()


def test_a_network_without_maps_is_refused() -> None:
    extractor = load_extractor("silk-vggnp-mu", device="cpu", compile=False)
    network = torch.nn.Identity()
    refused = Extractor(network, extractor.identity, _SETTINGS, torch.device("cpu"))
    with pytest.raises(SettingsError, match="use tracker:=chain"):
        Frontend(refused, _SETTINGS)


def test_convention_gaps_count_missed_images_and_velocity_spans_them() -> None:
    def features(points: list[tuple[float, float]]) -> Features:
        keypoints = torch.tensor(points).reshape(-1, 2)
        return Features(keypoints, torch.ones(len(points)), torch.ones((len(points), 4)), 480, 640, "test@0")

    def continuation(origins: tuple[int, int], rows: tuple[int, int], quality: float) -> TrackAssociation:
        return TrackAssociation(np.array(origins), np.array(rows), np.full(2, quality, np.float32))

    tracker, second_ns = TrackTable(), 1_000_000_000
    tracker.follow(features([(0, 0), (10, 10)]), continuation((-1, -1), (0, 1), 0.25), 0)
    missed = tracker.follow(features([(11, 10)]), continuation((1, 0), (0, -1), 0.5), second_ns)
    assert (missed.ids.tolist(), missed.ages.tolist(), missed.gaps.tolist()) == ([2], [2], [0])
    tracker.follow(features([]), continuation((0, 1), (-1, -1), 0.25), 2 * second_ns)
    found = tracker.follow(features([(5, 5), (6, 0)]), continuation((1, -1), (1, 0), 0.75), 3 * second_ns)
    assert (found.ids.tolist(), found.ages.tolist(), found.gaps.tolist()) == ([3, 1], [1, 2], [0, 2])
    assert found.velocities.tolist() == [[0, 0], [2, 0]]
    assert found.elapsed_s.tolist() == [0, 3]
    np.testing.assert_array_equal(found.quality, np.array([np.nan, 0.75], np.float32))
    assert found.feature_indices.tolist() == [0, 1]


def test_the_epipolar_geometry_is_found_among_wrong_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    camera = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
    motion = np.eye(4)
    motion[:3, 3] = 0.3, 0.05, 0.1
    points = np.array([-3, -2, 4.0]) + np.array([6, 4, 6]) * torch.rand((300, 3), generator=generator).numpy()
    pixels = [(p[:, :2] / p[:, 2:]) * 500 + [320, 240] for p in (points, points + motion[:3, 3])]
    points0, points1 = (torch.from_numpy(p).float() for p in pixels)
    points1[:30] += 40 * torch.randn((30, 2), generator=generator)
    points1[30:] += 0.2 * torch.randn((270, 2), generator=generator)
    is_used = torch.ones(300, dtype=torch.bool)
    found = fundamental_by_reweighting(points0, points1, is_used)
    truth = epipolar_distances(points0.numpy(), points1.numpy(), fundamental_matrix(motion, camera))
    own = epipolar_residuals(points0, points1, found).numpy()
    assert np.quantile(np.abs(own[30:] - truth[30:]), 0.95) < 0.5
    assert np.allclose(own, epipolar_distances(points0.numpy(), points1.numpy(), found.numpy()), atol=1e-3)


def test_neighbours_vote_wrong_matches_out_and_predict_the_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand((400, 2), generator=generator) * torch.tensor([640.0, 480.0])
    true = torch.tensor([12.0, -5.0]) + 0.05 * (points - torch.tensor([320.0, 240.0]))
    shifts = true.clone()
    shifts[:80] += 60 * torch.randn((80, 2), generator=generator)
    is_matched = torch.arange(400) < 300
    motion = local_motion(points, shifts, is_matched)
    is_wrong = (shifts - true).norm(dim=1) > 10
    assert not (motion.agrees & is_wrong).any()
    assert motion.agrees[80:300].all()
    assert not motion.agrees[300:].any()
    assert motion.is_known.all()
    assert (motion.flow - true).norm(dim=1).quantile(0.95) < 1.0
    nothing = local_motion(points, shifts, is_matched & False)
    assert not nothing.is_known.any()
    padded = local_motion(points, shifts, is_matched, is_padded=True)
    assert torch.equal(padded.agrees, motion.agrees)


def test_the_right_image_of_a_stereo_pair_is_extracted_and_not_tracked(photographs: list[Uint8Array]) -> None:
    left, right = _windows(photographs[0], 2)
    frontend = Frontend.from_pretrained(replace(_SETTINGS, camera_type="stereo"))
    alone = Frontend.from_pretrained(_SETTINGS)
    for number in range(3):
        result, expected = frontend.process(left, number, right=right), alone.process(left, number)
        assert np.array_equal(result.tracks.ids, expected.tracks.ids)
        assert result.right is not None
        assert torch.equal(result.right.keypoints, alone.extractor.extract(right).keypoints)


def _textured(height: int, width: int) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(0).random((height, width)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.0) * 4.0 - 1.5, np.float32)


def test_points_go_where_their_surroundings_went() -> None:
    image0 = _textured(_HEIGHT, _WIDTH)
    linear, shift = np.array([[1.04, 0.03], [-0.02, 0.97]]), np.array([3.3, -2.6])
    points0 = np.random.default_rng(1).uniform([40, 40], [_WIDTH - 40, _HEIGHT - 40], (200, 2))
    true = points0 @ linear.T + shift
    warp = np.column_stack([linear, shift]).astype(np.float32)
    image1 = cv2.warpAffine(image0, warp, (_WIDTH, _HEIGHT), flags=cv2.INTER_CUBIC) + 0.05
    detected = true + np.random.default_rng(2).normal(0.0, 0.5, true.shape)
    slopes = np.broadcast_to(linear.T - np.eye(2), (200, 2, 2))
    of_points = [torch.from_numpy(np.array(values, np.float32)) for values in (points0, detected, slopes)]
    # The other image is another one's.
    images = torch.stack([torch.rand((_HEIGHT, _WIDTH)), torch.from_numpy(image0)]), torch.from_numpy(image1)
    rows = torch.ones(200, dtype=torch.int64)

    def align(share: float, slopes: torch.Tensor) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        aligned = align_patches(*images, rows, *of_points[:2], torch.full((200,), share), slopes)
        return np.linalg.norm(aligned.points.numpy() - true, axis=1), aligned.is_found.numpy()

    errors, found = align(0.0, of_points[2])
    assert found.mean() > 0.95
    assert np.median(errors[found]) < 0.05
    # The detections, 0.6 px off, count for as much as they are told to.
    assert np.median(errors[found]) < np.median(align(0.3, of_points[2])[0][found]) < 0.3
    # Without the neighbours' affine motion the window is sheared, and less exact for it.
    assert np.median(align(0.0, torch.zeros_like(of_points[2]))[0][found]) > np.median(errors[found])


def _found(image0: torch.Tensor, image1: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    number = len(points)
    rows = torch.zeros(number, dtype=torch.int64)
    none = torch.zeros(number), torch.zeros((number, 2, 2))
    return align_patches(image0[None], image1, rows, points, points, *none).is_found


def test_surroundings_that_are_not_there_are_not_found() -> None:
    image0, image1 = torch.from_numpy(_textured(_HEIGHT, _WIDTH)), torch.from_numpy(_textured(_WIDTH, _HEIGHT).T.copy())
    inner = torch.rand((200, 2), generator=torch.Generator().manual_seed(0)) * torch.tensor([250.0, 180.0]) + 30
    assert _found(image0, image1, inner).float().mean() < 0.1
    assert _found(image0, image0, inner).all()
    # A window that leaves the image says nothing, nor does one without texture.
    edge = torch.cat([inner[:, :1], torch.full((200, 1), 3.0)], dim=1)
    assert not _found(image0, image0, edge).any()
    flat = torch.full_like(image0, 0.5)
    assert not _found(flat, flat, inner).any()


def test_along_an_edge_the_detection_decides() -> None:
    profile = 0.5 + 0.4 * np.tanh((np.arange(_WIDTH) - 160.0) / 3.0)
    image = torch.from_numpy(np.tile(profile.astype(np.float32), (_HEIGHT, 1)))
    points0, detected = torch.tensor([[160.0, 100.0]]), torch.tensor([[160.6, 101.2]])
    first = torch.zeros(1, dtype=torch.int64)
    of_points = first, points0, detected, torch.zeros(1), torch.zeros((1, 2, 2))
    aligned = align_patches(image[None], image, *of_points)
    assert aligned.is_found.all()
    assert torch.allclose(aligned.points, torch.tensor([[160.0, 101.2]]), atol=0.05)
