"""Evidence: the first figure of the README, and its table.

Run with ``make evidence NAME=at_a_glance``. Finished cells are kept, so the same command resumes; the small
``evidence/at_a_glance/table.nc`` is committed. Three panels, all against B/η:

- additive noise: the chain of three weights, Gaussian noise of one variance on every sample's gradient, at batch
  sizes from 4 to 64. The line is exact theory in continuous time, a function of B/η alone, with nothing fitted;
- minibatch noise alone: the rows of ``evidence/which_law/table.nc``, where nothing escapes above a threshold of B/η;
- learned → forgotten by minibatch noise alone: SGD and its diffusion limit, simulated and exact.

``--redraw`` only draws the figure and writes the README's table, from the committed results.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from at_a_glance_page import figure, insert, text
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.minibatch_sde import Minibatches
from kramers_grok.studies.files.store import Store, read_netcdf, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.discrete_chain import discrete_exit
from kramers_grok.theory.exit_times import Interval, ModeDynamics, exit_time, minibatch_mode_exit_time, sgd_exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.large_deviations import forgetting_actions
from kramers_grok.theory.minibatch import MinibatchNoise

DEPTH = 3
# Additive noise: λ, s; ΔF/T = (B/η)/80
CHAIN, LABELS = kg.DeepLinearChain(DEPTH, 1.0, 0.25), 0.1
RATIOS = (2.5, 3.0, 4.0, 5.0, 7.0)
BATCHES = (4, 16, 64)
PER_RATIO = 80.0
VARIANCE = 2 * PER_RATIO * CHAIN.barrier().height
# Forgetting: λ, s, ε = η/B; batch size 0 is the diffusion, in steps of DT
MODE, FORGETTING_LABELS = kg.Mode(DEPTH, 1.0, 0.41), 0.25
EPSILONS = (0.05, 1 / 30, 0.025, 0.02, 1 / 60, 1 / 70)
FORGETTING_BATCHES = (0, 2, 8)
DT = 0.05
N_REPLICAS = 1024


# ---------------------------------------------------------------- cells


def step_by_step(ratio: float, batch: int) -> float:
    """Exact mean time of the chain, with the first order of its steps and the minibatches' own noise."""
    x = PER_RATIO * ratio
    noise = MinibatchNoise(1 / x, GaussianResidualVariance(1.0, 1.0, LABELS))
    target, T = kg.beyond(CHAIN.barrier()), VARIANCE / (2 * x)
    return exit_time(CHAIN, temperature=T, target=target, step=batch / x, monitored=True, minibatch=noise).mean


def additive(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Escapes of the chain at one batch size and B/η, beside the exact mean for the same steps."""
    batch, lr = int(config["batch_size"]), config["batch_size"] / (PER_RATIO * config["ratio"])
    noise, predicted = kg.per_sample(variance=VARIANCE), step_by_step(config["ratio"], batch)
    process = kg.SGD(CHAIN, kg.teacher(label_noise=LABELS), lr=lr, batch_size=batch, noise=noise)
    target, n = kg.beyond(CHAIN.barrier()), config["n_replicas"]
    run = kg.first_passage(process, target=target, n_replicas=n, max_time=12 * predicted, seed=seed)
    return row(run, lr=lr, batch_size=batch, predicted_time=predicted)


def continuous(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Exact mean time of the chain in continuous time at one B/η; nothing is random."""
    x = PER_RATIO * config["ratio"]
    noise = MinibatchNoise(1 / x, GaussianResidualVariance(1.0, 1.0, LABELS))
    mean = exit_time(CHAIN, temperature=VARIANCE / (2 * x), target=kg.beyond(CHAIN.barrier()), minibatch=noise).mean
    return xr.Dataset({"batch_over_lr": x, "predicted_time": mean})


def forgetting(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """The chain forgets, by SGD or by its diffusion limit, beside the exact mean of the same walk of steps."""
    epsilon, batch = config["lr_over_batch"], int(config["batch_size"])
    target, data = kg.beyond(MODE.forgetting_barrier()), kg.teacher(label_noise=FORGETTING_LABELS)
    chain = kg.DeepLinearChain(DEPTH, 1.0, MODE.weight_decay)
    process: Any
    if batch:
        process = kg.SGD(chain, data, lr=epsilon * batch, batch_size=batch)
        same = sgd_exit_time(
            MODE, lr=epsilon * batch, batch_size=batch, label_noise=FORGETTING_LABELS, target=target
        ).mean
    else:
        process = kg.Langevin(chain, temperature=0.0, dt=DT, minibatch=Minibatches(data, epsilon))
        noise = MinibatchNoise(epsilon, GaussianResidualVariance(1.0, 1.0, FORGETTING_LABELS))
        ends = Interval(DEPTH**0.5 * MODE.learned_amplitude(), lower=float(MODE.coordinate(target.threshold)))
        same = discrete_exit(ModeDynamics(MODE, 0.0, 0.0, noise).process, ends, step=DT).mean
    start, n = np.full(DEPTH, MODE.learned_amplitude()), config["n_replicas"]
    run = kg.first_passage(process, target=target, n_replicas=n, max_time=12 * same, seed=seed, start=start)
    limit = minibatch_mode_exit_time(MODE, label_noise=FORGETTING_LABELS, lr_over_batch=epsilon, target=target).mean
    return row(run, lr=epsilon * batch, batch_size=batch, predicted_time=same).assign(
        diffusion_time=limit, batch_over_lr=1 / epsilon
    )


def row(run: xr.Dataset, **more: float) -> xr.Dataset:
    """One row: the measured mean, its 95 % interval, and what it is to be held against."""
    mean = kg.mean_exit_time(run)
    values = {
        "mean_exit_time": mean.value,
        "standard_error": mean.standard_error,
        "lower": mean.lower,
        "upper": mean.upper,
        "n_escaped": int(run.escaped.sum()),
        "n_replicas": run.sizes["replica"],
    }
    ratio = {"batch_over_lr": more["batch_size"] / more["lr"]} if more["lr"] else {}
    return xr.Dataset(values | more | ratio)


def cells() -> dict[str, list[Cell]]:
    """Cells by the group of the table that they belong to."""
    size = {"n_replicas": N_REPLICAS}
    first = {"variance": VARIANCE, "label_noise": LABELS}
    return {
        "additive": [
            Cell("additive", first | size | {"ratio": r, "batch_size": b}, additive, cost=float(np.exp(r)) / b)
            for b in BATCHES
            for r in RATIOS
        ],
        "continuous": [Cell("continuous", first | {"ratio": r}, continuous) for r in RATIOS],
        "forgetting": [
            Cell(
                "forgetting",
                size | {"lr_over_batch": e, "batch_size": b, "weight_decay": MODE.weight_decay, "dt": DT},
                forgetting,
                cost=float(np.exp(0.1 / e)) / max(b, 1),
            )
            for b in FORGETTING_BATCHES
            for e in EPSILONS
        ],
    }


NAMES = {
    "batch_over_lr": {"units": "1/time", "long_name": "batch size over learning rate B/η"},
    "diffusion_time": {"units": "time", "long_name": "exact mean time of the diffusion limit"},
    "predicted_time": {"units": "time", "long_name": "exact mean exit time"},
    "lower": {"units": "time", "long_name": "lower end of the mean's 95 % interval"},
    "upper": {"units": "time", "long_name": "upper end of the mean's 95 % interval"},
}


def gathered(found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Rows with names and units."""
    table = xr.concat(found, dim="run", coords="minimal", compat="equals")
    for name in table.data_vars:
        table[name].attrs = NAMES.get(str(name)) or describe(str(name))
    return table


# ---------------------------------------------------------------- the command


def compute(out: str, workers: int) -> None:
    """Compute what is missing and write the table."""
    groups = cells()
    every = [cell for group in groups.values() for cell in group]
    store = Store(out, {"depth": DEPTH, "singular_value": 1.0}, name="at_a_glance")
    with Progress() as bar, ProcessPoolExecutor(workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(every))
        found = execute(store, every, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    by_cell = dict(zip(map(id, every), found, strict=True))
    tables = {name: gathered([by_cell[id(cell)] for cell in group]) for name, group in groups.items()}
    actions = forgetting_actions(MODE, label_noise=FORGETTING_LABELS)
    tables["forgetting"].attrs = {"sgd_action": actions.sgd, "diffusion_action": actions.diffusion}
    write_netcdf(xr.DataTree.from_dict({f"/{k}": v for k, v in tables.items()}), f"{out}/table.nc")


def main() -> None:
    """Compute what is missing, draw the figure and word the README's first screen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/at_a_glance")
    parser.add_argument("--figure", default="docs/_static/at_a_glance.png")
    parser.add_argument("--readme", default="README.md")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--redraw", action="store_true", help="only the figure and the README, from the table")
    args = parser.parse_args()
    if not args.redraw:
        compute(args.out, args.workers)
    tree = read_netcdf(f"{args.out}/table.nc")
    laws = read_netcdf(Path(__file__).parent / "which_law" / "table.nc")
    figure(tree, laws, args.figure)
    readme = Path(args.readme)
    readme.write_text(insert(readme.read_text(encoding="utf-8"), text(tree, laws)), encoding="utf-8")


if __name__ == "__main__":
    main()
