"""What a study will take, before it runs: time and memory of each cell, from predicted escapes and measured speeds.

Estimates are meant within a factor of about three. What a directory's journal says of finished cells corrects them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from kramers_grok.core import checks
from kramers_grok.studies.escape.method_choice import (
    AUTO,
    BRUTE_FORCE,
    MOST_STEPS,
    SPLITTING,
    SPLITTING_COST,
    UNPREDICTED,
    WORTH_IT,
    cost_ratio,
)
from kramers_grok.studies.escape.outlook import n_parameters, outlook
from kramers_grok.studies.files.store import content_hash
from kramers_grok.studies.running.cells import Cell

__all__ = ["Estimate", "Expected", "cell_key", "estimate", "seconds_of"]

Array = NDArray[np.float64]

# ---------------------------------------------------------------- speeds measured on one core (benchmarks/results.json,
# and for what stands there as a network of 8-16-16-8 only, runs of a second with one thread on the same machine)

# Seconds for one step of one replica, by what moves: a constant and so much for each parameter that moves
_SPEED = {
    ("langevin", "mode"): (5e-9, 0.0),
    ("langevin", "chain"): (0.0, 4e-9),
    ("langevin", "network"): (0.0, 6e-9),
    ("sgd", "mode"): (3e-8, 0.0),
    ("sgd", "chain"): (0.0, 1.2e-8),
    ("sgd", "network"): (0.0, 7e-9),
}
_TORCHSDE = (0.0, 3e-8)
_TORCHSDE_STEP = 1.7e-4  # and so much for every step of the whole batch
_SPLITTING = 3e-8  # more for a step of splitting, whose batches are small
# Seconds that a cell takes however few its replicas: predictions above all; the solved systems take more
_FIXED = {
    ("theory", True): 0.2, ("langevin", True): 0.8, ("sgd", True): 1.2,
    ("theory", False): 0.07, ("langevin", False): 0.15, ("sgd", False): 0.15,
}  # fmt: skip
_FILE = 0.05  # seconds for a cell's file, whatever it holds
_START = 5.0  # seconds that a worker takes to import torch
_WORKER_MEMORY = 0.6e9  # bytes, before a cell's own
_RECORD = 3 * 8  # bytes of a replica's result, besides three times its parameters while it runs

# Splitting with n clones in each of 16 repeats takes 16 n (20 + 2x)/(λh) steps: evidence of modes, chains and networks
_REPEATS = 16
_LEVELS = (20.0, 2.0)
_PILOT = 1.4  # a precision is reached with this many times the replicas that would just do


class Expected(NamedTuple):
    """What is expected of one cell.

    Attributes
    ----------
    status : str
        "", or what stands in the way: "no barrier", "diverged", "not predicted".
    method : str
        "exact" or "asymptotic" for theory, "brute force", "splitting", or "none".
    barrier_over_temperature, mean_exit_time : float
        ΔF/T and the predicted mean [time], NaN where there is none.
    replicas, replica_steps : float
        Replicas (of splitting: clones at each level of a repeat), and steps of all of them.
    seconds, memory : float
        On one core [s], and of the worker that computes it [bytes].
    """

    status: str
    method: str
    barrier_over_temperature: float
    mean_exit_time: float
    replicas: float
    replica_steps: float
    seconds: float
    memory: float


@dataclass(frozen=True)
class Estimate:
    """What a study will take.

    Attributes
    ----------
    cells : sequence of Cell
        All of its cells.
    expected : tuple of Expected
        One for each cell.
    finished : tuple of bool
        Whether the cell is finished already.
    workers : int
        Processes that compute at a time, each on one core.
    corrections : mapping of str to float
        Measured over expected seconds, by engine and system, where finished cells tell.
    """

    cells: Sequence[Cell]
    expected: tuple[Expected, ...]
    finished: tuple[bool, ...]
    workers: int
    corrections: Mapping[str, float]

    @property
    def remaining(self) -> list[Expected]:
        """Expectations of the cells that are not finished."""
        return [e for e, done in zip(self.expected, self.finished, strict=True) if not done]

    @property
    def work(self) -> float:
        """Seconds of all remaining cells together, on one core."""
        return float(sum(e.seconds for e in self.remaining))

    @property
    def seconds(self) -> float:
        """Seconds until all remaining cells are done: no sooner than the longest of them."""
        left = [e.seconds for e in self.remaining]
        return max(sum(left) / self.workers, *left) + _START if left else 0.0

    @property
    def memory(self) -> float:
        """Bytes that all workers need at once, if the largest cells meet."""
        largest = sorted((e.memory for e in self.remaining), reverse=True)
        return float(sum(largest[: self.workers]))

    def as_mapping(self) -> dict[str, Any]:
        """The estimate as JSON knows it, without the cells."""
        counts = {status: 0 for status in ("no barrier", "diverged", "not predicted")}
        for e in self.expected:
            if e.status:
                counts[e.status] += 1
        return {
            "cells": len(self.cells),
            "finished": sum(self.finished),
            "workers": self.workers,
            "seconds": self.seconds,
            "work_seconds": self.work,
            "memory_bytes": self.memory,
            "expected": counts,
            "corrections": dict(self.corrections),
        }

    def text(self) -> str:
        """The estimate in words.

        Examples
        --------
        >>> print(estimate([], workers=2).text())
        0 cells: nothing to compute.
        """
        left = len(self.remaining)
        done = f", {sum(self.finished):,} of them finished" if any(self.finished) else ""
        if not left:
            return f"{len(self.cells):,} cells{done}: nothing to compute."
        crowd = f"{self.workers} workers" if self.workers > 1 else "1 worker"
        lines = [
            f"{len(self.cells):,} cells{done}; about {duration(self.seconds)} with {crowd} "
            f"({duration(self.work)} of work) and {size(self.memory)} of memory.",
            "These are estimates, good to a factor of about 3: escapes as predicted, speeds measured on another machine"
            + (", corrected by the cells that are finished." if self.corrections else ".")
            + " Compiling kernels for the first time comes on top.",
        ]
        longest = max(self.remaining, key=lambda e: e.seconds)
        if longest.seconds > 60:
            lines.append(f"The longest cell takes about {duration(longest.seconds)}.")
        for status, meaning in _MEANING.items():
            count = sum(e.status == status for e in self.expected)
            if count:
                lines.append(f"{count:,} cell{'s' if count > 1 else ''}: {meaning}")
        return "\n".join(lines)


_MEANING = {
    "no barrier": "no barrier at these parameters, nothing is trapped; they will say so at once.",
    "diverged": "the step times the weight decay is 2 or more, which diverges; they will say so at once.",
    "not predicted": "no temperature, so no escape is predicted; they run to their horizon.",
}


def duration(seconds: float) -> str:
    """Return a duration as a reader says it.

    Examples
    --------
    >>> duration(5.2), duration(600), duration(8000), duration(1e7)
    ('5 s', '10 min', '2.2 h', '120 days')
    """
    for unit, length, below in (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172800.0)):
        if seconds < below:
            amount = seconds / length
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "s" else f"{amount:.2g} {unit}"
    days = seconds / 86400
    return f"{float(f'{days:.2g}'):,.0f} days" if days < 1e6 else f"{days:.1g} days"


def size(amount: float) -> str:
    """Return an amount of memory as a reader says it.

    Examples
    --------
    >>> size(6e8), size(1.21e9)
    ('600 MB', '1.2 GB')
    """
    if amount < 1e9:
        return f"{amount / 1e6:.0f} MB"
    return f"{amount / 1e9:.2g} GB" if amount < 1e11 else f"{amount / 1e9:,.0f} GB"


def cell_key(cell: Cell) -> str:
    """Name of a cell's file without its ending, as the journal has it."""
    return f"{cell.name}-{content_hash({'name': cell.name, 'config': cell.config})}"


def estimate(cells: Sequence[Cell], *, workers: int = 1, measured: Mapping[str, float] | None = None) -> Estimate:
    """Estimate what cells of escapes take.

    Parameters
    ----------
    cells : sequence of Cell
        Of an `EscapeStudy`.
    workers : int
        Processes that compute at a time.
    measured : mapping of str to float, optional
        Seconds of the finished cells, by `cell_key`, as a journal has them. Their cells count as done, and correct
        the others' expected times, engine by engine and system by system.

    Examples
    --------
    >>> from kramers_grok.studies.escape.study import EscapeStudy
    >>> study = EscapeStudy(
    ...     system={"weight_decay": [0.25, 0.6]}, noise={"barrier_over_temperature": 5}, engines=["langevin"]
    ... )
    >>> found = estimate(study.cells())
    >>> [e.status for e in found.expected], found.expected[0].method
    (['', 'no barrier'], 'brute force')
    """
    crowd = checks.positive_int("workers", workers)
    expected = _expected([cell.config for cell in cells])
    times = dict(measured or {})
    taken = [times.get(cell_key(cell)) if times else None for cell in cells]
    corrections = _corrections(cells, expected, taken)
    corrected = tuple(
        e._replace(seconds=e.seconds * corrections.get(_group(cell), 1.0))
        for cell, e in zip(cells, expected, strict=True)
    )
    return Estimate(cells, corrected, tuple(t is not None for t in taken), crowd, corrections)


def seconds_of(configs: Sequence[Mapping[str, Any]]) -> list[float]:
    """Expected seconds of each configuration on one core, for the order in which cells run."""
    return [e.seconds for e in _expected(configs)]


def _group(cell: Cell) -> str:
    """Cells whose expected times are wrong by the same factor, if they are."""
    return f"{cell.name}, {cell.config['system']['kind']}"


def _corrections(
    cells: Sequence[Cell], expected: Sequence[Expected], taken: Sequence[float | None]
) -> dict[str, float]:
    """Measured over expected seconds of each group: the ratio of sums, which the long cells decide."""
    sums: dict[str, list[float]] = {}
    for cell, e, seconds in zip(cells, expected, taken, strict=True):
        if seconds is not None and seconds > 0 and not e.status:
            total = sums.setdefault(_group(cell), [0.0, 0.0])
            total[0] += seconds
            total[1] += e.seconds
    return {group: had / hoped for group, (had, hoped) in sums.items() if hoped > 0 and math.isfinite(had)}


# ---------------------------------------------------------------- one cell


def _expected(configs: Sequence[Mapping[str, Any]]) -> list[Expected]:
    """What is expected of every cell."""
    if not configs:
        return []
    ahead = outlook(configs)
    rows = zip(configs, ahead.status, ahead.barrier_over_temperature, ahead.mean, strict=True)
    return [_one(config, status, float(ratio), float(mean)) for config, status, ratio, mean in rows]


def _one(config: Mapping[str, Any], status: str, ratio: float, mean: float) -> Expected:
    """Cost of one cell."""
    engine, system = config["engine"], config["system"]
    fixed = _FIXED[engine, _is_solved(system)]
    if status in ("no barrier", "diverged"):
        return Expected(status, "none", ratio, mean, 0, 0, _FILE, _WORKER_MEMORY)
    if engine == "theory":
        return Expected(
            status, "exact" if _is_solved(system) else "asymptotic", ratio, mean, 0, 0, fixed, _WORKER_MEMORY
        )
    method, replicas, steps, loop = _work(config, ratio, mean)
    constant, each = _speed(config)
    one = constant + each * n_parameters(system) + (_SPLITTING if method == SPLITTING else 0.0)
    seconds = fixed + one * steps + loop * (_TORCHSDE_STEP if _is_torchsde(config) else 0.0)
    crowd = replicas * (_REPEATS if method == SPLITTING else 1)
    memory = _WORKER_MEMORY + crowd * (_RECORD + 3 * 8 * n_parameters(system))
    return Expected(status, method, ratio, mean, replicas, steps, seconds, memory)


def _is_solved(system: Mapping[str, Any]) -> bool:
    """Whether the exact exit time is computed."""
    return bool(system["kind"] == "mode" or (system["kind"] == "chain" and system["depth"] == 3))


def _is_torchsde(config: Mapping[str, Any]) -> bool:
    return bool(config.get("langevin", {}).get("integrator") == "torchsde")


def _speed(config: Mapping[str, Any]) -> tuple[float, float]:
    return _TORCHSDE if _is_torchsde(config) else _SPEED[config["engine"], config["system"]["kind"]]


def _work(config: Mapping[str, Any], ratio: float, mean: float) -> tuple[str, float, float, float]:
    """Method, replicas, steps of all of them and steps of the longest of them."""
    run, decay = config["run"], config["system"]["weight_decay"]
    step = config["sgd"]["lr"] if config["engine"] == "sgd" else config["langevin"]["dt"]
    relax = 1 / (decay * step)  # steps
    method = run["method"]
    if method == AUTO:
        worth = math.isfinite(ratio) and math.isfinite(mean) and cost_ratio(ratio, mean, decay) > WORTH_IT
        method = SPLITTING if worth else BRUTE_FORCE
    if method == SPLITTING:
        x = ratio if math.isfinite(ratio) else 0.0
        loop = _LEVELS[0] + _LEVELS[1] * x
        enough = SPLITTING_COST * x**2 / (loop * _REPEATS)  # clones for a relative error of 1
        replicas = _replicas(run, enough)
        steps = _REPEATS * replicas * loop * relax
        return method, replicas, steps, steps / (_REPEATS * replicas)
    typical = mean / step if math.isfinite(mean) else UNPREDICTED * relax
    horizon = min(run["horizon"] * typical, MOST_STEPS)
    replicas = _replicas(run, 1.0)
    if not math.isfinite(mean):
        return method, replicas, replicas * horizon, horizon
    lifetime = typical * -math.expm1(-horizon / typical) if typical else 0.0
    return method, replicas, replicas * max(lifetime, relax), min(horizon, typical * math.log(2 * replicas))


def _replicas(run: Mapping[str, Any], enough: float) -> float:
    """Number of replicas, or what the precision needs if `enough` of them give a relative error of 1."""
    if run["precision"] is None:
        return float(run["replicas"])
    quantile = float(ndtri(0.5 + run["confidence"] / 2))
    return float(min(max(_PILOT * enough * (quantile / run["precision"]) ** 2, 64.0), run["max_replicas"]))
