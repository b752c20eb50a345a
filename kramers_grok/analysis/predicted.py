"""A predicted exit time as a table, and the survival function back from it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.survival import PredictedExit, SurvivalFunction
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import describe, package_version

__all__ = ["predicted_dataset", "predicted_survival"]


def predicted_dataset(theory: PredictedExit, times: ArrayLike | None = None, *, until: float = 0.0) -> xr.Dataset:
    """Tabulate a predicted exit time: its mean and its survival curve.

    Parameters
    ----------
    theory : PredictedExit
        Has ``mean`` and ``survival(t)``; ``temperature``, ``relative_error``, ``method`` are kept if there.
    times : array, shape (time,), optional    [time]
        Where to tabulate; by default 0 and 400 times from mean/1000 to the later of 10 means and `until`.
    until : float    [time]
        Last time that the default table must reach, e.g. the longest horizon.

    Returns
    -------
    xarray.Dataset
        ``mean_exit_time``, ``relative_error`` and ``survival(time)``.
    """
    mean = checks.positive("theory.mean", theory.mean)
    if times is None:
        last = max(10.0 * mean, until)
        grid = np.concatenate([[0.0], np.geomspace(1e-3 * mean, last, 400)])
        grid[-1] = last
    else:
        grid = checks.finite_array("times", times, ndim=1)
    survival = np.clip(np.asarray(theory.survival(grid), dtype=np.float64), 0.0, 1.0)
    error = getattr(theory, "relative_error", None)
    ds = xr.Dataset(
        {
            "mean_exit_time": ((), mean, describe("mean_exit_time")),
            "relative_error": ((), 0.0 if error is None else float(error), describe("relative_error")),
            "survival": ("time", survival, describe("survival")),
        },
        coords={"time": ("time", grid, describe("time")), "engine": ((), "theory", describe("engine"))},
        attrs={"kramers_grok_version": package_version(), "method": str(getattr(theory, "method", "unspecified"))},
    )
    temperature = getattr(theory, "temperature", None)
    if temperature is not None:
        ds = ds.assign_coords(temperature=((), float(temperature), describe("temperature")))
    return ds


def predicted_survival(ds: xr.Dataset) -> SurvivalFunction:
    """Return S(t) from a tabulated curve, linear in (t, ln S); after its last time it falls exponentially.

    Examples
    --------
    >>> t = np.linspace(0, 5, 11)
    >>> ds = xr.Dataset({"survival": ("time", np.exp(-t))}, coords={"time": t})
    >>> np.allclose(predicted_survival(ds)(np.array([0.1, 7.0])), np.exp([-0.1, -7.0]))
    True
    """
    if "survival" not in ds.variables or "time" not in ds.variables:
        raise InvalidParameterError(
            f"the theory has no `survival(time)`, it holds {sorted(map(str, ds.variables))}.\n"
            "Make it with `predicted_dataset(exit_time(...))`."
        )
    t = checks.finite_array("time", ds["time"].values, ndim=1)
    survival = checks.finite_array("survival", ds["survival"].values, ndim=1)
    # Beyond the last digits of S its logarithm is noise; there the slowest exponential takes over.
    good = survival > 1e-10
    t, log_survival = t[good], np.log(survival[good])
    tail = 0.0
    if t.size > 1:
        half = int(np.searchsorted(-log_survival, 0.5 * -log_survival[-1]))
        half = min(half, t.size - 2)
        tail = float((log_survival[-1] - log_survival[half]) / (t[-1] - t[half]))

    def curve(x: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.interp(x, t, log_survival)
        beyond = np.maximum(x - t[-1], 0.0) * min(tail, 0.0)
        return np.asarray(np.exp(inside + beyond))

    return curve
