"""One step of training as a pure function: gradient, injected noise, optimizer; and its hyperparameters step by step.

Whatever is random is drawn outside and passed in, so the function can be compiled, and captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.batching import Batches
from kramers_grok.dynamics.optimizers import GradientDescent, Optimizer

__all__ = ["MEMORY", "BatchGradient", "Series", "Steps", "Update", "compiled"]

MEMORY = "optimizer_"  # prefix of the optimizer's buffers

Memory: TypeAlias = Mapping[str, Tensor]
Rate: TypeAlias = float | Tensor
Rule: TypeAlias = Callable[..., tuple[Tensor, Memory]]


class BatchGradient(Protocol):
    """Gradient of a batch's loss: of a BatchModel from second moments, of `NoisyActivations` from samples."""

    def data_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor, /) -> Tensor:
        """Gradient without weight decay, shape (replica, parameter), from the two tensors of a batch source."""
        ...


@dataclass(frozen=True, eq=False)
class Update:
    """θ and a batch → new θ.

    Attributes
    ----------
    model : BatchGradient
    optimizer : Optimizer
    """

    model: BatchGradient
    optimizer: Optimizer

    @property
    def plain(self) -> bool:
        """Whether noise on the gradient is just a displacement by −η times it."""
        return isinstance(self.optimizer, GradientDescent)

    def __call__(
        self,
        theta: Tensor,
        xx: Tensor,
        yx: Tensor,
        xi: Tensor | None,
        memory: Memory,
        lr: Rate,
        weight_decay: Rate,
        noise: Rate,
    ) -> tuple[Tensor, Memory]:
        """Take one step.

        `xi` is standard normal (replica, parameter) or None; `noise` is its displacement η g/√B for a plain optimizer,
        otherwise its standard deviation g/√B in the gradient.
        """
        gradient = self.model.data_gradient(theta, xx, yx)
        if xi is None:
            return self.optimizer.step(theta, gradient, memory, lr, weight_decay)
        if self.plain:
            moved, memory = self.optimizer.step(theta, gradient, memory, lr, weight_decay)
            return moved + noise * xi, memory
        return self.optimizer.step(theta, gradient - noise * xi, memory, lr, weight_decay)


class Series:
    """A hyperparameter in the torch loop: what it is at each step of one call, made before the first.

    Parameters
    ----------
    table : float or array of shape (step,)
    factor : Tensor of shape (replica,), optional
    like : Tensor
        Gives dtype and device.
    as_tensors : bool
        Numbers become tensors without dimensions on the device: compiled code takes each number for another program.
    """

    def __init__(
        self, table: float | NDArray[np.float64], factor: Tensor | None, like: Tensor, *, as_tensors: bool = False
    ) -> None:
        self._steps: list[float] | Tensor | None = None
        self._fixed: Rate = 1.0
        self._factor = None if factor is None else factor.to(like).unsqueeze(1)
        if isinstance(table, np.ndarray):
            self._steps = torch.as_tensor(table).to(like) if as_tensors else table.tolist()
        elif self._factor is not None:
            self._fixed = self._factor if table == 1.0 else table * self._factor
        else:
            self._fixed = torch.full((), table, dtype=like.dtype, device=like.device) if as_tensors else table

    def __getitem__(self, index: int) -> Rate:
        """Return the value at step `index` of the call: a number, or a tensor of shape (replica, 1) or ()."""
        if self._steps is None:
            return self._fixed
        # select, not brackets: see the loop.
        value: Rate = self._steps.select(0, index) if isinstance(self._steps, Tensor) else self._steps[index]
        return value if self._factor is None else value * self._factor


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of one call: draws batches and noise, reads the hyperparameters of the step, applies the rule.

    Attributes
    ----------
    rule : callable
        `Update`, or its compiled form.
    batches : Batches
    seed, first : int
        Key of the noise, and the number of the first step.
    sizes : int or array of shape (step,)
    lr, weight_decay, displacement : Series
        The last is η g/√B.
    deviation : Series or None
        g/√B, for optimizers that see the noise in the gradient; None for plain gradient descent.
    noisy : bool
    """

    rule: Rule
    batches: Batches
    seed: int
    first: int
    sizes: int | NDArray[np.int64]
    lr: Series
    weight_decay: Series
    displacement: Series
    deviation: Series | None
    noisy: bool

    def __call__(self, theta: Tensor, streams: Tensor, number: int, buffers: Memory) -> tuple[Tensor, Memory]:
        """Take step `number`; see `loop.Step`."""
        index = number - self.first
        size = self.sizes if isinstance(self.sizes, int) else int(self.sizes[index])
        xx, yx, buffers = self.batches.of(size).moments(self.seed, streams, number, buffers)
        xi = None
        if self.noisy:
            shape = theta.shape[1]
            xi = torch_noise.normals(self.seed, Purpose.INJECTED, streams, number, shape, dtype=theta.dtype)
        rates = self.lr[index], self.weight_decay[index], (self.deviation or self.displacement)[index]
        memory = {name.removeprefix(MEMORY): b for name, b in buffers.items() if name.startswith(MEMORY)}
        moved, remembered = self.rule(theta, xx, yx, xi, memory, *rates)
        if memory:
            buffers = {**buffers, **{MEMORY + name: b for name, b in remembered.items()}}
        return moved, buffers

    def scale(self, number: int) -> Rate:
        """Half the variance of the step's noise; see `loop.Scale`."""
        half = self.displacement[number - self.first] ** 2 / 2
        return half.squeeze(-1) if isinstance(half, Tensor) and half.ndim else half


def compiled(update: Update, device: torch.device) -> Rule:
    """Compile an update by `torch.compile`; on CUDA captured as a CUDA graph.

    A graph's outputs live in memory that its next run overwrites: they are copied out.
    """
    if device.type != "cuda":
        rule: Rule = torch.compile(update.__call__)
        return rule
    captured: Any = torch.compile(update.__call__, mode="reduce-overhead")

    def run(*arguments: Any) -> tuple[Tensor, Memory]:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        theta, memory = captured(*arguments)
        return theta.clone(), {name: buffer.clone() for name, buffer in memory.items()}

    return run
