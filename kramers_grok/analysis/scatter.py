r"""How exit times scatter about a law: families of ln t = μ + w/k with a shape k, and their censored likelihood.

The likelihood of one replica depends on its time through :math:`w = k\,(\ln t - \mu)` alone, up to ln k of those that
escaped, so a family is two functions of w. Densities are per unit of ln t: they differ from those per unit of time by
a factor that no parameter touches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

__all__ = ["LogNormalScatter", "Scatter", "WeibullScatter"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
LARGEST = 500.0  # of w: e^w stays finite; a replica so far beyond its time has a likelihood of 0 anyway


class Scatter(Protocol):
    """A family of scatter about a typical time e^μ."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def log_terms(self, w: Array, escaped: Flags) -> Array:
        """Logarithm of the density (escaped) or of the survival (censored) at w, without ln k."""
        ...

    def slope(self, w: Array, escaped: Flags) -> Array:
        """Its derivative by w."""
        ...

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        """Values of w."""
        ...

    def log_median(self, shape: Array) -> Array:
        """Logarithm of the median over e^μ."""
        ...


@dataclass(frozen=True)
class WeibullScatter:
    """Weibull: S = exp(−(t/τ)^k). k = 1 is exponential escape; μ = ln τ is the time by which 63 % have left.

    Examples
    --------
    >>> w, escaped = np.array([0.0, 0.0]), np.array([True, False])
    >>> WeibullScatter().log_terms(w, escaped).tolist()
    [-1.0, -1.0]
    """

    name: str = "Weibull"

    def log_terms(self, w: Array, escaped: Flags) -> Array:
        """Return w − e^w where escaped, −e^w where not."""
        w = np.minimum(w, LARGEST)
        return np.asarray(np.where(escaped, w, 0.0) - np.exp(w))

    def slope(self, w: Array, escaped: Flags) -> Array:
        """1 − e^w where escaped, −e^w where not."""
        return np.asarray(escaped - np.exp(np.minimum(w, LARGEST)))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        """Logarithms of exponential numbers."""
        return np.log(rng.exponential(size=size))

    def log_median(self, shape: Array) -> Array:
        """Return ln(ln 2)/k."""
        return np.asarray(math.log(math.log(2.0)) / shape)


@dataclass(frozen=True)
class LogNormalScatter:
    """Log-normal: ln t has mean μ, the median's logarithm, and standard deviation 1/k.

    Examples
    --------
    >>> LogNormalScatter().log_terms(np.array([0.0]), np.array([False])).round(6).tolist()
    [-0.693147]
    """

    name: str = "log-normal"

    def log_terms(self, w: Array, escaped: Flags) -> Array:
        """Normal density, and probability of more than w."""
        w = np.clip(w, -LARGEST, LARGEST)
        return np.asarray(np.where(escaped, -0.5 * w**2 - 0.5 * math.log(2 * math.pi), log_ndtr(-w)))

    def slope(self, w: Array, escaped: Flags) -> Array:
        """−w, and minus the normal hazard."""
        w = np.clip(w, -LARGEST, LARGEST)
        hazard = np.exp(-0.5 * w**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(-w))
        return np.asarray(-np.where(escaped, w, hazard))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        """Return standard normal numbers."""
        return rng.normal(size=size)

    def log_median(self, shape: Array) -> Array:
        """Return 0: μ is that of the median."""
        return np.zeros_like(shape)
