r"""Discrete Markov chains on an interval with killing: matrices, mean exit times, survival.

A chain that leaves an interval takes :math:`\tau(x) = h + \int p(x,y)\,\tau(y)\,dy` on average. The integral becomes
a sum over Gauss-Legendre nodes :math:`y_j` of panels, :math:`\tau_i = h + \sum_j P_{ij}\tau_j`; where a density is
narrower than a panel it is integrated against the panel's interpolation polynomials on a graded subdivision.

Solving :math:`(1-P)\tau = h` as it stands loses a factor mean/h of accuracy, all of it at
:math:`\Delta F/T\approx 30`. The probabilities :math:`q_i` to leave in one step are known to full *relative* accuracy,
however small, and rows sum to one: :math:`P_{ii} = 1 - q_i - \sum_{j\ne i}P_{ij}` never needs to be formed. The
elimination of Grassmann, Taksar & Heyman (Oper. Res. 33, 1107 (1985)) works on off-diagonal entries and :math:`q`
alone, without a subtraction, and keeps the relative accuracy of every entry (O'Cinneide, Numer. Math. 65, 109 (1993)).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.theory.discrete_kernels import StepKernel
from kramers_grok.theory.quadrature import Diffusion, Interval, domain

__all__ = ["KilledChain", "build_chain", "mean_number_of_steps", "mean_steps"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

ORDER = 12
MAX_NODES = 6000
_BLOCK = 64
_ROUNDING = 1e-13
# Panels of the coarse solution, which tells the error, in those of the fine one
COARSE = 1.4
_XI, _WEIGHTS = legendre.leggauss(ORDER)
# Values at ORDER nodes → Legendre coefficients
_TO_COEFFICIENTS = (np.arange(ORDER)[:, None] + 0.5) * legendre.legvander(_XI, ORDER - 1).T * _WEIGHTS
# Standard deviations of one step per panel: a normal density is smooth on it to 1e-12
PANEL = 3.0
# Panels of that length for a change of ln(width) by one
_GROWTH = 6.0
# … and the largest slope of the mean step that is followed: replicas meet larger ones too rarely
_STRETCH = 3.0
_LEAST_PULL = 0.1
# Where the far side is cut: the stationary weight is e^-50 of the largest
LOG_CUT = 50.0
# No step of more than 60 standard deviations stays inside (those that leave are all counted)
_REACH = 60.0
_HALVINGS = 40
_CHUNK = 200_000


@dataclass(frozen=True, eq=False)
class KilledChain:
    """A chain on nodes that is killed when it leaves.

    Attributes
    ----------
    nodes : ndarray, shape (node,)
    transition : ndarray, shape (node, node)
        P; its diagonal makes every row sum to 1 − `leaving`.
    leaving : ndarray, shape (node,)
        Probability to leave in one step.
    first : ndarray, shape (node,)
        Transition from the start, which is no node.
    first_leaving : float
    """

    nodes: Array
    transition: Array
    leaving: Array
    first: Array
    first_leaving: float


def build_chain(kernel: StepKernel, interval: Interval, *, refinement: float = 1.0) -> KilledChain:
    """Discretise a chain on the interval; panels shrink in proportion to `refinement`."""
    edges = _edges(kernel, interval, PANEL * refinement, LOG_CUT / refinement)
    half = np.diff(edges) / 2
    nodes = ((edges[:-1] + half)[:, None] + half[:, None] * _XI).ravel()
    weights = (half[:, None] * _WEIGHTS).ravel()
    rows = np.append(nodes, interval.start)
    mean, width = kernel.mean(rows), kernel.width(rows)
    row, column = np.nonzero(np.abs(nodes - mean[:, None]) < _REACH * width[:, None])
    matrix = np.zeros((rows.size, nodes.size))
    matrix[row, column] = kernel.density(rows[row], nodes[column]) * weights[column]
    _integrate_sharp(kernel, rows, edges, matrix)
    leaving = np.zeros(rows.size)
    if interval.lower is not None:
        leaving += kernel.below(rows, interval.lower)
    if interval.upper is not None:
        leaving += kernel.above(rows, interval.upper)
    crossing = kernel.crossing(rows[row], nodes[column])
    if crossing is not None:
        leaving += np.bincount(row, crossing * weights[column], minlength=rows.size)
    # Out there a step may overshoot to beyond the far side, and never come back: such a replica is gone
    lost = 1 - leaving - matrix.sum(axis=1)
    leaving += np.where(lost > 0.5, lost, 0.0)
    first = matrix[-1] * (1 - leaving[-1]) / matrix[-1].sum() if leaving[-1] < 1 else np.zeros(nodes.size)
    transition = matrix[:-1]
    np.fill_diagonal(transition, 0.0)
    np.fill_diagonal(transition, 1 - leaving[:-1] - transition.sum(axis=1))
    return KilledChain(nodes, transition, leaving[:-1], first, float(leaving[-1]))


def mean_number_of_steps(kernel: StepKernel, interval: Interval) -> tuple[float, float]:
    """Mean number of steps from the start until the chain has left, and its relative error (by refinement)."""
    counts = []
    for refinement in (COARSE, 1.0):
        chain = build_chain(kernel, interval, refinement=refinement)
        counts.append(1 + float(chain.first @ mean_steps(chain.transition, chain.leaving)))
    return counts[1], max(abs(counts[0] / counts[1] - 1), _ROUNDING)


def _edges(kernel: StepKernel, interval: Interval, panel: float, cut: float) -> Array:
    """Panels of `panel` standard deviations of a step each, up to where the stationary weight is e^-cut."""
    fine, _ = domain(_diffusion_limit(kernel), interval)
    x, weight = fine.nodes.ravel(), fine.log_speed.ravel()
    lower, upper = fine.edges[0], fine.edges[-1]
    if interval.lower is None:
        side = x <= interval.start
        lower = x[weight >= weight[side].max() - cut].min()
    if interval.upper is None:
        side = x >= interval.start
        upper = x[weight >= weight[side].max() - cut].max()
    x = np.concatenate([[lower], x[(x > lower) & (x < upper)], [upper]])
    width = kernel.width(x)
    # A map that stretches, |1 − hF″| > 1, makes features that much narrower than the noise
    stretch = np.clip(np.abs(np.diff(kernel.mean(x)) / np.diff(x)), 1.0, _STRETCH)
    pieces = np.diff(x) * stretch * (1 / width[1:] + 1 / width[:-1]) / 2 + _GROWTH * np.abs(np.diff(np.log(width)))
    counted = np.concatenate([[0.0], np.cumsum(pieces / panel)])
    edges = np.interp(np.linspace(0, counted[-1], int(np.ceil(counted[-1])) + 1), counted, x)
    for end in (interval.lower, interval.upper):
        for point, scale in kernel.kinks(end) if end is not None else []:
            ladder = scale * 2.0 ** np.arange(np.log2(panel * float(kernel.width(np.array(point))) / scale))
            extra = np.concatenate([point - ladder, [point], point + ladder])
            edges = np.union1d(edges, extra[(extra > lower) & (extra < upper)])
    if (edges.size - 1) * ORDER > MAX_NODES:
        raise checks.invalid(
            "step",
            checks.Described(f"{panel * counted[-1]:.0f} times shorter than the domain"),
            f"at most {panel * MAX_NODES // ORDER:.0f} step lengths across the domain",
            "the discrete chain is solved as a dense matrix",
            "Use a larger `step`, or `ModifiedEquation`.",
        )
    return edges


def _diffusion_limit(kernel: StepKernel) -> Diffusion:
    r"""A diffusion with about the chain's stationary law, to see how far the chain roams.

    A linear drift −λx makes a walk's variance wider than the diffusion's by 1/(1 − hλ/2): there the slope of the mean
    step is 1 − hλ.
    """

    def drift(x: Array) -> Array:
        small = 1e-3 * kernel.width(x)
        slope = (kernel.mean(x + small) - kernel.mean(x - small)) / (2 * small)
        return (kernel.mean(x) - x) * np.clip((1 + slope) / 2, _LEAST_PULL, 1.0)

    return Diffusion(drift, lambda x: 0.5 * kernel.width(x) ** 2)


def _integrate_sharp(kernel: StepKernel, rows: Array, edges: Array, matrix: Array) -> None:
    """Replace the entries of panels on which a row's density is too sharp for Gauss-Legendre."""
    width, finest, centre = kernel.width(rows), kernel.finest(rows), kernel.centre(rows)
    length = np.diff(edges)
    away = np.maximum(np.maximum(edges[:-1] - centre[:, None], centre[:, None] - edges[1:]), 0.0)
    # As long as both: two widths, and the larger of the distance from the sharp feature and two of its scales
    allowed = np.minimum(PANEL * 1.0001 * width[:, None], np.maximum(away, PANEL * 1.0001 * finest[:, None]))
    near = np.abs((edges[:-1] + edges[1:]) / 2 - kernel.mean(rows)[:, None]) < _REACH * width[:, None] + length
    row, panel = np.nonzero((length > allowed) & near)
    if row.size == 0:
        return
    matrix.reshape(rows.size, -1, ORDER)[row, panel] = 0.0
    low, high = edges[panel], edges[panel + 1]
    for _ in range(_HALVINGS):
        distance = np.maximum(np.maximum(low - centre[row], centre[row] - high), 0.0)
        limit = np.minimum(PANEL * width[row], np.maximum(distance, PANEL * finest[row]))
        split = high - low > 1.0001 * limit
        _add_pieces(kernel, rows, edges, matrix, row[~split], panel[~split], low[~split], high[~split])
        row, panel, low, high = row[split], panel[split], low[split], high[split]
        if row.size == 0:
            return
        middle = (low + high) / 2
        # Cut at the sharp feature itself where it lies inside
        inside = (low < centre[row]) & (centre[row] < high)
        middle = np.where(inside, centre[row], middle)
        row, panel = np.repeat(row, 2), np.repeat(panel, 2)
        low, high = np.column_stack([low, middle]).ravel(), np.column_stack([middle, high]).ravel()
    _add_pieces(kernel, rows, edges, matrix, row, panel, low, high)


def _add_pieces(
    kernel: StepKernel, rows: Array, edges: Array, matrix: Array, row: Index, panel: Index, low: Array, high: Array
) -> None:
    """Add integrals of density · interpolation polynomial over pieces of panels."""
    target = matrix.reshape(rows.size, -1, ORDER)
    for begin in range(0, row.size, _CHUNK // ORDER):
        part = slice(begin, begin + _CHUNK // ORDER)
        r, p = row[part], panel[part]
        half = (high[part] - low[part]) / 2
        y = (low[part] + half)[:, None] + half[:, None] * _XI
        value = kernel.density(rows[r][:, None], y) * half[:, None] * _WEIGHTS
        xi = np.clip((2 * y - edges[p][:, None] - edges[p + 1][:, None]) / (edges[p + 1] - edges[p])[:, None], -1, 1)
        moments = np.einsum("im,imk->ik", value, legendre.legvander(xi, ORDER - 1))
        np.add.at(target, (r, p), moments @ _TO_COEFFICIENTS)


def _fundamental(transition: Array, leaving: Array) -> Array:
    """Inverse of 1 − P from the off-diagonal entries of P and the probabilities to leave, without subtraction."""
    chain, out = transition.copy(), leaving.copy()
    visits = np.eye(out.size)
    scale = np.empty(out.size)
    for k in range(out.size - 1, -1, -1):
        scale[k] = chain[k, :k].sum() + out[k]
        share = chain[:k, k] / scale[k]
        chain[:k, :k] += share[:, None] * chain[k, :k]
        visits[:k] += share[:, None] * visits[k]
        out[:k] += share * out[k]
    for k in range(out.size):
        visits[k] = (visits[k] + chain[k, :k] @ visits[:k]) / scale[k]
    return visits


def mean_steps(transition: Array, leaving: Array, reward: Array | None = None) -> Array:
    """Mean number of steps until the chain has left, from each node; with `reward` its mean sum over the visits.

    Solves (1 − P) t = reward by blocks, with the diagonal of P implied by `leaving`: relative accuracy near rounding
    for every entry, whatever the size of t.

    Examples
    --------
    Two states that leave with probabilities 1e-30 and 0: the mean is 2e30.

    >>> print(mean_steps(np.array([[0.0, 0.5], [0.5, 0.0]]), np.array([1e-30, 0.0])))
    [2.e+30 2.e+30]
    """
    chain, out = transition.copy(), leaving.copy()
    time = np.ones(leaving.size) if reward is None else reward.copy()
    bounds = [*range(0, out.size, _BLOCK), out.size]
    for low, high in zip(bounds[-2::-1], bounds[:0:-1], strict=True):
        block = slice(low, high)
        leave = chain[block, :low].sum(axis=1) + out[block]
        visits = _fundamental(chain[block, block], leave)
        chain[block, :low] = visits @ chain[block, :low]
        out[block], time[block] = visits @ out[block], visits @ time[block]
        # The chain moves to near nodes only, and elimination keeps the band
        to, back = _first(chain[block, :low], 0), _first(chain[:low, block], 1)
        coming = chain[back:low, block]
        chain[back:low, to:low] += coming @ chain[block, to:low]
        out[back:low] += coming @ out[block]
        time[back:low] += coming @ time[block]
    for low, high in pairwise(bounds):
        time[low:high] += chain[low:high, :low] @ time[:low]
    return time


def _first(part: Array, axis: int) -> int:
    """First column (axis 0) or row (axis 1) that is not zero."""
    mask = np.asarray(part.any(axis=axis))
    return int(mask.argmax()) if mask.any() else mask.size
