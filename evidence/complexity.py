"""Evidence: hysteresis grows with complexity, by features, by the data's dimension, and at two depths.

Run with ``make evidence NAME=complexity``. Every cell is one loop, up and down in weight decay by full-batch gradient
descent without noise (λ-steps of 2 %, each step with a jump halved four times); finished cells are kept, so the same
command resumes, and the small ``evidence/complexity/table.nc`` is committed.

Teachers have singular values σ_k = 1.5 · 0.93^k, inputs are white; data are the digits' first d principal components as
an autoencoder. All loops of a family begin at one λ, below the weakest feature's spinodal: areas then add up.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.reproduction.hysteresis import complexity_row, digits_loop, principal_components, teacher_loop
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.phases import FeatureSpectrum

SIGMA = tuple(1.5 * 0.93**k for k in range(8))
COUNTS = (1, 2, 4, 6, 8)
DEPTHS = (3, 4)
DIMENSIONS = (1, 2, 4, 8, 12)
LOWEST = 0.95
STEPS = {"step": 0.02, "bisections": 4}


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Measure one loop."""
    if "dimension" in config:
        data, d = principal_components(config["dimension"]), config["dimension"]
        variances = principal_components(max(DIMENSIONS)).input_covariance
        low = LOWEST * float(FeatureSpectrum.from_covariance(variances).spinodals(3).min())
        return complexity_row(digits_loop(data, d, hidden=d + 1, lowest=low, seed=seed, **STEPS), "digits")
    depth, k = config["depth"], config["n_features"]
    low = LOWEST * float(FeatureSpectrum.from_teacher(SIGMA).spinodals(depth).min())
    return complexity_row(teacher_loop(SIGMA[:k], depth=depth, lowest=low, seed=seed, **STEPS), f"depth_{depth}")


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/complexity")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"sigma": SIGMA, "lowest": LOWEST, **STEPS}, name="complexity")
    groups = {f"depth_{d}": [{"depth": d, "n_features": k} for k in COUNTS] for d in DEPTHS}
    groups["digits"] = [{"dimension": d} for d in DIMENSIONS]
    cells = {name: [Cell("loop", c, run, max(c.values())) for c in group] for name, group in groups.items()}
    everything = [cell for group in cells.values() for cell in group]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(everything))
        results = execute(store, everything, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    found = dict(zip(map(id, everything), results, strict=True))
    tables = {}
    for name, group in cells.items():
        rows = xr.concat([found[id(c)] for c in group], dim="n_features", combine_attrs="drop_conflicts")
        tables[name] = rows
        worst = float(np.abs(rows.area / rows.predicted_area - 1).max())
        print(
            f"{name}: area × {float(rows.area[-1] / rows.area[0]):.2f} from 1 to {int(rows.n_features[-1])} features, "
            f"jumps {rows.n_jumps.values.tolist()}, areas within {worst:.2%} of the prediction, brackets within "
            f"{float(rows.worst_bracket.max()):.2%} of the spinodals"
        )
    write_netcdf(xr.DataTree.from_dict({f"/{k}": v for k, v in tables.items()}), f"{args.out}/table.nc")


if __name__ == "__main__":
    main()
