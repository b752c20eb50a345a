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
from kramers_grok.theory.discrete_kernels import GaussianKernel
from kramers_grok.theory.discrete_solver import mean_number_of_steps
from kramers_grok.theory.quadrature import Diffusion, Function, Interval, MeanExit

__all__ = ["MONITORING_SHIFT", "ModifiedEquation", "discrete_mean_exit", "monitoring_shift"]

Array = NDArray[np.float64]

# −ζ(1/2)/√(2π)
MONITORING_SHIFT = 0.5825971579390106


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

    Solves :math:`\tau(x) - \int p_h(x,y)\,\tau(y)\,dy = h` over the interval (see `discrete_chain`), with
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

    See Also
    --------
    kramers_grok.theory.discrete_chain.discrete_exit : The distribution too, with a bridge where wanted.

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
    number, error = mean_number_of_steps(GaussianKernel(process, step), interval)
    both = interval.lower is not None and interval.upper is not None
    return MeanExit(float(np.log(step * number)), error, float("nan") if both else float(interval.upper is not None))
