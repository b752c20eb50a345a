r"""Exact exit times and splitting probabilities in one dimension, by nested quadrature.

For the Itô process :math:`dx = b(x)\,dt + \sqrt{2\mathcal D(x)}\,dW` put
:math:`\Phi' = -b/\mathcal D`, scale density :math:`e^{\Phi}` and speed density :math:`w = e^{-\Phi}/\mathcal D`.
With S the integral of the scale density, the mean exit time from x is the all-positive sum

.. math:: \tau(x) = \int G(x, z)\, w(z)\, dz, \qquad
          G = S(\text{start of the interval}, \min(x,z))\,S(\max(x,z), \text{end}) / S(\text{interval})

for two absorbing ends, and :math:`G = S(\max(x,z), \text{end})` where the other end reflects. Nothing is
subtracted, so every digit of the inner integrals survives.

The line is cut in panels on which :math:`\Phi` and :math:`\ln\mathcal D` vary by O(1); each carries
Gauss-Legendre nodes and their spectral integration matrix, and only logarithms leave a panel. So
:math:`\Delta F/T` of hundreds neither overflows nor costs accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.special import logsumexp

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["Diffusion", "Interval", "MeanExit", "mean_exit", "splitting_probability"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

NODES = 16
MAX_PANELS = 400_000
# e^-80 of the largest weight: far below rounding, so the cut of an infinite domain is never seen
LOG_CUT = 80.0
# A weight that grows by e^10000 on the way out is no well but a drain
LOG_UNBOUNDED = 1e4


@dataclass(frozen=True)
class Diffusion:
    r"""A one-dimensional Itô process :math:`dx = b(x)\,dt + \sqrt{2\mathcal D(x)}\,dW`.

    Parameters
    ----------
    drift : callable
        b(x), vectorised [coordinate / time].
    diffusion : callable or float
        :math:`\mathcal D(x) > 0`, half the squared noise coefficient, vectorised [coordinate² / time].
    """

    drift: Function
    diffusion: Function | float

    def diffusion_at(self, x: Array) -> Array:
        """Diffusion coefficient at `x`, same shape."""
        if callable(self.diffusion):
            return np.asarray(self.diffusion(x), dtype=np.float64) * np.ones_like(x)
        return np.full_like(x, self.diffusion)

    def slope_at(self, x: Array, diffusion: Array) -> Array:
        r"""Slope :math:`\Phi' = -b/\mathcal D` at `x`."""
        return -np.asarray(self.drift(x), dtype=np.float64) * np.ones_like(x) / diffusion


@lru_cache(maxsize=1)
def gauss_rule() -> tuple[Array, Array, Array]:
    """Gauss-Legendre nodes and weights on [−1, 1] and the matrix of integrals from −1 to each node."""
    nodes, weights = legendre.leggauss(NODES)
    values = legendre.legvander(nodes, NODES)  # P_k(x_i), k = 0..NODES
    k = np.arange(1, NODES)
    primitives = np.empty((NODES, NODES))
    primitives[:, 0] = nodes + 1
    primitives[:, 1:] = (values[:, k + 1] - values[:, k - 1]) / (2 * k + 1)
    coefficients = (np.arange(NODES)[:, None] + 0.5) * values[:, :NODES].T * weights
    return nodes, weights, primitives @ coefficients


@dataclass(frozen=True)
class Panels:
    """Scale and speed densities on panels; everything is a logarithm.

    Attributes
    ----------
    edges : ndarray, shape (panel + 1,)
    potential : ndarray, shape (panel + 1,)
        Φ at the edges, 0 at the first.
    nodes, log_scale, log_speed : ndarray, shape (panel, node)
        Coordinates, Φ and −Φ − ln 𝒟 at the Gauss nodes.
    log_scale_from_left, log_scale_to_right : ndarray, shape (panel, node)
        Integral of e^Φ from the panel's left end to the node, and from the node to its right end.
    log_scale_panel, log_speed_panel : ndarray, shape (panel,)
        Integrals of e^Φ and w over each panel.
    variation : ndarray, shape (panel,)
        Total variation of Φ plus that of ln 𝒟 on each panel.
    """

    edges: Array
    potential: Array
    nodes: Array
    log_scale: Array
    log_speed: Array
    log_scale_from_left: Array
    log_scale_to_right: Array
    log_scale_panel: Array
    log_speed_panel: Array
    variation: Array

    def log_integral(self, log_values: Array) -> Array:
        """Logarithm of each panel's integral of exp(log_values), shape (panel,)."""
        _, weights, _ = gauss_rule()
        return np.asarray(logsumexp(log_values, axis=1, b=weights * np.diff(self.edges)[:, None] / 2))


def evaluate(process: Diffusion, edges: Array) -> Panels:
    """Evaluate the process on given panels."""
    xi, weights, matrix = gauss_rule()
    half = np.diff(edges)[:, None] / 2
    nodes = (edges[:-1] + edges[1:])[:, None] / 2 + half * xi
    diffusion = process.diffusion_at(nodes)
    if not (np.isfinite(diffusion).all() and (diffusion > 0).all()):
        where = float(nodes[~(diffusion > 0) | ~np.isfinite(diffusion)][0])
        raise InvalidParameterError(
            f"The diffusion coefficient is not a positive number at x = {where:.6g}: Φ' = −b/𝒟 diverges "
            "there, and where noise vanishes a process is absorbed instead of passing.\n"
            "Keep the path from start to target clear of such points, or add a floor: 𝒟(x) + temperature."
        )
    slope = process.slope_at(nodes, diffusion)
    if not np.isfinite(slope).all():
        where = float(nodes[~np.isfinite(slope)][0])
        raise InvalidParameterError(
            f"Drift over diffusion is not finite at x = {where:.6g}: the potential must be smooth between "
            "the ends.\nMove the reflecting wall or the target off the singular point."
        )
    local = half * (slope @ matrix.T)
    step = (half * slope) @ weights
    potential = np.concatenate([[0.0], np.cumsum(step)])
    log_diffusion = np.log(diffusion)
    log_scale = potential[:-1, None] + local
    # exp(local) is O(1): the caller keeps the variation on a panel small
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        density = np.exp(np.clip(local, -700, 700))
        from_left = potential[:-1, None] + np.log(half * (density @ matrix.T))
        to_right = potential[:-1, None] + np.log(half * (density @ matrix[::-1, ::-1].T))
    panels = Panels(
        edges=edges,
        potential=potential,
        nodes=nodes,
        log_scale=log_scale,
        log_speed=-log_scale - log_diffusion,
        log_scale_from_left=from_left,
        log_scale_to_right=to_right,
        log_scale_panel=np.empty(0),
        log_speed_panel=np.empty(0),
        variation=(half * np.abs(slope)) @ weights + np.ptp(log_diffusion, axis=1),
    )
    object.__setattr__(panels, "log_scale_panel", panels.log_integral(panels.log_scale))
    object.__setattr__(panels, "log_speed_panel", panels.log_integral(panels.log_speed))
    return panels


def refine(process: Diffusion, edges: Array, variation: float = 2.0, length: float = np.inf) -> Panels:
    """Split panels until Φ and ln 𝒟 vary by at most `variation` on each and none exceeds `length`."""
    for _ in range(60):
        panels = evaluate(process, edges)
        widths = np.diff(edges)
        wanted = np.ceil(np.maximum(panels.variation / variation, widths / length))
        pieces = np.clip(np.nan_to_num(wanted, nan=64.0, posinf=64.0), 1, 64).astype(int)
        if (pieces == 1).all():
            return panels
        if pieces.sum() > MAX_PANELS:
            break
        edges = split(edges, pieces)
    worst = float(edges[int(np.nanargmax(np.nan_to_num(panels.variation, nan=np.inf)))])
    raise InvalidParameterError(
        f"Φ = −∫b/𝒟 diverges, or varies too fast for {MAX_PANELS} panels, near x = {worst:.6g}: where noise "
        "vanishes a process is absorbed instead of passing, so that a mean exit time through that point is infinite "
        "and one that ends close to it is out of reach here.\n"
        "Keep start, target and wall clear of that point, or add a floor to the noise: 𝒟(x) + temperature."
    )


def split(edges: Array, pieces: NDArray[np.int_] | int) -> Array:
    """Cut panel i in `pieces[i]` equal ones."""
    counts = np.broadcast_to(np.asarray(pieces), (len(edges) - 1,))
    left = np.repeat(edges[:-1], counts)
    width = np.repeat(np.diff(edges) / counts, counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.append(left + number * width, edges[-1])


@dataclass(frozen=True)
class Interval:
    """Where a process lives: a start between two ends, of which at least one absorbs.

    Parameters
    ----------
    start : float
    lower, upper : float or None
        Absorbing ends; None where that side is no exit.
    wall : float, optional
        Reflecting wall on the side without an exit; without it the natural boundary at infinity.
    """

    start: float
    lower: float | None = None
    upper: float | None = None
    wall: float | None = None

    def __post_init__(self) -> None:
        start = checks.finite("start", self.start)
        ends = [e for e in (self.lower, self.upper) if e is not None]
        if not ends:
            raise InvalidParameterError(
                "Neither `lower` nor `upper` is given: without an exit there is no exit time.\n"
                "Use `Interval(start, upper=target)`."
            )
        if (self.lower is not None and not self.lower <= start) or (self.upper is not None and not start <= self.upper):
            raise InvalidParameterError(
                f"start = {start:.6g} lies outside ({self.lower}, {self.upper}): the process would already "
                "be out.\nSwap the ends, or move the start between them."
            )
        if self.wall is not None:
            if len(ends) == 2:
                raise InvalidParameterError("A wall cannot stand where both ends absorb.\nDrop `wall`.")
            beyond = start < self.wall if self.upper is not None else start > self.wall
            if beyond:
                raise InvalidParameterError(
                    f"wall = {self.wall:.6g} stands between start = {start:.6g} and the target: the target "
                    "could never be reached.\nPut the wall behind the start."
                )


def mirrored(process: Diffusion) -> Diffusion:
    """The same process in the coordinate −x."""
    return Diffusion(
        drift=lambda x: -np.asarray(process.drift(-x)),
        diffusion=lambda x: process.diffusion_at(-x),
    )


def natural_wall(process: Diffusion, start: float, scale: float) -> Array:
    """Return edges from `start` upwards to where the speed density is negligible."""
    edges, highest, first, level, step = [start], -np.inf, 0.0, 0.0, scale
    for number in range(400):
        panels = refine(process, np.array([edges[-1], edges[-1] + step]))
        highest = max(highest, float(panels.log_speed.max()) - level)
        last = float(panels.log_speed[-1, -1]) - level
        level += float(panels.potential[-1])
        edges.append(edges[-1] + step)
        if last < highest - LOG_CUT:
            return np.array(edges)
        first = float(panels.log_speed[0, 0]) if number == 0 else first
        if highest - first > LOG_UNBOUNDED:
            break
        if number > 20:
            step *= 1.3  # a well much wider than the distance to the target, or none
        if edges[-1] - start > 1e9 * scale:
            break
    raise InvalidParameterError(
        f"The process is not confined on the side away from the target: up to {edges[-1] - start:.3g} beyond "
        "the start the weight exp(−Φ)/𝒟 does not become negligible, so the mean exit time is infinite.\n"
        "Give a reflecting wall, `Interval(start, upper=target, wall=...)`, or a second exit."
    )


@dataclass(frozen=True)
class MeanExit:
    """A mean exit time from quadrature.

    Attributes
    ----------
    log_mean : float
        Natural logarithm of the mean exit time; `mean` overflows only beyond e^709.
    relative_error : float
        Change under a refinement of every panel (never below rounding).
    probability_upper : float
        Probability to leave through the upper end (1 or 0 where there is only one).
    """

    log_mean: float
    relative_error: float
    probability_upper: float

    @property
    def mean(self) -> float:
        """Mean exit time [time]."""
        return float(np.exp(self.log_mean))


def domain(process: Diffusion, interval: Interval) -> tuple[Panels, int]:
    """Return adapted panels of the whole domain and the number of the edge that is the start."""
    start = interval.start
    ends = [e for e in (interval.lower, interval.upper) if e is not None]
    scale = max(abs(e - start) for e in ends) / 8

    def side(end: float | None, direction: float) -> Array:
        end = interval.wall if end is None else end
        if end is not None:
            return np.linspace(start, end, 9) if end != start else np.array([start])
        if direction > 0:
            return natural_wall(process, start, scale)
        return -natural_wall(mirrored(process), -start, scale)

    left, right = side(interval.lower, -1.0)[::-1], side(interval.upper, 1.0)
    panels = refine(process, np.concatenate([left, right[1:]]))
    return panels, int(np.searchsorted(panels.edges, start))


def _cumulate(log_values: Array) -> Array:
    """Logarithms of the cumulative sums, with a leading log 0."""
    return np.concatenate([[-np.inf], np.logaddexp.accumulate(log_values)])


def log_mean_exit(panels: Panels, start: int, interval: Interval) -> float:
    """Logarithm of the mean exit time from edge number `start`."""
    speed = panels.log_speed
    below = _cumulate(panels.log_scale_panel)  # scale from the lower end to each edge
    above = _cumulate(panels.log_scale_panel[::-1])[::-1]  # from each edge to the upper end
    down = np.logaddexp(below[:-1, None], panels.log_scale_from_left)  # the same for every node
    up = np.logaddexp(above[1:, None], panels.log_scale_to_right)
    if interval.lower is None:
        near, far = above[start], up
        left, right = panels.log_speed_panel[:start] + near, panels.log_integral(speed + far)[start:]
    elif interval.upper is None:
        left = panels.log_integral(speed + down)[:start]
        right = panels.log_speed_panel[start:] + below[start]
    else:
        total = below[-1]
        left = panels.log_integral(speed + down)[:start] + above[start] - total
        right = panels.log_integral(speed + up)[start:] + below[start] - total
    return float(logsumexp(np.concatenate([left, right])))


def mean_exit(process: Diffusion, interval: Interval, tolerance: float = 1e-10) -> MeanExit:
    r"""Exact mean exit time of a one-dimensional Itô process.

    Parameters
    ----------
    process : Diffusion
        Drift and diffusion coefficient.
    interval : Interval
        Start, absorbing ends, reflecting wall.
    tolerance : float
        Panels are halved until the mean changes by less than this, relatively.

    Returns
    -------
    MeanExit

    Raises
    ------
    InvalidParameterError
        If the noise vanishes on the way or the process is not confined (infinite mean).

    Examples
    --------
    Brownian motion from 0 out of (−1, 1) takes :math:`1/(2\mathcal D)`:

    >>> free = Diffusion(drift=lambda x: 0.0 * x, diffusion=0.25)
    >>> round(mean_exit(free, Interval(start=0.0, lower=-1.0, upper=1.0)).mean, 12)
    2.0
    """
    panels, start = domain(process, interval)
    if interval.start in (interval.lower, interval.upper):
        return MeanExit(-np.inf, 0.0, float(interval.start == interval.upper))
    coarse = log_mean_exit(panels, start, interval)
    for _ in range(6):
        panels = evaluate(process, split(panels.edges, 2))
        start *= 2
        fine = log_mean_exit(panels, start, interval)
        error = abs(fine - coarse)
        coarse = fine
        if error < tolerance:
            break
    # Φ is a sum of many panels: its rounding is the rounding of τ
    floor = float(np.finfo(float).eps) * max(8.0, float(np.ptp(panels.potential)))
    return MeanExit(fine, max(error, floor), _probability_upper(panels, start, interval))


def _probability_upper(panels: Panels, start: int, interval: Interval) -> float:
    if interval.lower is None or interval.upper is None:
        return float(interval.upper is not None)
    below = _cumulate(panels.log_scale_panel)
    return float(np.exp(below[start] - below[-1]))


def splitting_probability(process: Diffusion, start: float, lower: float, upper: float) -> float:
    r"""Probability to reach `upper` before `lower`, :math:`\int_{lower}^{start} e^\Phi / \int_{lower}^{upper} e^\Phi`.

    Examples
    --------
    >>> free = Diffusion(drift=lambda x: 0.0 * x, diffusion=1.0)
    >>> round(splitting_probability(free, 0.25, 0.0, 1.0), 12)
    0.25
    """
    interval = Interval(start=start, lower=lower, upper=upper)
    if start in (lower, upper):
        return float(start == upper)
    panels, index = domain(process, interval)
    panels = evaluate(process, split(panels.edges, 2))
    return _probability_upper(panels, 2 * index, interval)
