"""Evidence: splitting gives what waiting gives, where waiting is possible.

Run with ``make evidence NAME=splitting_brute_force``: mode, chain and a matrix network at ΔF/T = 6 to 9, Langevin
dynamics and SGD with true minibatches and per-sample noise; 1024 escapes waited for beside one splitting run with other
noise. Both sides share the step and nothing else. Finished cells are kept, so the same command resumes; the small
``evidence/splitting_brute_force/table.nc`` is committed.

False alarm: one χ² of all 24 differences, 1e-3. Power: a difference of 2 % throughout is 2.5 standard errors of its
mean, and one of 20 % in a single cell is 5 of its own.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress
from scipy import stats

import kramers_grok as kg
from kramers_grok.core.schema import describe
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread

STEP, BATCH, DECAY = 0.1, 64, 0.25
RATIOS = (6.0, 7.0, 8.0, 9.0)
WAITED, N_REPLICAS, N_REPEATS = 1024, 1024, 32
HORIZON = 25.0  # in splitting's mean times; e^-25 of the replicas would be left
CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=DECAY)
NETWORK = kg.DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=DECAY)
SYSTEMS = {"mode": CHAIN.mode, "chain": CHAIN, "matrix-2": NETWORK}
HEIGHT, TARGET = CHAIN.barrier().height, kg.beyond(CHAIN.barrier())


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Wait for escapes, and split."""
    system, temperature = SYSTEMS[config["system"]], HEIGHT / config["ratio"]
    process: kg.Langevin | kg.SGD
    if config["engine"] == "langevin":
        process = kg.Langevin(system, temperature=temperature, dt=STEP)
    else:
        noise = kg.per_sample(temperature=temperature)
        process = kg.SGD(system, kg.teacher(label_noise=0.1), lr=STEP, batch_size=BATCH, noise=noise)
    first, second = (int(s) for s in np.random.SeedSequence(seed).generate_state(2, np.uint64))
    found = kg.splitting(process, target=TARGET, n_replicas=N_REPLICAS, n_repeats=N_REPEATS, seed=first)
    horizon = HORIZON * float(found.mean_exit_time)
    waited = kg.mean_exit_time(
        kg.first_passage(process, target=TARGET, n_replicas=WAITED, max_time=horizon, seed=second, bridge=False)
    )
    columns = {
        "splitting": (found.mean_exit_time, found.standard_error),
        "waited": (waited.value, waited.standard_error),
    }
    data = {}
    for name, (value, error) in columns.items():
        data[name] = ((), float(value), describe("mean_exit_time"))
        data[f"{name}_error"] = ((), float(error), describe("standard_error"))
    return xr.Dataset(data)


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/splitting_brute_force")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"waited": WAITED, "n_replicas": N_REPLICAS, "step": STEP}, name="splitting_brute_force")
    keys = [{"system": s, "engine": e, "ratio": r} for s in SYSTEMS for e in ("langevin", "sgd") for r in RATIOS]
    cells = [Cell("both", key, run, cost=math.exp(float(key["ratio"]))) for key in keys]  # type: ignore[arg-type]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    table = xr.concat(runs, dim="run")
    for name in ("system", "engine", "ratio"):
        table[name] = ("run", [key[name] for key in keys])
    ratio = table.splitting / table.waited
    error = np.hypot(table.splitting_error / table.splitting, table.waited_error / table.waited)
    z = np.log(ratio) / error
    table["difference_se"] = ("run", z.values, describe("difference_se"))
    write_netcdf(table, f"{args.out}/table.nc")
    for i, key in enumerate(keys):
        print(
            f"{key['system']:9} {key['engine']:9} ΔF/T = {key['ratio']:g}: waited {float(table.waited[i]):9.1f}, "
            f"splitting / waited {float(ratio[i]):.3f} ± {float(error[i]):.3f}"
        )
    chi_square = float((z**2).sum())
    weight = 1 / error**2
    mean, spread = float((weight * ratio).sum() / weight.sum()), float(weight.sum() ** -0.5)
    p = float(stats.chi2.sf(chi_square, z.size))
    print(f"χ² = {chi_square:.1f} on {z.size}, p = {p:.3f}; mean ratio {mean:.4f} ± {spread:.4f}")


if __name__ == "__main__":
    main()
