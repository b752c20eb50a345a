"""Arrhenius in wide layers: SGD with true minibatches in the full matrix network, against full-weight-space rates.

Eight hidden units a layer. At D = 3 such a trap has a barrier only for ΔF/T above about 2(h − 1) = 14: below that the
entropy of the orbit outweighs it (the entropic spinodal). Here λ = 1/4, σ = q = 1, ΔF/T = 16 to 28; per-sample noise
of fixed variance makes the temperature through η/B alone, and minibatches add noise of their own, 5 % of it at the
saddle. It is felt along the radial path only, which climbs a few T: it quickens the escape by 1 or 2 %, not by the 10 %
that it would in the mode.

The prediction has no fitted parameter: the rate in the radial free energy, times the first order of the step, times the
minibatches' factor. Theory and simulation share the energy and nothing else. Where the trap is shallow the radial rate
is known to be up to 10 % too slow, since its radii move with unit mobility; the ratio is shown, not tested to be 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.arrhenius import ArrheniusFit, arrhenius_fit, slope_difference
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.process import Process
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.studies.reproduction.runs import table
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise, minibatch_log_factor
from kramers_grok.theory.radial import RadialFreeEnergy, entropic_spinodal, radial_rate
from kramers_grok.theory.radial_minibatch import radial_minibatch_log_factor
from kramers_grok.theory.rates import Rate, eyring_kramers_rate

__all__ = [
    "COLUMNS",
    "NAME",
    "batch_for",
    "beside",
    "cells",
    "gather",
    "line_fits",
    "measure",
    "minibatch",
    "network",
    "predictions",
    "step_pairs",
]

NAME = "wide"
WIDTHS, MATRIX = (1, 8, 8, 1), (4, 8, 8, 4)
DEPTH, SINGULAR_VALUE, WEIGHT_DECAY = 3, 1.0, 0.25
NOISE_VARIANCE = 0.65  # g²; the minibatches' own noise at the saddle is 5 % of it
LR, SLOW, FAST = 0.2, 0.1, 0.4

# ΔF/T and replicas, on the line of one η; the last ones end at the cap before all have escaped.
LINE = {16.0: 1024, 18.0: 1024, 20.0: 1024, 22.0: 1024, 24.0: 512, 26.0: 384, 28.0: 256}
QUICK_LINE = {16.0: 64, 18.0: 64, 20.0: 48}  # at the largest η
CAP, QUICK_CAP = 20_000.0, 1_500.0  # longest time waited for
HORIZON = 10.0  # predicted mean times; e^-10 of the replicas are censored
CONTROL = 24.0  # ΔF/T of the thermally spread starts from which full-batch descent never escapes


def network(widths: Sequence[int]) -> DeepLinearNetwork:
    """Return the network of these widths: one feature."""
    return DeepLinearNetwork(widths, [SINGULAR_VALUE], weight_decay=WEIGHT_DECAY)


def batch_for(ratio: float, lr: float) -> int:
    """Batch size that makes ΔF/T: the same η/B to the digit for every η that is a multiple of the smallest."""
    height = DeepLinearChain(DEPTH, SINGULAR_VALUE, WEIGHT_DECAY).barrier().height
    return round(SLOW * NOISE_VARIANCE * ratio / (2 * height)) * round(lr / SLOW)


def minibatch(lr: float, batch_size: int, label_noise: float) -> MinibatchNoise:
    """Return the noise of the minibatches themselves."""
    return MinibatchNoise(lr / batch_size, GaussianResidualVariance(SINGULAR_VALUE, 1.0, label_noise))


def predictions(
    widths: Sequence[int], temperature: float, *, step: float, noise: MinibatchNoise | None = None
) -> dict[str, float]:
    """Predict a run's mean time, and what other formulas say; `noise` is the minibatches' own.

    Returns
    -------
    dict of float
        ``predicted_mean`` [time]: radial rate, first order of the step, minibatches along the radial path.
        ``eyring_kramers`` with the orbit of saddles and ``chain`` of three scalar weights [time], with the same step
        and the minibatches of the mode. ``radial_barrier_over_temperature``, ``barrier_over_temperature``, the
        corrections as logarithms of the rate, and ``valid``: whether the radial rate says it holds.
    """
    theory = network(widths).theory
    barrier = theory.barrier()
    radial = radial_rate(theory, temperature, warn=False)
    saddle, walk = (eyring_kramers_rate(barrier, temperature, step=h, warn=False) for h in (0.0, step))
    chain = eyring_kramers_rate(DeepLinearChain(DEPTH, SINGULAR_VALUE, WEIGHT_DECAY).barrier(), temperature, warn=False)
    along_path = along_mode = 0.0
    if noise is not None:
        along_path = radial_minibatch_log_factor(RadialFreeEnergy(theory, temperature), noise)
        along_mode = minibatch_log_factor(theory.mode(0), temperature, noise)
    gain_of_step = math.log(walk.value / saddle.value)

    def time(rate: Rate, gain: float) -> float:
        return math.exp(-math.log(rate.value) - gain_of_step - gain)

    return {
        "predicted_mean": time(radial, along_path),
        "eyring_kramers": time(saddle, along_mode),
        "chain": time(chain, along_mode),
        "radial_barrier_over_temperature": radial.barrier_over_temperature,
        "barrier_over_temperature": barrier.height / temperature,
        "step_log_factor": gain_of_step,
        "minibatch_log_factor": along_path,
        "mode_minibatch_log_factor": along_mode,
        "valid": float(radial.valid),
    }


COLUMNS: Mapping[str, tuple[str, str]] = {
    "predicted_mean": ("time", "predicted mean exit time"),
    "eyring_kramers": ("time", "Eyring-Kramers with the orbit of saddles"),
    "chain": ("time", "Eyring-Kramers of three scalar weights"),
    "radial_barrier_over_temperature": ("1", "radial barrier over temperature"),
    "barrier_over_temperature": ("1", "barrier over temperature ΔF/T"),
    "step_log_factor": ("1", "logarithm of the step's factor on the rate"),
    "minibatch_log_factor": ("1", "logarithm of the minibatches' factor on the rate, along the radial path"),
    "mode_minibatch_log_factor": ("1", "the same along the mode's path"),
    "valid": ("1", "whether the radial rate says it holds"),
}


def measure(config: Mapping[str, Any], *, fused: bool, device: str, seed: int) -> xr.Dataset:
    """Run SGD in a wide network until its escapes, or to the cap, beside the predictions."""
    model, label_noise = network(config["widths"]), float(config["label_noise"])
    lr, batch_size = float(config["lr"]), int(config["batch_size"])
    noise = per_sample(variance=NOISE_VARIANCE)
    process = SGD(
        model, teacher(label_noise=label_noise), lr=lr, batch_size=batch_size, noise=noise, fused=fused, device=device
    )
    own = minibatch(lr, batch_size, label_noise)
    expected = predictions(model.widths, float(process.temperature), step=lr, noise=own)
    return beside(process, model, expected, n_replicas=config["n_replicas"], cap=config["cap"], seed=seed)


def beside(
    process: Process,
    model: DeepLinearNetwork,
    expected: Mapping[str, float],
    *,
    n_replicas: int,
    cap: float,
    horizon: float = HORIZON,
    seed: int,
) -> xr.Dataset:
    """Run a process in a wide network and put `expected` beside its exit times."""
    run = first_passage(
        process,
        target=beyond(model.theory.barrier()),
        n_replicas=n_replicas,
        max_time=min(horizon * expected["predicted_mean"], cap),
        seed=seed,
        bridge=False,
    )
    for name, value in expected.items():
        units, long_name = COLUMNS[name]
        run[name] = ((), value, {"units": units, "long_name": long_name})
    run["width"] = ((), model.widths[1], describe("width"))
    run["n_inputs"] = ((), model.widths[0], {"units": "1", "long_name": "inputs and outputs"})
    return run


def _control(config: Mapping[str, Any], *, device: str, seed: int) -> xr.Dataset:
    """Full-batch descent from thermally spread starts in the trap: nothing may escape."""
    model = network(config["widths"])
    spread = math.sqrt(model.theory.barrier().height / CONTROL / WEIGHT_DECAY)
    starts = np.random.default_rng(seed).normal(scale=spread, size=(config["n_replicas"], model.n_parameters))
    return first_passage(
        SGD(model, population(), lr=LR, fused=False, device=device),
        target=beyond(model.theory.barrier()),
        n_replicas=int(config["n_replicas"]),
        max_time=float(config["time"]),
        seed=seed,
        start=starts,
    )


def _plan(settings: Settings, device: str) -> dict[str, list[Cell]]:
    """Cells by the group of the result that they belong to."""
    quick = settings.quick
    # The compiled kernel of 80 weights takes 16 s to compile: the quick job is over before.
    run = partial(measure, fused=not quick, device=device)
    base = {"cap": QUICK_CAP if quick else CAP, "label_noise": settings.label_noise}

    def cell(widths: tuple[int, ...], ratio: float, lr: float, n_replicas: int) -> Cell:
        n = min(n_replicas, settings.n_replicas)
        config = base | {"widths": list(widths), "lr": lr, "batch_size": batch_for(ratio, lr), "n_replicas": n}
        weight = 1.0 if widths == WIDTHS and not quick else 8.0
        return Cell("wide-sgd", config, run, 1e-3 * weight * n * math.exp(0.55 * ratio) / lr)

    line, lr = (QUICK_LINE, FAST) if quick else (LINE, LR)
    pairs = [(18.0, LR, 64)] if quick else [(r, h, n) for r, n in ((18.0, 1024), (22.0, 512)) for h in (SLOW, FAST)]
    matrix = [] if quick else [(18.0, LR, 256), (20.0, LR, 256)]
    idle = {"widths": list(WIDTHS), "n_replicas": 64, "time": 200.0 if quick else 2000.0}
    return {
        "line": [cell(WIDTHS, ratio, lr, n) for ratio, n in line.items()],
        "pairs": [cell(WIDTHS, *pair) for pair in pairs],
        "matrix": [cell(MATRIX, *row) for row in matrix],
        "control": [Cell("wide-control", idle, partial(_control, device=device), 100.0)],
    }


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return the runs on one line of η, at other η with equal η/B, with four inputs and outputs, and the control."""
    return [cell for group in _plan(settings, device).values() for cell in group]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Gather runs beside their predictions, fit straight lines, and compare runs of equal η/B."""
    remaining = iter(results)
    runs = {name: [next(remaining) for _ in group] for name, group in _plan(settings, "cpu").items()}
    columns = ("width", "n_inputs", *COLUMNS)
    groups = {name: table(runs[name], columns) for name in ("line", "pairs", "matrix") if runs[name]}
    groups["equal_lr_over_batch"] = step_pairs(table([*runs["line"], *runs["pairs"]], columns))
    groups["laws"] = line_fits(groups["line"])
    groups["theory"] = _curves(groups["line"], settings.label_noise)
    groups["control"] = runs["control"][0]
    theory = network(WIDTHS).theory
    attrs = {
        "weight_decay": WEIGHT_DECAY,
        "depth": DEPTH,
        "noise_variance": NOISE_VARIANCE,
        "barrier_height": theory.barrier().height,
        "entropic_spinodal": entropic_spinodal(theory),
        "widths": str(WIDTHS),
    }
    tree = {"/": xr.Dataset(attrs=attrs)} | {f"/{name}": group for name, group in groups.items()}
    return xr.DataTree.from_dict(tree, name=NAME)


def _curves(line: xr.Dataset, label_noise: float) -> xr.Dataset:
    """Predicted times between the hottest and the coldest run, at the line's η."""
    temperatures, lr = line["temperature"].values, float(line["lr"][0])
    grid = 1 / np.linspace(1 / temperatures.max(), 1 / temperatures.min(), 25)
    rows = []
    for T in grid:
        batch_size = max(1, round(lr * NOISE_VARIANCE / (2 * T)))
        rows.append(predictions(WIDTHS, float(T), step=lr, noise=minibatch(lr, batch_size, label_noise)))
    data = {
        name: ("temperature", [row[name] for row in rows], {"units": units, "long_name": long_name})
        for name, (units, long_name) in COLUMNS.items()
    }
    return xr.Dataset(data, coords={"temperature": ("temperature", grid, describe("temperature"))})


def line_fits(rows: xr.Dataset) -> xr.Dataset:
    """Fit ln τ against 1/T by a straight line, in what was measured and in each prediction at the same temperatures.

    The slope would be ΔF if the prefactor did not depend on T. In wide layers it does, as :math:`T^{h-1}` and more: the
    entropy of the saddle's orbit pulls the slope far below the barrier.
    """
    escaped = np.isfinite(rows["mean_exit_time"].values) & np.isfinite(rows["standard_error"].values)
    some = rows.isel(run=np.flatnonzero(escaped))
    measured = arrhenius_fit(*(some[name].values for name in ("temperature", "mean_exit_time", "standard_error")))
    fits: dict[str, ArrheniusFit] = {"measured": measured}
    for name in ("predicted_mean", "eyring_kramers", "chain"):
        fits[name] = measured.refit(some[name].values)
    height = float((some["barrier_over_temperature"] * some["temperature"])[0])
    values = {
        "slope": ("loss", "slope of ln τ against 1/T", [f.barrier for f in fits.values()]),
        "slope_error": ("loss", "its standard error", [measured.barrier_standard_error, 0.0, 0.0, 0.0]),
        "slope_over_barrier": ("1", "slope over ΔF", [f.barrier / height for f in fits.values()]),
        "slope_difference_se": (
            "1",
            "measured slope minus this one, in standard errors",
            [slope_difference(measured, f).z for f in fits.values()],
        ),
        "r_squared": ("1", "R² of the straight line", [f.r_squared for f in fits.values()]),
    }
    data = {name: ("curve", value, {"units": u, "long_name": label}) for name, (u, label, value) in values.items()}
    return xr.Dataset(data, coords={"curve": list(fits)}, attrs={"barrier_height": height})


def step_pairs(rows: xr.Dataset) -> xr.Dataset:
    """Compare runs of equal η/B at different η: their ratio of mean times, measured and predicted."""
    found: list[tuple[float, ...]] = []
    T, lr = rows["temperature"].values, rows["lr"].values
    mean, error = rows["mean_exit_time"].values, rows["standard_error"].values
    expected = rows["predicted_mean"].values
    for i in range(rows.sizes["run"]):
        for j in range(rows.sizes["run"]):
            if lr[i] > lr[j] and math.isclose(T[i], T[j], rel_tol=1e-9):
                ratio = mean[i] / mean[j]
                spread = math.hypot(error[i] / mean[i], error[j] / mean[j])
                z = (math.log(ratio) - math.log(expected[i] / expected[j])) / spread
                found.append((T[i], lr[i], lr[j], ratio, ratio * spread, expected[i] / expected[j], z))
    names = {
        "temperature": describe("temperature"),
        "lr": describe("lr"),
        "other_lr": {"units": "time/step", "long_name": "smaller learning rate η"},
        "ratio": {"units": "1", "long_name": "mean time over that at the smaller learning rate"},
        "ratio_error": {"units": "1", "long_name": "its standard error"},
        "predicted_ratio": {"units": "1", "long_name": "predicted ratio"},
        "difference_se": describe("difference_se"),
    }
    table_ = np.array(found, dtype=np.float64).reshape(-1, len(names))
    return xr.Dataset({name: ("pair", table_[:, k], attrs) for k, (name, attrs) in enumerate(names.items())})
