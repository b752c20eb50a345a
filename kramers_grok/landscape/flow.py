r"""The gradient flow :math:`\dot\theta = -\nabla F`, followed to its end: which basin a point belongs to.

A step linearises the gradient where it stands and solves that linear flow exactly (the exponential
Rosenbrock–Euler method: Hochbruck, Ostermann & Schweitzer, SIAM J. Numer. Anal. 47, 786 (2009)),

.. math:: \theta \leftarrow \theta - \frac{1-e^{-H\tau}}{H}\,\nabla F ,

as long a time τ as the gradient found at the end is the one foretold. Stiff directions cost nothing, directions of
negative curvature are left as the flow leaves them, and near the end, where τ grows without bound, it is Newton's
iteration: an optimiser's line search would be as fast, and may jump into another basin.

Of large models the linear flow is solved in the Krylov space of the gradient (Lanczos), where what leaves it counts as
a departure.

With one eigenvector's component reversed the same flow climbs along it and ends at a saddle (gentlest ascent:
E & Zhou, Nonlinearity 24, 1831 (2011)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from kramers_grok.landscape.krylov import lanczos, lowest_modes, projected
from kramers_grok.landscape.surface import Surface

__all__ = ["FLOW_LIMIT", "Trajectory", "follow"]

Array = NDArray[np.float64]

#: Parameters up to which the flow is followed with whole Hessians; beyond, in Krylov spaces.
FLOW_LIMIT = 400

_DEPARTURE = 0.1  # of a step's end from the linear flow's, relative to its length
_GROWTH = 2.0  # e-foldings along a direction of negative curvature within one step
_LONGEST = 1e8  # steps longer than this many of the fastest relaxation times are Newton's
_STALLED = 60  # shrinkings of a step before it is given up
_KRYLOV = 60  # dimensions of a Krylov space


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where a flow went.

    Attributes
    ----------
    points : ndarray, shape (point, parameter)
        From the start to the end.
    gradient_norm : float
        ‖∇F‖ at the end [loss/weight].
    converged : bool
        Whether it is within the tolerance.
    """

    points: Array
    gradient_norm: float
    converged: bool

    @property
    def end(self) -> Array:
        """Last point, shape (parameter,)."""
        return np.asarray(self.points[-1])


def follow(
    surface: Surface, start: Array, *, tolerance: float, max_steps: int = 500, uphill: Array | None = None
) -> Trajectory:
    """Follow the gradient flow to a stationary point.

    Parameters
    ----------
    surface : Surface
    start : ndarray, shape (parameter,)
    tolerance : float
        ‖∇F‖ at which it has arrived [loss/weight].
    max_steps : int
    uphill : ndarray, shape (parameter,), optional
        Climb along the eigenvector that overlaps most with this direction, and on along its continuation.
    """
    theta, gradient = start, surface.gradient(start)
    points, time = [start], 0.0
    for _ in range(max_steps):
        if np.linalg.norm(gradient) <= tolerance:
            break
        curvature, modes = _linearised(surface, theta, gradient, uphill)
        signs = np.ones(len(curvature))
        if uphill is not None:
            # Of a Krylov space the first mode is the one split off
            climbing = int(np.argmax(np.abs(modes.T @ uphill))) if surface.size <= FLOW_LIMIT else 0
            signs[climbing] = -1.0
            uphill = np.asarray(modes[:, climbing])
        if not time:
            rate = np.linalg.norm(gradient) / (1.0 + np.linalg.norm(theta))  # where nothing is curved
            time = 0.1 / max(float(np.abs(curvature).max()), float(rate))
        found = _step(surface, theta, gradient, curvature, modes, signs, time)
        if found is None:
            break  # rounding: no step, however small, brings the gradient that was foretold
        theta, gradient, time = found
        points.append(theta)
    norm = float(np.linalg.norm(gradient))
    return Trajectory(np.array(points), norm, norm <= tolerance)


def _linearised(surface: Surface, theta: Array, gradient: Array, uphill: Array | None) -> tuple[Array, Array]:
    """Curvatures and orthonormal modes (columns): all of them, or those of the gradient's Krylov space."""
    if surface.size <= FLOW_LIMIT:
        curvature, modes = np.linalg.eigh(surface.hessian(theta))
        return np.asarray(curvature), np.asarray(modes)
    none = np.empty((0, surface.size))
    if uphill is None:
        return _ritz(surface, theta, gradient, none)
    # The mode that is climbed, the lowest one here, is split off; the space is that of what is left of the gradient.
    low, mode = lowest_modes(surface, theta, 1, none, 0.0, start=uphill, tolerance=1e-5)
    curvature, modes = _ritz(surface, theta, gradient - (mode @ gradient) @ mode, mode)
    return np.concatenate([low, curvature]), np.concatenate([mode.T, modes], axis=1)


def _ritz(surface: Surface, theta: Array, start: Array, away: Array) -> tuple[Array, Array]:
    diagonal, off, basis = lanczos(projected(surface, theta, away), start[None], _KRYLOV, away)
    exhausted = np.flatnonzero(off[0] == 0)
    end = int(exhausted[0]) + 1 if len(exhausted) else diagonal.shape[1]
    values, vectors = eigh_tridiagonal(diagonal[0, :end], off[0, : end - 1])
    return np.asarray(values), np.asarray(basis[0, :end].T @ vectors)


def _step(
    surface: Surface, theta: Array, gradient: Array, curvature: Array, modes: Array, signs: Array, time: float
) -> tuple[Array, Array, float] | None:
    """One step of the linear flow, its end's gradient, and the length of the next."""
    rates, force = signs * curvature, modes.T @ gradient
    fastest = max(float(np.abs(rates).max()), float(np.finfo(float).tiny))
    steepest = float(-rates.min())
    for _ in range(_STALLED):
        time = min(time, _LONGEST / fastest, _GROWTH / steepest if steepest > 0 else np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(rates == 0, time, -np.expm1(-rates * time) / rates)
        moved = -modes @ (signs * reach * force)
        there = theta + moved
        arrived = surface.gradient(there)
        foretold = np.exp(-rates * time) * force
        found = modes.T @ arrived
        departure = np.linalg.norm(reach * (found - foretold))
        if len(found) < len(theta):  # outside of a Krylov space nothing is foretold
            departure += np.linalg.norm(arrived - modes @ found) * np.median(reach)
        length = np.linalg.norm(moved)
        done = np.linalg.norm(arrived) <= 0.1 * np.linalg.norm(gradient) and departure < 0.3 * length
        if departure <= _DEPARTURE * length or done:
            factor = np.sqrt(_DEPARTURE * length / departure) if departure > 0 else 10.0
            return there, arrived, time * float(np.clip(0.9 * factor, 0.5, 10.0))
        time *= float(np.clip(0.9 * np.sqrt(_DEPARTURE * length / departure), 0.1, 0.7))
    return None
