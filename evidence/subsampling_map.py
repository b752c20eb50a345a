"""Evidence: where training on a sub-sample gives the curve of grokking, measured and predicted.

Run with ``make evidence NAME=subsampling_map``. A network of three layers learns the identity on N samples of four
white inputs from zero weights, with minibatches without replacement and per-sample noise. For each N and η/B one
ensemble holds all weight decays; the mean train and test errors are judged by `GrokkingCriterion`, and so are the
predicted ones. Finished cells are kept, so the same command resumes; ``evidence/subsampling_map/table.nc`` is
committed.

The horizon is t = 1200: a curve whose escape comes later counts as none, in the prediction too. Batches of one sample
are left out: at this learning rate their steps are unstable in the mean square (with 16 and 64 samples they diverge).
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import xarray as xr
from rich.progress import Progress

from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.reproduction.subsampled import map_cell, where_it_exists
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.subsampling import GrokkingCriterion

SAMPLES = (4, 6, 8, 16, 64)
BATCHES = (2, 3)
BASE = {
    "n_inputs": 4,
    "draw": 0,
    "noise_variance": 0.014,
    "weight_decays": [0.0125, 0.025, 0.05, 0.1],
    "replicas": 12,
    "max_time": 1200.0,
    "points": 90,
}


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/subsampling_map")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"replicas": BASE["replicas"], "max_time": BASE["max_time"]}, name="subsampling_map")
    cells = [
        Cell("map", BASE | {"n_samples": n, "batch_size": b}, map_cell, cost=float(n)) for n in SAMPLES for b in BATCHES
    ]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    tree: dict[str, xr.Dataset] = {}
    table = gather(runs)
    for name in ("measured", "predicted"):
        print(f"{name}: {int(table[name].sum())} of {table[name].size}")
    print(f"agree in {int((table.measured == table.predicted).sum())}")
    tree["/verdicts"] = table
    for run in runs:
        tree[f"/curves/n{round(float(run.samples_per_input) * 4)}-b{int(run.batch_size)}"] = run.astype(np.float32)
    write_netcdf(xr.DataTree.from_dict(tree), f"{args.out}/table.nc")


def gather(runs: list[xr.Dataset]) -> xr.Dataset:
    """Put the verdicts on a grid of N/d, η/B and λ."""
    rows = [where_it_exists(run, GrokkingCriterion()) for run in runs]
    each = [row.drop_vars("lr").expand_dims(["samples_per_input", "batch_size"]) for row in rows]
    return xr.combine_by_coords(each, combine_attrs="drop_conflicts")


if __name__ == "__main__":
    main()
