"""Trap and release at several values of lr/batch: escape times over three orders of magnitude, by η/B alone.

The chain had learned, was trapped above its spinodal and is released below its binodal. Learning rate and per-sample
noise are the same in all runs; only the batch size differs. Beside each measured mean stands the exact one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.survival import estimate
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.observables import Loss, OrderParameters
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.tracing import trace
from kramers_grok.escape.protocols.trap import prepare_trap, release_seed, trap_and_release, without_noise
from kramers_grok.models.data import population, teacher
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

__all__ = ["NAME", "cells", "gather"]

NAME = "grokking"
TRAP_DECAY = 0.6  # above the spinodal: the learned state is gone
TRAP_TIME = 60.0
BATCH_PER_RATIO = 8  # B = 8 ΔF/T
RATIOS = (1.5, 3.0, 5.0, 7.0, 9.0)
QUICK_RATIOS = (1.5, 3.0, 4.5, 6.0)
N_CURVES = 48
# Replicas for exit times cost as long as they stay: fewer where they stay longest
REPLICA_TIME = 1e7


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each lr/batch, and the control."""
    key = {
        "chain": [settings.depth, settings.singular_value, settings.weight_decay],
        "trap": [TRAP_DECAY, TRAP_TIME],
        "lr": settings.lr,
        "n_replicas": settings.n_control,
    }
    ratios = QUICK_RATIOS if settings.quick else RATIOS
    curves = [
        Cell("grokking-sgd", key | {"ratio": ratio}, partial(_curve, settings, device), 10 * float(np.exp(ratio)))
        for ratio in ratios
    ]
    idle = key | {"time": settings.control_time}
    return [*curves, Cell("grokking-control", idle, partial(_control, settings, device))]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the loss curves: learned at first, trapped at high weight decay, released at a lower one."""
    *curves, control = results
    means = [float(run.predicted_mean) for run in curves]
    root = xr.Dataset(
        attrs={
            "weight_decay": settings.weight_decay,
            "trap_weight_decay": TRAP_DECAY,
            "lr": settings.lr,
            "span": max(means) / min(means),
        }
    )
    runs = {f"/run{i}": run for i, run in enumerate(curves)}
    return xr.DataTree.from_dict({"/": root, **runs, "/control": control}, name=NAME)


def _pair(s: Settings, device: str, temperature: float, batch: int) -> tuple[SGD, SGD]:
    """The trapping and the released process."""
    noise, data = per_sample(temperature=temperature), teacher(label_noise=s.label_noise)
    released = SGD(
        DeepLinearChain(s.depth, s.singular_value, s.weight_decay),
        data,
        lr=s.lr,
        batch_size=batch,
        noise=noise,
        device=device,
    )
    return released.replace(model=DeepLinearChain(s.depth, s.singular_value, TRAP_DECAY)), released


def _curve(settings: Settings, device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    s, ratio = settings, float(config["ratio"])
    chain = DeepLinearChain(s.depth, s.singular_value, s.weight_decay)
    barrier = chain.barrier()
    temperature, batch = barrier.height / ratio, round(BATCH_PER_RATIO * ratio)
    trapping, released = _pair(s, device, temperature, batch)
    target = beyond(barrier)
    residual = GaussianResidualVariance(s.singular_value, 1.0, s.label_noise)
    minibatch = MinibatchNoise(lr_over_batch=s.lr / batch, residual_variance=residual)
    predicted = exit_time(chain, temperature=temperature, target=target, step=s.lr, monitored=True, minibatch=minibatch)

    start = chain.forgetting_barrier().minimum
    exits = trap_and_release(
        trapping,
        released,
        trap_time=TRAP_TIME,
        target=target,
        n_replicas=int(np.clip(REPLICA_TIME / predicted.mean, 32, s.n_control)),
        max_time=8 * predicted.mean,
        seed=seed,
        start=start,
    )
    found = estimate(exits)

    n_curves = min(N_CURVES, s.n_control)
    trapped = prepare_trap(
        trapping, trap_time=TRAP_TIME, target=target, n_replicas=n_curves, seed=seed ^ 2, start=start
    )  # fmt: skip
    steps = np.unique(np.geomspace(1, 5 * predicted.mean / s.lr, 120).astype(np.int64))
    state = released.start(n_curves, seed=release_seed(seed ^ 2), point=trapped.theta)
    _, run = trace(released, state, steps, [Loss(population(), name="test_loss"), OrderParameters()])
    times = run["time"].values
    result = exits.drop_vars("max_score").rename(replica="exit_replica")
    result["loss"] = (
        ("replica", "time"),
        run["test_loss"].values.astype(np.float32),
        {"units": "loss", "long_name": "population loss without weight decay"},
    )
    learned = (exits["exit_time"].values[:, None] <= times) & exits["escaped"].values[:, None]
    result["learned_fraction"] = (
        "time",
        learned.mean(axis=0),
        {"units": "1", "long_name": "fraction of replicas beyond the barrier"},
    )
    result["predicted_learned"] = (
        "time",
        1 - predicted.survival(times),
        {"units": "1", "long_name": "predicted fraction that has escaped"},
    )
    result["predicted_mean"] = ((), predicted.mean, {"units": "time", "long_name": "predicted mean escape time"})
    for name, value in (
        ("mean_exit_time", found.value),
        ("lower", found.lower),
        ("upper", found.upper),
        ("standard_error", found.standard_error),
    ):
        result[name] = ((), value, describe(name))
    return result.assign_coords(
        time=("time", times, describe("time")),
        barrier_over_temperature=((), ratio, describe("barrier_over_temperature")),
        lr_over_batch=((), s.lr / batch, describe("lr_over_batch")),
    )


def _control(settings: Settings, device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Released to full-batch descent from a trap at the middle temperature: nothing may escape."""
    chain = DeepLinearChain(settings.depth, settings.singular_value, settings.weight_decay)
    barrier = chain.barrier()
    trapping, released = _pair(settings, device, barrier.height / 4, 4 * BATCH_PER_RATIO)
    return trap_and_release(
        trapping,
        without_noise(released),
        trap_time=TRAP_TIME,
        target=beyond(barrier),
        n_replicas=min(64, settings.n_control),
        max_time=float(config["time"]),
        seed=seed,
        start=chain.forgetting_barrier().minimum,
    )
