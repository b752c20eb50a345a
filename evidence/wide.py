"""Evidence: escape from the trap in wide layers, 8 and 16 hidden units, against full-weight-space rates.

Run with ``make evidence NAME=wide``: SGD with true minibatches and per-sample noise, and Langevin dynamics, until they
escape. Finished cells are kept, so the same command resumes; the small ``evidence/wide/table.nc`` is committed.
λ = 1/4, D = 3. The trap has a barrier only above ΔF/T = 14.1 at 8 units and 30.2 at 16.

The prediction is the radial free energy's rate with the step's and the minibatches' first order; it shares the energy
with the simulation and nothing else. Beside it stand Eyring–Kramers with the orbit of saddles and the chain of three
scalar weights: the controls that the comparison must refuse.
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

import kramers_grok as kg
from kramers_grok.core.schema import describe
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.reproduction import wide
from kramers_grok.studies.reproduction.runs import table
from kramers_grok.studies.running.cells import Cell, execute, one_thread

LABEL_NOISE = 0.1
CAP = 40_000.0
# Hidden width, engine, η, then ΔF/T and replicas. Two hundred and eighty-eight weights have no compiled kernel.
RUNS: list[tuple[int, str, float, dict[float, int]]] = [
    (8, "sgd", 0.2, {16: 2048, 18: 2048, 20: 2048, 22: 2048, 24: 1024, 26: 512, 28: 256}),
    (8, "sgd", 0.1, {20: 2048, 22: 1024, 24: 512}),
    (8, "sgd", 0.4, {20: 2048, 22: 2048, 24: 1024}),
    (8, "langevin", 0.2, {20: 2048, 22: 2048, 24: 1024}),
    (16, "sgd", 0.2, {34: 512, 36: 512, 38: 384, 40: 256}),
    (16, "sgd", 0.4, {38: 384, 40: 256, 42: 128}),
]
HORIZON = {8: 10.0, 16: 4.0}  # predicted mean times


def temperature_of(key: Mapping[str, Any]) -> float:
    """T = η g²/(2B)."""
    return float(key["lr"]) * wide.NOISE_VARIANCE / (2 * wide.batch_for(float(key["ratio"]), float(key["lr"])))


def predicted(key: Mapping[str, Any]) -> dict[str, float]:
    """What theory says of one case."""
    h, lr = int(key["width"]), float(key["lr"])
    noise = wide.minibatch(lr, wide.batch_for(float(key["ratio"]), lr), LABEL_NOISE) if key["engine"] == "sgd" else None
    return wide.predictions((1, h, h, 1), temperature_of(key), step=lr, noise=noise)


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Wait for the escapes of one case."""
    h, lr = int(config["width"]), float(config["lr"])
    model = wide.network((1, h, h, 1))
    process: kg.SGD | kg.Langevin
    if config["engine"] == "langevin":
        process = kg.Langevin(model, temperature=temperature_of(config), dt=lr, device="cpu")
    else:
        data, noise = kg.teacher(label_noise=LABEL_NOISE), kg.per_sample(variance=wide.NOISE_VARIANCE)
        batch_size = wide.batch_for(float(config["ratio"]), lr)
        process = kg.SGD(model, data, lr=lr, batch_size=batch_size, noise=noise, device="cpu")
    n = int(config["n_replicas"])
    return wide.beside(process, model, predicted(config), n_replicas=n, cap=CAP, horizon=HORIZON[h], seed=seed)


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/wide")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    keys = [
        {"width": h, "engine": engine, "lr": lr, "ratio": float(ratio), "n_replicas": n}
        for h, engine, lr, line in RUNS
        for ratio, n in line.items()
    ]
    cells = [Cell("wide", key, run, cost=float(key["n_replicas"]) * math.exp(0.6 * key["ratio"])) for key in keys]  # type: ignore[arg-type, operator]
    store = Store(args.out, {"cap": CAP, "label_noise": LABEL_NOISE, "noise": wide.NOISE_VARIANCE}, name="wide")
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    found = table(runs, ("width",))
    # Theory anew: cells are runs, and outlive a better formula.
    theory = [predicted(key) for key in keys]
    for name, (units, long_name) in wide.COLUMNS.items():
        found[name] = ("run", [row[name] for row in theory], {"units": units, "long_name": long_name})
    difference = (found.mean_exit_time - found.predicted_mean) / found.standard_error
    found["difference_se"] = ("run", difference.values, describe("difference_se"))
    found["process"] = ("run", [key["engine"] for key in keys], {"units": "1", "long_name": "process"})
    found["step"] = ("run", [key["lr"] for key in keys], {"units": "time", "long_name": "η or time step"})
    found.attrs = {"weight_decay": wide.WEIGHT_DECAY, "noise_variance": wide.NOISE_VARIANCE, "cap": CAP}
    write_netcdf(found, f"{args.out}/table.nc")
    ratio = found.mean_exit_time / found.predicted_mean
    error = found.standard_error / found.predicted_mean
    for i, key in enumerate(keys):
        print(
            f"h = {key['width']:2} {key['engine']:8} η = {key['lr']:g} ΔF/T = {key['ratio']:g}: "
            f"{float(found.mean_exit_time[i]):9.1f}, over prediction {float(ratio[i]):.3f} ± {float(error[i]):.3f}, "
            f"over Eyring–Kramers {float(found.mean_exit_time[i] / found.eyring_kramers[i]):.2f}"
        )
    fair = np.isfinite(error.values) & (found.valid.values > 0)
    weight = error.values[fair] ** -2
    mean = float((weight * ratio.values[fair]).sum() / weight.sum())
    print(f"where the radial rate says it holds: mean ratio {mean:.3f} ± {float(weight.sum()) ** -0.5:.3f}")


if __name__ == "__main__":
    main()
