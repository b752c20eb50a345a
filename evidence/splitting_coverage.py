"""Evidence: the intervals of splitting hold the exact mean as often as they say, at five barriers.

Run with ``make evidence NAME=splitting_coverage``: 100 runs of 16 repeats at each barrier of the balanced mode, beside
the exact mean exit time of its discrete chain, which shares the energy and the step with splitting and nothing else.
Finished cells are kept, so the same command resumes; the small ``evidence/splitting_coverage/table.nc`` is committed.

A run also gives the standard error that its interval leans on: it is compared with the scatter of the runs.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress
from scipy import stats

import kramers_grok as kg
from kramers_grok.core.exceptions import ValidityWarning
from kramers_grok.core.schema import describe
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.quadrature import Diffusion, Interval
from kramers_grok.theory.time_step import discrete_mean_exit

MODE = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
BARRIER = MODE.barrier()
TARGET = kg.beyond(BARRIER)
STEP = 0.1
RATIOS = (10.0, 15.0, 20.0, 25.0, 30.0)
BLOCKS, RUNS = 10, 10
N_REPLICAS, N_REPEATS = 512, 16
KEPT = ("mean_exit_time", "lower", "upper", "standard_error", "replica_steps")


def exact_time(ratio: float) -> float:
    """Exact mean exit time of the discrete chain."""
    landscape = MODE.landscape
    process = Diffusion(
        drift=lambda x: -landscape.gradient_at(np.asarray(x)[..., None])[..., 0],
        diffusion=BARRIER.height / ratio,
    )
    border = float(MODE.coordinate(TARGET.threshold))
    return discrete_mean_exit(process, Interval(start=0.0, upper=border), STEP).mean


def block(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Make some runs at one barrier."""
    process = kg.Langevin(MODE, temperature=BARRIER.height / config["ratio"], dt=STEP)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)  # an imprecise run counts like any other
        for key in np.random.SeedSequence(seed).generate_state(RUNS, np.uint64):
            ds = kg.splitting(process, target=TARGET, n_replicas=N_REPLICAS, n_repeats=N_REPEATS, seed=int(key))
            found.append([float(ds[name]) for name in KEPT])
    columns = {name: ("run", values, describe(name)) for name, values in zip(KEPT, np.array(found).T, strict=True)}
    return xr.Dataset(columns)


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/splitting_coverage")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    setting = {"n_replicas": N_REPLICAS, "n_repeats": N_REPEATS, "runs": RUNS, "step": STEP}
    store = Store(args.out, setting, name="splitting_coverage")
    cells = [Cell("runs", {"ratio": r, "block": b}, block, cost=r) for r in RATIOS for b in range(BLOCKS)]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        blocks = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    rows = xr.concat(blocks, dim="run")
    ratio = np.repeat([c.config["ratio"] for c in cells], RUNS)
    rows["barrier_over_temperature"] = ("run", ratio, describe("barrier_over_temperature"))
    exact = {r: exact_time(r) for r in RATIOS}
    label = {"units": "time", "long_name": "exact mean exit time of the discrete chain"}
    rows["exact_time"] = ("run", [exact[r] for r in ratio], label)
    rows.attrs = {**setting, "kramers_grok_version": kg.__version__}
    write_netcdf(rows, f"{args.out}/table.nc")
    report(rows)


def report(rows: xr.Dataset) -> None:
    """Print coverage and bias at each barrier, and joint coverage."""
    held = ((rows.lower <= rows.exact_time) & (rows.exact_time <= rows.upper)).values
    log = np.log(rows.mean_exit_time / rows.exact_time).values
    error = (rows.standard_error / rows.mean_exit_time).values
    print("ΔF/T  runs  covered of 95 %     mean of T/exact    scatter of ln T  mean standard error")
    for ratio in RATIOS:
        mine = rows.barrier_over_temperature.values == ratio
        n, k = int(mine.sum()), int(held[mine].sum())
        low, high = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
        mean = np.exp(log[mine])
        print(
            f"{ratio:4g}  {n:4d}  {k / n:.3f} [{low:.3f}, {high:.3f}]  {mean.mean():.4f} ± {mean.std() / n**0.5:.4f}  "
            f"{log[mine].std(ddof=1):.4f}           {np.sqrt((error[mine] ** 2).mean()):.4f}"
        )
    test = stats.binomtest(int(held.sum()), held.size, 0.95)
    low, high = test.proportion_ci(0.95, method="exact")
    print(f"all: {held.mean():.4f} [{low:.4f}, {high:.4f}], p = {test.pvalue:.3f} for 0.95")


if __name__ == "__main__":
    main()
