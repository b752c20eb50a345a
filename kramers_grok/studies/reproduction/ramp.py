"""Weight decay ramped at a finite rate under noise: where features appear and disappear, and how wide the loop is.

The chain is trained by SGD with true minibatches and per-sample noise. Its prediction has no fitted parameter: survival
under the escape rate at the λ of each moment, from the exact rates of the chain with the step and the minibatches in
them (adiabatic), and the same with the lag of the well from the mode's Fokker–Planck equation (driven). Measured and
predicted share the landscape only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.hypotheses import ks_test
from kramers_grok.analysis.loop_width import hysteresis_width
from kramers_grok.core.exceptions import TooFewEscapesError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.ramp import ramp as run_ramp
from kramers_grok.models.data import population, teacher
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.ramps import Ramp, RampLaw, adiabatic_ramp, driven_ramp, ramp_rates

__all__ = ["NAME", "cells", "gather", "measure"]

NAME = "ramp"
TEMPERATURES = (0.0015, 0.003)
RATES = (5e-5, 1.5e-4, 5e-4)
QUICK_TEMPERATURES = (0.003,)
QUICK_RATES = (1.5e-4, 5e-4)
BATCH_SIZE = 64
# Both begin where their state is left by less than one replica in thousands
ENDS = {"down": (0.40, 0.03), "up": (0.37, 0.56)}
GRID = 241
# The wrong theory that the test must reject: its temperature is off by 20 %
WRONG = 1.2


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each temperature and direction, and the control without noise."""
    quick = settings.quick
    base = {
        "chain": [settings.depth, settings.singular_value],
        "lr": settings.lr,
        "batch_size": BATCH_SIZE,
        "label_noise": settings.label_noise,
        "rates": list(QUICK_RATES if quick else RATES),
        "n_replicas": 192 if quick else 1024,
        "ratio_nodes": 2 if quick else 3,
    }
    noisy = [
        Cell("ramp-sgd", base | {"direction": direction, "temperature": temperature}, partial(measure, device), 100.0)
        for temperature in (QUICK_TEMPERATURES if quick else TEMPERATURES)
        for direction in ENDS
    ]
    return [*noisy, Cell("ramp-control", base, partial(_control, device), 10.0)]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Gather both directions and the widths of their loops."""
    *runs, control = results
    down, up = (xr.concat(runs[i::2], dim="temperature", combine_attrs="override") for i in (0, 1))
    spinodal = DeepLinearChain(settings.depth, settings.singular_value, settings.weight_decay).spinodal()
    root = xr.Dataset(attrs={"spinodal": spinodal, "batch_size": BATCH_SIZE, "lr": settings.lr, "wrong": WRONG})
    tree = {"/": root, "/down": down, "/up": up, "/loops": loops(up, down), "/control": control}
    return xr.DataTree.from_dict(tree, name=NAME)


def loops(up: xr.Dataset, down: xr.Dataset) -> xr.Dataset:
    """Widths of the loops, measured and predicted, along (temperature, ramp_rate)."""
    shape = (up.sizes["temperature"], up.sizes["ramp_rate"])
    width, error = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, j in np.ndindex(shape):
        at = {"temperature": i, "ramp_rate": j}
        try:
            found = hysteresis_width(up.isel(at), down.isel(at))
        except TooFewEscapesError:
            continue  # stays NaN: a mean over the escaped alone would be biased
        width[i, j], error[i, j] = found.value, found.standard_error
    dims, unit = ("temperature", "ramp_rate"), {"units": "loss/weight²"}
    names = {name: up[f"{name}_mean"] - down[f"{name}_mean"] for name in ("driven", "adiabatic")}
    return xr.Dataset(
        {
            "width": (dims, width, unit | {"long_name": "width of the loop, measured"}),
            "width_error": (dims, error, unit | {"long_name": "standard error of the width"}),
            **{f"{k}_width": (dims, v.values, unit | {"long_name": f"width, {k}"}) for k, v in names.items()},
        },
        coords={"temperature": up["temperature"], "ramp_rate": up["ramp_rate"]},
    )


def measure(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Ramps of one direction at one temperature and several rates, beside their predictions."""
    heat, lr, batch = float(config["temperature"]), float(config["lr"]), int(config["batch_size"])
    start, stop = ENDS[config["direction"]]
    depth, sigma = config["chain"]
    chain = DeepLinearChain(depth, sigma, 0.25)
    noise = 2 * heat * batch / lr
    residual = GaussianResidualVariance(sigma, 1.0, config["label_noise"])
    process = SGD(
        chain,
        teacher(label_noise=config["label_noise"]),
        lr=lr,
        batch_size=batch,
        noise=per_sample(variance=noise),
        device=device,
    )
    ramps = [Ramp(start, stop, rate) for rate in config["rates"]]
    common: dict[str, Any] = {
        "step": lr,
        "monitored": True,
        "noise_variance": noise,
        "residual_variance": residual,
    }
    rates = ramp_rates(chain, *ramps, temperature=heat, ratio_nodes=config["ratio_nodes"], **common)
    rows = []
    for number, ramp in enumerate(ramps):
        run = run_ramp(process, ramp, n_replicas=config["n_replicas"], seed=seed ^ number)
        laws = {
            "adiabatic": adiabatic_ramp(chain, ramp, temperature=heat, rates=rates),
            "driven": driven_ramp(chain, ramp, temperature=heat, rates=rates, **common),
            "wrong": driven_ramp(chain, ramp, temperature=WRONG * heat, rates=rates, **common),
        }
        rows.append(_row(run, laws, start, stop))
    table = xr.concat(rows, dim="ramp_rate").assign_coords(
        ramp_rate=("ramp_rate", list(config["rates"]), describe("ramp_rate")),
        temperature=((), heat, describe("temperature")),
    )
    # Share of the minibatches' own noise at the barrier's top, at the middle ramp's mean λ
    middle = table.isel(ramp_rate=len(ramps) // 2)
    top = DeepLinearChain(depth, sigma, min(float(middle["driven_mean"]), 0.99 * chain.spinodal())).saddle_amplitude()
    share = lr / (2 * batch) * float(residual(top**depth)) * depth * top ** (2 * depth - 2) / heat
    label = {"units": "1", "long_name": "minibatch noise over T at the barrier's top"}
    error = ((), rates.relative_error, describe("relative_error"))
    return table.assign(minibatch_share=((), share, label), table_error=error)


def _row(run: xr.Dataset, laws: Mapping[str, RampLaw], start: float, stop: float) -> xr.Dataset:
    grid = np.linspace(start, stop, GRID)
    decay = describe("weight_decay")
    row = xr.Dataset(
        {
            "weight_decay_at_exit": run["weight_decay_at_exit"],
            "escaped": run["escaped"],
        }
    ).drop_vars([name for name in run.coords if name != "replica"], errors="ignore")
    for name, law in laws.items():
        p = ks_test(run, law.survival).p_value
        row[f"{name}_survival"] = ("position", law.survival_at(grid), describe("survival"))
        row[f"{name}_mean"] = ((), law.mean_weight_decay, decay | {"long_name": f"mean λ at the escape, {name}"})
        row[f"{name}_std"] = ((), law.standard_deviation, decay | {"long_name": f"standard deviation of λ, {name}"})
        row[f"{name}_p_value"] = ((), p, describe("ks_p_value"))
    row["adiabatic_valid"] = ((), not laws["adiabatic"].warnings, {"units": "1", "long_name": "ramp slow enough"})
    return row.assign_coords(weight_decay=("position", grid, decay))


def _control(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Descent on the population's gradient, T = 0: upwards lost at the spinodal only, downwards never found."""
    depth, sigma = config["chain"]
    chain = DeepLinearChain(depth, sigma, 0.25)
    process = SGD(chain, population(), lr=config["lr"], device=device)
    found = np.empty((2, len(config["rates"])))
    left = np.empty_like(found, dtype=bool)
    for i, direction in enumerate(ENDS):
        for j, rate in enumerate(config["rates"]):
            # A little off the minimum, so that staying is not for want of a push
            ramp = Ramp(*ENDS[direction], rate)
            push: dict[str, Any] = {"start": np.full(depth, 0.02), "settling_time": 0.0} if ramp.down else {}
            run = run_ramp(process, ramp, n_replicas=1, seed=seed, **push)
            found[i, j], left[i, j] = float(run["weight_decay_at_exit"][0]), bool(run["escaped"][0])
    dims = ("direction", "ramp_rate")
    return xr.Dataset(
        {
            "weight_decay_at_exit": (dims, found, describe("weight_decay_at_exit")),
            "escaped": (dims, left, describe("escaped")),
        },
        coords={"direction": list(ENDS), "ramp_rate": ("ramp_rate", list(config["rates"]), describe("ramp_rate"))},
    )
