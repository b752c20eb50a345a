"""Brute force: run replicas until they escape, and count those that did not as censored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks, schema
from kramers_grok.core.exceptions import DivergedError, InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.dynamics.process import Process, Record, State, Watch, common_step, select
from kramers_grok.escape import checkpoint as checkpoints
from kramers_grok.escape.checkpoint import Checkpoint

__all__ = ["first_passage"]

FIRST_CHUNK = 64
LAST_CHUNK = 16384
MOST_STEPS = 10**8
SETTLING_STEPS = 64  # a blow-up shows within a few steps; see _check_diverged
# A batch's steps make a dozen copies of it. On a CPU a quarter of a million numbers keep these in the caches, and small
# beside all replicas; on a device a step costs its launches, however many replicas it moves.
_CPU_NUMBERS, _DEVICE_NUMBERS = 2**18, 2**25
_MOST_ROWS, _LEAST_ROWS = 2**15, 2**6
_NAME = "first-passage"  # of the state in a checkpoint
_BUFFER = "buffer "  # before the names of the process's own buffers

Progress = Callable[[int, int, float], None]
Keep = Callable[[State, Tensor], None]


def first_passage(
    process: Process,
    *,
    target: Region,
    n_replicas: int,
    max_time: float,
    seed: int,
    start: ArrayLike | None = None,
    bridge: bool | None = None,
    replica_batch: int | None = None,
    progress: Progress | None = None,
    extra: Mapping[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
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
        Horizon [time]; rounded up to whole steps where all steps take the same time. Under a scheduled learning rate,
        or with one for each replica, every replica takes the steps that it has until then: one horizon for all.
    seed : int
        Key of all noise.
    start : array_like, shape (parameter,) or (replica, parameter), optional
        Where replicas begin; the unlearned state if not given.
    bridge : bool, optional
        Count crossings between two steps by a Brownian bridge. Default: for processes that stand for continuous motion
        (Langevin), not for those that are discrete (SGD).
    replica_batch : int, optional
        Replicas that advance at once; by default so many that memory stays within three times that of all replicas'
        parameters and streams.
    progress : callable, optional
        Called as ``progress(escaped, n_replicas, time)`` between chunks.
    extra : mapping, optional
        Further scalar coordinates of the result.
    checkpoint : Checkpoint, optional
        Where the state is kept between chunks, when it is due; a run that finds its own state there goes on from it,
        to the same result bit for bit.

    Returns
    -------
    xarray.Dataset
        `exit_time` (replica) [time] and `escaped` (replica); False means censored at the horizon. A crossing seen
        at a step counts at that step without a bridge, half a step earlier with one. Hyperparameters that differ
        between replicas are coordinates along `replica`.

    Raises
    ------
    InvalidParameterError
        Horizon shorter than one step, a start inside the target, shapes that do not fit, a checkpoint of another run.
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
    if replica_batch is not None:
        replica_batch = checks.positive_int("replica_batch", replica_batch)
    bridge = process.is_diffusion if bridge is None else bridge
    watch = Watch(target, bridge=bridge)
    state = process.start(n_replicas, seed=seed, point=start)
    size = replica_batch or _batch_size(state.theta)
    batches = [range(at, min(at + size, n_replicas)) for at in range(0, n_replicas, size)]
    _check_start(process, state, target, batches)
    horizon = _Horizon.of(process, max_time, n_replicas)

    hit = torch.full((n_replicas,), -1, dtype=torch.int64)
    best = torch.full((n_replicas,), -torch.inf, dtype=torch.float64)
    coords = dict(process.describe()) | {"target_threshold": target.threshold} | dict(extra or {})
    told = {k: "one for each replica" if isinstance(v, np.ndarray) else v for k, v in coords.items()}
    told |= {"n_replicas": n_replicas, "bridge": bridge, "above": target.above}
    keeper = _Keeper.of(checkpoint, told | {"horizon": horizon.time, "seed": seed, "batch": size}, hit, best)
    for batch in batches[keeper.first_batch :]:
        part, numbers = keeper.resumed(state) or (None, torch.arange(batch.start, batch.stop))
        if part is None:
            part = select(state, numbers.to(state.theta.device))
        keep = None if checkpoint is None else partial(keeper.keep, batch.start // size)
        _run(process, part, numbers, horizon.last_step, watch, hit, best, progress, keep)
    kind = str(state.theta.dtype).removeprefix("torch."), str(state.theta.device)
    del state, part  # the results are about as large

    escaped = (hit >= 0).numpy()
    times = horizon.hit_times(hit.numpy(), bridge)
    times[~escaped] = horizon.time
    del hit, keeper
    return schema.exit_dataset(
        times,
        escaped,
        horizon=horizon.time,
        coords={k: v for k, v in coords.items() if k in schema.VARIABLES},
        seed=seed,
        dtype=kind[0],
        device=kind[1],
        configuration=told,
        extra_vars={"max_score": best.numpy()},
    )


@dataclass
class _Keeper:
    """Keeps a run's state in a checkpoint, and what the last run kept there.

    Attributes
    ----------
    checkpoint : Checkpoint or None
    run : str
        Which run it is.
    hit, best : Tensor, shape (replica,)
        What was seen of all replicas.
    held : mapping of tensors
        State of the batch to go on with; empty if none.
    first_batch, step : int
        The batch to go on with, and its step.
    """

    checkpoint: Checkpoint | None
    run: str
    hit: Tensor
    best: Tensor
    held: dict[str, Tensor]
    first_batch: int = 0
    step: int = 0

    @classmethod
    def of(cls, checkpoint: Checkpoint | None, told: Mapping[str, Any], hit: Tensor, best: Tensor) -> _Keeper:
        if checkpoint is None:
            return cls(None, "", hit, best, {})
        run = schema.canonical_json(told)
        found = checkpoints.load(checkpoint, _NAME, run)
        if found is None:
            return cls(checkpoint, run, hit, best, {})
        held, facts = found
        hit.copy_(held["hit"])
        best.copy_(held["best"])
        return cls(checkpoint, run, hit, best, held, facts["batch"], facts["step"])

    def keep(self, batch: int, state: State, numbers: Tensor) -> None:
        """Save if it is due. A batch in which nobody is left has no state worth keeping."""
        assert self.checkpoint is not None
        if not state.n_replicas or not self.checkpoint.due():
            return
        arrays = {"hit": self.hit, "best": self.best, "numbers": numbers}
        arrays |= {"theta": state.theta, "streams": state.streams}
        arrays |= {_BUFFER + name: buffer for name, buffer in state.buffers.items()}
        self.checkpoint.save(_NAME, checkpoints.pack(arrays, {"run": self.run, "batch": batch, "step": state.step}))

    def resumed(self, start: State) -> tuple[State, Tensor] | None:
        """Return the state to go on from and its replicas' numbers, once; None for a batch that begins."""
        if not self.held:
            return None
        held, self.held = self.held, {}
        moved = {name: tensor.to(start.theta.device) for name, tensor in held.items()}
        buffers = {name.removeprefix(_BUFFER): b for name, b in moved.items() if name.startswith(_BUFFER)}
        return State(moved["theta"], moved["streams"], self.step, start.seed, buffers), held["numbers"]


@dataclass(frozen=True)
class _Horizon:
    """One time at which watching ends, in the steps of every replica.

    Attributes
    ----------
    process : Process
    time : float
    last_step : Tensor of int64, shape (replica,)
    dt : float or None
        Time per step where all steps are alike.
    """

    process: Process
    time: float
    last_step: Tensor
    dt: float | None

    @classmethod
    def of(cls, process: Process, max_time: float, n_replicas: int) -> _Horizon:
        dt = common_step(process)
        if dt is None:
            steps = _steps_until(process, max_time, n_replicas)
            if not steps.min():
                raise checks.invalid("max_time", max_time, "at least one step of every replica", "nothing could move")
            return cls(process, max_time, torch.from_numpy(steps), None)
        if max_time < dt:
            raise checks.invalid("max_time", max_time, f"at least one step, {dt:g}", "nothing could move")
        n_steps = int(np.ceil(max_time / dt * (1 - 1e-12)))
        return cls(process, n_steps * dt, torch.tensor(n_steps).expand(n_replicas), dt)

    def hit_times(self, hit: NDArray[np.int64], bridge: bool) -> NDArray[np.float64]:
        """Times of hits at steps `hit`; in the middle of the step if found by a bridge."""
        if self.dt is not None:
            times = hit - 0.5 * bridge
            times *= self.dt
            return np.asarray(times)
        replicas = np.arange(len(hit))
        after = self.process.times(hit.clip(0), replicas)
        return 0.5 * (after + self.process.times((hit - 1).clip(0), replicas)) if bridge else np.array(after)


def _steps_until(process: Process, max_time: float, n_replicas: int) -> NDArray[np.int64]:
    """Steps that each replica takes until `max_time`, shape (replica,), by bisection: time only grows."""
    replicas = np.arange(n_replicas)
    latest = max_time * (1 + 1e-12)

    def over(steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.broadcast_to(process.times(steps, replicas), steps.shape) > latest

    low, high = np.zeros(n_replicas, dtype=np.int64), np.ones(n_replicas, dtype=np.int64)
    while not (far := over(high)).all():
        reached = process.times(high, replicas)
        low, high = np.where(far, low, high), np.where(far, high, 2 * high)
        if high.max() > MOST_STEPS or (process.times(high, replicas) == reached)[~far].any():
            raise checks.invalid(
                "max_time", max_time, f"a time that is reached in {MOST_STEPS:.0e} steps",
                f"after {high.max()} steps it is {np.min(reached):.6g}", "Use a schedule that does not end at 0.",
            )  # fmt: skip
    while (high - low > 1).any():
        middle = (low + high) // 2
        far = over(middle)
        low, high = np.where(far, low, middle), np.where(far, middle, high)
    return low


def _batch_size(theta: Tensor) -> int:
    numbers = _CPU_NUMBERS if theta.device.type == "cpu" else _DEVICE_NUMBERS
    return min(max(numbers // theta.shape[1], _LEAST_ROWS), _MOST_ROWS)


def _check_start(process: Process, state: State, target: Region, batches: Sequence[range]) -> None:
    inside, first = 0, float("nan")
    for batch in batches:
        m = process.order_parameters(state.theta.narrow(0, batch.start, len(batch)))
        if not 0 <= target.feature < m.shape[1]:
            rule = f"0 to {m.shape[1] - 1}"
            raise checks.invalid("target.feature", target.feature, rule, "one for each order parameter")
        values = m[:, target.feature].cpu().numpy()
        there = values[target.contains(values)]
        first = float(there[0]) if there.size and not inside else first
        inside += there.size
    if inside:
        side = "above" if target.above else "below"
        raise InvalidParameterError(
            f"{inside} of {state.n_replicas} replicas start inside the target (m {side} {target.threshold:g}, "
            f"start at m = {first:g}): the target must lie beyond "
            "the barrier.\n"
            "Use `beyond(barrier)`, or Region(..., above=False) for a learned feature that is forgotten."
        )


def _run(
    process: Process,
    state: State,
    numbers: Tensor,
    last_step: Tensor,
    watch: Watch,
    hit: Tensor,
    best: Tensor,
    progress: Progress | None,
    keep: Keep | None,
) -> None:
    """Run one batch to the horizon and write what happened at `numbers` of `hit` and `best`."""
    last = last_step[numbers]
    while state.n_replicas:
        # Chunks grow with the time passed: few host reads, little work on replicas that have left. They end where the
        # next replica's time is up: nothing that happens later is seen. Kernels take 4 steps at once, hence multiples.
        chunk = min(max(FIRST_CHUNK, state.step // 32 * 4), LAST_CHUNK, int(last.min()) - state.step)
        moved, record = process.advance(state, chunk, watch)
        _check_diverged(process, state, moved, record, numbers)
        hit[numbers] = record.hit_step.cpu()
        best[numbers] = torch.maximum(best[numbers], record.best.cpu().to(torch.float64))
        stay = torch.nonzero((record.hit_step.cpu() < 0) & (last > moved.step))[:, 0]
        if len(stay) < moved.n_replicas:
            moved = select(moved, stay.to(moved.theta.device))
            numbers, last = numbers[stay], last[stay]
        state = moved
        if progress is not None:
            progress(int((hit >= 0).sum()), len(hit), float(np.max(process.times(state.step))))
        if keep is not None:
            keep(state, numbers)


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
        which = numbers[index.cpu()]
        before_it, after_it = (process.times(np.full(len(which), s), which.numpy()) for s in (step - 1, step))
        raise _diverged(which, step, float(np.max(after_it - before_it)))


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
