"""Evidence: what splitting costs against the barrier, and how much a score saves.

Run with ``make evidence NAME=splitting_cost``. Every cell is one splitting run; finished cells are kept, so the same
command resumes, and the small ``evidence/splitting_cost/table.nc`` is committed. Cost is the number of steps of all
replicas, pilot included, times (relative error / 10 %)²: the steps that a run of 10 % takes. Errors are those of the
runs, from their 16 repeats; at each barrier four runs are averaged, which gives the cost to ± 18 %.

Brute force beside it: 100 escapes of one mean exit time each.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.analysis.cost import cost_exponent, splitting_cost
from kramers_grok.core.barrier import Barrier, OrbitBarrier
from kramers_grok.core.exceptions import ValidityWarning
from kramers_grok.escape.scores import LayerAmplitudes, LinearCommittor, Relaxed, Score
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread

LAMBDA = 0.25
STEP = 0.1
RATIOS = (8.0, 12.0, 17.0, 24.0, 32.0, 40.0)
SCORE_RATIO = {"chain": 20.0, "matrix-2": 20.0, "matrix-4": 30.0}
SEEDS = 4
N_REPLICAS, N_REPEATS = 1024, 16
CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=LAMBDA)
COSTS = ("mode", "chain", "matrix-2")
SCORES = ("m", "linear", "relaxed")


def system_of(name: str) -> tuple[Any, Barrier | OrbitBarrier]:
    """One of the systems and its barrier."""
    if name == "mode":
        return CHAIN.mode, CHAIN.mode.barrier()
    if name == "chain":
        return CHAIN, CHAIN.barrier()
    width = int(name.removeprefix("matrix-"))
    network = kg.DeepLinearNetwork((1, width, width, 1), [1.0], weight_decay=LAMBDA)
    return network, network.theory.barrier(0)


def score_of(name: str, system: Any) -> Score | None:
    """The order parameter, the committor linearised at the saddles, or where two steps of descent lead."""
    if name == "m":
        return None
    if name == "relaxed":
        return Relaxed(n_steps=2, step=1.0)
    return LinearCommittor.of_chain(system) if system is CHAIN else LayerAmplitudes.of(system)


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Make one run and take its time."""
    system, barrier = system_of(config["system"])
    process = kg.Langevin(system, temperature=barrier.height / config["ratio"], dt=STEP)
    process.advance(process.start(2, seed=0), 2)  # compiled before the clock starts
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)
        ds = kg.splitting(
            process,
            target=kg.beyond(barrier),
            score=score_of(config["score"], system),
            n_replicas=config["n_replicas"],
            n_repeats=N_REPEATS,
            seed=seed,
        )
    ds["seconds"] = ((), time.perf_counter() - began, {"units": "s", "long_name": "wall time on one core"})
    return ds


def cost_cells(name: str) -> list[Cell]:
    """All barriers of one system."""
    return [
        Cell("cost", {"system": name, "ratio": r, "score": "m", "n_replicas": N_REPLICAS, "number": k}, run, cost=r)
        for r in RATIOS
        for k in range(SEEDS)
    ]


def score_cells(name: str) -> list[Cell]:
    """All scores in one system; the relaxed one runs in torch and with fewer replicas."""
    sizes = dict(zip(SCORES, (N_REPLICAS, N_REPLICAS, N_REPLICAS // 4), strict=True))
    configs = [
        {"system": name, "ratio": SCORE_RATIO[name], "score": score, "n_replicas": n, "number": k}
        for score, n in sizes.items()
        for k in range(SEEDS)
    ]
    return [Cell("score", config, run, cost=20) for config in configs]


def averaged(runs: Sequence[xr.Dataset], height: float) -> xr.Dataset:
    """Cost at each barrier, averaged over its runs, and the wall time for the same error."""
    each = splitting_cost(runs, height)
    goal = [float(r.seconds) * (float(r.standard_error / r.mean_exit_time) / 0.1) ** 2 for r in runs]
    seconds = [(height / float(r.temperature), s) for r, s in zip(runs, goal, strict=True)]
    each["seconds"] = ("run", [s for _, s in sorted(seconds)], {"units": "s", "long_name": "wall time on one core"})
    mean = each.groupby(each.barrier_over_temperature.round(6)).mean(keep_attrs=True)
    table = mean.rename_dims({"barrier_over_temperature": "run"}).reset_index("barrier_over_temperature")
    table["cost_error"] = table.cost_error / SEEDS**0.5
    table.attrs = dict(each.attrs)
    return table


def main() -> None:
    """Compute what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/splitting_cost")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"n_repeats": N_REPEATS, "step": STEP, "weight_decay": LAMBDA}, name="splitting_cost")
    groups = {name: cost_cells(name) for name in COSTS} | {f"scores {name}": score_cells(name) for name in SCORE_RATIO}
    cells = [cell for group in groups.values() for cell in group]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    found = dict(zip(map(id, cells), runs, strict=True))
    tables = {}
    for name in COSTS:
        tables[name] = averaged([found[id(c)] for c in groups[name]], system_of(name)[1].height)
        fit = cost_exponent(tables[name])
        print(f"{name}: exponent {fit.exponent:.2f} ± {fit.standard_error:.2f} in ΔF/T")
        for i in range(tables[name].sizes["run"]):
            row = tables[name].isel(run=i)
            print(
                f"  ΔF/T = {float(row.barrier_over_temperature):4.1f}: {float(row.cost):.3g} steps, "
                f"{float(row.seconds):.2f} s, brute force {float(row.brute_force_cost):.3g} steps"
            )
    for name in SCORE_RATIO:
        tables[f"scores-{name}"] = scores_table(name, groups[f"scores {name}"], found)
    write_netcdf(xr.DataTree.from_dict({f"/{k}": v for k, v in tables.items()}), f"{args.out}/table.nc")


def scores_table(name: str, cells: Sequence[Cell], found: Mapping[int, xr.Dataset]) -> xr.Dataset:
    """Cost, wall time and result with each score."""
    height = system_of(name)[1].height
    rows = []
    print(f"{name}, ΔF/T = {SCORE_RATIO[name]:g}: steps and seconds for 10 %, ± 18 %")
    for score in SCORES:
        mine = [found[id(c)] for c in cells if c.config["score"] == score]
        row = averaged(mine, height).isel(run=0)
        rows.append(row)
        logs = np.log([float(r.mean_exit_time) for r in mine])
        error = float(np.sqrt(np.mean([float(r.standard_error / r.mean_exit_time) ** 2 for r in mine]) / len(mine)))
        print(
            f"  {score:8} {float(row.cost):.3g} steps, {float(row.seconds):.2f} s; "
            f"mean exit time {np.exp(logs.mean()):.4g} ± {error:.1%}"
        )
    return xr.concat(rows, dim="run").assign_coords(score=("run", list(SCORES), {"long_name": "score"}))


if __name__ == "__main__":
    main()
