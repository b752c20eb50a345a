r"""Minibatch noise on a feature that escapes through the radial free energy.

In wide layers the entropy of the orbit pushes outwards together with the data, so the path from trap to saddle climbs a
*radial* barrier of a few T where the loss alone climbs ten times more. What minibatches add to the exponent is taken
along that path, against the slope that is climbed there.
"""

from __future__ import annotations

import math

import numpy as np

from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.radial import RadialFreeEnergy

__all__ = ["radial_minibatch_log_factor"]

# Points along the path, equally spaced in ln m: the integrand is smooth.
_POINTS = 4001


def radial_minibatch_log_factor(radial: RadialFreeEnergy, noise: MinibatchNoise) -> float:
    r"""Logarithm of the factor by which minibatch noise on top of a temperature quickens a radial escape.

    .. math:: \ln\frac{k_{\rm with}}{k_{\rm without}}
              = \int_{\rm trap}^{\rm saddle}\Big[\frac1T-\frac1{T+\mathcal D}\Big]dE
              - \frac12\ln\frac{T+\mathcal D_s}{T+\mathcal D_{\rm trap}},
              \qquad \mathcal D = \tfrac\varepsilon2\,c(m)\Big(\frac{dm}{dx}\Big)^2,

    along the path of lowest radial free energy E at given m, x its arc length: a kick of one sample moves all layers by
    :math:`\eta\,rx\,\partial m/\partial W_l`, which is :math:`dm/dx` along the path, and turns nothing. Without entropy
    (hidden layers of one unit) the path is the balanced one and this is `minibatch_log_factor`; for T → 0 the exponents
    agree. As there, one feature's own noise and a small share 𝒟/T are assumed.

    Parameters
    ----------
    radial : RadialFreeEnergy
        Holds T.
    noise : MinibatchNoise
        Of independent batches, in the diffusion limit.

    Returns
    -------
    float
        Near zero where the radial barrier is a few T.

    Raises
    ------
    NoBarrierError
        As in `RadialFreeEnergy.barrier`.

    Examples
    --------
    >>> from kramers_grok.theory.gradient_noise import GaussianResidualVariance
    >>> from kramers_grok.theory.minibatch import minibatch_log_factor
    >>> from kramers_grok.theory.saddles import MatrixNetwork
    >>> wide = MatrixNetwork((1, 8, 8, 1), (1.0,), weight_decay=0.25)
    >>> T = wide.barrier().height / 24
    >>> noise = MinibatchNoise(0.001, GaussianResidualVariance(1.0))
    >>> print(f"{minibatch_log_factor(wide.mode(), T, noise):.3f}")
    0.106
    >>> print(f"{radial_minibatch_log_factor(RadialFreeEnergy(wide, T), noise):.3f}")
    0.018
    """
    barrier, T, potential = radial.barrier(), radial.temperature, radial.potential
    first = max(barrier.trap.order_parameter, potential.smallest)
    log_m = np.linspace(math.log(first), math.log(barrier.saddle.order_parameter), _POINTS)
    m = np.exp(log_m)
    amplitudes, slope = potential.constrained(m)
    climbed = slope - potential.input_variance * m * (potential.singular_value - m)  # dE/d ln m
    length = np.linalg.norm(np.gradient(amplitudes, log_m, axis=0), axis=-1)  # dx/d ln m
    diffusion = noise.strength(m) * (m / length) ** 2
    integrand = climbed * diffusion / (T * (T + diffusion))  # 1/T − 1/(T + 𝒟) without its cancellation
    exponent = float(np.trapezoid(integrand, log_m))
    return exponent - 0.5 * math.log((T + diffusion[-1]) / (T + diffusion[0]))
