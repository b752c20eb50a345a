"""Stationary points of a model's energy: found to rounding, and classified by the Hessian's spectrum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from kramers_grok.core import checks
from kramers_grok.core.barrier import log_determinant
from kramers_grok.core.exceptions import UncertifiedError
from kramers_grok.landscape.flow import Trajectory, follow
from kramers_grok.landscape.krylov import highest_modes, log_determinant_samples, lowest_modes
from kramers_grok.landscape.surface import DENSE_LIMIT, PointLike, Surface
from kramers_grok.landscape.symmetries.symmetry import Symmetry, symmetry_of
from kramers_grok.models.base import Model

__all__ = ["ZERO_MODE", "StationaryPoint", "classify", "find_minima", "find_minimum", "same_state"]

Array = NDArray[np.float64]

#: Curvature, relative to the largest, below which a mode is a zero mode.
ZERO_MODE = 1e-8

_SHARED = 0.99
_MODES = 64  # that a point keeps
_LOW, _HIGH = 12, 32  # eigenvalues of a large Hessian that are computed
_KICKS = 8
_KICK = 1e-3  # along a negative mode, relative to the point's length


@dataclass(frozen=True, eq=False)
class StationaryPoint:
    """A stationary point and what its Hessian says of it.

    Attributes
    ----------
    theta : ndarray, shape (parameter,)
    energy : float
        F [loss].
    gradient_norm : float
        ‖∇F‖ [loss/weight].
    spectrum : ndarray
        Eigenvalues of the Hessian without the zero modes, ascending [loss/weight²]; of large models the ends that
        were computed.
    index : int
        Number of negative eigenvalues.
    n_zero_modes : int
        Curvatures below `ZERO_MODE` of the largest.
    n_unexplained : int
        How many of the zero modes no known symmetry makes.
    log_determinant_samples : ndarray
        Σ ln of the moduli of all nonzero eigenvalues: one exact number, or one estimate for each random probe.
    trace : float
        Sum of all eigenvalues [loss/weight²].
    modes : ndarray, shape (mode, parameter)
        Eigenvectors of the lowest eigenvalues in `spectrum`, the negative ones and the softest.
    zero_modes : ndarray, shape (zero mode, parameter)
        Eigenvectors of the zero modes.
    """

    theta: Array
    energy: float
    gradient_norm: float
    spectrum: Array
    index: int
    n_zero_modes: int
    n_unexplained: int
    log_determinant_samples: Array
    trace: float
    modes: Array = field(repr=False)
    zero_modes: Array = field(repr=False)

    @property
    def kind(self) -> str:
        """Return "minimum", "saddle" (index 1), "saddle of index k", or "degenerate" where zero modes are unexplained.

        A degenerate point may be anything: what its energy does along the zero modes, no Hessian says.
        """
        if self.n_unexplained:
            return "degenerate"
        return {0: "minimum", 1: "saddle"}.get(self.index, f"saddle of index {self.index}")

    @property
    def log_determinant(self) -> float:
        """Σ ln of the moduli of all nonzero eigenvalues."""
        return float(self.log_determinant_samples.mean())

    @property
    def is_minimum(self) -> bool:
        """Whether it is a minimum, strict up to known symmetries."""
        return self.kind == "minimum"


def classify(
    model: Model,
    theta: PointLike,
    *,
    symmetry: Symmetry | None = None,
    zero_mode: float = ZERO_MODE,
    dense_limit: int = DENSE_LIMIT,
) -> StationaryPoint:
    """Classify a point by the spectrum of its Hessian.

    It says nothing about whether the point is stationary: look at ``gradient_norm``.

    Parameters
    ----------
    model : Model
    theta : array_like, shape (parameter,)
    symmetry : Symmetry, optional
        Whose zero modes count as explained; by default what `symmetry_of` knows of the model.
    zero_mode : float
        Curvature, relative to the largest, below which a mode is a zero mode.
    dense_limit : int
        Parameters up to which the whole Hessian is diagonalised. Beyond, ``spectrum`` holds its lowest and highest
        eigenvalues, and the determinant is an estimate.

    Examples
    --------
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    >>> point = classify(network, network.theory.saddle(0).theta)
    >>> point.kind, point.index, point.n_zero_modes, point.n_unexplained
    ('saddle', 1, 2, 0)
    """
    surface = Surface(model)
    point = surface.point("theta", theta)
    known = symmetry_of(model) if symmetry is None else symmetry
    at = _At(point, surface.energy(point), float(np.linalg.norm(surface.gradient(point))), known.zero_modes(point))
    return _dense(surface, at, zero_mode) if surface.size <= dense_limit else _large(surface, at, zero_mode)


class _At(NamedTuple):
    """What is known of a point without its Hessian."""

    theta: Array
    energy: float
    gradient_norm: float
    symmetric: Array  # orthonormal directions of symmetry


def _dense(surface: Surface, at: _At, zero_mode: float) -> StationaryPoint:
    curvature, modes = np.linalg.eigh(surface.hessian(at.theta))
    zero = np.abs(curvature) <= zero_mode * np.abs(curvature).max()
    rest = curvature[~zero]
    return StationaryPoint(
        theta=at.theta,
        energy=at.energy,
        gradient_norm=at.gradient_norm,
        spectrum=rest,
        index=int((rest < 0).sum()),
        n_zero_modes=int(zero.sum()),
        n_unexplained=int(zero.sum()) - _explained(at.symmetric, modes[:, zero]),
        log_determinant_samples=np.array([log_determinant(rest)]),
        trace=float(curvature.sum()),
        modes=np.ascontiguousarray(modes[:, ~zero].T[:_MODES]),
        zero_modes=np.ascontiguousarray(modes[:, zero].T),
    )


def _large(surface: Surface, at: _At, zero_mode: float) -> StationaryPoint:
    """Both ends of the spectrum by Lanczos' iteration, the determinant by stochastic quadrature."""
    none = np.empty((0, surface.size))
    count = surface.size // 4
    high, upper = highest_modes(surface, at.theta, min(_HIGH, count), none)
    largest = float(np.abs(high).max())
    # Directions of symmetry are zero modes only where the point is turned by them, which its curvature shows.
    flat = np.linalg.norm(surface.products(at.theta, at.symmetric), axis=1) <= 1e-5 * largest
    symmetric = at.symmetric[flat]
    low, lower = lowest_modes(surface, at.theta, min(_LOW, count), np.concatenate([symmetric, upper]), largest)
    zero = np.abs(low) <= zero_mode * largest
    away = np.linalg.qr(np.concatenate([symmetric, lower, upper]).T)[0].T
    logs, sums = log_determinant_samples(surface, at.theta, away)
    ends = np.concatenate([low[~zero], high])
    return StationaryPoint(
        theta=at.theta,
        energy=at.energy,
        gradient_norm=at.gradient_norm,
        spectrum=ends,
        index=int((ends < 0).sum()),
        n_zero_modes=len(symmetric) + int(zero.sum()),
        n_unexplained=int(zero.sum()),
        log_determinant_samples=logs + log_determinant(ends),
        trace=float(sums.mean() + ends.sum()),
        modes=lower[~zero],
        zero_modes=np.concatenate([symmetric, lower[zero]]),
    )


def _explained(symmetric: Array, zero_modes: Array) -> int:
    """Dimension of the part of the zero modes that directions of symmetry span; both orthonormal."""
    if not len(symmetric) or not zero_modes.shape[1]:
        return 0
    # Cosines of the angles between the two spaces: 1 for what they share.
    return int((np.linalg.svd(symmetric @ zero_modes, compute_uv=False) > _SHARED).sum())


def find_minimum(
    model: Model,
    start: PointLike,
    *,
    tolerance: float = 1e-10,
    symmetry: Symmetry | None = None,
    max_steps: int = 500,
) -> StationaryPoint:
    """Find the minimum in whose basin a point lies.

    The gradient flow is followed to its end (`kramers_grok.landscape.flow`), so that the basin is that of `start`
    and not one that a line search jumped into. Where it ends at a saddle, as from a symmetric start, it goes on along
    a direction of negative curvature.

    Parameters
    ----------
    model : Model
        Any replica-batched model with a differentiable gradient.
    start : array_like, shape (parameter,)
    tolerance : float
        ‖∇F‖ of the result [loss/weight].
    symmetry : Symmetry, optional
        As in `classify`.
    max_steps : int
        Of the flow, each of which costs a Hessian.

    Returns
    -------
    StationaryPoint
        Of the kind "minimum", or "degenerate" where a zero mode is unexplained.

    Raises
    ------
    InvalidParameterError
        If `start` is no point of the model.
    UncertifiedError
        If the gradient does not get below `tolerance`, as at a kink of ReLU; it carries the point as `result`.

    Examples
    --------
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    >>> found = find_minimum(network, np.linspace(0.3, 1.0, 8))
    >>> found.kind, found.gradient_norm < 1e-10, found.n_zero_modes
    ('minimum', True, 2)
    """
    surface = Surface(model)
    theta = surface.point("start", start)
    small = checks.positive("tolerance", tolerance)
    steps = checks.positive_int("max_steps", max_steps)
    known = symmetry_of(model) if symmetry is None else symmetry
    return slide(surface, theta, known, small, steps)[0]


def slide(
    surface: Surface, start: Array, symmetry: Symmetry, tolerance: float, max_steps: int
) -> tuple[StationaryPoint, Array]:
    """Follow the flow to a minimum, past the saddles on the way; return it and the points on the way."""
    theta, passed = start, []
    for _ in range(_KICKS):
        path = follow(surface, theta, tolerance=tolerance, max_steps=max_steps)
        passed.append(path.points)
        point = arrived(surface, path, symmetry, tolerance, "minimum")
        if point.index == 0:
            return point, np.concatenate(passed)
        theta = point.theta + _kick(surface, point)
    raise UncertifiedError(
        f"The flow from `start` passed {_KICKS} saddles and found no minimum.\nUse a start that is not symmetric.",
        result=point,
    )


def arrived(surface: Surface, path: Trajectory, symmetry: Symmetry, tolerance: float, wanted: str) -> StationaryPoint:
    """Classify a flow's end; raise if it is not stationary."""
    point = classify(surface.model, path.end, symmetry=symmetry)
    if not path.converged:
        raise UncertifiedError(
            f"The search for a {wanted} ended with ‖∇F‖ = {path.gradient_norm:.3g} after {len(path.points) - 1} steps, "
            f"expected at most {tolerance:g}: it is no stationary point. At a kink of the energy (ReLU) the gradient "
            "does not vanish, and a slow direction takes many steps.\n"
            "Use a smooth activation such as GELU, a larger `max_steps`, or a larger `tolerance`.",
            result=point,
        )
    return point


def _kick(surface: Surface, saddle: StationaryPoint) -> Array:
    """A small step away from a saddle along its steepest negative mode, to the lower side."""
    step = _KICK * max(float(np.linalg.norm(saddle.theta)), 1e-3) * saddle.modes[0]
    low, high = surface.energies(np.stack([saddle.theta - step, saddle.theta + step]))
    return np.asarray(-step if low < high else step)


def find_minima(
    model: Model,
    *,
    n_starts: int,
    seed: int,
    scale: float = 1.0,
    tolerance: float = 1e-10,
    symmetry: Symmetry | None = None,
) -> list[StationaryPoint]:
    """Search for minima from random starts; those that a symmetry takes to each other count once.

    Parameters
    ----------
    model : Model
    n_starts : int
        Random starts; the point 0 is tried besides.
    seed : int
    scale : float
        Standard deviation of each parameter of a start [weight].
    tolerance : float
        ‖∇F‖ [loss/weight].
    symmetry : Symmetry, optional
        As in `classify`.

    Returns
    -------
    list of StationaryPoint
        Lowest energy first. A search that misses a narrow basin does not know it: ask for more starts.

    Raises
    ------
    InvalidParameterError
        For numbers out of range.
    UncertifiedError
        As in `find_minimum`.

    Examples
    --------
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    >>> [round(point.energy, 6) for point in find_minima(network, n_starts=8, seed=0)]
    [0.340444, 0.5]
    """
    surface = Surface(model)
    count = checks.positive_int("n_starts", n_starts)
    width = checks.positive("scale", scale)
    known = symmetry_of(model) if symmetry is None else symmetry
    starts = width * np.random.default_rng(checks.seed(seed)).normal(size=(count, surface.size))
    found: list[StationaryPoint] = []
    for start in (np.zeros(surface.size), *starts):
        point = find_minimum(model, _downhill(surface, start), tolerance=tolerance, symmetry=known)
        if not any(same_state(known, point, other, width) for other in found):
            found.append(point)
    return sorted(found, key=lambda point: point.energy)


def _downhill(surface: Surface, start: Array) -> Array:
    """Most of the way down: any basin will do, so the fastest optimiser does."""

    def both(theta: Array) -> tuple[float, Array]:
        return surface.energy(theta), surface.gradient(theta)

    result = minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-4})
    return np.asarray(result.x, dtype=np.float64)


def same_state(symmetry: Symmetry, a: StationaryPoint, b: StationaryPoint, length: float) -> bool:
    """Whether two stationary points are one up to symmetries; `length` is that of the points around them.

    Examples
    --------
    >>> from kramers_grok.models.activations import GELU
    >>> from kramers_grok.models.data import finite
    >>> from kramers_grok.models.mlp import MLP
    >>> mlp = MLP.from_data(finite([[1.0], [-1.0]], [1.0, -1.0]), (2,), GELU(), weight_decay=2.0)
    >>> a, b = (find_minimum(mlp, start) for start in ([0.3, 0.1, 0.2, 0.4], [0.2, 0.1, 0.5, 0.1]))
    >>> same_state(symmetry_of(mlp), a, b, length=1.0)
    True
    """
    if abs(a.energy - b.energy) > 1e-7 * (1.0 + abs(a.energy)):
        return False
    # The state in which all weights are 0 comes out as noise, no two weights of which are alike.
    close = float(np.linalg.norm(a.theta - b.theta)) <= 1e-7 * max(length, float(np.linalg.norm(a.theta)))
    return close or symmetry.same_up_to(a.theta, b.theta)
