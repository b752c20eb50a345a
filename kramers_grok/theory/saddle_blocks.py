r"""Hessian blocks of the matrix network at a stationary point.

Channel i carries the feature of singular value :math:`\sigma_i` with amplitude :math:`a_i` in every layer;
:math:`\lambda = q a_i^{D-2} r_i`, :math:`r_i=\sigma_i-a_i^D`. The Hessian of
:math:`\frac q2\|M-W_D\cdots W_1\|^2+\frac\lambda2\sum_l\|W_l\|^2` falls apart into

======================================  =====================  ==========================================
coupled weights                         size                   eigenvalues
======================================  =====================  ==========================================
channel i in all layers                 D                      :math:`Dqa_i^{2D-2}-(D-2)\lambda`; 2λ (D−1 times)
channels i, j in all layers             2D                     numerically, D−1 (or D) zeros projected out
channel i and an unused hidden unit     2                      0, 2λ
channel i and an unlearned feature j    2                      :math:`q a_i^{D-2}(\sigma_i\pm\sigma_j)`
channel i and a spare input or output   1                      :math:`q a_i^{D-2}\sigma_i`
all the rest                            1                      λ
======================================  =====================  ==========================================

because :math:`\lambda+q a_i^{2D-2} = q a_i^{D-2}\sigma_i`: the differences of singular values, on which stability
hangs, are formed without cancellation. Derived in the chapter on saddle spectra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Channel", "pair_block", "pair_spectrum", "pair_tangents"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Channel:
    """One used channel of a stationary point.

    Attributes
    ----------
    feature : int
        The feature it carries, strongest first.
    cluster : int
        Features of equal singular value share a cluster.
    amplitude : float
        a > 0 in every layer.
    residual : float
        σ − a^D, from the stationarity condition rather than by subtraction.
    along : float
        Curvature :math:`Dqa^{2D-2}-(D-2)λ` along the balanced path.
    """

    feature: int
    cluster: int
    amplitude: float
    residual: float
    along: float


def pair_block(depth: int, first: Channel, second: Channel, weight_decay: float, q: float) -> Array:
    r"""Hessian of the weights that lead from one channel to another.

    With :math:`x_l = \delta W_l[i,j]` and :math:`y_l = \delta W_l[j,i]` the second variation is

    .. math:: q\Big(\sum_l a_i^{D-l}a_j^{l-1}x_l\Big)^2 + q\Big(\sum_l a_j^{D-l}a_i^{l-1}y_l\Big)^2
        + \lambda\sum_l (x_l^2+y_l^2)
        - 2q\sum_{l<m}\big[r_i a_i^{D-1-m+l}a_j^{m-l-1}\,x_m y_l + r_j a_j^{D-1-m+l}a_i^{m-l-1}\,y_m x_l\big].

    Returns
    -------
    ndarray, shape (2D, 2D)
        Rows x_1 … x_D, y_1 … y_D.
    """
    a, b = first.amplitude, second.amplitude
    l = np.arange(depth)
    through = [a ** (depth - 1.0 - l) * b**l, b ** (depth - 1.0 - l) * a**l]
    gap = l[:, None] - l[None, :]  # m − l, the layers' distance
    later = np.where(gap > 0, gap, 1)
    cross = np.where(
        gap > 0,
        first.residual * a ** (depth - 1.0 - later) * b ** (later - 1.0),
        0.0,
    )  # x_m y_l
    other = np.where(gap > 0, second.residual * b ** (depth - 1.0 - later) * a ** (later - 1.0), 0.0)  # y_m x_l
    mixed = -q * (cross + other.T)
    block = np.empty((2 * depth, 2 * depth))
    block[:depth, :depth] = q * np.outer(through[0], through[0])
    block[depth:, depth:] = q * np.outer(through[1], through[1])
    block[:depth, depth:], block[depth:, :depth] = mixed, mixed.T
    return block + weight_decay * np.eye(2 * depth)


def pair_tangents(depth: int, first: Channel, second: Channel) -> Array:
    """Tangent vectors of the rotations that mix two channels, in the coordinates of `pair_block`.

    Returns
    -------
    ndarray, shape (2D, D−1) or (2D, D)
        A column for each hidden layer, and one for the data where the singular values coincide and the
        amplitudes do not (at equal amplitudes it depends on the others).
    """
    a, b = first.amplitude, second.amplitude
    with_data = first.cluster == second.cluster and a != b
    columns = np.zeros((2 * depth, depth - 1 + with_data))
    for l in range(1, depth):  # ω_l: W_l gains ω_l G A on the left, W_{l+1} gains −A ω_l G
        columns[[l - 1, depth + l - 1], l - 1] = b, -a
        columns[[l, depth + l], l - 1] = -a, b
    if with_data:  # ω_0 = ω_D
        columns[[0, depth], -1] = -a, b
        columns[[depth - 1, 2 * depth - 1], -1] += b, -a
    return columns


def pair_spectrum(depth: int, first: Channel, second: Channel, weight_decay: float, q: float) -> Array:
    """Eigenvalues of `pair_block` without the zero modes, ascending."""
    tangents = pair_tangents(depth, first, second)
    # The complement of the known zero modes: a threshold would have to tell zeros from soft modes.
    frame, _ = np.linalg.qr(tangents, mode="complete")
    rest = frame[:, tangents.shape[1] :]
    block = pair_block(depth, first, second, weight_decay, q)
    return np.asarray(np.linalg.eigvalsh(rest.T @ block @ rest))
