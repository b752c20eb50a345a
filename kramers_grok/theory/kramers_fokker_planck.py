r"""Exact mean exit times with inertia: the backward Kramers–Fokker–Planck equation in one position and its velocity.

From position x and velocity v the mean exit time :math:`\tau(x, v)` of :math:`dx = v\,dt`,
:math:`dv = -U'\,dt - \gamma v\,dt + \sqrt{2\gamma T}\,dW` solves

.. math:: v\,\partial_x\tau - U'(x)\,\partial_v\tau - \gamma v\,\partial_v\tau + \gamma T\,\partial_v^2\tau = -1,

with :math:`\tau = 0` at a target for outgoing velocities only. In Hermite polynomials of :math:`v/\sqrt T`,
normalised under the equilibrium of the velocity, it is a tridiagonal system of first-order equations in x,

.. math:: \sqrt{nT}\,c_{n-1}' + \sqrt{(n+1)T}\,(\partial_x - U'/T)\,c_{n+1} - \gamma n\,c_n = -\delta_{n0},

and the mean over equilibrium velocities is :math:`c_0`. With an even number of Hermite functions half of the
characteristics enter at each end, at the Gauss–Hermite velocities of one sign: the outgoing ones carry the
target's condition; a reflecting wall leaves even functions only. The box scheme in x is of second order, and one
Richardson step removes its leading error.

References
----------
H. Risken, The Fokker–Planck Equation, Springer 1989, chapter 10 (Brinkman's hierarchy).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator, eigs, splu

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.theory.quadrature import Interval

__all__ = ["Inertial", "InertialExit", "inertial_mean_exit", "inertial_relaxation_rate"]

Array = NDArray[np.float64]

# e^-40 of the weight at the start: nothing is ever there
WALL_HEIGHT = 40.0
# Gaussian weights know nothing of velocities gained in a longer fall: the expansion breaks down at 40 T or so
DEEPEST = 30.0
CELLS = 240
FEWEST_MODES, MOST_MODES = 16, 1024


@dataclass(frozen=True)
class Inertial:
    """A particle of unit mass in a landscape of one coordinate.

    Parameters
    ----------
    landscape : Landscape
        U(x) [loss]; one coordinate.
    temperature : float
        T > 0 [loss].
    friction : float
        γ > 0 [1/time].

    Raises
    ------
    InvalidParameterError
        For more than one coordinate, or numbers that are not positive.
    """

    landscape: Landscape
    temperature: float
    friction: float

    def __post_init__(self) -> None:
        if self.landscape.dimension != 1:
            raise InvalidParameterError(
                f"`landscape` has {self.landscape.dimension} coordinates, expected 1: the equation is solved on a grid "
                "of positions times velocities.\nUse `chain.mode.landscape`, or a simulation by `UnderdampedLangevin`."
            )
        checks.positive("temperature", self.temperature, "without noise nothing escapes")
        checks.positive(
            "friction", self.friction, "without friction the energy is conserved", "Use `energy_diffusion_time`."
        )

    def energy(self, x: Array) -> Array:
        """U at positions of any shape [loss]."""
        return self.landscape.energy_at(np.asarray(x)[..., None])

    def slope(self, x: Array) -> Array:
        """U' at positions of any shape."""
        return np.asarray(self.landscape.gradient_at(np.asarray(x)[..., None])[..., 0])

    def wall(self, start: float, direction: float, scale: float) -> float:
        """Return a position on one side where the energy exceeds that of the start by 40 T.

        Raises
        ------
        InvalidParameterError
            If the landscape does not rise that far within a thousand times `scale`.
        """
        lowest, level = float(self.energy(np.array(start))), WALL_HEIGHT * self.temperature
        step = direction * scale / 64
        x = start
        for _ in range(400):
            x += step
            here = float(self.energy(np.array(x)))
            lowest = min(lowest, here)
            if here - lowest > level:
                return x
            step *= 1.02
        raise InvalidParameterError(
            "The landscape does not confine the particle on the side away from the target: the mean exit time would be "
            "infinite.\nGive a reflecting wall, `Interval(start, upper=target, wall=...)`."
        )


@dataclass(frozen=True)
class InertialExit:
    """A mean exit time with inertia.

    Attributes
    ----------
    mean : float
        Mean exit time [time].
    relative_error : float
        Last change under more velocities, plus a third of the change under more positions.
    n_modes, n_cells : int
        Hermite functions and cells in x of the finest solution.
    """

    mean: float
    relative_error: float
    n_modes: int
    n_cells: int


def inertial_mean_exit(
    process: Inertial, interval: Interval, *, velocity: float | None = None, tolerance: float = 1e-3
) -> InertialExit:
    """Mean time until a particle with inertia first passes a target.

    Parameters
    ----------
    process : Inertial
        Landscape, temperature, friction.
    interval : Interval
        Start, one or two absorbing ends, perhaps a reflecting wall; without one the landscape itself confines.
    velocity : float, optional
        Velocity at the start; the mean over the equilibrium N(0, T) if not given.
    tolerance : float
        The number of Hermite functions doubles until the mean changes by less than this, relatively. Low friction
        needs many: boundary layers in energy have the width of the square root of the energy lost in one oscillation.

    Raises
    ------
    InvalidParameterError
        If the landscape does not confine the particle, a target lies more than 30 T below the barrier, or 1024 Hermite
        functions are not enough.

    Examples
    --------
    The double well (x² − 1)² at T = 1/4 and γ = 2, from −1 to a target past the barrier, where Kramers' formula says
    196:

    >>> import sympy
    >>> x = sympy.Symbol("x", real=True)
    >>> well = Inertial(Landscape((x**2 - 1) ** 2, (x,), (x,)), temperature=0.25, friction=2.0)
    >>> print(f"{inertial_mean_exit(well, Interval(-1.0, upper=1.0)).mean:.1f}")
    213.0
    """
    checks.fraction("tolerance", tolerance)
    _check_depth(process, interval)
    walls = _walled(process, interval)
    n, coarse = FEWEST_MODES, _solve(process, walls, CELLS, FEWEST_MODES, velocity)
    while True:
        value = _solve(process, walls, CELLS, 2 * n, velocity)
        change = abs(value / coarse - 1)
        if change < tolerance:
            break
        n, coarse = 2 * n, value
        if n >= MOST_MODES:
            raise InvalidParameterError(
                f"friction = {process.friction:g} is too low: the mean still changes by {change:.1e} with {n} Hermite "
                f"functions, expected less than tolerance = {tolerance:g}.\n"
                "Use a larger `tolerance`, or `energy_diffusion_time`, the limit of low friction."
            )
    # The error in x hardly depends on the number of velocities: found with the fewer ones.
    gain = _solve(process, walls, 2 * CELLS, n, velocity) - coarse
    mean = value + 4 * gain / 3
    return InertialExit(mean, change + abs(gain / mean) / 3, 2 * n, 2 * CELLS)


def inertial_relaxation_rate(
    process: Inertial, lower: float, upper: float, *, n_modes: int = 64, n_cells: int = 2 * CELLS
) -> float:
    r"""Slowest relaxation rate between two reflecting walls [1/time]: the sum of the rates to and fro.

    In a symmetric double well half of it is the rate of hopping to the other well *and staying there*: at low
    friction a particle that crossed the barrier may well cross it again before it comes to rest.

    Parameters
    ----------
    lower, upper : float
        Positions of the walls, far up the outer slopes.

    Examples
    --------
    >>> import sympy
    >>> x = sympy.Symbol("x", real=True)
    >>> well = Inertial(Landscape((x**2 - 1) ** 2, (x,), (x,)), temperature=0.25, friction=2.0)
    >>> print(f"{2 / inertial_relaxation_rate(well, -2.2, 2.2):.0f}")
    207
    """
    nodes = np.linspace(lower, upper, n_cells + 1)
    matrix, _ = _system(process, nodes, n_modes, (None, None))
    half = n_modes // 2
    average = sp.kron(_band(n_cells, 0.5, 0.5), sp.identity(n_modes)).tocoo()
    mass = sp.csr_matrix((average.data, (average.row + half, average.col)), shape=matrix.shape)
    # Both walls reflect, so 0 is an eigenvalue too: the shift lies beside it, or nothing could be factorised.
    shift = 1e-3 * process.temperature**0.5 / (upper - lower)
    factors, size = splu((matrix - shift * mass).tocsc()), matrix.shape[0]
    inverse = LinearOperator((size, size), matvec=lambda v: factors.solve(mass @ v), dtype=np.float64)
    found = eigs(inverse, k=2, return_eigenvectors=False, v0=np.linspace(-1.0, 1.0, size))
    return float(-np.min((shift + 1 / found).real))


def _check_depth(process: Inertial, interval: Interval) -> None:
    for end in (interval.lower, interval.upper):
        if end is None:
            continue
        path = np.linspace(interval.start, end, 2001)
        energy = process.energy(path)
        top = int(np.argmax(energy))
        fall = (energy[top] - energy[top:]) / process.temperature
        if fall[-1] > DEEPEST:
            near = path[top + int(np.argmax(fall > 0.7 * DEEPEST))]
            raise InvalidParameterError(
                f"The target at x = {end:.6g} lies {fall[-1]:.3g} T below the barrier, expected at most {DEEPEST:g}: "
                "what falls so far is too fast for an expansion about the thermal velocities.\n"
                f"Put the target at {near:.4g}: nothing returns from there, and the rest of the fall takes no time."
            )


def _walled(process: Inertial, interval: Interval) -> Interval:
    """The interval with a wall where it has one exit only."""
    if interval.wall is not None or (interval.lower is not None and interval.upper is not None):
        return interval
    end = interval.lower if interval.upper is None else interval.upper
    assert end is not None
    scale = abs(end - interval.start)
    direction = -1.0 if interval.lower is None else 1.0
    return replace(interval, wall=process.wall(interval.start, direction, scale))


def _solve(process: Inertial, walls: Interval, n_cells: int, n_modes: int, velocity: float | None) -> float:
    """Mean exit time from the start, on a grid that has the start as a node."""
    left = walls.wall if walls.lower is None else walls.lower
    right = walls.wall if walls.upper is None else walls.upper
    assert left is not None
    assert right is not None
    before = round(n_cells * (walls.start - left) / (right - left))
    before = min(max(before, 1), n_cells - 1)
    nodes = np.concatenate(
        [np.linspace(left, walls.start, before + 1), np.linspace(walls.start, right, n_cells - before + 1)[1:]]
    )
    matrix, drive = _system(process, nodes, n_modes, (walls.lower, walls.upper))
    modes = splu(matrix.tocsc()).solve(drive).reshape(n_cells + 1, n_modes)[before]
    if velocity is None:
        return float(modes[0])
    return float(modes @ _hermite(n_modes, velocity / process.temperature**0.5))


def _system(
    process: Inertial, nodes: Array, n_modes: int, exits: tuple[float | None, float | None]
) -> tuple[sp.csr_matrix, Array]:
    """Rows: condition at the left, the box scheme cell by cell, condition at the right."""
    cells, heat = len(nodes) - 1, process.temperature
    widths, middles = np.diff(nodes), (nodes[1:] + nodes[:-1]) / 2
    root = np.sqrt(heat * np.arange(1, n_modes))
    raising = sp.diags([root], [1], shape=(n_modes, n_modes))
    difference = sp.diags(1 / widths) @ _band(cells, -1.0, 1.0)
    average = _band(cells, 0.5, 0.5)
    force = sp.diags(process.slope(middles) / heat) @ average
    inner = (
        sp.kron(difference, raising + raising.T)
        - sp.kron(force, raising)
        - sp.kron(average, sp.diags(process.friction * np.arange(n_modes)))
    )
    drive = np.zeros(inner.shape[1])
    drive[n_modes // 2 : n_modes // 2 + inner.shape[0] : n_modes] = -1
    ends = [_condition(n_modes, sign, end is not None) for sign, end in zip((-1.0, 1.0), exits, strict=True)]
    beside = sp.csr_matrix((n_modes // 2, cells * n_modes))
    matrix = sp.vstack([sp.hstack([ends[0], beside]), inner, sp.hstack([beside, ends[1]])], format="csr")
    return matrix, drive


def _band(cells: int, left: float, right: float) -> sp.dia_matrix:
    """Weights of the left and the right node of each cell."""
    return sp.diags([np.full(cells, left), np.full(cells, right)], [0, 1], shape=(cells, cells + 1))


@lru_cache(maxsize=32)
def _condition(n_modes: int, sign: float, absorbing: bool) -> sp.csr_matrix:
    """Half as many conditions as modes: outgoing velocities have left, or odd functions vanish at a wall."""
    if not absorbing:
        return sp.csr_matrix(np.eye(n_modes)[1::2])
    # The eigenvectors of the velocity's matrix: Hermite functions at the Gauss nodes, already normalised.
    velocities, vectors = eigh_tridiagonal(np.zeros(n_modes), np.sqrt(np.arange(1.0, n_modes)))
    return sp.csr_matrix(vectors[:, sign * velocities > 0].T)


def _hermite(n_modes: int, u: float) -> Array:
    """Normalised Hermite polynomials at u."""
    values = np.ones(n_modes)
    values[1] = u
    for n in range(2, n_modes):
        values[n] = (u * values[n - 1] - np.sqrt(n - 1) * values[n - 2]) / np.sqrt(n)
    return values
