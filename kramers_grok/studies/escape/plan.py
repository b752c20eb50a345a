"""How an escape cell is measured: by brute force or by splitting, and for how long, decided before the run.

The method is chosen by its predicted cost, see `method_choice`.

**Horizon.** A multiple of the predicted mean, 10 of them by default, so that e^-10 of the replicas are censored. Where
nothing is predicted (minibatch noise alone), the multiple is of a hundred relaxation times 1/λ. Longer than 10^8 steps
is not waited for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kramers_grok.analysis.ladder import Ladder
from kramers_grok.studies.escape.method_choice import (
    AUTO,
    BRUTE_FORCE,
    MOST_STEPS,
    SPLITTING,
    UNPREDICTED,
    WORTH_IT,
    cost_ratio,
)
from kramers_grok.studies.escape.setup import Setup

__all__ = ["Plan", "plan_for"]


@dataclass(frozen=True)
class Plan:
    """What is decided before a run.

    Attributes
    ----------
    method : str
        "brute force" or "splitting".
    reason : str
        Why, in words.
    horizon : float
        Of brute force [time].
    rungs : Ladder
        The prediction for the run as it will be made.
    notes : tuple of str
        What the horizon rests on, where it is not the prediction.
    """

    method: str
    reason: str
    horizon: float
    rungs: Ladder
    notes: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the prediction comes from an exact solution, not from leading orders."""
        return self.rungs.law is not None and math.isfinite(self.rungs.best)


def plan_for(setup: Setup, run: Mapping[str, Any]) -> Plan:
    """Decide how a cell is measured.

    Parameters
    ----------
    setup : Setup
    run : mapping
        The cell's ``run`` section: ``method`` and ``horizon`` count here.
    """
    asked = str(run["method"])
    rungs = setup.ladder(bridged=setup.bridged and asked != SPLITTING)
    # Beyond the first order in the step nothing is predicted for the run itself; the leading order still plans it.
    mean = rungs.asymptotic if math.isnan(rungs.best) else rungs.best
    method, reason = (asked, "as asked for") if asked != AUTO else _choice(setup, mean)
    if method == SPLITTING and asked == AUTO and setup.bridged:
        rungs = setup.ladder(bridged=False)
    horizon, notes = _horizon(setup, mean, float(run["horizon"])) if method == BRUTE_FORCE else (math.nan, ())
    return Plan(method, reason, horizon, rungs, notes)


def _choice(setup: Setup, mean: float) -> tuple[str, str]:
    """Method and reason where the method is left open."""
    if math.isnan(mean) or not setup.temperature:
        return BRUTE_FORCE, "no exit time is predicted, so the cost of neither method is known"
    ratio = cost_ratio(setup.barrier_over_temperature, mean, 1 / setup.relaxation_time)
    where = f"predicted ΔF/T = {setup.barrier_over_temperature:.3g} and mean exit time {mean:.3g}"
    if ratio > WORTH_IT:
        return SPLITTING, f"{where}: splitting takes about {ratio:.2g} times fewer steps than brute force"
    compared = f"about {ratio:.2g} times" if ratio > 1 else f"only {ratio:.2g} of"
    return BRUTE_FORCE, f"{where}: brute force takes {compared} the steps of splitting and sees every exit time"


def _horizon(setup: Setup, mean: float, multiple: float) -> tuple[float, tuple[str, ...]]:
    """Censoring horizon of brute force [time], and what to say about it."""
    notes: tuple[str, ...] = ()
    if not math.isfinite(mean):
        mean = UNPREDICTED * setup.relaxation_time
        notes = (f"no exit time is predicted: the horizon is {multiple:g} times {UNPREDICTED:g} relaxation times 1/λ",)
    horizon, longest = multiple * mean, MOST_STEPS * setup.step
    if horizon > longest:
        notes += (f"the horizon is cut from {horizon:.3g} to {MOST_STEPS:.0e} steps; use splitting",)
    return max(min(horizon, longest), setup.step), notes
