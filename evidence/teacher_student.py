"""Evidence: nonlinear students of nonlinear teachers leave their trap when theory says so, with no fitted parameter.

Run with ``make evidence NAME=teacher_student``. Every cell measures one student at one temperature with one engine, by
waiting or by splitting; finished cells are kept, so the same command resumes, and the small
``evidence/teacher_student/table.nc`` is committed. ARGS="--only tanh-2" runs some of the cases, the others then stay in
the table as they are; ARGS="--precision 0.5" asks for half the standard error. Predictions are made anew each time.

A teacher with one unit in each hidden layer labels eight samples; a wider student of the same depth and activation is
trapped at weights 0. Minimum, saddle and learned state come from a numerical search, with certificates. The prediction
is the capacity of the saddle's pseudo-orbit (`kramers_grok.landscape.potential_theory.capacity`), the time step to
first order and the minibatches to first order; the harmonic formula stands beside it with its own verdict on whether it
holds.

Simulations and predictions share the energy, its gradient and the border of the target, nothing else. Langevin dynamics
and SGD share the kernels' forward and backward pass; SGD draws true minibatches without replacement besides.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.analysis.numerical_ladder import numerical_ladder
from kramers_grok.analysis.rungs import Ladder, Setting
from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.core.schema import describe
from kramers_grok.landscape.barriers import find_barrier
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.points import find_minima
from kramers_grok.landscape.potential_theory.capacity import CapacityRate, capacity_rate
from kramers_grok.landscape.potential_theory.path_noise import path_log_factor, variance_along
from kramers_grok.models.activations import Activation
from kramers_grok.studies.files.store import Store, read_netcdf, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.gradient_noise import finite_population_factor
from kramers_grok.theory.minibatch import PathNoise

SAMPLES, GAIN = 8, 1.5
REPEATS = 16
HORIZON = 1e7  # every replica escapes
WAITED = (768, 768, 384)  # replicas that are waited for, from the highest temperature down
SHARE = 0.15  # of the temperature: the most that minibatches may add anywhere on the path
ENGINES = ("langevin", "sgd")
MEASURED = ("mean_exit_time", "standard_error", "lower", "upper", "replica_steps")
KEYS = ("case", "engine", "method", "barrier_over_temperature", "step", "batch_size")


@dataclass(frozen=True)
class Case:
    """One student and its teacher, and the barriers at which it is measured.

    Attributes
    ----------
    hidden : tuple of int
        The student's hidden widths; the teacher has one unit instead of each.
    activation : Activation
    weight_decay : float
        λ.
    inputs : int
    labels : float
        Their root mean square.
    waited, split : tuple of float
        ΔF/T at which replicas are waited for, and at which splitting reaches them; one barrier is in both.
    step : float
        Time step and learning rate.
    fraction : float
        Where the target begins, as a share of the path behind the saddle.
    scale : float
        Of the random starts from which the learned state is searched.
    n_split : int
        Replicas that are split.
    draws : int
        Of the prediction.
    """

    hidden: tuple[int, ...]
    activation: Activation
    weight_decay: float
    inputs: int = 2
    labels: float = 1.0
    waited: tuple[float, ...] = (5.0, 6.5, 8.0)
    split: tuple[float, ...] = (8.0, 11.0, 15.0, 20.0)
    step: float = 0.2
    fraction: float = 0.5
    scale: float = 1.3
    n_split: int = 384
    draws: int = 2**14

    @property
    def depth(self) -> int:
        """Number of weight layers D."""
        return len(self.hidden) + 1

    @property
    def ratios(self) -> tuple[float, ...]:
        """Every ΔF/T."""
        return tuple(sorted({*self.waited, *self.split}))


CASES = {
    "tanh-2": Case((2, 2), kg.Tanh(), 0.25),
    "tanh-4": Case((4, 4), kg.Tanh(), 0.25, waited=(9.0, 11.0, 13.0), split=(13.0, 17.0, 22.0, 30.0)),
    "tanh-2-deep": Case((2, 2, 2), kg.Tanh(), 0.15),
    # Entropy of the rotations carries the escape up most of the barrier, which has to be high to be one
    "tanh-2-16": Case((2, 16), kg.Tanh(), 0.25, waited=(20.0, 22.0, 24.0), split=(24.0, 28.0, 34.0, 42.0)),
    "gelu-2": Case((2, 2), kg.GELU(), 0.30, labels=2.0),
    "gelu-2-deep": Case((2, 2, 2), kg.GELU(), 0.17, labels=2.0),
    # Of degree 7 in the weights: all that is anharmonic is larger, so barriers go higher, and steps are shorter
    "quadratic-2": Case(
        (2, 2), kg.Quadratic(), 0.10, inputs=1, step=0.025, fraction=0.4, scale=0.8,
        waited=(6.0, 7.0, 8.0), split=(8.0, 10.0, 12.0, 15.0), n_split=1024, draws=2**17,
    ),
}  # fmt: skip


# ---------------------------------------------------------------- teacher, student, barrier


@cache
def data_of(name: str) -> kg.FiniteData:
    """Samples labelled by the teacher: white inputs, one hidden unit in each layer, all weights `GAIN` or 0."""
    case = CASES[name]
    inputs = np.random.default_rng(0).normal(size=(SAMPLES, case.inputs))
    x = kg.whitened(inputs - inputs.mean(axis=0))
    teacher = kg.MLP(
        (case.inputs, *(1 for _ in case.hidden), 1), case.activation, weight_decay=1.0, data=kg.finite(x, x[:, 0])
    )
    weights = torch.full((1, teacher.n_parameters), GAIN, dtype=torch.float64)
    weights[0, 1 : case.inputs] = 0.0
    y = teacher.outputs(weights)[0].numpy()
    return kg.finite(x, y * case.labels / np.sqrt(np.square(y).mean()))


@cache
def barrier_of(name: str) -> NumericalBarrier:
    """Barrier between the trap at 0 and the deepest state that the search finds."""
    case = CASES[name]
    student = kg.MLP.from_data(data_of(name), case.hidden, case.activation, weight_decay=case.weight_decay)
    learned = find_minima(student, n_starts=6, seed=0, scale=case.scale)[0]
    return find_barrier(student, np.zeros(student.n_parameters), learned)


def lr_over_batch(case: Case, batch_size: int) -> float:
    """ε of batches drawn without replacement: the finite population's factor is in it."""
    return case.step / batch_size * float(finite_population_factor(SAMPLES, batch_size))


@cache
def batch_of(name: str, ratio: float) -> int:
    """The smallest batch whose noise is a small share of the temperature and quickens the escape by a seventh."""
    case, barrier = CASES[name], barrier_of(name)
    heat = barrier.height / ratio
    strongest = 0.5 * float(variance_along(barrier).max()) / heat
    for size in range(2, SAMPLES - 1):
        noise = PathNoise(lr_over_batch(case, size))
        if strongest * noise.lr_over_batch < SHARE and path_log_factor(barrier, heat, noise) < 1 / 7:
            return size
    return SAMPLES - 1


# ---------------------------------------------------------------- simulations


def process_of(config: Mapping[str, Any]) -> kg.Langevin | kg.SGD:
    """The process of a cell."""
    barrier, step = barrier_of(config["case"]), config["step"]
    temperature = barrier.height / config["ratio"]
    if config["engine"] == "langevin":
        return kg.Langevin(barrier.model, temperature=temperature, dt=step)
    return kg.SGD(
        barrier.model, data_of(config["case"]), lr=step, batch_size=config["batch_size"],
        sampler=kg.WithoutReplacement(), noise=kg.per_sample(temperature=temperature),
    )  # fmt: skip


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Measure one cell, watched at its steps only."""
    case, barrier = CASES[config["case"]], barrier_of(config["case"])
    target, process, n = kg.beyond(barrier, case.fraction), process_of(config), config["n_replicas"]
    if config["method"] == "split":
        return kg.splitting(process, target=target, start=barrier.minimum, n_replicas=n, n_repeats=REPEATS, seed=seed)
    waited = kg.first_passage(
        process, target=target, start=barrier.minimum, n_replicas=n, max_time=HORIZON, bridge=False, seed=seed
    )
    mean, steps = kg.mean_exit_time(waited), float(waited.exit_time.sum()) / config["step"]
    values = (mean.value, mean.standard_error, mean.lower, mean.upper, steps)
    return xr.Dataset({name: ((), value) for name, value in zip(MEASURED, values, strict=True)})


def cells_of(name: str, precision: float) -> list[Cell]:
    """Both engines at every temperature; replicas that are waited for grow fewer as the wait grows longer."""
    case, cells = CASES[name], []
    for engine in ENGINES:
        methods = (("waited", case.waited, WAITED), ("split", case.split, (case.n_split,) * len(case.split)))
        for method, ratios, counts in methods:
            for ratio, count in zip(ratios, counts, strict=True):
                config = {
                    "case": name, "engine": engine, "method": method, "ratio": ratio, "step": case.step,
                    "batch_size": SAMPLES if engine == "langevin" else batch_of(name, ratio),
                    "n_replicas": round(count / precision**2),
                }  # fmt: skip
                cells.append(Cell("escape", config, run, cost=ratio))
    return cells


def gather(cells: list[Cell], runs: list[xr.Dataset]) -> xr.Dataset:
    """One row for each cell."""
    columns: dict[str, Any] = {n: ("run", [float(r[n]) for r in runs], describe(n)) for n in MEASURED}
    for key in KEYS:
        columns[key] = ("run", [c.config["ratio" if key == "barrier_over_temperature" else key] for c in cells])
    columns["barrier_over_temperature"] += (describe("barrier_over_temperature"),)
    columns["step"] += ({"units": "time", "long_name": "time step or learning rate"},)
    return xr.Dataset(columns)


# ---------------------------------------------------------------- predictions

PREDICTED = {
    "harmonic": "mean exit time by Eyring-Kramers",
    "continuous": "mean exit time by potential theory",
    "stepped": "that with the time step",
    "watched": "that, watched at the steps only",
    "made": "that with the minibatches",
}


@cache
def capacity_of(key: tuple[str, float]) -> tuple[CapacityRate | None, bool]:
    """Rate by potential theory at one ΔF/T, if there is a barrier, and whether the harmonic one calls itself valid."""
    name, ratio = key
    barrier = barrier_of(name)
    heat = barrier.height / ratio
    harmonic = kg.eyring_kramers_rate(barrier, heat, warn=False)
    try:
        return capacity_rate(barrier, heat, seed=0, n_samples=CASES[name].draws, warn=False), harmonic.valid
    except NoBarrierError:
        return None, harmonic.valid


def ladder_of(name: str, ratio: float, batch_size: int, rate: CapacityRate | None) -> Ladder:
    """Predicted mean times, one effect at a time; all samples in a batch are none in it."""
    case, barrier = CASES[name], barrier_of(name)
    noise = PathNoise(lr_over_batch(case, batch_size)) if batch_size < SAMPLES else None
    setting = Setting(barrier.height / ratio, case.step, bridged=False, minibatch=noise)
    return numerical_ladder(barrier, setting, kg.beyond(barrier, case.fraction), rate=rate)


def predict(rows: xr.Dataset, executor: Executor | None = None) -> xr.Dataset:
    """Predictions beside every row, always anew: runs outlive a better formula."""
    keys = list(zip(rows.case.values.tolist(), rows.barrier_over_temperature.values.tolist(), strict=True))
    unique = list(dict.fromkeys(keys))
    found = dict(zip(unique, (executor.map if executor else map)(capacity_of, unique), strict=True))
    batches = zip(keys, rows.batch_size.values.tolist(), strict=True)
    ladders = [ladder_of(*key, batch, found[key][0]) for key, batch in batches]
    columns = {k: [getattr(x, "asymptotic" if k == "harmonic" else k) for x in ladders] for k in PREDICTED}
    told = {k: {"units": "time", "long_name": PREDICTED[k]} for k in columns}
    rates = [found[key] for key in keys]
    columns["capacity_error"] = [np.nan if rate is None else rate.relative_error for rate, _ in rates]
    columns["capacity_valid"] = [float(rate is not None and rate.valid) for rate, _ in rates]
    columns["harmonic_valid"] = [float(valid) for _, valid in rates]
    told["capacity_error"] = {"units": "1", "long_name": "stated relative error of potential theory"}
    told["capacity_valid"] = {"units": "1", "long_name": "whether potential theory calls itself valid"}
    told["harmonic_valid"] = {"units": "1", "long_name": "whether Eyring-Kramers calls itself valid"}
    return rows.assign({k: ("run", v, told[k]) for k, v in columns.items()})


def judge(rows: xr.Dataset) -> xr.Dataset:
    """Add measured over predicted, its two relative errors, and the distance of its logarithm from 0 in them."""
    ratio, statistics = rows.mean_exit_time / rows.made, rows.standard_error / rows.mean_exit_time
    # Step and minibatches are taken to first order: half the square of a correction is what that leaves out.
    orders = 0.5 * (np.log(rows.watched / rows.continuous) ** 2 + np.log(rows.made / rows.watched) ** 2)
    theory = np.hypot(rows.capacity_error, orders)
    named = {
        "ratio": (ratio, "measured over predicted mean time"),
        "statistical_error": (statistics, "relative standard error of the measured time"),
        "stated_error": (theory, "stated relative error of the predicted time"),
        "deviation": (np.log(ratio) / np.hypot(statistics, theory), "ln(measured / predicted) over its error"),
    }
    return rows.assign({k: v.assign_attrs(long_name=text, units="1") for k, (v, text) in named.items()})


def barriers(names: list[str]) -> xr.Dataset:
    """One row for each case: what the search found."""
    found = [barrier_of(name) for name in names]
    columns: dict[str, tuple[list[float], str, str]] = {
        "height": ([b.height for b in found], "loss", "barrier height ΔF"),
        "learned_depth": (
            [b.minimum_point.energy - b.destination_point.energy for b in found], "loss", "F(trap) − F(learned)",
        ),
        "negative_eigenvalue": ([b.negative_eigenvalue for b in found], "1/time", "negative curvature at the saddle"),
        "softest": ([float(b.saddle_spectrum[1]) for b in found], "1/time", "softest mode of the saddle"),
        "copies": ([float(np.exp(b.log_volume_ratio)) for b in found], "1", "equivalent saddles"),
        "gradient_norm": ([b.saddle_point.gradient_norm for b in found], "loss/weight", "gradient norm at the saddle"),
        "n_parameters": ([float(b.minimum.size) for b in found], "1", "parameters"),
        "depth": ([float(CASES[n].depth) for n in names], "1", "weight layers D"),
        "weight_decay": ([CASES[n].weight_decay for n in names], "loss/weight²", "weight decay λ"),
    }  # fmt: skip
    return xr.Dataset(
        {k: ("case", v, {"units": u, "long_name": t}) for k, (v, u, t) in columns.items()}, coords={"case": names}
    )


# ---------------------------------------------------------------- table


def kept(path: pathlib.Path, names: set[str]) -> list[xr.Dataset]:
    """Rows of an earlier table, of the cases that are not computed now."""
    if not path.exists():
        return []
    rows = read_netcdf(path)["runs"].to_dataset()
    return [rows[[*MEASURED, *KEYS]].isel(run=~rows.case.isin([*names]))]


def report(rows: xr.Dataset) -> None:
    """Print measured over predicted, and over the harmonic formula."""
    for i in range(rows.sizes["run"]):
        r = {name: v.item() for name, v in rows.isel(run=i).variables.items()}
        one, other = ("" if r[f"{k}_valid"] else " (flagged)" for k in ("capacity", "harmonic"))
        print(
            f"{r['case']:15} {r['engine']:8} {r['method']:6} ΔF/T {r['barrier_over_temperature']:4.3g}  "
            f"{r['mean_exit_time']:10.4g} ± {r['statistical_error']:5.1%}   over predicted {r['ratio']:.3f} "
            f"± {r['stated_error']:.3f} stated, {r['deviation']:+.1f} σ{one}   "
            f"over harmonic {r['mean_exit_time'] / r['harmonic']:.3g}{other}"
        )


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/teacher_student")
    parser.add_argument("--precision", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"precision": args.precision}, name="teacher_student")
    path = pathlib.Path(args.out) / "table.nc"
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        cells = [cell for name in args.only for cell in cells_of(name, args.precision)]
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
        rows = xr.concat([*kept(path, set(args.only)), gather(cells, runs)], dim="run", combine_attrs="override")
        order = np.argsort([list(CASES).index(name) for name in rows.case.values], kind="stable")
        rows = judge(predict(rows.isel(run=order), pool))
    names = [name for name in CASES if name in rows.case.values]
    write_netcdf(xr.DataTree.from_dict({"/runs": rows, "/cases": barriers(names)}), path)
    report(rows)


if __name__ == "__main__":
    main()
