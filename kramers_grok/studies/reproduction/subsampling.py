"""The curve of grokking by sparse sub-sampling, the controls without it, and the other late transition.

- *gain*: an autoencoder trained on six samples of four white inputs from zero weights. The direction that the samples
  hardly contain is learned last, over a barrier: train error low early, test error high, then falling to the train
  error.
- *control*: the same network trapped without that feature and released to full-batch descent: nothing happens.
- *many*: the same with 64 samples: no direction is hidden, and train and test error fall together.
- *forget*: labels with noise on whitened inputs. The network has learned a spurious feature, which noise drops.
- *map*: where the curve exists, for a few N/d and η/B; the larger map is ``make evidence NAME=subsampling_map``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.survival import estimate
from kramers_grok.core import schema
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.observables import Loss, OrderParameters
from kramers_grok.dynamics.sampling import WithoutReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.tracing import trace
from kramers_grok.escape.protocols.trap import trap_and_release, without_noise
from kramers_grok.models.data import finite, linear_teacher_data
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.reproduction.subsampled import LR, Autoencoding, map_cell, since_start, where_it_exists
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.feature_network import LearningTime
from kramers_grok.theory.rates import eyring_kramers_rate
from kramers_grok.theory.subsampling import GrokkingCriterion, Subsample

__all__ = ["NAME", "cells", "gather"]

NAME = "subsampling"
N_INPUTS, N_SAMPLES, DRAW = 4, 6, 0
MANY = 64
SHARE = 0.25  # λ over the smallest input variance of the sample
LARGEST_BATCH = 5
RATIO, QUICK_RATIO = 4.0, 3.2  # ΔF/T at the largest batch
BATCHES, QUICK_BATCHES = (2, 3, 5), (2, 3)
HORIZON, QUICK_HORIZON = 2.5, 1.8  # in predicted mean times
TRAP_DECAY, TRAP_TIME = 0.1, 150.0
WEAKEST = N_INPUTS - 1
LEARNED = 0.3  # order parameter above which a feature counts as learned; the barriers stand below 0.03
FORGET = {"n_samples": 8, "batch_size": 7, "label_noise": 0.9, "teacher": 2.0, "decay_share": 0.93, "ratio": 4.0}


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return the cells of all parts."""
    quick = settings.quick
    base = {"inputs": N_INPUTS, "samples": N_SAMPLES, "draw": DRAW, "ratio": QUICK_RATIO if quick else RATIO}
    base |= {"n_replicas": 24 if quick else 64}
    short = {"horizon": QUICK_HORIZON} if quick else {}
    found = [
        Cell("subsampling-gain", base | short | {"batch_size": batch}, partial(_gain, device), 200.0 * batch)
        for batch in (QUICK_BATCHES if quick else BATCHES)
    ]
    found.append(Cell("subsampling-control", base | {"time": 600.0 if quick else 15000.0}, partial(_control, device)))
    found.append(Cell("subsampling-many", base | {"samples": MANY, "batch_size": 3}, partial(_many, device)))
    found.append(
        Cell(
            "subsampling-forget",
            FORGET | short | {"n_replicas": base["n_replicas"]},
            partial(_forget, device),
        )
    )
    return found + [Cell("subsampling-map", config, map_cell) for config in _map_configs(quick)]


def _map_configs(quick: bool) -> list[dict[str, Any]]:
    shape: dict[str, Any] = {
        "n_inputs": N_INPUTS,
        "draw": DRAW,
        "noise_variance": 0.014,
        "replicas": 8 if quick else 12,
    }
    shape |= {"weight_decays": [0.025, 0.05], "max_time": 450.0 if quick else 1200.0, "points": 60}
    pairs = [(6, 2)] if quick else [(4, 2), (6, 2), (64, 2), (6, 3)]
    return [shape | {"n_samples": n, "batch_size": b} for n, b in pairs]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the parts as groups; the maps' verdicts at the root of ``map``."""
    plan = cells(settings, "cpu")
    groups: dict[str, xr.Dataset] = {}
    verdicts: list[xr.Dataset] = []
    for cell, result in zip(plan, results, strict=True):
        part = cell.name.removeprefix("subsampling-")
        if part == "gain":
            groups[f"/gain/b{cell.config['batch_size']}"] = result
        elif part == "map":
            verdicts.append(where_it_exists(result, GrokkingCriterion()).drop_vars("lr"))
        else:
            groups[f"/{part}"] = result
    groups["/map"] = xr.concat(verdicts, dim="cell", combine_attrs="drop_conflicts")
    task = _autoencoding(plan[0].config)
    root = xr.Dataset(
        attrs={
            "weight_decay": task.weight_decay,
            "input_variances": task.subsample.input_variances,
            "noise_variance": task.noise_variance,
            "n_samples": N_SAMPLES,
            "n_inputs": N_INPUTS,
        }
    )
    return xr.DataTree.from_dict({"/": root} | groups, name=NAME)


# ---------------------------------------------------------------- the hidden feature


def _autoencoding(config: Mapping[str, Any]) -> Autoencoding:
    """The task at the weight decay and the noise that the small sub-sample gives; `samples` may be larger."""
    small = Autoencoding(N_INPUTS, N_SAMPLES, DRAW, 1e-3, 1.0)
    decay = SHARE * float(small.subsample.input_variances[WEAKEST])
    height = Autoencoding(N_INPUTS, N_SAMPLES, DRAW, decay, 1.0).theory.mode(WEAKEST).barrier().height
    variance = 2 * LARGEST_BATCH * height / float(config["ratio"]) / LR
    return Autoencoding(N_INPUTS, int(config["samples"]), DRAW, decay, variance)


def _gain(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    task, batch = _autoencoding(config), int(config["batch_size"])
    times = task.learning_times(batch)
    n_steps = int(config.get("horizon", HORIZON) * float(since_start(times)[WEAKEST]) / LR)
    logarithmic = np.unique(np.geomspace(1, n_steps, 110).astype(np.int64))
    grid = np.unique(np.concatenate([logarithmic, np.linspace(1, n_steps, 400).astype(np.int64)]))
    run = task.run(task.process(batch, device), grid, n_replicas=int(config["n_replicas"]), seed=seed)
    exits = _exits(run, task, seed)
    curve = run.isel(time=np.isin(grid, logarithmic))
    result = _curves(curve, task, times).assign(_states(run, task, exits, times))
    mean = estimate(exits, burn_in=0.0)
    for name, value in (("mean_exit_time", mean.value), ("lower", mean.lower), ("upper", mean.upper)):
        result[name] = ((), value, describe(name))
    result["standard_error"] = ((), mean.standard_error, describe("standard_error"))
    result["exit_time"], result["escaped"] = exits["exit_time"], exits["escaped"]
    return result.assign_coords(_coordinates(task, batch))


def _exits(run: xr.Dataset, task: Autoencoding, seed: int) -> xr.Dataset:
    """Exit times of the weakest feature from a trace: the middle of the interval in which it was first seen learned."""
    border = beyond(task.theory.mode(WEAKEST).barrier()).threshold
    inside = run["order_parameter"].isel(feature=WEAKEST).values >= border
    escaped, first = inside.any(axis=1), inside.argmax(axis=1)
    time = np.concatenate([[0.0], run["time"].values])
    middle = 0.5 * (time[first] + time[first + 1])
    return schema.exit_dataset(
        np.where(escaped, middle, time[-1]),
        escaped,
        horizon=float(time[-1]),
        coords={"engine": "sgd"},
        seed=seed,
        dtype="float64",
        device="cpu",
        configuration={"border": border},
    )


def _curves(run: xr.Dataset, task: Autoencoding, times: Sequence[LearningTime | None]) -> xr.Dataset:
    """Errors of all replicas with the predicted means."""
    train, test = task.predicted_curves(run["time"].values, times)
    return xr.Dataset(
        {
            "train_loss": run["train_loss"].astype(np.float32),
            "test_loss": run["test_loss"].astype(np.float32),
            "train_predicted": ("time", train, describe("train_loss") | {"long_name": "predicted mean train error"}),
            "test_predicted": ("time", test, describe("test_loss") | {"long_name": "predicted mean test error"}),
            "predicted_times": (
                "feature",
                since_start(times),
                {"units": "time", "long_name": "predicted mean learning time"},
            ),
        }
    )


def _states(
    run: xr.Dataset, task: Autoencoding, exits: xr.Dataset, times: Sequence[LearningTime | None]
) -> dict[str, Any]:
    """Rank and errors in the trap (at a tenth of the mean time, replicas that are in it) and after the escape."""
    last, mean = times[WEAKEST], float(since_start(times)[WEAKEST])
    assert last is not None
    index = int(np.searchsorted(run["time"].values, 0.1 * mean))
    trapped = exits["exit_time"].values > run["time"].values[index]
    gone = exits["escaped"].values & (exits["exit_time"].values < 0.8 * float(exits["horizon"]))
    everything = range(N_INPUTS)
    found: dict[str, Any] = {}
    for state, where, at, learned in (
        ("trap", trapped, index, everything[:-1]),
        ("after", gone, -1, everything),
    ):
        part = run.isel(time=at, replica=np.flatnonzero(where))
        rank = (part["order_parameter"] > LEARNED).sum("feature").mean()
        train, test = task.subsample.errors(task.subsample.learned(list(learned), task.weight_decay))
        numbers = {
            "rank": (float(rank), "1", "mean number of learned features"),
            "train": (float(part["train_loss"].mean()), "loss", "mean train error"),
            "test": (float(part["test_loss"].mean()), "loss", "mean test error"),
            "train_predicted": (float(train), "loss", "train error of the state at rest"),
            "test_predicted": (float(test), "loss", "test error of the state at rest"),
        }
        for name, (value, units, text) in numbers.items():
            found[f"{state}_{name}"] = ((), value, {"units": units, "long_name": f"{text}, {state}"})
    found["predicted_mean"] = ((), mean, {"units": "time", "long_name": "predicted mean exit time"})
    found["predicted_uncertainty"] = (
        (), last.relative_uncertainty, {"units": "1", "long_name": "relative uncertainty of the prediction"},
    )  # fmt: skip
    for name in ("chain", "slowing", "heating"):
        units = "time" if name == "chain" else "1"
        found[f"predicted_{name}"] = ((), getattr(last, name), {"units": units, "long_name": f"prediction: {name}"})
    found["barrier_over_temperature"] = ((), last.barrier_over_temperature, describe("barrier_over_temperature"))
    return found


def _coordinates(task: Autoencoding, batch: int) -> dict[str, Any]:
    values = {
        "batch_size": batch,
        "lr": LR,
        "temperature": task.temperature(batch),
        "weight_decay": task.weight_decay,
        "n_samples": task.n_samples,
    }
    return {name: ((), value, describe(name)) for name, value in values.items()}


def _control(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Trapped above the weakest feature's spinodal, released to full-batch descent."""
    task = _autoencoding(config)
    released = task.process(LARGEST_BATCH, device)
    target = Region(beyond(task.theory.mode(WEAKEST).barrier()).threshold, feature=WEAKEST)
    return trap_and_release(
        released.replace(weight_decay=TRAP_DECAY),
        without_noise(released),
        trap_time=TRAP_TIME,
        target=target,
        n_replicas=16,
        max_time=float(config["time"]),
        seed=seed,
        start=task.network.ordered_state(range(N_INPUTS)).numpy(),
    )


def _many(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """The same weight decay and noise with many samples."""
    task, batch = _autoencoding(config), int(config["batch_size"])
    times = task.learning_times(batch)
    steps = np.unique(np.geomspace(1, 4000, 70).astype(np.int64))
    run = task.run(task.process(batch, device), steps, n_replicas=int(config["n_replicas"]), seed=seed)
    return _curves(run, task, times).assign_coords(_coordinates(task, batch))


# ---------------------------------------------------------------- the spurious feature


def _forget(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """A teacher of rank 1, labels with noise, whitened inputs: the strongest spurious feature is learned, then lost."""
    matrix = np.zeros((N_INPUTS, N_INPUTS))
    matrix[0, 0] = float(config["teacher"])
    noise, n = float(config["label_noise"]), int(config["n_samples"])
    data = linear_teacher_data(matrix, n_samples=n, label_noise=noise, seed=DRAW, whiten=True)
    probe = Subsample.of(data.x, data.y, teacher=matrix, depth=3, label_noise=noise)
    decay = float(config["decay_share"]) * float(probe.spectrum.spinodals(3)[1])
    network = DeepLinearNetwork.from_data(data, (2, 2), weight_decay=decay)
    barrier = network.theory.forgetting_barrier(2)
    batch, lr = int(config["batch_size"]), 0.1
    temperature = barrier.height / float(config["ratio"])
    process = SGD(
        network, data, lr=lr, batch_size=batch, sampler=WithoutReplacement(),
        noise=per_sample(temperature=temperature), device=device,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = eyring_kramers_rate(barrier, temperature, step=lr, warn=False).mean_time
    unit = N_INPUTS**0.5 * np.eye(N_INPUTS)
    # Clean labels: label noise adds the same constant to every test error.
    losses = Loss(data, name="train_loss"), Loss(finite(unit, unit @ matrix.T), name="test_loss")
    steps = np.unique(np.geomspace(1, config.get("horizon", 4.0) * predicted / lr, 110).astype(np.int64))
    start = network.ordered_state([0, 1]).numpy()
    quiet = without_noise(process)
    state = process.start(int(config["n_replicas"]), seed=seed, point=start)
    _, run = trace(process, state, steps, [*losses, OrderParameters()])
    _, still = trace(quiet, quiet.start(1, seed=seed, point=start), steps[: len(steps) * 3 // 4], list(losses))
    floor = 0.5 * noise**2 * N_INPUTS
    errors = {
        state: probe.errors(probe.learned(k, decay)) for state, k in (("memorised", [0, 1]), ("generalised", [0]))
    }
    data_vars: dict[str, Any] = {
        "train_loss": run["train_loss"].astype(np.float32),
        "test_loss": (run["test_loss"] + floor).astype(np.float32).assign_attrs(run["test_loss"].attrs),
        "spurious": run["order_parameter"].isel(feature=1, drop=True).astype(np.float32),
        "full_batch_test": (
            "still_time",
            still["test_loss"].values[0] + floor,
            describe("test_loss") | {"long_name": "test error of full-batch descent"},
        ),
        "predicted_mean": ((), predicted, {"units": "time", "long_name": "Eyring-Kramers time"}),
    }
    for state_name, pair in errors.items():
        for kind, value in zip(("train", "test"), pair, strict=True):
            data_vars[f"{kind}_{state_name}"] = (
                (), float(value), {"units": "loss", "long_name": f"{kind} error, {state_name}"},
            )  # fmt: skip
    result = xr.Dataset(data_vars, coords={"still_time": ("still_time", still["time"].values, describe("time"))})
    spurious = result["spurious"].values
    middle = 0.5 * (barrier.order_parameter_at_saddle)
    dropped = spurious < middle
    gone = dropped.any(axis=1)
    first = np.where(gone, run["time"].values[dropped.argmax(axis=1)], run["time"].values[-1])
    result["exit_time"] = ("replica", first, describe("exit_time"))
    result["escaped"] = ("replica", gone, describe("escaped"))
    result["mean_exit_time"] = ((), float(first.sum() / max(int(gone.sum()), 1)), describe("mean_exit_time"))
    return result.assign_coords(
        weight_decay=((), decay, describe("weight_decay")),
        temperature=((), temperature, describe("temperature")),
        barrier_over_temperature=((), float(config["ratio"]), describe("barrier_over_temperature")),
        singular_value=((), float(probe.singular_values[1]), describe("singular_value")),
    )
