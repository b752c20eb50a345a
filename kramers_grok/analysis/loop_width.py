"""The measured width of a hysteresis loop, beside which `kramers_grok.theory.ramps` puts a predicted one."""

from __future__ import annotations

import math

import scipy.stats
import xarray as xr

from kramers_grok.analysis.survival import Estimate
from kramers_grok.core import checks
from kramers_grok.core.exceptions import TooFewEscapesError

__all__ = ["hysteresis_width"]


def hysteresis_width(up: xr.Dataset, down: xr.Dataset, confidence: float = 0.95) -> Estimate:
    r"""Measure the width of a hysteresis loop: mean λ at disappearance minus mean λ at appearance.

    Parameters
    ----------
    up, down : Dataset
        From `kramers_grok.escape.protocols.ramp`, in the two directions.
    confidence : float
        Of Student's interval.

    Returns
    -------
    Estimate
        In units of the weight decay, over the replicas that left.

    Raises
    ------
    TooFewEscapesError
        If more than 1 % of the replicas in a direction never left, or fewer than two did: a mean over those that left
        would be biased.

    Examples
    --------
    >>> def run(values):
    ...     return xr.Dataset({"weight_decay_at_exit": ("replica", values), "escaped": ("replica", [True, True])})
    >>> round(hysteresis_width(run([0.45, 0.47]), run([0.2, 0.22])).value, 6)
    0.25
    """
    confidence = checks.fraction("confidence", confidence)
    means, variances, degrees = [], [], []
    for name, run in (("up", up), ("down", down)):
        left = run["escaped"].values.astype(bool)
        if left.sum() < 2 or left.mean() < 0.99:
            raise TooFewEscapesError(
                f"{int(left.sum())} of {left.size} replicas left on the way {name}, expected 99 %: the mean over these "
                "alone would be biased.\nRamp further, to where every replica leaves.",
                result=run,
            )
        values = run["weight_decay_at_exit"].values[left]
        means.append(float(values.mean()))
        variances.append(float(values.var(ddof=1) / values.size))
        degrees.append(values.size - 1)
    error = math.sqrt(sum(variances))
    width = means[0] - means[1]
    n = sum(degrees) + 2
    reach = float(scipy.stats.t.ppf(0.5 + confidence / 2, min(degrees))) * error
    method = "difference of mean λ at exit, Student interval"
    return Estimate(width, width - reach, width + reach, error, n, n, method, confidence)
