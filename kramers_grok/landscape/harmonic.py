r"""Where the Gaussian integrals of a harmonic rate can be trusted: the energy along each mode against its parabola.

A mode of curvature μ has the thermal width :math:`w=\sqrt{T/|\mu|}`. Along it alone the partition function is

.. math:: \frac{Z}{w\sqrt{2\pi}} =
    \Big\langle \exp\Big[\tfrac{z^2}2 - \frac{F(\theta+wzv)-F(\theta)}{T}\Big]\Big\rangle_{z\sim N(0,1)},

1 for a parabola. Coupled modes it does not see; what it sees is whether the parabola is the energy where the noise
goes, which for a soft mode (a rotation that an activation function breaks a little) it is not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kramers_grok.landscape.points import StationaryPoint
from kramers_grok.landscape.surface import Surface

__all__ = ["MODE_FACTOR", "anharmonic_flags", "mode_log_factors"]

Array = NDArray[np.float64]

#: Change of a rate by one mode's anharmonicity, as a logarithm, above which `anharmonic_flags` speaks.
MODE_FACTOR = 0.1

_NODES = 12
_BEYOND = math.log(1000)


def mode_log_factors(surface: Surface, point: StationaryPoint, temperature: float) -> Array:
    """Ln of the partition function along each of a point's softest modes over the harmonic one, shape (mode,).

    Parameters
    ----------
    surface : Surface
    point : StationaryPoint
        Its ``modes`` are taken; a negative one counts as harmonic.
    temperature : float
        T > 0 [loss].
    """
    curvature = point.spectrum[: len(point.modes)]
    width = np.sqrt(temperature / np.abs(curvature))
    # Nodes and weights of ⟨·⟩ over the normal distribution
    z, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    points = point.theta + (width[:, None] * z)[..., None] * point.modes[:, None, :]
    energies = surface.energies(points.reshape(-1, surface.size)).reshape(len(width), _NODES)
    exponents = 0.5 * z**2 - (energies - point.energy) / temperature
    largest = exponents.max(axis=1, keepdims=True)
    averages = (weights / weights.sum() * np.exp(exponents - largest)).sum(axis=1)
    factors = np.log(averages) + largest[:, 0]
    return np.where(curvature > 0, factors, 0.0)


def anharmonic_flags(surface: Surface, name: str, point: StationaryPoint, temperature: float) -> tuple[str, ...]:
    """Say along how many modes the harmonic integral fails, and by how much along the worst; or nothing.

    Parameters
    ----------
    surface : Surface
    name : str
        Of the point: "minimum" or "saddle".
    point : StationaryPoint
    temperature : float
        T > 0 [loss].
    """
    factors = mode_log_factors(surface, point, temperature)
    many = int((np.abs(factors) > MODE_FACTOR).sum())
    if not many:
        return ()
    worst = int(np.argmax(np.abs(factors)))
    soft, change = point.spectrum[worst], abs(float(factors[worst]))
    # An order of magnitude says it all, and a straight line may leave the valley for anything.
    by = f"a factor {math.exp(change):.2g}" if change < _BEYOND else f"more than a factor {math.exp(_BEYOND):.0f}"
    return (
        f"anharmonic at the {name}: {many} mode(s) are no parabola over their thermal width; that of curvature "
        f"{soft:.2g} (width {math.sqrt(temperature / soft):.2g}) changes the rate by {by}",
    )
