r"""Optimizers: what becomes of a gradient.

An optimizer is a small frozen object with `init`, which makes what it remembers, and `step`, which moves the weights.
Both see all replicas at once; whatever is remembered has one row per replica, so that it follows its replica when
others leave or copies are made. Learning rate and weight decay come as numbers or as tensors of shape (replica, 1).
Weight decay is *coupled* (λθ joins the gradient: it is part of the loss) or *decoupled* (the weights shrink by
1 − ηλ, whatever the gradient is rescaled to). Only for plain gradient descent are these the same.

To add one, write one class::

    @dataclass(frozen=True)
    class SignDescent:
        decoupled: bool = False

        def init(self, theta):
            return {}

        def step(self, theta, gradient, state, lr, weight_decay):
            theta, gradient = decayed(theta, gradient, lr, weight_decay, self.decoupled)
            return theta - lr * gradient.sign(), state

Only torch operations on whole tensors belong in `step`: it is what ``SGD(..., compile=True)`` compiles.

References
----------
D. P. Kingma and J. Ba, Adam: a method for stochastic optimization, ICLR 2015 (arXiv:1412.6980).
I. Loshchilov and F. Hutter, Decoupled weight decay regularization, ICLR 2019 (arXiv:1711.05101).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["Adam", "AdamW", "GradientDescent", "Momentum", "Optimizer", "decayed"]

Rate: TypeAlias = float | Tensor
Memory: TypeAlias = Mapping[str, Tensor]


class Optimizer(Protocol):
    """Moves weights by a gradient, and remembers what it needs for that."""

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        """Return what is remembered before the first step: tensors of shape (replica, ...).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        dict of str to Tensor
        """
        ...

    def step(
        self, theta: Tensor, gradient: Tensor, state: Memory, lr: Rate, weight_decay: Rate
    ) -> tuple[Tensor, Memory]:
        """Return the new weights (replica, parameter) and memory.

        `gradient` is that of the data, without weight decay; `lr` and `weight_decay` are numbers or (replica, 1).

        Parameters
        ----------
        theta, gradient : Tensor, shape (replica, parameter)
        state : mapping of str to Tensor
            What was remembered.
        lr, weight_decay : float or Tensor of shape (replica, 1)

        Returns
        -------
        Tensor, shape (replica, parameter)
            The new weights.
        mapping of str to Tensor
            The new memory.
        """
        ...


def decayed(theta: Tensor, gradient: Tensor, lr: Rate, weight_decay: Rate, decoupled: bool) -> tuple[Tensor, Tensor]:
    """Apply weight decay to the weights, θ(1 − ηλ), if decoupled, otherwise to the gradient, g + λθ.

    Examples
    --------
    >>> theta, gradient = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    >>> [t.item() for t in decayed(theta, gradient, 0.5, 0.25, decoupled=False)]
    [2.0, 1.5]
    >>> [t.item() for t in decayed(theta, gradient, 0.5, 0.25, decoupled=True)]
    [1.75, 1.0]
    """
    if decoupled:
        return theta * (1 - lr * weight_decay), gradient
    return theta, gradient + weight_decay * theta


@dataclass(frozen=True)
class GradientDescent:
    """θ ← θ − η (g + λθ), or θ ← (1 − ηλ)θ − ηg if decoupled: the same up to rounding.

    Attributes
    ----------
    decoupled : bool
        Decoupled weight decay.

    Examples
    --------
    >>> theta, gradient = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    >>> GradientDescent().step(theta, gradient, {}, 0.5, 0.25)[0].item()
    1.25
    """

    decoupled: bool = False

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def step(
        self, theta: Tensor, gradient: Tensor, state: Memory, lr: Rate, weight_decay: Rate
    ) -> tuple[Tensor, Memory]:
        """One step down the gradient."""
        theta, gradient = decayed(theta, gradient, lr, weight_decay, self.decoupled)
        return theta - lr * gradient, state


@dataclass(frozen=True)
class Momentum:
    """Heavy-ball or Nesterov momentum, as `torch.optim.SGD` has it: v ← μv + (1 − δ)g, θ ← θ − ηv.

    The first step takes v = g whatever the dampening δ is. Nesterov's version moves by g + μv.
    With momentum the long-run learning rate is η/(1 − μ).

    Attributes
    ----------
    momentum, dampening : float
        μ and δ, both in [0, 1).
    nesterov : bool
        Needs μ > 0 and δ = 0.
    decoupled : bool
        Decoupled weight decay.

    Examples
    --------
    >>> optimizer, theta = Momentum(0.5), torch.tensor([[1.0]])
    >>> state = optimizer.init(theta)
    >>> for _ in range(2):
    ...     theta, state = optimizer.step(theta, torch.ones(1, 1), state, 0.25, 0.0)
    >>> theta.item(), state["velocity"].item()
    (0.375, 1.5)
    """

    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    decoupled: bool = False

    def __post_init__(self) -> None:
        _check_below_one("momentum", self.momentum)
        _check_below_one("dampening", self.dampening)
        if self.nesterov and (self.momentum == 0 or self.dampening):
            raise InvalidParameterError(
                f"`nesterov` = True with momentum {self.momentum:g} and dampening {self.dampening:g}, expected "
                "momentum > 0 and no dampening: it looks ahead along the velocity.\n"
                "Use `Momentum(0.9, nesterov=True)`."
            )

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        """Velocity 0; with dampening also whether a first step was taken."""
        state = {"velocity": torch.zeros_like(theta)}
        if self.dampening:
            state["begun"] = torch.zeros_like(theta.narrow(1, 0, 1))
        return state

    def step(
        self, theta: Tensor, gradient: Tensor, state: Memory, lr: Rate, weight_decay: Rate
    ) -> tuple[Tensor, Memory]:
        """One step along the velocity."""
        theta, gradient = decayed(theta, gradient, lr, weight_decay, self.decoupled)
        if self.dampening:
            share = 1 - self.dampening * state["begun"]
            velocity = self.momentum * state["velocity"] + share * gradient
            remembered = {"velocity": velocity, "begun": torch.ones_like(state["begun"])}
        else:
            velocity = self.momentum * state["velocity"] + gradient
            remembered = {"velocity": velocity}
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        return theta - lr * direction, remembered


@dataclass(frozen=True)
class Adam:
    r"""Adam: θ ← θ − η m̂/(√v̂ + ε), m̂ and v̂ the bias-corrected running means of g and g².

    Directions whose gradient is far below ε feel η g/ε; above it every direction moves by about η, however small its
    gradient is. That rescaling, not noise, lets weights out of a state where they are nearly 0.

    Attributes
    ----------
    betas : (float, float)
        Both in [0, 1).
    eps : float
        ε > 0 [gradient].
    decoupled : bool
        Decoupled weight decay: AdamW.

    Examples
    --------
    >>> optimizer, theta = Adam(), torch.tensor([[1.0]], dtype=torch.float64)
    >>> theta, _ = optimizer.step(theta, 1e-3 * theta, optimizer.init(theta), 0.1, 0.0)
    >>> round(theta.item(), 5)  # the first step is η, whatever the gradient's size
    0.9
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decoupled: bool = False

    def __post_init__(self) -> None:
        for beta in self.betas:
            _check_below_one("betas", beta)
        checks.positive("eps", self.eps, "it bounds the rescaling of small gradients")

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        """Running means 0; steps taken, counted for each replica, always in double precision."""
        steps = torch.zeros((theta.shape[0], 1), dtype=torch.float64, device=theta.device)
        powers = {name: torch.ones_like(steps) for name in ("first_power", "second_power")}
        return {"mean": torch.zeros_like(theta), "square": torch.zeros_like(theta), "steps": steps, **powers}

    def step(
        self, theta: Tensor, gradient: Tensor, state: Memory, lr: Rate, weight_decay: Rate
    ) -> tuple[Tensor, Memory]:
        """One rescaled step."""
        theta, gradient = decayed(theta, gradient, lr, weight_decay, self.decoupled)
        first, second = self.betas
        # Powers β^k one factor at a time: what `pow` rounds to depends on a replica's place in its batch.
        powers = {"first_power": first * state["first_power"], "second_power": second * state["second_power"]}
        mean = first * state["mean"] + (1 - first) * gradient
        square = second * state["square"] + (1 - second) * gradient * gradient
        # In double precision whatever the weights have: 1 − 0.999 is known to 6e-5 only in single precision.
        correction = (1 / (1 - powers["first_power"])).to(theta.dtype)
        root = (1 / (1 - powers["second_power"])).sqrt().to(theta.dtype)
        moved = theta - lr * (correction * mean) / (square.sqrt() * root + self.eps)
        return moved, {"mean": mean, "square": square, "steps": state["steps"] + 1, **powers}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay.

    Examples
    --------
    >>> AdamW() == AdamW(decoupled=True), Adam().decoupled
    (True, False)
    """

    decoupled: bool = True


def _check_below_one(name: str, value: float) -> None:
    if checks.non_negative(name, value) >= 1:
        raise checks.invalid(name, value, "a number in [0, 1)", "it is the share that is remembered")
