r"""Where the diffusion limit of minibatch SGD may be trusted: learned → forgotten in one mode, both times exact.

At fixed :math:`\varepsilon = \eta/B` SGD stays shot noise however small η is, and rare events see all cumulants of the
per-sample gradient. Its mean time over that of its diffusion limit is

.. math:: \frac{\tau_{\rm SGD}}{\tau_{\rm diffusion}} \to \frac{\tau_0}{\tau_0'}\,e^{(S - S')/\varepsilon},

S and S′ the two quasi-potentials. So the limit is *worse the smaller ε is*: it is trusted where the barrier
:math:`S'/\varepsilon` is low, not where the noise is weak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kramers_grok.core import checks
from kramers_grok.core.region import beyond
from kramers_grok.theory.action_cumulants import GaussianCumulants
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.discrete_chain import sgd_exit_time
from kramers_grok.theory.exit_times import minibatch_mode_exit_time
from kramers_grok.theory.large_deviations import ActionLaws, forgetting_laws

__all__ = ["DiffusionLimitDeparture", "diffusion_limit_departure", "trusted_lr_over_batch"]


@dataclass(frozen=True)
class DiffusionLimitDeparture:
    r"""How long minibatch SGD takes to forget, beside its diffusion limit.

    Attributes
    ----------
    exact : float
        Mean time of SGD's chain over that of the diffusion, both exact; NaN if it was not asked for.
    asymptotic : float
        The same to leading order in ε, prefactors included.
    exponential : float
        :math:`e^{(S-S')/\varepsilon}` alone.
    action_over_ratio : float
        :math:`S'/\varepsilon`, the barrier of the diffusion limit over its noise.
    sgd_time, diffusion_time : float
        Mean times [time]; NaN if `exact` is.
    """

    exact: float
    asymptotic: float
    exponential: float
    action_over_ratio: float
    sgd_time: float
    diffusion_time: float


def diffusion_limit_departure(
    mode: Mode, *, label_noise: float, lr_over_batch: float, batch_size: int = 1, exact: bool = True
) -> DiffusionLimitDeparture:
    r"""Return SGD's mean time to forget a learned feature over that of its diffusion limit.

    White Gaussian inputs and balanced layers; the target lies as far beyond the barrier's top as usual (`beyond`).

    Parameters
    ----------
    mode : Mode
        With λ below its spinodal.
    label_noise : float
        s > 0.
    lr_over_batch : float
        ε = η/B > 0.
    batch_size : int
        B of the exact chain, whose learning rate is εB. 1 is as close as SGD comes to continuous time at this ε.
    exact : bool
        Whether to solve for the two exact times too: seconds, more for small ε.

    Returns
    -------
    DiffusionLimitDeparture

    Raises
    ------
    NoBarrierError
        If there is no barrier.
    InvalidParameterError
        If a parameter is out of range.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.44)
    >>> departure = diffusion_limit_departure(mode, label_noise=0.5, lr_over_batch=0.1 / 16, batch_size=16)
    >>> print(f"{departure.exact:.3f} {departure.asymptotic:.3f} {departure.exponential:.3f}")
    1.411 1.430 1.408
    """
    ratio = checks.positive("lr_over_batch", lr_over_batch)
    noise = checks.positive("label_noise", label_noise, "without it no noise is left at m = σ")
    batch = checks.positive_int("batch_size", batch_size)
    laws = _laws(mode, noise)
    sgd = diffusion = float("nan")
    if exact:
        target = beyond(mode.forgetting_barrier())
        sgd = sgd_exit_time(mode, lr=ratio * batch, batch_size=batch, label_noise=noise, target=target).mean
        diffusion = minibatch_mode_exit_time(mode, label_noise=noise, lr_over_batch=ratio, target=target).mean
    return DiffusionLimitDeparture(
        exact=sgd / diffusion,
        asymptotic=laws.departure(ratio, batch),
        exponential=float(np.exp((laws.sgd.action - laws.diffusion.action) / ratio)),
        action_over_ratio=laws.diffusion.action / ratio,
        sgd_time=sgd,
        diffusion_time=diffusion,
    )


def trusted_lr_over_batch(mode: Mode, *, label_noise: float, tolerance: float = 0.1) -> float:
    r"""Smallest ε = η/B at which the diffusion limit's time to forget is within `tolerance` of SGD's (batches of 1).

    .. math:: \varepsilon = \frac{S - S'}{\ln(1 + \mathrm{tolerance}) - \ln(\tau_0/\tau_0')}

    from the laws at small ε; compare :math:`S'/\varepsilon`, below 1 or 2 nothing is metastable and the laws mean
    nothing. +∞ where the prefactors alone differ by more.

    Parameters
    ----------
    mode : Mode
    label_noise : float
        s > 0.
    tolerance : float
        Relative error of the time, > 0.

    Returns
    -------
    float
        [time]

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.44)
    >>> print(f"{trusted_lr_over_batch(mode, label_noise=0.5, tolerance=0.5):.5f}")
    0.00559
    """
    excess = checks.positive("tolerance", tolerance)
    laws = _laws(mode, checks.positive("label_noise", label_noise))
    steps = laws.sgd.batch_exponent  # batches of 1
    room = np.log1p(excess) - (np.log(laws.sgd.prefactor / laws.diffusion.prefactor) + steps)
    return float((laws.sgd.action - laws.diffusion.action) / room) if room > 0 else float("inf")


def _laws(mode: Mode, label_noise: float) -> ActionLaws:
    return forgetting_laws(mode, GaussianCumulants.of(mode, label_noise=label_noise))
