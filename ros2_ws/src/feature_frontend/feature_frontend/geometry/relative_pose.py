"""Two-view geometry: the relative motion from point pairs, and its error against a known one.

Convention: points are (x, y) px, pixel centres at integers, undistorted. A motion is a 4x4 matrix that maps points from
camera 0's frame to camera 1's frame; poses are 4x4 camera-to-world. Suffix 0 is the earlier image, 1 the current one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from feature_frontend.geometry.pose_refinement import misfit, refine_motion, sampson_distances

__all__ = [
    "RelativePose",
    "epipolar_distances",
    "epipolar_inliers",
    "essential_inliers",
    "essential_matrix",
    "fundamental_matrix",
    "relative_motion",
    "relative_pose",
    "rotation_error_deg",
    "translation_error_deg",
]

FloatArray = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

MINIMUM_PAIRS = 8
CONFIDENCE = 0.9999
MAX_ITERATIONS = 10_000
_CLEARLY_MORE = 1.05
# Before 4.8, OpenCV misses one in seven of the good pairs; least squares recover them.
_SEARCH_IS_ROUGH = tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 8)
# Cut-off and Cauchy scale of the fit, in multiples of the threshold.
_FARTHEST, _SCALE = 3.0, 0.3


@dataclass(frozen=True)
class RelativePose:
    """The motion between two views, up to the scale of the translation.

    Attributes:
        rotation: (3, 3), maps directions from camera 0's frame to camera 1's.
        translation: (3,) unit vector, camera 0's centre in camera 1's frame.
        inliers: (M,) bool, the pairs within the threshold of it.
    """

    rotation: FloatArray
    translation: FloatArray
    inliers: BoolArray


def relative_pose(
    points0: Points, points1: Points, matrix: FloatArray, threshold_px: float = 1.0
) -> RelativePose | None:
    """Estimates the motion between two calibrated views: three robust searches, each refined by least squares.

    Args:
        points0: (M, 2) px in image 0.
        points1: (M, 2) px in image 1, row by row the same points.
        matrix: (3, 3) camera matrix of both.
        threshold_px: Maximum Sampson distance of an inlier.

    Returns:
        The motion; None if there are fewer than 8 pairs or no motion explains 8 of them.

    Raises:
        ValueError: The two arrays do not pair up.
    """
    pairs0, pairs1 = _pairs(points0, points1)
    camera = np.asarray(matrix, np.float64)
    if len(pairs0) < MINIMUM_PAIRS:
        return None
    of_pairs = pairs0, pairs1, camera
    farthest_px = _FARTHEST * threshold_px
    best: tuple[float, FloatArray, FloatArray] | None = None
    # Each of them sometimes fits only a part of the scene, but rarely the same one.
    for method in (cv2.USAC_DEFAULT, cv2.USAC_MAGSAC, cv2.LMEDS):
        essential, inliers = _find_essential(*of_pairs, threshold_px, method)
        if essential is None or np.count_nonzero(inliers) < MINIMUM_PAIRS:
            continue
        motion = _visible_motion(essential, *(_rays(pairs[inliers], camera) for pairs in (pairs0, pairs1)))
        # Refine: the sampling order alone changes the result by as much as good and bad keypoints differ.
        motion = refine_motion(*motion, *of_pairs, farthest_px)
        cost = misfit(*motion, *of_pairs, _SCALE * threshold_px, farthest_px)
        if best is None or cost < best[0]:
            best = cost, *motion
    if best is None:
        return None
    _, rotation, translation = best
    inliers = np.abs(sampson_distances(rotation, translation, *of_pairs)) <= threshold_px
    if np.count_nonzero(inliers) < MINIMUM_PAIRS:
        return None
    # The distances do not depend on the sign of the translation, and the sign from the search was only approximate.
    before, behind = _depth_signs(rotation, translation, *(_rays(pairs[inliers], camera) for pairs in (pairs0, pairs1)))
    return RelativePose(rotation, translation if before >= behind else -translation, inliers)


def essential_inliers(points0: Points, points1: Points, matrix: FloatArray, threshold_px: float = 1.0) -> BoolArray:
    """(M,) which pairs agree with one motion of a calibrated camera, by RANSAC over the essential matrix.

    All False if there are fewer than 8 pairs or no motion explains 8 of them.

    Raises:
        ValueError: The two arrays do not pair up.
    """
    pairs0, pairs1 = _pairs(points0, points1)
    if _SEARCH_IS_ROUGH:
        pose = relative_pose(pairs0, pairs1, matrix, threshold_px)
        return np.zeros(len(pairs0), np.bool_) if pose is None else pose.inliers
    return _find_best_essential(pairs0, pairs1, np.asarray(matrix, np.float64), threshold_px)[1]


def epipolar_inliers(points0: Points, points1: Points, threshold_px: float = 1.0) -> BoolArray:
    """(M,) which pairs agree with one epipolar geometry, by RANSAC over the fundamental matrix: no calibration needed.

    All False if there are fewer than 8 pairs or no geometry explains 8 of them.

    Raises:
        ValueError: The two arrays do not pair up.
    """
    pairs0, pairs1 = _pairs(points0, points1)
    none = np.zeros(len(pairs0), np.bool_)
    if len(pairs0) < MINIMUM_PAIRS:
        return none
    cv2.setRNGSeed(0)
    options = (threshold_px, CONFIDENCE, MAX_ITERATIONS)
    try:
        fundamental, mask = cv2.findFundamentalMat(pairs0, pairs1, cv2.USAC_DEFAULT, *options)
    except cv2.error:
        # An assertion inside USAC fails for some degenerate sets of up to 20 pairs.
        fundamental, mask = cv2.findFundamentalMat(pairs0, pairs1, cv2.FM_RANSAC, *options)
    if fundamental is None or np.count_nonzero(mask) < MINIMUM_PAIRS:
        return none
    return np.asarray(mask, np.uint8).ravel().astype(np.bool_)


def relative_motion(pose0: FloatArray, pose1: FloatArray) -> FloatArray:
    """The motion (4, 4) from camera 0's frame to camera 1's, from two camera-to-world poses."""
    return np.asarray(np.linalg.solve(pose1, pose0), np.float64)


def essential_matrix(motion: FloatArray) -> FloatArray:
    """(3, 3) matrix E of a motion: x1' E x0 = 0 for directions x0, x1 of one point. Zero without translation."""
    x, y, z = motion[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(cross @ motion[:3, :3], np.float64)


def fundamental_matrix(motion: FloatArray, matrix: FloatArray) -> FloatArray:
    """(3, 3) matrix F of a motion seen by the camera `matrix`: p1' F p0 = 0 for px p0, p1 of one point."""
    inverse = np.linalg.inv(matrix)
    return np.asarray(inverse.T @ essential_matrix(motion) @ inverse, np.float64)


def epipolar_distances(points0: Points, points1: Points, fundamental: FloatArray) -> FloatArray:
    """(M,) px: distance of each pair from its epipolar lines, the larger of those in the two images.

    Infinite for a pair with an undefined epipolar line, as for all pairs if the camera has not moved.

    Raises:
        ValueError: The two arrays do not pair up.
    """
    pairs0, pairs1 = _pairs(points0, points1)
    homogeneous0 = np.column_stack([pairs0, np.ones(len(pairs0))])
    homogeneous1 = np.column_stack([pairs1, np.ones(len(pairs1))])
    lines1, lines0 = homogeneous0 @ fundamental.T, homogeneous1 @ fundamental
    residual = np.abs((homogeneous1 * lines1).sum(axis=1))
    slope = np.minimum(np.linalg.norm(lines0[:, :2], axis=1), np.linalg.norm(lines1[:, :2], axis=1))
    distances = np.full(len(pairs0), np.inf)
    np.divide(residual, slope, out=distances, where=slope > 0)
    return distances


def rotation_error_deg(rotation: FloatArray, reference: FloatArray) -> float:
    """Angle in [0, 180] degrees between two rotations (3, 3)."""
    left = np.asarray(rotation, np.float64).T @ reference
    # The sine is accurate for small angles, the cosine near 180 degrees.
    sine = np.linalg.norm([left[2, 1] - left[1, 2], left[0, 2] - left[2, 0], left[1, 0] - left[0, 1]]) / 2
    return float(np.degrees(np.arctan2(sine, (np.trace(left) - 1) / 2)))


def translation_error_deg(translation: FloatArray, reference: FloatArray) -> float:
    """Angle in [0, 180] degrees between two translations (3,); NaN if one is zero."""
    if not np.any(translation) or not np.any(reference):
        return float("nan")
    sine = np.linalg.norm(np.cross(translation, reference))
    return float(np.degrees(np.arctan2(sine, np.dot(translation, reference))))


def _pairs(points0: Points, points1: Points) -> tuple[FloatArray, FloatArray]:
    pairs0, pairs1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    if pairs0.shape != pairs1.shape or pairs0.ndim != 2 or pairs0.shape[1] != 2:
        raise ValueError(f"points of shapes {pairs0.shape} and {pairs1.shape} do not pair up; expected (M, 2) twice")
    return np.ascontiguousarray(pairs0), np.ascontiguousarray(pairs1)


def _find_best_essential(
    pairs0: FloatArray, pairs1: FloatArray, camera: FloatArray, threshold_px: float
) -> tuple[FloatArray | None, BoolArray]:
    """(3, 3) essential matrix with at least 8 inliers, None for none, and the (M,) inliers."""
    none = None, np.zeros(len(pairs0), np.bool_)
    if len(pairs0) < MINIMUM_PAIRS:
        return none
    essential, inliers = _find_essential(pairs0, pairs1, camera, threshold_px, cv2.USAC_DEFAULT)
    # It may fit only a part of the scene, which MAGSAC rarely does. If both agree, the first is better: MAGSAC ends
    # without a final least-squares fit.
    other = _find_essential(pairs0, pairs1, camera, threshold_px, cv2.USAC_MAGSAC)
    if np.count_nonzero(other[1]) > _CLEARLY_MORE * np.count_nonzero(inliers):
        essential, inliers = other
    return (essential, inliers) if np.count_nonzero(inliers) >= MINIMUM_PAIRS else none


def _find_essential(
    pairs0: FloatArray, pairs1: FloatArray, camera: FloatArray, threshold_px: float, method: int
) -> tuple[FloatArray | None, BoolArray]:
    """(3, 3) essential matrix, None for none, and its (M,) inliers."""
    # A fixed seed makes the result repeatable.
    cv2.setRNGSeed(0)
    essential, mask = cv2.findEssentialMat(
        pairs0, pairs1, camera, method=method, prob=CONFIDENCE, threshold=threshold_px
    )
    if essential is None or essential.shape != (3, 3):
        return None, np.zeros(len(pairs0), np.bool_)
    return np.asarray(essential, np.float64), np.asarray(mask).ravel().astype(np.bool_)


def _rays(points: FloatArray, matrix: FloatArray) -> FloatArray:
    """(M, 3) ray directions of (M, 2) px of the camera `matrix`."""
    rays = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(matrix).T
    return np.asarray(rays, np.float64)


def _visible_motion(essential: FloatArray, rays0: FloatArray, rays1: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of the four motions with this essential matrix, the one with the most points in front of both cameras.

    cv2.recoverPose ignores distant points, and guesses if all are distant, as when the camera hardly moves. Here only
    the signs of the depths count: distant points reveal a wrong rotation, half a turn off, too.
    """
    first, second, translation = (np.asarray(part, np.float64) for part in cv2.decomposeEssentialMat(essential))
    translation = translation.ravel()
    best: tuple[int, FloatArray, int] | None = None
    for rotation in (first, second):
        before, behind = _depth_signs(rotation, translation, rays0, rays1)
        if best is None or before + behind > best[0]:
            best = before + behind, rotation, 1 if before >= behind else -1
    assert best is not None
    return best[1], best[2] * translation


def _depth_signs(
    rotation: FloatArray, translation: FloatArray, rays0: FloatArray, rays1: FloatArray
) -> tuple[int, int]:
    """Number of points in front of both cameras, and behind both (in front for the opposite translation)."""
    turned = rays0 @ rotation.T
    # Depths d0, d1 that minimise |d0 turned + translation - d1 rays1|, times the positive determinant.
    aa, bb, ab = ((x * y).sum(axis=1) for x, y in ((turned, turned), (rays1, rays1), (turned, rays1)))
    at, bt = turned @ translation, rays1 @ translation
    depth0, depth1 = ab * bt - at * bb, aa * bt - at * ab
    before = int(np.count_nonzero((depth0 > 0) & (depth1 > 0)))
    return before, int(np.count_nonzero((depth0 < 0) & (depth1 < 0)))
