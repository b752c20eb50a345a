r"""Features of data: the singular vectors of its input-output covariance, and whether the inputs share them.

The loss of a linear map W on data with second moments :math:`\Sigma_{xx}` and :math:`\Sigma_{yx}` is
:math:`\tfrac12\operatorname{tr} W\Sigma_{xx}W^T - \operatorname{tr} W\Sigma_{yx}^T`. With
:math:`\Sigma_{yx} = U C V^T` it falls apart into one mode for each singular vector if and only if
:math:`V^T\Sigma_{xx}V` is diagonal where :math:`c_k > 0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["Features", "features_of"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Features:
    """Singular vectors of an input-output covariance, largest covariance first.

    Attributes
    ----------
    left : ndarray, shape (output, output)
        U; column k belongs to feature k.
    covariances : ndarray, shape (feature,)
        c_k > 0.
    right : ndarray, shape (input, input)
        Vᵀ; row k belongs to feature k, the rows beyond the features complete the basis.
    inputs : ndarray, shape (input, input)
        Vᵀ Σ_xx V.
    """

    left: Array
    covariances: Array
    right: Array
    inputs: Array

    @property
    def rank(self) -> int:
        """Number of features."""
        return int(self.covariances.size)

    @property
    def input_variances(self) -> Array:
        """q_k = v_kᵀ Σ_xx v_k of each feature, shape (feature,)."""
        return np.asarray(np.diag(self.inputs)[: self.rank])

    @property
    def singular_values(self) -> Array:
        """σ_k = c_k / q_k, shape (feature,)."""
        return np.asarray(self.covariances / self.input_variances)

    @cached_property
    def worst_correlation(self) -> tuple[float, int, int]:
        r"""Largest :math:`|\Sigma_{ij}|/\sqrt{\Sigma_{ii}\Sigma_{jj}}` that couples a feature, and its i and j."""
        q = np.diag(self.inputs)
        # Directions without variance hold rounding errors, which correlate with anything.
        scale = np.sqrt(np.maximum(q, q.max() * q.size * np.finfo(float).eps))
        correlation = np.abs(self.inputs) / np.outer(scale, scale)
        # Directions of the inputs that the targets ignore may be correlated among themselves.
        correlation[self.rank :, self.rank :] = 0.0
        np.fill_diagonal(correlation, 0.0)
        i, j = np.unravel_index(int(correlation.argmax()), correlation.shape)
        return float(correlation[i, j]), int(i), int(j)

    def require_shared(self, tolerance: float) -> None:
        """Raise unless the inputs' second moments are diagonal in the teacher's singular vectors.

        Raises
        ------
        InvalidParameterError
            If a feature's input is correlated with another direction by more than `tolerance`.
        """
        correlation, i, j = self.worst_correlation
        if correlation > tolerance:
            raise InvalidParameterError(
                f"The inputs are not white and do not share singular vectors with the teacher: in its basis modes {i} "
                f"and {j} have correlation {correlation:.3g}, expected at most tolerance={tolerance:g}, because "
                "correlated modes do not learn independently and have no spinodal of their own.\n"
                "Whiten the inputs first: `u, s, _ = np.linalg.svd(x, full_matrices=False); "
                "x = u[:, s > 1e-9 * s[0]] * len(x) ** 0.5`."
            )

    def by_strength(self, depth: int) -> Features:
        r"""Return the same features in the order of their strength :math:`q\sigma^{2-2/D}`, strongest first."""
        strength = self.input_variances * self.singular_values ** (2 - 2 / depth)
        order = np.argsort(-strength, kind="stable")
        u, v = np.arange(len(self.left)), np.arange(len(self.right))
        u[: self.rank] = v[: self.rank] = order
        return Features(self.left[:, u], self.covariances[order], self.right[v], self.inputs[np.ix_(v, v)])


def features_of(sigma_xx: Array, sigma_yx: Array) -> Features:
    """Return the features of second moments, largest covariance first.

    Singular vectors of equal covariance, which are arbitrary, are turned to the inputs' own axes.

    Parameters
    ----------
    sigma_xx : ndarray, shape (input, input)
    sigma_yx : ndarray, shape (output, input)

    Examples
    --------
    >>> features = features_of(np.diag([1.0, 4.0]), np.diag([2.0, 1.0]))
    >>> features.covariances.tolist(), features.singular_values.tolist()
    ([2.0, 1.0], [2.0, 0.25])
    """
    u, c, vt = np.linalg.svd(sigma_yx, full_matrices=True)
    rank = int((c > c[0] * max(sigma_yx.shape) * np.finfo(float).eps).sum())
    padded = np.zeros(len(vt))
    padded[:rank] = c[:rank]
    u, vt = u.copy(), vt.copy()
    borders = np.flatnonzero(np.abs(np.diff(padded)) > 1e-9 * c[0]) + 1
    for group in np.split(np.arange(padded.size), borders):
        if group.size > 1:
            _, axes = np.linalg.eigh(vt[group] @ sigma_xx @ vt[group].T)
            vt[group] = axes.T @ vt[group]
            if group[-1] < rank:  # targets' vectors turn with the inputs'
                u[:, group] = u[:, group] @ axes
    return Features(u, padded[:rank], vt, vt @ sigma_xx @ vt.T)
