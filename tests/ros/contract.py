"""Consistency of all messages of one camera, checked message by message as in docs/messages.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_contract", "columns"]

FloatArray = npt.NDArray[np.float64]
_PROCESSED = (0, 1, 2)


def columns(values: Any, width: int = 2) -> FloatArray:
    """(N, `width`) of a flat array, as ROS or rosbags reads it."""
    return np.asarray(values, np.float64).reshape(-1, width)


def check_contract(
    features: Sequence[Any], matches: Sequence[Any], tracks: Sequence[Any], statuses: Sequence[Any], tracker: str
) -> int:
    """Checks messages in the order of their images, all published; the number of pairs of images.

    The calibration has to be the same for all images that have one.
    """
    processed = [status for status in statuses if status.state in _PROCESSED]
    assert len(features) == len(matches) == len(tracks) == len(processed)
    before, pairs = None, 0
    for of_image in zip(features, matches, tracks, processed, strict=True):
        assert len({(m.run_id, m.resets, str(m.header)) for m in of_image}) == 1
        assert 0 < of_image[0].run_id < 2**53
        _check_image(*of_image)
        if before is not None and (before[0].run_id, before[0].resets) == (of_image[0].run_id, of_image[0].resets):
            _check_pair(before, of_image, tracker)
            pairs += 1
        else:
            _check_first(*of_image)
        before = of_image
    return pairs


def _check_image(features: Any, matches: Any, tracks: Any, status: Any) -> None:
    assert (status.keypoints, status.matches, status.tracks) == (features.count, matches.count, tracks.count)
    rows = np.asarray(tracks.feature_indices, np.int64)
    assert (tracks.height, tracks.width) == (features.height, features.width)
    np.testing.assert_array_equal(columns(tracks.keypoints), columns(features.keypoints)[rows])
    np.testing.assert_array_equal(tracks.scores, np.asarray(features.scores)[rows])
    assert len(features.scales) == features.count
    assert all(scale > 0 for scale in features.scales)
    _check_covariances(features, tracks, rows)
    assert len(tracks.quality) == tracks.count
    is_new = np.asarray(tracks.ages) == 1
    assert np.isnan(np.asarray(tracks.quality)[is_new]).all()
    assert np.nanmax(np.abs(tracks.quality), initial=0.0) <= 1 + 1e-5
    assert not columns(tracks.velocities)[is_new].any()
    assert len(tracks.normalized_velocities) == len(tracks.normalized_keypoints)
    if not status.fx:
        assert not features.normalized_keypoints
        assert not tracks.normalized_keypoints
        assert not matches.normalized_keypoints1
        return
    rays = columns(features.normalized_keypoints)
    np.testing.assert_array_equal(columns(tracks.normalized_keypoints), rays[rows])
    np.testing.assert_array_equal(columns(matches.normalized_keypoints1), rays[np.asarray(matches.indices1, np.int64)])
    if not status.distortion_model:
        by_hand = (columns(features.keypoints) - [status.cx, status.cy]) / [status.fx, status.fy]
        np.testing.assert_allclose(rays, by_hand, atol=1e-6)


def _check_covariances(features: Any, tracks: Any, rows: Any) -> None:
    of_features, of_tracks = (np.asarray(message.covariances).reshape(-1, 3) for message in (features, tracks))
    assert (len(of_features), len(of_tracks)) == (features.count, tracks.count)
    xx, xy, yy = of_features.T.astype(np.float64)
    assert (xx > 0).all()
    assert (xx * yy > xy**2).all()
    # Of a track: those of its keypoint, all enlarged by one factor.
    if tracks.count:
        factors = of_tracks[:, ::2] / of_features[rows, ::2]
        assert factors.min() >= 1 - 1e-5
        assert np.ptp(factors) <= 1e-4 * factors.max()


def _check_first(_features: Any, matches: Any, tracks: Any, status: Any) -> None:
    assert (matches.count, matches.run_id0, matches.stamp0) == (0, 0, matches.header.stamp)
    assert set(tracks.ages) <= {1}
    assert status.tracks_lost == 0
    assert np.isnan([status.survival, status.parallax_px]).all()


def _check_pair(before: Sequence[Any], now: Sequence[Any], tracker: str) -> None:
    (features0, _, tracks0, status0), (features1, matches, tracks, status) = before, now
    assert (matches.run_id0, matches.stamp0) == (features0.run_id, features0.header.stamp)
    rows0, rows1 = (np.asarray(indices, np.int64) for indices in (matches.indices0, matches.indices1))
    np.testing.assert_array_equal(columns(matches.keypoints0), columns(features0.keypoints)[rows0])
    np.testing.assert_array_equal(columns(matches.keypoints1), columns(features1.keypoints)[rows1])
    if status0.fx:
        rays0 = columns(features0.normalized_keypoints)[rows0]
        np.testing.assert_array_equal(columns(matches.normalized_keypoints0), rays0)
    else:
        assert not matches.normalized_keypoints0

    _, at0, at1 = np.intersect1d(tracks0.ids, tracks.ids, return_indices=True)
    assert status.tracks_lost == tracks0.count - len(at0)
    moved = columns(tracks.keypoints)[at1] - columns(tracks0.keypoints)[at0]
    np.testing.assert_allclose(status.survival, len(at0) / tracks0.count if tracks0.count else np.nan, rtol=1e-6)
    parallax_px = np.median(np.linalg.norm(moved, axis=1)) if len(moved) else np.nan
    np.testing.assert_allclose(status.parallax_px, parallax_px, rtol=1e-5)

    stamp0, stamp1 = features0.header.stamp, features1.header.stamp
    elapsed_s = stamp1.sec - stamp0.sec + 1e-9 * (stamp1.nanosec - stamp0.nanosec)
    np.testing.assert_allclose(columns(tracks.velocities)[at1], moved / elapsed_s, rtol=1e-4, atol=1e-2)
    if status0.fx and status.fx:
        way = columns(tracks.normalized_keypoints)[at1] - columns(tracks0.normalized_keypoints)[at0]
        np.testing.assert_allclose(
            columns(tracks.normalized_velocities)[at1], way / elapsed_s, rtol=1e-4, atol=1e-2 / status.fx
        )
    if tracker == "chain":
        # A match that no motion of the camera explains begins a new track.
        goes_on = np.isin(rows1, np.asarray(tracks.feature_indices)[at1])
        quality = dict(zip(rows1[goes_on].tolist(), np.asarray(matches.similarity)[goes_on], strict=True))
        found = [quality.get(row, np.nan) for row in np.asarray(tracks.feature_indices).tolist()]
        np.testing.assert_array_equal(tracks.quality, np.array(found, np.float32))
    elif len(at1):
        assert np.isfinite(np.asarray(tracks.quality)[at1]).mean() > 0.5
