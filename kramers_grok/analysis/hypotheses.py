"""Tests of censored escape times: against exponential escape, a predicted curve, another run.

Each returns a p-value that is honest under type-I censoring (a common horizon).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.survival import Sample, SurvivalFunction
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, TooFewEscapesError

__all__ = ["TestResult", "chi_square_joint", "exponentiality_test", "ks_test", "logrank", "logrank_test"]


@dataclass(frozen=True)
class TestResult:
    """Outcome of a test.

    Attributes
    ----------
    statistic, p_value : float
    name : str
        The test.
    null : str
        What is assumed true when the p-value is computed.
    n : int
        Replicas (or points) that went in.
    note : str
        What the data look like instead, in words.
    """

    __test__ = False  # not for pytest to collect

    statistic: float
    p_value: float
    name: str
    null: str
    n: int
    note: str = ""


def _weibull_shape(t: NDArray[np.float64], escaped: NDArray[np.bool_]) -> float:
    """Maximum-likelihood Weibull shape of right-censored times scaled to a maximum of 1."""
    log_t = np.log(t)
    mean_log = float(log_t[escaped].mean())

    def score(log_shape: float) -> float:
        shape = math.exp(log_shape)
        weight = np.exp(shape * log_t)  # t <= 1: no overflow
        return 1.0 / shape + mean_log - float(weight @ log_t / weight.sum())

    # The score falls from +∞ to mean_log < 0: one root.
    return math.exp(float(scipy.optimize.brentq(score, math.log(1e-3), math.log(1e4), xtol=1e-12)))


def exponentiality_test(ds: xr.Dataset, burn_in: float = 0.0, *, min_escapes: int = 10) -> TestResult:
    r"""Test that escape after `burn_in` is exponential, censoring taken into account.

    Likelihood ratio of the censored Weibull family :math:`S(t) = e^{-(t/\theta)^k}` on k = 1, χ² with
    one degree of freedom. Its false-alarm rate holds within noise from 30 escapes on (simulated). It sees
    rates that fall (k < 1: replicas of several kinds) or rise (k > 1: a lag) with time, not every
    departure that keeps the shape.

    Parameters
    ----------
    ds : xarray.Dataset
        Escape times.
    burn_in : float    [time]
        Only replicas still inside then count, with times from there: a start at one point of the well
        fills it in a few relaxation times, a lag that the test would rightly call not exponential.
    min_escapes : int
        Fewest escapes for an answer.

    Returns
    -------
    TestResult
        `note` gives the fitted shape.

    Raises
    ------
    TooFewEscapesError
        With fewer than `min_escapes` after `burn_in`.

    References
    ----------
    Lawless, Statistical Models and Methods for Lifetime Data, 2nd ed. (2003), §5.2.

    Examples
    --------
    >>> import numpy as np
    >>> from kramers_grok.core.schema import exit_dataset
    >>> t = -np.log1p(-(np.arange(200) + 0.5) / 200)      # exponential quantiles
    >>> ds = exit_dataset(np.minimum(t, 2), t < 2, horizon=2.0, coords={}, seed=0, dtype="float64",
    ...                   device="cpu", configuration={})
    >>> exponentiality_test(ds).p_value > 0.5
    True
    """
    min_escapes = checks.positive_int("min_escapes", min_escapes, minimum=2)
    sample = Sample.of(ds).after(burn_in)
    r = sample.n_escaped
    if r < min_escapes:
        raise TooFewEscapesError(
            f"{r} replicas escaped between burn_in={burn_in:g} and the horizon; a shape needs "
            f"{min_escapes}.\n"
            "Raise max_time or n_replicas, or lower burn_in.",
            result=ds,
        )
    if not sample.times.min() > 0.0:
        raise InvalidParameterError(
            f"{int((sample.times <= 0).sum())} replica(s) left at time 0: they started inside the target.\n"
            "Start in the well, or pass burn_in > 0 to condition on being there."
        )
    t = sample.times / sample.horizon if sample.n_escaped < sample.n else sample.times / sample.times.max()
    shape = _weibull_shape(t, sample.escaped) if np.ptp(np.log(t[sample.escaped])) > 0 else math.inf
    if math.isinf(shape):
        statistic = math.inf
    else:
        # Both maxima with the scale profiled out: θ^k = Σ t^k / r.
        weibull = r * (math.log(shape) - math.log(float((t**shape).sum()))) + (shape - 1) * float(
            np.log(t[sample.escaped]).sum()
        )
        statistic = max(2.0 * (weibull + r * math.log(float(t.sum()))), 0.0)
    return TestResult(
        statistic,
        float(scipy.stats.chi2.sf(statistic, 1)),
        "censored Weibull likelihood ratio",
        f"escape is exponential after t={burn_in:g}",
        sample.n,
        f"Weibull shape {shape:.4g} from {r} escapes",
    )


def _predicted(survival: SurvivalFunction, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate a predicted survival curve and check that it is one."""
    values = np.asarray(survival(t), dtype=np.float64)
    if values.shape != t.shape or not np.isfinite(values).all() or (np.abs(values - 0.5) > 0.5 + 1e-6).any():
        raise InvalidParameterError(
            f"`survival` returned shape {values.shape} for times of shape {t.shape}, or values outside "
            "[0, 1]: "
            "it must give the probability of not having left at each time.\n"
            "Pass e.g. `lambda t: np.exp(-t / tau)` or `exit_time(...).survival`."
        )
    return np.clip(values, 0.0, 1.0)


def ks_test(ds: xr.Dataset, survival: SurvivalFunction) -> TestResult:
    """Test a censored sample against a fully predicted survival curve S(t).

    Two parts that are independent under the null: the number escaped before the horizon h (exact binomial
    with 1 − S(h)) and, given that number, the exact Kolmogorov–Smirnov test of the escape times against
    (1 − S(t))/(1 − S(h)). Joined by the smaller p-value, p = 1 − (1 − p_min)², never anti-conservative.

    Exit times observed only at steps of dt are late by up to dt: it shows when dt/τ is not small against
    1/√n. Correct the crossing (Brownian bridge), or predict the curve of the discrete chain.

    Parameters
    ----------
    ds : xarray.Dataset
        Escape times.
    survival : callable
        S(t) without any parameter fitted to `ds`.

    Returns
    -------
    TestResult
        `statistic` is the KS distance; `note` has both parts.

    Raises
    ------
    InvalidParameterError
        If `survival` does not return probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> from kramers_grok.core.schema import exit_dataset
    >>> t = -np.log1p(-(np.arange(400) + 0.5) / 400)
    >>> ds = exit_dataset(np.minimum(t, 2), t < 2, horizon=2.0, coords={}, seed=0, dtype="float64",
    ...                   device="cpu", configuration={})
    >>> ks_test(ds, lambda t: np.exp(-t)).p_value > 0.9
    True
    >>> ks_test(ds, lambda t: np.exp(-t / 1.5)).p_value < 1e-5
    True
    """
    sample = Sample.of(ds)
    r = sample.n_escaped
    left = 1.0 - float(_predicted(survival, np.array([sample.horizon]))[0])
    count = float(scipy.stats.binomtest(r, sample.n, left).pvalue)
    distance, shape = 0.0, 1.0
    if r and left > 0.0:
        uniform = np.clip((1.0 - _predicted(survival, sample.times[sample.escaped])) / left, 0.0, 1.0)
        fit = scipy.stats.kstest(uniform, "uniform")
        distance, shape = float(fit.statistic), float(fit.pvalue)
    return TestResult(
        distance,
        -math.expm1(2.0 * math.log1p(-min(count, shape))) if min(count, shape) < 1.0 else 1.0,
        "binomial count and Kolmogorov–Smirnov",
        "exit times follow the predicted survival curve",
        sample.n,
        f"escaped {r}, predicted {sample.n * left:.1f} (p={count:.3g}); times given escape p={shape:.3g}",
    )


def logrank_test(ds: xr.Dataset, survival: SurvivalFunction) -> TestResult:
    r"""One-sample log-rank test: escapes observed O against expected :math:`E = \sum_i -\ln S(t_i)`.

    The statistic is the signed root of the likelihood ratio for proportional hazards,
    :math:`\mathrm{sign}(O-E)\sqrt{2[O \ln(O/E) - (O - E)]} \approx (O-E)/\sqrt E`, whose
    tails are much closer to normal than the quotient's. It puts all its power on a rate that is wrong
    by a factor, which is what a wrong temperature or a missing √2 gives.

    Parameters
    ----------
    ds : xarray.Dataset
        Escape times.
    survival : callable
        Predicted S(t).

    Returns
    -------
    TestResult
        Positive `statistic`: faster than predicted. `note` has O, E and (O−E)/√E.

    Raises
    ------
    InvalidParameterError
        If `survival` does not return probabilities, or is 0 at a time where a replica was seen inside.

    References
    ----------
    Breslow, Biometrics 31, 73 (1975), one-sample log-rank test.

    Examples
    --------
    >>> import numpy as np
    >>> from kramers_grok.core.schema import exit_dataset
    >>> t = -np.log1p(-(np.arange(400) + 0.5) / 400)
    >>> ds = exit_dataset(np.minimum(t, 2), t < 2, horizon=2.0, coords={}, seed=0, dtype="float64",
    ...                   device="cpu", configuration={})
    >>> abs(logrank_test(ds, lambda t: np.exp(-t)).statistic) < 0.1
    True
    """
    sample = Sample.of(ds)
    values = _predicted(survival, sample.times)
    if (values <= 0.0).any():
        raise InvalidParameterError(
            f"`survival` is 0 at t={sample.times[values <= 0].min():g}, where a replica was still inside: "
            "the "
            "predicted hazard is infinite (underflow, or a table that ends too early).\n"
            "Predict S to later times, or lower max_time."
        )
    expected, observed = float(-np.log(values).sum()), sample.n_escaped
    quotient = (observed - expected) / math.sqrt(expected) if expected > 0 else math.inf
    deviance = expected - observed
    if observed and expected:
        deviance += observed * math.log(observed / expected)
    statistic = math.copysign(math.sqrt(max(2.0 * deviance, 0.0)), observed - expected)
    if expected == 0.0 and observed:
        statistic = math.inf
    return TestResult(
        statistic,
        float(2.0 * scipy.stats.norm.sf(abs(statistic))),
        "one-sample log-rank (signed likelihood root)",
        "escape follows the predicted hazard",
        sample.n,
        f"escaped {observed}, expected {expected:.1f}, (O−E)/√E = {quotient:.3g}",
    )


def logrank(a: xr.Dataset, b: xr.Dataset) -> TestResult:
    """Two-sample log-rank test that two runs leave at the same rate (`scipy.stats.logrank`).

    Times are compared up to the shorter horizon; positive `statistic`: `a` escapes faster.
    """
    samples = [Sample.of(a), Sample.of(b)]
    horizon = min(s.horizon for s in samples)
    first, second = (
        scipy.stats.CensoredData.right_censored(np.minimum(s.times, horizon), ~(s.escaped & (s.times <= horizon)))
        for s in samples
    )
    fit = scipy.stats.logrank(first, second)
    return TestResult(
        float(fit.statistic),
        float(fit.pvalue),
        "two-sample log-rank",
        "both runs leave at the same rate",
        samples[0].n + samples[1].n,
    )


def chi_square_joint(
    measured: ArrayLike, predicted: ArrayLike, standard_errors: ArrayLike, *, predicted_errors: ArrayLike = 0.0
) -> TestResult:
    """Test several independent measurements against their predictions at once.

    χ² = Σ (measured − predicted)² / (s² + s_predicted²), one degree of freedom for each point:
    nothing is fitted.

    Parameters
    ----------
    measured, predicted, standard_errors : array, shape (point,)
        In the same units, e.g. mean exit times, or their logarithms with relative errors.
    predicted_errors : array or float
        Numerical error of the predictions.

    Raises
    ------
    InvalidParameterError
        Shapes that differ, NaN, or a standard error that is not positive.

    Examples
    --------
    >>> round(chi_square_joint([1.1, 2.0], [1.0, 2.2], [0.1, 0.1]).p_value, 4)
    0.0821
    """
    values = checks.finite_array("measured", measured, ndim=1)
    theory = checks.finite_array("predicted", predicted, ndim=1)
    errors = checks.finite_array("standard_errors", standard_errors, ndim=1)
    if not values.shape == theory.shape == errors.shape:
        raise InvalidParameterError(
            f"`measured`, `predicted`, `standard_errors` have shapes {values.shape}, {theory.shape}, "
            f"{errors.shape}, expected equal ones: one entry for each temperature.\nSelect the same "
            "temperatures."
        )
    variance = errors**2 + np.asarray(predicted_errors, dtype=np.float64) ** 2
    if not (errors > 0).all():
        raise InvalidParameterError(
            f"`standard_errors` = {errors}, expected > 0: a point without error would decide alone.\n"
            "Leave it out, or estimate its error."
        )
    z = (values - theory) / np.sqrt(variance)
    statistic = float(z @ z)
    return TestResult(
        statistic,
        float(scipy.stats.chi2.sf(statistic, z.size)),
        "joint χ²",
        "every measurement has its predicted mean",
        z.size,
        "deviations in standard errors: " + ", ".join(f"{v:+.2f}" for v in z),
    )
