"""Learned → forgotten under minibatch noise alone: the diffusion limit's exact time, and its known departure.

Between the binodal and the spinodal the learned state is metastable, and the noise of true minibatches does not vanish
there. At fixed η/B SGD is shot noise, one kick of size η/B a sample, and rare events see all cumulants of the
per-sample gradient, of which the diffusion limit knows two. The chain starts balanced and stays so: all layers get the
same gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import xarray as xr

from kramers_grok.core.region import beyond
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import teacher
from kramers_grok.studies.reproduction.runs import measure, table
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import minibatch_mode_exit_time
from kramers_grok.theory.large_deviations import forgetting_actions

__all__ = ["NAME", "cells", "gather"]

NAME = "forgetting"
WEIGHT_DECAY = 0.44
LABEL_NOISE = 0.5
LR_OVER_BATCH = 0.1 / 16
BATCHES = (16, 4, 1)
QUICK_BATCHES = (16,)


def _batches(settings: Settings) -> tuple[int, ...]:
    return QUICK_BATCHES if settings.quick else BATCHES


def _chain(settings: Settings) -> DeepLinearChain:
    return DeepLinearChain(settings.depth, settings.singular_value, WEIGHT_DECAY)


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each batch size, all at the same η/B."""
    key = {
        "chain": [settings.depth, settings.singular_value, WEIGHT_DECAY],
        "label_noise": LABEL_NOISE,
        "lr_over_batch": LR_OVER_BATCH,
        "threshold": beyond(_chain(settings).forgetting_barrier()).threshold,
        "n_replicas": settings.n_replicas if settings.quick else settings.n_replicas // 2,
    }
    measure_one = partial(_measure, settings, device)
    return [
        Cell("forgetting-sgd", key | {"batch_size": batch}, measure_one, cost=2e4 / batch)
        for batch in _batches(settings)
    ]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the forgetting times beside the diffusion limit's, and what SGD's quasi-potential says of their ratio."""
    rows = table(results)
    actions = forgetting_actions(_chain(settings).mode, label_noise=LABEL_NOISE)
    ratio = rows["mean_exit_time"] / rows["predicted_mean"]
    rows["ratio"] = ("run", ratio.values, {"units": "1", "long_name": "SGD over the diffusion limit"})
    rows["ratio_error"] = (
        "run",
        (rows["standard_error"] / rows["predicted_mean"]).values,
        {"units": "1", "long_name": "standard error of the ratio"},
    )
    rows.attrs |= {
        "weight_decay": WEIGHT_DECAY,
        "lr_over_batch": LR_OVER_BATCH,
        "quasi_potential_ratio": actions.departure(LR_OVER_BATCH),
        "departure": "the diffusion limit knows two cumulants of the per-sample gradient; rare events see them all",
    }
    return xr.DataTree.from_dict({"/sgd": rows}, name=NAME)


def _measure(settings: Settings, device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    chain, batch = _chain(settings), int(config["batch_size"])
    barrier = chain.forgetting_barrier()
    target = beyond(barrier)
    process = SGD(chain, teacher(label_noise=LABEL_NOISE), lr=LR_OVER_BATCH * batch, batch_size=batch, device=device)
    predicted = minibatch_mode_exit_time(
        chain.mode, label_noise=LABEL_NOISE, lr_over_batch=LR_OVER_BATCH, target=target
    )
    return measure(
        process,
        predicted,
        target=target,
        n_replicas=int(config["n_replicas"]),
        seed=seed,
        start=barrier.minimum,
        horizon=14 * predicted.mean,  # SGD is slower than the diffusion limit by 1.4
    )
