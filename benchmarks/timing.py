"""Right first, then fast: interleaved rounds of calls that were checked before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Say = Callable[[str], None]

LARGEST = 5.0  # standard errors that a contestant may be off

DOUBLE, SINGLE = "double", "single"  # precision in which normal numbers are made; the state is always double


class WrongContestant(Exception):
    """A contestant does not compute what the others do: its speed means nothing."""


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes
    ----------
    seconds : float
        Length of one call.
    rounds : int
    sizes, training_sizes : tuple of int
        Replicas.
    n_check : int
        Replicas of a check.
    quick : bool
        A smoke test: numbers without meaning.
    """

    seconds: float = 0.15
    rounds: int = 9
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    training_sizes: tuple[int, ...] = (32, 256, 2_048)
    n_check: int = 1_000
    quick: bool = False


QUICK = Plan(seconds=0.005, rounds=2, sizes=(64,), training_sizes=(16,), n_check=200, quick=True)


@dataclass(frozen=True)
class Racer:
    """One contestant of one race.

    Attributes
    ----------
    name : str
    call : callable
        Does an amount of work: steps, or runs.
    ours : bool
    noise : str
        Precision of the normal numbers.
    scale : float
        Units of the table per unit of work: replicas, where work is steps and the table counts replica-steps.
    fixed : int, optional
        Amount of work, where it is not chosen to fill the time of a call.
    least : int
        Smallest amount of work in a call.
    note : str
        What a reader must know of this number, as how it was extrapolated.
    """

    name: str
    call: Callable[[int], object]
    ours: bool = False
    noise: str = DOUBLE
    scale: float = 1.0
    fixed: int | None = None
    least: int = 1
    note: str = ""


@dataclass(frozen=True)
class Check:
    """What a contestant computed, and what it should have."""

    contestant: str
    what: str
    value: float
    expected: float
    standard_error: float

    @property
    def z(self) -> float:
        """Standard errors between the two."""
        return (self.value - self.expected) / self.standard_error

    def enforce(self, where: str) -> None:
        """Raise `WrongContestant` if they differ by too much."""
        if not abs(self.z) < LARGEST:
            raise WrongContestant(
                f"{self.contestant} is wrong in {where}: {self.what} {self.value:.6g}, expected {self.expected:.6g} ± "
                f"{self.standard_error:.2g}. Its speed means nothing."
            )

    def as_record(self) -> dict[str, Any]:
        """Plain numbers for the result file."""
        return {
            "contestant": self.contestant, "what": self.what, "value": self.value, "expected": self.expected,
            "standard_error": self.standard_error, "z": self.z,
        }  # fmt: skip


@dataclass
class Part:
    """Everything measured in one part.

    Attributes
    ----------
    name, title : str
    unit : str
        What is counted per second ("replica-step"), or "s" where whole runs are timed.
    checks, groups, left_out : list
    """

    name: str
    title: str
    unit: str
    checks: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def check(self, check: Check, say: Say) -> None:
        """Note a check; raise if it fails."""
        say(f"  {check.contestant}: {check.what} {check.z:+.2f} standard errors off")
        check.enforce(self.title)
        self.checks.append(check.as_record())

    def leave_out(self, name: str, why: str, say: Say) -> None:
        """Note who does not take part."""
        say(f"  {name}: left out, {why}")
        self.left_out.append({"name": name, "why": why})

    def race(self, label: str, racers: Sequence[Racer], plan: Plan, say: Say, **facts: Any) -> dict[str, Any]:
        """Time a group; the first of `racers` is the reference of its ratios."""
        group = race(label, racers, plan, say) | facts
        self.groups.append(group)
        return group

    def as_record(self) -> dict[str, Any]:
        """Return what goes into the result file."""
        return {
            "title": self.title, "unit": self.unit, "checks": self.checks, "groups": self.groups,
            "left_out": self.left_out,
        }  # fmt: skip


def race(label: str, racers: Sequence[Racer], plan: Plan, say: Say) -> dict[str, Any]:
    """Calibrate each call, run all of them in interleaved rounds, and return the seconds per unit of work."""
    amounts = [amount_for(racer, plan.seconds) for racer in racers]
    wall, used = interleaved([(lambda r=r, n=n: r.call(n)) for r, n in zip(racers, amounts, strict=True)], plan.rounds)
    units = np.array([racer.scale * n for racer, n in zip(racers, amounts, strict=True)])
    seconds, cpu = wall / units[:, None], used / wall
    rows = [
        {
            "name": racer.name, "ours": racer.ours, "noise": racer.noise, "note": racer.note, "amount": n,
            "seconds": [float(f"{s:.5g}") for s in row], "cores_used": round(float(np.median(busy)), 2),
            **summary(row, seconds[0]),
        }
        for racer, n, row, busy in zip(racers, amounts, seconds, cpu, strict=True)
    ]  # fmt: skip
    for row in rows:
        say(f"  {label}: {row['name']:42s} {row['median']:.3g} s per unit, × {row['ratio']:.3g}")
    return {"label": label, "contestants": rows}


def summary(seconds: Array, reference: Array) -> Mapping[str, float]:
    """Median and smallest seconds per unit; the time relative to the reference's, paired round by round."""
    return {
        "median": float(f"{np.median(seconds):.5g}"),
        "best": float(f"{seconds.min():.5g}"),
        "ratio": float(f"{np.median(seconds / reference):.5g}"),
        "ratio_of_best": float(f"{seconds.min() / reference.min():.5g}"),
    }


def interleaved(calls: Sequence[Callable[[], object]], rounds: int) -> tuple[Array, Array]:
    """Return wall and processor seconds of each call in each round, shape (call, round).

    Interleaved, so that a change of the clock or of a neighbour's load meets all alike. All were called before.
    """
    wall, used = np.empty((len(calls), rounds)), np.empty((len(calls), rounds))
    for number in range(rounds):
        for row, call in enumerate(calls):
            began, busy = time.perf_counter(), time.process_time()
            call()
            wall[row, number] = time.perf_counter() - began
            used[row, number] = time.process_time() - busy
    return wall, used


def amount_for(racer: Racer, seconds: float) -> int:
    """Amount of work that takes about so many seconds; the first call may compile, and is not timed."""
    if racer.fixed is not None:
        racer.call(min(racer.fixed, racer.least))
        return racer.fixed
    amount = racer.least
    racer.call(amount)
    while True:
        began = time.perf_counter()
        racer.call(amount)
        took = time.perf_counter() - began
        if took > seconds / 4 or amount > 10**8:
            return max(round(amount * seconds / max(took, 1e-9)), racer.least)
        amount = max(amount + 1, int(amount * min(seconds / 3 / max(took, 1e-9), 8.0)))
