"""Brute force: run replicas until they escape, and count those that did not as censored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from kramers_grok.core import checks, schema
from kramers_grok.core.exceptions import DivergedError, InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.dynamics.process import Process, Record, State, Watch, select

__all__ = ["first_passage"]

FIRST_CHUNK = 64
LAST_CHUNK = 16384
SETTLING_STEPS = 64  # a blow-up shows within a few steps; see _check_diverged

Progress = Callable[[int, int, float], None]


def first_passage(
    process: Process,
    *,
    target: Region,
    n_replicas: int,
    max_time: float,
    seed: int,
    start: ArrayLike | None = None,
    bridge: bool | None = None,
    replica_batch: int = 65536,
    progress: Progress | None = None,
    extra: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Measure when replicas of a process first enter a region.

    Every replica stops by itself at the step where it enters; survivors are compacted between chunks of steps and
    censored at the horizon. A replica's path depends on the seed and its number only, not on the batch, the chunks, the
    threads or who left first.

    Parameters
    ----------
    process : Process
        Langevin, SGD or any chain that keeps the contract.
    target : Region
        Where a replica counts as escaped.
    n_replicas : int
        Number of independent replicas.
    max_time : float
        Horizon [time]; rounded up to whole steps.
    seed : int
        Key of all noise.
    start : array_like, shape (parameter,) or (replica, parameter), optional
        Where replicas begin; the unlearned state if not given.
    bridge : bool, optional
        Count crossings between two steps by a Brownian bridge. Default: for processes that stand for continuous motion
        (Langevin), not for those that are discrete (SGD).
    replica_batch : int
        Replicas held in memory at once.
    progress : callable, optional
        Called as ``progress(escaped, n_replicas, time)`` between chunks.
    extra : mapping, optional
        Further scalar coordinates of the result.

    Returns
    -------
    xarray.Dataset
        `exit_time` (replica) [time] and `escaped` (replica); False means censored at the horizon. A crossing seen
        at a step counts at that step without a bridge, half a step earlier with one.

    Raises
    ------
    InvalidParameterError
        Horizon shorter than one step, a start inside the target, shapes that do not fit.
    DivergedError
        If replicas leave the finite numbers: which, and at which step.

    Examples
    --------
    >>> from kramers_grok.dynamics.langevin import Langevin
    >>> from kramers_grok.theory.deep_linear import Mode
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> langevin = Langevin(mode, temperature=0.004, dt=0.1)
    >>> result = first_passage(langevin, target=Region(0.2), n_replicas=8, max_time=2000.0, seed=0)
    >>> result.exit_time.shape, bool(result.escaped.all())
    ((8,), True)
    """
    max_time = checks.positive(
        "max_time", max_time, "replicas need time to escape", "Use a few times the predicted mean exit time."
    )
    n_replicas = checks.positive_int("n_replicas", n_replicas)
    replica_batch = checks.positive_int("replica_batch", replica_batch)
    if max_time < process.dt:
        raise checks.invalid("max_time", max_time, f"at least one step, {process.dt:g}", "nothing could move")
    bridge = process.is_diffusion if bridge is None else bridge
    watch = Watch(target, bridge=bridge)
    n_steps = int(np.ceil(max_time / process.dt * (1 - 1e-12)))
    state = process.start(n_replicas, seed=seed, point=start)
    _check_start(process, state, target)

    hit = torch.full((n_replicas,), -1, dtype=torch.int64)
    best = torch.full((n_replicas,), -torch.inf, dtype=torch.float64)
    for begin in range(0, n_replicas, replica_batch):
        numbers = torch.arange(begin, min(begin + replica_batch, n_replicas))
        part = select(state, numbers.to(state.theta.device))
        _run(process, part, numbers, n_steps, watch, hit, best, progress)

    escaped = (hit >= 0).numpy()
    times = np.where(escaped, (hit.numpy() - 0.5 * bridge) * process.dt, n_steps * process.dt)
    description = dict(process.describe())
    coords = description | {"target_threshold": target.threshold} | dict(extra or {})
    return schema.exit_dataset(
        times,
        escaped,
        horizon=n_steps * process.dt,
        coords={k: v for k, v in coords.items() if k in schema.VARIABLES},
        seed=seed,
        dtype=str(state.theta.dtype).removeprefix("torch."),
        device=str(state.theta.device),
        configuration=coords | {"n_replicas": n_replicas, "bridge": bridge, "above": target.above},
        extra_vars={"max_score": best.numpy()},
    )


def _check_start(process: Process, state: State, target: Region) -> None:
    m = process.order_parameters(state.theta)
    if not 0 <= target.feature < m.shape[1]:
        raise checks.invalid("target.feature", target.feature, f"0 to {m.shape[1] - 1}", "one for each order parameter")
    inside = target.contains(m[:, target.feature].cpu().numpy())
    if inside.any():
        side = "above" if target.above else "below"
        raise InvalidParameterError(
            f"{int(inside.sum())} of {len(inside)} replicas start inside the target (m {side} {target.threshold:g}, "
            f"start at m = {float(m[int(np.argmax(inside)), target.feature]):g}): the target must lie beyond "
            "the barrier.\n"
            "Use `beyond(barrier)`, or Region(..., above=False) for a learned feature that is forgotten."
        )


def _run(
    process: Process,
    state: State,
    numbers: Tensor,
    n_steps: int,
    watch: Watch,
    hit: Tensor,
    best: Tensor,
    progress: Progress | None,
) -> None:
    """Run one batch to the horizon and write what happened at `numbers` of `hit` and `best`."""
    while state.step < n_steps and state.n_replicas:
        # Chunks grow with the time passed: few host reads, little work on replicas that have left.
        chunk = min(max(FIRST_CHUNK, state.step // 8), LAST_CHUNK, n_steps - state.step)
        moved, record = process.advance(state, chunk, watch)
        _check_diverged(process, state, moved, record, numbers)
        left = record.hit_step >= 0
        hit[numbers] = record.hit_step.cpu()
        best[numbers] = torch.maximum(best[numbers], record.best.cpu().to(torch.float64))
        stay = torch.nonzero(~left)[:, 0]
        if len(stay) < moved.n_replicas:
            moved = select(moved, stay)
            numbers = numbers[stay.cpu()]
        state = moved
        if progress is not None:
            progress(int((hit >= 0).sum()), len(hit), state.step * process.dt)


def _check_diverged(process: Process, before: State, after: State, record: Record, numbers: Tensor) -> None:
    """Raise if a replica is not finite, or if its escape was the beginning of a blow-up.

    The escaped stand still where they entered the target: to be believed, they must stay finite for some more steps.
    """
    bad = ~torch.isfinite(after.theta).all(dim=1)
    escaped = torch.nonzero(record.hit_step >= 0)[:, 0]
    if len(escaped):
        later, _ = process.advance(select(after, escaped), SETTLING_STEPS)
        bad[escaped] |= ~torch.isfinite(later.theta).all(dim=1)
    if bool(bad.any()):
        index = torch.nonzero(bad)[:, 0]
        horizon = after.step - before.step + SETTLING_STEPS
        step = _first_bad_step(process, select(before, index), horizon)
        raise _diverged(numbers[index.cpu()], step, process.dt)


def _first_bad_step(process: Process, state: State, horizon: int) -> int:
    """First step after which a replica is not finite, by bisection: the noise is counter based, so paths repeat."""
    low, high = 0, horizon
    while high - low > 1:
        middle = (low + high) // 2
        moved, _ = process.advance(state, middle)
        finite = bool(torch.isfinite(moved.theta).all())
        low, high = (middle, high) if finite else (low, middle)
    return state.step + high


def _diverged(replicas: Tensor, step: int, dt: float) -> DivergedError:
    shown = replicas.tolist()
    listed = ", ".join(map(str, shown[:8])) + (", …" if len(shown) > 8 else "")
    return DivergedError(
        f"{len(shown)} replica(s) diverged (numbers {listed}), the first at step {step}: the step {dt:g} is too large "
        f"for the curvature that they met.\nUse a smaller step, for instance {dt / 4:g}.",
        replicas=shown,
        step=step,
    )
