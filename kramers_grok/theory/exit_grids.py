r"""Exact mean exit times over grids of parameters: the quadrature of one exit time, for thousands at once.

The formulas are those of `quadrature`. Panels of all grid points lie in one list, so that drift, diffusion and
exponentials are evaluated for many points together; on each panel the potential is measured from its left end, and
only sums over panels are logarithms. A thousand exit times take about as long as ten one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray
from sympy.codegen.rewriting import create_expand_pow_optimization

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory import deep_linear, mode_states
from kramers_grok.theory.panel_lists import Ends, PanelList, log_mean_exits

__all__ = ["DiffusionFamily", "MeanExits", "landscape_exit_times", "mean_exits", "mode_exit_times"]

Array = NDArray[np.float64]

# Grid points whose panels are held at a time: tens of megabytes
_POINTS = 1024
_HALVINGS = 6


@dataclass(frozen=True)
class DiffusionFamily:
    r"""Itô processes :math:`dx = b(x;p)\,dt + \sqrt{2\mathcal D(x;p)}\,dW` that differ in their parameters p.

    Parameters
    ----------
    drift : callable
        ``drift(x, *parameters)``, vectorised: every argument is an array, all of them broadcast
        [coordinate / time].
    diffusion : callable
        :math:`\mathcal D > 0`, called likewise; it may return any shape that broadcasts [coordinate² / time].
    parameters : tuple of array_like
        One array for each parameter; together they broadcast to the grid.
    """

    drift: Callable[..., Any]
    diffusion: Callable[..., Any]
    parameters: tuple[ArrayLike, ...] = ()


@dataclass(frozen=True, eq=False)
class MeanExits:
    """Mean exit times of a grid.

    Attributes
    ----------
    log_mean : ndarray
        Natural logarithm of the mean exit time: −∞ for a start on the border, +∞ where the process is not confined,
        NaN where there is no such exit.
    relative_error : ndarray
        Change under a halving of every panel, never below rounding.
    """

    log_mean: Array
    relative_error: Array

    @property
    def mean(self) -> Array:
        """Mean exit times [time]; infinite beyond e^709 too."""
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self.log_mean))


def mean_exits(
    family: DiffusionFamily,
    start: ArrayLike,
    *,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    wall: ArrayLike | None = None,
    tolerance: float = 1e-10,
) -> MeanExits:
    r"""Exact mean exit times of a family of one-dimensional processes.

    Parameters
    ----------
    family : DiffusionFamily
    start : array_like
    lower, upper : array_like, optional
        Absorbing ends; None where that side is no exit.
    wall : array_like, optional
        Reflecting wall on the side without an exit; without it the natural boundary at infinity.
    tolerance : float
        Panels are halved until the mean changes by less than this, relatively.

    Returns
    -------
    MeanExits
        Of the shape to which parameters and ends broadcast. NaN in any of them gives NaN there.

    Raises
    ------
    InvalidParameterError
        If no end is given, a start lies outside, a wall stands where both ends absorb or before the start, or the noise
        vanishes on the way.

    Examples
    --------
    Brownian motion from 0 out of (−1, 1) takes :math:`1/(2\mathcal D)`:

    >>> free = DiffusionFamily(lambda x, d: 0.0 * x, lambda x, d: d, ([0.25, 0.5, 1.0],))
    >>> mean_exits(free, 0.0, lower=-1.0, upper=1.0).mean.round(12).tolist()
    [2.0, 1.0, 0.5]
    """
    sign = -1.0 if upper is None else 1.0
    if upper is None and lower is not None:
        start, upper, lower = -np.asarray(start), -np.asarray(lower), None
        wall = None if wall is None else -np.asarray(wall)
    if upper is None:
        raise InvalidParameterError(
            "Neither `lower` nor `upper` is given: without an exit there is no exit time.\n"
            "Use `mean_exits(family, start, upper=target)`."
        )
    if wall is not None and lower is not None:
        raise InvalidParameterError("A wall cannot stand where both ends absorb.\nDrop `wall`.")
    given = [a for a in (start, upper, lower, wall) if a is not None]
    arrays = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (*family.parameters, *given)))
    shape, flat = arrays[0].shape, [a.ravel() for a in arrays]
    n_parameters = len(family.parameters)
    x, end = flat[n_parameters : n_parameters + 2]
    left = flat[-1] if len(given) == 3 else None
    if (x > end).any() or (left is not None and (x < left).any()):
        raise InvalidParameterError(
            "A `start` lies outside its ends, or behind its wall: the process would already be out.\n"
            "Swap the ends, or move the start between them."
        )
    log_mean, error = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    known = np.all(np.isfinite(flat), axis=0)
    at_border = known & ((x == end) | (lower is not None and left is not None and (x == left)))
    log_mean[at_border], error[at_border] = -np.inf, 0.0
    todo = np.flatnonzero(known & ~at_border)
    for at in np.array_split(todo, max(1, -(-todo.size // _POINTS))):
        parameters = tuple(p[at] for p in flat[:n_parameters])
        ends = Ends(x[at], end[at], None if left is None else left[at], absorbing=lower is not None)
        log_mean[at], error[at] = _solve(family, parameters, ends, sign, tolerance)
    return MeanExits(log_mean.reshape(shape), error.reshape(shape))


def _solve(
    family: DiffusionFamily, parameters: tuple[Array, ...], ends: Ends, sign: float, tolerance: float
) -> tuple[Array, Array]:
    """Logarithms and errors of one batch of grid points."""
    panels, confined = PanelList.of(family.drift, family.diffusion, parameters, ends, sign)
    log_mean, error = np.full(confined.shape, np.inf), np.full(confined.shape, np.inf)
    at = np.flatnonzero(confined)
    coarse, _ = log_mean_exits(panels, at, ends)
    for _ in range(_HALVINGS):
        panels = panels.halved()
        fine, span = log_mean_exits(panels, at, ends)
        change = np.abs(fine - coarse)
        # Φ is a sum of many panels: its rounding is the rounding of τ
        log_mean[at], error[at] = fine, np.maximum(change, np.finfo(float).eps * np.maximum(8.0, span))
        open_ = change >= tolerance
        if not open_.any():
            break
        panels, at, coarse = panels.of_points(at[open_]), at[open_], fine[open_]
    return log_mean, error


def landscape_exit_times(
    energy: sympy.Expr,
    coordinate: sympy.Symbol,
    parameters: Mapping[sympy.Symbol, ArrayLike],
    *,
    temperature: ArrayLike,
    start: ArrayLike,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    wall: ArrayLike | None = None,
) -> MeanExits:
    r"""Exact mean exit times in a symbolic landscape of one coordinate, over grids of its parameters.

    Of :math:`dx = -F'(x;p)\,dt + \sqrt{2T}\,dW`. Parameters, temperature, start and ends broadcast.

    Parameters
    ----------
    energy : sympy.Expr
        F [loss], in `coordinate` and the symbols of `parameters`.
    coordinate : sympy.Symbol
    parameters : mapping of sympy.Symbol to array_like
        Values of every other symbol.
    temperature : array_like
        T > 0 [loss].
    start, lower, upper, wall
        As in `mean_exits`.

    Returns
    -------
    MeanExits
        Relative error 1e-10 and better, of the broadcast shape.

    Raises
    ------
    InvalidParameterError
        For T ≤ 0, a symbol without values, or as in `mean_exits`.

    Examples
    --------
    A double well, to its top, at three temperatures and two heights:

    >>> x, h = sympy.symbols("x h", real=True)
    >>> T = np.array([1 / 5, 1 / 4, 1 / 3])
    >>> times = landscape_exit_times(h * (x**2 - 1) ** 2, x, {h: [[1.0], [2.0]]}, temperature=T, start=-1.0, upper=0.0)
    >>> times.mean.shape, [f"{t:.4f}" for t in times.mean[0, ::2]]
    ((2, 3), ['90.4759', '12.6984'])
    """
    expression = sympy.sympify(energy)
    unknown = expression.free_symbols - {coordinate, *parameters}
    if unknown:
        raise InvalidParameterError(
            f"`energy` holds the symbols {sorted(map(str, unknown))} without values: a grid is numeric in all but the "
            "coordinate.\nUse `parameters={symbol: values, …}`."
        )
    heat = np.asarray(temperature, dtype=np.float64)
    if (heat <= 0).any():
        raise checks.invalid(
            "temperature", float(np.nanmin(heat)), "numbers > 0", "without noise nothing leaves a minimum"
        )
    slope = _lambdified(sympy.diff(expression, coordinate), (coordinate, *parameters))
    family = DiffusionFamily(lambda x, *p: -slope(x, *p[:-1]), lambda x, *p: p[-1], (*parameters.values(), heat))
    return mean_exits(family, start, lower=lower, upper=upper, wall=wall)


@lru_cache(maxsize=64)
def _lambdified(expression: sympy.Expr, arguments: tuple[sympy.Symbol, ...]) -> Callable[..., Any]:
    expand = create_expand_pow_optimization(12)  # products: a power costs as much as an exponential
    function: Callable[..., Any] = sympy.lambdify(arguments, expand(expression), "numpy", cse=True)
    return function


_X = sympy.Symbol("x", real=True)


def mode_exit_times(
    depth: ArrayLike,
    singular_value: ArrayLike,
    weight_decay: ArrayLike,
    input_variance: ArrayLike = 1.0,
    *,
    temperature: ArrayLike,
    threshold: ArrayLike | None = None,
    above: bool = True,
) -> MeanExits:
    r"""Exact mean exit times of balanced modes, over grids of all their parameters.

    What `exit_time` computes for one mode, for thousands at once; every argument broadcasts. It starts in the unlearned
    state to learn and in the learned state to forget.

    Parameters
    ----------
    depth, singular_value, weight_decay, input_variance : array_like
        D ≥ 2, σ, λ, q > 0, as in `Mode`.
    temperature : array_like
        T > 0 [loss].
    threshold : array_like, optional
        Border of the target in the order parameter m; by default that of ``beyond(mode.barrier())`` at each point, to
        forget that of ``beyond(mode.forgetting_barrier())``.
    above : bool
        True: learned at m ≥ threshold; False: forgotten at m ≤ threshold.

    Returns
    -------
    MeanExits
        NaN where the exit does not exist: without a barrier where `threshold` is None, without a learned state to
        forget, or with a start already in the target.

    Raises
    ------
    InvalidParameterError
        For D < 2, σ, λ, q or T ≤ 0, NaN, a threshold below 0 at even D.

    See Also
    --------
    kramers_grok.theory.exit_times.exit_time : The distribution too, a finite step, minibatch noise.

    Examples
    --------
    >>> decay = np.array([0.15, 0.25, 0.5])
    >>> heat = mode_states.barrier_height(3, 1.0, 0.25) / 6
    >>> times = mode_exit_times(3, 1.0, decay, temperature=heat)
    >>> [f"{t:.4f}" for t in times.mean]
    ['170.5063', '11029.7057', 'nan']
    """
    d, sigma, decay, q, heat, border = _mode_grid(
        depth, singular_value, weight_decay, input_variance, temperature, threshold, above
    )
    root, power = np.sqrt(d), 1 / d
    learned = mode_states.learned_amplitude(d, sigma, decay, q)
    x = np.zeros_like(d) if above else root * learned
    with np.errstate(invalid="ignore"):
        end = root * np.sign(border) * np.abs(border) ** power
        end = np.where((end > x) if above else (end < x), end, np.nan)
    log_mean, error = np.full(d.shape, np.nan), np.full(d.shape, np.nan)
    for layers in np.unique(d):
        at = d == layers
        result = landscape_exit_times(
            _mode_energy(int(layers)),
            _X,
            {deep_linear.SINGULAR_VALUE: sigma[at], deep_linear.WEIGHT_DECAY: decay[at],
             deep_linear.INPUT_VARIANCE: q[at]},
            temperature=heat[at],
            start=x[at],
            # At even depth a mode has two mirror exits to learn
            lower=(-end[at] if layers % 2 == 0 else None) if above else end[at],
            upper=end[at] if above else None,
        )  # fmt: skip
        log_mean[at], error[at] = result.log_mean, result.relative_error
    return MeanExits(log_mean, error)


@lru_cache(maxsize=64)
def _mode_energy(depth: int) -> sympy.Expr:
    amplitude = _X / sympy.sqrt(sympy.Float(depth))
    energy = deep_linear.free_energy_expression().subs(deep_linear.DEPTH, depth)
    return energy.subs(deep_linear.AMPLITUDE, amplitude)


def _mode_grid(
    depth: ArrayLike,
    singular_value: ArrayLike,
    weight_decay: ArrayLike,
    input_variance: ArrayLike,
    temperature: ArrayLike,
    threshold: ArrayLike | None,
    above: bool,
) -> list[Array]:
    """Checked arguments, broadcast; the border is NaN where a barrier gives it and there is none."""
    if threshold is None:
        states = (depth, singular_value, weight_decay, input_variance)
        saddle, learned = mode_states.saddle_amplitude(*states), mode_states.learned_amplitude(*states)
        border = (0.5 * (saddle + learned) if above else 0.5 * saddle) ** np.asarray(depth, dtype=np.float64)
    else:
        border = checks.finite_array("threshold", threshold)
        if ((border < 0) & (np.asarray(depth) % 2 == 0)).any():
            raise checks.invalid(
                "threshold", float(border.min()), ">= 0", "m = a^D is never negative on the balanced path of even depth"
            )
    heat = checks.finite_array("temperature", temperature, why="it is the noise that leaves")
    given = (depth, singular_value, weight_decay, input_variance, heat, border)
    return [np.array(v, dtype=np.float64) for v in np.broadcast_arrays(*given)]
