"""The result of a splitting run as a labelled data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core import schema
from kramers_grok.core.exceptions import TooFewEscapesError
from kramers_grok.escape.splitting_engine import Engine
from kramers_grok.escape.splitting_estimate import Repeats, TimeEstimate
from kramers_grok.escape.splitting_pilot import Borders

__all__ = ["Climb", "died_out", "splitting_dataset", "with_estimate"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Climb:
    """Shares that passed each level, shape (repeat, level), NaN where nobody was left; steps of the reactive paths."""

    shares: Array
    reactive: Array


def splitting_dataset(
    engine: Engine,
    borders: Borders,
    repeats: Repeats,
    climb: Climb,
    coords: Mapping[str, Any],
    configuration: Mapping[str, Any],
    pilot_steps: int,
) -> xr.Dataset:
    """Everything but the estimate, labelled."""
    dt = engine.process.dt
    with np.errstate(invalid="ignore", divide="ignore"):
        own = repeats.direct_time + np.where(
            repeats.survival > 0, repeats.survival * repeats.loop_time / repeats.probability, 0.0
        )
    along_repeat = {
        "probability": repeats.probability,
        "loop_time": repeats.loop_time,
        "direct_time": repeats.direct_time,
        "direct_survival": repeats.survival,
        "n_entries": repeats.n_entries.astype(np.int64),
        "repeat_exit_time": own,
        "reactive_time": dt * climb.reactive,
    }
    last = np.inf if engine.score is not None else engine.target.sign * engine.target.threshold
    scores = [last if z is None else z for z in borders.levels]
    named = {name: ((), value, schema.describe(name)) for name, value in coords.items()}
    state = engine.process.start(1, seed=engine.seed).theta
    return xr.Dataset(
        {
            **{name: ("repeat", value, schema.describe(name)) for name, value in along_repeat.items()},
            "level_probability": (("repeat", "level"), climb.shares, schema.describe("level_probability")),
            "replica_steps": ((), engine.replica_steps, schema.describe("replica_steps")),
            "pilot_steps": ((), pilot_steps, schema.describe("pilot_steps")),
        },
        coords={
            **named,
            "repeat": ("repeat", np.arange(len(repeats.survival)), schema.describe("repeat")),
            "level": ("level", np.array(scores, dtype=np.float64), schema.describe("level")),
            "well_score": ((), borders.well, schema.describe("well_score")),
            "entry_score": ((), borders.entry, schema.describe("entry_score")),
        },
        attrs=schema.provenance(
            seed=engine.seed,
            dtype=str(state.dtype).removeprefix("torch."),
            device=str(state.device),
            configuration={**coords, **configuration},
        ),
    )


def with_estimate(result: xr.Dataset, estimate: TimeEstimate) -> xr.Dataset:
    """Add the mean exit time and its interval."""
    values = {
        "mean_exit_time": estimate.value,
        "standard_error": estimate.standard_error,
        "lower": estimate.lower,
        "upper": estimate.upper,
    }
    return result.assign({name: ((), value, schema.describe(name)) for name, value in values.items()})


def died_out(result: xr.Dataset) -> TooFewEscapesError:
    """Return the error for a run in which nobody got to the target, with what it found."""
    passed = int(np.isfinite(result.level_probability.values).any(axis=0).sum())
    return TooFewEscapesError(
        f"No replica of {result.sizes['repeat']} repeats got beyond level {passed} of {result.sizes['level']} (score "
        f"{float(result.level[passed - 1]):g}): the mean exit time has a lower bound only.\n"
        "Raise `n_replicas`, or leave `levels` out so that a pilot places them.",
        result=result,
    )
