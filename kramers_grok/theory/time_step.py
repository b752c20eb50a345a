r"""What a finite time step does to an exit time.

Euler-Maruyama, :math:`x' = x - h\nabla F + \sqrt{2Th}\,\xi`, and so SGD with isotropic noise (h = learning rate),
samples to second weak order the *modified* equation

.. math:: dx = -\big[\nabla F + \tfrac h2(H\nabla F - T\,\nabla\Delta F)\big]dt + \sqrt{2T(1+hH)}\,dW,

H the Hessian. It is reversible: its potential is :math:`F - \tfrac h4|\nabla F|^2 + \tfrac h2T\Delta F`, to this order.
Residual errors of exit times are O(h²).

A walk watched at its steps only overshoots: to leading order it crosses as if the target were
:math:`-\zeta(1/2)/\sqrt{2\pi}\,\cdot\sqrt{2Th}` further away (Broadie, Glasserman & Kou, Math. Finance 7, 325 (1997);
Gobet & Menozzi, Stoch. Process. Appl. 120, 130 (2010)).

`discrete_mean_exit` is exact for the discrete chain in one dimension: :math:`(1-P)\tau = h`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.theory.quadrature import Diffusion, Function, Interval, MeanExit, domain

__all__ = ["MONITORING_SHIFT", "ModifiedEquation", "discrete_mean_exit", "monitoring_shift"]

Array = NDArray[np.float64]

# −ζ(1/2)/√(2π)
MONITORING_SHIFT = 0.5825971579390106
_ORDER = 12
# Standard deviations of one step per quadrature panel: the kernel is smooth on it to 1e-12
_PANEL = 2.0


def monitoring_shift(diffusion: float, step: float) -> float:
    r"""Distance :math:`0.5826\sqrt{2\mathcal D h}` by which watching at steps moves a target away [coordinate].

    Examples
    --------
    >>> round(monitoring_shift(0.5, 0.01), 6)
    0.05826
    """
    return float(MONITORING_SHIFT * np.sqrt(2 * diffusion * step))


@dataclass(frozen=True)
class ModifiedEquation:
    r"""The one-dimensional equation that Euler-Maruyama with step h samples.

    Drift :math:`-F' - \tfrac h2(F''F' - TF''')`, diffusion :math:`T(1+hF'')`.

    Parameters
    ----------
    slope, curvature, third : callable
        F′, F″, F‴, vectorised.
    temperature, step : float
        T [loss] and h [time].

    Examples
    --------
    The variance T/λ of a harmonic well becomes T/(λ(1 − λh/2)), to first order:

    >>> well = ModifiedEquation(lambda x: x, lambda x: 1.0 + 0 * x, lambda x: 0 * x, 1.0, 0.01)
    >>> round(float(well.diffusion(1.0) / -well.drift(1.0)) * (1 - 0.01 / 2), 4)
    1.0
    """

    slope: Function
    curvature: Function
    third: Function
    temperature: float
    step: float

    def drift(self, x: Array) -> Array:
        """Drift at `x`."""
        force, curvature = self.slope(x), self.curvature(x)
        return -force - 0.5 * self.step * (curvature * force - self.temperature * self.third(x))

    def diffusion(self, x: Array) -> Array:
        """Diffusion coefficient at `x`."""
        return self.temperature * (1 + self.step * self.curvature(x))

    @property
    def process(self) -> Diffusion:
        """As a process for quadrature."""
        return Diffusion(self.drift, self.diffusion)


def discrete_mean_exit(process: Diffusion, interval: Interval, step: float) -> MeanExit:
    r"""Exact mean exit time of the Euler-Maruyama chain of a one-dimensional process.

    Solves :math:`\tau(x) - \int p_h(x,y)\,\tau(y)\,dy = h` over the interval by Gauss-Legendre collocation, with
    :math:`p_h` the normal density of mean :math:`x + hb(x)` and variance :math:`2\mathcal D(x)h`. The exit time is
    h times the number of the first step outside. A far side without exit is the natural boundary (a wall would need
    a rule for reflection).

    Parameters
    ----------
    process : Diffusion
        Drift and diffusion *of the scheme* (not of its modified equation).
    interval : Interval
        Start and absorbing ends.
    step : float
        Step h > 0 [time].

    Returns
    -------
    MeanExit
        `probability_upper` is NaN where both ends absorb.

    Raises
    ------
    InvalidParameterError
        If the step is not positive, or a wall is given.

    Notes
    -----
    Rounding limits the relative accuracy to about 1e-16 · (mean/step).

    Examples
    --------
    Random walk with steps of √(2𝒟h), from 0 out of (−1, 1): later than 1/(2𝒟) = 1 by the overshoot

    >>> free = Diffusion(drift=lambda x: 0.0 * x, diffusion=0.5)
    >>> round(discrete_mean_exit(free, Interval(start=0.0, lower=-1.0, upper=1.0), step=0.01).mean, 4)
    1.1224
    >>> round((1 + monitoring_shift(0.5, 0.01)) ** 2, 4)
    1.1199
    """
    step = checks.positive("step", step)
    if interval.wall is not None:
        raise checks.invalid("interval.wall", interval.wall, "None", "a discrete walk jumps over a wall")
    panels, _ = domain(process, interval)
    lower, upper = float(panels.edges[0]), float(panels.edges[-1])
    start = np.array([interval.start])
    means = []
    for refinement in (1.0, 0.75):
        sizes = np.sqrt(2 * process.diffusion_at(panels.nodes.ravel()) * step)
        count = int(np.ceil((upper - lower) / (_PANEL * refinement * sizes.min())))
        nodes, weights = _composite(lower, upper, count)
        kernel = _transition(process, nodes, nodes, step) * weights
        tau = np.linalg.solve(np.eye(nodes.size) - kernel, np.full(nodes.size, step))
        means.append(float((step + _transition(process, start, nodes, step) @ (weights * tau))[0]))
    both = interval.lower is not None and interval.upper is not None
    side = float("nan") if both else float(interval.upper is not None)
    error = max(abs(means[1] / means[0] - 1), float(np.finfo(float).eps) * means[1] / step)
    return MeanExit(float(np.log(means[1])), error, side)


def _composite(lower: float, upper: float, count: int) -> tuple[Array, Array]:
    checks.positive_int("panels", count)
    if count * _ORDER > 6000:
        raise checks.invalid(
            "step",
            "so small",
            f"at most {6000 // _ORDER} step lengths across the domain",
            "the discrete chain is solved as a dense matrix",
            "Use a larger `step`, or `ModifiedEquation`.",
        )
    xi, weights = np.polynomial.legendre.leggauss(_ORDER)
    edges = np.linspace(lower, upper, count + 1)
    half = (edges[1] - edges[0]) / 2
    nodes = (edges[:-1] + half)[:, None] + half * xi
    return nodes.ravel(), np.tile(half * weights, count)


def _transition(process: Diffusion, origin: Array, destination: Array, step: float) -> Array:
    """Transition density from each origin (rows) to each destination."""
    variance = 2 * step * process.diffusion_at(origin)[:, None]
    centre = (origin + step * np.asarray(process.drift(origin)))[:, None]
    return np.exp(-((destination - centre) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
