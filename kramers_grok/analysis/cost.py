r"""What an answer costs: steps of all replicas for a given relative error of the mean exit time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.least_squares import LinearFit, linear_fit
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import describe, validate_splitting_dataset

__all__ = ["CostFit", "cost_exponent", "splitting_cost"]

Array = NDArray[np.float64]


def splitting_cost(runs: Iterable[xr.Dataset], barrier: float, *, relative_error: float = 0.1) -> xr.Dataset:
    r"""Cost of splitting at each run's barrier, and of brute force beside it.

    A run of relative error s that took n steps of replicas gives the relative error :math:`\delta` for
    :math:`n s^2/\delta^2` steps. Brute force needs :math:`1/\delta^2` escapes of one mean exit time each.

    Parameters
    ----------
    runs : iterable of Dataset
        From `splitting`, of one system at several temperatures.
    barrier : float
        ΔF [loss].
    relative_error : float
        δ.

    Returns
    -------
    xarray.Dataset
        ``cost``, its relative error ``cost_error`` and ``brute_force_cost`` [steps] along ``run``, with the
        coordinate ``barrier_over_temperature``, ascending.

    Raises
    ------
    InvalidParameterError
        If there is no run, or one without temperature, step or its number of steps.
    """
    goal = checks.fraction("relative_error", relative_error)
    height = checks.positive("barrier", barrier)
    rows = []
    for ds in runs:
        ds = validate_splitting_dataset(ds)
        missing = [name for name in ("temperature", "dt", "replica_steps") if name not in ds.variables]
        if missing:
            raise InvalidParameterError(
                f"a run lacks `{'`, `'.join(missing)}`, it holds {sorted(map(str, ds.variables))}.\n"
                "Make it with `splitting(process, target=..., seed=...)`."
            )
        mean, error = float(ds["mean_exit_time"]), float(ds["standard_error"])
        # The error is itself estimated, from so many repeats
        spread = np.sqrt(2.0 / max(ds.sizes["repeat"] - 1, 1))
        cost = float(ds["replica_steps"]) * (error / mean / goal) ** 2
        rows.append((height / float(ds["temperature"]), cost, spread, mean / float(ds["dt"]) / goal**2))
    if not rows:
        raise InvalidParameterError("`runs` is empty, expected at least one run.\nUse `splitting_cost([ds], height)`.")
    ratio, cost_, spread_, brute = np.array(sorted(rows)).T
    error_label = {"units": "1", "long_name": "relative error of the cost"}
    return xr.Dataset(
        {
            "cost": ("run", cost_, describe("cost")),
            "cost_error": ("run", spread_, error_label),
            "brute_force_cost": ("run", brute, describe("brute_force_cost")),
        },
        coords={"barrier_over_temperature": ("run", ratio, describe("barrier_over_temperature"))},
        attrs={"relative_error": goal},
    )


@dataclass(frozen=True, eq=False)
class CostFit:
    """Power law cost = c (ΔF/T)^p.

    Attributes
    ----------
    fit : LinearFit
        Of (ln c, p).
    """

    fit: LinearFit

    @property
    def exponent(self) -> float:
        """Exponent p."""
        return float(self.fit.coefficients[1])

    @property
    def standard_error(self) -> float:
        """Standard error of the exponent."""
        return float(self.fit.standard_errors[1])

    def predict(self, barrier_over_temperature: ArrayLike) -> Array:
        """Fitted cost [steps]."""
        x = checks.finite_array("barrier_over_temperature", barrier_over_temperature)
        return np.asarray(np.exp(self.fit.coefficients[0] + self.exponent * np.log(x)))


def cost_exponent(table: xr.Dataset) -> CostFit:
    """Fit a power law to the cost of `splitting_cost`, each point weighted by its relative error.

    Raises
    ------
    InvalidParameterError
        Fewer than two different barriers.

    Examples
    --------
    >>> x = np.array([10.0, 15.0, 20.0])
    >>> columns = {"cost": ("run", 7.0 * x**2), "cost_error": ("run", np.full(3, 0.3))}
    >>> fit = cost_exponent(xr.Dataset(columns, coords={"barrier_over_temperature": ("run", x)}))
    >>> round(fit.exponent, 9), round(fit.standard_error, 2)
    (2.0, 0.61)
    """
    x = checks.finite_array("barrier_over_temperature", table["barrier_over_temperature"].values, ndim=1)
    if np.unique(x).size < 2:
        raise InvalidParameterError(
            f"the table has {np.unique(x).size} different barrier(s), expected at least 2: an exponent is a slope.\n"
            "Add a run at another temperature."
        )
    design = np.stack([np.ones_like(x), np.log(x)], axis=1)
    return CostFit(linear_fit(design, np.log(table["cost"].values), table["cost_error"].values))
