r"""What the directions across one hidden channel contribute to its free energy: logarithms of determinants.

With the amplitudes :math:`a_l` of a channel held fixed, the weights across it are Gaussian to leading order in T, and
integrating them out adds :math:`T S`, :math:`S = w\,[\ln\det M(a) - \ln\det M(0)]`, where the entries of M are
polynomials in the amplitudes. In :math:`u = \ln a` each monomial is an exponential, so S has exact derivatives:

.. math:: \partial_l S = w\,\mathrm{tr}(M^{-1}\partial_l M), \qquad
    \partial_l\partial_k S = w\,\mathrm{tr}(M^{-1}\partial_l\partial_k M)
    - w\,\mathrm{tr}(M^{-1}\partial_l M\,M^{-1}\partial_k M).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogDeterminant", "extra_directions", "learned_pair", "unlearned_pair"]

Array = NDArray[np.float64]
Powers = tuple[int, ...]
Polynomial = dict[Powers, Array]  # powers of the amplitudes → coefficient array


@dataclass(frozen=True, eq=False)
class LogDeterminant:
    r"""The term :math:`w\,[\ln\det M(e^u) - \ln\det M(0)]`.

    Parameters
    ----------
    weight : float
        w: ½ for a Gaussian integral.
    powers : ndarray, shape (monomial, layer)
    matrices : ndarray, shape (monomial, n, n)
        :math:`M = \sum_p C_p\,e^{K_p\cdot u}`.
    """

    weight: float
    powers: Array
    matrices: Array

    @classmethod
    def of(cls, weight: float, polynomial: Polynomial) -> LogDeterminant:
        """Collect a polynomial with matrix coefficients."""
        return cls(weight, np.array(list(polynomial), dtype=np.float64), np.stack(list(polynomial.values())))

    def value(self, u: Array) -> Array:
        """S at u, shape (...,); NaN where the determinant is not positive (the channel is unstable there)."""
        at_zero = self.matrices[(self.powers == 0).all(axis=1)].sum(axis=0)
        sign, log = np.linalg.slogdet(self._sum(self._monomials(u)))
        return self.weight * np.where(sign > 0, log - np.linalg.slogdet(at_zero)[1], np.nan)

    def derivatives(self, u: Array) -> tuple[Array, Array]:
        """Gradient, shape (..., layer), and Hessian, shape (..., layer, layer), in u."""
        weights = self._monomials(u)
        inverse = np.linalg.inv(self._sum(weights))
        slopes = inverse[..., None, :, :] @ np.tensordot(weights, self._slopes, axes=1)
        traces = weights * np.tensordot(inverse, self.matrices, axes=((-2, -1), (2, 1)))
        hessian = np.tensordot(traces, self.powers[:, :, None] * self.powers[:, None, :], axes=1)
        flat = slopes.reshape(*slopes.shape[:-2], -1)
        hessian = hessian - flat @ slopes.swapaxes(-1, -2).reshape(flat.shape).swapaxes(-1, -2)
        return self.weight * traces @ self.powers, self.weight * hessian

    @cached_property
    def _slopes(self) -> Array:
        """K_pl C_p, shape (monomial, layer, n, n)."""
        return np.asarray(self.powers[:, :, None, None] * self.matrices[:, None])

    def _monomials(self, u: Array) -> Array:
        return np.asarray(np.exp(u @ self.powers.T))

    def _sum(self, weights: Array) -> Array:
        return np.asarray(np.tensordot(weights, self.matrices, axes=1))


def extra_directions(count: int, layers: Iterable[int], depth: int, decay: float, variance: float) -> LogDeterminant:
    r"""Directions at one end that carry no teacher: :math:`\frac n2\ln(1 + \frac q\lambda\prod_{l}a_l^2)`.

    An extra input sees the product of the layers above the first, an extra output that of the layers below the last.
    """
    powers = np.zeros((2, depth))
    powers[1, list(layers)] = 2
    return LogDeterminant(0.5 * count, powers, np.array([[[decay]], [[variance]]]))


def unlearned_pair(
    singular_value: float, depth: int, decay: float, variance: float, other_variance: float | None = None
) -> LogDeterminant:
    r"""Another unlearned feature σ_j, of input variance q_j (the channel's own if not given), at the channel's ends.

    .. math:: \tfrac12\ln\det\begin{pmatrix}\lambda+q_jb^2 & -q_j\sigma_j e\\
        -q_j\sigma_j e & \lambda+qc^2\end{pmatrix},
        \quad b = a_2\cdots a_D,\; c = a_1\cdots a_{D-1},\; e = a_2\cdots a_{D-1}.
    """
    theirs = variance if other_variance is None else other_variance
    none, above, below = (0,) * depth, (0,) + (2,) * (depth - 1), (2,) * (depth - 1) + (0,)
    inner = (0,) + (1,) * (depth - 2) + (0,)
    off = np.array([[0.0, 1.0], [1.0, 0.0]])
    return LogDeterminant.of(
        0.5,
        {
            none: decay * np.eye(2),
            above: theirs * np.diag([1.0, 0.0]),
            below: variance * np.diag([0.0, 1.0]),
            inner: -theirs * singular_value * off,
        },
    )


def learned_pair(
    learned: tuple[float, float],
    singular_value: float,
    depth: int,
    decay: float,
    variance: float,
    other_variance: float | None = None,
) -> tuple[LogDeterminant, LogDeterminant]:
    r"""Weights between a learned channel i (amplitude, σ_i) and the new one: 2D directions, D − 1 of them rotations.

    `other_variance` is the input variance q_i of the learned feature, the new one's if not given.

    With the tangents τ of the rotations as columns the integral over the orbit and across it is
    :math:`\det(\tau^T\tau)\,\det(H + \kappa\tau\tau^T)^{-1/2}`: at a stationary point, where :math:`H\tau = 0`, this is
    the square root of the Gram determinant times :math:`\det'(H)^{-1/2}`, whatever κ is.

    Returns
    -------
    tuple of LogDeterminant
        :math:`\frac12\ln\det(H+\kappa\tau\tau^T)` and :math:`-\ln\det\tau^T\tau`.
    """
    amplitude, sigma = learned
    tangents = _tangents(amplitude, depth)
    theirs = variance if other_variance is None else other_variance
    hessian = _pair_hessian(amplitude, sigma, singular_value, depth, decay, (theirs, variance))
    # λ/a² makes the rotations as stiff as the weights they rotate.
    fixed = _add(hessian, _scale(decay / amplitude**2, _multiply(tangents, _transpose(tangents))))
    gram = _multiply(_transpose(tangents), tangents)
    return LogDeterminant.of(0.5, fixed), LogDeterminant.of(-1.0, gram)


def _pair_hessian(
    amplitude: float, sigma_learned: float, sigma: float, depth: int, decay: float, variances: tuple[float, float]
) -> Polynomial:
    r"""Second-order energy of :math:`x_l = W_l[s, i]` and :math:`y_l = W_l[i, s]` about two aligned channels.

    `variances` are those of the inputs of i (learned) and s (new).
    """
    old, variance = variances
    none = (0,) * depth
    x, y = (np.eye(2 * depth)[:depth, :, None], np.eye(2 * depth)[depth:, :, None])
    layers = range(depth)

    def product(start: int, stop: int, power: int = 1) -> Powers:
        return tuple(power * int(start <= l < stop) for l in layers)

    total: Polynomial = {none: decay * np.eye(2 * depth)}
    # First order: the end-to-end map's entries (s, i) and (i, s).
    to_new = {product(l + 1, depth): amplitude**l * x[l] for l in layers}
    to_old = {product(0, l): amplitude ** (depth - 1 - l) * y[l] for l in layers}
    for q, row in ((old, to_new), (variance, to_old)):
        total = _add(total, _scale(q, _multiply(row, _transpose(row))))
    # Second order: detours through the other channel, in the entries (s, s) and (i, i); the pull is the residual.
    pull_old = old * (sigma_learned - amplitude**depth)
    everything = product(0, depth)
    for k in layers:
        for l in range(k + 1, depth):
            detour = amplitude ** (l - k - 1) * (x[l] @ y[k].T + y[k] @ x[l].T)
            outside = tuple(a + b for a, b in zip(product(0, k), product(l + 1, depth), strict=True))
            total = _add(total, {outside: -variance * sigma * detour})
            total = _add(total, {tuple(a + b for a, b in zip(outside, everything, strict=True)): variance * detour})
            back = amplitude ** (depth - 1 - l + k) * (y[l] @ x[k].T + x[k] @ y[l].T)
            total = _add(total, {product(k + 1, l): -pull_old * back})
    return total


def _tangents(amplitude: float, depth: int) -> Polynomial:
    """Rotations of the hidden layers in the plane of the two channels, as columns, shape (2D, D − 1)."""
    columns: Polynomial = {}
    for l in range(depth - 1):
        units = [tuple(int(k == layer) for k in range(depth)) for layer in (l, l + 1)]
        fixed = np.zeros((2 * depth, depth - 1))
        fixed[l, l] = fixed[depth + l + 1, l] = amplitude
        columns = _add(columns, {(0,) * depth: fixed})
        for unit, row in zip(units, (depth + l, l + 1), strict=True):
            moving = np.zeros_like(fixed)
            moving[row, l] = -1.0
            columns = _add(columns, {unit: moving})
    return columns


def _add(one: Polynomial, other: Polynomial) -> Polynomial:
    total = dict(one)
    for powers, matrix in other.items():
        total[powers] = total[powers] + matrix if powers in total else matrix
    return total


def _scale(factor: float, polynomial: Polynomial) -> Polynomial:
    return {powers: factor * matrix for powers, matrix in polynomial.items()}


def _transpose(polynomial: Polynomial) -> Polynomial:
    return {powers: matrix.T for powers, matrix in polynomial.items()}


def _multiply(one: Polynomial, other: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for p, left in one.items():
        for r, right in other.items():
            total = _add(total, {tuple(i + j for i, j in zip(p, r, strict=True)): left @ right})
    return total
