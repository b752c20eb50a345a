"""Survival curves, mean exit times and rates from censored escape times.

All replicas are watched up to one common horizon (type-I censoring). Averages never
drop or include censored replicas as if they had left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.stats
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, TooFewEscapesError
from kramers_grok.core.schema import describe, validate_exit_dataset, validate_run

__all__ = [
    "Estimate",
    "PredictedExit",
    "SurvivalFunction",
    "escape_rate",
    "estimate",
    "mean_exit_time",
    "survival_curve",
]

SurvivalFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Predicted survival probability S(t): times of any shape to probabilities of that shape."""


class PredictedExit(Protocol):
    """What the comparison needs of a theory: the mean exit time and the survival curve."""

    @property
    def mean(self) -> float:
        """Mean exit time [time]."""
        ...

    def survival(self, t: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Probability of not having left at time t."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Attributes
    ----------
    value, lower, upper : float
        Estimate and interval; `upper` of a mean exit time is inf where nothing escaped.
    standard_error : float
    n_escaped, n : int
        Replicas that escaped, of how many.
    method : str
        How it was made and what it assumes.
    confidence : float
        Level of the interval.
    """

    value: float
    lower: float
    upper: float
    standard_error: float
    n_escaped: int
    n: int
    method: str
    confidence: float = 0.95


@dataclass(frozen=True)
class Sample:
    """Arrays of a validated data set: times (replica,), escaped (replica,), horizon."""

    times: NDArray[np.float64]
    escaped: NDArray[np.bool_]
    horizon: float

    @classmethod
    def of(cls, ds: xr.Dataset) -> Sample:
        """Validate a data set and take its arrays."""
        ds = validate_exit_dataset(ds)
        return cls(ds["exit_time"].values, ds["escaped"].values, float(ds["horizon"]))

    @property
    def n(self) -> int:
        """Number of replicas."""
        return self.times.size

    @property
    def n_escaped(self) -> int:
        """Number of replicas that escaped."""
        return int(self.escaped.sum())

    def after(self, burn_in: float) -> Sample:
        """Replicas still inside at `burn_in`, with times and horizon counted from there.

        Given exponential escape this conditioning changes nothing; it removes the lag of the start.
        """
        burn_in = checks.non_negative("burn_in", burn_in)
        if burn_in == 0.0:
            return self
        if burn_in >= self.horizon:
            raise InvalidParameterError(
                f"`burn_in` = {burn_in:g}, expected less than horizon = {self.horizon:g}: nothing is left "
                "to see.\n"
                "Lower burn_in to a few relaxation times of the well, or raise max_time."
            )
        late = self.times > burn_in
        return Sample(self.times[late] - burn_in, self.escaped[late], self.horizon - burn_in)

    def censored_data(self) -> scipy.stats.CensoredData:
        """Return the sample in scipy's form, exits as exact values and the rest right-censored."""
        return scipy.stats.CensoredData.right_censored(self.times, ~self.escaped)


def survival_curve(ds: xr.Dataset, confidence: float = 0.95) -> xr.Dataset:
    """Kaplan–Meier estimate of the survival function, with a pointwise band.

    Parameters
    ----------
    ds : xarray.Dataset
        Escape times, see `kramers_grok.core.schema.exit_dataset`.
    confidence : float
        Level of the pointwise band. With one common horizon the number still inside at a time is binomial,
        so the band is exact (Clopper–Pearson), also where nobody or everybody has left.

    Returns
    -------
    xarray.Dataset
        ``survival``, ``lower``, ``upper`` along ``time`` [time], a step function that starts at (0, 1)
        and ends at the horizon.

    Examples
    --------
    >>> from kramers_grok.core.schema import exit_dataset
    >>> ds = exit_dataset([1.0, 2.0, 4.0, 4.0], [True, True, False, False], horizon=4.0, coords={},
    ...                   seed=0, dtype="float64", device="cpu", configuration={})
    >>> survival_curve(ds).survival.values.tolist()
    [1.0, 0.75, 0.5, 0.5]
    """
    confidence = checks.fraction("confidence", confidence)
    sample = Sample.of(ds)
    time, survival = np.array([0.0, sample.horizon]), np.ones(2)
    if sample.n_escaped:
        fit = scipy.stats.ecdf(sample.censored_data()).sf
        left = fit.quantiles < sample.horizon
        end = np.array([sample.horizon])
        time = np.concatenate([[0.0], fit.quantiles[left], end])
        survival = np.concatenate([[1.0], fit.probabilities[left], fit.evaluate(end)])
    # All replicas are watched up to each time, so the number inside is binomial: Clopper–Pearson.
    inside, alpha = np.rint(sample.n * survival), 1.0 - confidence
    gone = sample.n - inside
    quantile = scipy.stats.beta.ppf
    lower = np.where(inside > 0, quantile(alpha / 2.0, np.maximum(inside, 1.0), gone + 1.0), 0.0)
    upper = np.where(gone > 0, quantile(1.0 - alpha / 2.0, inside + 1.0, np.maximum(gone, 1.0)), 1.0)
    unit = {"units": "1"}
    return xr.Dataset(
        {
            "survival": ("time", survival, describe("survival")),
            "lower": ("time", lower, unit | {"long_name": "lower end of the band"}),
            "upper": ("time", upper, unit | {"long_name": "upper end of the band"}),
        },
        coords={"time": ("time", time, describe("time"))},
        attrs={"method": "Kaplan–Meier, exact binomial band", "confidence": confidence},
    )


def mean_exit_time(
    ds: xr.Dataset, confidence: float = 0.95, *, burn_in: float = 0.0, min_escapes: int = 10
) -> Estimate:
    r"""Estimate the mean exit time, censored replicas included for what they are.

    With r escapes, times t_i cut at the horizon and b = `burn_in`,

    .. math:: \hat\tau = \overline{\min(t, b)} + \hat S(b)\,\frac{\sum_{t_i > b} (t_i - b)}{r_{t > b}} ,

    the plain sample mean when everybody left (for any b), and for b = 0 the total time at risk over
    the number of escapes. Under censoring it assumes that escape is **exponential after b**: check with
    `exponentiality_test`, and take b of a few relaxation times of the well so that the initial lag,
    the time before a replica placed at the minimum has filled the well, does not count as slow escape.

    Parameters
    ----------
    ds : xarray.Dataset
        Escape times.
    confidence : float
        Level of the interval. Censored with b = 0: the χ² interval
        ``2 r τ̂ / χ²(2r+2), 2 r τ̂ / χ²(2r)``, exact for a fixed number of escapes or a fixed
        exposure and slightly conservative at a fixed horizon. Otherwise a Student interval of ln τ̂
        from the empirical influence function, which keeps the skewness and needs no exponential law.
        Simulated coverage of 95 %: 93 % at 20 and 94 % at 100 escapes without censoring, 95–97 % with.
    burn_in : float    [time]
        Time b before which escape need not be exponential.
    min_escapes : int
        Fewest escapes (after b) that count as an answer.

    Returns
    -------
    Estimate
        In units of time.

    Raises
    ------
    TooFewEscapesError
        With the partial estimate as `result`, and the horizon that would do.

    References
    ----------
    Lawless, Statistical Models and Methods for Lifetime Data, 2nd ed. (2003), §3.5, §4.1.

    Examples
    --------
    >>> from kramers_grok.core.schema import exit_dataset
    >>> ds = exit_dataset([1.0, 3.0, 4.0, 4.0], [True, True, False, False], horizon=4.0, coords={},
    ...                   seed=0, dtype="float64", device="cpu", configuration={})
    >>> mean_exit_time(ds, min_escapes=2).value          # (1 + 3 + 4 + 4) / 2
    6.0
    """
    confidence = checks.fraction("confidence", confidence)
    min_escapes = checks.positive_int("min_escapes", min_escapes)
    sample = Sample.of(ds)
    late = sample.after(burn_in)
    estimate = _mean(sample, late, burn_in, confidence)
    if late.n_escaped < min_escapes and sample.n_escaped < sample.n:
        raise TooFewEscapesError(_too_few(sample, late, burn_in, min_escapes), result=estimate)
    if sample.n < min_escapes:
        raise TooFewEscapesError(
            f"{sample.n} replicas, all escaped; the rate would be known to "
            f"±{100 / math.sqrt(sample.n):.0f} %.\nUse n_replicas >= {min_escapes}.",
            result=estimate,
        )
    return estimate


def estimate(ds: xr.Dataset, confidence: float = 0.95, *, burn_in: float = 0.0, min_escapes: int = 10) -> Estimate:
    """Mean exit time of any run: never an error for too few escapes, and splitting's own estimate for splitting.

    Parameters are those of `mean_exit_time`. With too few escapes it is the partial estimate, whose interval says so.
    For a splitting run it is the one in the data set, with Student's interval of the logarithm over its repeats; no
    replica lives through a whole escape there, so `n_escaped` and `n` are 0.
    """
    ds = validate_run(ds)
    if "exit_time" not in ds.variables:
        confidence = checks.fraction("confidence", confidence)
        method = "splitting, Student interval of the log over its repeats"
        value, error = float(ds["mean_exit_time"]), float(ds["standard_error"])
        return _log_student(value, error, 0, 0, method, confidence, ds.sizes["repeat"])
    try:
        return mean_exit_time(ds, confidence, burn_in=burn_in, min_escapes=min_escapes)
    except TooFewEscapesError as too_few:
        if not isinstance(too_few.result, Estimate):
            raise
        return too_few.result


def _too_few(sample: Sample, late: Sample, burn_in: float, min_escapes: int) -> str:
    """Say how many escaped, how well the rate is known, and which horizon would give 100 escapes."""
    r, n = late.n_escaped, sample.n
    after = f" (and after burn_in={burn_in:g})" if burn_in else ""
    known = f"known to ±{100 / math.sqrt(r):.0f} %" if r else "unknown from below"
    start = f"{r} of {n} replicas escaped before max_time={sample.horizon:g}{after}; the rate would be {known}."
    wanted = max(min_escapes, min(100, n // 2))
    if wanted >= n:
        return f"{start}\nRaise n_replicas to about {10 * min_escapes}, or max_time."
    # With none escaped, one escape just after the horizon is the most hopeful reading.
    tau = late.times.sum() / max(r, 1) if late.n else sample.horizon
    horizon = burn_in - tau * math.log1p(-wanted / n)
    least = "at least " if r == 0 else ""
    return f"{start}\nRaise max_time to about {least}{horizon:.2g} (for {wanted} escapes), or n_replicas."


def _mean(sample: Sample, late: Sample, burn_in: float, confidence: float) -> Estimate:
    """Mean exit time with the interval that fits the kind of censoring."""
    r, n, alpha = late.n_escaped, sample.n, 1.0 - confidence
    total = float(late.times.sum())
    early = float(np.minimum(sample.times, burn_in).mean())
    if sample.n_escaped == n:
        value = float(sample.times.mean())
        error = float(sample.times.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
        return _log_student(value, error, n, n, "sample mean, Student interval of the log", confidence)
    if r == 0:
        lower = early + late.n / n * total / -math.log(alpha)
        method = "no escape: one-sided bound of the exponential law"
        return Estimate(math.inf, lower, math.inf, math.inf, sample.n_escaped, n, method, confidence)
    tail = total / r
    if burn_in == 0.0:
        quantile = scipy.stats.chi2.ppf
        lower = 2.0 * total / float(quantile(1.0 - alpha / 2.0, 2 * r + 2))
        upper = 2.0 * total / float(quantile(alpha / 2.0, 2 * r))
        method = "exponential law, time at risk over escapes, χ² interval"
        return Estimate(tail, lower, upper, tail / math.sqrt(r), r, n, method, confidence)
    value = early + late.n / n * tail
    inside = sample.times > burn_in
    influence = np.minimum(sample.times, burn_in) - value
    influence[inside] += tail + late.n / r * (late.times - late.escaped * tail)
    error = float(influence.std(ddof=1) / math.sqrt(n))
    method = f"mean to burn_in={burn_in:g}, exponential law after it, Student interval of the log"
    return _log_student(value, error, sample.n_escaped, n, method, confidence, r)


def _log_student(
    value: float, error: float, n_escaped: int, n: int, method: str, confidence: float, informative: int | None = None
) -> Estimate:
    """Interval τ̂ exp(±t s/τ̂): exit times are skewed, their logarithm's error much less so."""
    degrees = max((informative or n_escaped) - 1, 1)
    if not math.isfinite(error) or value <= 0.0:
        return Estimate(value, 0.0, math.inf, error, n_escaped, n, method, confidence)
    width = float(scipy.stats.t.ppf(0.5 + confidence / 2.0, degrees)) * error / value
    ends = value * math.exp(-width), value * math.exp(min(width, 700.0))
    return Estimate(value, *ends, error, n_escaped, n, method, confidence)


def escape_rate(ds: xr.Dataset, confidence: float = 0.95, *, burn_in: float = 0.0, min_escapes: int = 10) -> Estimate:
    """Estimate the escape rate, the inverse of `mean_exit_time` with its interval turned over.

    Parameters and errors are those of `mean_exit_time`; the units are 1/time.

    Parameters
    ----------
    ds, confidence, burn_in, min_escapes
        As in `mean_exit_time`.

    Returns
    -------
    Estimate
        [1/time]

    Examples
    --------
    >>> from kramers_grok.core.schema import exit_dataset
    >>> ds = exit_dataset([1.0, 3.0, 4.0, 4.0], [True, True, False, False], horizon=4.0, coords={},
    ...                   seed=0, dtype="float64", device="cpu", configuration={})
    >>> round(escape_rate(ds, min_escapes=2).value, 6)
    0.166667
    """
    try:
        mean = mean_exit_time(ds, confidence, burn_in=burn_in, min_escapes=min_escapes)
    except TooFewEscapesError as error:
        raise TooFewEscapesError(str(error), result=_inverse(error.result)) from None
    return _inverse(mean)


def _inverse(mean: Estimate) -> Estimate:
    """Turn a mean time and its interval into a rate."""

    def inverse(value: float) -> float:
        return 1.0 / value if value > 0.0 else math.inf

    relative = mean.standard_error / mean.value if math.isfinite(mean.value) else math.inf
    rate = inverse(mean.value)
    error = rate * relative if math.isfinite(relative) else math.inf
    ends = inverse(mean.upper), inverse(mean.lower)
    return Estimate(rate, *ends, error, mean.n_escaped, mean.n, mean.method, mean.confidence)
