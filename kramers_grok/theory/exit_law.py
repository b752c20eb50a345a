r"""The distribution of an exit time: its mean, and the survival function of the killed process.

The survival function solves the backward equation :math:`\partial_t u = L u`, :math:`u(0) = 1`, with u = 0 in
the target. Expanding it in eigenfunctions of L fails where the target lies far downhill (their weights cancel
by factors :math:`e^{\Delta F/2T}`), so it is integrated in time instead: an L-stable Runge-Kutta scheme whose steps
grow with t, up to the time after which only the slowest mode is left. The tail's rate then follows from the
mean, which is known far more accurately.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BPoly
from scipy.optimize import brentq
from scipy.sparse.linalg import splu

from kramers_grok.core import checks

__all__ = ["ExitTime", "SurvivalCurve", "integrate_survival"]

Array = NDArray[np.float64]

# SDIRK of order 4, L-stable, γ = 1/4 (Hairer & Wanner, Solving ODEs II, table IV.6.5)
_GAMMA = 0.25
_STAGES = (
    (),
    (1 / 2,),
    (17 / 50, -1 / 25),
    (371 / 1360, -137 / 2720, 15 / 544),
    (25 / 24, -49 / 48, 125 / 16, -85 / 12),
)
# Steps before the step doubles: t/Δt stays above this, errors are about 1e-7
_STEPS = 12
_QUADRATURE = np.polynomial.legendre.leggauss(5)


@dataclass(frozen=True, eq=False)
class SurvivalCurve:
    r"""Survival function: quintic Hermite pieces up to `times[-1]`, one exponential afterwards.

    Parameters
    ----------
    times : ndarray, shape (time,)
        From 0, ascending [time].
    derivatives : ndarray, shape (time, 3)
        S, S′ and S″ there.
    tail_rate : float
        Rate of the tail [1/time].
    """

    times: Array
    derivatives: Array
    tail_rate: float

    @cached_property
    def _pieces(self) -> BPoly:
        return BPoly.from_derivatives(self.times, self.derivatives)

    def survival(self, t: Array) -> Array:
        """Probability that the exit comes after `t` ≥ 0."""
        last = self.times[-1]
        head = np.asarray(self._pieces(np.minimum(t, last)))
        tail = np.exp(-self.tail_rate * np.maximum(t - last, 0.0))
        return np.asarray(np.clip(head * tail, 0.0, 1.0))

    def density(self, t: Array) -> Array:
        """Probability density at `t` ≥ 0."""
        last = self.times[-1]
        head = -np.asarray(self._pieces(np.minimum(t, last), nu=1))
        tail = self.tail_rate * self.derivatives[-1, 0] * np.exp(-self.tail_rate * np.maximum(t - last, 0.0))
        return np.asarray(np.maximum(np.where(t > last, tail, head), 0.0))

    def moments(self) -> tuple[float, float]:
        """Mean and variance of the exit time."""
        first, second = head_moments(self.times, self.derivatives)
        rate, last, left = self.tail_rate, self.times[-1], self.derivatives[-1, 0]
        mean = float(first + left / rate)
        return mean, float(2 * second + 2 * left * (last / rate + 1 / rate**2) - mean**2)

    def scaled(self, factor: float) -> SurvivalCurve:
        """The same shape with all times multiplied by `factor`."""
        return SurvivalCurve(self.times * factor, self.derivatives / factor ** np.arange(3), self.tail_rate / factor)


def head_moments(times: Array, derivatives: Array) -> tuple[float, float]:
    """Integrals of S and of t·S over the tabulated times."""
    nodes, weights = _QUADRATURE
    half = np.diff(times)[:, None] / 2
    t = (times[1:] + times[:-1])[:, None] / 2 + half * nodes
    values = np.asarray(BPoly.from_derivatives(times, derivatives)(t)) * half * weights
    return float(values.sum()), float((values * t).sum())


def integrate_survival(
    generator: sp.csr_matrix, start: Array, *, first: float, last: float, mean: float
) -> SurvivalCurve:
    r"""Solve :math:`\dot u = Lu,\ u(0)=1` and return the survival function of one start.

    Parameters
    ----------
    generator : sparse matrix, shape (node, node)
        Killed backward generator: rates to other nodes, minus all exit rates on the diagonal.
    start : ndarray, shape (node,)
        Weights of the nodes at the start (their sum is 1).
    first : float
        Size of the first step [time].
    last : float
        Time after which the decay is one exponential.
    mean : float
        The exact mean exit time, which fixes the tail.
    """
    size = generator.shape[0]
    identity = sp.identity(size, format="csc")
    backward = generator.tocsc()
    u, t, step = np.ones(size), 0.0, first
    times, rows = [0.0], [[1.0, 0.0, 0.0]]
    while t < last:
        solver = splu(identity - (_GAMMA * step) * backward)
        for _ in range(_STEPS):
            stages: list[Array] = []
            for coefficients in _STAGES:
                point = u + step * sum((a * k for a, k in zip(coefficients, stages, strict=True)), np.zeros(size))
                stages.append(solver.solve(backward @ point))
            u = u + step * sum((a * k for a, k in zip((*_STAGES[-1], _GAMMA), stages, strict=True)), np.zeros(size))
            t += step
            slope = backward @ u
            times.append(t)
            rows.append([float(start @ u), float(start @ slope), float(start @ (backward @ slope))])
            if t >= last or start @ u < 1e-14:
                break
        if start @ u < 1e-14:
            break
        step *= 2
    table, derivatives = np.array(times), np.array(rows)
    if start @ (backward @ np.ones(size)) < -1e-9 * (
        start @ np.abs(backward.diagonal())
    ):  # a start beside the target leaves at once
        derivatives[0, 1:] = np.nan
        table, derivatives = table[1:], derivatives[1:]
        table, derivatives = np.append(0.0, table), np.vstack([_at_zero(table, derivatives), derivatives])
    covered, _ = head_moments(table, derivatives)
    rest = mean - covered
    decayed = derivatives[-1, 0]
    rate = decayed / rest if rest > 0 and decayed > 1e-12 else 1.0 / mean
    return SurvivalCurve(table, derivatives, rate)


def _at_zero(times: Array, derivatives: Array) -> Array:
    """Row for t = 0 whose cubic to the first step is monotone."""
    slope = (derivatives[0, 0] - 1.0) / times[0]
    return np.array([1.0, 2 * slope - derivatives[0, 1], 0.0])


@dataclass(frozen=True, eq=False)
class ExitTime:
    r"""An exit time predicted by theory, without a fitted parameter.

    Attributes
    ----------
    mean : float
        Mean exit time [time]; for SGD, time is learning rate times steps.
    relative_error : float
        Estimated relative error of the mean from the numerical method (not of the model).
    method : str
        How it was obtained.
    temperature : float
        Temperature [loss].
    law : callable
        Makes the survival curve when it is first asked for; the mean alone is much cheaper.
    warnings : tuple of str
        What limits the prediction.
    """

    mean: float
    relative_error: float
    method: str
    temperature: float
    law: Callable[[], SurvivalCurve] = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Escape rate, 1/mean [1/time]."""
        return 1.0 / self.mean

    @cached_property
    def curve(self) -> SurvivalCurve:
        """The tabulated survival function."""
        return self.law()

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the exit time [time]; equal to the mean for an exponential law."""
        return float(np.sqrt(self.curve.moments()[1]))

    def survival(self, t: ArrayLike) -> Array:
        """Probability that the exit time exceeds `t`, same shape; 1 for t ≤ 0."""
        time = np.asarray(t, dtype=np.float64)
        return np.asarray(np.where(time <= 0, 1.0, self.curve.survival(np.maximum(time, 0.0))))

    def density(self, t: ArrayLike) -> Array:
        """Probability density of the exit time at `t`, same shape [1/time]; 0 for t < 0."""
        time = np.asarray(t, dtype=np.float64)
        return np.asarray(np.where(time < 0, 0.0, self.curve.density(np.maximum(time, 0.0))))

    def quantile(self, p: float) -> float:
        """Time by which a fraction `p` of the replicas has left.

        Raises
        ------
        InvalidParameterError
            Unless 0 < p < 1.
        """
        wanted = 1.0 - checks.fraction("p", p, "it is a probability")
        curve, last = self.curve, float(self.curve.times[-1])
        left = float(curve.survival(np.array(last)))
        if wanted <= left:
            return last + float(np.log(left / wanted)) / curve.tail_rate
        return float(brentq(lambda t: float(curve.survival(np.array(t))) - wanted, 0.0, last, xtol=1e-14 * last))
