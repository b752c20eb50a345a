"""Evidence: what the documentation quotes of the main job, in its full form.

Run with ``make evidence NAME=main_job``. The arms named below are run as ``make reproduce`` runs them, into
``--results``, where finished cells are kept: the same command resumes, and what ``make reproduce`` has finished is
only read. The small ``evidence/main_job/table.nc`` is committed: of every arm what its summary says, not its curves.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.studies.files.store import write_netcdf
from kramers_grok.studies.reproduction import returns
from kramers_grok.studies.reproduction.job import reproduce
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.reproduction.stairs import Descent
from kramers_grok.studies.running.cells import one_thread
from kramers_grok.theory.feature_radial import feature_radial_rate, left_out
from kramers_grok.theory.rates import eyring_kramers_rate

ARMS = ("grokking", "subsampling", "hysteresis", "states", "forgetting")
# Staircases of the full job.
RETURNS: dict[str, dict[str, Any]] = {
    "/return_stairs": returns.CLIMB | {"stairs": returns.STAIRS, "lr": returns.LR},
    "/return_digits": returns.DIGITS | {"stairs": returns.DIGITS_STAIRS},
}
LONG = ("replica", "exit_replica", "time", "still_time", "weight_decay", "layer")  # dimensions of what is left out


def errors(run: xr.Dataset) -> dict[str, xr.DataArray]:
    """Mean errors while a spurious feature is held and once it is gone, each a few relaxation times 1/λ later."""
    settling = 5 / float(run.weight_decay)
    held = (run.time > settling) & (run.time < run.exit_time)
    gone = run.time > run.exit_time + settling
    return {
        f"{kind}_{when}": run[f"{kind}_loss"].where(those).mean()
        for kind in ("train", "test")
        for when, those in (("before", held), ("after", gone))
    }


def small(data: xr.Dataset) -> xr.Dataset:
    """Sum up what is known of each replica, and leave the columns of replicas, times and steps of λ out."""
    more = {}
    if "spurious" in data:
        more = errors(data)
    elif "test_loss" in data:
        gap = (data.test_loss - data.train_loss).mean("replica")
        more = {"largest_gap": gap.max() / data.test_loss.isel(time=0).mean()}
    if "escaped" in data and data.escaped.ndim == 1:
        more |= {"n_escaped": data.escaped.sum(), "n_replicas": xr.DataArray(data.escaped.size)}
    data = data.assign(more)
    kept = data.drop_vars([name for name in data.variables if set(data[name].dims) & set(LONG)])
    kept.attrs = {k: v for k, v in data.attrs.items() if k != "configuration"}
    return kept


def at_the_return(rows: xr.Dataset, config: Mapping[str, Any]) -> dict[str, tuple[str, list[float]]]:
    """What the predicted interval of a staircase holds, at the λ at which each feature returns."""
    descent, found = Descent(config), []
    for rank in range(rows.sizes["feature"]):
        network = descent.theory(float(np.exp(rows.mean_log[rank])))
        rate, stepped = (
            feature_radial_rate(network, descent.temperature, rank, step=step, warn=False) for step in (0.0, descent.lr)
        )
        gaussian = eyring_kramers_rate(network.barrier(rank), descent.temperature, warn=False)
        heat = 0.0
        if descent.data is not None:
            heat = network.heating(rank, descent.data.x, descent.data.y) / descent.temperature
            heat *= descent.lr / int(config["batch_size"])
        found.append(
            {
                "input_variance": network.mode(rank).input_variance,
                "radial_barrier_over_temperature": rate.barrier_over_temperature,
                "slowed_by_step": 1 - stepped.value / rate.value,
                "slowed_by_heat": heat,
                "left_out": left_out(network, descent.temperature, rank),
                "gaussian_over_radial": gaussian.value / rate.value,
            }
        )
    return {key: ("feature", [float(row[key]) for row in found]) for key in found[0]}


def tables(name: str, tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Tables that are kept of an arm; runs that differ in η/B alone are rows of one."""
    if name == "states":
        return {"/": tree["table"].to_dataset()}
    rows = {"grokking": "/run", "subsampling": "/gain/"}.get(name, "?")
    found, runs = {}, []
    for node in tree.subtree:
        if node.path.startswith(rows):
            runs.append(small(node.to_dataset()))
        elif node.has_data or node.path == "/":
            found[node.path] = small(node.to_dataset())
    for path, config in RETURNS.items() if name == "hysteresis" else ():
        found[path] = (
            found[path].assign(at_the_return(found[path], config)).assign_attrs(n_stairs=len(config["stairs"]))
        )
    if runs:
        found["/runs"] = xr.concat(runs, dim="run", coords="all", compat="equals", combine_attrs="drop_conflicts")
    return found


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/main_job")
    parser.add_argument("--results", default="results", help="where the main job keeps its cells")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        trees = reproduce(args.results, settings=Settings.make(seed=0, quick=False), arms=ARMS, executor=pool)
    whole = {f"/{name}{path.rstrip('/')}": rows for name in trees for path, rows in tables(name, trees[name]).items()}
    Path(args.out).mkdir(parents=True, exist_ok=True)
    write_netcdf(xr.DataTree.from_dict(whole), f"{args.out}/table.nc")
    print(f"{args.out}/table.nc holds {', '.join(ARMS)}")


if __name__ == "__main__":
    main()
