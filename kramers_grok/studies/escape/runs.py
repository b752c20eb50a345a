"""Runs of an escape cell: of a fixed size, or in two stages to a precision (see `precision`)."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.survival import Estimate, estimate
from kramers_grok.core.exceptions import ValidityWarning
from kramers_grok.core.schema import canonical_json
from kramers_grok.escape.checkpoint import Checkpoint, load, pack, scoped
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.escape.splitting import splitting
from kramers_grok.studies.escape.method_choice import SPLITTING
from kramers_grok.studies.escape.plan import Plan
from kramers_grok.studies.escape.precision import (
    CLONES,
    PILOT_CLONES,
    PILOT_REPEATS,
    REPEATS,
    Goal,
    pilot_replicas,
    repeats_needed,
    replicas_needed,
)
from kramers_grok.studies.escape.setup import Setup
from kramers_grok.studies.files.store import cell_seed

__all__ = ["Bench", "Measured", "Size", "decide_repeats", "decide_replicas", "measure"]

BURN_IN = 5.0  # relaxation times in which a replica placed at the minimum fills the well
FEWEST_ESCAPES = 10  # in a pilot, for an opinion on what a replica is worth


@dataclass(frozen=True)
class Measured:
    """A run and what it took.

    Attributes
    ----------
    run : Dataset
        From `first_passage` or `splitting`.
    burn_in : float
        Time before which escape need not be exponential [time].
    replica_steps, pilot_steps : float
        Steps of all replicas in all, and in pilots.
    pilot_replicas : int
        Replicas of the first of two stages (clones at a level, for splitting), 0 without one.
    notes : tuple of str
    """

    run: xr.Dataset
    burn_in: float
    replica_steps: float
    pilot_steps: float
    pilot_replicas: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """What a first stage decided for the second: replicas, or clones in so many repeats at given borders."""

    replicas: int
    repeats: int = REPEATS
    levels: list[float] | None = None
    loops: int | None = None
    pilot_steps: float = 0.0
    pilot_replicas: int = 0
    notes: tuple[str, ...] | list[str] = ()


def measure(setup: Setup, plan: Plan, run: Mapping[str, Any], *, seed: int, checkpoint: Checkpoint | None) -> Measured:
    """Run a cell as planned.

    Parameters
    ----------
    setup : Setup
    plan : Plan
        The method and the horizon.
    run : mapping
        ``replicas``, or ``precision`` with ``max_replicas``; ``confidence``.
    seed : int
    checkpoint : Checkpoint, optional

    Raises
    ------
    DivergedError, TooFewEscapesError
        As in `first_passage` and `splitting`.
    """
    bench = Bench(setup, plan, float(run["confidence"]), checkpoint)
    if run.get("precision") is None:
        size = Size(int(run["replicas"]))
    else:
        goal = Goal(float(run["precision"]), bench.confidence, int(run["max_replicas"]))
        size = _decided(bench, goal, seed)
    ds = bench.run(size, seed, "run")
    steps = bench.steps(ds) + size.pilot_steps
    own_pilot = float(ds.get("pilot_steps", 0.0))  # that places splitting's borders
    notes = (*size.notes, *bench.doubts(ds))
    return Measured(ds, bench.burn_in(ds), steps, size.pilot_steps + own_pilot, size.pilot_replicas, notes)


def _decided(bench: Bench, goal: Goal, seed: int) -> Size:
    """Size of the stage that is reported, from a pilot with noise of its own; decided once, killed or not."""
    name = canonical_json({"cell": bench.setup.config, "seed": str(seed)})
    found = load(bench.checkpoint, "plan", name)
    if found is not None:
        return Size(**found[1]["size"])
    decide = decide_repeats if bench.splits else decide_replicas
    size = decide(bench, goal, cell_seed(seed, "pilot"))
    if bench.checkpoint is not None and size.pilot_replicas:
        bench.checkpoint.save("plan", pack({}, {"run": name, "size": asdict(size)}))
    return size


@dataclass(frozen=True)
class Bench:
    """Where a cell's runs are made."""

    setup: Setup
    plan: Plan
    confidence: float
    checkpoint: Checkpoint | None

    @property
    def splits(self) -> bool:
        """Whether repeats of splitting are made, not replicas of brute force."""
        return self.plan.method == SPLITTING

    def run(self, size: Size, seed: int, part: str) -> xr.Dataset:
        """One run of a size, with its own part of the checkpoint."""
        process, target, keep = self.setup.process(), self.setup.target, scoped(self.checkpoint, part)
        if self.splits:
            return splitting(
                process, target=target, n_replicas=size.replicas, n_repeats=size.repeats, levels=size.levels,
                loops=size.loops, confidence=self.confidence, seed=seed, checkpoint=keep,
            )  # fmt: skip
        return first_passage(
            process, target=target, n_replicas=size.replicas, max_time=self.plan.horizon, seed=seed,
            bridge=self.setup.bridged, checkpoint=keep,
        )  # fmt: skip

    def steps(self, ds: xr.Dataset) -> float:
        """Steps of all replicas."""
        return float(ds.replica_steps if self.splits else np.rint(ds.exit_time.values.sum() / self.setup.step))

    def burn_in(self, ds: xr.Dataset) -> float:
        """Time in which the well is filled [time]; 0 where it does not matter or nearly nothing would be left."""
        lag = 0.0 if self.splits else BURN_IN * self.setup.relaxation_time
        return lag if self.splits or lag < 0.5 * float(ds.horizon) else 0.0

    def doubts(self, ds: xr.Dataset) -> tuple[str, ...]:
        """What stands against the estimate of a run that ends before the well is filled."""
        if self.splits or bool(ds.escaped.all()) or self.burn_in(ds):
            return ()
        relaxed = float(ds.horizon) / self.setup.relaxation_time
        return (
            f"replicas are censored after {relaxed:.3g} relaxation times 1/λ, before they have filled the well "
            f"({BURN_IN:g} of them): the mean exit time leans on an exponential law that does not hold yet. Use a "
            "longer horizon",
        )

    def estimated(self, ds: xr.Dataset) -> Estimate:
        """The mean exit time, whatever the number of escapes."""
        return estimate(ds, self.confidence, burn_in=self.burn_in(ds), min_escapes=1)


def decide_replicas(bench: Bench, goal: Goal, seed: int) -> Size:
    """Return how many replicas brute force takes, from a pilot."""
    first = pilot_replicas(goal)
    if not first:
        return Size(goal.most, notes=(_capped(goal, goal.replicas(math.inf)),))
    ds = bench.run(Size(first), seed, "pilot")
    found = bench.estimated(ds)
    left = Size(goal.most - first, pilot_steps=bench.steps(ds), pilot_replicas=first)
    if found.n_escaped < FEWEST_ESCAPES:
        note = f"{found.n_escaped} of {first} pilot replicas escaped: the cap max_replicas = {goal.most} decides"
        return replace(left, notes=(note,))
    variance = found.n * (found.standard_error / found.value) ** 2
    share = found.n_escaped / found.n
    needed = replicas_needed(goal, relative_variance=variance, pilot_escapes=found.n_escaped, share=share)
    if needed > left.replicas:
        return replace(left, notes=(_capped(goal, needed),))
    return replace(left, replicas=needed)


def decide_repeats(bench: Bench, goal: Goal, seed: int) -> Size:
    """Return how many repeats splitting takes, from a pilot whose borders they share."""
    most = REPEATS * goal.most  # clones at a level, all repeats together
    first = PILOT_REPEATS * PILOT_CLONES
    if first + PILOT_REPEATS * CLONES > most:
        return Size(goal.most, notes=(f"max_replicas = {goal.most} leaves no room for a pilot",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)  # a rough error is all that is asked of a pilot
        ds = bench.run(Size(PILOT_CLONES, PILOT_REPEATS), seed, "pilot")
    variance = first * (float(ds.standard_error) / float(ds.mean_exit_time)) ** 2
    needed, left = repeats_needed(goal, relative_variance=variance), (most - first) // CLONES
    return Size(
        CLONES,
        min(needed, left),
        levels=[float(ds.well_score), float(ds.entry_score), *map(float, ds.level.values[:-1])],
        loops=_loops(ds),
        pilot_steps=bench.steps(ds),
        pilot_replicas=first,
        notes=() if needed <= left else (_capped(goal, needed * CLONES / REPEATS),),
    )


def _loops(ds: xr.Dataset) -> int:
    """Loops that the pilot found long enough."""
    return int(json.loads(ds.attrs["configuration"])["loops"])


def _capped(goal: Goal, needed: float) -> str:
    return (
        f"a precision of {goal.precision:.3g} takes about {needed:.3g} replicas, more than max_replicas = {goal.most} "
        "allows"
    )
