r"""Volumes of the orbits on which the matrix network's stationary points lie.

The loss does not change under rotations :math:`R_l\in O(h_l)` of the hidden layers,
:math:`W_l\to R_lW_lR_{l-1}^T`, nor, where :math:`n_c` singular values of the teacher coincide, under a rotation
of their input *and* output directions together. A stationary point with channels i of amplitude :math:`a_i`
therefore is a whole orbit, the image of one frame in each hidden layer and one in each cluster of equal
singular values. Its volume is

.. math:: \frac{\prod_l |V_s(h_l)|\;\prod_c |V_{s_c}(n_c)|}{|{\rm stabiliser}|}\;\sqrt{\det{}' G}

with Stiefel manifolds :math:`|V_s(n)| = \prod_{i<s}|S^{n-1-i}|`, the Gram matrix G of the generators' tangent
vectors, and the stabiliser that turns channels of equal amplitude in all frames at once. G falls apart into

- a channel and an unused hidden unit, or an unlearned feature of its cluster: :math:`2a_i^2`;
- two channels: a quadratic form in one angle for each hidden layer,
  :math:`\sum_l (a_i^2+a_j^2)(\omega_l^2+\omega_{l-1}^2) - 4a_ia_j\,\omega_l\omega_{l-1}`, with
  :math:`\omega_0=\omega_D=0`, or equal to the data's own angle within a cluster.

Derived in the chapter on saddle spectra.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

__all__ = ["log_orbit_volume", "log_pair_gram", "log_sphere_area", "log_stiefel_volume", "orbit_dimension"]


def log_sphere_area(n: int) -> float:
    r"""Logarithm of the area :math:`|S^{n-1}| = 2\pi^{n/2}/\Gamma(n/2)` of the unit sphere in n ≥ 1 dimensions.

    Examples
    --------
    >>> [round(math.exp(log_sphere_area(n)) / math.pi, 12) for n in (2, 3)]
    [2.0, 4.0]
    """
    return math.log(2) + 0.5 * n * math.log(math.pi) - math.lgamma(0.5 * n)


def log_stiefel_volume(frame: int, n: int) -> float:
    r"""Logarithm of the volume of the orthonormal frames of `frame` vectors in n dimensions.

    .. math:: |V_s(n)| = \prod_{i<s} |S^{n-1-i}|

    in the metric in which a rotation of two axes by the angle ω has the length ω.

    Parameters
    ----------
    frame : int
        Number s of vectors, 0 ≤ s ≤ n.
    n : int
        Dimension.

    Examples
    --------
    The two-dimensional rotations and reflections, two circles:

    >>> round(math.exp(log_stiefel_volume(2, 2)) / math.pi, 12)
    4.0
    """
    return sum(log_sphere_area(n - i) for i in range(frame))


def log_pair_gram(depth: int, first: float, second: float, clustered: bool) -> float:
    r"""Logarithm of the Gram determinant of the rotations that mix two channels.

    .. math:: \det G = 2^{D-1}\frac{a^{2D}-b^{2D}}{a^2-b^2}, \qquad
              \det G = 2^D (a^D-b^D)^2, \qquad \det{}' G = 2^{D-1}D^2a^{2(D-1)}

    for two singular values that differ; that coincide, at different amplitudes; that coincide, at equal ones.

    Parameters
    ----------
    depth : int
        Number of weight layers D.
    first, second : float
        Amplitudes a and b > 0.
    clustered : bool
        Whether the two singular values coincide.

    Examples
    --------
    >>> round(math.exp(log_pair_gram(3, 1.0, 1.0, clustered=False)), 12)  # 2² · 3
    12.0
    """
    large, small = max(first, second), min(first, second)
    ratio = small / large
    if not clustered:
        # the quotient as a sum of positive terms
        total = float(np.sum(ratio ** (2.0 * np.arange(depth))))
        return (depth - 1) * math.log(2) + (2 * depth - 2) * math.log(large) + math.log(total)
    if ratio == 1:
        return (depth - 1) * math.log(2) + 2 * math.log(depth) + (2 * depth - 2) * math.log(large)
    return depth * math.log(2) + 2 * depth * math.log(large) + 2 * math.log1p(-(ratio**depth))


def _clusters(labels: Sequence[int], channels: int) -> dict[int, tuple[list[int], int]]:
    """Channels of each cluster, and the number of its features."""
    sizes = Counter(labels)
    return {c: ([i for i in range(channels) if labels[i] == c], n) for c, n in sizes.items()}


def orbit_dimension(hidden: Sequence[int], amplitudes: Sequence[float], labels: Sequence[int]) -> int:
    r"""Dimension of the orbit: the number of zero modes that symmetry makes.

    For singular values that all differ it is :math:`\sum_l [s h_l - s(s+1)/2]` at s channels.

    Parameters
    ----------
    hidden : sequence of int
        Hidden widths :math:`h_1,\dots,h_{D-1}`.
    amplitudes : sequence of float
        Amplitudes of the channels, all > 0.
    labels : sequence of int
        Cluster of every feature, those of the channels first: features of equal singular value share a label.

    Examples
    --------
    >>> orbit_dimension((2, 3), (0.9,), (0, 1))
    3
    >>> orbit_dimension((2, 3), (0.9,), (0, 0))  # the two directions of the data turn as well
    4
    """
    s = len(amplitudes)
    total = sum(s * h - s * (s + 1) // 2 for h in hidden)
    for members, n in _clusters(labels, s).values():
        equal = sum(g * (g - 1) // 2 for g in Counter(amplitudes[i] for i in members).values())
        r = len(members)
        total += r * (n - r) + r * (r - 1) // 2 - equal
    return total


def log_orbit_volume(hidden: Sequence[int], amplitudes: Sequence[float], labels: Sequence[int]) -> float:
    """Logarithm of the orbit's volume, all its connected parts together.

    Parameters
    ----------
    hidden, amplitudes, labels
        As in `orbit_dimension`. Amplitudes of one cluster are equal or clearly different.

    Returns
    -------
    float
        Volume in weight space [amplitude^dimension]; for widths of one it counts points.

    Examples
    --------
    One channel through layers of one unit: the signs of two hidden units give four points.

    >>> round(math.exp(log_orbit_volume((1, 1), (0.25,), (0,))), 12)
    4.0
    """
    s, depth = len(amplitudes), len(hidden) + 1
    log_volume = sum(log_stiefel_volume(s, h) for h in hidden)
    for a in amplitudes:
        log_volume += 0.5 * sum(h - s for h in hidden) * math.log(2 * a * a)
    for i, j in combinations(range(s), 2):
        log_volume += 0.5 * log_pair_gram(depth, amplitudes[i], amplitudes[j], labels[i] == labels[j])
    for members, n in _clusters(labels, s).values():
        if not members:
            continue
        log_volume += log_stiefel_volume(len(members), n)
        log_volume += sum(0.5 * (n - len(members)) * math.log(2 * amplitudes[i] ** 2) for i in members)
        for g in Counter(amplitudes[i] for i in members).values():
            # A rotation that leaves the point alone turns all D frames: its angle ω has the length √D ω.
            log_volume -= log_stiefel_volume(g, g) + 0.25 * g * (g - 1) * math.log(depth)
    return log_volume
