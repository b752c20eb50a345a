"""Learned → forgotten under minibatch noise alone: the diffusion limit's exact time, and its known departure.

Between the binodal and the spinodal the learned state is metastable, and the noise of true minibatches does not vanish
there. At fixed η/B SGD is shot noise, one kick of size η/B a sample, and rare events see all cumulants of the
per-sample gradient, of which the diffusion limit knows two. The chain starts balanced and stays so: all layers get the
same gradient.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import xarray as xr

from kramers_grok.core.region import Region, beyond
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import teacher
from kramers_grok.studies.reproduction.runs import measure, table
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import minibatch_mode_exit_time
from kramers_grok.theory.large_deviations import forgetting_actions

if TYPE_CHECKING:
    from kramers_grok.studies.reproduction.job import Job
    from kramers_grok.studies.reproduction.settings import Settings

__all__ = ["NAME", "n_cells", "run"]

NAME = "forgetting"
WEIGHT_DECAY = 0.44
LABEL_NOISE = 0.5
LR_OVER_BATCH = 0.1 / 16
BATCHES = (16, 4, 1)
QUICK_BATCHES = (16,)


def _batches(settings: Settings) -> tuple[int, ...]:
    return QUICK_BATCHES if settings.quick else BATCHES


def n_cells(settings: Settings) -> int:
    """Return the number of cells."""
    return len(_batches(settings))


def run(job: Job) -> xr.DataTree:
    """Compute the forgetting times at one η/B reached by several batch sizes."""
    s = job.settings
    chain = DeepLinearChain(s.depth, s.singular_value, WEIGHT_DECAY)
    barrier = chain.forgetting_barrier()
    target = beyond(barrier)
    replicas = s.n_replicas if s.quick else s.n_replicas // 2
    key = {
        "chain": [s.depth, s.singular_value, WEIGHT_DECAY],
        "label_noise": LABEL_NOISE,
        "lr_over_batch": LR_OVER_BATCH,
        "threshold": target.threshold,
        "n_replicas": replicas,
    }
    runs = [
        job.cell(
            "forgetting-sgd",
            key | {"batch_size": batch},
            partial(_measure, chain, barrier.minimum, target, batch, replicas, job),
        )
        for batch in _batches(s)
    ]
    rows = table(runs)
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
        "quasi_potential_ratio": forgetting_actions(chain.mode, label_noise=LABEL_NOISE).departure(LR_OVER_BATCH),
        "departure": "the diffusion limit knows two cumulants of the per-sample gradient; rare events see them all",
    }
    return xr.DataTree.from_dict({"/sgd": rows}, name=NAME)


def _measure(
    chain: DeepLinearChain, start: Any, target: Region, batch: int, replicas: int, job: Job, seed: int, progress: Any
) -> xr.Dataset:
    process = SGD(
        chain,
        teacher(label_noise=LABEL_NOISE),
        lr=LR_OVER_BATCH * batch,
        batch_size=batch,
        n_threads=job.n_threads,
        device=job.device,
    )
    predicted = minibatch_mode_exit_time(
        chain.mode, label_noise=LABEL_NOISE, lr_over_batch=LR_OVER_BATCH, target=target
    )
    return measure(
        process,
        predicted,
        target=target,
        n_replicas=replicas,
        seed=seed,
        progress=progress,
        start=start,
        horizon=14 * predicted.mean,  # SGD is slower than the diffusion limit by 1.4
    )
