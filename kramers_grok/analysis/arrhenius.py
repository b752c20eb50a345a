"""Laws of the exit time against temperature: Arrhenius, and the power law as its rival."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.least_squares import LinearFit, linear_fit
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = [
    "ArrheniusFit",
    "LawComparison",
    "PowerLawFit",
    "SlopeDifference",
    "arrhenius_fit",
    "clean_points",
    "compare_laws",
    "power_law_fit",
    "slope_difference",
]


@dataclass(frozen=True, eq=False)
class _LineFit:
    """Weighted straight line ln τ − offset = intercept + slope · x."""

    temperatures: NDArray[np.float64]
    mean: NDArray[np.float64]
    log_standard_error: NDArray[np.float64]
    fit: LinearFit
    r_squared: float
    prefactor_power: float = 0.0

    @property
    def intercept(self) -> float:
        """Value at x = 0."""
        return float(self.fit.coefficients[0])

    @property
    def slope(self) -> float:
        """Change for each unit of x."""
        return float(self.fit.coefficients[1])

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Of intercept and slope, shape (2, 2)."""
        return self.fit.covariance

    @property
    def chi_square(self) -> float:
        """χ² of the line."""
        return self.fit.chi_square

    @property
    def log_likelihood(self) -> float:
        """Gaussian, of the logarithms."""
        return self.fit.log_likelihood

    @property
    def degrees_of_freedom(self) -> int:
        """Points minus the two fitted numbers."""
        return self.fit.degrees_of_freedom

    @property
    def reduced_chi_square(self) -> float:
        """χ² over degrees of freedom; NaN for two points."""
        return self.fit.reduced_chi_square

    @property
    def p_value(self) -> float:
        """Probability of so bad a fit if the law were true; NaN for two points."""
        return self.fit.p_value

    @property
    def slope_standard_error(self) -> float:
        """Standard error of the slope."""
        return float(self.fit.standard_errors[1])


@dataclass(frozen=True, eq=False)
class ArrheniusFit(_LineFit):
    """Fit of ln τ = ln τ0 + ΔF/T + p ln T with fixed p = `prefactor_power`.

    Attributes
    ----------
    barrier, barrier_standard_error : float    [loss]
        The slope. Apparent: it holds what the prefactor adds, so compare it with `refit` of the
        predicted curve rather than with ΔF.
    log_prefactor : float
        ln τ0.
    r_squared : float
        Of the plain (unweighted) line through ln τ − p ln T against 1/T, as experiments quote it.
    reduced_chi_square, p_value : float
        How well the line holds given the errors.
    covariance : array, shape (2, 2)
        Of (ln τ0, ΔF).
    log_likelihood : float
        Gaussian, of the logarithms.
    """

    @property
    def barrier(self) -> float:
        """Slope ΔF [loss]."""
        return self.slope

    @property
    def barrier_standard_error(self) -> float:
        """Standard error of the slope [loss]."""
        return self.slope_standard_error

    @property
    def log_prefactor(self) -> float:
        """Intercept ln τ0."""
        return self.intercept

    def predict(self, temperatures: ArrayLike) -> NDArray[np.float64]:
        """Mean exit time of the fitted law at other temperatures [time]."""
        T = checks.finite_array("temperatures", temperatures)
        return np.asarray(np.exp(self.intercept + self.slope / T + self.prefactor_power * np.log(T)))

    def refit(self, mean: ArrayLike) -> ArrheniusFit:
        """Fit another curve, e.g. the predicted one, at the same temperatures with the same weights."""
        values = checks.finite_array("mean", mean, ndim=1)
        return arrhenius_fit(
            self.temperatures, values, self.log_standard_error * values, prefactor_power=self.prefactor_power
        )


@dataclass(frozen=True, eq=False)
class PowerLawFit(_LineFit):
    """Fit of ln τ = a − b ln T; `exponent` is b."""

    @property
    def exponent(self) -> float:
        """Exponent b of τ ∝ T^(−b)."""
        return -self.slope

    def predict(self, temperatures: ArrayLike) -> NDArray[np.float64]:
        """Mean exit time of the fitted law at other temperatures [time]."""
        T = checks.finite_array("temperatures", temperatures)
        return np.asarray(np.exp(self.intercept + self.slope * np.log(T)))


@dataclass(frozen=True)
class LawComparison:
    """The two laws fitted to the same points with the same weights.

    Attributes
    ----------
    arrhenius, power_law : fits
    log_likelihood_difference : float
        Arrhenius minus power law, in nats; both have two parameters, so this is also half
        their difference in AIC. Above 3 speaks clearly for Arrhenius, below −3 for the power law.
    """

    arrhenius: ArrheniusFit
    power_law: PowerLawFit
    log_likelihood_difference: float


@dataclass(frozen=True)
class SlopeDifference:
    """Measured slope minus predicted slope [loss], its standard error, their ratio z and two-sided p."""

    difference: float
    standard_error: float
    z: float
    p_value: float


def clean_points(
    temperatures: ArrayLike, mean: ArrayLike, standard_error: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Check the points of a fit; two different temperatures at least."""
    censored = "a temperature where nothing escaped has no mean"
    T = checks.finite_array("temperatures", temperatures, ndim=1)
    tau = checks.finite_array("mean", mean, ndim=1, why=censored, fix="Leave it out: `fit(T[ok], mean[ok], se[ok])`.")
    error = checks.finite_array("standard_error", standard_error, ndim=1, why=censored, fix="Leave it out.")
    if not T.shape == tau.shape == error.shape:
        raise InvalidParameterError(
            f"`temperatures`, `mean`, `standard_error` have shapes {T.shape}, {tau.shape}, {error.shape}, "
            "expected "
            "equal ones: one entry for each point.\nPass arrays of one length."
        )
    for name, values in (("temperatures", T), ("mean", tau), ("standard_error", error)):
        if not (values > 0).all():
            raise InvalidParameterError(
                f"`{name}` has {int((values <= 0).sum())} value(s) <= 0: the fit is of ln τ against 1/T "
                "with weights "
                f"(τ/s)².\nLeave these points out: `{name}[{name} > 0]`."
            )
    if np.unique(T).size < 2:
        raise InvalidParameterError(
            f"`temperatures` holds {np.unique(T).size} different value(s), expected at least 2: a slope "
            "needs two "
            "temperatures.\nRun at another temperature, e.g. at twice the batch size."
        )
    return T, tau, error


def _weighted_line(
    x: NDArray[np.float64], y: NDArray[np.float64], sigma: NDArray[np.float64]
) -> tuple[LinearFit, float]:
    """Return the weighted line and its plain R²."""
    fit = linear_fit(np.stack([np.ones_like(x), x], axis=1), y, sigma)
    constant = np.ptp(y) == 0.0
    return fit, math.nan if constant else float(np.corrcoef(x, y)[0, 1]) ** 2


def arrhenius_fit(
    temperatures: ArrayLike, mean: ArrayLike, standard_error: ArrayLike, *, prefactor_power: float = 0.0
) -> ArrheniusFit:
    r"""Fit :math:`\ln\tau = \ln\tau_0 + \Delta F/T + p \ln T` by weighted least squares.

    Parameters
    ----------
    temperatures : array, shape (point,)    [loss]
    mean, standard_error : array, shape (point,)    [time]
        Mean exit times and their standard errors; the weights are (τ/s)².
    prefactor_power : float
        Fixed p: 0 for isolated saddles, n₀/2 where the saddle has n₀ more zero modes than the minimum, as in
        matrix networks (without it the slope would be too small by about n₀T/2).
        `kramers_grok.analysis.prefactors.prefactor_power` takes it from a barrier.

    Returns
    -------
    ArrheniusFit

    Raises
    ------
    InvalidParameterError
        Fewer than two temperatures, values that are not positive or not finite, shapes that differ.

    Examples
    --------
    >>> T = np.array([0.1, 0.2, 0.4])
    >>> fit = arrhenius_fit(T, 3.0 * np.exp(0.5 / T), np.full(3, 0.1))
    >>> round(fit.barrier, 10), round(np.exp(fit.log_prefactor), 10), round(fit.r_squared, 10)
    (0.5, np.float64(3.0), 1.0)
    """
    T, tau, error = clean_points(temperatures, mean, standard_error)
    power = checks.finite("prefactor_power", prefactor_power)
    line = _weighted_line(1.0 / T, np.log(tau) - power * np.log(T), error / tau)
    return ArrheniusFit(T, tau, error / tau, *line, prefactor_power=power)


def power_law_fit(temperatures: ArrayLike, mean: ArrayLike, standard_error: ArrayLike) -> PowerLawFit:
    """Fit ln τ = a − b ln T by weighted least squares; arguments and errors as in `arrhenius_fit`."""
    T, tau, error = clean_points(temperatures, mean, standard_error)
    return PowerLawFit(T, tau, error / tau, *_weighted_line(np.log(T), np.log(tau), error / tau))


def compare_laws(
    temperatures: ArrayLike, mean: ArrayLike, standard_error: ArrayLike, *, prefactor_power: float = 0.0
) -> LawComparison:
    """Fit Arrhenius and power law to the same points and compare their likelihoods.

    R² is high for either over two decades; the likelihood given the errors is what tells them apart.
    Arguments and errors as in `arrhenius_fit`.

    Parameters
    ----------
    temperatures, mean, standard_error, prefactor_power
        As in `arrhenius_fit`.

    Returns
    -------
    LawComparison
        Both fits and the difference of their log-likelihoods.

    Examples
    --------
    >>> T = np.array([0.1, 0.15, 0.2, 0.4])
    >>> tau = 3.0 * np.exp(0.5 / T)
    >>> compare_laws(T, tau, 0.02 * tau).log_likelihood_difference > 3
    True
    """
    exponential = arrhenius_fit(temperatures, mean, standard_error, prefactor_power=prefactor_power)
    power = power_law_fit(temperatures, mean, standard_error)
    return LawComparison(exponential, power, exponential.log_likelihood - power.log_likelihood)


def slope_difference(measured_fit: ArrheniusFit, predicted_fit: ArrheniusFit) -> SlopeDifference:
    """Compare a measured slope with that of the predicted curve, fitted in the same way.

    The apparent slope of an exact curve differs from ΔF by what the prefactor does over the
    range; with equal temperatures and weights that cancels. The prediction counts as free of error.

    Parameters
    ----------
    measured_fit : ArrheniusFit
    predicted_fit : ArrheniusFit
        `measured_fit.refit(predicted_mean)`.

    Raises
    ------
    InvalidParameterError
        If the two were fitted at other temperatures, weights or `prefactor_power`.

    Examples
    --------
    >>> T = np.array([0.1, 0.2, 0.4])
    >>> fit = arrhenius_fit(T, 3.1 * np.exp(0.5 / T), 0.1 * np.exp(0.5 / T))
    >>> abs(slope_difference(fit, fit.refit(3.0 * np.exp(0.5 / T))).z) < 1e-9
    True
    """
    same = measured_fit.temperatures.shape == predicted_fit.temperatures.shape and all(
        np.allclose(getattr(measured_fit, name), getattr(predicted_fit, name), rtol=1e-9)
        for name in ("temperatures", "log_standard_error", "prefactor_power")
    )
    if not same:
        raise InvalidParameterError(
            "the two fits have other temperatures, weights or prefactor_power: their slopes differ for "
            "that alone.\n"
            "Use `slope_difference(fit, fit.refit(predicted_mean))`."
        )
    difference = measured_fit.slope - predicted_fit.slope
    error = measured_fit.slope_standard_error
    z = difference / error
    return SlopeDifference(difference, error, z, float(2.0 * scipy.stats.norm.sf(abs(z))))
