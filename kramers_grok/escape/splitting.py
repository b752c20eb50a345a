r"""Multilevel splitting: mean escape times far beyond what can be waited for, from excursions out of the well.

**Exact decomposition.** A score s grows on the way to the target B. Let A be the states with s ≤ z_A and Σ those with
s ≥ z_0 > z_A, so that B lies in Σ. A path from the start is cut at its *entries*, the first step in Σ and the first
step in Σ after each later visit of A. From entry k on, loop k lasts until the next entry, or until the path escapes: an
excursion that reaches B before A, which an entry in B does at once. Entries form a Markov chain with sub-stochastic
kernel Q(e, de′) = P_e(A before B, next entry in de′). With c(e) the mean duration of a loop that begins at e and p(e)
the probability that it escapes, the Markov property at entry M gives

.. math:: E[T] = E[\min(T, t_M)] + P(T \ge t_M)\,E_{\nu_M}[T'],

:math:`t_M` the time of entry M and :math:`\nu_M` the law of that entry. By :math:`\nu_M` the entries have forgotten the
start: it is the quasi-stationary law q of Q, qQ = (1 − p_q) q, and then the number of loops is geometric,

.. math:: E_q[T'] = c_q/p_q = (1/p_q - 1)\,E_q[\text{loop}\mid\text{return}] + E_q[\text{excursion}\mid\text{escape}].

Whatever z_A and z_0, whatever the chain's jumps and its step, the only approximation is :math:`\nu_M = q`, wrong by
what is exponentially small in the number of loops. At low barriers the first term holds most of the time, and it is
measured directly.

**Run.** In each of n independent repeats some replicas make M loops: this measures the first term, the survival S and
c_q (over the loops after the burn-in) without any splitting, and collects the entries after the burn-in. p_q, too small
to be seen directly, is a product over levels z_0 < z_1 < … < B: `n_replicas` clones of the states below start with
noise of their own and run until the next level or A; those that arrive are cloned for the next level. Levels, z_A and
z_0 come from a pilot with other noise and are fixed before the run: with fixed levels the product of the shares is an
unbiased estimate of p for the entries it started from, jumps over several levels included.

**What bias remains.** (i) :math:`\nu_M \ne q`: take more `loops`. (ii) Entries are a finite sample of q: no bias in
the averages of c and p, since T divides averages over all repeats (weighted by their entries), a repeat that died out
counting as p = 0. (iii) The ratio of averages is biased by about its squared relative error, +1 % at 10 %, far
inside the interval. c and p of one repeat share their entries; the delta method sees the covariance. (iv) p has a
skewed law, more so the fewer the clones: of 95 % intervals from 16 repeats, 94.8 % hold the mean where p scatters by
20 % between repeats, 93.8 % at 45 %, 92.8 % at 70 %; those that miss are mostly too long. (v) A route to the target
that is rare at low levels and common at high ones shows up as repeats that differ by more than their replicas explain;
the mean is then carried by few repeats, and a warning says so.

Cérou & Guyader, Stoch. Anal. Appl. 25, 417 (2007); Garvels, Van Ommeren & Kroese, Eur. Trans. Telecommun. 13, 363
(2002) (fixed effort); Allen, Valeriani & ten Wolde, J. Phys.: Condens. Matter 21, 463102 (2009); Collet, Martínez &
San Martín, Quasi-Stationary Distributions (2013).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks, schema
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.region import Region
from kramers_grok.dynamics.process import Process, Score
from kramers_grok.escape.checkpoint import Checkpoint
from kramers_grok.escape.splitting_engine import Crowd, Engine, join, resample
from kramers_grok.escape.splitting_estimate import Repeats, combine
from kramers_grok.escape.splitting_pilot import Borders, borders_from, place_borders
from kramers_grok.escape.splitting_result import Climb, died_out, splitting_dataset, with_estimate
from kramers_grok.escape.splitting_state import Keeper

__all__ = ["splitting"]

Array = NDArray[np.float64]
Progress = Callable[[int, int, float], None]

FEWEST_REPEATS = 8  # Student's t needs some, and so does the mean of a skewed p
FEWEST_PILOTS = 512
WELL, CLIMB = "well", "climb"  # stages of a kept run, after the pilot's
LARGE_ERROR = 0.25  # relative; beyond it p is so skewed that intervals are clearly too short


def splitting(
    process: Process,
    *,
    target: Region,
    seed: int,
    n_replicas: int = 1024,
    n_repeats: int = 16,
    start: ArrayLike | None = None,
    score: Score | None = None,
    success: float = 0.25,
    levels: ArrayLike | None = None,
    loops: int | None = None,
    confidence: float = 0.95,
    max_steps: int = 10_000_000,
    progress: Progress | None = None,
    extra: Mapping[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
) -> xr.Dataset:
    """Estimate the mean exit time of a process from a metastable well by multilevel splitting.

    The chain is watched at its steps only: compare with exit times for ``monitored=True`` and the process's own step.
    See the module's text for the estimator and what biases it.

    Parameters
    ----------
    process : Process
        Langevin, SGD or any chain that keeps the contract and whose law repeats after `process.period` steps.
    target : Region
        Where a replica counts as escaped.
    seed : int
        Key of all noise.
    n_replicas : int
        Clones at every level, for each repeat.
    n_repeats : int
        Independent repeats, 8 or more; error bars come from their scatter.
    start : array_like, shape (parameter,), optional
        Where replicas begin; the unlearned state if not given.
    score : Score, optional
        What grows on the way to the target; the target's own order parameter if not given. It decides the cost, not
        the result, unless it leads astray at finite numbers of replicas: from a network's state with learned features
        use `ResidualFeature`.
    success : float
        Share of the excursions that the pilot lets through from level to level.
    levels : array_like, optional
        Scores z_A < z_0 < z_1 < … to be used instead of a pilot's; the target is the last level by itself.
    loops : int, optional
        Loops M of each replica in the well; their first half is burn-in. By default twice what the pilot needed to
        settle; 8 with given levels.
    confidence : float
        Of the interval.
    max_steps : int
        Longest leg, in steps, before the run gives up.
    progress : callable, optional
        Called as ``progress(level, n_levels, probability)`` after each level.
    extra : mapping, optional
        Further scalar coordinates of the result.
    checkpoint : Checkpoint, optional
        Where the state is kept between loops and levels, when it is due; a run that finds its own state there goes on
        from it, to the same result bit for bit.

    Returns
    -------
    xarray.Dataset
        Scalars `mean_exit_time`, `lower`, `upper`, `standard_error` [time] and `replica_steps` (the whole cost, pilot
        included); along `repeat` the `probability`, `loop_time`, `direct_time`, `direct_survival`, `n_entries`,
        `repeat_exit_time` and `reactive_time` (mean duration of the last passage from entry to target); and
        `level_probability` (repeat, level).

    Raises
    ------
    InvalidParameterError
        A start in the target, a target or score that does not tell the well's states apart, a start without a
        well, fewer than 8 repeats, levels that do not increase, a checkpoint of another run.
    TooFewEscapesError
        If no replica of any repeat reaches a level, with the partial data set as `result`; or if a leg does
        not end.
    DivergedError
        If replicas leave the finite numbers.

    Warns
    -----
    ValidityWarning
        If the relative error exceeds 0.25: the interval leans on few repeats and is too short.

    Examples
    --------
    >>> from kramers_grok.dynamics.langevin import Langevin
    >>> from kramers_grok.theory.deep_linear import Mode
    >>> from kramers_grok.theory.exit_times import exit_time
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> T = mode.barrier().height / 12
    >>> result = splitting(Langevin(mode, temperature=T, dt=0.1), target=Region(0.2), n_replicas=128, seed=0)
    >>> exact = exit_time(mode, temperature=T, target=Region(0.2), step=0.1, monitored=True).mean
    >>> bool(result.lower < exact < result.upper)
    True
    """
    n_replicas = checks.positive_int("n_replicas", n_replicas, minimum=2)
    n_repeats = checks.positive_int(
        "n_repeats", n_repeats, FEWEST_REPEATS, "the error bar is their scatter", f"Use {FEWEST_REPEATS} or more."
    )
    success = checks.fraction("success", success, "it is the share that passes a level")
    confidence = checks.fraction("confidence", confidence)
    max_steps = checks.positive_int("max_steps", max_steps)
    loops = None if loops is None else checks.positive_int("loops", loops, 2, "half of them is burn-in")
    engine = Engine(process, target, score, seed=checks.seed(seed), max_steps=max_steps)
    top = _check_start(engine, start)
    asked = {
        **process.describe(), "bridge": False,
        "n_replicas": n_replicas, "n_repeats": n_repeats, "success": success,
        "score": score if score is None or is_dataclass(score) else type(score).__name__,
        "confidence": confidence, "above": target.above, "feature": target.feature,
    }  # fmt: skip
    told = asked | {"seed": seed, "target": target.threshold, "levels": levels, "loops": loops}
    keeper = Keeper(checkpoint, engine, schema.canonical_json(told) if checkpoint is not None else "")
    if (reached := keeper.reached(WELL, CLIMB)) is not None:
        borders, pilot_steps = Borders.of(reached.facts["borders"]), int(reached.facts["pilot_steps"])
    else:
        borders = _borders(engine, levels, loops, n_replicas, success=success, start=start, top=top, keeper=keeper)
        pilot_steps = engine.replica_steps
    keeper.remember(borders=asdict(borders), pilot_steps=pilot_steps)
    well = _well_phase(engine, borders, n_replicas, n_repeats, start, keeper)
    climb = _climb(engine, borders, well.entries, n_replicas, n_repeats, progress, keeper)
    repeats = _repeats(well, climb, process.dt)
    configuration = asked | {"loops": borders.loops, "burn_in": borders.burn_in}
    coords = {k: v for k, v in process.describe().items() if k in schema.VARIABLES}
    coords |= {"target_threshold": target.threshold, **(extra or {})}
    result = splitting_dataset(engine, borders, repeats, climb, coords, configuration, pilot_steps)
    if float(repeats.survival.sum()) > 0 and not np.nansum(repeats.n_entries * repeats.probability) > 0:
        raise died_out(result)
    estimate = combine(repeats, confidence)
    if estimate.standard_error > LARGE_ERROR * estimate.value:
        warnings.warn(
            f"The mean exit time is known to ±{estimate.standard_error / estimate.value:.0%} only, carried by few of "
            f"{n_repeats} repeats: its interval is too short.\nUse more `n_replicas`.",
            ValidityWarning,
            stacklevel=2,
        )
    return schema.validate_splitting_dataset(with_estimate(result, estimate))


def _check_start(engine: Engine, start: ArrayLike | None) -> float:
    """Raise for a start in the target; return the score at which the target begins."""
    target = engine.target
    theta = engine.process.start(1, seed=engine.seed, point=start).theta
    m = engine.process.order_parameters(theta)
    if not 0 <= target.feature < m.shape[1]:
        raise checks.invalid("target.feature", target.feature, f"0 to {m.shape[1] - 1}", "one for each order parameter")
    value = float(m[0, target.feature])
    if target.contains(value):
        side = "above" if target.above else "below"
        raise InvalidParameterError(
            f"The start is inside the target (m {side} {target.threshold:g}, start at m = {value:g}): the target must "
            "lie beyond the barrier.\n"
            "Use `beyond(barrier)`, or `start=barrier.minimum` where a learned feature is forgotten."
        )
    return target.sign * target.threshold if engine.score is None else float("inf")


def _borders(
    engine: Engine, levels: ArrayLike | None, loops: int | None, n_replicas: int, *,
    success: float, start: ArrayLike | None, top: float, keeper: Keeper,
) -> Borders:  # fmt: skip
    """Borders as given, or from a pilot."""
    if levels is not None:
        return borders_from(levels, 8 if loops is None else loops)
    size = max(n_replicas, FEWEST_PILOTS)
    return place_borders(engine, size=size, success=success, start=start, loops=loops, top=top, keeper=keeper)


@dataclass(frozen=True)
class _Well:
    """The well phase: totals over each repeat's replicas, in steps; no entries where the climb has begun already."""

    size: int
    direct: Array
    survivors: Array
    loop_steps: Array
    n_entries: Array
    entries: Crowd | None


def _total(values: Tensor, repeat: Tensor, n_repeats: int) -> Array:
    """Sum of a number per replica over each repeat."""
    return np.bincount(repeat.cpu().numpy(), weights=values.cpu().numpy(), minlength=n_repeats).astype(np.float64)


def _counted(crowd: Crowd, n_repeats: int) -> Array:
    """Number of a crowd's members in each repeat."""
    return _total(torch.ones_like(crowd.age), crowd.repeat, n_repeats)


def _well_phase(
    engine: Engine, borders: Borders, n_replicas: int, n_repeats: int, start: ArrayLike | None, keeper: Keeper
) -> _Well:
    """Let replicas make their loops; enough of them that the entries kept are about one for each clone."""
    size = max(-(-n_replicas // (borders.loops - borders.burn_in)), 1)
    if (done := keeper.reached(CLIMB)) is not None:
        found = {name: done.array(name) for name in ("direct", "survivors", "loop_steps", "n_entries")}
        keeper.remember(**found)
        return _Well(size, **found, entries=None)
    if (reached := keeper.reached(WELL)) is not None:
        first, crowd = int(reached.facts["loop"]), reached.crowd("well")
        direct, loop_steps = reached.array("direct"), reached.array("loop_steps")
        entries = [reached.crowd("entries")] if first > borders.burn_in else []
    else:
        first, crowd = 0, engine.run(engine.start(n_repeats, size, start), level=borders.entry).crowd
        direct, loop_steps, entries = np.zeros(n_repeats), np.zeros(n_repeats), []
    for number in range(first, borders.loops):
        used = number >= borders.burn_in
        if used:
            entries.append(crowd)
        began = crowd.age
        fall = engine.run(crowd, level=None, floor=borders.well)
        escaped = fall.crowd.take(fall.hit)
        engine.check_escapes(escaped)
        direct += _total(escaped.age, escaped.repeat, n_repeats)
        back = engine.run(fall.crowd.take(~fall.hit), level=borders.entry).crowd
        if used:
            loop_steps += _total(escaped.age - began[fall.hit], escaped.repeat, n_repeats)
            loop_steps += _total(back.age - began[~fall.hit], back.repeat, n_repeats)
        crowd = back
        if keeper.due():
            crowds = {"well": crowd} | ({"entries": join(entries)} if entries else {})
            keeper.keep(WELL, crowds=crowds, loop=number + 1, direct=direct, loop_steps=loop_steps)
    direct += _total(crowd.age, crowd.repeat, n_repeats)
    kept = join(entries)
    found = {"direct": direct, "survivors": _counted(crowd, n_repeats), "loop_steps": loop_steps}
    found |= {"n_entries": _counted(kept, n_repeats)}
    keeper.remember(**found)
    return _Well(size, **found, entries=kept)


def _climb(
    engine: Engine,
    borders: Borders,
    entries: Crowd | None,
    n_replicas: int,
    n_repeats: int,
    progress: Progress | None,
    keeper: Keeper,
) -> Climb:
    """Fixed-effort splitting of all repeats at once."""
    if entries is not None:
        first, crowd = 0, entries.newborn()
        shares = np.full((n_repeats, len(borders.levels)), np.nan)
        alive = _counted(crowd, n_repeats) > 0
    else:
        reached = keeper.reached(CLIMB)
        assert reached is not None
        first, crowd = int(reached.facts["level"]), reached.crowd("climb")
        shares, alive = reached.array("shares"), reached.array("alive")
    for number, level in enumerate(borders.levels[first:], first):
        if not len(crowd):
            break
        clones = resample(crowd, n_replicas, engine.seed, number)
        leg = engine.run(clones, level=level, floor=borders.well)
        crowd = leg.crowd.take(leg.hit)
        arrived = _counted(crowd, n_repeats)
        shares[alive, number] = arrived[alive] / n_replicas
        alive = arrived > 0
        if keeper.due():
            keeper.keep(CLIMB, crowds={"climb": crowd}, level=number + 1, shares=shares, alive=alive)
        if progress is not None:
            progress(number + 1, len(borders.levels), float(np.nan_to_num(shares[:, : number + 1]).prod(1).mean()))
    engine.check_escapes(crowd)
    count = _counted(crowd, n_repeats)
    with np.errstate(invalid="ignore"):
        reactive = _total(crowd.age, crowd.repeat, n_repeats) / count
    return Climb(shares, np.asarray(reactive))


def _repeats(well: _Well, climb: Climb, dt: float) -> Repeats:
    count = well.n_entries
    with np.errstate(invalid="ignore", divide="ignore"):
        loop_time = dt * well.loop_steps / count
    probability = np.where(count > 0, np.nan_to_num(climb.shares).prod(axis=1), np.nan)
    return Repeats(dt * well.direct / well.size, well.survivors / well.size, count, loop_time, probability)
