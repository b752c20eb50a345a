r"""Partition function of the trap, :math:`Z = \int_{m<m_s} e^{-E/T}\,da`, without expanding anything.

z is Gaussian given the product p of the radii, and integrates to an error function. The radii have gamma-distributed
squares, so ln p is a sum of independent variables: its density is a convolution, in which the trapezoidal rule
converges exponentially.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

from kramers_grok.theory.radial_potential import RadialPotential

__all__ = ["log_gaussian_well", "log_well_integral"]

Array = NDArray[np.float64]

# Spacing in ln ρ: halving it changes nothing above rounding
SPACING = 0.04
# What a tail may weigh, as a logarithm
TAIL = 42.0


def log_gaussian_well(potential: RadialPotential) -> float:
    r"""Logarithm of the leading order, in which every weight is Gaussian with variance T/λ.

    .. math:: Z = \prod_l\tfrac12(2T/\lambda)^{\nu_l/2}\,\Gamma(\nu_l/2)\;\sqrt{2\pi T/\lambda}\;e^{-q\sigma^2/2T},
        \qquad \nu_l = n_l + 1.
    """
    p, T = potential, potential.temperature
    half = 0.5 * (p.exponents[p.radii] + 1)
    radii = sum(math.log(0.5) + n * math.log(2 * T / p.weight_decay) + math.lgamma(n) for n in half)
    return float(radii + 0.5 * math.log(2 * math.pi * T / p.weight_decay) + _at_rest(p))


def log_well_integral(potential: RadialPotential, saddle: float) -> float:
    r"""Logarithm of the integral over m < m_s.

    .. math:: Z = e^{-q\sigma^2/2T}\int\!dp\,P(p)\,e^{-S(p)}\sqrt{\tfrac{2\pi T}{\lambda+qp^2}}\,
        e^{q^2\sigma^2p^2/2T(\lambda+qp^2)}\;\Phi\!\Big(\tfrac{m_s/p-\bar z}{\sqrt{T/(\lambda+qp^2)}}\Big),
        \qquad \bar z = \frac{q\sigma p}{\lambda+qp^2}.

    S is included where it depends on p alone (an exact measure); elsewhere it is of higher order in the trap.
    """
    T, q, sigma, decay = (
        potential.temperature,
        potential.input_variance,
        potential.singular_value,
        potential.weight_decay,
    )
    # The tail must reach what the data term pulls up on the way to the saddle.
    reach = TAIL + q * sigma * saddle / T
    log_p, density = _product_density(potential, min(reach, 700.0))
    p = np.exp(log_p)
    stiffness = decay + q * p**2
    mean = q * sigma * p / stiffness
    log_z = 0.5 * np.log(2 * math.pi * T / stiffness) + 0.5 * stiffness * mean**2 / T
    log_z += log_ndtr((saddle / p - mean) * np.sqrt(stiffness / T))
    with np.errstate(divide="ignore"):
        total = np.log(density) + log_z - potential.entropy_of_product(p)
    return float(logsumexp(total)) + _at_rest(potential)


def _product_density(potential: RadialPotential, reach: float) -> tuple[Array, Array]:
    """Grid of ln p and the weight of each of its points, spacing included."""
    high = 0.5 * math.log(reach)
    density, first = np.ones(1), 0.0
    for n in potential.exponents[potential.radii]:
        y = np.arange(-TAIL / (n + 1), high, SPACING)
        # Convolved directly: positive terms keep the relative accuracy of the tails.
        density = np.convolve(density, SPACING * np.exp((n + 1) * y - np.exp(2 * y)))
        first += float(y[0])
    scale = 0.5 * math.log(2 * potential.temperature / potential.weight_decay)
    log_p = first + SPACING * np.arange(density.size) + (potential.depth - 1) * scale
    return np.asarray(log_p), density * math.exp(float(potential.exponents.sum() + potential.depth - 1) * scale)


def _at_rest(potential: RadialPotential) -> float:
    return -0.5 * potential.input_variance * potential.singular_value**2 / potential.temperature
