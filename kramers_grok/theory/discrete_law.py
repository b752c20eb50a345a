r"""Exit-time distribution of a discrete chain: survival step by step, then one geometric tail.

With :math:`\mu_n` the distribution over the nodes of the replicas still inside,

.. math:: f_{n+1} = \mu_n\cdot q, \qquad \mu_{n+1} = \mu_n P, \qquad S_n = |\mu_n|,

f the probability to leave at step n + 1. The steps are taken until the hazard :math:`f_{n+1}/S_n` is constant; if that
lasts long, powers of P take several steps at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.theory.discrete_solver import KilledChain, mean_steps

__all__ = ["DiscreteExitTime", "StepLaw", "step_law"]

Array = NDArray[np.float64]

# Single steps first, then so many of each stride, which grows by a factor
_SINGLE = 1024
_STRIDED = 512
_GROWTH = 4
_STAGES = 25
# The hazard has settled when it changed by less since half as many steps
_SETTLED = 1e-10
# Entries of P below this share of the rate change nothing
_TINY = 1e-16


@dataclass(frozen=True, eq=False)
class StepLaw:
    """Distribution of the number of steps.

    Attributes
    ----------
    steps : ndarray of int64, shape (entry,)
        Numbers of steps from 0, ascending.
    survival : ndarray, shape (entry,)
        Probability to be inside after them.
    hazard : ndarray, shape (entry,)
        Probability to leave at the next step if inside; its last entry holds forever.
    variance : float
        Of the number of steps.
    """

    steps: NDArray[np.int64]
    survival: Array
    hazard: Array
    variance: float

    def survival_at(self, n: Array) -> Array:
        """Survival after `n` ≥ 0 whole steps: exact where tabulated, geometric in between."""
        last = float(self.steps[-1])
        with np.errstate(divide="ignore"):
            inside = np.interp(n, self.steps, np.log(self.survival))
        tail = np.maximum(n - last, 0.0) * np.log1p(-self.hazard[-1]) if self.hazard[-1] < 1 else np.inf * (n > last)
        return np.asarray(np.exp(inside + tail) if self.hazard[-1] < 1 else np.exp(inside) * (n <= last))

    def hazard_at(self, n: Array) -> Array:
        """Probability to leave at step n + 1 if inside after n."""
        return np.asarray(np.interp(n, self.steps, self.hazard))

    def quantile(self, p: float) -> int:
        """Smallest number of steps after which at least a fraction `p` has left."""
        left = 1.0 - p
        low, high = 0, 1
        while float(self.survival_at(np.array(float(high)))) > left:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if float(self.survival_at(np.array(float(middle)))) > left else (low, middle)
        return high


def step_law(chain: KilledChain) -> StepLaw:
    """Follow a chain from its start until its hazard is constant."""
    times = mean_steps(chain.transition, chain.leaving)
    squares = mean_steps(chain.transition, chain.leaving, times)
    # E N(N + 1)/2 is the sum of the mean remaining numbers of steps on the way
    mean = 1 + float(chain.first @ times)
    half_square = mean + float(chain.first @ squares)
    steps, survival, hazard = [0], [1.0], [chain.first_leaving]
    mu, number, stride = chain.first, 1, 1
    matrix: sp.csr_matrix | Array = sp.csr_matrix(
        np.where(np.abs(chain.transition) > _TINY / mean, chain.transition, 0.0).T
    )
    dense: Array | None = None
    for stage in range(_STAGES):
        for _ in range(_SINGLE if stage == 0 else _STRIDED):
            inside = float(mu.sum())
            if inside <= 1e-300:
                break
            steps.append(number)
            survival.append(min(inside, survival[-1]))
            hazard.append(min(float(mu @ chain.leaving) / inside, 1.0))
            mu, number = matrix @ mu, number + stride
        if inside <= 1e-300 or _settled(steps, hazard):
            break
        dense = np.linalg.matrix_power(chain.transition if dense is None else dense, _GROWTH)
        matrix, stride = dense.T, _GROWTH * stride
    return StepLaw(np.array(steps), np.array(survival), np.array(hazard), 2 * half_square - mean - mean**2)


def _settled(steps: list[int], hazard: list[float]) -> bool:
    half = int(np.searchsorted(steps, steps[-1] // 2))
    return abs(hazard[half] / hazard[-1] - 1) < _SETTLED if hazard[-1] > 0 else False


@dataclass(frozen=True, eq=False)
class DiscreteExitTime:
    r"""Exit time of a discrete chain, :math:`(N - \delta)h` with N the number of the first step outside.

    Attributes
    ----------
    mean : float
        Mean exit time [time]; for SGD, time is learning rate times steps.
    relative_error : float
        Relative change of the mean under refinement.
    method : str
        How it was obtained.
    temperature : float
        Temperature of the injected noise [loss].
    step : float
        Time step or learning rate h [time].
    offset : float
        δ, the part of a step by which an exit counts before the step's end: ½ with a bridge, else 0.
    law : callable
        Makes the distribution when it is first asked for.
    warnings : tuple of str
        What limits the prediction.
    """

    mean: float
    relative_error: float
    method: str
    temperature: float
    step: float
    offset: float
    law: Callable[[], StepLaw] = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Escape rate, 1/mean [1/time]."""
        return 1.0 / self.mean

    @cached_property
    def curve(self) -> StepLaw:
        """The distribution of the number of steps."""
        return self.law()

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the exit time [time]."""
        return float(self.step * np.sqrt(self.curve.variance))

    def _number(self, t: ArrayLike) -> Array:
        """Last step whose exits have happened by `t` (times that are rounded products of h included)."""
        return np.asarray(np.floor(np.asarray(t, dtype=np.float64) / self.step * (1 + 1e-12) + self.offset + 1e-9))

    def survival(self, t: ArrayLike) -> Array:
        """Probability that the exit time exceeds `t`, same shape: constant between the steps' times."""
        return self.curve.survival_at(np.maximum(self._number(t), 0.0))

    def density(self, t: ArrayLike) -> Array:
        """Probability of an exit at the first step's time after `t`, over h, same shape [1/time]; 0 for t < 0."""
        number = self._number(t)
        inside = np.maximum(number, 0.0)
        value = self.curve.survival_at(inside) * self.curve.hazard_at(inside) / self.step
        return np.asarray(np.where(np.asarray(t) < 0, 0.0, value))

    def probability(self, n: ArrayLike) -> Array:
        """Probability that step `n` ≥ 1 is the first outside, same shape."""
        before = np.asarray(n, dtype=np.float64) - 1
        inside = np.maximum(before, 0.0)
        return np.asarray(np.where(before < 0, 0.0, self.curve.survival_at(inside) * self.curve.hazard_at(inside)))

    def quantile(self, p: float) -> float:
        """Time by which a fraction `p` of the replicas has left: that of a step.

        Raises
        ------
        InvalidParameterError
            Unless 0 < p < 1.
        """
        wanted = checks.fraction("p", p, "it is a probability")
        return self.step * (self.curve.quantile(wanted) - self.offset)
