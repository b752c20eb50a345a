"""Descent that has settled: when a point counts as settled, and going down until it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import DivergedError
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.certificate import full_gradient
from kramers_grok.escape.protocols.quasi_newton import finish
from kramers_grok.landscape.flow import follow
from kramers_grok.landscape.hessian import Gradient
from kramers_grok.landscape.surface import Surface

__all__ = [
    "Settling",
    "settle",
]

Array = NDArray[np.float64]
_GROWTH = 1.5
_FLOW_STEPS = 40  # to the bottom of a minimum that descent has all but reached


@dataclass(frozen=True)
class Settling:
    """When a point of a sweep counts as settled, and what is examined there.

    Parameters
    ----------
    tolerance : float
        Settled where ‖∇F‖ ≤ tolerance · λ · scale.
    max_steps : int
        Steps at one value of λ at most. Beside a spinodal descent is slow: see
        `kramers_grok.theory.hysteresis.bottleneck_time`, over the learning rate.
    scale : float
        Natural size of the weights, about σ^(1/D) [weight].
    certify_every : int
        Every how many values a certificate is made; 0 makes them only around jumps. Descent that settled at a point
        with a negative curvature goes on until it has left.
    bisections : int
        How often the step in which something jumped is halved, from the state before it.
    smallest_jump : float
        Change of an order parameter between two values that counts as a jump, if it is also more than `smallest_share`
        of it.
    first_check : int
        Steps before the gradient is looked at for the first time.
    kick : float
        Standard deviation of random weights added once at every value, before descent [weight]. Without them what has
        decayed for long is 0 to rounding, where descent stays on a saddle for ever.
    smallest_share : float
        Part of the larger of the two order parameters that a jump has to be, besides. 0 also counts features that are
        lost in several steps.
    quasi_newton : bool
        Whether each stretch of descent begins with the attempt to finish it by a quasi-Newton iteration, which is kept
        only if no order parameter moved by `smallest_jump` on the way
        (`kramers_grok.escape.protocols.quasi_newton`); ``steps`` does not count its steps. For networks whose loss has
        nearly flat directions, as broken rotations of hidden units. The gradient flow, followed with whole Hessians,
        takes points to the bottom before they are certified: a loose `tolerance`, as 1e-4, will do up to some hundred
        weights (`kramers_grok.landscape.flow.FLOW_LIMIT`).

    Raises
    ------
    InvalidParameterError
        For numbers out of range.
    """

    tolerance: float = 1e-6
    max_steps: int = 200_000
    scale: float = 1.0
    certify_every: int = 1
    bisections: int = 0
    smallest_jump: float = 0.05
    first_check: int = 32
    kick: float = 0.0
    smallest_share: float = 0.5
    quasi_newton: bool = False

    def __post_init__(self) -> None:
        for name in ("tolerance", "scale", "smallest_jump"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        for name in ("kick", "smallest_share"):
            object.__setattr__(self, name, checks.non_negative(name, getattr(self, name)))
        for name, least in (("max_steps", 1), ("first_check", 1), ("certify_every", 0), ("bisections", 0)):
            object.__setattr__(self, name, checks.positive_int(name, getattr(self, name), minimum=least))


def settle(process: SGD, theta: Tensor, settling: Settling, *, seed: int = 0) -> tuple[Tensor, Array, int]:
    """Go down until every replica's gradient is small, or the steps are used up.

    Parameters
    ----------
    process : SGD
        Without noise, as `sweep` asks for.
    theta : Tensor, shape (replica, parameter)
    settling : Settling
    seed : int
        Of no consequence without noise.

    Returns
    -------
    theta : Tensor, shape (replica, parameter)
    gradient_norm : ndarray, shape (replica,)
    steps : int

    Raises
    ------
    DivergedError
        If a replica leaves the finite numbers: the learning rate is too large for the curvature.
    """
    gradient = full_gradient(process)
    threshold = settling.tolerance * decay_of(process) * settling.scale
    state = process.start(len(theta), seed=seed, point=theta.cpu().numpy())
    norm = gradient_norms(gradient(plain(state.theta)))
    chunk = settling.first_check
    while norm.max() > threshold and state.step < settling.max_steps:
        if settling.quasi_newton:
            finished = finish(process, plain(state.theta), threshold=threshold, leash=settling.smallest_jump)
            if finished is not None:
                return finished.to(state.theta), gradient_norms(gradient(finished)), state.step
        state, _ = process.advance(state, min(chunk, settling.max_steps - state.step))
        norm = gradient_norms(gradient(plain(state.theta)))
        _check(norm, state.step, process)
        chunk = int(_GROWTH * chunk)
    return state.theta, norm, state.step


@dataclass(frozen=True)
class _Whole:
    """The energy whose gradient descent goes down, for `follow`."""

    process: SGD
    whole: Gradient

    @property
    def n_parameters(self) -> int:
        return self.process.model.n_parameters

    def energy(self, theta: Tensor) -> Tensor:
        raise NotImplementedError  # the flow asks for gradients only

    def gradient(self, theta: Tensor) -> Tensor:
        return self.whole(theta)

    def order_parameters(self, theta: Tensor) -> Tensor:
        return self.process.order_parameters(theta)


def to_the_bottom(process: SGD, theta: Tensor, threshold: float) -> Tensor:
    """End of the gradient flow from one point, shape (1, parameter)."""
    surface = Surface(_Whole(process, full_gradient(process)))
    path = follow(surface, plain(theta)[0].numpy(), tolerance=threshold, max_steps=_FLOW_STEPS)
    return torch.from_numpy(path.end[None].copy()).to(theta)


def decay_of(process: SGD) -> float:
    """Weight decay of a process, the same at every step."""
    return float(process.weight_decay)


def plain(theta: Tensor) -> Tensor:
    """Weights in double precision on the CPU."""
    return theta.detach().to(device="cpu", dtype=torch.float64)


def gradient_norms(gradient: Tensor) -> Array:
    """‖∇F‖ of each replica, shape (replica,)."""
    return np.asarray(gradient.norm(dim=1).numpy())


def _check(norm: Array, step: int, process: SGD) -> None:
    bad = np.flatnonzero(~np.isfinite(norm))
    if bad.size:
        lr = float(process.lr)
        raise DivergedError(
            f"{bad.size} replica(s) diverged by step {step}: the learning rate {lr:g} is too large for the curvature.\n"
            "Use `lr=stable_lr(process, theta)`.",
            replicas=bad.tolist(),
            step=step,
        )
