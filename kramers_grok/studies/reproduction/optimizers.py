"""Who lets a network out of the trap: the noise, or the optimizer?

A network that has learned only its first feature, with tiny weights in all unused directions, is trained on the full
batch and on minibatches of the same data. What the full batch does as well is deterministic (adaptive optimizers
rescale tiny gradients); only the difference between the two is attributed to noise. Minibatch noise reaches unused
weights through products of the other layers, so plain gradient descent stays: the state is absorbing.

References
----------
Z. Wang and A. Jacot, Implicit bias of SGD in L2-regularized linear DNNs: one-way jumps from high to low rank, ICLR 2024
(arXiv:2305.16038).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.optimizers import Adam, AdamW, GradientDescent, Momentum, Optimizer
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import FiniteData, finite
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.studies.attribution import BATCHES, counted, near
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell

__all__ = ["NAME", "SETUPS", "Setup", "cells", "gather", "start", "training"]

NAME = "optimizers"
WIDTHS = (8, 6, 6, 8)
SINGULAR_VALUES = (2.0, 1.0)
N_SAMPLES = 256
LABEL_NOISE = 1.0
BATCH = 8
AMPLITUDE = 1e-6
HALF_WAY = Region(0.5, feature=1)


@dataclass(frozen=True)
class Setup:
    """One optimizer as it is tried."""

    label: str
    optimizer: Optimizer
    lr: float
    weight_decay: float
    amplitude: float = AMPLITUDE
    quick: bool = True


SETUPS = (
    Setup("gradient descent", GradientDescent(), 0.02, 0.02),
    Setup("momentum 0.9", Momentum(0.9), 0.002, 0.02, quick=False),
    Setup("Adam, coupled decay", Adam(), 0.001, 0.02),
    Setup("AdamW", AdamW(), 0.001, 0.1),
    Setup("AdamW, ε = 1e-3", AdamW(eps=1e-3), 0.001, 0.1),
    Setup("AdamW, amplitude 0", AdamW(), 0.001, 0.1, amplitude=0.0, quick=False),
)


def _setups(settings: Settings) -> tuple[Setup, ...]:
    return tuple(s for s in SETUPS if s.quick or not settings.quick)


def _size(settings: Settings) -> tuple[int, int]:
    """Replicas and steps."""
    return (16, 1000) if settings.quick else (32, 3000)


def _data() -> FiniteData:
    """White inputs and residuals that the inputs do not explain: the full batch's gradient is the population's."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(N_SAMPLES, WIDTHS[0])))[0] * N_SAMPLES**0.5
    noise = LABEL_NOISE * rng.normal(size=(N_SAMPLES, WIDTHS[-1]))
    noise -= x @ (x.T @ noise) / N_SAMPLES
    return finite(x, x @ _teacher().T + noise)


def _teacher() -> NDArray[np.float64]:
    diagonal = np.zeros(WIDTHS[0])
    diagonal[: len(SINGULAR_VALUES)] = SINGULAR_VALUES
    return np.diag(diagonal)


def _network(setup: Setup) -> DeepLinearNetwork:
    return DeepLinearNetwork(WIDTHS, _teacher(), weight_decay=setup.weight_decay)


def training(setup: Setup, batch: str, device: str = "cpu") -> SGD:
    """Return the training of a setup on the full batch or on minibatches."""
    size = None if batch == "full batch" else BATCH
    return SGD(
        _network(setup), _data(), lr=setup.lr, batch_size=size, optimizer=setup.optimizer, device=device, fused=False
    )


def start(setup: Setup, n_replicas: int) -> NDArray[np.float64]:
    """Return the collapsed state: the first feature learned, small random weights elsewhere, one row a replica."""
    return near(_network(setup).ordered_state([0]).numpy(), setup.amplitude, n_replicas, seed=1)


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each optimizer and kind of batch."""
    n_replicas, n_steps = _size(settings)
    made = []
    for setup in _setups(settings):
        for batch in BATCHES:
            key = {
                "setup": setup, "batch": batch, "widths": WIDTHS, "teacher": SINGULAR_VALUES,
                "label_noise": LABEL_NOISE, "n_samples": N_SAMPLES, "batch_size": BATCH,
                "n_replicas": n_replicas, "n_steps": n_steps,
            }  # fmt: skip
            made.append(Cell("optimizers", key, partial(_measure, setup, device), cost=50.0 * n_steps))
    return made


def _measure(setup: Setup, device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    n_replicas, n_steps = int(config["n_replicas"]), int(config["n_steps"])
    process = training(setup, str(config["batch"]), device)
    run = first_passage(
        process,
        target=HALF_WAY,
        n_replicas=n_replicas,
        max_time=n_steps * setup.lr,
        seed=seed,
        start=start(setup, n_replicas),
    )
    steps = np.rint(run.exit_time.values / setup.lr)
    run["exit_step"] = ("replica", steps, describe("exit_step"))
    return run


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return who escaped when, for each optimizer and kind of batch, and what that is attributed to."""
    setups = _setups(settings)
    n_replicas, n_steps = _size(settings)
    shape = (len(setups), len(BATCHES), n_replicas)
    steps = np.array([run.exit_step.values for run in results]).reshape(shape)
    escaped = np.array([run.escaped.values for run in results]).reshape(shape)
    data = {
        "lr": ("optimizer", [s.lr for s in setups], describe("lr")),
        "weight_decay": ("optimizer", [s.weight_decay for s in setups], describe("weight_decay")),
        "amplitude": ("optimizer", [s.amplitude for s in setups], describe("amplitude")),
    }
    dataset = counted(steps, escaped, "optimizer").assign(data)
    dataset = dataset.assign_coords(optimizer=("optimizer", [s.label for s in setups], {"long_name": "optimizer"}))
    dataset = dataset.assign_attrs(
        n_replicas=n_replicas, n_steps=n_steps, batch_size=BATCH, n_samples=N_SAMPLES, label_noise=LABEL_NOISE
    )
    return xr.DataTree.from_dict({"/trap": dataset}, name=NAME)
