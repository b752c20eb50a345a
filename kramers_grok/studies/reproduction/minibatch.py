"""No injected noise at all: what minibatch noise alone does to a trapped chain.

The gradient noise of every layer is a product of the other layers, so it vanishes at the trap: it is gated. From a
small amplitude nothing escapes, whatever η/B, and the amplitude decays on at rate λ. Only replicas that start close
to the barrier are carried over it, with the splitting probability of the balanced mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import teacher
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.mode_exit import ModeDynamics
from kramers_grok.theory.quadrature import splitting_probability

__all__ = ["NAME", "cells", "gather"]

NAME = "minibatch"
BATCHES = (1, 4, 16)
AMPLITUDES = (1e-3, 0.05, 0.10, 0.15, 0.20, 0.25)
QUICK_BATCHES = (1, 16)
QUICK_AMPLITUDES = (1e-3, 0.15, 0.25)
LABEL_NOISE = 1.0
LR = 0.1
TIME = 400.0
# Where the diffusion limit counts a replica as lost: from here it returns with probability below 1e-90.
LOST = 0.04


def _grid(settings: Settings) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return (QUICK_BATCHES, QUICK_AMPLITUDES) if settings.quick else (BATCHES, AMPLITUDES)


def _chain(settings: Settings) -> DeepLinearChain:
    return DeepLinearChain(settings.depth, settings.singular_value, settings.weight_decay)


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each batch size and amplitude at the start."""
    key = {
        "chain": [settings.depth, settings.singular_value, settings.weight_decay],
        "label_noise": LABEL_NOISE,
        "lr": LR,
        "time": TIME,
        "threshold": beyond(_chain(settings).barrier()).threshold,
        "n_replicas": settings.n_replicas,
    }
    measure_one = partial(_measure, settings, device)
    batches, amplitudes = _grid(settings)
    return [
        Cell("minibatch-sgd", key | {"batch_size": batch, "amplitude": amplitude}, measure_one, cost=1e3)
        for batch in batches
        for amplitude in amplitudes
    ]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the fraction that escapes against the amplitude it starts from, and what is left of the others."""
    batches, amplitudes = _grid(settings)
    chain = _chain(settings)
    target = beyond(chain.barrier())
    shape = (len(batches), len(amplitudes))
    fractions = np.array([float(cell.escaped.mean()) for cell in results]).reshape(shape)
    left = np.array([float(cell.amplitude_left) for cell in results]).reshape(shape)
    saddle = chain.saddle_amplitude()
    fine = np.union1d(np.linspace(0.0, 0.26, 53), amplitudes)
    data = {
        "escaped_fraction": (
            ("batch_size", "amplitude"),
            fractions,
            {"units": "1", "long_name": "fraction of replicas that escaped"},
        ),
        "predicted_fraction": (
            ("batch_size", "start_amplitude"),
            [[_predicted(chain, target, batch, float(amplitude)) for amplitude in fine] for batch in batches],
            {"units": "1", "long_name": "splitting probability of the balanced mode in the diffusion limit"},
        ),
        "amplitude_left": (
            ("batch_size", "amplitude"),
            left,
            {"units": "weight", "long_name": "median amplitude of the censored replicas at the horizon"},
        ),
    }
    coords = {
        "batch_size": ("batch_size", list(batches), describe("batch_size")),
        "amplitude": ("amplitude", list(amplitudes), describe("amplitude")),
        "start_amplitude": ("start_amplitude", fine, describe("amplitude")),
    }
    dataset = xr.Dataset(data, coords=coords).assign_attrs(
        lr=LR, label_noise=LABEL_NOISE, horizon=TIME, n_replicas=settings.n_replicas, saddle_amplitude=saddle
    )
    return xr.DataTree.from_dict({"/sgd": dataset}, name=NAME)


def _predicted(chain: DeepLinearChain, target: Region, batch: int, amplitude: float) -> float:
    """Probability that the balanced mode reaches the target before it is lost, exact in the diffusion limit."""
    if amplitude <= LOST:
        return 0.0
    residual = GaussianResidualVariance(chain.singular_value, chain.input_variance, LABEL_NOISE)
    noise = MinibatchNoise(lr_over_batch=LR / batch, residual_variance=residual)
    dynamics = ModeDynamics(chain.mode, temperature=0.0, minibatch=noise)
    root = np.sqrt(chain.depth)
    border = float(chain.mode.coordinate(target.threshold))
    return splitting_probability(dynamics.process, root * amplitude, root * LOST, border)


def _measure(settings: Settings, device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    chain, replicas = _chain(settings), int(config["n_replicas"])
    target = beyond(chain.barrier())
    process = SGD(chain, teacher(label_noise=LABEL_NOISE), lr=LR, batch_size=int(config["batch_size"]), device=device)
    start = np.full(chain.depth, float(config["amplitude"]))
    run = first_passage(process, target=target, n_replicas=replicas, max_time=TIME, seed=seed, start=start)
    # The same noise again without a target: how small the trapped ones have become.
    state, _ = process.advance(process.start(replicas, seed=seed, point=start), int(np.ceil(TIME / LR)))
    trapped = torch.as_tensor(~run.escaped.values)
    remaining = state.theta.cpu()[trapped].abs().mean(dim=1)
    median = float(remaining.median()) if len(remaining) else float("nan")
    run["amplitude_left"] = ((), median, {"units": "weight", "long_name": "median amplitude at the horizon"})
    return run
