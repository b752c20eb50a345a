r"""Weight decay moved at a finite rate: the distribution of the λ at which a feature is learned or forgotten.

*Adiabatic*: while λ changes little within the time in which a well fills, the state is left at the rate
:math:`k(\lambda(t), T)` of the λ of that moment,

.. math:: S(t) = \exp\Big(-\int_0^t k(\lambda(t'), T)\,dt'\Big),

with k from exact solvers (`rate_table`). *Driven*: `driven_ramp` solves the mode's Fokker–Planck equation with moving λ
instead, with no rate in it, for fast ramps and close to the spinodal, where the barrier vanishes. Both are derived and
compared in the chapter on ramps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region, beyond
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.driven import Driving, drive
from kramers_grok.theory.gradient_noise import ResidualVariance
from kramers_grok.theory.ramp_law import Ramp, RampLaw
from kramers_grok.theory.rate_table import RATIO_NODES, RateTable, System, rate_table, with_weight_decay
from kramers_grok.theory.spinodal_switching import spinodal_switching

__all__ = [
    "Ramp",
    "RampLaw",
    "RampLoop",
    "adiabatic_ramp",
    "driven_ramp",
    "ramp_loop",
    "ramp_rates",
    "ramp_start",
    "ramp_target",
    "spinodal_switching",
]

Array = NDArray[np.float64]

# Pieces of λ along a ramp: escapes fill at least some hundreds of them
PIECES = 400
# Points of the adiabatic integral
POINTS = 2000
# k · (relaxation time) at the median escape above which an adiabatic prediction is flagged
FAST = 0.05
# Cumulated hazards between which the rate is tabulated
FEWEST = 1e-4
MOST = 8.0


def ramp_target(system: System, ramp: Ramp) -> Region:
    r"""Return the border that marks an escape at every λ of a ramp.

    The barrier's top moves with λ, and the border in m must not. *Down* (learning): the order parameter of the
    spinodal, :math:`m = p\sigma,\ p = (D-2)/(2(D-1))`, which separates the saddle (always below) from the learned state
    (always above) at every λ. *Up* (forgetting): half way, in the layers' amplitude, from the saddle to 0 at the ramp's
    start, where the saddle is lowest.

    Raises
    ------
    NoBarrierError
        Upwards, if the ramp starts above the spinodal, where nothing is learned.

    Examples
    --------
    >>> mode = Mode(3, 1.0, 0.25)
    >>> ramp_target(mode, Ramp(0.4, 0.1, rate=1e-4))
    Region(threshold=0.25, above=True, feature=0)
    >>> ramp_target(mode, Ramp(0.36, 0.48, rate=1e-4)).above
    False
    """
    if ramp.down:
        depth = system.depth
        return Region(system.singular_value * (depth - 2) / (2 * (depth - 1)))
    return beyond(with_weight_decay(system, ramp.start).forgetting_barrier())


def ramp_start(system: System, ramp: Ramp) -> Array:
    """Return the bottom of the well that a ramp starts in, as weights of the chain or arc length of the mode."""
    size = system.depth if isinstance(system, DeepLinearChain) else 1
    if ramp.down:
        return np.zeros(size)
    amplitude = with_weight_decay(system, ramp.start).learned_amplitude()
    return np.full(size, amplitude * (1.0 if size > 1 else np.sqrt(system.depth)))


def ramp_rates(
    system: System,
    ramp: Ramp,
    *others: Ramp,
    temperature: float,
    target: Region | None = None,
    step: float = 0.0,
    monitored: bool = False,
    noise_variance: float | None = None,
    residual_variance: ResidualVariance | None = None,
    ratio_nodes: int = RATIO_NODES,
) -> RateTable:
    """Tabulate the escape rate along a ramp, where it matters: parameters as in `rate_table`.

    The range in λ is where 1e-4 to all but e^-8 of the mode's replicas have left; with `others`, ramps between the
    same ends at other rates, it serves all of them.

    Raises
    ------
    InvalidParameterError
        If less than that leaves on the whole ramp.
    """
    heat = checks.positive("temperature", temperature, "without noise nothing crosses a barrier")
    target = ramp_target(system, ramp) if target is None else target
    mode = system.mode if isinstance(system, DeepLinearChain) else system
    low, high = sorted((ramp.start, ramp.stop))
    coarse = rate_table(
        mode, target=target, temperatures=heat, weight_decays=(low, high), step=step, monitored=monitored, points=11
    )
    ends: list[float] = []
    for one in (ramp, *others):
        times = np.linspace(0.0, one.duration, POINTS + 1)
        hazard = np.cumsum(coarse(heat, one.weight_decay(times))) * one.duration / POINTS
        relevant = np.flatnonzero((hazard > FEWEST) & (hazard < MOST))
        if len(relevant) < 2:
            raise InvalidParameterError(
                f"At `temperature` = {heat:g} a share of {hazard[-1]:.2g} leaves on the way from λ = {one.start:g} to "
                f"{one.stop:g}, expected at least {FEWEST:g}.\nRamp further, more slowly, or at a higher temperature."
            )
        ends += [float(d) for d in one.weight_decay(times[[relevant[0], relevant[-1]]])]
    low, high = min(ends), max(ends)
    if isinstance(system, DeepLinearChain) and not ramp.down:
        # Above it the chain has no learned state to start from; the table goes on with its last slope
        high = min(high, 0.995 * system.spinodal())
    return rate_table(
        system,
        target=target,
        temperatures=heat,
        weight_decays=(low, high),
        step=step,
        monitored=monitored,
        noise_variance=noise_variance,
        residual_variance=residual_variance,
        ratio_nodes=ratio_nodes,
    )


def adiabatic_ramp(system: System, ramp: Ramp, *, temperature: float, rates: RateTable | None = None) -> RampLaw:
    r"""Predict the escape along a ramp from the rates at fixed λ.

    Parameters
    ----------
    system : Mode or DeepLinearChain
    ramp : Ramp
    temperature : float
        T [loss].
    rates : RateTable, optional
        From `ramp_rates`; made for continuous time if not given.

    Returns
    -------
    RampLaw
        With a warning in it where the ramp is too fast: k · (relaxation time of the well) > 0.05 at the median escape,
        or half of the escapes beyond the spinodal.

    Raises
    ------
    InvalidParameterError
        If nothing would escape.

    Examples
    --------
    >>> mode = Mode(3, 1.0, 0.25)
    >>> law = adiabatic_ramp(mode, Ramp(0.4, 0.05, rate=1e-5), temperature=0.001)
    >>> print(f"{law.mean_weight_decay:.4f} {law.standard_deviation:.4f} {law.warnings}")
    0.2035 0.0180 ()
    """
    heat = checks.positive("temperature", temperature, "without noise nothing crosses a barrier")
    rates = ramp_rates(system, ramp, temperature=heat) if rates is None else rates
    times = np.linspace(0.0, ramp.duration, POINTS + 1)
    k = rates(heat, ramp.weight_decay(times))
    hazard = np.concatenate([[0.0], np.cumsum((k[1:] + k[:-1]) / 2 * np.diff(times))])
    law = RampLaw(ramp, times, -hazard, "survival under the adiabatic escape rate")
    return RampLaw(ramp, times, -hazard, law.method, _flags(system, law, rates, heat))


def _flags(system: System, law: RampLaw, rates: RateTable, heat: float) -> tuple[str, ...]:
    """What the adiabatic approximation needs and does not have."""
    if law.censored > 0.5:
        return ()
    median, mode = law.quantile(0.5), Mode(system.depth, system.singular_value, 1.0, system.input_variance)
    if not law.ramp.down and median >= mode.spinodal():
        return (
            f"half of the escapes come beyond the spinodal, λ = {median:.4g}: no barrier is left to make a rate. "
            "Use `driven_ramp`, or a slower ramp.",
        )
    moved = with_weight_decay(mode, median)
    barrier = moved.barrier() if law.ramp.down else moved.forgetting_barrier()
    relaxation = 1 / min(float(barrier.minimum_spectrum[0]), abs(float(barrier.saddle_spectrum[0])))
    pace = float(rates(heat, median)) * relaxation
    if pace > FAST:
        return (
            f"escape rate · relaxation time = {pace:.2g} at the median escape (λ = {median:.4g}), above {FAST:g}: the "
            "well empties as fast as it fills. Use `driven_ramp`, or a slower ramp.",
        )
    return ()


def driven_ramp(
    system: System,
    ramp: Ramp,
    *,
    temperature: float,
    target: Region | None = None,
    step: float = 0.0,
    monitored: bool = False,
    noise_variance: float | None = None,
    residual_variance: ResidualVariance | None = None,
    rates: RateTable | None = None,
    pieces: int = PIECES,
) -> RampLaw:
    r"""Predict the escape along a ramp from the Fokker–Planck equation with moving λ, in which no rate occurs.

    For a mode that is all. For the chain the hazard of its mode, :math:`-\dot S/S`, is multiplied by the ratio of
    chain and mode at that λ, :math:`k_{\rm chain}/k_{\rm mode}`: the lag is that of the balanced direction, and the
    transverse ones, of curvature 2λ, follow.

    Parameters
    ----------
    system : Mode or DeepLinearChain
        Of odd depth.
    ramp, temperature, target, step, monitored, noise_variance, residual_variance
        As in `ramp_rates`.
    rates : RateTable, optional
        The chain's, where they are known already.
    pieces : int
        Pieces on which λ is constant.

    Returns
    -------
    RampLaw
        For a mode its error is that of the grid, about 1e-4 in S.

    Examples
    --------
    Ten times faster than the adiabatic approximation bears, λ runs away while the escape is under way:

    >>> mode, ramp = Mode(3, 1.0, 0.25), Ramp(0.42, 0.6, rate=1e-3)
    >>> late = driven_ramp(mode, ramp, temperature=0.002).mean_weight_decay
    >>> early = adiabatic_ramp(mode, ramp, temperature=0.002)
    >>> bool(late > early.mean_weight_decay + 0.004), len(early.warnings)
    (True, 1)
    """
    heat = checks.positive("temperature", temperature, "a driven mode needs noise; without it integrate its drift")
    target = ramp_target(system, ramp) if target is None else target
    mode = system.mode if isinstance(system, DeepLinearChain) else system
    ones = np.ones(checks.positive_int("pieces", pieces))
    ratio = 0.0 if noise_variance is None or residual_variance is None else 2 * heat / noise_variance
    middle = ramp.weight_decay((np.arange(pieces) + 0.5) * ramp.duration / pieces)
    driving = Driving(ramp.duration / pieces * ones, middle, heat * ones, step * ones, ratio * ones)
    result = drive(
        mode,
        driving,
        target=target,
        start=float(ramp_start(mode, ramp)[0]),
        residual_variance=residual_variance,
        monitored=monitored,
    )
    log_survival = np.log(np.maximum(result.survival, 1e-300))
    if mode is system:
        return RampLaw(ramp, result.times, log_survival, "Fokker–Planck equation of the mode with moving weight decay")
    if rates is None:
        rates = ramp_rates(
            system,
            ramp,
            temperature=heat,
            target=target,
            step=step,
            monitored=monitored,
            noise_variance=noise_variance,
            residual_variance=residual_variance,
        )
    log_survival = np.concatenate([[0.0], np.cumsum(np.diff(log_survival) * rates.over_mode(heat, middle))])
    return RampLaw(ramp, result.times, log_survival, "the mode's driven hazard times the chain's ratio of rates")


@dataclass(frozen=True)
class RampLoop:
    """Predicted loop: where a feature disappears on the way up, and appears on the way down.

    Attributes
    ----------
    up, down : RampLaw
    """

    up: RampLaw
    down: RampLaw

    @property
    def width(self) -> float:
        """Mean λ at disappearance minus mean λ at appearance."""
        return self.up.mean_weight_decay - self.down.mean_weight_decay


def ramp_loop(
    system: System,
    *,
    rate: float,
    temperature: float,
    low: float,
    high: float,
    middle: float | None = None,
    step: float = 0.0,
    monitored: bool = False,
) -> RampLoop:
    r"""Predict the width of the hysteresis loop of one feature at a ramp rate and a temperature (adiabatic).

    Parameters
    ----------
    system : Mode or DeepLinearChain
    rate : float
        Modulus of dλ/dt, in both directions.
    temperature : float
        T [loss].
    low, high : float
        Ends of the ramps: down to `low`, up to `high`.
    middle : float, optional
        Where both begin; the binodal if not given, where neither state is left soon.
    step, monitored
        As in `exit_time`.

    Returns
    -------
    RampLoop

    Examples
    --------
    Slower ramps make narrower loops, by the logarithm of the rate:

    >>> mode = Mode(3, 1.0, 0.25)
    >>> widths = [
    ...     ramp_loop(mode, rate=r, temperature=0.002, low=0.05, high=0.5).width for r in (1e-4, 1e-5, 1e-6)
    ... ]
    >>> bool(widths[0] > widths[1] > widths[2] > 0)
    True
    """
    middle = system.binodal() if middle is None else middle
    laws = []
    for stop in (high, low):
        ramp = Ramp(middle, stop, rate)
        rates = ramp_rates(system, ramp, temperature=temperature, step=step, monitored=monitored)
        laws.append(adiabatic_ramp(system, ramp, temperature=temperature, rates=rates))
    return RampLoop(up=laws[0], down=laws[1])
