"""One grokking curve: trap, release, and the late drop of the loss, at three values of lr/batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import teacher
from kramers_grok.studies.cells import Cell
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

__all__ = ["NAME", "cells", "gather"]

NAME = "grokking"
TRAP_DECAY = 0.6  # above the spinodal: the learned state is gone
TRAP_TIME = 60.0
RATIOS = (2.5, 4.0, 5.5)
QUICK_RATIOS = (2.0, 3.0, 4.0)


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each lr/batch."""
    key = {
        "chain": [settings.depth, settings.singular_value, settings.weight_decay],
        "trap": [TRAP_DECAY, TRAP_TIME],
        "lr": settings.lr,
        "n_replicas": settings.n_control,
    }
    ratios = QUICK_RATIOS if settings.quick else RATIOS
    return [
        Cell("grokking-sgd", key | {"ratio": ratio}, partial(_curve, settings, device), 10 * float(np.exp(ratio)))
        for ratio in ratios
    ]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the loss curves: learned at first, trapped at high weight decay, released at a lower one."""
    root = xr.Dataset(attrs={"weight_decay": settings.weight_decay, "trap_weight_decay": TRAP_DECAY})
    runs = {f"/run{i}": cell for i, cell in enumerate(results)}
    return xr.DataTree.from_dict({"/": root, **runs}, name=NAME)


def _curve(settings: Settings, device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    s, ratio = settings, float(config["ratio"])
    released = DeepLinearChain(s.depth, s.singular_value, s.weight_decay)
    trapping = DeepLinearChain(s.depth, s.singular_value, TRAP_DECAY)
    barrier = released.barrier()
    temperature = barrier.height / ratio
    batch = round(8 * ratio)
    noise = per_sample(temperature=temperature)
    data = teacher(label_noise=s.label_noise)
    trap = SGD(trapping, data, lr=s.lr, batch_size=batch, noise=noise, device=device)
    learned = released.forgetting_barrier().minimum
    state, _ = trap.advance(trap.start(s.n_control, seed=seed, point=learned), round(TRAP_TIME / s.lr))
    trapped_m = trap.order_parameters(state.theta)

    process = SGD(released, data, lr=s.lr, batch_size=batch, noise=noise, device=device)
    target = beyond(barrier)
    residual = GaussianResidualVariance(s.singular_value, 1.0, s.label_noise)
    minibatch = MinibatchNoise(lr_over_batch=s.lr / batch, residual_variance=residual)
    predicted = exit_time(
        released, temperature=temperature, target=target, step=s.lr, monitored=True, minibatch=minibatch
    )
    steps = np.unique(np.geomspace(1, 12 * predicted.mean / s.lr, 120).astype(np.int64))
    state = process.start(s.n_control, seed=seed ^ 1, point=state.theta.cpu().numpy())
    losses = []
    for step in steps:
        state, _ = process.advance(state, int(step) - state.step)
        m = process.order_parameters(state.theta)[:, 0]
        losses.append((0.5 * (s.singular_value - m) ** 2).cpu().numpy())
    learned_loss = 0.5 * (s.singular_value - target.threshold) ** 2
    label = {"units": "loss", "long_name": "population loss without weight decay"}
    return xr.Dataset(
        {
            "loss": (("replica", "time"), np.array(losses, dtype=np.float32).T, label),
            "learned_fraction": (
                "time",
                [float((loss <= learned_loss).mean()) for loss in losses],
                {"units": "1", "long_name": "fraction of replicas beyond the barrier"},
            ),
            "predicted_mean": ((), predicted.mean, {"units": "time", "long_name": "predicted mean escape time"}),
            "predicted_learned": (
                "time",
                1 - predicted.survival(steps * s.lr),
                {"units": "1", "long_name": "predicted fraction that has escaped"},
            ),
            "trap_order_parameter": (
                (),
                float(trapped_m.abs().max()),
                {"units": "1", "long_name": "largest order parameter in the trap"},
            ),
        },
        coords={
            "time": ("time", steps * s.lr, describe("time")),
            "temperature": ((), temperature, describe("temperature")),
            "lr": ((), s.lr, describe("lr")),
            "batch_size": ((), batch, describe("batch_size")),
        },
        attrs={"barrier_over_temperature": ratio, "n_replicas": s.n_control, "seed": str(seed)},
    )
