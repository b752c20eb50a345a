r"""Radial free energy of the next feature of a network whose inputs are not white.

The same reduction as `kramers_grok.theory.radial`, with the input variance of every feature: on aligned channels the
energy of two features is a sum, and only the determinants of the weights that join them know both variances. Extra
hidden units are in the exponents :math:`h_l-r-1`.

What is left out at leading order: fluctuations of the hidden weights spread the end weights of the *other* unlearned
features, in a trap with :math:`n^2 = (h_1-r)(h_2-r)` free weights between two hidden layers by more than at the saddle,
where :math:`(n-1)^2` of them are free. At D = 3 the trap is wider than the saddle by

.. math:: \delta = \frac{T}{2\lambda^3}\,\big[(h_1-r)(h_2-r) - (h_1-r-1)(h_2-r-1)\big]\sum_{j>r} c_j^2

in :math:`\ln k`, from the second order of :math:`c_jW_3W_2W_1`: `left_out`, which belongs into an interval, not a value
(the quartic order is not small beside it).
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from kramers_grok.core import checks
from kramers_grok.core.barrier import OrbitBarrier
from kramers_grok.core.exceptions import KramersGrokError, NoBarrierError, ValidityWarning
from kramers_grok.theory.feature_network import FeatureNetwork
from kramers_grok.theory.radial import LOWEST_BARRIER, radial_rate
from kramers_grok.theory.radial_potential import RadialPoint, RadialPotential
from kramers_grok.theory.radial_terms import LogDeterminant, extra_directions, learned_pair, unlearned_pair
from kramers_grok.theory.radial_well import log_well_integral
from kramers_grok.theory.rates import Rate, eyring_kramers_rate
from kramers_grok.theory.saddles import MatrixNetwork

__all__ = ["feature_potential", "feature_radial_rate", "left_out"]


def feature_potential(network: FeatureNetwork, temperature: float, rank: int) -> RadialPotential:
    """Radial potential of the strongest unlearned feature.

    Parameters
    ----------
    network : FeatureNetwork
    temperature : float
        T > 0 [loss].
    rank : int
        Number r of learned features.
    """
    heat = checks.positive("temperature", temperature, "the entropy of an orbit counts in units of the temperature")
    mode = network.mode(rank)
    alignment = (network.depth - 1) // 2
    exponents = np.array([h - rank - 1.0 for h in network.hidden])
    return RadialPotential(
        singular_value=mode.singular_value,
        weight_decay=network.weight_decay,
        input_variance=mode.input_variance,
        temperature=heat,
        exponents=np.insert(exponents, alignment, 0.0),
        alignment=alignment,
        terms=_terms(network, rank),
    )


def _terms(network: FeatureNetwork, rank: int) -> tuple[LogDeterminant, ...]:
    """Determinants of the directions across the channel."""
    depth, decay, features = network.depth, network.weight_decay, network.features
    sigma, q = features.singular_values, features.input_variances
    own, n_features = float(q[rank]), features.rank
    terms = [unlearned_pair(float(sigma[j]), depth, decay, own, float(q[j])) for j in range(rank + 1, n_features)]
    for j in range(rank):
        learned = (network.mode(j).learned_amplitude(), float(sigma[j]))
        terms += learned_pair(learned, float(sigma[rank]), depth, decay, own, float(q[j]))
    spare = np.diag(features.inputs)[n_features:].tolist()
    terms += [extra_directions(1, range(1, depth), depth, decay, float(v)) for v in spare]
    outputs = network.widths[-1] - n_features
    if outputs:
        terms.append(extra_directions(outputs, range(depth - 1), depth, decay, own))
    return tuple(terms)


def feature_radial_rate(
    network: FeatureNetwork, temperature: float, rank: int, *, step: float = 0.0, warn: bool = True
) -> Rate:
    r"""Rate of learning the next feature: Kramers' formula in the radial coordinates, with the step's first order.

    Parameters
    ----------
    network : FeatureNetwork
    temperature : float
        T > 0 [loss].
    rank : int
        Number of learned features.
    step : float
        Time step of an Euler–Maruyama walk, or learning rate; the correction is the whole network's (see
        `kramers_grok.theory.rates.eyring_kramers_rate`) [time].
    warn : bool
        Whether to warn where the expansion is poor.

    Returns
    -------
    Rate
        Per unit time; ``barrier_over_temperature`` is the radial barrier over T.

    Raises
    ------
    InvalidParameterError
        For T ≤ 0 or a rank out of range.
    NoBarrierError
        Above the spinodal, or where the trap has melted.

    Warns
    -----
    ValidityWarning
        If the radial barrier is below `kramers_grok.theory.radial.LOWEST_BARRIER` T.

    Notes
    -----
    Where another feature is nearly as strong, weights between the two are soft already before the saddle, and their
    determinant turns negative there. Then the rate is that of the feature alone in the free units, times the
    determinants at the aligned saddle of the whole network.

    Examples
    --------
    With white inputs it is `radial_rate`.

    >>> from kramers_grok.theory.radial import radial_rate
    >>> from kramers_grok.theory.saddles import MatrixNetwork
    >>> here = FeatureNetwork(np.eye(2), np.diag([1.4, 1.1]), (2, 2), weight_decay=0.35)
    >>> there = MatrixNetwork((2, 2, 2, 2), (1.4, 1.1), 0.35)
    >>> print(f"{feature_radial_rate(here, 0.002, 1).value / radial_rate(there, 0.002, 1).value:.9f}")
    1.000000000
    """
    barrier = network.barrier(rank)  # refuses ranks and spinodals
    try:
        log_rate, ratio = _along_channel(network, temperature, rank)
    except ValueError as error:  # NaN where the determinants are negative
        if isinstance(error, KramersGrokError):
            raise
        log_rate, ratio = _without_others(network, temperature, rank)
    if step:
        mild = barrier.height  # the step's correction holds no temperature, and this one does not underflow
        log_rate += _log_eyring_kramers(barrier, mild, step) - _log_eyring_kramers(barrier, mild)
    note = "" if ratio >= LOWEST_BARRIER else f"Radial Kramers: the radial barrier is {ratio:.3g} T. Use a simulation."
    if note and warn:
        warnings.warn(note, ValidityWarning, stacklevel=2)
    return Rate(math.exp(log_rate), "radial Kramers", ratio, not note, note, (note,) if note else ())


def _along_channel(network: FeatureNetwork, temperature: float, rank: int) -> tuple[float, float]:
    """Logarithm of Kramers' rate along the channel, and the radial barrier over T."""
    potential = feature_potential(network, temperature, rank)
    excess, crest = potential.crest()
    if not excess > 0:
        raise NoBarrierError(
            f"The trap has melted: with hidden widths {network.hidden} at temperature={temperature:.6g} the radial "
            "free energy falls all the way to the learned state.\nUse a lower temperature, or narrower hidden layers."
        )
    trap, saddle = (potential.point(m) for m in (potential.trap(crest), potential.saddle(crest)))
    log_rate = math.log(-float(saddle.spectrum[0]) / (2 * math.pi)) + _log_laplace(saddle, temperature)
    log_rate -= log_well_integral(potential, saddle.order_parameter)
    return log_rate, (saddle.energy - trap.energy) / temperature


def _without_others(network: FeatureNetwork, temperature: float, rank: int) -> tuple[float, float]:
    """As `_along_channel`, for a feature of its own in the free units, times the determinants at the aligned saddle."""
    mode = network.mode(rank)
    own = MatrixNetwork(
        (1, *(h - rank for h in network.hidden), 1), (mode.singular_value,), mode.weight_decay, mode.input_variance
    )
    alone = radial_rate(own, temperature, warn=False)
    mild = network.barrier(rank).height  # the ratio holds no temperature
    others = _log_eyring_kramers(network.barrier(rank), mild) - _log_eyring_kramers(own.barrier(), mild)
    return math.log(alone.value) + others, alone.barrier_over_temperature


def _log_eyring_kramers(barrier: OrbitBarrier, temperature: float, step: float = 0.0) -> float:
    return math.log(eyring_kramers_rate(barrier, temperature, step=step, warn=False).value)


def left_out(network: FeatureNetwork, temperature: float, rank: int) -> float:
    """δ of the module's text at D = 3: by how much ln k may be too large [1]."""
    c = network.features.covariances[rank + 1 :]
    free, fewer = (math.prod(h - rank - k for h in network.hidden) for k in (0, 1))
    return float(temperature * (free - fewer) * (c @ c) / (2 * network.weight_decay**3))


def _log_laplace(point: RadialPoint, temperature: float) -> float:
    spectrum = np.abs(point.spectrum)
    return 0.5 * float(np.log(2 * math.pi * temperature / spectrum).sum()) - point.energy / temperature
