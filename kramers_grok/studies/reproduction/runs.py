"""What the arms share: one run beside its prediction, and runs gathered in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.compare import exit_time_table
from kramers_grok.analysis.hypotheses import ks_test
from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.process import Process
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.theory.exit_law import ExitTime

__all__ = ["measure", "table"]

HORIZON = 10.0  # predicted mean times; e^-10 of the replicas are censored


def measure(
    process: Process,
    predicted: ExitTime,
    *,
    target: Region,
    n_replicas: int,
    seed: int,
    start: Any = None,
    horizon: float | None = None,
    bridge: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Run a process to its escapes and put the prediction for the same process beside them."""
    run = first_passage(
        process,
        target=target,
        n_replicas=n_replicas,
        max_time=horizon if horizon is not None else HORIZON * predicted.mean,
        seed=seed,
        start=start,
        bridge=bridge,
    )
    for name, value in (extra or {}).items():
        run[name] = ((), value, {"units": "1", "long_name": name.replace("_", " ")})
    run["predicted_mean"] = ((), predicted.mean, {"units": "time", "long_name": "predicted mean exit time"})
    run["ks_p_value"] = ((), ks_test(run, predicted.survival).p_value, describe("ks_p_value"))
    return run


def table(runs: Sequence[xr.Dataset], columns: Sequence[str] = ()) -> xr.Dataset:
    """Gather runs: one row each with its estimate, interval, prediction and their difference in standard errors."""
    result = exit_time_table(runs, min_escapes=1)
    for name in ("predicted_mean", "ks_p_value", *columns):
        if all(name in run.data_vars for run in runs):
            result[name] = ("run", np.array([float(run[name]) for run in runs]), runs[0][name].attrs)
    if "predicted_mean" in result:
        z = (result["mean_exit_time"] - result["predicted_mean"]) / result["standard_error"]
        result["difference_se"] = ("run", z.values, describe("difference_se"))
    return result
