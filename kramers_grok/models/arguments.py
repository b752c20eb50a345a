"""What networks check of their teacher and their inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["covariance", "teacher_map"]

Array = NDArray[np.float64]


def teacher_map(given: ArrayLike, inputs: int, outputs: int) -> Array:
    """The teacher's map, shape (output, input), from itself or from its singular values."""
    matrix = checks.finite_array("teacher_matrix", given)
    if matrix.ndim == 1 and len(matrix) <= min(inputs, outputs):
        diagonal = np.zeros((outputs, inputs))
        np.fill_diagonal(diagonal[: len(matrix), : len(matrix)], matrix)
        matrix = diagonal
    if matrix.shape != (outputs, inputs):
        raise InvalidParameterError(
            f"`teacher_matrix` has shape {matrix.shape}, expected ({outputs}, {inputs}) = "
            "(outputs, inputs): it maps inputs to outputs.\nUse `teacher_matrix.T`, or change `widths`."
        )
    if not matrix.any():
        raise InvalidParameterError(
            "`teacher_matrix` is all zeros, expected at least one singular value > 0: there is nothing to learn."
        )
    return matrix


def covariance(given: ArrayLike, inputs: int, variance: float) -> Array:
    """Second moments of the inputs, checked and made symmetric to the last bit."""
    matrix = checks.finite_array("input_covariance", given, ndim=2)
    fix = "Use `x.T @ x / len(x)`."
    shape = checks.Described(f"array of shape {matrix.shape}")
    if matrix.shape != (inputs, inputs):
        raise checks.invalid(
            "input_covariance", shape, f"shape ({inputs}, {inputs})", "`widths` has so many inputs", fix
        )
    if variance != 1.0:
        raise checks.invalid(
            "input_variance", variance, "nothing beside `input_covariance`", "variances are in the covariance",
            "Leave `input_variance` out.",
        )  # fmt: skip
    scale = np.abs(matrix).max()
    values = np.linalg.eigvalsh(0.5 * (matrix + matrix.T))
    if np.abs(matrix - matrix.T).max() > 1e-10 * scale or values[0] < -1e-10 * scale or scale == 0:
        raise checks.invalid(
            "input_covariance", shape, "a symmetric, positive semi-definite matrix other than 0",
            "it holds mean products of inputs", fix,
        )  # fmt: skip
    return np.asarray(0.5 * (matrix + matrix.T))
