"""The machinery of multilevel splitting: crowds of replicas that run until they are up or down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, TooFewEscapesError
from kramers_grok.core.region import Region
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.process import MAX_REPLICAS, OrderParameter, Process, Score, State, Watch, clone, select

__all__ = ["Crowd", "Engine", "Leg", "join", "resample"]

CHUNK = 32  # steps between two looks from the host: long enough to hide the look, short enough to stop early
LAST_CHUNK = 4096
SETTLING_STEPS = 64  # a blow-up shows within a few steps


@dataclass(frozen=True)
class Crowd:
    """Replicas that wait for their next leg.

    Attributes
    ----------
    theta, buffers :
        Parameters (replica, parameter) and what the chain remembers besides.
    phase : Tensor of int64, shape (replica,)
        Step modulo the process's period: where in its cycle a replica stands.
    repeat : Tensor of int64, shape (replica,)
        The independent repeat it belongs to.
    age : Tensor of int64, shape (replica,)
        Steps taken since its clock was last set to 0; clones inherit it.
    """

    theta: Tensor
    buffers: Mapping[str, Tensor]
    phase: Tensor
    repeat: Tensor
    age: Tensor

    def __len__(self) -> int:
        return int(self.theta.shape[0])

    def take(self, index: Tensor) -> Crowd:
        """Return the replicas `index` (numbers, with repetition, or a mask)."""
        return Crowd(
            self.theta[index],
            {name: buffer[index] for name, buffer in self.buffers.items()},
            self.phase[index],
            self.repeat[index],
            self.age[index],
        )

    def newborn(self) -> Crowd:
        """Return the same replicas with their clocks at 0."""
        return replace(self, age=torch.zeros_like(self.age))


@dataclass(frozen=True)
class Leg:
    """How a leg ended.

    Attributes
    ----------
    crowd : Crowd
        The replicas where they stopped, in the order in which they began.
    hit : Tensor of bool, shape (replica,)
        True: reached the level; False: fell to the floor.
    best : Tensor, shape (replica,)
        Highest score, that of the beginning included.
    streams : Tensor of int64, shape (replica,)
        Noise streams used, so that the leg can be repeated.
    """

    crowd: Crowd
    hit: Tensor
    best: Tensor
    streams: Tensor


def join(crowds: Sequence[Crowd]) -> Crowd:
    """Return several crowds as one."""
    return Crowd(
        torch.cat([c.theta for c in crowds]),
        {name: torch.cat([c.buffers[name] for c in crowds]) for name in crowds[0].buffers},
        torch.cat([c.phase for c in crowds]),
        torch.cat([c.repeat for c in crowds]),
        torch.cat([c.age for c in crowds]),
    )


def resample(crowd: Crowd, size: int, seed: int, number: int) -> Crowd:
    """Return `size` clones from every repeat that has members, by systematic resampling within the repeat.

    Clone j of a repeat with n members is a copy of member ⌊(u + j) n/size⌋, u uniform: each member has size/n copies
    on average, so averages over the clones are unbiased.
    """
    order = torch.argsort(crowd.repeat, stable=True)
    repeats, counts = torch.unique_consecutive(crowd.repeat[order], return_counts=True)
    first = torch.cumsum(counts, 0) - counts
    u = torch_noise.uniforms(seed, Purpose.START, repeats, number, 1)
    places = torch.arange(size, device=counts.device).unsqueeze(0) + u
    member = (places * (counts.unsqueeze(1).to(u.dtype) / size)).to(torch.int64)
    member = torch.minimum(member, counts.unsqueeze(1) - 1)
    return crowd.take(order[(first.unsqueeze(1) + member).flatten()])


class Engine:
    """Runs crowds of one process; hands out noise streams and counts the work.

    Parameters
    ----------
    process : Process
    target : Region
    score : Score or None
        The region's own order parameter if None.
    seed : int
    max_steps : int
        Longest leg; a replica that is neither up nor down by then is an error.
    """

    def __init__(self, process: Process, target: Region, score: Score | None, *, seed: int, max_steps: int) -> None:
        self.process = process
        self.target = target
        self.score = score
        self.seed = seed
        self.max_steps = max_steps
        self.replica_steps = 0
        self.next_stream = 0
        self._period = process.period

    @property
    def device(self) -> torch.device:
        """Where the process's replicas are."""
        return self.process.start(1, seed=self.seed).theta.device

    def start(self, repeats: int, each: int, point: ArrayLike | None) -> Crowd:
        """Return `each` replicas for every repeat at the starting point."""
        state = self.process.start(repeats * each, seed=self.seed, point=point)
        device = state.theta.device
        label = torch.arange(repeats, device=device).repeat_interleave(each)
        zero = torch.zeros_like(label)
        return Crowd(state.theta, state.buffers, zero, label, zero)

    def streams(self, count: int, like: Tensor) -> Tensor:
        """Return noise streams that nobody has used."""
        first, self.next_stream = self.next_stream, self.next_stream + count
        if self.next_stream > MAX_REPLICAS:
            raise InvalidParameterError(
                f"The run needs more than {MAX_REPLICAS} noise streams, expected at most that many: every clone has "
                "one of its own, a 32-bit word.\nUse fewer `n_replicas`, or several runs with different seeds."
            )
        return torch.arange(first, self.next_stream, device=like.device)

    def scores(self, theta: Tensor) -> Tensor:
        """Scores, shape (replica,); +∞ in the target under a score of one's own."""
        region = self.target
        own = OrderParameter(region.feature, region.sign).values(self.process, theta)
        if self.score is None:
            return own
        return self.score.values(self.process, theta).masked_fill(own >= region.sign * region.threshold, torch.inf)

    def run(self, crowd: Crowd, *, level: float | None, floor: float | None = None, again: Tensor | None = None) -> Leg:
        """Run every replica until its score reaches `level` (None: the target) or falls to `floor`.

        A replica that begins at the level or above is there without a step.

        Parameters
        ----------
        again : Tensor of int64, optional
            Streams of an earlier leg that is to be repeated; new ones if not given.
        """
        watch = Watch(self.target, floor=floor, score=self.score, level=level)
        streams = self.streams(len(crowd), crowd.phase) if again is None else again
        best = self.scores(crowd.theta)
        hit = best >= watch.hit_level
        end = Crowd(
            crowd.theta.clone(),
            {name: buffer.clone() for name, buffer in crowd.buffers.items()},
            crowd.phase.clone(),
            crowd.repeat,
            crowd.age.clone(),
        )
        leg = Leg(end, hit, best.clone(), streams)
        waiting = torch.nonzero(~hit)[:, 0]
        for phase in torch.unique(crowd.phase[waiting]).tolist() if len(waiting) else ():
            index = waiting[crowd.phase[waiting] == phase]
            state = State(crowd.theta, streams, phase, self.seed, crowd.buffers)
            self._run_in_phase(select(state, index), index, watch, leg)
        return leg

    def _run_in_phase(self, state: State, index: Tensor, watch: Watch, leg: Leg) -> None:
        """Run replicas that share a clock; write where and how they stopped at `index` of `leg`."""
        begin, best = state.step, leg.best[index]
        while len(index):
            n_steps = self._chunk(state.step, state.step - begin)
            if state.step - begin >= self.max_steps:
                raise self._never_ends(len(index), len(leg.hit))
            self.replica_steps += n_steps * len(index)
            moved, record = self.process.advance(state, n_steps, watch)
            self._check_finite(moved, index)
            best = torch.maximum(best, record.best)
            up, down = record.hit_step >= 0, record.fell_step >= 0
            stopped = torch.nonzero(up | down)[:, 0]
            if len(stopped):
                where = index[stopped]
                last = torch.maximum(record.hit_step, record.fell_step)[stopped]
                leg.crowd.theta[where] = moved.theta[stopped]
                for name, buffer in moved.buffers.items():
                    leg.crowd.buffers[name][where] = buffer[stopped]
                leg.crowd.phase[where] = last % self._period
                leg.crowd.age[where] += last - begin
                leg.hit[where], leg.best[where] = up[stopped], best[stopped]
                stay = torch.nonzero(~(up | down))[:, 0]
                moved, index, best = select(moved, stay), index[stay], best[stay]
            state = moved

    def _chunk(self, step: int, passed: int) -> int:
        """Steps until the next look: they grow with the time passed, when few are left."""
        chunk = min(max(CHUNK, passed // 4), LAST_CHUNK)
        # What a replica remembers (an epoch's order) is that of the chunk's end; within one cycle it is the same.
        return chunk if self._period == 1 else min(chunk, self._period - step % self._period)

    def free(self, crowd: Crowd, n_steps: int) -> tuple[Crowd, Tensor]:
        """Run for a number of steps; return the crowd and who entered the target on the way (frozen there).

        The number must be a multiple of the process's period, and all replicas in phase.
        """
        streams = self.streams(len(crowd), crowd.phase)
        state = State(crowd.theta, streams, 0, self.seed, crowd.buffers)
        self.replica_steps += n_steps * len(crowd)
        moved, record = self.process.advance(state, n_steps, Watch(self.target))
        self._check_finite(moved, torch.arange(len(crowd)))
        escaped = record.hit_step >= 0
        return replace(crowd, theta=moved.theta, buffers=moved.buffers, age=crowd.age + n_steps), escaped

    def check_escapes(self, crowd: Crowd) -> None:
        """Raise if an escape was the beginning of a blow-up: the escaped must stay finite for some more steps."""
        if not len(crowd):
            return
        streams = self.streams(len(crowd), crowd.phase)
        for phase in torch.unique(crowd.phase).tolist():
            index = torch.nonzero(crowd.phase == phase)[:, 0]
            state = clone(State(crowd.theta, streams, phase, self.seed, crowd.buffers), index, streams[index])
            later, _ = self.process.advance(state, SETTLING_STEPS)
            self._check_finite(later, index)

    def _check_finite(self, state: State, index: Tensor) -> None:
        if bool(torch.isfinite(state.theta.sum())):  # one sum tells; the rest is for the message
            return
        bad = ~torch.isfinite(state.theta).all(dim=1)
        if not bool(bad.any()):
            return
        replicas = index[bad.to(index.device)].tolist()
        raise DivergedError(
            f"{len(replicas)} of {state.n_replicas} replica(s) diverged before step {state.step} of an excursion: the "
            f"step {self.process.dt:g} is too large for the curvature that they met.\n"
            f"Use a smaller step, for instance {self.process.dt / 4:g}.",
            replicas=replicas,
            step=state.step,
        )

    def _never_ends(self, left: int, total: int) -> TooFewEscapesError:
        return TooFewEscapesError(
            f"{left} of {total} replica(s) neither returned to the well nor went on within max_steps={self.max_steps}: "
            "a leg of splitting must end, and here is another trap on the way, or no way back.\n"
            "Put the target before that trap, start in the well that is meant, or raise `max_steps`."
        )
