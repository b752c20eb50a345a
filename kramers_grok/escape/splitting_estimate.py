r"""From the repeats of a splitting run to a mean exit time with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Repeats", "TimeEstimate", "combine"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Repeats:
    """What the independent repeats measured, each array of shape (repeat,).

    Attributes
    ----------
    direct_time : array    [time]
        Mean time until the replicas escaped or began the last loop.
    survival : array
        Share of the replicas that had not escaped by then.
    n_entries : array
        Entries into the climb, all loops after the burn-in taken together.
    loop_time : array    [time]
        Mean time from an entry to the next one or to the target; NaN without entries.
    probability : array
        Probability to reach the target from an entry before the return; NaN without entries.
    """

    direct_time: Array
    survival: Array
    n_entries: Array
    loop_time: Array
    probability: Array


@dataclass(frozen=True)
class TimeEstimate:
    """Mean exit time [time], its standard error and the ends of its interval."""

    value: float
    standard_error: float
    lower: float
    upper: float


def combine(repeats: Repeats, confidence: float) -> TimeEstimate:
    r"""Mean exit time :math:`D + S\,\bar c/\bar p` and its interval by the delta method.

    D, S are means over the repeats; :math:`\bar c, \bar p` are sums over repeats of n_i c_i and n_i p_i, both over
    :math:`\sum n_i`, so that a repeat counts by its entries and one that died out counts with p = 0. With
    :math:`g_i` the derivative of ln T with respect to repeat i's share, the standard error of ln T is
    :math:`\sqrt{\sum g_i^2/(n-1)/n}` and the interval :math:`T e^{\pm t\,\mathrm{se}}`, t Student's with n − 1 degrees
    of freedom.

    Examples
    --------
    >>> same = np.ones(8)
    >>> estimate = combine(Repeats(5 * same, same, 10 * same, 2 * same, 0.01 * same), 0.95)
    >>> round(estimate.value, 9), round(estimate.standard_error, 9)
    (205.0, 0.0)
    """
    weight = repeats.n_entries / max(repeats.n_entries.mean(), 1e-300)
    cost = np.where(repeats.n_entries > 0, weight * np.nan_to_num(repeats.loop_time), 0.0)
    success = np.where(repeats.n_entries > 0, weight * np.nan_to_num(repeats.probability), 0.0)
    survival = float(repeats.survival.mean())
    tail = float(cost.mean() / success.mean()) if survival > 0 else 0.0
    value = float(repeats.direct_time.mean()) + survival * tail
    share = repeats.direct_time - repeats.direct_time.mean() + tail * (repeats.survival - survival)
    if survival > 0:
        share = share + survival * (cost - cost.mean() - tail * (success - success.mean())) / success.mean()
    n = len(share)
    relative = float(np.sqrt((share**2).sum() / (n - 1) / n)) / value
    t = float(stats.t.isf((1 - confidence) / 2, n - 1))
    return TimeEstimate(value, relative * value, value * np.exp(-t * relative), value * np.exp(t * relative))
