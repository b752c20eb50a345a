r"""Exponents of escape times: :math:`\text{median time} \propto x^p`, from censored runs at several values of x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.least_squares import linear_fit
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["ExponentFit", "exponent_fit"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ExponentFit:
    """A power law through medians, and whether it is one.

    Attributes
    ----------
    exponent : float
        p in median ∝ x^p.
    lower, upper : float
        Ends of its confidence interval. Where the medians scatter about the line by more than their errors, as they
        do if it is curved, the interval is wider by that factor: it then says how well *one* power describes the range.
    x, median, log_error : array, shape (point,)
        Points used, their medians and the standard errors of the medians' logarithms.
    local : array, shape (point − 1,)
        Slopes between neighbours: a power law has one, a threshold or an exponential law many.
    reduced_chi_square, p_value : float
        Of the line, from the medians' errors.
    n_censored : int
        Points left out because half of their replicas or more were censored: the law continues, or ends, there.
    """

    exponent: float
    lower: float
    upper: float
    x: Array
    median: Array
    log_error: Array
    local: Array
    reduced_chi_square: float
    p_value: float
    n_censored: int


def exponent_fit(x: ArrayLike, times: ArrayLike, escaped: ArrayLike, *, confidence: float = 0.95) -> ExponentFit:
    r"""Fit :math:`\ln(\text{median}) = p\ln x + \text{const}` by weighted least squares.

    Medians do not feel a horizon that fewer than half of the replicas reach, nor the law of the times. Their errors are
    those of order statistics.

    Parameters
    ----------
    x : array_like, shape (point,)
        Positive values of what is varied.
    times, escaped : array_like, shape (point, replica)
        Times of escape or of the horizon, and which of the two.
    confidence : float

    Returns
    -------
    ExponentFit
        The exponent with its interval, slopes between neighbours, and whether one power describes all.

    Raises
    ------
    InvalidParameterError
        If shapes differ, or fewer than three points have a median.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = np.array([1.0, 2.0, 4.0, 8.0])
    >>> times = x[:, None] ** -2 * rng.lognormal(sigma=0.2, size=(4, 400))
    >>> fit = exponent_fit(x, times, np.full(times.shape, True))
    >>> fit.lower < -2 < fit.upper, fit.upper - fit.lower < 0.1
    (True, True)
    """
    value = checks.finite_array("x", x, ndim=1)
    time, left = checks.finite_array("times", times, ndim=2), np.asarray(escaped, dtype=bool)
    if time.shape != left.shape or len(time) != len(value):
        raise InvalidParameterError(
            f"`x`, `times` and `escaped` have shapes {value.shape}, {time.shape} and {left.shape}, expected (point,) "
            "and twice (point, replica)."
        )
    if (value <= 0).any() or (time <= 0).any():
        raise checks.invalid("x", "values or times <= 0", "positive numbers", "a power law takes their logarithms")
    order = np.argsort(value)
    value, time, left = value[order], time[order], left[order]
    kept = 2 * left.sum(axis=1) > left.shape[1]
    if kept.sum() < 3:
        raise InvalidParameterError(
            f"{int(kept.sum())} of {len(value)} points have more than half of their replicas escaped, expected 3: two "
            "points cannot tell a power law from any other.\nUse a longer horizon or more values of `x`."
        )
    # A censored replica leaves later than any: only its rank counts.
    sorted_log = np.log(np.sort(np.where(left, time, np.inf)[kept], axis=1))
    median, error = _medians(sorted_log)
    log_x = np.log(value[kept])
    fit = linear_fit(np.stack([np.ones_like(log_x), log_x], axis=1), median, error)
    free = fit.degrees_of_freedom
    widening = math.sqrt(max(1.0, fit.reduced_chi_square))
    quantile = scipy.stats.t.ppf(0.5 + checks.fraction("confidence", confidence) / 2, free)
    half = float(quantile * widening * fit.standard_errors[1])
    exponent = float(fit.coefficients[1])
    return ExponentFit(
        exponent, exponent - half, exponent + half, value[kept], np.exp(median), error,
        np.diff(median) / np.diff(log_x), fit.reduced_chi_square, fit.p_value, int((~kept).sum()),
    )  # fmt: skip


def _medians(sorted_log: Array) -> tuple[Array, Array]:
    """Medians and standard errors from the order statistics about a standard deviation away; infinite ones are cut."""
    n = sorted_log.shape[1]
    median = np.where(np.isfinite(sorted_log), sorted_log, np.finfo(float).max)
    median = (median[:, (n - 1) // 2] + median[:, n // 2]) / 2
    away = 0.5 * math.sqrt(n)
    low = sorted_log[:, max(math.floor((n - 1) / 2 - away), 0)]
    high = sorted_log[:, min(math.ceil((n - 1) / 2 + away), n - 1)]
    spread = np.where(np.isfinite(high), (high - low) / 2, median - low)
    # Steps are whole numbers: ties at the median would make an error of 0.
    return median, np.maximum(spread, 1e-3)
