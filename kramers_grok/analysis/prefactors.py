r"""What the slope of an Arrhenius plot says of the barrier, and what it does not.

A prefactor that depends on temperature bends the plot. Where the saddle has :math:`n_0` zero modes more than the
minimum (the rotations of a matrix network), :math:`\tau\propto T^{n_0/2}e^{\Delta F/T}`, and a straight line through
:math:`\ln\tau` against 1/T has a slope that is too small by about :math:`n_0T/2`: entropy taken for energy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.arrhenius import ArrheniusFit, arrhenius_fit, clean_points
from kramers_grok.analysis.least_squares import LinearFit, linear_fit
from kramers_grok.core import checks
from kramers_grok.core.barrier import AnyBarrier
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.rates import eyring_kramers_rate

__all__ = [
    "FreePowerFit",
    "Misreading",
    "PrefactorComparison",
    "compare_prefactors",
    "free_power_fit",
    "prefactor_power",
    "straight_line_misreading",
]

Array = NDArray[np.float64]


def prefactor_power(barrier: AnyBarrier) -> float:
    r"""Power of the temperature in front of :math:`e^{\Delta F/T}`: half the saddle's extra zero modes, :math:`n_0/2`.

    It is what `arrhenius_fit` takes as ``prefactor_power``; 0 for the mode and the chain.

    Parameters
    ----------
    barrier : Barrier, OrbitBarrier or NumericalBarrier

    Returns
    -------
    float

    Examples
    --------
    >>> from kramers_grok.theory.saddles import MatrixNetwork
    >>> network = MatrixNetwork((1, 4, 4, 1), (1.0,), weight_decay=0.25)
    >>> prefactor_power(network.barrier())
    3.0
    >>> T = network.barrier().height / np.array([10.0, 12.0, 14.0])
    >>> tau = [eyring_kramers_rate(network.barrier(), t, warn=False).mean_time for t in T]
    >>> fit = arrhenius_fit(T, tau, np.array(tau) / 50, prefactor_power=3.0)
    >>> abs(fit.barrier / network.barrier().height - 1) < 1e-9
    True
    """
    return 0.5 * (barrier.saddle_zero_modes - barrier.minimum_zero_modes)


@dataclass(frozen=True)
class Misreading:
    """How far the slope of a fit of ln τ against 1/T lies from the barrier.

    Attributes
    ----------
    barrier : float    [loss]
        ΔF.
    apparent_barrier : float    [loss]
        Slope of the straight line.
    with_power : float    [loss]
        Slope with the n₀/2 powers of T taken out.
    leading_order : float    [loss]
        −n₀/(2⟨1/T⟩), what the powers of T take off the slope of a straight line over a short range.
    """

    barrier: float
    apparent_barrier: float
    with_power: float
    leading_order: float

    @property
    def difference(self) -> float:
        """Slope of the straight line minus ΔF [loss]; negative: the barrier is underestimated."""
        return self.apparent_barrier - self.barrier

    @property
    def relative(self) -> float:
        """Difference over ΔF."""
        return self.difference / self.barrier

    @property
    def remaining(self) -> float:
        """What is still missing with the powers of T taken out [loss]: the law's corrections in T/ΔF."""
        return self.with_power - self.barrier


def straight_line_misreading(
    barrier: AnyBarrier,
    temperatures: ArrayLike,
    *,
    mean: ArrayLike | Callable[[float], float] | None = None,
    relative_error: ArrayLike = 1.0,
) -> Misreading:
    r"""Slope that a straight line finds where the law is known, exactly for these temperatures and weights.

    Parameters
    ----------
    barrier : Barrier, OrbitBarrier or NumericalBarrier
        Its height is ΔF, its zero modes are n₀.
    temperatures : array, shape (point,)    [loss]
    mean : array of shape (point,) or callable, optional    [time]
        The law: mean exit times at these temperatures, or a function of T. By default the Eyring–Kramers formula; give
        an exact time to see what its corrections do to the slope.
    relative_error : array or float
        Relative standard errors of the measurement, whose inverse squares are the weights. Only ratios matter.

    Returns
    -------
    Misreading

    Raises
    ------
    InvalidParameterError
        As in `arrhenius_fit`.

    Examples
    --------
    How much too low, in a network of two units a layer, ΔF/T from 8 to 12, and in its chain of single units:

    >>> from kramers_grok.theory.saddles import MatrixNetwork
    >>> for h in (2, 1):
    ...     barrier = MatrixNetwork((1, h, h, 1), (1.0,), weight_decay=0.25).barrier()
    ...     result = straight_line_misreading(barrier, barrier.height / np.linspace(8, 12, 5))
    ...     print(f"{abs(result.relative):.4f} {abs(result.leading_order) / result.barrier:.4f}")
    0.1012 0.1000
    0.0000 0.0000
    """
    T = checks.finite_array("temperatures", temperatures, ndim=1)
    if mean is None:
        tau = np.array([eyring_kramers_rate(barrier, t, warn=False).mean_time for t in T.tolist()])
    elif callable(mean):
        tau = np.array([float(mean(t)) for t in T.tolist()])
    else:
        tau = checks.finite_array("mean", mean, ndim=1)
    weights = np.broadcast_to(checks.finite_array("relative_error", relative_error), tau.shape)
    power = prefactor_power(barrier)
    straight = arrhenius_fit(T, tau, weights * tau)
    bent = arrhenius_fit(T, tau, weights * tau, prefactor_power=power)
    average = float(np.average(1 / T, weights=weights**-2.0))
    return Misreading(barrier.height, straight.barrier, bent.barrier, -power / average)


@dataclass(frozen=True, eq=False)
class FreePowerFit:
    """Fit of ln τ = ln τ0 + ΔF/T + p ln T with p free.

    Over less than a decade ln T and 1/T look alike, so p and ΔF are known badly, and together: see `correlation`.

    Attributes
    ----------
    fit : LinearFit
        Of (ln τ0, ΔF, p), with covariance, χ² and likelihood.
    """

    fit: LinearFit

    @property
    def log_prefactor(self) -> float:
        """Intercept ln τ0."""
        return float(self.fit.coefficients[0])

    @property
    def barrier(self) -> float:
        """ΔF [loss]."""
        return float(self.fit.coefficients[1])

    @property
    def barrier_standard_error(self) -> float:
        """Standard error of ΔF [loss]."""
        return float(self.fit.standard_errors[1])

    @property
    def power(self) -> float:
        """Power p of the temperature."""
        return float(self.fit.coefficients[2])

    @property
    def power_standard_error(self) -> float:
        """Standard error of p."""
        return float(self.fit.standard_errors[2])

    @property
    def correlation(self) -> float:
        """Correlation of the errors of ΔF and p; near −1 or 1 neither is known without the other."""
        c = self.fit.covariance
        return float(c[1, 2] / math.sqrt(c[1, 1] * c[2, 2]))

    def predict(self, temperatures: ArrayLike) -> Array:
        """Mean exit time of the fitted law at other temperatures [time]."""
        T = checks.finite_array("temperatures", temperatures)
        return np.asarray(np.exp(self.log_prefactor + self.barrier / T + self.power * np.log(T)))


def free_power_fit(temperatures: ArrayLike, mean: ArrayLike, standard_error: ArrayLike) -> FreePowerFit:
    """Fit ln τ = ln τ0 + ΔF/T + p ln T by weighted least squares, all three free.

    Arguments and errors as in `arrhenius_fit`, but three different temperatures at least.

    Examples
    --------
    >>> T = np.array([0.1, 0.15, 0.2, 0.4])
    >>> tau = 3.0 * T**1.5 * np.exp(0.5 / T)
    >>> fit = free_power_fit(T, tau, 0.01 * tau)
    >>> round(fit.barrier, 9), round(fit.power, 9)
    (0.5, 1.5)
    """
    T, tau, error = clean_points(temperatures, mean, standard_error)
    if np.unique(T).size < 3:
        raise InvalidParameterError(
            f"`temperatures` holds {np.unique(T).size} different value(s), expected at least 3: three numbers are "
            "fitted.\nRun at another temperature, or fix the power: `arrhenius_fit(..., prefactor_power=p)`."
        )
    design = np.stack([np.ones_like(T), 1 / T, np.log(T)], axis=1)
    return FreePowerFit(linear_fit(design, np.log(tau), error / tau))


@dataclass(frozen=True)
class PrefactorComparison:
    """A straight line and the law with its powers of T, fitted to the same points with the same weights.

    Attributes
    ----------
    straight, with_power : ArrheniusFit
    barrier_difference : float    [loss]
        ΔF of the second minus the first. It has no error of its own: given the weights it is the slope of p ln T.
    log_likelihood_difference : float
        Second minus first, in nats. Both have two free numbers; above 3 speaks clearly for the powers of T.
    confidence : float
        Level of the intervals.
    """

    straight: ArrheniusFit
    with_power: ArrheniusFit
    barrier_difference: float
    log_likelihood_difference: float
    confidence: float

    @property
    def straight_interval(self) -> tuple[float, float]:
        """Interval of the straight line's barrier [loss]."""
        return self._interval(self.straight)

    @property
    def with_power_interval(self) -> tuple[float, float]:
        """Interval of the barrier with the powers of T taken out [loss]."""
        return self._interval(self.with_power)

    def _interval(self, fit: ArrheniusFit) -> tuple[float, float]:
        half = float(scipy.stats.norm.ppf(0.5 + self.confidence / 2)) * fit.barrier_standard_error
        return fit.barrier - half, fit.barrier + half


def compare_prefactors(
    temperatures: ArrayLike,
    mean: ArrayLike,
    standard_error: ArrayLike,
    *,
    prefactor_power: float,
    confidence: float = 0.95,
) -> PrefactorComparison:
    """Fit a straight line and the law with its known powers of T to the same data.

    Other arguments and errors as in `arrhenius_fit`.

    Parameters
    ----------
    prefactor_power : float
        From the theory: ``prefactor_power(barrier)``.
    confidence : float
        Level of the intervals.

    Examples
    --------
    >>> T = np.array([0.1, 0.15, 0.2, 0.4])
    >>> tau = 3.0 * T**1.5 * np.exp(0.5 / T)
    >>> result = compare_prefactors(T, tau, 0.01 * tau, prefactor_power=1.5)
    >>> result.log_likelihood_difference > 3, round(result.with_power.barrier, 9)
    (True, 0.5)
    >>> low, high = result.straight_interval
    >>> high < 0.5
    True
    """
    confidence = checks.fraction("confidence", confidence)
    straight = arrhenius_fit(temperatures, mean, standard_error)
    bent = arrhenius_fit(temperatures, mean, standard_error, prefactor_power=prefactor_power)
    return PrefactorComparison(
        straight,
        bent,
        bent.barrier - straight.barrier,
        bent.log_likelihood - straight.log_likelihood,
        confidence,
    )
