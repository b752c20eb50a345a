"""Simulated over predicted rates, extrapolated to where the prediction becomes exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.least_squares import LinearFit, linear_fit
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["RatioFit", "extrapolated_ratio"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RatioFit:
    """Polynomial through measured ratios, and its value at 0.

    Attributes
    ----------
    x, ratio, errors : array, shape (point,)
        What was fitted.
    fit : LinearFit
        Coefficients by rising power, covariance, χ².
    """

    x: Array
    ratio: Array
    errors: Array
    fit: LinearFit

    @property
    def intercept(self) -> float:
        """Ratio at x = 0: 1 for a correct prediction."""
        return float(self.fit.coefficients[0])

    @property
    def standard_error(self) -> float:
        """Standard error of the intercept."""
        return float(self.fit.standard_errors[0])

    @property
    def z(self) -> float:
        """Deviation of the intercept from 1 in standard errors."""
        return (self.intercept - 1.0) / self.standard_error

    @property
    def chi_square(self) -> float:
        """χ² of the polynomial, with ``degrees_of_freedom``."""
        return self.fit.chi_square

    @property
    def degrees_of_freedom(self) -> int:
        """Points minus coefficients."""
        return self.fit.degrees_of_freedom

    @property
    def p_value(self) -> float:
        """Probability of so bad a fit if the polynomial were right."""
        return self.fit.p_value

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the intercept."""
        confidence = checks.fraction("confidence", confidence)
        half = float(scipy.stats.norm.ppf(0.5 + confidence / 2)) * self.standard_error
        return self.intercept - half, self.intercept + half

    def within(self, tolerance: float, standard_errors: float) -> bool:
        """Whether the intercept is 1 within the larger of `tolerance` and so many of its standard errors."""
        return abs(self.intercept - 1.0) <= max(tolerance, standard_errors * self.standard_error)

    def predict(self, x: ArrayLike) -> Array:
        """Fitted ratio at other x, any shape."""
        at = checks.finite_array("x", x)
        return np.asarray(np.polynomial.polynomial.polyval(at, self.fit.coefficients))

    def band(self, x: ArrayLike) -> Array:
        """Standard error of the fitted ratio at other x, same shape."""
        at = checks.finite_array("x", x)
        powers = at[..., None] ** np.arange(self.fit.coefficients.size)
        return np.asarray(np.sqrt(np.einsum("...i,ij,...j->...", powers, self.fit.covariance, powers)))


def extrapolated_ratio(x: ArrayLike, ratio: ArrayLike, standard_error: ArrayLike, *, degree: int = 2) -> RatioFit:
    r"""Fit :math:`r(x) = r_0 + r_1x + r_2x^2` to measured ratios by weighted least squares; :math:`r_0` is the answer.

    An asymptotic rate is wrong by a power series in :math:`x = T/\Delta F`, so a simulation at any barrier disagrees
    with it. The extrapolation tells that from a wrong prefactor, which shifts the intercept.

    Parameters
    ----------
    x : array, shape (point,)
        T/ΔF > 0; other small parameters do as well.
    ratio, standard_error : array, shape (point,)
        Simulated over predicted, and its standard error.
    degree : int
        Of the polynomial: with 1 the curvature of the series goes into the intercept.

    Returns
    -------
    RatioFit

    Raises
    ------
    InvalidParameterError
        Fewer different x than coefficients, shapes that differ, values that are not finite, errors that are not
        positive.

    Examples
    --------
    >>> x = 1 / np.array([10.0, 15.0, 20.0, 30.0, 40.0])
    >>> fit = extrapolated_ratio(x, 1 + 1.2 * x + 2 * x**2, np.full(5, 0.01))
    >>> f"{fit.intercept:.6f} ± {fit.standard_error:.3f}"
    '1.000000 ± 0.026'
    """
    names = ("x", "ratio", "standard_error")
    points = [checks.finite_array(n, v, ndim=1) for n, v in zip(names, (x, ratio, standard_error), strict=True)]
    degree = checks.positive_int("degree", degree)
    if len({p.shape for p in points}) > 1:
        raise InvalidParameterError(
            f"`x`, `ratio`, `standard_error` have shapes {', '.join(str(p.shape) for p in points)}, expected equal "
            "ones: one entry for each point.\nPass arrays of one length."
        )
    at, values, error = points
    if not (error > 0).all():
        raise InvalidParameterError(
            f"`standard_error` has {int((error <= 0).sum())} value(s) <= 0, expected > 0: the weights are 1/s².\n"
            "Leave these points out."
        )
    if np.unique(at).size <= degree:
        raise InvalidParameterError(
            f"`x` holds {np.unique(at).size} different value(s), expected at least {degree + 1}: a polynomial of "
            f"degree {degree} has as many coefficients.\nAdd points, or pass a lower `degree`."
        )
    return RatioFit(at, values, error, linear_fit(at[:, None] ** np.arange(degree + 1), values, error))
