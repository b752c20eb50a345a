r"""Laws of the escape time against the strength of the noise, fitted to censored exit times of single replicas.

With x the noise (learning rate over batch size, or a temperature) the typical time τ follows

====================  ==========================================  ================================================
Arrhenius             :math:`\ln\tau = a + b/x`                    a barrier that noise climbs
power law             :math:`\ln\tau = a - b\ln x`                 noise that shrinks with the loss
growth                :math:`\tau = A/(x - x_c) + \tau_0`          unused weights that grow above a threshold
constant              :math:`\ln\tau = a`                          deterministic: no noise needed
====================  ==========================================  ================================================

The growth law is the time in which an amplitude :math:`a_0` grows to 1 at the rate :math:`\Lambda = \alpha (x - x_c)`,
so :math:`A = \ln(1/a_0)/\alpha`, followed by a plateau; at and below :math:`x_c` nothing ever escapes. A replica that
has not left by the end of its run says so to every law: it is data, not a gap.

Times scatter about τ by a Weibull or log-normal law whose shape may drift with x. Exponential scatter (shape 1) is
what a barrier gives; it is not assumed, for growth gives narrow times.

References
----------
T. Mori, L. Ziyin, K. Liu and M. Ueda, Power-law escape rate of SGD, ICML 2022 (arXiv:2105.09557).
J. F. Lawless, Statistical Models and Methods for Lifetime Data, 2nd ed. (2003), chapters 5 and 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

__all__ = ["LAWS", "ArrheniusLaw", "ConstantLaw", "GrowthLaw", "Law", "PowerLaw", "Saturated"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Law(Protocol):
    """A law ln τ(x; u) with parameters u that may take any real value."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters."""
        ...

    def log_time(self, x: Array, u: Array, lowest: float) -> tuple[Array, Array]:
        """Return ln τ (condition,), infinite where nothing escapes, and its derivatives by u (condition, parameter).

        `lowest` is the smallest x at which a replica escaped.
        """
        ...

    def natural(self, u: Array, lowest: float) -> Array:
        """Return the parameters as they are named, each a monotone function of its own u."""
        ...

    def starts(self, x: Array, log_time: Array, lowest: float) -> Sequence[Array]:
        """Values of u to start a fit from, by rough times of the conditions that escaped."""
        ...


def _line(design: Array, y: Array) -> Array:
    return np.asarray(np.linalg.lstsq(design, y, rcond=None)[0])


def _safe(values: Array) -> Array:
    return np.where(np.isfinite(values), values, 0.0)


@dataclass(frozen=True)
class ArrheniusLaw:
    """ln τ = a + b/x; with x = η/B the barrier is b g²/2."""

    name: str = "arrhenius"
    parameters: tuple[str, ...] = ("log_prefactor", "barrier")

    def log_time(self, x: Array, u: Array, lowest: float) -> tuple[Array, Array]:
        """Return a + (b/lowest)·(lowest/x), so that both numbers are of order one."""
        inverse = lowest / np.where(x > 0, x, np.nan)
        mu = u[0] + u[1] * inverse
        return np.where(x > 0, mu, np.inf), np.stack([np.ones_like(x), _safe(inverse)], axis=1)

    def natural(self, u: Array, lowest: float) -> Array:
        """(a, b)."""
        return np.array([u[0], u[1] * lowest])

    def starts(self, x: Array, log_time: Array, lowest: float) -> Sequence[Array]:
        """Least squares."""
        return [_line(np.stack([np.ones_like(x), lowest / x], axis=1), log_time)]


@dataclass(frozen=True)
class PowerLaw:
    """ln τ = a − b ln x."""

    name: str = "power"
    parameters: tuple[str, ...] = ("log_prefactor", "exponent")

    def log_time(self, x: Array, u: Array, lowest: float) -> tuple[Array, Array]:
        """Return a' − b ln(x/lowest)."""
        with np.errstate(divide="ignore"):
            logs = np.log(x / lowest)
        mu = u[0] - u[1] * np.where(x > 0, logs, np.nan)
        return np.where(x > 0, mu, np.inf), np.stack([np.ones_like(x), -_safe(logs)], axis=1)

    def natural(self, u: Array, lowest: float) -> Array:
        """(a', b): the first is ln τ at the smallest x that escaped."""
        return np.array([u[0], u[1]])

    def starts(self, x: Array, log_time: Array, lowest: float) -> Sequence[Array]:
        """Least squares."""
        return [_line(np.stack([np.ones_like(x), -np.log(x / lowest)], axis=1), log_time)]


@dataclass(frozen=True)
class GrowthLaw:
    """τ = A/(x − x_c) + τ₀ above the threshold 0 ≤ x_c, never below."""

    name: str = "growth"
    parameters: tuple[str, ...] = ("log_growth", "threshold", "plateau")

    def log_time(self, x: Array, u: Array, lowest: float) -> tuple[Array, Array]:
        """With u = (ln(A/lowest), logit(x_c/lowest), ln τ₀)."""
        share = 1.0 / (1.0 + math.exp(-u[1]))
        above = x > lowest * share
        gap = np.where(above, x / lowest - share, 1.0)
        growth, plateau = math.exp(u[0]) / gap, math.exp(u[2])
        total = growth + plateau
        slopes = np.stack([growth / total, growth / total * share * (1 - share) / gap, plateau / total], axis=1)
        return np.where(above, np.log(total), np.inf), np.where(above[:, None], slopes, 0.0)

    def natural(self, u: Array, lowest: float) -> Array:
        """(ln A, x_c, τ₀)."""
        return np.array([u[0] + math.log(lowest), lowest / (1.0 + math.exp(-u[1])), math.exp(u[2])])

    def starts(self, x: Array, log_time: Array, lowest: float) -> Sequence[Array]:
        """Thresholds near 0, half way and near the smallest x that escaped."""
        return [self.start_at(share, x, log_time, lowest) for share in (0.02, 0.5, 0.9, 0.99)]

    def start_at(self, share: float, x: Array, log_time: Array, lowest: float) -> Array:
        """Rough parameters for a threshold at a share of the smallest x that escaped."""
        times, gap = np.exp(log_time), 1.0 / (x / lowest - share)
        # Relative errors, so that the slow conditions do not decide alone.
        design = np.stack([gap, np.ones_like(gap)], axis=1) / times[:, None]
        growth, plateau = scipy.optimize.nnls(design, np.ones_like(times))[0]
        small = 1e-3 * times.min()
        return np.log([max(growth, 0.1 * small), share / (1 - share), max(plateau, small)])


@dataclass(frozen=True)
class ConstantLaw:
    """ln τ = a, noise or none."""

    name: str = "constant"
    parameters: tuple[str, ...] = ("log_time",)

    def log_time(self, x: Array, u: Array, lowest: float) -> tuple[Array, Array]:
        """Return a."""
        return np.full(x.shape, u[0]), np.ones((x.size, 1))

    def natural(self, u: Array, lowest: float) -> Array:
        """(a,)."""
        return u.copy()

    def starts(self, x: Array, log_time: Array, lowest: float) -> Sequence[Array]:
        """The mean."""
        return [np.array([log_time.mean()])]


@dataclass(frozen=True, eq=False)
class Saturated:
    """A time of its own for each condition that escaped; the others never would."""

    active: Flags
    name: str = "saturated"
    parameters: tuple[str, ...] = ()

    def log_time(self, x: Array, u: Array, lowest: float) -> tuple[Array, Array]:
        """Times of the conditions that escaped, infinite elsewhere."""
        mu = np.full(x.size, np.inf)
        mu[self.active] = u
        return mu, np.eye(x.size)[:, self.active]

    def natural(self, u: Array, lowest: float) -> Array:
        """Logarithms of the times."""
        return u.copy()

    def starts(self, x: Array, log_time: Array, lowest: float) -> Sequence[Array]:
        """The rough times."""
        return [log_time]


LAWS: tuple[Law, ...] = (ArrheniusLaw(), PowerLaw(), GrowthLaw(), ConstantLaw())
