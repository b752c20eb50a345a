"""Where splitting puts its borders: a pilot run looks at the well and climbs out of it once.

Nothing here enters the estimate except the borders themselves, which any choice leaves exact; the pilot's noise is
used nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.escape.splitting_engine import CHUNK, Crowd, Engine, resample
from kramers_grok.escape.splitting_state import Keeper

__all__ = ["Borders", "borders_from", "place_borders"]

WELL_QUANTILE = 0.7
ENTRY_QUANTILE = 0.95
SETTLED = 0.01  # p-value above which the scores at a time and at twice that time count as the same
FEWEST = 64  # replicas in the well below which its distribution is not looked at any more
LONGEST_SETTLING = 2**20
MOST_LEVELS = 2000
FEWEST_LOOPS = 3
PILOT_LOOPS = 2
PLACING = "placing borders"  # stage of a kept run


@dataclass(frozen=True)
class Borders:
    """Borders in the score and the length of the well phase.

    Attributes
    ----------
    well, entry : float
        z_A and z_0.
    levels : tuple of float or None
        z_1 < z_2 < … and None, the target.
    burn_in : int
        Loops whose entries are not used.
    loops : int
        Loops in all.
    """

    well: float
    entry: float
    levels: tuple[float | None, ...]
    burn_in: int
    loops: int

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Borders:
        """Return borders from what `dataclasses.asdict` made of them, by way of JSON."""
        return cls(**{**facts, "levels": tuple(facts["levels"])})


def borders_from(levels: ArrayLike, loops: int) -> Borders:
    """Return given borders (z_A, z_0, z_1, …) behind which the target comes last."""
    z = checks.finite_array("levels", levels, ndim=1, why="they are scores z_A, z_0, z_1, …")
    if len(z) < 2 or (np.diff(z) <= 0).any():
        raise checks.invalid(
            "levels",
            z.tolist(),
            "two or more increasing scores z_A < z_0 < z_1 < …",
            "a replica climbs from one to the next",
            "Leave `levels` out: a pilot run places them.",
        )
    return Borders(float(z[0]), float(z[1]), (*map(float, z[2:]), None), loops - loops // 2, loops)


def place_borders(
    engine: Engine, *, size: int, success: float, start: ArrayLike | None, loops: int | None, top: float, keeper: Keeper
) -> Borders:
    """Place the borders by a pilot run of `size` replicas, in repeat 0 of `engine`."""
    reached = keeper.reached(PLACING)
    if reached is not None:
        begun, entries = Borders.of(reached.facts["borders"]), reached.crowd("pilot")
    else:
        begun, entries = _look(engine, size=size, start=start, loops=loops, top=top)
    return replace(begun, levels=_climb(engine, entries, begun, size=size, success=success, keeper=keeper))


def _look(
    engine: Engine, *, size: int, start: ArrayLike | None, loops: int | None, top: float
) -> tuple[Borders, Crowd]:
    """Look at the well: the borders without their levels, and entries to climb from."""
    crowd, settling = _settle(engine, size, start)
    well, entry = _well_and_entry(engine.scores(crowd.theta).cpu().numpy().astype(np.float64), top)
    crowd = engine.run(crowd.newborn(), level=entry).crowd
    legs = [float(crowd.age.double().mean())]
    for _ in range(PILOT_LOOPS):
        fall = engine.run(crowd.newborn(), level=None, floor=well)
        if int((~fall.hit).sum()) < FEWEST // 2:
            break
        crowd = engine.run(fall.crowd.take(~fall.hit), level=entry).crowd
        legs.append(float(crowd.age.double().mean()))
    if loops is None:
        burn_in = max(FEWEST_LOOPS, int(np.ceil(2 * settling / max(legs[-1], 1.0))))
        loops = 2 * burn_in
    else:
        burn_in = loops - loops // 2
    return Borders(well, entry, (), burn_in, loops), crowd.newborn()


def _settle(engine: Engine, size: int, start: ArrayLike | None) -> tuple[Crowd, int]:
    """Run until the scores' distribution is that of half the time; return the replicas still in the well and the time.

    Doubling times compare a distribution with itself only once the slowest mode that the score feels has relaxed.
    """
    period = engine.process.period
    unit = -(-CHUNK // period) * period
    crowd, passed = engine.start(1, size, start), 0
    before: NDArray[np.float64] | None = None
    while True:
        n_steps = max(passed, unit)
        moved, escaped = engine.free(crowd, n_steps)
        if int((~escaped).sum()) < FEWEST:
            return crowd, max(passed, unit)
        crowd, passed = moved.take(~escaped), passed + n_steps
        now = engine.scores(crowd.theta).cpu().numpy().astype(np.float64)
        if before is not None and stats.ks_2samp(before, now).pvalue > SETTLED:
            return crowd, passed
        if passed >= LONGEST_SETTLING:
            raise InvalidParameterError(
                f"The scores of {size} replicas still drift after {passed} steps: `start` is not in a metastable well, "
                "so there is no escape rate.\nUse `start=barrier.minimum`, or `first_passage`."
            )
        before = now


def _well_and_entry(scores: NDArray[np.float64], top: float) -> tuple[float, float]:
    """Quantiles of the well's scores, kept apart and below the target."""
    finite = scores[np.isfinite(scores)]
    well, entry = (float(z) for z in np.quantile(finite, (WELL_QUANTILE, ENTRY_QUANTILE)))
    if well >= top:
        well = float(finite.min())
    higher = finite[finite > well]
    if not higher.size or well >= top:
        raise InvalidParameterError(
            f"The scores of {scores.size} replicas in the well lie between {finite.min():g} and {finite.max():g}, the "
            f"target begins at {top:g}: the score does not tell the well's states apart, or the target is not beyond "
            "the start.\nUse a temperature > 0, a target beyond the barrier, and a score that grows on the way to it."
        )
    if entry <= well:
        entry = float(higher.min())
    return well, entry if entry < top else float((well + min(higher.min(), top)) / 2)


def _climb(
    engine: Engine, entries: Crowd, begun: Borders, *, size: int, success: float, keeper: Keeper
) -> tuple[float | None, ...]:
    """Levels that a share `success` of the excursions from the level below reaches, up to the target."""
    levels = list(begun.levels)
    well, reached = begun.well, begun.entry if not levels else levels[-1]
    assert reached is not None  # the target comes last
    pilot = 2**31  # its resampling numbers are not those of the run
    while len(levels) < MOST_LEVELS:
        clones = resample(entries, size, engine.seed, pilot + len(levels))
        leg = engine.run(clones, level=None, floor=well)
        arrived = int(leg.hit.sum())
        if arrived >= success * size:
            return (*levels, None)
        level = _between(leg.best, success)
        if level is None or level <= reached:
            if arrived:
                return (*levels, None)
            raise InvalidParameterError(
                f"No excursion from score {reached:g} got higher: the score does not grow on the way to the target.\n"
                "Use another `score` (from a state with learned features `ResidualFeature.of(network, rank)`: their "
                "channels turn towards the next feature and free nobody), or more `n_replicas`."
            )
        better = leg.best >= level
        # The noise depends on stream and step alone: the same streams from the same states climb the same way.
        again = engine.run(clones.take(better), level=level, floor=well, again=leg.streams[better])
        entries = again.crowd.take(again.hit)
        levels.append(level)
        reached = level
        if keeper.due():
            keeper.keep(PLACING, crowds={"pilot": entries}, borders=asdict(replace(begun, levels=tuple(levels))))
    raise InvalidParameterError(
        f"The target is not reached after {MOST_LEVELS} levels, the last at score {reached:g}.\n"
        "Use a higher temperature, a target that can be reached, or a smaller `success`."
    )


def _between(best: Tensor, success: float) -> float | None:
    """A level that a share `success` passes, half-way between two neighbours so that no rounding decides."""
    scores = torch.sort(best[torch.isfinite(best)]).values.cpu().numpy().astype(np.float64)
    infinite = len(best) - len(scores)
    above = max(round(success * len(best)) - infinite, 1)
    if len(scores) <= above:
        return None
    upper, lower = scores[-above], scores[-above - 1]
    if lower == upper:  # ties: the next score below
        below = scores[scores < upper]
        if not below.size:
            return None
        lower = below[-1]
    return float((lower + upper) / 2)
