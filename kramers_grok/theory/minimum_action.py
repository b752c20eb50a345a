r"""Minimum-action paths: how rare events happen, and what they cost, in many coordinates.

The cheapest way from x₀ to x₁ at any speed has the geometric action

.. math:: S = \min_\varphi \int \vartheta\cdot d\varphi, \qquad H(\varphi, \vartheta) = 0,\quad
          H_p(\varphi,\vartheta) \parallel \varphi',

which does not depend on the path's parametrisation (Heymann & Vanden-Eijnden, Comm. Pure Appl. Math. 61, 1052, 2008).
It is discretised by the midpoint rule on points at equal distances and minimised over the displacements across the path
by Newton's method, between which the points are spread evenly again.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import LinAlgError, eig_banded, solveh_banded

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.theory.action_hamiltonians import ChainHamiltonian, DiffusionHamiltonian, Hamiltonian

__all__ = ["ChainHamiltonian", "DiffusionHamiltonian", "Hamiltonian", "MinimumAction", "minimum_action_path"]

Array = NDArray[np.float64]

# Inner iteration for the momentum at a given direction
_MAX_MOMENTUM = 100
_MOMENTUM_TOLERANCE = 1e-11
# Newton's method for the path: largest move and the size of a push off a stationary path that is no minimum, over the
# path's length, and the step of the gradient's differences
_LONGEST_MOVE = 0.1
_KICK = 0.05
_DIFFERENCE = 1e-6
_SPREADS = 30


@dataclass(frozen=True, eq=False)
class MinimumAction:
    r"""A minimum-action path.

    Attributes
    ----------
    action : float
        S extrapolated from two resolutions: rare times are :math:`\sim e^{S/\varepsilon}`.
    error : float
        Estimated discretisation error of `action`: the size of the extrapolation.
    path : ndarray, shape (segment + 1, coordinate)
        Points at equal distances.
    momentum : ndarray, shape (segment, coordinate)
        ϑ at the segments' midpoints; 0 where the drift leads on.
    segment_action : ndarray, shape (segment,)
        Action of each segment; its sum is the finer resolution's S.
    n_iterations : int
        Newton steps, over all resolutions.
    converged : bool
        Whether the last step could change the action by less than the tolerance.
    """

    action: float
    error: float
    path: Array
    momentum: Array
    segment_action: Array
    n_iterations: int
    converged: bool


def minimum_action_path(
    hamiltonian: Hamiltonian,
    start: ArrayLike,
    end: ArrayLike,
    *,
    initial: ArrayLike | None = None,
    n_segments: int = 200,
    tolerance: float = 1e-9,
    max_iterations: int = 200,
) -> MinimumAction:
    r"""Cheapest path between two points, for a diffusion or for SGD's own Hamiltonian.

    Parameters
    ----------
    hamiltonian : Hamiltonian
        `DiffusionHamiltonian`, `ChainHamiltonian` or any other that is strictly convex in p.
    start, end : array_like, shape (coordinate,)
        A minimum of the drift, and the saddle: from there on the way down costs nothing.
    initial : array_like, shape (point, coordinate), optional
        First guess, by default the straight line. Of several local minima the one next to it is found.
    n_segments : int
        At the finest of the resolutions, n/4, n/2 and n; a multiple of 4 and at least 16.
    tolerance : float
        On the expected decrease of the action, relative to its terms' sum without signs.
    max_iterations : int
        Newton steps at each resolution.

    Returns
    -------
    MinimumAction

    Raises
    ------
    InvalidParameterError
        For ends that coincide, shapes that do not fit, or a Hamiltonian without a momentum in some direction.

    Warns
    -----
    ValidityWarning
        If it did not converge.

    Notes
    -----
    Where the path found is stationary but no minimum, as a symmetric one may be, it is pushed off along the direction
    in which the action falls. Where a continuous symmetry makes the ends points of an orbit (hidden rotations of a
    matrix network), a path can slide along it for nothing and the search may not converge: fix the symmetry first.

    Examples
    --------
    Isotropic noise on a gradient: twice the barrier.

    >>> field = DiffusionHamiltonian(lambda x: np.stack([x[:, 0] - x[:, 0] ** 3, -x[:, 1]], axis=1))
    >>> found = minimum_action_path(field, [-1.0, 0.0], [0.0, 0.0], n_segments=64)
    >>> print(f"{found.action:.6f}")
    0.500000
    """
    first, last = (checks.finite_array(name, point, ndim=1) for name, point in (("start", start), ("end", end)))
    if first.shape != last.shape or np.allclose(first, last, rtol=0, atol=1e-14):
        raise InvalidParameterError(
            f"`start` = {first.tolist()} and `end` = {last.tolist()}: expected two different points of the same "
            "space.\nUse `barrier.minimum, barrier.saddle`."
        )
    n_segments = checks.positive_int("n_segments", n_segments, minimum=16)
    if n_segments % 4:
        raise checks.invalid("n_segments", n_segments, "a multiple of 4", "it is halved twice")
    path = _first_path(first, last, initial)
    coarse, iterations = np.nan, 0
    for n in (n_segments // 4, n_segments // 2, n_segments):
        path = _spread(path, n)
        solver = _Solver(hamiltonian, checks.positive("tolerance", tolerance), max_iterations)
        before, (path, converged, used) = coarse, solver.minimise(path)
        iterations += used
        terms = _terms(hamiltonian, path, solver.momentum)
        coarse = float(terms.action.sum())
    correction = (coarse - before) / 3
    if not converged:
        warnings.warn(
            f"The path did not converge in {max_iterations} Newton steps at {n_segments} segments.\n"
            "Raise `max_iterations`, give an `initial` path, or end at the saddle.",
            ValidityWarning,
            stacklevel=2,
        )
    return MinimumAction(
        action=coarse + correction,
        error=abs(correction),
        path=path,
        momentum=terms.momentum,
        segment_action=terms.action,
        n_iterations=iterations,
        converged=converged,
    )


def _first_path(start: Array, end: Array, initial: ArrayLike | None) -> Array:
    if initial is None:
        return np.stack([start, end])
    path = checks.finite_array("initial", initial, ndim=2)
    if path.shape[1] != len(start) or len(path) < 2:
        raise checks.invalid(
            "initial",
            checks.Described(f"array of shape {path.shape}"),
            f"shape (point, {len(start)})",
            "a row is a point",
        )
    path = np.concatenate([start[None], path[1:-1], end[None]])
    moved = np.linalg.norm(np.diff(path, axis=0), axis=1) > 0
    return np.concatenate([path[:1], path[1:][moved]])


def _spread(path: Array, n_segments: int) -> Array:
    """Points at equal distances along the same curve."""
    for _ in range(_SPREADS):
        lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
        if len(lengths) == n_segments and np.ptp(lengths) <= 1e-10 * lengths.mean():
            break
        at = np.concatenate([[0.0], np.cumsum(lengths)])
        wanted = np.linspace(0, at[-1], n_segments + 1)
        # A cubic spline: linear interpolation would cut corners at every pass
        spline = CubicSpline(at, path) if len(path) > 3 else None
        inner = spline(wanted) if spline is not None else np.stack([np.interp(wanted, at, c) for c in path.T], axis=1)
        path = np.concatenate([path[:1], inner[1:-1], path[-1:]])
    return path


@dataclass(frozen=True)
class _Terms:
    """Action ϑ·v of each segment, its gradients in midpoint and difference v, and the sum's size without signs."""

    action: Array
    momentum: Array
    by_midpoint: Array
    size: float


def _terms(hamiltonian: Hamiltonian, path: Array, guess: Array | None) -> _Terms:
    x, v = 0.5 * (path[1:] + path[:-1]), np.diff(path, axis=0)
    p, speed, x_slope, size = _momenta(hamiltonian, x, v, guess)
    # ϑ maximises v·p on H = 0: with v = H_p/speed, the gradient in x is −H_x/speed (0 at rest, where H_x = 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_midpoint = np.where(speed[:, None] > 0, -x_slope / speed[:, None], 0.0)
    return _Terms((p * v).sum(axis=1), p, by_midpoint, size)


def _momenta(hamiltonian: Hamiltonian, x: Array, v: Array, guess: Array | None) -> tuple[Array, Array, Array, float]:
    """Momentum with H = 0 and H_p = speed · v, the speed, H_x, and the action's size without signs."""
    p = np.zeros_like(x) if guess is None or guess.shape != x.shape else guess
    jet = hamiltonian.jet(x, p)
    if not np.isfinite(jet.value).all():
        p = np.zeros_like(x)
        jet = hamiltonian.jet(x, p)
    for _ in range(_MAX_MOMENTUM):
        try:
            solved = np.linalg.solve(jet.pp, np.stack([v, jet.p], axis=2))
        except np.linalg.LinAlgError:
            raise InvalidParameterError(
                "The Hamiltonian is not strictly convex in p on the path: noise does not reach every direction, and a "
                "general path has an infinite action.\nAdd isotropic noise, or reduce to the directions that noise has."
            ) from None
        along, drift = solved[:, :, 0], solved[:, :, 1]
        metric = (v * along).sum(axis=1)
        square = ((jet.p * drift).sum(axis=1) - 2 * jet.value) / metric
        speed = np.sqrt(np.maximum(square, 0.0))
        step = speed[:, None] * along - drift
        scale = np.abs(p).max() + np.abs(step).max()
        share = np.ones(len(x))
        for _ in range(60):  # stay where H is finite
            new = hamiltonian.jet(x, p + share[:, None] * step)
            outside = ~np.isfinite(new.value)
            if not outside.any():
                break
            share[outside] *= 0.5
        p, jet = p + share[:, None] * step, new
        if np.abs(step).max() <= _MOMENTUM_TOLERANCE * scale or scale == 0:
            return p, speed, jet.x, float((speed * metric).sum())
    bad = int((np.abs(step).max(axis=1) > 1e-6 * scale).sum())
    raise InvalidParameterError(
        f"No momentum was found for {bad} of the path's {len(x)} directions: is H convex in p, 0 at p = 0, and finite "
        "around there?\nGive an `initial` path closer to the drift."
    )


class _Solver:
    """Newton's method at one resolution, over displacements across the path."""

    def __init__(self, hamiltonian: Hamiltonian, tolerance: float, max_iterations: int) -> None:
        self.hamiltonian = hamiltonian
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.momentum: Array | None = None

    def minimise(self, path: Array) -> tuple[Array, bool, int]:
        """Return the path, whether it converged, and the number of steps."""
        n = len(path) - 1
        for used in range(1, self.max_iterations + 1):
            terms = self._terms(path)
            frame = _frame(path)
            gradient = self._gradient(terms, frame)
            bands = self._hessian(path, frame, gradient)
            step, shifted = _newton_step(bands, -gradient.ravel())
            decrease = -0.5 * float(gradient.ravel() @ step)
            small = decrease <= self.tolerance * terms.size
            if small and not shifted:
                return self._moved(path, frame, step.reshape(n - 1, -1)), True, used
            length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
            if small:
                move = self._push(path, frame, bands, length)
            else:
                move = self._searched(path, frame, step.reshape(n - 1, -1), terms, decrease, length)
            path = self._moved(path, frame, move)
        return path, False, self.max_iterations

    def _terms(self, path: Array) -> _Terms:
        terms = _terms(self.hamiltonian, path, self.momentum)
        self.momentum = terms.momentum
        return terms

    def _gradient(self, terms: _Terms, frame: Array) -> Array:
        """Gradient in the displacements, shape (inner point, coordinate − 1)."""
        half = 0.5 * terms.by_midpoint
        by_node = half[:-1] + half[1:] + terms.momentum[:-1] - terms.momentum[1:]
        return np.asarray(np.einsum("ijk,ij->ik", frame, by_node))

    def _hessian(self, path: Array, frame: Array, gradient: Array) -> Array:
        """Lower bands of the block-tridiagonal Hessian, three colours of points at a time."""
        n_inner, across = gradient.shape
        spacing = float(np.linalg.norm(path[1] - path[0]))
        bands = np.zeros((2 * across, n_inner * across))
        for colour in range(3):
            points = np.arange(colour, n_inner, 3)
            for k in range(across):
                move = np.zeros_like(gradient)
                move[points, k] = _DIFFERENCE * spacing
                change = (self._gradient_at(path, frame, move) - self._gradient_at(path, frame, -move)) / (
                    2 * _DIFFERENCE * spacing
                )
                for i in points:
                    column = i * across + k
                    block = change[i : i + 2].ravel()[k:]
                    bands[: len(block), column] = block[: 2 * across]
        return bands

    def _gradient_at(self, path: Array, frame: Array, move: Array) -> Array:
        return self._gradient(_terms(self.hamiltonian, _displaced(path, frame, move), self.momentum), frame)

    def _searched(self, path: Array, frame: Array, step: Array, terms: _Terms, decrease: float, length: float) -> Array:
        """Backtrack until the action falls."""
        largest = float(np.linalg.norm(step, axis=1).max())
        share = min(1.0, _LONGEST_MOVE * length / largest)
        action = float(terms.action.sum())
        for _ in range(30):
            new = _terms(self.hamiltonian, _displaced(path, frame, share * step), self.momentum)
            if float(new.action.sum()) <= action - 0.1 * share * decrease:
                break
            share *= 0.5
        return share * step

    def _push(self, path: Array, frame: Array, bands: Array, length: float) -> Array:
        """Along the direction in which a stationary action falls most."""
        vectors = np.asarray(eig_banded(bands, lower=True, select="i", select_range=(0, 0))[1], dtype=np.float64)
        move = vectors[:, 0].reshape(len(path) - 2, -1)
        return np.asarray(_KICK * length * move / np.linalg.norm(move, axis=1).max())

    def _moved(self, path: Array, frame: Array, move: Array) -> Array:
        return _spread(_displaced(path, frame, move), len(path) - 1)


def _displaced(path: Array, frame: Array, move: Array) -> Array:
    inner = path[1:-1] + np.einsum("ijk,ik->ij", frame, move)
    return np.concatenate([path[:1], inner, path[-1:]])


def _frame(path: Array) -> Array:
    """Orthonormal directions across the path at its inner points, shape (point, coordinate, coordinate − 1)."""
    tangent = path[2:] - path[:-2]
    tangent = tangent / np.linalg.norm(tangent, axis=1)[:, None]
    # Householder's reflection that takes the tangent to ±e₁: its other columns are across
    sign = np.where(tangent[:, 0] >= 0, 1.0, -1.0)
    mirror = tangent.copy()
    mirror[:, 0] += sign
    norm = (mirror**2).sum(axis=1)
    eye = np.eye(path.shape[1])
    return np.asarray((eye - 2 * mirror[:, :, None] * mirror[:, None, :] / norm[:, None, None])[:, :, 1:])


def _newton_step(bands: Array, target: Array) -> tuple[Array, bool]:
    """Solve with the Hessian, made positive definite by a shift where it is not."""
    shift, scale = 0.0, float(np.abs(bands[0]).max())
    while True:
        shifted = bands.copy()
        shifted[0] += shift
        try:
            return np.asarray(solveh_banded(shifted, target, lower=True)), shift > 0
        except LinAlgError:
            shift = max(10 * shift, 1e-6 * scale)
