"""Censored estimates of mean exit times."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from kramers_grok.analysis import escape_rate, mean_exit_time, survival_curve
from kramers_grok.core.exceptions import InvalidParameterError, TooFewEscapesError
from kramers_grok.core.schema import exit_dataset

ALPHA = 1e-5  # of every p-value asserted in this file


def run(times, horizon):
    times = np.asarray(times, dtype=float)
    settings = {"seed": 0, "dtype": "float64", "device": "cpu", "configuration": {}, "coords": {}}
    return exit_dataset(np.minimum(times, horizon), times < horizon, horizon=horizon, **settings)


def covered(rng, n, horizon, burn_in, repeats, lag=0.0, confidence=0.9):
    """How many of `repeats` intervals hold the true mean 1 + lag."""
    hits = 0
    for _ in range(repeats):
        times = rng.exponential(size=n) + (rng.exponential(lag, size=n) if lag else 0.0)
        estimate = mean_exit_time(run(times, horizon), confidence, burn_in=burn_in, min_escapes=2)
        hits += estimate.lower <= 1.0 + lag <= estimate.upper
    return hits


def test_survival_curve_is_the_empirical_one_below_a_common_horizon():
    rng = np.random.default_rng(1)
    times = rng.exponential(size=500)
    curve = survival_curve(run(times, 1.0))
    for t in (0.0, 0.3, 0.9):
        assert float(curve.survival.sel(time=t, method="ffill")) == pytest.approx((times > t).mean())
    assert float(curve.survival[-1]) == pytest.approx((times >= 1.0).mean())
    assert float(curve.time[0]) == 0.0
    assert float(curve.time[-1]) == 1.0
    assert np.isfinite(curve.lower).all()
    assert np.isfinite(curve.upper).all()
    assert (curve.lower <= curve.survival + 1e-12).all()
    assert (curve.upper >= curve.survival - 1e-12).all()
    row = curve.sel(time=0.5, method="ffill")
    exact = scipy.stats.binomtest(int((times > 0.5).sum()), 500).proportion_ci(0.95, method="exact")
    assert (float(row.lower), float(row.upper)) == pytest.approx((exact.low, exact.high))
    # The true curve is inside a pointwise 99.9 % band at nearly every time.
    wide = survival_curve(run(times, 1.0), 0.999)
    truth = np.exp(-wide.time)
    assert float(((wide.lower <= truth) & (truth <= wide.upper)).mean()) > 0.95


@pytest.mark.parametrize(("times", "horizon"), [([1.0, 2.0, 3.0], 5.0), ([9.0, 9.0], 5.0)])
def test_survival_band_is_closed_where_all_or_none_have_left(times, horizon):
    curve = survival_curve(run(times, horizon))
    assert np.isfinite(curve.lower).all()
    assert np.isfinite(curve.upper).all()
    end = float(curve.survival[-1])
    assert end == (0.0 if max(times) < horizon else 1.0)
    # Exact binomial bound for zero of n.
    bound = 1 - 0.025 ** (1 / len(times))
    assert float(curve.upper[-1] if end == 0 else 1 - curve.lower[-1]) == pytest.approx(bound)


def test_mean_is_total_time_over_escapes_with_the_chi_square_interval():
    estimate = mean_exit_time(run([1.0, 3.0, 9.0, 9.0], 4.0), min_escapes=2)
    assert estimate.value == 6.0
    assert estimate.standard_error == pytest.approx(6.0 / math.sqrt(2))
    assert estimate.lower == pytest.approx(24 / scipy.stats.chi2.ppf(0.975, 6))
    assert estimate.upper == pytest.approx(24 / scipy.stats.chi2.ppf(0.025, 4))
    assert (estimate.n_escaped, estimate.n) == (2, 4)
    assert "exponential" in estimate.method


def test_without_censoring_it_is_the_sample_mean_whatever_the_burn_in():
    times = np.random.default_rng(2).gamma(2.0, size=50)
    for burn_in in (0.0, 1.0):
        estimate = mean_exit_time(run(times, 1e3), burn_in=burn_in)
        assert estimate.value == pytest.approx(times.mean(), rel=1e-12)
        assert estimate.standard_error == pytest.approx(times.std(ddof=1) / math.sqrt(50), rel=1e-12)


def test_influence_function_agrees_with_the_exponential_standard_error():
    times = np.random.default_rng(3).exponential(size=20_000)
    plain = mean_exit_time(run(times, 1.0))
    general = mean_exit_time(run(times, 1.0), burn_in=1e-6)
    assert general.value == pytest.approx(plain.value, rel=1e-4)
    assert general.standard_error == pytest.approx(plain.standard_error, rel=0.03)


# 90 % intervals: 200 repeats see a coverage below .75 with probability > 0.9 at this alpha.
@pytest.mark.parametrize(
    ("n", "horizon", "burn_in", "lag"), [(100, 50.0, 0.0, 0.0), (100, 0.5, 0.0, 0.0), (500, 0.6, 0.3, 0.05)]
)
def test_intervals_cover(n, horizon, burn_in, lag):
    hits = covered(np.random.default_rng(4), n, horizon, burn_in, 200, lag)
    # Nearly exact ones may cover more than they promise, never less.
    assert scipy.stats.binomtest(hits, 200, 0.9, alternative="less").pvalue > ALPHA


def test_negative_control_ignoring_the_lag_does_not_cover():
    hits = covered(np.random.default_rng(5), 2000, 0.5, 0.0, 100, lag=0.1)
    assert scipy.stats.binomtest(hits, 100, 0.9, alternative="less").pvalue < ALPHA


def test_negative_control_ignoring_censoring_is_wrong():
    times = np.random.default_rng(6).exponential(size=4096)
    ds = run(times, 1.0)
    right = mean_exit_time(ds)
    assert right.lower < 1.0 < right.upper
    for naive in (float(ds.exit_time.mean()), float(ds.exit_time.where(ds.escaped).mean())):
        assert abs(naive - 1.0) > 10 * right.standard_error


def test_too_few_escapes_carry_the_partial_result_and_what_would_do():
    times = np.full(4096, 1e9)
    times[:3] = [10.0, 200.0, 3000.0]
    with pytest.raises(TooFewEscapesError, match=r"3 of 4096 replicas escaped before max_time=20000") as caught:
        mean_exit_time(run(times, 20_000.0))
    assert "±58 %" in str(caught.value)
    assert "Raise max_time to about 6.7e+05 (for 100 escapes)" in str(caught.value)
    partial = caught.value.result
    assert partial.n_escaped == 3
    assert partial.lower < partial.value < partial.upper


def test_none_escaped_gives_a_one_sided_bound():
    with pytest.raises(TooFewEscapesError, match=r"0 of 100 .* unknown from below.*\n.*at least") as caught:
        mean_exit_time(run(np.full(100, 9.0), 5.0))
    partial = caught.value.result
    # exp(−500/τ) = 0.05
    assert partial.lower == pytest.approx(500 / math.log(20))
    assert math.isinf(partial.upper)
    with pytest.raises(TooFewEscapesError) as caught:
        escape_rate(run(np.full(100, 9.0), 5.0))
    rate = caught.value.result
    assert (rate.value, rate.lower) == (0.0, 0.0)
    assert rate.upper == pytest.approx(math.log(20) / 500)


def test_too_few_replicas_say_so():
    with pytest.raises(TooFewEscapesError, match=r"3 replicas, all escaped.*\n.*n_replicas >= 10"):
        mean_exit_time(run([1.0, 2.0, 3.0], 5.0))
    with pytest.raises(TooFewEscapesError, match="Raise n_replicas to about 100"):
        mean_exit_time(run([1.0, 2.0, 9.0], 5.0))


def test_rate_is_the_inverse():
    ds = run(np.random.default_rng(7).exponential(2.0, size=200), 3.0)
    mean, rate = mean_exit_time(ds), escape_rate(ds)
    assert rate.value == pytest.approx(1 / mean.value)
    assert (rate.lower, rate.upper) == pytest.approx((1 / mean.upper, 1 / mean.lower))
    assert rate.standard_error / rate.value == pytest.approx(mean.standard_error / mean.value)


def test_bad_arguments():
    ds = run([1.0, 2.0, 9.0], 5.0)
    with pytest.raises(InvalidParameterError, match=r"`burn_in` = 5, expected less than horizon = 5"):
        mean_exit_time(ds, burn_in=5.0)
    with pytest.raises(InvalidParameterError, match=r"`confidence` = 95, expected a number strictly between"):
        mean_exit_time(ds, 95)
    with pytest.raises(InvalidParameterError, match=r"has no `escaped`"):
        survival_curve(ds.drop_vars("escaped"))
