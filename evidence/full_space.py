"""Evidence: rates of whole networks, with no fitted parameter, against splitting far beyond brute force.

Run with ``make evidence NAME=full_space``. Every cell is one splitting run at one barrier and one step; finished cells
are kept, so the same command resumes, and the small ``evidence/full_space/table.nc`` is committed. ARGS="--precision
0.5" asks for half the standard error (four times the work), ARGS="--only matrix-2" for some of the cases; the others
then stay in the table as they are, and ``--only`` alone makes its predictions anew.

Simulated mean time over the prediction 1/k of Eyring-Kramers with orbits, which holds the step's first order. The ratio
differs from 1 by a power series in T/ΔF and by the rest of the step: one fit of 1, T/ΔF, (T/ΔF)² and step² to two steps
at five barriers says where it goes. It has to go to 1. The two sides share the energy and nothing else.

Beside it stands the radial free energy's rate, which needs no extrapolation at these barriers and from rank 1 on, or
with inputs and outputs at once, is an approximation: how far it may be believed is read off here as well.
"""

from __future__ import annotations

import argparse
import math
import os
import pathlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.analysis.least_squares import linear_fit
from kramers_grok.core.barrier import OrbitBarrier
from kramers_grok.core.schema import describe
from kramers_grok.studies.files.store import Store, read_netcdf, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.radial import RadialFreeEnergy
from kramers_grok.theory.radial_minibatch import radial_minibatch_log_factor

LAMBDA = 0.25
LABEL_NOISE = 0.1
# Batch size over step and ΔF/T: the minibatches' own noise at the saddle is then the same small share (2 % at D = 3) of
# the temperature at every barrier.
BATCH = 75
LOW, HIGH = (10.0, 13.0, 18.0, 26.0, 40.0), (20.0, 26.0, 36.0, 52.0, 80.0)
# Standard errors that give the intercept the least error for its cost: most of it stands at the highest barrier.
ERRORS = (0.0145, 0.012, 0.018, 0.0215, 0.018)
REPEATS = 16
MEASURED = ("mean_exit_time", "standard_error", "lower", "upper", "replica_steps")


@dataclass(frozen=True)
class Case:
    """One network, the rank it escapes from, and the barriers at which it is measured."""

    widths: tuple[int, ...]
    singular_values: tuple[float, ...] = (1.0,)
    rank: int = 0
    ratios: tuple[float, ...] = LOW
    relax: float = 1.0  # errors in units of `ERRORS`
    steps: tuple[float, float] = (0.2, 0.1)
    minibatches: bool = False  # SGD with true minibatches rather than Langevin dynamics

    @property
    def network(self) -> kg.DeepLinearNetwork:
        """The network itself."""
        return kg.DeepLinearNetwork(self.widths, self.singular_values, weight_decay=LAMBDA)


CASES = {
    "chain-3": Case((1, 1, 1, 1), relax=1.5),
    "chain-4": Case((1, 1, 1, 1, 1)),
    "chain-4-sgd": Case((1, 1, 1, 1, 1), minibatches=True, relax=2.5),
    "matrix-2": Case((1, 2, 2, 1)),
    "matrix-2-sgd": Case((1, 2, 2, 1), minibatches=True, relax=2.0),
    "matrix-2-deep": Case((1, 2, 2, 2, 1)),
    "matrix-2-rank-1": Case((2, 2, 2, 2), (1.6, 1.0), rank=1),
    "matrix-2-deep-rank-1": Case((2, 2, 2, 2, 2), (1.6, 1.0), rank=1, relax=2.0),
    "matrix-8": Case((8, 2, 2, 8), (1.0, 0.6, 0.3), relax=2.2),
    "matrix-3": Case((1, 3, 3, 1), ratios=HIGH, relax=1.6),
    "matrix-2-3": Case((1, 2, 3, 1), ratios=HIGH, relax=2.2),
    "matrix-4": Case((1, 4, 4, 1), ratios=HIGH, relax=2.4),
    "matrix-4-sgd": Case((1, 4, 4, 1), ratios=HIGH, minibatches=True, relax=4.0),
    "matrix-3-rank-1": Case((2, 3, 3, 2), (1.6, 1.0), rank=1, ratios=HIGH, relax=2.4),
    "matrix-2-3-rank-1": Case((2, 2, 3, 2), (1.6, 1.0), rank=1, ratios=HIGH, relax=2.4),
}


def batch_size(ratio: float, step: float) -> int:
    """Samples in a minibatch."""
    return round(BATCH * step * ratio)


@cache
def barrier_of(case: Case) -> OrbitBarrier:
    """Barrier of a case: spectra and orbits are the same at every temperature."""
    return case.network.theory.barrier(case.rank)


def minibatch(case: Case, ratio: float, step: float) -> kg.MinibatchNoise:
    """Noise of the data."""
    noise = GaussianResidualVariance(1.0, 1.0, LABEL_NOISE)
    return kg.MinibatchNoise(lr_over_batch=step / batch_size(ratio, step), residual_variance=noise)


def eyring_kramers(case: Case, ratio: float, step: float) -> float:
    """Predicted mean time, orbits and all; step and minibatches to first order."""
    temperature = barrier_of(case).height / ratio
    rate = kg.eyring_kramers_rate(barrier_of(case), temperature, step=step, warn=False)
    if not case.minibatches:
        return rate.mean_time
    noise = minibatch(case, ratio, step)
    return rate.mean_time * math.exp(-kg.minibatch_log_factor(case.network.mode(case.rank), temperature, noise))


def radial(case: Case, ratio: float, step: float) -> float:
    """Predicted mean time by the radial free energy; the same first orders."""
    theory, temperature = case.network.theory, barrier_of(case).height / ratio
    walk, flow = (kg.eyring_kramers_rate(barrier_of(case), temperature, step=h, warn=False).value for h in (step, 0.0))
    time = kg.radial_rate(theory, temperature, case.rank, warn=False).mean_time * flow / walk
    if not case.minibatches:
        return time
    noise = minibatch(case, ratio, step)
    return time * math.exp(-radial_minibatch_log_factor(RadialFreeEnergy(theory, temperature), noise))


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Measure one case at one barrier and one step."""
    case, ratio, step = CASES[config["case"]], config["ratio"], config["step"]
    network, barrier = case.network, barrier_of(case)
    temperature = barrier.height / ratio
    process: kg.Langevin | kg.SGD
    if not case.minibatches:
        process = kg.Langevin(network, temperature=temperature, dt=step)
    else:
        noise = kg.per_sample(temperature=temperature)
        data = kg.teacher(label_noise=LABEL_NOISE)
        process = kg.SGD(network, data, lr=step, batch_size=batch_size(ratio, step), noise=noise)
    return kg.splitting(
        process,
        target=kg.beyond(barrier),
        start=network.embed(barrier.minimum),
        n_replicas=config["n_replicas"],
        n_repeats=REPEATS,
        score=kg.ResidualFeature.of(network, case.rank) if case.rank else None,
        seed=seed,
    )


def replicas(ratio: float, error: float) -> int:
    """Clones per level and repeat for a relative error: (ΔF/T)/1.4 levels of variance about 4/N each, some to spare."""
    return int(np.clip(np.ceil(1.3 * 4 * (ratio / 1.4 + 2) / (error**2 * REPEATS)), 512, 262144))


def cells_of(name: str, precision: float) -> list[Cell]:
    """Every barrier of a case at both steps; the larger step may be measured less well, its weight is 1/4."""
    case = CASES[name]
    cells = []
    for ratio, error in zip(case.ratios, ERRORS, strict=True):
        for step, slack in zip(case.steps, (2.0, 1.0), strict=True):
            n = replicas(ratio, error * case.relax * precision * slack)
            config = {"case": name, "ratio": ratio, "step": step, "n_replicas": n}
            cells.append(Cell("splitting", config, run, cost=n * ratio * sum(case.widths) / step))
    return cells


def gather(cells: list[Cell], runs: list[xr.Dataset]) -> xr.Dataset:
    """One row for each cell."""
    columns: dict[str, Any] = {
        name: ("run", [float(r[name]) for r in runs], dict(runs[0][name].attrs)) for name in MEASURED
    }
    ratio = [c.config["ratio"] for c in cells]
    columns["barrier_over_temperature"] = ("run", ratio, describe("barrier_over_temperature"))
    columns["step"] = ("run", [c.config["step"] for c in cells], {"units": "time", "long_name": "time step"})
    columns["case"] = ("run", [c.config["case"] for c in cells], {"long_name": "network"})
    return xr.Dataset(columns, attrs={"weight_decay": LAMBDA})


def predict(rows: xr.Dataset) -> xr.Dataset:
    """Both predictions beside every row, always anew: runs outlive a better formula."""
    keys = list(zip(rows.case.values, rows.barrier_over_temperature.values, rows.step.values, strict=True))
    columns = {
        name: ("run", [formula(CASES[c], float(x), float(h)) for c, x, h in keys], {"units": "time", "long_name": text})
        for name, formula, text in (
            ("predicted_mean", eyring_kramers, "mean exit time by Eyring-Kramers with orbits"),
            ("radial_mean", radial, "mean exit time by the radial free energy"),
        )
    }
    return rows.assign(columns)


def kept(path: pathlib.Path, names: set[str]) -> list[xr.Dataset]:
    """Rows of an earlier table, of the cases that are not computed now."""
    if not path.exists():
        return []
    rows = read_netcdf(path)["runs"].to_dataset()
    return [rows[[*MEASURED, "barrier_over_temperature", "step", "case"]].isel(run=~rows.case.isin(list(names)))]


def extrapolate(rows: xr.Dataset) -> xr.Dataset:
    """Fit 1, T/ΔF, (T/ΔF)² and step² to both steps of a case at once; one row for each case."""
    columns: dict[str, list[Any]] = {name: [] for name in ("fit", "x", "ratio", "error")}
    names = list(dict.fromkeys(rows.case.values))
    for name in names:
        mine = rows.isel(run=rows.case.values == name)
        x, square = 1 / mine.barrier_over_temperature.values, mine.step.values**2
        ratio, error = ((mine[k] / mine.predicted_mean).values for k in ("mean_exit_time", "standard_error"))
        fit = linear_fit(np.stack([np.ones_like(x), x, x**2, square], axis=1), ratio, error)
        places = np.unique(x)
        weights = np.where(x == places[:, None], error**-2.0, 0.0)
        columns["fit"].append(fit)
        columns["x"].append(places)
        columns["ratio"].append(weights @ (ratio - fit.coefficients[3] * square) / weights.sum(axis=1))
        columns["error"].append(weights.sum(axis=1) ** -0.5)
    fits = columns["fit"]
    data = {
        "intercept": ("case", [f.coefficients[0] for f in fits], {"long_name": "simulated over predicted at T/ΔF = 0"}),
        "intercept_error": ("case", [f.standard_errors[0] for f in fits], {"long_name": "its standard error"}),
        "fit_p_value": ("case", [f.p_value for f in fits], {"long_name": "p-value of the fit"}),
        "x": (("case", "point"), columns["x"], {"units": "1", "long_name": "T/ΔF"}),
        "ratio": (("case", "point"), columns["ratio"], {"long_name": "simulated over predicted, for step 0"}),
        "ratio_error": (("case", "point"), columns["error"], {"long_name": "standard error"}),
    }
    return xr.Dataset(data, coords={"case": names})


def main() -> None:
    """Compute what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/full_space")
    parser.add_argument("--precision", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"precision": args.precision, "weight_decay": LAMBDA}, name="full_space")
    cells = [cell for name in args.only for cell in cells_of(name, args.precision)]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    # Whatever was asked for now, the table holds every case that is complete, here or in the table that was there.
    path = pathlib.Path(args.out) / "table.nc"
    complete = {name: cells_of(name, args.precision) for name in CASES}
    complete = {name: c for name, c in complete.items() if all(store.has(x.name, x.config) for x in c)}
    done = [cell for cells in complete.values() for cell in cells]
    parts = kept(path, set(complete))
    if done:
        parts.append(gather(done, execute(store, done, seed=0)))
    rows = xr.concat(parts, dim="run", combine_attrs="override")
    order = np.argsort([list(CASES).index(name) for name in rows.case.values], kind="stable")
    rows = predict(rows.isel(run=order))
    table = extrapolate(rows)
    write_netcdf(xr.DataTree.from_dict({"/runs": rows, "/cases": table}), path)
    for name in table.case.values:
        row = table.sel(case=name)
        points = zip(row.x.values, row.ratio.values, row.ratio_error.values, strict=True)
        ratios = "  ".join(f"{1 / x:g}: {r:.3f}±{e:.3f}" for x, r, e in points)
        off = abs(float(row.intercept) - 1)
        good = off <= max(0.03, 3 * float(row.intercept_error))
        print(
            f"{name:22} intercept {float(row.intercept):.3f} ± {float(row.intercept_error):.3f}  "
            f"{'holds' if good else 'FAILS'}  fit p = {float(row.fit_p_value):.2f}   {ratios}"
        )


if __name__ == "__main__":
    main()
