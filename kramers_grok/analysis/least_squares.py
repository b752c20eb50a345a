"""Weighted linear least squares with known errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

__all__ = ["LinearFit", "linear_fit"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Coefficients of a linear model y = X c, with their errors.

    Attributes
    ----------
    coefficients : array, shape (parameter,)
    covariance : array, shape (parameter, parameter)
        From the given errors, not from the scatter about the fit.
    chi_square : float
    degrees_of_freedom : int
        Points minus parameters.
    log_likelihood : float
        Gaussian.
    """

    coefficients: Array
    covariance: Array
    chi_square: float
    degrees_of_freedom: int
    log_likelihood: float

    @property
    def standard_errors(self) -> Array:
        """Standard error of each coefficient."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def reduced_chi_square(self) -> float:
        """χ² over degrees of freedom; NaN where the fit passes through all points."""
        return self.chi_square / self.degrees_of_freedom if self.degrees_of_freedom else math.nan

    @property
    def p_value(self) -> float:
        """Probability of so bad a fit if the model were true; NaN where the fit passes through all points."""
        if not self.degrees_of_freedom:
            return math.nan
        return float(scipy.stats.chi2.sf(self.chi_square, self.degrees_of_freedom))


def linear_fit(design: Array, y: Array, sigma: Array) -> LinearFit:
    """Fit y = X c by weighted least squares.

    Parameters
    ----------
    design : array, shape (point, parameter)
        X, of full column rank.
    y, sigma : array, shape (point,)
        Values and their standard errors.
    """
    # Columns of unit length: ln T, 1/T and 1 differ by orders of magnitude
    scale = np.linalg.norm(design / sigma[:, None], axis=0)
    q, r = np.linalg.qr(design / (sigma[:, None] * scale))
    coefficients = np.linalg.solve(r, q.T @ (y / sigma)) / scale
    inverse = np.linalg.inv(r) / scale[:, None]
    residual = (y - design @ coefficients) / sigma
    chi_square = float(residual @ residual)
    log_likelihood = -0.5 * chi_square - float(np.log(sigma).sum()) - 0.5 * y.size * math.log(2.0 * math.pi)
    free = y.size - design.shape[1]
    return LinearFit(coefficients, inverse @ inverse.T, chi_square, free, log_likelihood)
