r"""Integrals about a point that a Gaussian does not fit: annealed importance sampling.

Draws of the Gaussian turn by and by into draws of the integrand f: at level β they move, by Langevin steps with
Metropolis' rule, in the density :math:`e^{-u^2/2}\,[f(u)\,e^{u^2/2}]^\beta`, and between two levels each takes up the
weight :math:`[f e^{u^2/2}]^{\Delta\beta}`. The mean of the products is :math:`\int f\,du/(2\pi)^{n/2}`, without bias
(Neal, Statistics and Computing 11, 125 (2001)). In many dimensions the weights stay even where those of plain
importance sampling do not; and draws do not jump into far-off regions that the integral should not hold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["annealed"]

Array = NDArray[np.float64]

_ACCEPTED = 0.6  # share of moves at which the step is right


def annealed(
    log_density: Callable[[Array], tuple[Array, Array]],
    normals: Array,
    rng: np.random.Generator,
    *,
    n_levels: int = 16,
    n_moves: int = 2,
) -> tuple[Array, Array]:
    """Turn normal draws into weighted draws of a density.

    Parameters
    ----------
    log_density : callable
        ln f and its gradient at each row; −∞ where the density vanishes.
    normals : ndarray, shape (draw, dimension)
        Standard normal numbers.
    rng : numpy.random.Generator
        For the moves.
    n_levels : int
        Steps of β from 0 to 1.
    n_moves : int
        Moves at each level.

    Returns
    -------
    draws : ndarray, shape (draw, dimension)
    log_weights : ndarray, shape (draw,)
        Their means are integrals of f over those of the normal numbers' :math:`e^{-u^2/2}`.

    Examples
    --------
    A Gaussian of twice the variance has 2 times the integral in two dimensions:

    >>> rng = np.random.default_rng(0)
    >>> u, w = annealed(lambda u: (-0.25 * (u**2).sum(axis=1), -0.5 * u), rng.normal(size=(4000, 2)), rng)
    >>> bool(abs(np.exp(w).mean() - 2.0) < 0.1)
    True
    """
    u = normals.copy()
    value, slope = log_density(u)
    weights = np.zeros(len(u))
    step = 1.3 * u.shape[1] ** (-1 / 6)
    for beta, last in ((k / n_levels, (k - 1) / n_levels) for k in range(1, n_levels + 1)):
        # A draw that has left the density's support stays out, with the weight 0.
        weights += (beta - last) * (value + 0.5 * (u**2).sum(axis=1))
        for _ in range(n_moves):
            here = (1 - beta) * -0.5 * (u**2).sum(axis=1) + beta * value
            drift = -(1 - beta) * u + beta * slope
            trial = u + 0.5 * step**2 * drift + step * rng.standard_normal(u.shape)
            new_value, new_slope = log_density(trial)
            there = (1 - beta) * -0.5 * (trial**2).sum(axis=1) + beta * new_value
            back = -(1 - beta) * trial + beta * new_slope
            forth = ((trial - u - 0.5 * step**2 * drift) ** 2).sum(axis=1)
            return_ = ((u - trial - 0.5 * step**2 * back) ** 2).sum(axis=1)
            with np.errstate(invalid="ignore"):
                ratio = there - here + (forth - return_) / (2 * step**2)
            possible = np.isfinite(new_value) & np.isfinite(ratio)
            taken = np.log(rng.random(len(u))) < np.where(possible, ratio, -np.inf)
            u = np.where(taken[:, None], trial, u)
            value, slope = np.where(taken, new_value, value), np.where(taken[:, None], new_slope, slope)
            step *= np.exp(0.5 * (taken.mean() - _ACCEPTED))
    return u, weights
