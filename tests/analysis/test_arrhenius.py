"""Laws of the exit time against temperature."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from kramers_grok.analysis import arrhenius_fit, compare_laws, power_law_fit, slope_difference
from kramers_grok.core.exceptions import InvalidParameterError

ALPHA = 1e-5
T = 0.004 / np.linspace(4.0, 9.0, 7)


def test_fit_is_weighted_least_squares():
    rng = np.random.default_rng(1)
    tau = 12.0 * np.exp(0.004 / T)
    error = tau * rng.uniform(0.01, 0.05, T.size)
    noisy = tau * np.exp(rng.normal(size=T.size) * error / tau)
    fit = arrhenius_fit(T, noisy, error * noisy / tau)
    best, covariance = scipy.optimize.curve_fit(
        lambda x, a, b: a + b * x, 1 / T, np.log(noisy), sigma=error / tau, absolute_sigma=True
    )
    assert (fit.log_prefactor, fit.barrier) == pytest.approx(tuple(best), rel=1e-6)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-5)
    plain = scipy.stats.linregress(1 / T, np.log(noisy)).rvalue ** 2
    assert fit.r_squared == pytest.approx(plain, rel=1e-12)
    assert fit.reduced_chi_square == pytest.approx(fit.chi_square / 5)
    residual = (np.log(noisy) - best[0] - best[1] / T) / (error / tau)
    normal = scipy.stats.norm.logpdf(residual) - np.log(error / tau)
    assert fit.log_likelihood == pytest.approx(normal.sum(), rel=1e-6)


def test_slope_pulls_are_standard_normal():
    rng = np.random.default_rng(2)
    tau = 12.0 * np.exp(0.004 / T)
    pulls, p_values = [], []
    for _ in range(1000):
        fit = arrhenius_fit(T, tau * np.exp(0.03 * rng.normal(size=T.size)), 0.03 * tau)
        pulls.append((fit.barrier - 0.004) / fit.barrier_standard_error)
        p_values.append(fit.p_value)
    # Errors of the mean in the weights (τ, not the noisy τ) shift nothing here: 3 % only.
    assert scipy.stats.kstest(pulls, "norm").pvalue > ALPHA
    assert scipy.stats.kstest(p_values, "uniform").pvalue > ALPHA


def test_arrhenius_beats_the_power_law_and_the_other_way_round():
    tau = 12.0 * np.exp(0.004 / T)
    laws = compare_laws(T, tau, 0.03 * tau)
    assert laws.log_likelihood_difference > 3
    # Why R² alone decides nothing: the wrong law has a high one too.
    assert laws.power_law.r_squared > 0.98
    power = 1e-9 * T**-5.0
    rival = compare_laws(T, power, 0.03 * power)
    assert rival.log_likelihood_difference < -3
    assert rival.power_law.exponent == pytest.approx(5.0)
    np.testing.assert_allclose(rival.power_law.predict(T), power, rtol=1e-9)
    assert rival.arrhenius.r_squared > 0.98


def test_prefactor_power_recovers_the_barrier():
    tau = 12.0 * T**1.5 * np.exp(0.004 / T)
    assert arrhenius_fit(T, tau, 0.01 * tau, prefactor_power=1.5).barrier == pytest.approx(0.004, rel=1e-9)
    # Zero modes make the apparent barrier smaller.
    naive = arrhenius_fit(T, tau, 0.01 * tau).barrier
    assert 0.5 * 0.004 < naive < 0.9 * 0.004
    fit = arrhenius_fit(T, tau, 0.01 * tau, prefactor_power=1.5)
    np.testing.assert_allclose(fit.predict(T), tau, rtol=1e-9)


def test_slope_is_compared_with_the_predicted_curve_not_the_barrier():
    rng = np.random.default_rng(3)
    # An exact curve whose prefactor falls with 1/T, as Kramers' corrections do.
    exact = 12.0 * np.exp(0.004 / T) * (1 + 2 * T / 0.004)
    measured = exact * np.exp(0.01 * rng.normal(size=T.size))
    fit = arrhenius_fit(T, measured, 0.01 * measured)
    assert slope_difference(fit, fit.refit(exact)).p_value > ALPHA
    assert abs(fit.barrier - 0.004) / fit.barrier_standard_error > 10
    # Negative control: temperatures wrong by 20 % stretch the slope by as much.
    assert slope_difference(fit, fit.refit(12.0 * np.exp(0.004 / (1.2 * T)))).p_value < ALPHA


def test_slope_difference_refuses_other_weights():
    tau = 12.0 * np.exp(0.004 / T)
    fit = arrhenius_fit(T, tau, 0.01 * tau)
    for other in (arrhenius_fit(T, tau, 0.02 * tau), arrhenius_fit(T[:5], tau[:5], 0.01 * tau[:5])):
        with pytest.raises(InvalidParameterError, match=r"fit\.refit\(predicted_mean\)"):
            slope_difference(fit, other)


@pytest.mark.parametrize(
    ("T_", "mean", "error", "message"),
    [
        ([0.1, 0.2], [1.0, np.inf], [0.1, 0.1], "nothing escaped has no mean"),
        ([0.1, 0.2], [1.0, 2.0], [0.1, np.nan], "`standard_error`"),
        ([0.1, 0.2], [1.0, 2.0], [0.1, 0.0], r"`standard_error` has 1 value\(s\) <= 0"),
        ([0.1, 0.0], [1.0, 2.0], [0.1, 0.1], r"`temperatures` has 1 value\(s\) <= 0"),
        ([0.1, 0.1], [1.0, 2.0], [0.1, 0.1], "expected at least 2"),
        ([0.1, 0.2, 0.3], [1.0, 2.0], [0.1, 0.1], "expected equal ones"),
        ([], [], [], "at least one element"),
    ],
)
def test_bad_points_are_refused_by_message(T_, mean, error, message):
    for fit in (arrhenius_fit, power_law_fit):
        with pytest.raises(InvalidParameterError, match=message):
            fit(T_, mean, error)


def test_two_points_have_no_goodness_of_fit():
    fit = arrhenius_fit([0.1, 0.2], [5.0, 2.0], [0.1, 0.1])
    assert np.isnan(fit.p_value)
    assert np.isnan(fit.reduced_chi_square)
    assert fit.chi_square == pytest.approx(0.0, abs=1e-20)
