"""Refines the motion between two views to fit all pairs.

Least squares of the Sampson distances (Hartley and Zisserman, Multiple View Geometry, 2nd ed., 11.4.3) with Cauchy
weights, whose scale comes from the pairs themselves, so that outliers which passed RANSAC count for little.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["misfit", "refine_motion", "sampson_distances"]

FloatArray = npt.NDArray[np.float64]

_ITERATIONS = 20
_LAST_STEP_RAD = 1e-6
_HALVINGS = 4
# Ratio of the standard deviation to the median absolute value of a normal distribution.
_SPREAD = 1.4826
_SMALLEST_SCALE_PX = 0.02
_SMALLEST = 1e-24


def refine_motion(
    rotation: FloatArray,
    translation: FloatArray,
    points0: FloatArray,
    points1: FloatArray,
    matrix: FloatArray,
    farthest_px: float,
) -> tuple[FloatArray, FloatArray]:
    """Finds the nearby motion that minimises the robust sum of squares.

    Args:
        rotation: (3, 3), maps directions from camera 0's frame to camera 1's, within a few degrees of the result.
        translation: (3,) unit vector, camera 0's centre in camera 1's frame.
        points0: (M, 2) undistorted px in image 0.
        points1: (M, 2) px in image 1, row by row the same points.
        matrix: (3, 3) camera matrix of both.
        farthest_px: Pairs with a larger Sampson distance from the given motion are ignored.

    Returns:
        Rotation (3, 3) and unit translation (3,); the given ones if nothing fits better. Degrees of freedom that the
        pairs do not determine, such as the direction of an unobservable translation, do not change.
    """
    distances = np.abs(sampson_distances(rotation, translation, points0, points1, matrix))
    near = distances <= farthest_px
    if not near.any():
        return rotation, translation
    scale = max(_SPREAD * float(np.median(distances[near])), _SMALLEST_SCALE_PX)
    inverse = np.asarray(np.linalg.inv(matrix), np.float64)
    rays0, rays1 = (_rays(points[near], inverse) for points in (points0, points1))
    motion = rotation, translation
    residuals, jacobian = _linearized(*motion, rays0, rays1, inverse)
    for _ in range(_ITERATIONS):
        weights = 1.0 / (1.0 + (residuals / scale) ** 2)
        roots = np.sqrt(weights)
        step = np.linalg.lstsq(jacobian * roots[:, None], -residuals * roots, rcond=1e-9)[0]
        cost = np.log1p((residuals / scale) ** 2).sum()
        for halvings in range(_HALVINGS + 1):
            moved = _moved(*motion, step / 2**halvings)
            new_residuals, new_jacobian = _linearized(*moved, rays0, rays1, inverse)
            if np.log1p((new_residuals / scale) ** 2).sum() < cost:
                break
        else:
            break
        motion, residuals, jacobian = moved, new_residuals, new_jacobian
        if np.linalg.norm(step) < _LAST_STEP_RAD:
            break
    return motion


def misfit(
    rotation: FloatArray,
    translation: FloatArray,
    points0: FloatArray,
    points1: FloatArray,
    matrix: FloatArray,
    scale_px: float,
    farthest_px: float,
) -> float:
    """The Cauchy cost of the pairs' Sampson distances, to compare two motions.

    Args:
        rotation: As for `refine_motion`, like all but the last two.
        translation: (3,) unit vector.
        points0: (M, 2) px.
        points1: (M, 2) px.
        matrix: (3, 3).
        scale_px: Scale of the Cauchy cost.
        farthest_px: Larger distances are clamped to this one.
    """
    distances = np.abs(sampson_distances(rotation, translation, points0, points1, matrix)).clip(max=farthest_px)
    return float(np.log1p((distances / scale_px) ** 2).sum())


def sampson_distances(
    rotation: FloatArray, translation: FloatArray, points0: FloatArray, points1: FloatArray, matrix: FloatArray
) -> FloatArray:
    """(M,) px, signed: to first order, how far both points of a pair together must move to fit the motion."""
    inverse = np.asarray(np.linalg.inv(matrix), np.float64)
    return _linearized(rotation, translation, _rays(points0, inverse), _rays(points1, inverse), inverse)[0]


def _rays(points: FloatArray, inverse: FloatArray) -> FloatArray:
    """(M, 3) ray directions of (M, 2) px."""
    return np.asarray(np.column_stack([points, np.ones(len(points))]) @ inverse.T, np.float64)


def _linearized(
    rotation: FloatArray, translation: FloatArray, rays0: FloatArray, rays1: FloatArray, inverse: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(M,) Sampson distances, and their (M, 5) derivatives by three angles and two tangents of the translation."""
    to_px0, to_px1 = rotation @ inverse[:, :2], inverse[:, :2]
    turned = rays0 @ rotation.T
    across0, across1 = np.cross(rays1, translation), np.cross(translation, turned)
    error = (across0 * turned).sum(axis=1)
    # Derivatives of the error by the px of either image, along x and y: columns of F' p1 and of F p0.
    by_px0, by_px1 = across0 @ to_px0, across1 @ to_px1
    squared = ((by_px0**2).sum(axis=1) + (by_px1**2).sum(axis=1)).clip(min=_SMALLEST)
    distances = error / np.sqrt(squared)

    def derivative(by_error: FloatArray, by_across0: FloatArray, by_across1: FloatArray) -> FloatArray:
        by_squared = (by_px0 * (by_across0 @ to_px0)).sum(axis=1) + (by_px1 * (by_across1 @ to_px1)).sum(axis=1)
        return np.asarray(by_error / np.sqrt(squared) - distances * by_squared / squared, np.float64)

    columns = [
        # An angle rotates directions from camera 0; seen from there, camera 1 rotates the other way.
        derivative(
            np.cross(turned, across0)[:, axis], np.cross(across0, unit), np.cross(translation, np.cross(unit, turned))
        )
        for axis, unit in enumerate(np.eye(3))
    ]
    columns += [
        derivative(np.cross(turned, rays1) @ tangent, np.cross(rays1, tangent), np.cross(tangent, turned))
        for tangent in _tangents(translation)
    ]
    return distances, np.column_stack(columns)


def _moved(rotation: FloatArray, translation: FloatArray, step: FloatArray) -> tuple[FloatArray, FloatArray]:
    turned = np.asarray(cv2.Rodrigues(step[:3])[0], np.float64) @ rotation
    moved = translation + step[3:] @ _tangents(translation)
    return turned, moved / np.linalg.norm(moved)


def _tangents(direction: FloatArray) -> FloatArray:
    """(2, 3) unit vectors orthogonal to a unit vector and to each other."""
    return np.asarray(np.linalg.svd(direction[None])[2][1:], np.float64)
