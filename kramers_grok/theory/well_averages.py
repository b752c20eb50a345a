r"""Mean population loss in the learned and in the unlearned state at a temperature, by quadrature.

The weights are those of the modified equation of the walk with step h,
:math:`\exp(-[F - \tfrac h4|\nabla F|^2 + \tfrac h2T\,\Delta F]/T)`, on the side of the saddle's order parameter that
belongs to the state. The loss counted is :math:`\tfrac12q(\sigma-m)^2`, without weight decay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.mode_exit import ModeDynamics

__all__ = ["well_losses"]

Array = NDArray[np.float64]

NODES_PER_AXIS = 44
REACH = 6.5


def well_losses(system: Mode | DeepLinearChain, temperature: float, *, step: float = 0.0) -> tuple[float, float, float]:
    """Return the mean loss in the learned state, in the unlearned one, and the loss at the learned minimum [loss].

    Parameters
    ----------
    system : Mode or DeepLinearChain
        The chain of depth 3; λ below the spinodal.
    temperature : float
        T [loss].
    step : float
        Step of the walk, to first order [time].

    Raises
    ------
    InvalidParameterError
        For a chain of another depth, or T ≤ 0.

    Examples
    --------
    >>> inside, outside, floor = well_losses(Mode(3, 1.0, 0.25), 1e-6)
    >>> print(f"{inside - floor:.2e} {outside:.6f}")
    9.13e-07 0.500000
    """
    heat = checks.positive("temperature", temperature)
    if isinstance(system, DeepLinearChain) and system.depth != 3:
        raise checks.invalid("system.depth", system.depth, "3", "its averages are taken on a grid")
    saddle, learned = system.saddle_amplitude(), system.learned_amplitude()
    top = saddle**system.depth
    size = system.depth if isinstance(system, DeepLinearChain) else 1
    scale = 1.0 if size > 1 else np.sqrt(system.depth)
    softest = float(np.min(system.forgetting_barrier().minimum_spectrum))
    means = []
    for centre, curvature, above in ((learned * scale, softest, True), (0.0, system.weight_decay, False)):
        reach = REACH * np.sqrt(heat / curvature)
        axis = centre + reach * (2 * (np.arange(NODES_PER_AXIS) + 0.5) / NODES_PER_AXIS - 1)
        points = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, size)
        m, potential = _chain(system, points, heat, step) if size > 1 else _mode(system, points[:, 0], heat, step)
        inside = (m > top) == above
        if above:
            inside &= (points > 0).all(axis=1)
        weight = np.where(inside, np.exp(-(potential - potential[inside].min()) / heat), 0.0)
        loss = 0.5 * system.input_variance * (system.singular_value - m) ** 2
        means.append(float(weight @ loss / weight.sum()))
    floor = 0.5 * system.input_variance * (system.singular_value - learned**system.depth) ** 2
    return means[0], means[1], float(floor)


def _mode(system: Mode | DeepLinearChain, x: Array, heat: float, step: float) -> tuple[Array, Array]:
    mode = Mode(system.depth, system.singular_value, system.weight_decay, system.input_variance)
    dynamics = ModeDynamics(mode, heat)
    m = dynamics.order_parameter(x)
    energy = 0.5 * mode.input_variance * (mode.singular_value - m) ** 2 + 0.5 * mode.weight_decay * x**2
    correction = step * (0.5 * heat * dynamics.curvature(x) - 0.25 * dynamics.slope(x) ** 2)
    return m, np.asarray(energy + correction)


def _chain(system: Mode | DeepLinearChain, a: Array, heat: float, step: float) -> tuple[Array, Array]:
    q, sigma, decay = system.input_variance, system.singular_value, system.weight_decay
    m = a.prod(axis=1)
    v = np.stack([a[:, 1] * a[:, 2], a[:, 0] * a[:, 2], a[:, 0] * a[:, 1]], axis=1)
    gradient = decay * a - (q * (sigma - m))[:, None] * v
    laplacian = q * (v**2).sum(axis=1) + 3 * decay
    energy = 0.5 * q * (sigma - m) ** 2 + 0.5 * decay * (a**2).sum(axis=1)
    return m, np.asarray(energy + step * (0.5 * heat * laplacian - 0.25 * (gradient**2).sum(axis=1)))
