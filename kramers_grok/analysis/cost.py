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

__all__ = ["CostFit", "cost_exponent", "splitting_cost", "with_cost"]

Array = NDArray[np.float64]
_COST_ERROR = {"units": "1", "long_name": "relative error of the cost"}


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
    return xr.Dataset(
        {
            "cost": ("run", cost_, describe("cost")),
            "cost_error": ("run", spread_, _COST_ERROR),
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


def with_cost(table: xr.Dataset, *, relative_error: float = 0.1) -> xr.Dataset:
    """Return the cost of a study's cells that were made by splitting, along ``run``; a table with ``cost`` as it is.

    Parameters
    ----------
    table : Dataset
        ``mean_exit_time``, ``standard_error`` [time], ``replica_steps`` and ``barrier_over_temperature`` of any common
        dimensions; where there is ``method``, only cells of splitting count. With ``dt`` or ``lr`` [time] brute force
        is beside it.
    relative_error : float
        δ of `splitting_cost`.

    Examples
    --------
    >>> x = [5.0, 10.0]
    >>> columns = {"mean_exit_time": [1.0, 2.0], "standard_error": [0.2, 0.4], "replica_steps": [100.0, 200.0]}
    >>> table = xr.Dataset({n: ("run", v) for n, v in (columns | {"barrier_over_temperature": x}).items()})
    >>> with_cost(table).cost.round(6).values.tolist()
    [400.0, 800.0]
    """
    needed = ["mean_exit_time", "standard_error", "replica_steps", "barrier_over_temperature"]
    if "cost" in table.variables or any(name not in table.variables for name in needed):
        return table
    goal = checks.fraction("relative_error", relative_error)
    step = next((name for name in ("dt", "lr") if name in table.variables), None)
    held = {name: table[name] for name in (*needed, *([step] if step else []))}
    if "method" in table.variables:
        held["method"] = table["method"]
    flat = {name: np.ravel(a.values) for name, a in zip(held, xr.broadcast(*held.values()), strict=True)}
    mean, error, steps, ratio = (flat[name].astype(np.float64) for name in needed)
    kept = np.isfinite(mean) & np.isfinite(error) & (error > 0) & np.isfinite(steps) & np.isfinite(ratio)
    if "method" in flat:
        kept &= flat["method"].astype(str) == "splitting"
    order = np.flatnonzero(kept)[np.argsort(ratio[kept], kind="stable")]
    columns = {"cost": ("run", (steps * (error / mean / goal) ** 2)[order], describe("cost"))}
    if table.sizes.get("repeat", 0) > 1:
        spread = np.full(order.size, np.sqrt(2.0 / (table.sizes["repeat"] - 1)))
        columns["cost_error"] = ("run", spread, _COST_ERROR)
    if step:
        brute = (mean / flat[step].astype(np.float64) / goal**2)[order]
        columns["brute_force_cost"] = ("run", brute, describe("brute_force_cost"))
    coords = {"barrier_over_temperature": ("run", ratio[order], describe("barrier_over_temperature"))}
    return xr.Dataset(columns, coords=coords, attrs={"relative_error": goal})
