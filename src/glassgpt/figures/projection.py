"""Many dimensions seen from the front: the plane that keeps most, and how much a plane keeps that knows nothing.

A flat picture of vectors of C numbers always loses something, and principal components find a pattern in noise too (of
few points in many dimensions they keep far more than their share). So a projection says which share of the variance it
keeps, beside two others: of a plane in a random direction, and of the best plane of numbers without a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError

DRAWS = 50


@dataclass(frozen=True)
class Projection:
    """A view of C dimensions on d orthogonal axes: `axes` float64 (d, C), each of length 1, seen from `centre` (C,)."""

    centre: np.ndarray
    axes: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (..., C) as they look, float64 (..., d)."""
        return (np.asarray(points, dtype=np.float64) - self.centre) @ self.axes.T

    def kept(self, points: np.ndarray) -> np.ndarray:
        """The share of the points' variance about their own mean along each axis: float64 (d,), in [0, 1]."""
        centred = _centred(points)
        return np.sum((centred @ self.axes.T) ** 2, axis=0) / np.sum(centred**2)


@dataclass(frozen=True)
class Honesty:
    """Shares of variance, in [0, 1]: what a view keeps, what a view in a random direction keeps of the same points, and
    what the best view keeps once each coordinate has been shuffled among the points, which leaves no pattern."""

    kept: float
    random: float
    shuffled: float


def principal_projection(points: np.ndarray, d: int = 2) -> Projection:
    """The d axes along which the points (n, C) vary most, seen from their mean (principal component analysis).

    The sign of an axis is free; here its largest number is positive. Raises UsageError for fewer than d + 1 different
    points or fewer than d dimensions.
    """
    centred = _centred(points)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    if len(axes) < d or strengths[d - 1] <= 1e-9 * strengths[0]:
        raise UsageError(f"a view of {d} dimensions needs {d + 1} points that don't lie in fewer; got {len(centred)}")
    largest = np.take_along_axis(axes[:d], np.abs(axes[:d]).argmax(axis=1)[:, None], axis=1)
    return Projection(_centre(points), axes[:d] * np.sign(largest))


def random_projection(points: np.ndarray, d: int = 2, seed: int = 0) -> Projection:
    """A view of the points (n, C) from their mean in a direction that `seed` draws, all equally likely."""
    axes = _random_axes(_centred(points).shape[1], d, np.random.default_rng(seed))
    return Projection(_centre(points), axes)


def honesty(points: np.ndarray, projection: Projection, seed: int = 0) -> Honesty:
    """What the projection keeps of the points (n, C), and as much of what knows nothing: means of DRAWS draws."""
    centred, d = _centred(points), len(projection.axes)
    rng = np.random.default_rng(seed)
    whole = np.sum(centred**2)
    random = [np.sum((centred @ _random_axes(centred.shape[1], d, rng).T) ** 2) / whole for _ in range(DRAWS)]
    shuffled = []
    for _ in range(DRAWS):  # parallel analysis (Horn 1965, by permutation)
        strengths = np.linalg.svd(rng.permuted(centred, axis=0), compute_uv=False)
        shuffled.append(np.sum(strengths[:d] ** 2) / whole)
    return Honesty(float(projection.kept(points).sum()), float(np.mean(random)), float(np.mean(shuffled)))


def _random_axes(n_dimensions: int, d: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n_dimensions, d)))[0].T


def _centre(points: np.ndarray) -> np.ndarray:
    return np.asarray(points, dtype=np.float64).mean(axis=0)


def _centred(points: np.ndarray) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise UsageError(f"expected points of shape (n, dimensions), all of them finite; got shape {array.shape}")
    centred = array - array.mean(axis=0)
    if not centred.any():
        raise UsageError("all points are the same: there is nothing to see of how they differ")
    return centred
