"""Where the Eyring–Kramers rate of a matrix network can be trusted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from kramers_grok.core import checks

if TYPE_CHECKING:
    from kramers_grok.core.barrier import OrbitBarrier

__all__ = ["ORBIT_WIDTH", "SOFT_MODE", "TRAP_WIDENING", "orbit_flags"]

#: Relative change of an orbit's volume under a thermal displacement above which `orbit_flags` speaks.
ORBIT_WIDTH = 0.1
#: Relative widening of the trap by the cubic term above which `orbit_flags` speaks.
TRAP_WIDENING = 0.1
#: Thermal variance of a mode over the orbit's squared radius above which `orbit_flags` speaks: 5 % of the rate.
SOFT_MODE = 0.1


def orbit_flags(barrier: OrbitBarrier, temperature: float) -> tuple[str, ...]:
    r"""Conditions under which Gaussian integrals about the orbits of a matrix network fail.

    - *Orbit*: with n unused units a saddle's orbit has the volume :math:`R^n`, :math:`R=\sqrt2 a_s`. Across it the
      weights fluctuate by :math:`\sqrt{T/2\lambda}`, which changes that volume by the fraction
      :math:`n\sqrt{T/2\lambda}/R`: it must stay below `ORBIT_WIDTH`. (Its square times about 10 is the excess
      of simulated times: 1.47, 1.29, 1.24 at D = 3, n = 1, ΔF/T = 6, 8, 10.)
    - *Trap*: at D = 3 the cubic term of the loss widens the trap,
      :math:`\delta\ln Z = \tfrac12 q^2(h_1-r)(h_2-r)\sum_{k\ge r}\sigma_k^2\,T/\lambda^3`, which must stay below
      `TRAP_WIDENING`.
    - *Soft modes*: a mode whose thermal width :math:`\sqrt{T/\mu}` is not small against R is no Gaussian but a whole
      angle, as where two singular values nearly coincide. :math:`T/\mu` must stay below `SOFT_MODE` R².

    Parameters
    ----------
    barrier : OrbitBarrier
        From ``MatrixNetwork(...).barrier(rank)``.
    temperature : float
        T > 0 [loss].

    Returns
    -------
    tuple of str
        A text for each condition that fails.

    Examples
    --------
    >>> from kramers_grok.theory.saddles import MatrixNetwork
    >>> barrier = MatrixNetwork((2, 1, 1, 2), (1.0, 0.999), weight_decay=0.25).barrier()
    >>> [flag.split(":")[0] for flag in orbit_flags(barrier, barrier.height / 20)]
    ['soft mode at the saddle']
    """
    heat = checks.positive("temperature", temperature)
    flags = []
    radius = math.sqrt(2) * barrier.saddle_amplitude
    spare = max(barrier.spare_units)
    fraction = spare * math.sqrt(heat / (2 * barrier.weight_decay)) / radius
    if fraction > ORBIT_WIDTH:
        flags.append(
            f"orbit: {spare} unused unit(s) and a thermal width that changes its volume by {fraction:.2g} of it, "
            f"above {ORBIT_WIDTH:g}"
        )
    widening = barrier.trap_widening * heat
    if widening > TRAP_WIDENING:
        flags.append(f"trap: the loss's cubic term widens it by {widening:.2g}, above {TRAP_WIDENING:g}")
    inner = min((m ** (1 / barrier.depth) for m in barrier.minimum_order_parameters if m > 0), default=math.inf)
    for name, spectrum, size in (
        ("minimum", barrier.minimum_spectrum, math.sqrt(2) * inner),
        ("saddle", barrier.saddle_spectrum, radius),
    ):
        softest = float(np.min(spectrum[spectrum > 0], initial=math.inf))
        share = heat / softest / size**2
        if share > SOFT_MODE:
            flags.append(
                f"soft mode at the {name}: curvature {softest:.2g} lets it turn by {math.sqrt(share):.2g} of the "
                f"orbit's radius, above {math.sqrt(SOFT_MODE):.2g} (singular values that nearly coincide?)"
            )
    return tuple(flags)
