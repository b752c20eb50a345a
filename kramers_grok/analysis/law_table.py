"""The choice of a law as a labelled table: what was measured, what each law says of it, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.analysis.censored import ExitTimes
from kramers_grok.core.schema import describe

if TYPE_CHECKING:
    from kramers_grok.analysis.law_choice import LawChoice

__all__ = ["choice_table", "median_times"]

Array = NDArray[np.float64]
_POINTS = 400


def median_times(exits: ExitTimes) -> tuple[Array, NDArray[np.bool_]]:
    """Median exit time of each condition [time], and where it is only a lower limit: fewer than half had left.

    Examples
    --------
    >>> exits = ExitTimes.of([1.0, 2.0], [[9.0, 9.0, 9.0], [1.0, 2.0, 9.0]], [[0, 0, 0], [1, 1, 0]])
    >>> median_times(exits)
    (array([9., 2.]), array([ True, False]))
    """
    times, limit = [], []
    for number in range(exits.conditions.size):
        mine = exits.index == number
        left = np.sort(np.where(exits.escaped[mine], exits.exit_time[mine], np.inf))
        median = float(left[(left.size - 1) // 2])
        limit.append(math.isinf(median))
        times.append(float(exits.exit_time[mine].max()) if limit[-1] else median)
    return np.array(times), np.array(limit)


def choice_table(choice: LawChoice) -> xr.Dataset:
    """Tabulate a choice; see `LawChoice.table`."""
    laws = _laws(choice)
    noise = {"units": "time/sample", "long_name": "noise η/B"}
    times, limit = median_times(choice.exits)
    x = choice.exits.conditions
    noisy = x[x > 0]
    fine = np.geomspace(noisy.min(), noisy.max(), _POINTS) if noisy.size else np.full(_POINTS, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        curves = [choice.fits[n].median(fine) for n in choice.fits]
    time = {"units": "time", "long_name": "median escape time"}
    return xr.Dataset(
        laws
        | {
            "median_exit_time": ("noise", times, time),
            "lower_limit": ("noise", limit, {"units": "1", "long_name": "median is a lower limit"}),
            "longest_time": ("noise", _longest(choice.exits), {"units": "time", "long_name": "longest time seen"}),
            "n_escaped": ("noise", choice.exits.n_escaped, describe("n_escaped")),
            "n_replicas": ("noise", choice.exits.n, describe("n_replicas")),
            "fitted_median": (("law", "curve_noise"), np.reshape(curves, (len(curves), fine.size)), time),
        },
        coords={
            "law": ("law", np.array(list(choice.fits), dtype=str)),
            "noise": ("noise", x, noise),
            "curve_noise": ("curve_noise", fine, noise),
        },
        attrs={
            "verdict": choice.verdict, "reason": choice.reason, "best": choice.best, "misfit": choice.misfit,
            "level": choice.level,
        },
    )  # fmt: skip


def _laws(choice: LawChoice) -> dict[str, tuple[str, Array, Mapping[str, str]]]:
    """Columns of one row a law."""
    own, fits = {r.rival: r for r in choice.rivalries}, choice.fits
    weights = choice.akaike_weights() if fits else {}
    columns = {
        "log_likelihood": ("log likelihood", [fit.log_likelihood for fit in fits.values()]),
        "n_parameters": ("fitted parameters", [fit.n_parameters for fit in fits.values()]),
        "aic": ("Akaike's information criterion", [fit.aic for fit in fits.values()]),
        "akaike_weight": ("relative likelihood", [weights[n] for n in fits]),
        "p_value": ("p-value of the rival", [own[n].p_value if n in own else math.nan for n in fits]),
        "power": ("power against the rival", [own[n].power if n in own else math.nan for n in fits]),
    }
    return {
        name: ("law", np.array(values), {"units": "1", "long_name": long_name})
        for name, (long_name, values) in columns.items()
    }


def _longest(exits: ExitTimes) -> Array:
    longest = np.zeros(exits.conditions.size)
    np.maximum.at(longest, exits.index, exits.exit_time)
    return longest
