"""Evidence: how far the first-order step correction carries, for Langevin and SGD in the chain.

Run with ``make evidence NAME=step_size``: 16,384 replicas for each engine, barrier and step (minutes). Finished cells
are kept, so the same command resumes; the small ``evidence/step_size/table.nc`` is committed.

Measured over continuous exact time, against the step; beside it the prediction of the modified equation (its error is
O(step²)) and the straight-line extrapolation of the two smallest steps, which does not use it.
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import numpy as np
import xarray as xr
from rich.progress import track

import kramers_grok as kg
from kramers_grok.core.schema import describe
from kramers_grok.studies.files.store import Store, cell_seed, write_netcdf
from kramers_grok.studies.reproduction.runs import measure, table
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
BARRIER = CHAIN.barrier()
TARGET = kg.beyond(BARRIER)
RATIOS = (4.0, 6.0)
STEPS = (0.4, 0.2, 0.1)
LABEL_NOISE = 0.1
LR_OVER_BATCH = 0.1 / 32
N = 16384


def run(engine: str, ratio: float, step: float, seed: int) -> xr.Dataset:
    """Measure one cell beside its prediction, and note the continuous exact time."""
    temperature = BARRIER.height / ratio
    threads = os.cpu_count() or 1
    if engine == "langevin":
        integrator = kg.Fused(n_threads=threads)
        process = kg.Langevin(CHAIN, temperature=temperature, dt=step, integrator=integrator)
        noise = None
    else:
        process = kg.SGD(
            CHAIN,
            kg.teacher(label_noise=LABEL_NOISE),
            lr=step,
            batch_size=round(step / LR_OVER_BATCH),
            noise=kg.per_sample(temperature=temperature),
            n_threads=threads,
        )
        residual = GaussianResidualVariance(1.0, 1.0, LABEL_NOISE)
        noise = MinibatchNoise(lr_over_batch=LR_OVER_BATCH, residual_variance=residual)
    time = partial(kg.exit_time, CHAIN, temperature=temperature, target=TARGET, minibatch=noise)
    predicted = time(step=step, monitored=engine == "sgd")
    result = measure(process, predicted, target=TARGET, n_replicas=N, seed=seed, bridge=engine == "langevin")
    result["continuous_mean"] = ((), time().mean, {"units": "time", "long_name": "exact time for step 0"})
    return result


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/step_size")
    out = parser.parse_args().out
    store = Store(out, {"n_replicas": N, "lr_over_batch": LR_OVER_BATCH, "label_noise": LABEL_NOISE}, name="step_size")
    keys = [
        {"engine": engine, "ratio": ratio, "step": step}
        for engine in ("langevin", "sgd")
        for ratio in RATIOS
        for step in STEPS
    ]
    runs = [
        store.cell("escape", key, partial(run, **key, seed=cell_seed(0, key)))
        for key in track(keys, description="cells")
    ]
    rows = table(runs, ("continuous_mean",))
    rows["engine"] = ("run", [k["engine"] for k in keys], describe("engine"))
    rows["barrier_over_temperature"] = ("run", [k["ratio"] for k in keys], describe("barrier_over_temperature"))
    write_netcdf(rows, f"{out}/table.nc")
    print(f"{'engine':9} ΔF/T  step  measured/continuous  predicted/continuous  difference [s.e.]")
    for i, key in enumerate(keys):
        r = rows.isel(run=i)
        measured, predicted = (float(r[k] / r.continuous_mean) for k in ("mean_exit_time", "predicted_mean"))
        error = float(r.standard_error / r.continuous_mean)
        print(
            f"{key['engine']:9} {key['ratio']:4g} {key['step']:5g}  {measured:.4f} ± {error:.4f}      "
            f"{predicted:.4f}                {float(r.difference_se):+.2f}"
        )
    for engine in ("langevin", "sgd"):
        for ratio in RATIOS:
            pick = [i for i, k in enumerate(keys) if (k["engine"], k["ratio"]) == (engine, ratio)][-2:]
            (a, b), (ea, eb) = rows.mean_exit_time.values[pick], rows.standard_error.values[pick]
            exact = float(rows.continuous_mean[pick[0]])
            print(
                f"{engine:9} {ratio:4g}  extrapolated/continuous {(2 * b - a) / exact:.4f} ± "
                f"{np.hypot(2 * eb, ea) / exact:.4f}"
            )


if __name__ == "__main__":
    main()
