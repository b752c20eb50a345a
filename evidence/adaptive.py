"""Evidence: what lets a network out of the collapsed state under each optimizer, and how its time scales.

Run with ``make evidence NAME=adaptive``; finished cells are kept, so the same command resumes, and the small
``evidence/adaptive/table.nc`` is committed. The network is that of the main job's optimizers' arm: one feature learned,
the weights of all unused directions small.

1. *Attribution*: every optimizer, size ε of Adam and kind of decay, from amplitudes 0 to 1e-3, on the full batch and on
   minibatches of 8.
2. *Scaling* of the cases that noise drives, Adam with decay in the gradient and AdamW with a large ε: the steps until
   the second feature is learned, and until it has left the trap (m = 0.01), against η, B, β₂, λ and ε.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

from kramers_grok.analysis.exponents import ExponentFit, exponent_fit
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.optimizers import Adam, AdamW, GradientDescent, Momentum, Optimizer
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.studies.attribution import attribution, false_alarm_rate, near
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.reproduction import optimizers as arm
from kramers_grok.studies.running.cells import Cell, execute, one_thread

AMPLITUDES = (0.0, 1e-12, 1e-6, 1e-3)
N_REPLICAS = 16
STEPS = 2000
LEFT, LEARNED = Region(0.01, feature=1), Region(0.5, feature=1)

# Label: optimizer, learning rate, weight decay
CASES: dict[str, tuple[Optimizer, float, float]] = {
    "gradient descent": (GradientDescent(), 0.02, 0.02),
    "momentum 0.9": (Momentum(0.9), 0.002, 0.02),
    "Adam, ε = 1e-8": (Adam(), 1e-3, 0.02),
    "Adam, ε = 1e-5": (Adam(eps=1e-5), 1e-3, 0.02),
    "Adam, ε = 1e-3": (Adam(eps=1e-3), 1e-3, 0.02),
    "Adam, ε = 1e-8, λ = 0.1": (Adam(), 1e-3, 0.1),
    "AdamW, ε = 1e-8": (AdamW(), 1e-3, 0.1),
    "AdamW, ε = 1e-5": (AdamW(eps=1e-5), 1e-3, 0.1),
    "AdamW, ε = 1e-3": (AdamW(eps=1e-3), 1e-3, 0.1),
    "AdamW, ε = 1e-8, λ = 0.02": (AdamW(), 1e-3, 0.02),
}

# The two cases that noise drives, and the ranges of what is varied about them
BASES: dict[str, dict[str, Any]] = {
    "adam": {"lr": 1e-3, "batch_size": 8, "beta2": 0.999, "weight_decay": 0.02, "eps": 1e-8, "decoupled": False},
    "adamw": {"lr": 1e-3, "batch_size": 8, "beta2": 0.999, "weight_decay": 0.1, "eps": 1e-3, "decoupled": True},
}
RANGES: dict[str, dict[str, tuple[float, ...]]] = {
    "adam": {
        "lr": (3e-4, 5e-4, 1e-3, 2e-3, 4e-3),
        "batch_size": (1, 4, 16, 64),
        "beta2": (0.9, 0.99, 0.999, 0.9999),
        "weight_decay": (0.005, 0.01, 0.015, 0.02, 0.03),
    },
    "adamw": {
        "lr": (3e-4, 5e-4, 1e-3, 2e-3, 4e-3),
        "batch_size": (1, 4, 16, 64),
        "beta2": (0.9, 0.99, 0.999, 0.9999),
        "weight_decay": (0.02, 0.05, 0.1, 0.2, 0.4),
        "eps": (3e-4, 1e-3, 3e-3),
    },
}
HORIZON = 6000
TARGETS = {"learned": LEARNED, "left": LEFT}
# Where the climb after leaving takes little of the time anyway
SKIPPED = (("adamw", "batch_size", "left"), ("adamw", "beta2", "left"), ("adamw", "eps", "left"))
TOGETHER = ("lr", "weight_decay")  # differ between the replicas of one ensemble


def training(optimizer: Optimizer, lr: float, weight_decay: float) -> SGD:
    """Return the arm's training."""
    return arm.training(arm.Setup("", optimizer, lr, weight_decay), "minibatch")


def attribute_case(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Who leaves from which amplitude, on the full batch and on minibatches."""
    process = training(*CASES[config["case"]])
    return attribution(
        process,
        state=process.model.ordered_state([0]).numpy(),  # type: ignore[attr-defined]
        amplitudes=AMPLITUDES,
        target=LEARNED,
        n_replicas=config["n_replicas"],
        max_steps=config["max_steps"],
        seed=seed,
    )


def scale_case(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Steps until the target at some values of one hyperparameter, one row for each value."""
    setting, axis, values = dict(config["setting"]), config["axis"], config["values"]
    n = config["n_replicas"]
    setting[axis] = values[0]
    optimizer = Adam((0.9, setting["beta2"]), setting["eps"], setting["decoupled"])
    process = training(optimizer, setting["lr"], setting["weight_decay"])
    process = process.replace(batch_size=int(setting["batch_size"]))
    lrs = np.full(len(values) * n, setting["lr"])
    if axis in TOGETHER:
        each = np.repeat(values, n)
        process = process.replace(**{axis: each})
        lrs = each if axis == "lr" else lrs
    decays = np.repeat(values, n) if axis == "weight_decay" else np.full(len(values) * n, setting["weight_decay"])
    # The learned feature's size depends on the decay: every replica starts at its own state.
    states = {d: training(optimizer, 1e-3, d).model.ordered_state([0]).numpy() for d in set(decays)}  # type: ignore[attr-defined]
    small = near(np.zeros_like(next(iter(states.values()))), 1e-6, len(decays), seed=seed % 2**32)
    start = np.array([np.where(states[d] == 0, s, states[d]) for d, s in zip(decays, small, strict=True)])
    run = first_passage(
        process, target=TARGETS[config["target"]], n_replicas=len(start), max_time=HORIZON * lrs.min(), seed=seed,
        start=start,
    )  # fmt: skip
    steps = np.rint(run.exit_time.values / lrs).reshape(len(values), n)
    return xr.Dataset(
        {
            "exit_step": ((axis, "replica"), steps, describe("exit_step")),
            "escaped": ((axis, "replica"), run.escaped.values.reshape(steps.shape), describe("escaped")),
        },
        coords={axis: (axis, np.asarray(values, dtype=float), {"units": "1", "long_name": axis})},
    )


def scaling_cells(base: str, axis: str, target: str) -> list[Cell]:
    """The cells of one range: one for all values where they share an ensemble, otherwise one each."""
    values = RANGES[base][axis]
    groups = [values] if axis in TOGETHER else [(v,) for v in values]
    common = {"setting": BASES[base], "axis": axis, "target": target, "n_replicas": N_REPLICAS, "horizon": HORIZON}
    return [Cell("scaling", {**common, "values": group}, scale_case, cost=len(group)) for group in groups]


def fitted(ds: xr.Dataset, axis: str) -> tuple[xr.Dataset, ExponentFit | None]:
    """Add the exponent, of 1 − β₂ for β₂, where at least three medians were seen."""
    x = 1 - ds[axis].values if axis == "beta2" else ds[axis].values
    try:
        fit = exponent_fit(x, ds.exit_step.values, ds.escaped.values)
    except InvalidParameterError:
        return ds, None
    names = ("exponent", "lower", "upper", "reduced_chi_square", "p_value", "n_censored")
    labels = {name: {"units": "1", "long_name": name.replace("_", " ")} for name in names}
    return ds.assign({f"fit_{n}": ((), float(getattr(fit, n)), labels[n]) for n in names}), fit


def main() -> None:
    """Compute what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/adaptive")
    args = parser.parse_args()
    one_thread()
    store = Store(args.out, {"horizon": HORIZON, "steps": STEPS}, name="adaptive")
    cases = [
        Cell("attribution", {"case": c, "n_replicas": N_REPLICAS, "max_steps": STEPS}, attribute_case) for c in CASES
    ]
    ranges = [(base, axis) for base in BASES for axis in RANGES[base]]
    groups = {(b, a, t): scaling_cells(b, a, t) for t in TARGETS for b, a in ranges if (b, a, t) not in SKIPPED}
    cells = [*cases, *(cell for group in groups.values() for cell in group)]
    with Progress() as bar:
        task = bar.add_task("cells", total=len(cells))
        runs = execute(store, cells, seed=0, finished=lambda _: bar.advance(task))
    found = dict(zip(map(id, cells), runs, strict=True))
    tables = {"/attribution": attribution_table([found[id(c)] for c in cases])}
    for (base, axis, target), group in groups.items():
        table, fit = fitted(xr.concat([found[id(c)] for c in group], dim=axis), axis)
        tables[f"/{base}/{axis}/{target}"] = table
        text = "too few medians" if fit is None else f"{fit.exponent:+.2f} [{fit.lower:+.2f}, {fit.upper:+.2f}]"
        print(f"{base}, {target}: steps against {axis}: exponent {text}")
    write_netcdf(xr.DataTree.from_dict(tables), f"{args.out}/table.nc")


def attribution_table(runs: list[xr.Dataset]) -> xr.Dataset:
    """All cases in one table."""
    names = xr.DataArray(list(CASES), dims="case", name="case", attrs={"long_name": "optimizer"})
    table = xr.concat(runs, dim=names).assign(
        lr=("case", [c[1] for c in CASES.values()], describe("lr")),
        weight_decay=("case", [c[2] for c in CASES.values()], describe("weight_decay")),
    )
    for name in CASES:
        one = table.sel(case=name)
        counts = (one.fraction * N_REPLICAS).round().astype(int).values
        print(
            name,
            *(f"{a:g}: {f}/{m} {c}" for a, (f, m), c in zip(AMPLITUDES, counts, one.attribution.values, strict=True)),
        )
    table = table.drop_encoding()  # texts of cells read from files keep the length of the first
    return table.assign_attrs(false_alarm_rate=false_alarm_rate(N_REPLICAS), n_replicas=N_REPLICAS, max_steps=STEPS)


if __name__ == "__main__":
    main()
