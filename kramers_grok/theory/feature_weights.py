"""Weights of a deep linear network in the basis of its features: points, Hessians, rotations, per-sample gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["FeatureWeights", "complement"]

Array = NDArray[np.float64]

_COMPLEX_STEP = 1e-30
_ZERO = 1e-8  # singular values below this fraction of the largest are zero


@dataclass(frozen=True, eq=False)
class FeatureWeights:
    """Geometry of the loss in weight space.

    Attributes
    ----------
    widths : tuple of int
        (d, h_1, …, h_{D−1}, o).
    inputs : ndarray, shape (d, d)
        Second moments of the inputs in the features' basis.
    covariances : ndarray, shape (feature,)
        c_k.
    weight_decay : float
    """

    widths: tuple[int, ...]
    inputs: Array
    covariances: Array
    weight_decay: float

    @property
    def depth(self) -> int:
        """Number of weight layers D."""
        return len(self.widths) - 1

    @property
    def hidden(self) -> tuple[int, ...]:
        """Hidden widths."""
        return self.widths[1:-1]

    def point(self, amplitudes: Sequence[float]) -> Array:
        """Weights with feature k in unit k of every hidden layer at the same amplitude in all layers."""
        layers = [np.zeros((above, below)) for below, above in pairwise(self.widths)]
        for layer in layers:
            for k, a in enumerate(amplitudes):
                layer[k, k] = a
        return np.concatenate([layer.ravel() for layer in layers])

    def layers(self, theta: NDArray[np.inexact]) -> list[NDArray[np.inexact]]:
        """Layers of points (..., parameter), each (..., above, below)."""
        sizes = np.cumsum([a * b for a, b in pairwise(self.widths)])[:-1]
        parts = np.split(theta, sizes, axis=-1)
        return [p.reshape(*theta.shape[:-1], b, a) for p, (a, b) in zip(parts, pairwise(self.widths), strict=True)]

    def hessian(self, theta: Array) -> Array:
        """Hessian in the features' basis, by a complex step of the gradient: exact to rounding."""
        points = theta + 1j * _COMPLEX_STEP * np.eye(theta.size)
        layers = self.layers(points)
        outputs, inputs = self.widths[-1], self.widths[0]
        cross = np.zeros((outputs, inputs))
        np.fill_diagonal(cross[: len(self.covariances), : len(self.covariances)], self.covariances)
        below = [layers[0]]
        for layer in layers[1:]:
            below.append(layer @ below[-1])
        back = below[-1] @ self.inputs - cross
        rows = []
        for l in range(self.depth - 1, -1, -1):
            gradient = back @ np.swapaxes(below[l - 1], -1, -2) if l else back
            rows.append((gradient + self.weight_decay * layers[l]).reshape(theta.size, -1))
            back = np.swapaxes(layers[l], -1, -2) @ back
        matrix = np.concatenate(rows[::-1], axis=1).imag / _COMPLEX_STEP
        return np.asarray(0.5 * (matrix + matrix.T))

    def rotations(self, theta: Array) -> list[Array]:
        """Generators of the rotations of every hidden layer."""
        layers = [w.real for w in self.layers(theta)]
        rows = []
        for level, width in enumerate(self.hidden):
            for i, j in combinations(range(width), 2):
                moved = [np.zeros_like(w) for w in layers]
                moved[level][i], moved[level][j] = layers[level][j], -layers[level][i]
                moved[level + 1][:, i] = layers[level + 1][:, j]
                moved[level + 1][:, j] = -layers[level + 1][:, i]
                rows.append(np.concatenate([w.ravel() for w in moved]))
        return rows

    def gradient_covariance(self, theta: Array, x: Array, y: Array) -> Array:
        """Covariance of the per-sample gradients over the data (normalised by N), (parameter, parameter)."""
        layers = [w.real for w in self.layers(theta)]
        below = [x.T]
        for layer in layers:
            below.append(layer @ below[-1])
        back = below[-1] - y.T
        rows = []
        for l in range(self.depth - 1, -1, -1):
            rows.append(np.einsum("on,in->noi", back, below[l]).reshape(len(x), -1))
            back = layers[l].T @ back
        gradients = np.concatenate(rows[::-1], axis=1)
        return np.asarray(np.cov(gradients.T, bias=True))


def complement(rows: Array) -> Array:
    """Orthonormal basis of what is orthogonal to the rows, (parameter, direction)."""
    _, lengths, basis = np.linalg.svd(rows, full_matrices=True)
    rank = int((lengths > _ZERO * lengths[0]).sum())
    return np.asarray(basis[rank:].T)
