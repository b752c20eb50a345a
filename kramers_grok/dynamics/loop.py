"""The torch loop: steps, stopping and bridges for any step function, on any device.

Nothing in the loop reads a value back to the host. What runs inside it avoids indexing with brackets (select, unsqueeze
and narrow instead): brackets ask for a device guard, which a PyTorch built without CUDA lacks, and there fake CUDA
tensors must work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.process import Observed, OrderParameter, Record, State, Watch

__all__ = ["Scale", "Step", "run"]

Buffers = Mapping[str, Tensor]
# (theta, streams, step, buffers) → (theta, buffers)
Step = Callable[[Tensor, Tensor, int, Buffers], tuple[Tensor, Buffers]]
Scale = Callable[[int], float | Tensor]


@dataclass(frozen=True)
class _Border:
    """Score of replicas, and their distance to the region's border, taken flat over one step."""

    observed: Observed
    watch: Watch

    def score(self, theta: Tensor) -> Tensor:
        region, score = self.watch.region, self.watch.score
        own = OrderParameter(region.feature, region.sign).values(self.observed, theta)
        if score is None:
            return own
        return torch.where(own >= region.sign * region.threshold, torch.inf, score.values(self.observed, theta))

    def score_and_distance(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = theta.detach().requires_grad_(True)
            score = self.score(point)
            (slope,) = torch.autograd.grad(score.sum(), point)
        score = score.detach()
        gap = self.watch.hit_level - score
        return score, gap / slope.norm(dim=-1).clamp_min(torch.finfo(theta.dtype).tiny)


def run(
    state: State,
    n_steps: int,
    step: Step,
    observed: Observed,
    watch: Watch | None,
    bridge_scale: float | Scale,
) -> tuple[State, Record]:
    """Advance a batch by `n_steps`, freezing each replica at the step where it enters the watched region or returns.

    Parameters
    ----------
    observed : Observed
        The process: what scores are computed from.
    bridge_scale : float or callable
        T·dt, half the variance of one step's noise: a path between two points at distances d₀, d₁ from the
        border crossed it with probability exp(−d₀ d₁ / (T dt)). A callable gives it for each step, as a number or as
        a tensor of shape (replica,).
    """
    theta, buffers = state.theta, state.buffers
    replicas = state.n_replicas
    hit = torch.full((replicas,), -1, dtype=torch.int64, device=theta.device)
    fell = hit.clone()
    best = torch.full((replicas,), -torch.inf, dtype=theta.dtype, device=theta.device)
    if replicas == 0:
        return replace(state, step=state.step + n_steps), Record(hit, best, fell)
    border = _Border(observed, watch) if watch is not None else None
    far: Tensor | None = None
    if border is not None and border.watch.bridge:
        _, far = border.score_and_distance(theta)
    for number in range(state.step, state.step + n_steps):
        moved, remembered = step(theta, state.streams, number, buffers)
        if border is None or watch is None:
            theta, buffers = moved, remembered
            continue
        alive = (hit < 0) & (fell < 0)
        if far is None:
            score = border.score(moved)
            crossed = score >= watch.hit_level
        else:
            score, near = border.score_and_distance(moved)
            crossed = score >= watch.hit_level
            scale = bridge_scale(number) if callable(bridge_scale) else bridge_scale
            exponent = -(far * near) / scale
            far = near
            uniform = torch_noise.uniforms(state.seed, Purpose.BRIDGE, state.streams, number, 1, dtype=theta.dtype)
            crossed = crossed | (uniform.squeeze(1) < torch.exp(exponent.clamp_max(0.0)))
        theta = torch.where(alive.unsqueeze(1), moved, theta)
        buffers = {name: _where(alive, buffer, buffers[name]) for name, buffer in remembered.items()}
        best = torch.where(alive & (score > best), score, best)
        hit = torch.where(alive & crossed, number + 1, hit)
        if watch.floor is not None:
            fell = torch.where(alive & (hit < 0) & (score <= watch.floor), number + 1, fell)
    return replace(state, theta=theta, step=state.step + n_steps, buffers=buffers), Record(hit, best, fell)


def _where(alive: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """What the living remember now, and the frozen did when they stopped: a clone must go on from there."""
    return new if new is old else torch.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old)
