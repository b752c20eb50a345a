"""The library as its documentation shows it, on all cores that the others have."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kramers_grok as kg
from benchmarks.arenas import STEP, TEACHER, WIDTHS, Arena, NetworkArena, Training
from benchmarks.timing import DOUBLE, SINGLE
from kramers_grok.dynamics.process import Watch

Array = NDArray[np.float64]

NAME = "kramers_grok"


def integrators(threads: int) -> dict[str, kg.Fused]:
    """Return the compiled integrator by the precision in which it draws."""
    found = {DOUBLE: kg.Fused(n_threads=threads)}
    options: dict[str, Any] = {"noise": torch.float32}
    if any(field.name == "noise" for field in fields(kg.Fused)):
        found[SINGLE] = kg.Fused(n_threads=threads, **options)
    return found


def name_of(noise: str) -> str:
    """Name in the table."""
    return NAME if noise == DOUBLE else f"{NAME}, single-precision noise"


def on_torch() -> kg.Fused:
    """Return the same process with torch operations: for CUDA, and for networks without a kernel."""
    return kg.Fused(compiled=False)


class Escape:
    """First passage in steps: `advance` with its watch, its stop and its bridge."""

    def __init__(self, arena: Arena, integrator: kg.Fused) -> None:
        self.arena, self.integrator = arena, integrator
        self.process = kg.Langevin(
            arena.system, temperature=arena.temperature, dt=STEP, integrator=integrator, device="cpu"
        )

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Step at which each replica first crossed the border, inf where it did not."""
        state = self.process.start(replicas, seed=seed)
        _, record = self.process.advance(state, steps, Watch(self.arena.target, bridge=True))
        return as_steps(record.hit_step.numpy())


class Network:
    """The same of the matrix network; also returns the weights."""

    def __init__(self, arena: NetworkArena, integrator: kg.Fused) -> None:
        self.arena, self.bridge = arena, True
        self.process = kg.Langevin(
            arena.network, temperature=arena.temperature, dt=STEP, integrator=integrator, device="cpu"
        )

    def __call__(self, replicas: int, steps: int, seed: int) -> tuple[Array, Array]:
        """First steps in the target, and final weights."""
        state = self.process.start(replicas, seed=seed)
        moved, record = self.process.advance(state, steps, Watch(self.arena.target, bridge=self.bridge))
        return as_steps(record.hit_step.numpy()), moved.theta.numpy()


class Train:
    """An ensemble of SGD in single precision."""

    def __init__(self, arena: Training, threads: int, sampler: Any = None, *, fused: bool = True) -> None:
        self.arena = arena
        self.process = kg.SGD(
            model_of(arena), kg.teacher(label_noise=arena.label_noise), lr=arena.lr, batch_size=arena.batch_size,
            sampler=sampler, dtype=torch.float32, n_threads=threads, fused=fused, device="cpu",
        )  # fmt: skip

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Weights after so many steps, shape (replica, parameter)."""
        state = self.process.start(replicas, seed=seed, point=self.arena.start(replicas))
        moved, _ = self.process.advance(state, steps)
        return np.asarray(moved.theta.numpy())


def model_of(arena: Training) -> Any:
    """Return the library's network of an arena."""
    if not arena.tanh:
        return kg.DeepLinearNetwork(WIDTHS, TEACHER, weight_decay=arena.decay)
    from kramers_grok.models.activations import Tanh
    from kramers_grok.models.mlp import MLP

    return MLP(WIDTHS, Tanh(), weight_decay=arena.decay, teacher_matrix=TEACHER)


def as_steps(hit: Any) -> Array:
    """Steps as floats, inf where a replica stayed."""
    steps: Array = np.asarray(hit, dtype=np.float64).copy()
    steps[steps < 0] = np.inf
    return steps
