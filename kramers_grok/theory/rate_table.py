r"""Escape rates as a function of temperature and weight decay, tabulated from exact solvers.

A mode costs one quadrature per point. The chain of three weights costs a solve in three dimensions, but its time over
that of its mode is a smooth function: four saddles for the mode's one, and the entropy of two transverse directions.
So that ratio is solved for at a few Chebyshev nodes, and the mode carries the exponential.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RectBivariateSpline, make_interp_spline

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.region import Region
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode, barrier_height
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import ResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

__all__ = ["RateTable", "rate_table", "with_weight_decay"]

Array = NDArray[np.float64]
System = Mode | DeepLinearChain

# Points of the mode's table per axis, and Chebyshev nodes of the chain's ratio to it
POINTS = 15
RATIO_NODES = 4
# Least ΔF/T at which the chain is solved: below it its well is wider than its barrier, and the ratio is held
LEAST_BARRIER = 1.5


def with_weight_decay(system: System, weight_decay: float) -> System:
    """Return the same system at another weight decay."""
    return type(system)(system.depth, system.singular_value, weight_decay, system.input_variance)


@dataclass(frozen=True, eq=False)
class RateTable:
    r"""Interpolated escape rate :math:`k(T, \lambda) = 1/\tau`.

    Attributes
    ----------
    temperatures, weight_decays : ndarray
        Ends of the tabulated ranges, shape (2,) each; equal ends where that axis is a single value.
    relative_error : float
        Largest estimated relative error of the solvers and of the chain's interpolated ratio.
    log_rate : callable
        ln k of the mode at arrays (T, λ) of one shape.
    log_ratio : callable
        ln of the chain's rate over its mode's, likewise; 0 for a mode.
    """

    temperatures: Array
    weight_decays: Array
    relative_error: float
    log_rate: Callable[[Array, Array], Array]
    log_ratio: Callable[[Array, Array], Array]

    def __call__(self, temperature: ArrayLike, weight_decay: ArrayLike) -> Array:
        """Rates [1/time] at `temperature` and `weight_decay`, broadcast together.

        Outside its range in λ a table goes on as its last slope in ln k.

        Raises
        ------
        InvalidParameterError
            For a temperature outside the table: there nothing is known.
        """
        heat, decay = np.broadcast_arrays(np.asarray(temperature, float), np.asarray(weight_decay, float))
        low, high = self.temperatures
        if heat.size and (heat.min() < low * (1 - 1e-9) or heat.max() > high * (1 + 1e-9)):
            raise checks.invalid(
                "temperature",
                float(heat.min() if heat.min() < low else heat.max()),
                f"{low:.6g} to {high:.6g}",
                "the table was made for this range",
                "Make it with a wider range of `temperatures`.",
            )
        first, last = self.weight_decays
        inside = np.clip(decay, first, last)
        value = self.log_rate(heat, inside)
        width = 1e-3 * (last - first)
        if width > 0 and (decay != inside).any():
            inward = np.where(decay > last, inside - width, inside + width)
            slope = (value - self.log_rate(heat, inward)) / (inside - inward)
            value = value + slope * (decay - inside)
        return np.asarray(np.exp(value) * self.over_mode(heat, decay))

    def over_mode(self, temperature: ArrayLike, weight_decay: ArrayLike) -> Array:
        """Ratio of the chain's rate to its mode's, held at the ends of the range in λ; 1 for a mode."""
        heat, decay = np.broadcast_arrays(np.asarray(temperature, float), np.asarray(weight_decay, float))
        return np.asarray(np.exp(self.log_ratio(heat, np.clip(decay, *self.weight_decays))))


def rate_table(
    system: System,
    *,
    target: Region,
    temperatures: tuple[float, float] | float,
    weight_decays: tuple[float, float] | float,
    step: float = 0.0,
    monitored: bool = False,
    noise_variance: float | None = None,
    residual_variance: ResidualVariance | None = None,
    points: int = POINTS,
    ratio_nodes: int = RATIO_NODES,
) -> RateTable:
    r"""Tabulate :math:`k = 1/\tau(T, \lambda)` from the exact exit times.

    Parameters
    ----------
    system : Mode or DeepLinearChain
        Its own weight decay is replaced by the table's.
    target : Region
        One border in m for all of them: it must lie beyond the barrier at every λ that matters.
    temperatures, weight_decays : (float, float) or float
        Range, or a single value [loss], [loss / weight²]. For a target below and the chain the range ends below the
        spinodal, where the state to be left exists.
    step, monitored
        As in `exit_time`.
    noise_variance, residual_variance
        With both given, minibatch noise of strength :math:`\varepsilon = 2T/g^2` is included: lr/batch is what sets T.
    points : int
        Points per axis for the mode.
    ratio_nodes : int
        Nodes per axis at which the chain is solved.

    Returns
    -------
    RateTable

    Examples
    --------
    >>> mode = Mode(3, 1.0, 0.25)
    >>> table = rate_table(mode, target=Region(0.3), temperatures=0.002, weight_decays=(0.2, 0.3))
    >>> exact = exit_time(mode, temperature=0.002, target=Region(0.3)).rate
    >>> bool(abs(table(0.002, 0.25) / exact - 1) < 1e-6)
    True
    """
    heats, decays = _axis("temperatures", temperatures, points), _axis("weight_decays", weight_decays, points)

    def log_time(which: System, heat: float, decay: float) -> tuple[float, float]:
        moved = with_weight_decay(which, decay)
        noise = None
        if noise_variance is not None and residual_variance is not None:
            noise = MinibatchNoise(2 * heat / noise_variance, residual_variance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ValidityWarning)
            found = exit_time(
                moved,
                temperature=heat,
                target=target,
                start=_start(moved, target),
                step=step,
                monitored=monitored,
                minibatch=noise,
            )
        return float(np.log(found.mean)), found.relative_error

    mode = system.mode if isinstance(system, DeepLinearChain) else system
    solved = [[log_time(mode, heat, decay) for decay in decays] for heat in heats]
    spline = _spline(heats, decays, np.array([[value for value, _ in row] for row in solved]))
    error = max(error for row in solved for _, error in row)
    ratio: Callable[[Array, Array], Array] = _no_ratio
    ratio_error = 0.0
    if isinstance(system, DeepLinearChain):
        high = decays if not target.above else decays[_barriers(mode, decays) >= LEAST_BARRIER * heats[-1]]
        ratio, ratio_error = _chain_ratio(system, log_time, heats, high if len(high) else decays[-1:], ratio_nodes)
    return RateTable(
        np.array([heats[0], heats[-1]]),
        np.array([decays[0], decays[-1]]),
        max(error, ratio_error),
        lambda heat, decay: -spline(heat, decay),
        ratio,
    )


def _axis(name: str, value: tuple[float, float] | float, points: int) -> Array:
    if isinstance(value, tuple):
        low, high = checks.positive(name, value[0]), checks.positive(name, value[1])
        if not low < high:
            raise checks.invalid(name, value, "a range (low, high)", "a table has two ends", "Give one number instead.")
        return np.geomspace(low, high, points) if name == "temperatures" else np.linspace(low, high, points)
    return np.array([checks.positive(name, value)])


def _start(system: System, target: Region) -> Array | float | None:
    """Where escapes begin: the state to be left, or its last place where a mode has none beyond the spinodal."""
    if target.above or system.weight_decay < system.spinodal():
        return None
    if isinstance(system, DeepLinearChain):
        raise InvalidParameterError(
            f"weight_decay = {system.weight_decay:g} is not below the spinodal {system.spinodal():.6g}: the chain has "
            "no learned state there, and no exit time out of it.\n"
            "End `weight_decays` at `0.995 * chain.spinodal()`; the table goes on with its last slope."
        )
    border = system.singular_value * (system.depth - 2) / (2 * (system.depth - 1))
    return float(system.coordinate(border))


def _spline(heats: Array, decays: Array, values: Array) -> Callable[[Array, Array], Array]:
    """Cubic interpolation in (1/T, λ), where ln τ is nearly linear."""
    beta = 1 / heats[::-1]
    table = values[::-1]
    if len(heats) == 1 and len(decays) == 1:
        return lambda heat, decay: np.full(np.shape(decay), values[0, 0])
    if len(heats) == 1:
        along = make_interp_spline(decays, values[0], k=3)
        return lambda heat, decay: np.asarray(along(decay))
    if len(decays) == 1:
        over = make_interp_spline(beta, table[:, 0], k=3)
        return lambda heat, decay: np.asarray(over(1 / heat))
    surface = RectBivariateSpline(beta, decays, table, kx=3, ky=3, s=0)
    return lambda heat, decay: np.asarray(surface(1 / heat, decay, grid=False))


def _barriers(mode: Mode, decays: Array) -> Array:
    """Barrier heights out of the unlearned state; 0 above the spinodal."""
    heights = barrier_height(mode.depth, mode.singular_value, decays, mode.input_variance)
    return np.array(np.where(np.isfinite(heights), heights, 0.0), dtype=np.float64)


def _no_ratio(heat: Array, decay: Array) -> Array:
    return np.zeros(np.shape(decay))


def _chain_ratio(
    chain: DeepLinearChain,
    log_time: Callable[[System, float, float], tuple[float, float]],
    heats: Array,
    decays: Array,
    nodes: int,
) -> tuple[Callable[[Array, Array], Array], float]:
    """Chebyshev interpolation of ln(τ_chain/τ_mode) in (T, λ), and its relative error."""
    nodes = checks.positive_int("ratio_nodes", nodes, minimum=2)
    grids = [_nodes(axis, nodes) for axis in (heats, decays)]
    values, errors = np.empty((len(grids[0]), len(grids[1]))), []
    for i, heat in enumerate(grids[0]):
        for j, decay in enumerate(grids[1]):
            full, error = log_time(chain, float(heat), float(decay))
            values[i, j] = full - log_time(chain.mode, float(heat), float(decay))[0]
            errors.append(error)
    if not np.isfinite(values).all():
        raise InvalidParameterError(
            f"The chain's exit time was not found everywhere in T = {heats[0]:.3g} … {heats[-1]:.3g}, "
            f"λ = {decays[0]:.3g} … {decays[-1]:.3g}: barriers of some 50 T are beyond its grid.\n"
            "Narrow the range to where the rate matters; the table goes on with its last slope."
        )
    left = _matrix(grids[0], heats)
    right = _matrix(grids[1], decays)
    coefficients = np.linalg.solve(left, np.linalg.solve(right, values.T).T)
    # The highest coefficients say how well the polynomial has converged.
    tail = max(
        (float(np.abs(np.take(coefficients, -1, axis=a)).max()) for a in (0, 1) if values.shape[a] > 1), default=0.0
    )

    def ratio(heat: Array, decay: Array) -> Array:
        inside = np.clip(decay, decays[0], decays[-1])
        value = chebyshev.chebval2d(_unit(heat, heats), _unit(inside, decays), coefficients)
        return np.array(-value, dtype=np.float64)

    return ratio, max(*errors, tail)


def _nodes(axis: Array, nodes: int) -> Array:
    if len(axis) == 1:
        return axis
    unit = np.cos(np.pi * (np.arange(nodes)[::-1] + 0.5) / nodes)
    return np.array(axis[0] + (unit + 1) / 2 * (axis[-1] - axis[0]), dtype=np.float64)


def _unit(value: Array, axis: Array) -> Array:
    if len(axis) == 1:
        return np.zeros(np.shape(value))
    return np.asarray(2 * (value - axis[0]) / (axis[-1] - axis[0]) - 1)


def _matrix(nodes: Array, axis: Array) -> Array:
    return np.asarray(chebyshev.chebvander(_unit(nodes, axis), len(nodes) - 1))
