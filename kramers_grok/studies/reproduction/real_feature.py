"""A real feature: a chain that autoencodes the digits' first principal component.

The scores are real, their distribution is not Gaussian, and every batch holds true samples drawn with replacement from
the 1,797. Per-sample noise makes the temperature; the minibatches' own noise is part of the prediction, with the
data's sample variance, and its share is reported.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import beyond
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import autoencoding, digits
from kramers_grok.studies.reproduction.runs import measure, table
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import EmpiricalResidualVariance, minibatch_share
from kramers_grok.theory.minibatch import MinibatchNoise

if TYPE_CHECKING:
    from kramers_grok.studies.reproduction.job import Job
    from kramers_grok.studies.reproduction.settings import Settings

__all__ = ["NAME", "n_cells", "run", "scores"]

NAME = "real_feature"
RATIOS = (3.0, 4.0, 5.0, 6.0)
BATCHES = (8, 16, 32)
RELATIVE_DECAY = 0.25  # λ/q
RELATIVE_LR = 0.1  # η q


def scores() -> NDArray[np.float64]:
    """Return the scores of the digits' first principal component (pixels centred, scaled to [0, 1])."""
    x = autoencoding(digits() / 16).x
    direction = np.linalg.svd(x, full_matrices=False)[2][0]
    return np.asarray(x @ direction)


def n_cells(settings: Settings) -> int:
    """Return the number of cells."""
    return len(_points(settings))


def _points(settings: Settings) -> list[tuple[float, int]]:
    ratios = RATIOS[:2] if settings.quick else RATIOS
    return [(ratio, BATCHES[i % len(BATCHES)]) for i, ratio in enumerate(ratios)]


def run(job: Job) -> xr.DataTree:
    """Compute predicted and measured escape times of the first principal component."""
    s = job.settings
    replicas = s.n_replicas if s.quick else s.n_replicas // 2
    runs = [
        job.cell(
            "real-feature-sgd",
            {"depth": s.depth, "ratio": ratio, "batch_size": batch, "n_replicas": replicas},
            partial(_measure, job, ratio, batch, replicas),
        )
        for ratio, batch in _points(s)
    ]
    rows = table(runs, ("share_minimum", "share_saddle", "input_variance", "weight_decay"))
    rows.attrs["data"] = "scikit-learn digits, first principal component, 1797 scores, with replacement"
    return xr.DataTree.from_dict({"/sgd": rows}, name=NAME)


def _measure(job: Job, ratio: float, batch: int, replicas: int, seed: int, progress: Any) -> xr.Dataset:
    depth = job.settings.depth
    x = scores()
    q = float(np.mean(x**2))
    chain = DeepLinearChain.from_data(x, depth=depth, weight_decay=RELATIVE_DECAY * q)
    barrier = chain.barrier()
    target = beyond(barrier)
    temperature = barrier.height / ratio
    lr = RELATIVE_LR / q
    process = SGD(
        chain,
        autoencoding(x, center=False),
        lr=lr,
        batch_size=batch,
        noise=per_sample(temperature=temperature),
        n_threads=job.n_threads,
        device=job.device,
    )
    residual = EmpiricalResidualVariance(x, x)
    noise = MinibatchNoise(lr_over_batch=lr / batch, residual_variance=residual)
    predicted = exit_time(chain, temperature=temperature, target=target, step=lr, monitored=True, minibatch=noise)
    shares = {
        name: minibatch_share(chain, point, process.noise_variance, residual_variance=residual)
        for name, point in (("share_minimum", barrier.minimum), ("share_saddle", barrier.saddle))
    }
    return measure(process, predicted, target=target, n_replicas=replicas, seed=seed, progress=progress, extra=shares)
