r"""Mean exit time of the three-layer scalar chain: the backward equation in three dimensions.

.. math:: T\,\Delta\tau - \nabla F\cdot\nabla\tau = -1, \qquad \tau = 0 \text{ in the target}

with :math:`F = \tfrac q2(\sigma - a_1a_2a_3)^2 + \tfrac\lambda2|a|^2`. This is the oracle where the
Eyring-Kramers formula is 4-10 % off. Three grids are solved and extrapolated in h².

Solving for τ directly loses the digits of :math:`e^{-\Delta F/T}`. With one node A at the bottom of the well,
:math:`g_j = P_j(\text{target before } A)` and :math:`u_j` the mean time to A or the target are well conditioned and

.. math:: \tau_A = \frac{1 + \sum_j Q_{Aj} u_j}{Q_{A,\text{target}} + \sum_j Q_{Aj} g_j}, \qquad
          \tau_i = u_i + (1 - g_i)\,\tau_A

has positive terms only. Iterative refinement gives tiny components of g their relative accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import splu

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.theory.chain_grid import (
    ChainGenerator,
    ChainProblem,
    build_chain_generator,
    count_nodes,
)
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_law import ExitTime, SurvivalCurve, integrate_survival
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.time_step import MONITORING_SHIFT

__all__ = ["SPACINGS", "chain_exit_time"]

Array = NDArray[np.float64]

# Grid spacings in units of the thermal length of the well, coarse to fine
SPACINGS = (0.5, 0.36, 0.26)
# Nodes more than this many T above the barrier carry a share of about e^-16 of the probability flow
ENERGY_CUT = 16.0
# … and 10 of the effective temperatures that minibatch noise makes on the way
HOT_CUT = 10.0
# Sparse LU in three dimensions: beyond this a solve takes many seconds (the second with diagonal links)
MAX_NODES = 40_000
MAX_NODES_DIAGONAL = 12_000
REFINEMENTS = 3
RELAXED = 25.0


@dataclass(frozen=True)
class _Setting:
    """A chain problem together with its well, start and spacing unit."""

    problem: ChainProblem
    anchor: Array
    start: Array
    length: float
    relaxation: float


def chain_exit_time(
    chain: DeepLinearChain,
    *,
    temperature: float,
    target: Region,
    start: ArrayLike | None = None,
    step: float = 0.0,
    monitored: bool = False,
    minibatch: MinibatchNoise | None = None,
    spacings: tuple[float, ...] = SPACINGS,
) -> ExitTime:
    r"""Exit time of the scalar chain with three layers, from a sparse solve in three dimensions.

    Parameters
    ----------
    chain : DeepLinearChain
        Depth 3.
    temperature : float
        Isotropic temperature T > 0 [loss].
    target : Region
        Where the product of the weights counts as escaped.
    start : array_like, shape (3,), optional
        Starting weights; by default the well on the other side of the barrier: 0 for a target above, the
        learned state for one below.
    step : float
        Step h of the Euler-Maruyama scheme whose first-order effect is included [time]; 0 for continuous time.
    monitored : bool
        Whether the scheme looks at its steps only.
    minibatch : MinibatchNoise, optional
        Minibatch noise on top of the isotropic one. Its own step-size effect, O(step · lr/batch), is left out.
    spacings : tuple of float
        Grid spacings in thermal lengths, descending; two or more.

    Returns
    -------
    ExitTime
        Its `relative_error` compares the two best extrapolations.

    Raises
    ------
    InvalidParameterError
        For another depth, T ≤ 0, a start in the target or too high above the barrier.

    Examples
    --------
    >>> chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> height = chain.barrier().height
    >>> exit = chain_exit_time(chain, temperature=height / 4, target=Region(0.1))
    >>> round(exit.mean)
    778
    """
    setting = _setting(chain, temperature, target, start, step, monitored, minibatch)
    scale = _affordable(setting, spacings)
    grids = [scale * c for c in spacings]
    means = [_solve(setting, c * setting.length) for c in grids]
    mean, error = _extrapolate(np.array(grids), np.array(means))
    notes = [] if scale == 1 else [f"grid coarsened by {scale:.3g} to keep the solve affordable"]
    return ExitTime(
        mean=mean,
        relative_error=error,
        method="three-dimensional backward equation, extrapolated in the grid",
        temperature=setting.problem.temperature,
        law=_Law(setting, max(grids), mean),
        warnings=tuple(notes),
    )


@dataclass(frozen=True)
class _Law:
    """Survival curve on the coarsest grid, scaled to the extrapolated mean."""

    setting: _Setting
    spacing: float
    mean: float

    def __call__(self) -> SurvivalCurve:
        setting = self.setting
        spacing = self.spacing * setting.length
        generator, home = build_chain_generator(setting.problem, spacing, setting.anchor)
        weights = _interpolation(generator, setting.start)
        mean = _mean_on(generator, home, weights)
        leaving = np.asarray(generator.rates.sum(axis=1)).ravel() + generator.killing
        curve = integrate_survival(
            (generator.rates - sp.diags(leaving)).tocsr(),
            weights,
            first=spacing**2 / (20 * setting.problem.temperature),
            last=RELAXED * setting.relaxation,
            mean=mean,
        )
        survival = curve.derivatives[:, 0]
        if not (np.isfinite(survival).all() and survival.min() > -0.01 and survival.max() < 1.01):
            raise InvalidParameterError(
                f"The survival function is unstable for step = {setting.problem.step:g} and this minibatch "
                "noise: the first-order corrections exceed the isotropic noise somewhere on the grid.\n"
                "Use a smaller `step` or `lr_over_batch`, or a higher `temperature`."
            )
        return curve.scaled(self.mean / mean)


def _setting(
    chain: DeepLinearChain,
    temperature: float,
    target: Region,
    start: ArrayLike | None,
    step: float,
    monitored: bool,
    minibatch: MinibatchNoise | None,
) -> _Setting:
    if chain.depth != 3:
        raise checks.invalid(
            "chain.depth",
            chain.depth,
            "3",
            "the backward equation is solved on a grid, which is affordable in three dimensions only",
            "Use `chain.mode` for the exact one-dimensional time of the balanced mode, or `eyring_kramers`.",
        )
    temperature = checks.positive(
        "temperature",
        temperature,
        "without noise nothing crosses a barrier",
        "Use `temperature=chain.barrier().height / 6`.",
    )
    step = checks.non_negative("step", step)
    saddle, learned = _states(chain)
    anchor = np.zeros(3) if target.above else np.full(3, learned)
    origin = anchor if start is None else checks.finite_array("start", start, ndim=1)
    if origin.shape != (3,):
        raise checks.invalid(
            "start", checks.Described(f"array of shape {origin.shape}"), "shape (3,)", "one weight for each layer"
        )
    sign = target.sign
    border = np.cbrt(target.threshold)
    # The highest point on the balanced path from the well to the target
    crest = (min(saddle, border) if target.above else max(saddle, border)) if np.isfinite(saddle) else border
    problem = ChainProblem(
        sigma=chain.singular_value,
        decay=chain.weight_decay,
        variance=chain.input_variance,
        temperature=temperature,
        threshold=target.threshold,
        sign=sign,
        ceiling=np.inf,
        margin=np.inf,
        crest=float(crest**3),
        step=step,
        shift=MONITORING_SHIFT if monitored and step else 0.0,
        minibatch=minibatch,
    )
    _check_start(problem, origin, anchor)
    top, hottest = np.full(3, crest), temperature
    if minibatch is not None:
        states = np.linspace(anchor, top, 9)
        squares = (problem.others(states) ** 2).sum(axis=1)
        hottest += float(np.max(squares * minibatch.strength(states.prod(axis=1))))
    reach = max(ENERGY_CUT * temperature, HOT_CUT * hottest)
    ceiling = max(float(problem.energy(top)), float(problem.energy(origin))) + reach
    problem = replace(problem, ceiling=ceiling, margin=reach)
    curvatures = np.linalg.eigvalsh(_hessian(problem, anchor))
    unstable = abs(np.linalg.eigvalsh(_hessian(problem, top))[0])
    # The geometric mean: one stiff direction of three need not be resolved better than the others
    length = np.sqrt(temperature / np.exp(np.log(curvatures).mean()))
    length = min(length, abs(border - anchor[0]) / 4)
    return _Setting(problem, anchor, origin, float(length), float(1 / min(curvatures[0], unstable)))


def _states(chain: DeepLinearChain) -> tuple[float, float]:
    """Amplitudes of saddle and learned state; NaN above the spinodal."""
    if chain.weight_decay >= chain.spinodal():
        return np.nan, np.nan
    return chain.saddle_amplitude(), chain.learned_amplitude()


def _hessian(problem: ChainProblem, a: Array) -> Array:
    v, m = problem.others(a), a.prod()
    mixed = np.array([[0, a[2], a[1]], [a[2], 0, a[0]], [a[1], a[0], 0]])
    pull = problem.variance * (problem.sigma - m)
    return np.asarray(problem.variance * np.outer(v, v) - pull * mixed + problem.decay * np.eye(3))


def _check_start(problem: ChainProblem, start: Array, anchor: Array) -> None:
    if not np.isfinite(anchor).all():
        raise InvalidParameterError(
            "weight_decay is above the spinodal, so there is no learned state to start from.\n"
            "Use a smaller `weight_decay`."
        )
    side = ">" if problem.sign > 0 else "<"
    for name, point in (("the start", start), ("the well to be left", anchor)):
        if problem.level(point) >= 0:
            raise InvalidParameterError(
                f"The target m {side}= {problem.threshold:g} contains {name}, where m = {point.prod():.6g}: "
                "the exit time would be 0.\nUse `beyond(chain.barrier())` for a target past the barrier."
            )


def _affordable(setting: _Setting, spacings: tuple[float, ...]) -> float:
    """Factor ≥ 1 on all spacings that keeps the finest grid solvable."""
    nodes = count_nodes(setting.problem, min(spacings) * setting.length)
    diagonal = setting.problem.step > 0 or setting.problem.minibatch is not None
    return float(max(1.0, nodes / (MAX_NODES_DIAGONAL if diagonal else MAX_NODES)) ** (1 / 3))


def _solve(setting: _Setting, spacing: float) -> float:
    generator, home = build_chain_generator(setting.problem, spacing, setting.anchor)
    return _mean_on(generator, home, _interpolation(generator, setting.start))


def _mean_on(generator: ChainGenerator, home: int, weights: Array) -> float:
    """Mean exit time on one grid."""
    free = np.arange(generator.killing.size) != home
    leaving = np.asarray(generator.rates.sum(axis=1)).ravel() + generator.killing
    matrix = (sp.diags(leaving) - generator.rates).tocsr()[free][:, free].tocsc()
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    sources = np.stack([generator.killing[free], np.ones(free.sum())], axis=1)
    solution = factors.solve(sources)
    for _ in range(REFINEMENTS):
        solution += factors.solve(sources - matrix @ solution)
    g, u = np.zeros(free.size), np.zeros(free.size)
    g[free], u[free] = solution.T
    row = generator.rates[[home]]
    at_home = (1 + float((row @ u)[0])) / (generator.killing[home] + float((row @ g)[0]))
    return float(weights @ u + (1 - weights @ g) * at_home)


def _interpolation(generator: ChainGenerator, start: Array) -> Array:
    """Weights of the nodes that interpolate linearly at the start."""
    scaled = start / generator.spacing
    corner = np.floor(scaled + 1e-9).astype(np.int64)
    fraction = np.clip(scaled - corner, 0.0, 1.0)
    weights = np.zeros(generator.killing.size)
    for bits in product((0, 1), repeat=3):
        weight = float(np.prod(np.where(bits, fraction, 1 - fraction)))
        if weight <= 1e-12:
            continue
        node = int(generator.node(corner + np.array(bits)))
        if node >= 0:
            weights[node] += weight
    total = weights.sum()
    if total == 0:
        raise InvalidParameterError(
            f"start = {start.tolist()} has no grid point next to it: it touches the target.\n"
            "Start further away from the target."
        )
    return np.asarray(weights / total)


def _extrapolate(spacings: Array, means: Array) -> tuple[float, float]:
    """Value at spacing 0 of the polynomial in h², and its change against leaving out the coarsest grid."""
    if len(spacings) < 2:
        return float(means[-1]), float("nan")

    def at_zero(first: int) -> float:
        powers = np.vander(spacings[first:] ** 2, increasing=True)
        return float(np.exp(np.linalg.solve(powers, np.log(means[first:]))[0]))

    best = at_zero(0)
    return best, abs(at_zero(1) / best - 1) if len(spacings) > 2 else abs(means[-1] / best - 1)
