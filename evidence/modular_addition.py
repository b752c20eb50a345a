"""Evidence: the late jump of modular addition, and whether it is an escape over a barrier.

Run with ``make evidence NAME=modular_addition``. Finished cells are kept, so the same command resumes;
``evidence/modular_addition/table.nc`` is committed. Networks of one hidden layer with quadratic units learn a + b
modulo p from a part of all pairs, with squared loss and weight decay; m is the network's function on the *test* pairs,
0 for zero and 1 for the labels, and the delay is the time until it reaches one half.

``curves``: train and test error for p from 11 to 97. ``delays`` at p = 11, by groups: ``noise`` (batches of 1 sample to
all, all in random starts), ``start`` (one start, different minibatches), ``decay``, ``fraction`` (of the pairs to train
on), ``optimizer``. ``path``: the energy from the memorising to the generalising state, along the gradient flow, the
straight line and a string. ``trap``: the same network at zero weights, which *are* a trap, with per-sample noise.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from modular_addition_landscape import path, trap_barrier
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.analysis.censored import ExitTimes
from kramers_grok.analysis.hypotheses import exponentiality_test
from kramers_grok.analysis.law_choice import choose_law
from kramers_grok.core.exceptions import TooFewEscapesError
from kramers_grok.dynamics.observables import Loss
from kramers_grok.dynamics.optimizers import AdamW, GradientDescent, Momentum, Optimizer
from kramers_grok.dynamics.process import Process
from kramers_grok.dynamics.tracing import trace
from kramers_grok.models.activations import Quadratic
from kramers_grok.models.data import FiniteData, Split, modular_addition
from kramers_grok.models.mlp import MLP
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread

SMALL: dict[str, Any] = {"p": 11, "fraction": 0.75, "width": 48, "weight_decay": 3e-3, "scale": 0.2}
LEARNED = kg.Region(0.5)
FIRST_UNIT = kg.Region(0.015)  # of the train pairs: half of what one hidden unit learns (m = 0.03) once it left zero
ALL = 0  # as a batch size: all train pairs
OPTIMIZERS: dict[str, Optimizer] = {"SGD": GradientDescent(), "Momentum": Momentum(), "AdamW": AdamW()}
FINAL = {"units": "1", "long_name": "m of the test pairs at the end"}

CURVES = [
    SMALL | {"lr": 1.0, "batch_size": ALL, "time": 2e4, "n_replicas": 4},
    {"p": 23, "fraction": 0.42, "width": 96, "weight_decay": 1e-3, "scale": 0.2, "lr": 2.0, "batch_size": 32,
     "time": 4e4, "n_replicas": 2},
    {"p": 23, "fraction": 0.42, "width": 96, "weight_decay": 1e-3, "scale": 0.2, "lr": 2.0, "batch_size": ALL,
     "time": 4e4, "n_replicas": 1},
    {"p": 47, "fraction": 0.3, "width": 192, "weight_decay": 4e-4, "scale": 0.12, "lr": 8.0, "batch_size": 128,
     "time": 5e4, "n_replicas": 1},
    {"p": 97, "fraction": 0.25, "width": 256, "weight_decay": 1e-4, "scale": 0.12, "lr": 8.0, "batch_size": 256,
     "time": 4e4, "n_replicas": 1},
]  # fmt: skip

TRAINED = SMALL | {"optimizer": "SGD", "lr": 1.0, "batch_size": ALL, "n_replicas": 8, "one_start": False}
DELAYS: dict[str, list[dict[str, Any]]] = {
    # At one learning rate, small enough for batches of one pair; ALL is the control without noise.
    "noise": [TRAINED | {"lr": 0.25, "batch_size": b, "n_replicas": 32, "time": 4e3} for b in (ALL, 16, 8, 4, 2, 1)],
    "start": [TRAINED | {"lr": 0.25, "batch_size": 4, "n_replicas": 32, "time": 4e3, "one_start": True}],
    "decay": [TRAINED | {"weight_decay": w, "time": 12 / w} for w in (7.5e-4, 1.5e-3, 3e-3)],
    "fraction": [TRAINED | {"fraction": f, "time": 6e3} for f in (0.6, 0.65, 0.7, 0.75, 0.8)]
    + [TRAINED | {"fraction": 0.6, "time": 6e3, "lr": lr, "batch_size": b} for lr, b in ((1.0, 4), (0.25, 1))],
    "optimizer": [
        TRAINED | {"optimizer": name, "lr": lr, "weight_decay": w, "batch_size": b, "time": time, "n_replicas": 6}
        for name, lr, w, time in (("SGD", 0.25, 3e-3, 4e3), ("Momentum", 0.05, 3e-3, 400.0), ("AdamW", 3e-3, 0.5, 15.0))
        for b in (ALL, 8)
    ],
}
TRAPS = [
    SMALL | {"lr": 8.0, "n_replicas": 32, "time": 1e5 if t < 4e-7 else 3e4, "temperature": t}
    for t in (3.5e-7, 4e-7, 4.5e-7, 5e-7, 6e-7)
]
# Without noise: from a start so small that it falls back, and from one that does not.
FALLS = [TRAINED | {"scale": scale, "time": 4e3} for scale in (0.02, 0.06)]
PATHS = [SMALL | {"fraction": f, "lr": 1.0, "time": 4e4} for f in (0.75, 0.6, 0.4)]


def task(config: Mapping[str, Any]) -> tuple[Split, MLP]:
    """Train and test pairs, and the network, whose m is that of the test pairs."""
    split = modular_addition(config["p"], config["fraction"], seed=0)
    mlp = MLP.from_data(split.train, (config["width"],), Quadratic(), weight_decay=config["weight_decay"])
    return split, mlp.between_functions(0.0 * split.test.y, split.test.y, data=split.test)


def starts(config: Mapping[str, Any], n_parameters: int) -> np.ndarray:
    """Random weights of every replica, the same whatever is done to them later."""
    n = int(config["n_replicas"])
    drawn = np.random.default_rng(1).normal(size=(n, n_parameters))
    return float(config["scale"]) * (np.repeat(drawn[:1], n, axis=0) if config.get("one_start") else drawn)


@dataclass(frozen=True)
class Accuracy:
    """Share of pairs whose largest output is the sum."""

    source: FiniteData
    name: str
    dims = ()

    def __call__(self, process: Process, theta: torch.Tensor) -> torch.Tensor:
        """Return the share, shape (replica,)."""
        outputs = process.model.forward(theta, torch.as_tensor(self.source.x).to(theta)[None])  # type: ignore[attr-defined]
        right = outputs.argmax(-1) == torch.as_tensor(self.source.y.argmax(1)).to(theta.device)
        return right.to(theta.dtype).mean(dim=-1)


def curves(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Train and test error along a run; large networks in single precision."""
    split, mlp = task(config)
    large = config["p"] > 30
    process = kg.SGD(
        mlp, split.train, lr=config["lr"], batch_size=config["batch_size"] or None, device="cpu", fused=not large,
        dtype=torch.float32 if large else torch.float64,
    )  # fmt: skip
    steps = np.unique(np.geomspace(1, config["time"] / config["lr"], 60).astype(np.int64))
    seen = [f(data, f"{part}_{what}") for part, data in zip(("train", "test"), split, strict=True)
            for f, what in ((Loss, "loss"), (Accuracy, "accuracy"))]  # fmt: skip
    begin = process.start(config["n_replicas"], seed=seed, point=starts(config, mlp.n_parameters))
    return trace(process, begin, steps, seen)[1].astype(np.float32)


def delays(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Times until the test pairs are half learned."""
    split, mlp = task(config)
    process = kg.SGD(
        mlp, split.train, lr=config["lr"], batch_size=config["batch_size"] or None, device="cpu",
        optimizer=OPTIMIZERS[config["optimizer"]],
    )  # fmt: skip
    return kg.first_passage(
        process, target=LEARNED, n_replicas=config["n_replicas"], max_time=config["time"], seed=seed,
        start=starts(config, mlp.n_parameters),
    )  # fmt: skip


def trap(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Times until the first hidden unit leaves zero, by noise of one temperature on the full gradient."""
    split, mlp = task(config)
    seen = mlp.between_functions(0.0 * split.train.y, split.train.y, data=split.train)
    process = kg.SGD(
        seen, split.train, lr=config["lr"], noise=kg.per_sample(temperature=config["temperature"]), device="cpu"
    )
    return kg.first_passage(
        process, target=FIRST_UNIT, n_replicas=config["n_replicas"], max_time=config["time"], seed=seed
    )


# ---------------------------------------------------------------- the table


def noise_of(config: Mapping[str, Any]) -> float:
    """Strength of the noise: η/B, 0 for full batches, T in the trap."""
    if "temperature" in config:
        return float(config["temperature"])
    return float(config["lr"]) / float(config["batch_size"]) if config["batch_size"] else 0.0


def summary(name: str, configs: list[dict[str, Any]], runs: list[xr.Dataset]) -> xr.Dataset:
    """Exit times of a group of runs, each with its shape: 1 for an escape, large for a drift."""
    most = max(run.sizes["replica"] for run in runs)
    padded = [run[["exit_time", "escaped"]].reset_coords(drop=True).pad(
        replica=(0, most - run.sizes["replica"]), constant_values={"exit_time": np.nan, "escaped": False}
    ) for run in runs]  # fmt: skip
    rows = xr.concat(padded, dim="run")
    for key in sorted(set().union(*configs) - {"p", "width", "one_start", "n_replicas"}):
        rows[key] = "run", [c.get(key, np.nan) for c in configs]
    for key, share in (("", 0.0), ("_late", 0.5)):
        found = np.array([weibull(run, share * float(run.exit_time.median())) for run in runs])
        text = "Weibull shape of the times" + (" from half the median on" if share else "")
        rows[f"weibull_shape{key}"] = "run", found[:, 0], {"units": "1", "long_name": text}
        rows[f"p_value{key}"] = "run", found[:, 1], {"units": "1", "long_name": "p-value if they were exponential"}
    rows["final"] = "run", [float(run.max_score.median()) for run in runs], FINAL
    rows["noise"] = "run", [noise_of(c) for c in configs], {"long_name": "η/B, 0 for full batches; T in the trap"}
    rows["escaped"] = rows.escaped.astype(bool)
    return rows.assign_attrs(group=name)


def weibull(run: xr.Dataset, burn_in: float) -> tuple[float, float]:
    """Shape of a run's exit times after a while, and p-value of 1; NaN where too few escaped."""
    try:
        test = exponentiality_test(run, burn_in=burn_in, min_escapes=8)
    except TooFewEscapesError:
        return float("nan"), float("nan")
    return float(test.note.split()[2]), test.p_value


def law(rows: xr.Dataset) -> dict[str, Any]:
    """What `choose_law` says of a group."""
    kept = np.isfinite(rows.exit_time.values)
    x = np.broadcast_to(rows.noise.values[:, None], kept.shape)[kept]
    choice = choose_law(ExitTimes(x, rows.exit_time.values[kept], rows.escaped.values[kept]), seed=0)
    return {"verdict": choice.verdict, "reason": choice.reason}


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/modular_addition")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    groups = {name: [Cell("delays", c, delays, cost=cost(c)) for c in each] for name, each in DELAYS.items()}
    groups["fall"] = [Cell("delays", c, delays, cost=cost(c)) for c in FALLS]
    groups["trap"] = [Cell("trap", c, trap, cost=1e9 if c["time"] > 3e4 else 1e7) for c in TRAPS]
    groups["curves"] = [Cell("curves", c, curves, cost=cost(c)) for c in CURVES]
    groups["path"] = [Cell("path", c, path, cost=1e9) for c in PATHS]
    groups["barrier"] = [Cell("barrier", SMALL, trap_barrier, cost=1e6)]
    store = Store(args.out, {"task": "modular addition"}, name="modular_addition")
    cells = [cell for each in groups.values() for cell in each]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        ticket = bar.add_task("cells", total=len(cells))
        results = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(ticket))
    found = {id(cell): run for cell, run in zip(cells, results, strict=True)}
    tree: dict[str, xr.Dataset] = {}
    for name, each in groups.items():
        runs, configs = [found[id(cell)] for cell in each], [dict(cell.config) for cell in each]
        if name in ("curves", "path", "barrier"):
            for config, run in zip(configs, runs, strict=True):
                batch = config.get("batch_size", ALL)
                key = f"f{config['fraction']:g}" if name == "path" else f"p{config['p']}-b{batch}"
                tree[f"/{name}/{key}"] = run.assign_attrs(run.attrs | config)
        else:
            rows = summary(name, configs, runs)
            if name == "noise":
                rows = rows.assign_attrs(law(rows))
            elif name == "trap":  # where it is one: melting at the highest temperatures is no escape
                rows = rows.assign_attrs(law(rows.isel(run=rows.p_value_late.values > 0.01)))
            tree[f"/{name}"] = rows
    write_netcdf(xr.DataTree.from_dict(tree), f"{args.out}/table.nc")
    told(tree)


def cost(config: Mapping[str, Any]) -> float:
    """Rough work of a cell."""
    samples = config["batch_size"] or config["fraction"] * config["p"] ** 2
    return float(config["time"] / config["lr"] * config["n_replicas"] * samples * config["p"] * config["width"])


def told(tree: Mapping[str, xr.Dataset]) -> None:
    """Print the table in short."""
    for key, rows in tree.items():
        numbers = {name: float(value) for name, value in rows.data_vars.items() if not value.dims}
        if "exit_time" in rows:
            for i in range(rows.sizes["run"]):
                row = rows.isel(run=i)
                setting = " ".join(f"{k}={float(row[k]):g}" for k in ("weight_decay", "fraction", "noise"))
                left = f"{int(row.escaped.sum())} of {int(np.isfinite(row.exit_time).sum())}"
                median = float(row.exit_time.median())
                print(f"{key} {setting} {left}, median {median:.0f}, shape {float(row.weibull_shape):.2f},"
                      f" late {float(row.weibull_shape_late):.2f} (p = {float(row.p_value_late):.2g})")  # fmt: skip
            print(key, rows.attrs.get("verdict", ""), rows.attrs.get("reason", ""))
        elif "test_accuracy" in rows:
            print(key, "accuracy at the end", rows.test_accuracy.isel(time=-1).values)
        else:
            print(key, numbers, rows["rise"].values if "rise" in rows else "")


if __name__ == "__main__":
    main()
