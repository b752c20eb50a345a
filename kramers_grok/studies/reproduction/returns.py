r"""What returns with noise on the way down: independent features race, matrix networks climb their stairs in order.

*Independent features* (a diagonal network at fixed λ and T): each has the exact exit time of its own chain of three
weights, solved with the run's step; order and times follow without a fitted parameter. The run is gradient descent with
per-sample noise, that is Euler–Maruyama: what is tested is the race, with the step, in all weights.

*Matrix networks*, on a white teacher and on digits, while λ goes down in stairs (see `stairs`): only the strongest
unlearned feature has a saddle of index 1, so the order is strongest first, with probability → 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.analysis.hypotheses import ks_test
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import population
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.reproduction.stairs import stairs
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.hysteresis import first_probabilities, order_probability

__all__ = ["DIGITS_STAIRS", "STAIRS", "cells", "independent"]

Array = NDArray[np.float64]

LR = 0.1
FEATURES = (1.05, 1.0, 0.96, 0.92)
QUICK_FEATURES = (1.05, 1.0)
WEIGHT_DECAY = 0.25
RATIO = 4.0  # ΔF/T of the strongest feature
HORIZON = 5.0  # mean times of the slowest feature

# Hidden layers have as many units as there are features, no more: every further one adds entropy and lowers what is
# left of the barrier when a feature returns, which must be a few T.
STAIRS = tuple(np.geomspace(0.42, 0.095, 22).tolist())
CLIMB = {"teacher": (1.4, 1.1, 0.87, 0.69), "hidden": 4, "temperature": 0.0009, "hold": 400.0}
QUICK_STAIRS = tuple(np.geomspace(0.434, 0.235, 6).tolist())
QUICK_CLIMB = {"teacher": (1.4, 1.1), "hidden": 2, "temperature": 0.0012, "hold": 200.0}
DIGITS_STAIRS = tuple(np.geomspace(0.268, 0.079, 20).tolist())
DIGITS = {"components": 4, "hidden": 4, "temperature": 0.001, "batch_size": 32, "lr": 0.3, "hold": 750.0}


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return the race of independent features, and the stairs of matrix networks."""
    quick = settings.quick
    race = {
        "features": QUICK_FEATURES if quick else FEATURES,
        "n_replicas": 192 if quick else 768,
        "weight_decay": WEIGHT_DECAY,
        "ratio": 3.0 if quick else RATIO,
        "lr": LR,
    }
    climb = (QUICK_CLIMB if quick else CLIMB) | {
        "stairs": QUICK_STAIRS if quick else STAIRS,
        "n_replicas": 48 if quick else 192,
        "lr": LR,
    }
    made = [
        Cell("hysteresis-race", race, partial(independent, device), 30),
        Cell("hysteresis-stairs", climb, partial(stairs, device, not quick), 30),
    ]
    if not quick:  # no compiled kernel for minibatches of data: half a minute
        pixels = DIGITS | {"stairs": DIGITS_STAIRS, "n_replicas": 96}
        made.append(Cell("hysteresis-digits-stairs", pixels, partial(stairs, device, False), 40))
    return made


def independent(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Let independent features return at fixed λ and T; times of all features on the same paths."""
    sigma, decay, lr = tuple(config["features"]), float(config["weight_decay"]), float(config["lr"])
    chains = [DeepLinearChain(3, s, decay) for s in sigma]
    temperature = chains[0].barrier().height / float(config["ratio"])
    targets = [beyond(chain.barrier()) for chain in chains]
    predicted = [
        exit_time(chain, temperature=temperature, target=target, step=lr, monitored=True)
        for chain, target in zip(chains, targets, strict=True)
    ]
    network = DiagonalNetwork(3, sigma, weight_decay=decay)
    process = SGD(network, population(), lr=lr, batch_size=1, noise=per_sample(temperature=temperature), device=device)
    horizon = HORIZON * max(p.mean for p in predicted)
    # The same seed makes the same paths: each run watches another feature of the same replicas.
    runs = [
        first_passage(
            process, target=Region(t.threshold, feature=k), n_replicas=config["n_replicas"], max_time=horizon, seed=seed
        )
        for k, t in enumerate(targets)
    ]
    times = np.array([r.exit_time.values for r in runs])
    escaped = np.array([r.escaped.values for r in runs])
    grid = np.concatenate([[0.0], np.geomspace(1.0, 30 * max(p.mean for p in predicted), 3000)])
    survival = np.array([np.clip(np.minimum.accumulate(p.survival(grid)), 0.0, 1.0) for p in predicted])
    p_values = [ks_test(r, p.survival).p_value for r, p in zip(runs, predicted, strict=True)]
    return _race_table(times, escaped, survival, p_values, [p.mean for p in predicted]).assign_coords(
        weight_decay=((), decay, describe("weight_decay")),
        temperature=((), temperature, describe("temperature")),
        lr=((), lr, describe("lr")),
        singular_value=("feature", list(sigma), describe("singular_value")),
    )


def _race_table(
    times: Array, escaped: NDArray[np.bool_], survival: Array, p_values: Sequence[float], means: Sequence[float]
) -> xr.Dataset:
    """Order and times beside their predictions; a replica's order counts if at most one feature is censored."""
    n_features = len(times)
    clean = escaped.sum(axis=0) >= n_features - 1
    first = np.bincount(times[:, escaped.any(axis=0)].argmin(axis=0), minlength=n_features)
    share = first_probabilities(survival)
    ordered = (np.diff(times[:, clean], axis=0) > 0).all(axis=0)
    chance = order_probability(survival, range(n_features))
    estimate = times.sum(axis=1) / escaped.sum(axis=1)  # of the exponential tail's mean: reported, not tested
    probability = {"units": "1", "long_name": "probability to return first"}
    return xr.Dataset(
        {
            "n_first": ("feature", first, {"units": "1", "long_name": "replicas in which this feature returned first"}),
            "predicted_first": ("feature", share, probability),
            "mean_exit_time": ("feature", estimate, describe("mean_exit_time")),
            "predicted_time": ("feature", list(means), describe("predicted_time")),
            "ks_p_value": ("feature", list(p_values), describe("ks_p_value")),
            "n_escaped": ("feature", escaped.sum(axis=1), describe("n_escaped")),
            "exit_time": (("feature", "replica"), times, describe("exit_time")),
            "escaped": (("feature", "replica"), escaped, describe("escaped")),
        },
        coords={"feature": ("feature", np.arange(n_features), describe("feature"))},
        attrs={
            "kind": "race",
            "n_replicas": int(times.shape[1]),
            "first_p_value": float(scipy.stats.chisquare(first, first.sum() * share).pvalue),
            "n_ordered": int(ordered.sum()),
            "n_clean": int(clean.sum()),
            "predicted_ordered": chance,
            "ordered_p_value": float(scipy.stats.binomtest(int(ordered.sum()), int(clean.sum()), chance).pvalue),
        },
    )
