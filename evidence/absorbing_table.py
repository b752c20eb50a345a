"""The table of `absorbing.py`: what its cells found, beside the estimates in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.core.vocabulary import describe
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.transverse_growth import (
    NoisyBackground,
    frozen_growth_rate,
    mean_square_factor,
    noisy_background,
    transverse_growth_rate,
)

__all__ = ["gather"]

SIGMA = 2.0  # of the learned feature
SETTING = ("n_inputs", "weight_decay", "label_noise", "lr_over_batch", "batch_size")
LAYERS = {"hidden_layer": ("hidden_layer", [1, 2], describe("hidden_layer"))}


def gather(groups: Mapping[str, Sequence[Cell]], results: Mapping[str, Sequence[xr.Dataset]]) -> xr.DataTree:
    """Return all of it."""
    return xr.DataTree.from_dict(
        {
            "/map": rates(groups["rate"], results["rate"]).merge(outcomes(results["learning"])),
            "/known": rates(groups["check"], results["check"]).merge(
                beside(groups["check"], groups["growth"], results["growth"])
            ),
            "/batches": batches([*groups["batch"], *groups["package"]], [*results["batch"], *results["package"]]),
            "/amplitude": starts(groups["amplitude"], results["amplitude"]),
            "/floor": floors(groups["floor"], results["floor"]),
            "/jump": jumps(groups["jump"], results["jump"]),
        }
    )


def named(long_name: str, units: str = "1") -> dict[str, str]:
    """Attributes of a variable that only this table has."""
    return {"units": units, "long_name": long_name}


def settings(cells: Sequence[Cell]) -> dict[str, Any]:
    """Coordinates of settings."""
    names = dict.fromkeys(SETTING, "") | {"n_inputs": "input and output dimension d"}
    return {
        name: ("setting", [c.config[name] for c in cells], named(text) if text else describe(name))
        for name, text in names.items()
    }


def rates(cells: Sequence[Cell], found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Growth rates by the independent program, and what theory says."""
    columns: dict[str, list[Any]] = {}
    for cell, run in zip(cells, found, strict=True):
        row = measured(cell.config, run) | theory(cell.config)
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    both, one = ("setting", "hidden_layer"), "setting"
    about = {
        "growth_rate": (both, describe("growth_rate")),
        "growth_rate_error": (both, describe("growth_rate_error")),
        "growth_spread": (both, describe("growth_spread")),
        "layer_norm": (("setting", "layer"), describe("layer_norm")),
        "mean_square_factor": (one, describe("mean_square_factor")),
        "diverged_backgrounds": (one, named("backgrounds that diverged")),
        "n_backgrounds": (one, named("backgrounds followed")),
        "second_order": (both, named("growth rate to second order in the noise", "1/time")),
        "predicted_norm": (("setting", "layer"), named("norm from the balance of noise and weight decay", "weight")),
        "frozen": (one, named("growth rate if the background were at rest", "1/time")),
    }
    data = {name: (dims, columns[name], attributes) for name, (dims, attributes) in about.items()}
    layers = {"layer": ("layer", [1, 2, 3], describe("layer"))}
    return xr.Dataset(data, coords=settings(cells) | LAYERS | layers)


def measured(key: Mapping[str, Any], run: xr.Dataset) -> dict[str, Any]:
    """Rates of one setting over the backgrounds that stayed finite."""
    finite = run.finite.values
    rows, means = run.growth_rate.values[finite], run["mean"].values[finite]
    if len(rows) < 4:  # nothing left to measure
        rows, means = np.full((4, 2), np.nan), np.full((4, 4), np.nan)
    gain = float(means[:, 3].mean())
    lr = float(key["lr_over_batch"]) * int(key["batch_size"])
    factor = np.nan
    if np.isfinite(gain):
        factor = mean_square_factor(
            lr, int(key["batch_size"]), float(key["weight_decay"]), gain, n_inputs=int(key["n_inputs"])
        )
    return {
        "growth_rate": rows.mean(axis=0),
        "growth_rate_error": rows.std(axis=0, ddof=1) / len(rows) ** 0.5,
        "growth_spread": 0.5 * rows.var(axis=0, ddof=1) * float(key["time"]),
        "layer_norm": means[:, :3].mean(axis=0),
        "mean_square_factor": factor,
        "diverged_backgrounds": int((~finite).sum()),
        "n_backgrounds": len(finite),
    }


def theory(key: Mapping[str, Any]) -> dict[str, Any]:
    """Estimates in closed form; NaN where the balance has no solution."""
    ratio, size, d = float(key["lr_over_batch"]), int(key["batch_size"]), int(key["n_inputs"])
    decay, label = float(key["weight_decay"]), float(key["label_noise"])
    task: dict[str, Any] = {"label_noise": label, "n_inputs": d, "n_outputs": d}
    mode = Mode(3, SIGMA, decay)
    resting = mode.learned_amplitude()
    frozen = frozen_growth_rate(ratio * label**2 * resting**2, d, decay)
    try:
        state: NoisyBackground | None = noisy_background(mode, lr=ratio * size, batch_size=size, **task)
    except NoBarrierError:
        state = None
    if state is None:
        return {"second_order": [np.nan] * 2, "predicted_norm": [np.nan] * 3, "frozen": frozen}
    growing = transverse_growth_rate(state, weight_decay=decay, lr_over_batch=ratio, **task)
    return {"second_order": list(growing), "predicted_norm": list(state.norms), "frozen": frozen}


def outcomes(found: Sequence[xr.Dataset]) -> xr.Dataset:
    """What became of whole networks."""
    counts = {
        "n_learned": ([int(run.escaped.sum()) for run in found], "networks that learned the second feature"),
        "n_diverged": ([int(run.diverged.sum()) for run in found], "networks that diverged"),
        "n_networks": ([run.sizes["replica"] for run in found], "networks trained"),
    }
    return xr.Dataset({name: ("setting", values, named(text)) for name, (values, text) in counts.items()})


def beside(cells: Sequence[Cell], packaged: Sequence[Cell], found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Rates by `growth_rate` where it was run, NaN elsewhere."""
    by_setting = {tuple(cell.config[name] for name in SETTING): run for cell, run in zip(packaged, found, strict=True)}
    runs = [by_setting.get(tuple(cell.config[name] for name in SETTING)) for cell in cells]
    nothing = [np.nan] * 2
    both = ("setting", "hidden_layer")
    done = [run if run is not None and "growth_rate" in run else None for run in runs]
    return xr.Dataset(
        {
            "package_rate": (
                both,
                [nothing if run is None else run.growth_rate.values for run in done],
                named("growth rate by `growth_rate`", "1/time"),
            ),
            "package_error": (
                both,
                [nothing if run is None else run.growth_rate_error.values for run in done],
                named("its standard error", "1/time"),
            ),
            "package_norm": (
                ("setting", "layer"),
                [[np.nan] * 3 if run is None else run.layer_norm.values for run in done],
                named("norm of a layer by `growth_rate`", "weight"),
            ),
            "verdict": (
                "setting",
                ["" if run is None else str(run.verdict.item()) for run in done],
                describe("verdict"),
            ),
        }
    )


def batches(cells: Sequence[Cell], found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Learning times at several batch sizes."""
    lr = float(cells[0].config["lr_over_batch"]) * int(cells[0].config["batch_size"])
    steps = [np.rint(run.exit_time.values / lr) for run in found]
    return xr.Dataset(
        {
            "exit_step": (("batch_size", "replica"), steps, describe("exit_step")),
            "escaped": (("batch_size", "replica"), [run.escaped.values for run in found], describe("escaped")),
            "program": ("batch_size", [cell.name for cell in cells], named("program")),
        },
        coords={"batch_size": ("batch_size", [cell.config["batch_size"] for cell in cells], describe("batch_size"))},
        attrs={"lr": lr, "weight_decay": cells[0].config["weight_decay"], "n_inputs": cells[0].config["n_inputs"]},
    )


def starts(cells: Sequence[Cell], found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Learning times against the amplitude at the start."""

    def kind(config: Mapping[str, Any]) -> str:
        if not config.get("turned"):
            return "along the units"
        return "turned, float32" if config.get("single") else "turned, float64"

    return xr.Dataset(
        {
            "exit_time": (("start", "replica"), [run.exit_time.values for run in found], describe("exit_time")),
            "escaped": (("start", "replica"), [run.escaped.values for run in found], describe("escaped")),
        },
        coords={
            "amplitude": ("start", [cell.config["amplitude"] for cell in cells], describe("amplitude")),
            "kind": ("start", [kind(cell.config) for cell in cells], named("hidden basis and precision")),
        },
        attrs={name: cells[0].config[name] for name in SETTING},
    )


def floors(cells: Sequence[Cell], found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Learning times against an added noise."""
    return xr.Dataset(
        {
            "exit_time": (("added", "replica"), [run.exit_time.values for run in found], describe("exit_time")),
            "escaped": (("added", "replica"), [run.escaped.values for run in found], describe("escaped")),
        },
        coords={
            "added": (
                "added",
                [cell.config["added"] for cell in cells],
                named("standard deviation of the added noise", "weight/√time"),
            )
        },
        attrs={name: cells[0].config[name] for name in SETTING},
    )


def jumps(cells: Sequence[Cell], found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Share of replicas of each rank along the runs."""
    ranks = np.array([run.effective_rank.values for run in found])
    shares = np.stack([(ranks == rank).mean(axis=1) for rank in (0, 1, 2)], axis=-1)
    return xr.Dataset(
        {"share": (("run", "time", "rank"), shares, named("share of replicas"))},
        coords={
            "time": ("time", found[0].time.values, describe("time")),
            "rank": ("rank", [0, 1, 2], describe("effective_rank")),
            "start_rank": ("run", [cell.config["rank"] for cell in cells], named("rank at the start")),
            "weight_decay": ("run", [cell.config["weight_decay"] for cell in cells], describe("weight_decay")),
            "noise_variance": (
                "run",
                [cell.config["noise_variance"] for cell in cells],
                named("per-sample noise variance", "loss²/weight²"),
            ),
        },
    )
