"""Evidence: escape times on both sides of the entropic spinodal, where width melts the trap.

Run with ``make evidence NAME=melting``. Langevin dynamics in all weights, waited for, across temperatures and widths at
which the radial free energy loses its barrier. Finished cells are kept, so the same command resumes; the small
``evidence/melting/table.nc`` is committed. ARGS="--replicas 512" halves the precision in a quarter of the time.

Three claims. Times go smoothly through the melting: in a cubic in ΔF/T with a step at it the step is 0. The radial rate
holds on the trap's side, for exact measures (one input or output, rank 0) as for approximations (both wide, rank 1),
within its own 10 % where the radial barrier is above 2 T. The Gaussian saddle of the whole network fails on both.

Simulation and predictions share the energy and nothing else; the predicted times hold the step's first order.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.analysis.least_squares import LinearFit, linear_fit
from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.core.schema import describe
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.radial import Exactness, RadialFreeEnergy

LAMBDA, STEP = 0.25, 0.1
REPLICAS = 2048
HORIZON = 200.0  # in units of the shortest of the predicted times and 20: all replicas escape


@dataclass(frozen=True)
class Case:
    """One network, the rank it escapes from, and the barriers over temperature at which it is measured."""

    widths: tuple[int, ...]
    ratios: tuple[float, ...]
    singular_values: tuple[float, ...] = (1.0,)
    rank: int = 0

    @property
    def network(self) -> kg.DeepLinearNetwork:
        """The network itself."""
        return kg.DeepLinearNetwork(self.widths, self.singular_values, weight_decay=LAMBDA)


CASES = {
    "h = 2": Case((1, 2, 2, 1), (4, 6, 8)),
    "h = 3": Case((1, 3, 3, 1), (4, 6, 8)),
    "h = 4": Case((1, 4, 4, 1), (4, 5, 6, 7, 8, 9, 10, 12)),
    "h = 5": Case((1, 5, 5, 1), (4, 8)),
    "h = 6": Case((1, 6, 6, 1), (4, 8)),
    "h = 8": Case((1, 8, 8, 1), (8, 10, 12, 13, 14, 15, 16, 18, 20)),
    "h = 2 and 6": Case((1, 2, 6, 1), (4, 5, 6, 7, 8, 10, 12)),
    "D = 4, h = 4": Case((1, 4, 4, 4, 1), (5, 6, 7, 8, 9, 10, 12, 14)),
    "h = 4, 8 inputs": Case((8, 4, 4, 1), (4, 5, 6, 7, 8, 10, 12)),
    "h = 4, 8 inputs and outputs": Case((8, 4, 4, 8), (4, 5, 6, 7, 8, 10, 12), (1.0, 0.6, 0.3)),
    "h = 5, from rank 1": Case((2, 5, 5, 2), (4, 5, 6, 7, 8, 10, 12), (1.6, 1.0), rank=1),
}


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Wait for the escapes of one case at one temperature."""
    case = CASES[config["case"]]
    network, theory = case.network, predictions(case, config["ratio"])
    barrier = network.theory.barrier(case.rank)
    process = kg.Langevin(network, temperature=barrier.height / config["ratio"], dt=STEP)
    longest = max(np.nan_to_num(theory["radial_mean"]), 20.0)
    escapes = kg.first_passage(
        process,
        target=kg.beyond(barrier),
        start=network.embed(barrier.minimum),
        n_replicas=config["n_replicas"],
        max_time=HORIZON * longest,
        seed=seed,
    )
    mean = kg.mean_exit_time(escapes)
    found = {"mean_exit_time": mean.value, "standard_error": mean.standard_error, "n_escaped": mean.n_escaped}
    return xr.Dataset({name: ((), value, describe(name)) for name, value in found.items()})


def predictions(case: Case, ratio: float) -> dict[str, float]:
    """Both predicted times, with the step's first order; the radial barrier over T, NaN where the trap has melted."""
    theory = case.network.theory
    barrier = theory.barrier(case.rank)
    temperature = barrier.height / ratio
    walk, flow = (kg.eyring_kramers_rate(barrier, temperature, step=h, warn=False).value for h in (STEP, 0.0))
    found = {
        "eyring_kramers_mean": 1 / walk,
        "radial_mean": np.nan,
        "radial_barrier_over_temperature": np.nan,
        "melting": barrier.height / kg.entropic_spinodal(theory, case.rank),
        "exact_measure": RadialFreeEnergy(theory, temperature, case.rank).exactness is Exactness.EXACT_MEASURE,
    }
    try:
        rate = kg.radial_rate(theory, temperature, case.rank, warn=False)
    except NoBarrierError:
        return found
    return found | {
        "radial_mean": flow / (walk * rate.value),
        "radial_barrier_over_temperature": rate.barrier_over_temperature,
    }


LABELS = {
    "eyring_kramers_mean": ("time", "mean exit time by Eyring-Kramers with orbits"),
    "radial_mean": ("time", "mean exit time by the radial free energy"),
    "radial_barrier_over_temperature": ("1", "radial barrier over T"),
    "melting": ("1", "ΔF/T at the entropic spinodal"),
    "exact_measure": ("1", "whether the radial free energy is an exact measure"),
}


def gather(cells: list[Cell], runs: list[xr.Dataset]) -> xr.Dataset:
    """One row for each cell, theory computed anew."""
    columns: dict[str, Any] = {
        name: ("run", [float(r[name]) for r in runs], dict(runs[0][name].attrs)) for name in runs[0].data_vars
    }
    theory = [predictions(CASES[c.config["case"]], c.config["ratio"]) for c in cells]
    for name, (units, long_name) in LABELS.items():
        columns[name] = ("run", [float(row[name]) for row in theory], {"units": units, "long_name": long_name})
    for name in ("case", "ratio"):
        columns[name] = ("run", [c.config[name] for c in cells], {"units": "1", "long_name": name})
    columns["ratio"][2]["long_name"] = describe("barrier_over_temperature")["long_name"]
    return xr.Dataset(
        columns, attrs={"weight_decay": LAMBDA, "step": STEP, "n_replicas": cells[0].config["n_replicas"]}
    )


def step_at_melting(rows: xr.Dataset) -> LinearFit:
    """Fit ln τ by a cubic in ΔF/T and a step where the trap melts; the step comes last."""
    x = rows.ratio.values
    middle = (x - x.mean()) / np.ptp(x)
    trapped = (x > rows.melting.values[0]).astype(np.float64)
    design = np.stack([middle**0, middle, middle**2, middle**3, trapped], axis=1)
    return linear_fit(design, np.log(rows.mean_exit_time.values), (rows.standard_error / rows.mean_exit_time).values)


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/melting")
    parser.add_argument("--replicas", type=int, default=REPLICAS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    cells = [
        Cell(
            "melting",
            {"case": name, "ratio": float(ratio), "n_replicas": args.replicas},
            run,
            cost=ratio * max(c.widths),
        )
        for name, c in CASES.items()
        for ratio in c.ratios
    ]
    store = Store(args.out, {"n_replicas": args.replicas, "step": STEP, "weight_decay": LAMBDA}, name="melting")
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    table = gather(cells, runs)
    write_netcdf(table, pathlib.Path(args.out) / "table.nc")
    for name in CASES:
        rows = table.isel(run=table.case.values == name)
        kind = "an exact measure" if rows.exact_measure[0] else "an approximation"
        print(f"{name}: melts at ΔF/T = {float(rows.melting[0]):.2f}; the radial free energy is {kind}")
        for i in range(rows.sizes["run"]):
            row = rows.isel(run=i)
            time, error = float(row.mean_exit_time), float(row.standard_error / row.mean_exit_time)
            print(
                f"  {float(row.ratio):4g}: {time:8.1f} ± {error:.1%}, over radial {time / float(row.radial_mean):6.3f}"
                f" (its barrier {float(row.radial_barrier_over_temperature):4.1f} T),"
                f" over Eyring-Kramers {time / float(row.eyring_kramers_mean):7.2f}"
            )
        if rows.sizes["run"] > 5:
            fit = step_at_melting(rows)
            print(f"  step of ln τ at the melting {fit.coefficients[-1]:+.3f} ± {fit.standard_errors[-1]:.3f}, "
                  f"fit p = {fit.p_value:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
