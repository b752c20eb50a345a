r"""Where a feature disappears on a slow ramp, asymptotically: the law of switching fields.

References
----------
J. Kurkijärvi, Phys. Rev. B 6, 832 (1972); A. Garg, Phys. Rev. B 51, 15592 (1995).
"""

from __future__ import annotations

import numpy as np

from kramers_grok.core import checks
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["spinodal_switching"]

System = Mode | DeepLinearChain


def spinodal_switching(system: System, *, rate: float, temperature: float) -> tuple[float, float]:
    r"""Mean and standard deviation of the λ at which a feature disappears, asymptotically close to the spinodal.

    With :math:`\delta = \lambda_s - \lambda`, :math:`\Delta F = b\,\delta^{3/2}` and Kramers' prefactor
    :math:`A\,\delta^{1/2}` the hazard integrates in closed form, :math:`S = \exp(-X e^{-u})`,
    :math:`u = b\delta^{3/2}/T` is Gumbel's, and

    .. math:: \lambda = \lambda_s - \Big[\tfrac Tb\,(\ln X + G)\Big]^{2/3}, \qquad X = \frac{2AT}{3br},
              \quad G\ \text{standard Gumbel},

        b = \tfrac43\sqrt2\,x_s^{3/2}/\sqrt{F'''},\qquad A = \sqrt{2F'''x_s}/2\pi

    in the mode's arc length at the spinodal: the distance from the spinodal goes as :math:`(T\ln(1/r))^{2/3}`.

    Raises
    ------
    InvalidParameterError
        If ln X < 3: the ramp reaches the spinodal before the noise acts.

    Examples
    --------
    >>> mean, deviation = spinodal_switching(Mode(3, 1.0, 0.25), rate=1e-7, temperature=1e-4)
    >>> print(f"{mean:.4f} {deviation:.5f}")
    0.4677 0.00074
    """
    heat, pace = checks.positive("temperature", temperature), checks.positive("rate", rate)
    barrier, prefactor = _spinodal_coefficients(system)
    log_x = np.log(2 * prefactor * heat / (3 * barrier * pace))
    if log_x < 3:
        raise checks.invalid(
            "rate",
            pace,
            f"at most {2 * prefactor * heat / (3 * barrier) * np.exp(-3):.3g} at this temperature",
            "a faster ramp reaches the spinodal before the noise acts",
            "Use `driven_ramp`.",
        )
    # Quantiles of the Gumbel law; below ln X + G = 0 the escape is at the spinodal.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    gumbel = -np.log(-np.log((nodes + 1) / 2))
    distance = (heat / barrier * np.maximum(log_x + gumbel, 0.0)) ** (2 / 3)
    mean = float(weights @ distance / 2)
    return system.spinodal() - mean, float(np.sqrt(weights @ (distance - mean) ** 2 / 2))


def _spinodal_coefficients(system: System) -> tuple[float, float]:
    """Coefficients b and A of the barrier and the prefactor close to the spinodal."""
    depth, sigma, q = system.depth, system.singular_value, system.input_variance
    m = sigma * (depth - 2) / (2 * (depth - 1))
    a, root = m ** (1 / depth), np.sqrt(depth)
    x = root * a
    slopes = [depth / root * a ** (depth - 1), (depth - 1) * a ** (depth - 2)]
    slopes.append((depth - 1) * (depth - 2) / root * a ** (depth - 3))
    third = q * (3 * slopes[0] * slopes[1] - (sigma - m) * slopes[2])
    return float(4 / 3 * np.sqrt(2) * x**1.5 / np.sqrt(third)), float(np.sqrt(2 * third * x) / (2 * np.pi))
