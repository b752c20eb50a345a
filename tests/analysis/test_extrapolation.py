"""Ratios extrapolated to T/ΔF = 0: coverage, power, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from kramers_grok.analysis import extrapolated_ratio
from kramers_grok.core.exceptions import InvalidParameterError

ALPHA = 1e-5
X = 1 / np.array([10.0, 13.0, 18.0, 26.0, 40.0])
ERROR = np.array([0.008, 0.007, 0.010, 0.012, 0.010])
SERIES = 1 + 1.3 * X + 3 * X**2


def fits(true, n, seed, **options):
    noise = ERROR * np.random.default_rng(seed).normal(size=(n, X.size))
    return [extrapolated_ratio(X, true + row, ERROR, **options) for row in noise]


def test_fit_is_weighted_least_squares():
    ratio = SERIES + ERROR * np.random.default_rng(1).normal(size=X.size)
    fit = extrapolated_ratio(X, ratio, ERROR)
    falling, covariance = np.polyfit(X, ratio, 2, w=1 / ERROR, cov="unscaled")
    covariance = covariance[::-1, ::-1]
    np.testing.assert_allclose(fit.fit.coefficients, falling[::-1], rtol=1e-9)
    np.testing.assert_allclose(fit.fit.covariance, covariance, rtol=1e-9)
    assert fit.chi_square == pytest.approx((((ratio - fit.predict(X)) / ERROR) ** 2).sum(), rel=1e-12)
    assert fit.degrees_of_freedom == 2
    assert fit.p_value == pytest.approx(scipy.stats.chi2.sf(fit.chi_square, 2))
    assert float(fit.band(0.0)) == pytest.approx(fit.standard_error)
    np.testing.assert_allclose(fit.band(X)[2] ** 2, np.array([1, X[2], X[2] ** 2]) @ covariance @ [1, X[2], X[2] ** 2])
    low, high = fit.interval(0.6827)
    assert (high - low) / 2 == pytest.approx(fit.standard_error, rel=1e-3)


def test_intercept_covers_and_its_errors_are_normal():
    many = fits(SERIES, 2000, seed=2)
    assert scipy.stats.kstest([fit.z for fit in many], "norm").pvalue > ALPHA
    assert scipy.stats.kstest([fit.p_value for fit in many], "uniform").pvalue > ALPHA
    covered = sum(low <= 1 <= high for low, high in (fit.interval() for fit in many))
    assert scipy.stats.binomtest(covered, 2000, 0.95).pvalue > ALPHA
    assert all(fit.within(0.03, 4.5) for fit in many)


def test_a_prefactor_wrong_by_5_percent_is_seen():
    """Negative control; 1.05 is 2 standard errors of one fit, and 9 of a fit with errors a quarter as large."""
    wrong = fits(1.05 * SERIES, 500, seed=3)
    assert scipy.stats.kstest([fit.z for fit in wrong], "norm").pvalue < ALPHA
    quarter = [extrapolated_ratio(X, 1.05 * SERIES + (fit.ratio - 1.05 * SERIES) / 4, ERROR / 4) for fit in wrong]
    assert all(fit.z > 4.5 and not fit.within(0.03, 3.0) for fit in quarter)


def test_a_straight_line_would_be_biased():
    """Why the fit is quadratic: the series has a curvature, and a line's intercept takes it over."""
    true = 1 + 1.3 * X + 12 * X**2
    line = fits(true, 500, seed=4, degree=1)
    assert scipy.stats.kstest([fit.z for fit in line], "norm").pvalue < ALPHA
    assert scipy.stats.kstest([fit.z for fit in fits(true, 500, seed=4)], "norm").pvalue > ALPHA


@pytest.mark.parametrize(
    ("x", "ratio", "error", "message"),
    [
        ([0.1, 0.2], [1.0, 1.0], [0.1, 0.1], "expected at least 3"),
        ([0.1, 0.1, 0.2], [1.0, 1.0, 1.0], [0.1, 0.1, 0.1], "2 different value"),
        ([0.1, 0.2, 0.3], [1.0, 1.0], [0.1, 0.1], "expected equal"),
        ([0.1, 0.2, 0.3], [1.0, 1.0, np.nan], [0.1, 0.1, 0.1], "`ratio`"),
        ([0.1, 0.2, 0.3], [1.0, 1.0, 1.0], [0.1, 0.1, 0.0], r"1 value\(s\) <= 0"),
    ],
)
def test_bad_points_are_refused_by_message(x, ratio, error, message):
    with pytest.raises(InvalidParameterError, match=message):
        extrapolated_ratio(x, ratio, error)


def test_exactly_as_many_points_as_coefficients():
    fit = extrapolated_ratio(X[:3], SERIES[:3], ERROR[:3])
    assert fit.intercept == pytest.approx(1.0)
    assert np.isnan(fit.p_value)
    assert np.isnan(fit.fit.reduced_chi_square)
