"""A real feature: a chain that autoencodes the digits' first principal component.

The scores are real, their distribution is not Gaussian, and every batch holds true samples drawn with replacement from
the 1,797. Per-sample noise makes the temperature; the minibatches' own noise is part of the prediction, with the
data's sample variance, and its share is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import beyond
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import autoencoding, digits
from kramers_grok.studies.reproduction.runs import measure, table
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import EmpiricalResidualVariance, minibatch_share
from kramers_grok.theory.minibatch import MinibatchNoise

__all__ = ["NAME", "cells", "gather", "scores"]

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


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each temperature, with batch sizes in turn."""
    ratios = RATIOS[:2] if settings.quick else RATIOS
    replicas = settings.n_replicas if settings.quick else settings.n_replicas // 2
    return [
        Cell(
            "real-feature-sgd",
            {
                "depth": settings.depth,
                "ratio": ratio,
                "batch_size": BATCHES[i % len(BATCHES)],
                "n_replicas": replicas,
            },
            partial(_measure, device),
            cost=30 * float(np.exp(ratio)),
        )
        for i, ratio in enumerate(ratios)
    ]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return predicted and measured escape times of the first principal component."""
    rows = table(results, ("share_minimum", "share_saddle"))
    rows.attrs["data"] = "scikit-learn digits, first principal component, 1797 scores, with replacement"
    return xr.DataTree.from_dict({"/sgd": rows}, name=NAME)


def _measure(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    x = scores()
    q = float(np.mean(x**2))
    chain = DeepLinearChain.from_data(x, depth=int(config["depth"]), weight_decay=RELATIVE_DECAY * q)
    barrier = chain.barrier()
    target = beyond(barrier)
    temperature = barrier.height / float(config["ratio"])
    lr, batch = RELATIVE_LR / q, int(config["batch_size"])
    process = SGD(
        chain,
        autoencoding(x, center=False),
        lr=lr,
        batch_size=batch,
        noise=per_sample(temperature=temperature),
        device=device,
    )
    residual = EmpiricalResidualVariance(x, x)
    noise = MinibatchNoise(lr_over_batch=lr / batch, residual_variance=residual)
    predicted = exit_time(chain, temperature=temperature, target=target, step=lr, monitored=True, minibatch=noise)
    shares = {
        name: minibatch_share(chain, point, process.noise_variance, residual_variance=residual)
        for name, point in (("share_minimum", barrier.minimum), ("share_saddle", barrier.saddle))
    }
    n = int(config["n_replicas"])
    return measure(process, predicted, target=target, n_replicas=n, seed=seed, extra=shares)
