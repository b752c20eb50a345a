"""Predictions for a barrier that was found numerically, one effect at a time."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from kramers_grok.analysis.rungs import FIRST_ORDER, Ladder, Setting
from kramers_grok.core import checks
from kramers_grok.core.exceptions import NoBarrierError, ValidityWarning
from kramers_grok.core.region import Region
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.potential_theory.capacity import CapacityRate, capacity_rate
from kramers_grok.landscape.potential_theory.path_noise import path_log_factor
from kramers_grok.landscape.surface import Surface
from kramers_grok.theory.minibatch import PathNoise
from kramers_grok.theory.rates import eyring_kramers_rate
from kramers_grok.theory.time_step import monitoring_shift

__all__ = ["numerical_ladder"]

_SEED = 0  # of the quasi-random draws: a prediction is one number


def numerical_ladder(
    barrier: NumericalBarrier, setting: Setting, target: Region, *, rate: CapacityRate | None = None
) -> Ladder:
    r"""Return the predicted mean exit times over a numerical barrier, effect by effect.

    The rungs are

    - ``asymptotic``: the Eyring–Kramers formula, also where it flags itself invalid;
    - ``continuous``: `capacity_rate`, anharmonic and over soft rotations; ``relative_error`` is its stated one;
    - ``stepped``: times the harmonic first order in the time step, as in `eyring_kramers_rate`;
    - ``watched``: the target as if it were 0.58 √(2Th) further away, unless crossings between steps are counted;
    - ``made``: with minibatches, to first order along the path (`path_log_factor`).

    Targets near the barrier's top are reached sooner than the other well, by :math:`\Phi(d\sqrt{|\mu_-|/T})` with their
    distance d from the top along the path.

    Parameters
    ----------
    barrier : NumericalBarrier
    setting : Setting
        With a temperature; ``minibatch`` is a `PathNoise`.
    target : Region
        Where it counted as escaped, in the barrier's order parameter.
    rate : CapacityRate, optional
        If it has been computed already, at this temperature.

    Returns
    -------
    Ladder
        NaN from ``continuous`` on, with the reason in ``notes``, where rotations have melted the barrier.

    Raises
    ------
    InvalidParameterError
        If the target's border does not lie on the path behind the minimum, or the minibatch noise is a closed form's.
    """
    noise = setting.minibatch
    if noise is not None and not isinstance(noise, PathNoise):
        raise checks.invalid(
            "minibatch", type(noise).__name__, "a PathNoise", "the data's noise is taken along the numerical path",
            "Use `PathNoise(lr / batch_size)`.",
        )  # fmt: skip
    distance, nan = _distance(barrier, target), math.nan
    if not setting.temperature:
        note = "without a temperature no escape over a numerical barrier is predicted"
        return Ladder(nan, nan, nan, nan, nan, nan, "none", (note,))
    heat = setting.temperature
    growth = math.sqrt(-barrier.negative_eigenvalue / heat)
    shift = 0.0 if setting.bridged else monitoring_shift(heat, setting.step)
    here, further = (float(ndtr(growth * (distance + more))) for more in (0.0, shift))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)  # they are kept as notes
        harmonic = eyring_kramers_rate(barrier, heat, warn=False)
        asymptotic = harmonic.mean_time * here
        try:
            found = _rate(barrier, heat) if rate is None else rate
        except NoBarrierError as error:
            return Ladder(asymptotic, nan, nan, nan, nan, nan, "none", (str(error).splitlines()[0],))
        step = eyring_kramers_rate(barrier, heat, step=setting.step, warn=False).mean_time / harmonic.mean_time
    watched = found.mean_time * step * further
    quicker = 1.0 if noise is None else math.exp(path_log_factor(barrier, heat, noise))
    return Ladder(
        asymptotic=asymptotic,
        continuous=found.mean_time * here,
        stepped=found.mean_time * step * here,
        watched=watched,
        made=nan if setting.unknown_noise else watched / quicker,
        relative_error=found.relative_error,
        time_step_method=f"{FIRST_ORDER}, harmonic",
        notes=tuple(note for note in (harmonic.note, found.note) if note),
    )


@lru_cache(maxsize=64)
def _rate(barrier: NumericalBarrier, temperature: float) -> CapacityRate:
    """Barriers are compared as objects: arms of one comparison share the computation."""
    return capacity_rate(barrier, temperature, seed=_SEED, warn=False)


def _distance(barrier: NumericalBarrier, target: Region) -> float:
    """Arc length from the top to the target's border along the path, positive behind the top [weight]."""
    path, top = barrier.path, barrier.top
    m = Surface(barrier.model).order_parameters(path.images)[:, barrier.feature]
    rises = m[-1] > m[0]
    inside = target.contains(m)
    if target.feature != barrier.feature or target.above != rises or inside[0] or not inside[-1]:
        raise checks.invalid(
            "target", target, f"a border between m = {m[0]:.3g} and {m[-1]:.3g} of feature {barrier.feature}",
            "the path from the trap to the state behind the barrier has to cross it", "Use `beyond(barrier)`.",
        )  # fmt: skip
    first = int(np.argmax(inside))
    share = (target.threshold - m[first - 1]) / (m[first] - m[first - 1])
    at = path.arc_length[first - 1] + share * (path.arc_length[first] - path.arc_length[first - 1])
    return float(at - path.arc_length[top])
