"""Evidence: where features appear and disappear on ramps of the weight decay, and what designed schedules gain.

Run with ``make evidence NAME=ramps``. Every cell is one direction at one temperature, with all ramp rates, or one
comparison of schedules; finished cells are kept, so the same command resumes, and the small
``evidence/ramps/table.nc`` is committed. Same code and same predictions as the arms ``ramp`` and ``control`` of the
main job, over wider ranges: temperatures over a factor of four and rates over a factor of thirty, from slow to too fast
for the adiabatic approximation; peaks of the learning rate of 1.5 and 3 times the final one.

The Kolmogorov–Smirnov tests are 24, each held at 1e-4: at most 0.24 % that any of them raises a false alarm.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import xarray as xr
from rich.progress import Progress

from kramers_grok.core.schema import describe
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.reproduction import control, ramp
from kramers_grok.studies.running.cells import Cell, execute, one_thread

TEMPERATURES = (0.001, 0.002, 0.004)
RATES = (3e-5, 1e-4, 3e-4, 1e-3)
PEAKS = (1.5, 3.0)
N_REPLICAS = 1024
QUANTILES = np.linspace(0.05, 0.95, 19)
BASE = {
    "chain": [3, 1.0],
    "lr": 0.1,
    "batch_size": 64,
    "label_noise": 0.1,
    "rates": list(RATES),
    "n_replicas": N_REPLICAS,
    "ratio_nodes": 3,
}


def ramp_cells() -> list[Cell]:
    """All temperatures and both directions."""
    return [
        Cell("ramp", BASE | {"temperature": heat, "direction": direction}, partial(ramp.measure, "cpu"), cost=10)
        for heat in TEMPERATURES
        for direction in ramp.ENDS
    ]


def control_cells() -> list[Cell]:
    """All peaks of the learning rate."""
    base = {
        "chain": [3, 1.0, 0.25],
        "label_noise": 0.1,
        "n_steps": 6000,
        "n_replicas": 2 * N_REPLICAS,
        "turn_weight_decay": True,
    }
    return [Cell("control", base | {"peak": peak}, partial(control.measure, "cpu"), cost=5) for peak in PEAKS]


def condensed(runs: xr.Dataset) -> xr.Dataset:
    """Means, spreads and quantiles of the λ at the escape, measured and predicted, instead of every replica."""
    at, left = runs["weight_decay_at_exit"], runs["escaped"].astype(bool)
    down = float(runs["weight_decay"][-1]) < float(runs["weight_decay"][0])
    order = -1 if down else 1
    measured = np.sort(order * at.values, axis=-1)
    number = np.rint(QUANTILES * at.sizes["replica"]).astype(int)
    predicted = np.empty((*at.shape[:-1], QUANTILES.size))
    for index in np.ndindex(predicted.shape[:-1]):
        gone = 1 - runs["driven_survival"].values[index]
        predicted[index] = np.interp(QUANTILES, np.maximum.accumulate(gone), runs["weight_decay"].values)
    dims = (*at.dims[:-1], "quantile")
    small = runs.drop_vars([v for v in runs.data_vars if "survival" in str(v) or "replica" in runs[v].dims])
    return (
        small.drop_vars("weight_decay")
        .assign(
            mean=at.mean("replica").assign_attrs(describe("weight_decay_at_exit")),
            standard_error=at.std("replica", ddof=1) / at.sizes["replica"] ** 0.5,
            spread=at.std("replica", ddof=1),
            n_escaped=left.sum("replica"),
            quantiles=(dims, order * measured[..., number]),
            driven_quantiles=(dims, predicted),
        )
        .assign_coords(quantile=QUANTILES)
    )


def tables(ramps: Sequence[xr.Dataset], controls: Sequence[xr.Dataset]) -> xr.DataTree:
    """Put everything in one small tree."""
    down, up = (xr.concat(ramps[i::2], dim="temperature", combine_attrs="override") for i in (0, 1))
    schedules = xr.concat(
        [c.drop_vars(["learn_step", "escaped"]).assign_coords(peak=p) for p, c in zip(PEAKS, controls, strict=True)],
        dim="peak",
        combine_attrs="override",
    )
    groups = {"/down": condensed(down), "/up": condensed(up), "/loops": ramp.loops(up, down), "/schedules": schedules}
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"n_replicas": N_REPLICAS, "lr": 0.1, "batch_size": 64}), **groups}
    )


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/ramps")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    first, second = ramp_cells(), control_cells()
    store = Store(args.out, {"temperatures": list(TEMPERATURES), **BASE}, name="ramps")
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(first) + len(second))
        found = execute(store, [*first, *second], seed=0, executor=pool, finished=lambda _: bar.advance(task))
    tree = tables(found[: len(first)], found[len(first) :])
    for direction in ("down", "up"):
        runs = tree[direction].to_dataset()
        z = (runs["mean"] - runs["driven_mean"]) / runs["standard_error"]
        print(f"{direction}: deviation from the prediction with lag, in standard errors, and its p-values")
        for i, heat in enumerate(runs["temperature"].values):
            print(
                f"  T = {heat:g}: ",
                *(f"{v:+.1f} ({p:.2g})" for v, p in zip(z[i].values, runs["driven_p_value"][i].values, strict=True)),
            )
    write_netcdf(tree, f"{args.out}/table.nc")


if __name__ == "__main__":
    main()
