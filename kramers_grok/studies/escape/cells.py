"""The cells of an escape study: what theory predicts, and what Langevin dynamics and SGD do, at one point of its grid.

A grid point that has no answer is a result too. The attribute ``status`` says which:

- "finished": the mean exit time is known, with its interval;
- "no barrier": nothing is trapped at these parameters;
- "diverged": replicas left the finite numbers, at a step too large for the curvature they met;
- "too few escapes": the horizon came before escapes enough; what is known stays in the data set, the lower end of
  the interval above all.

Anything else that goes wrong is an error and is raised.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import socket
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from kramers_grok.analysis.budget import BUDGET_COLUMNS, budget_columns
from kramers_grok.analysis.hypotheses import ks_test
from kramers_grok.analysis.predicted import predicted_dataset
from kramers_grok.analysis.survival import Estimate, estimate
from kramers_grok.core import schema
from kramers_grok.core.exceptions import DivergedError, NoBarrierError, TooFewEscapesError, ValidityWarning
from kramers_grok.escape.checkpoint import Checkpoint
from kramers_grok.studies.escape.plan import Plan, plan_for
from kramers_grok.studies.escape.runs import Measured, measure
from kramers_grok.studies.escape.setup import Setup
from kramers_grok.theory.rates import eyring_kramers_rate

__all__ = ["DIVERGED", "FINISHED", "NO_BARRIER", "STATUSES", "TOO_FEW", "simulate", "theory"]

FINISHED, DIVERGED, NO_BARRIER, TOO_FEW = STATUSES = ("finished", "diverged", "no barrier", "too few escapes")
FEWEST_ESCAPES = 10
"""Fewest escapes, or replicas, that count as an answer: the mean is then known to a third."""


def theory(config: Mapping[str, Any], *, seed: int = 0) -> xr.Dataset:
    """Predict the mean exit time in continuous time.

    Parameters
    ----------
    config : mapping
        With ``system`` and ``noise``.
    seed : int
        Not used: theory draws nothing.

    Returns
    -------
    xarray.Dataset
        ``asymptotic_time``, ``exact_time`` [time] and its ``relative_error`` (NaN for systems without an exact
        solution), ``barrier``, ``barrier_over_temperature``, ``valid`` (whether the asymptotic formula is within its
        range), and where the exact solution is known ``survival`` along ``time``.

    Examples
    --------
    >>> system = {"kind": "mode", "depth": 3, "singular_value": 1.0, "weight_decay": 0.25}
    >>> cell = theory({"engine": "theory", "system": system, "noise": {"barrier_over_temperature": 6.0}})
    >>> cell.attrs["status"], round(float(cell.exact_time), 3)
    ('finished', 11029.706)
    """
    began = _Clock.start()
    setup = Setup(config)
    try:
        height = setup.barrier.height
    except NoBarrierError as error:
        return began.stamped(_unanswered(setup, NO_BARRIER, str(error), seed=seed))
    rungs = setup.ladder(bridged=True)
    rate = eyring_kramers_rate(setup.barrier, setup.temperature, warn=False)
    values = {
        "asymptotic_time": rungs.asymptotic,
        "exact_time": rungs.continuous,
        "relative_error": rungs.relative_error if math.isfinite(rungs.continuous) else math.nan,
        "barrier": height,
        "barrier_over_temperature": setup.barrier_over_temperature,
        "valid": rate.valid,
    }
    notes = [*rungs.notes, *([rate.note] if rate.note and rate.note not in rungs.notes else [])]
    ds = _labelled(setup, values, seed=seed).assign_attrs(_status(FINISHED), notes="; ".join(notes))
    if rungs.law is not None and math.isfinite(rungs.continuous):
        curve = predicted_dataset(rungs.law)
        ds = ds.assign(survival=curve["survival"].drop_vars("engine"))
    return began.stamped(ds)


def simulate(config: Mapping[str, Any], *, seed: int, checkpoint: Checkpoint | None = None) -> xr.Dataset:
    """Measure the mean exit time at one point of the grid and put the prediction for the same run beside it.

    Parameters
    ----------
    config : mapping
        With ``engine`` ("langevin" or "sgd"), ``system``, ``noise``, the engine's section and ``run``: ``method``
        ("brute force", "splitting", "auto"), ``horizon`` (predicted means), ``confidence``, and either ``replicas``
        or ``precision`` with ``max_replicas``. For splitting they count the clones at every level of one of
        16 repeats.
    seed : int
        Key of all noise.
    checkpoint : Checkpoint, optional
        Keeps a long cell's state; with it the cell goes on where it was killed, to the same result bit for bit.

    Returns
    -------
    xarray.Dataset
        Of brute force ``exit_time``, ``escaped`` and ``max_score`` along ``replica``, of splitting its own variables.
        Scalars of both: ``mean_exit_time``, ``lower``, ``upper``, ``standard_error`` [time], ``n_escaped`` and
        ``n_replicas`` (0 for splitting, where nobody lives through a whole escape), ``replica_steps``,
        ``pilot_steps``, ``precision``, ``precision_reached``; ``predicted_mean``, ``predicted_relative_error``,
        ``ratio``, ``ratio_error``, ``difference_se``, ``ks_p_value``, ``total_error`` and the columns of the budget,
        each NaN where it is not known. The attribute ``prediction`` says "exact", "asymptotic" or "none".

    Raises
    ------
    InvalidParameterError
        If the configuration breaks a rule of the process; what is only an outcome is in ``status``.
    """
    began = _Clock.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ds = _simulated(Setup(config), config["run"], seed, checkpoint)
    notes = [ds.attrs.get("notes", "")]
    for one in caught:
        if issubclass(one.category, ValidityWarning):
            notes.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return began.stamped(ds.assign_attrs(notes="; ".join(dict.fromkeys(n for n in notes if n))))


def _simulated(setup: Setup, run: Mapping[str, Any], seed: int, checkpoint: Checkpoint | None) -> xr.Dataset:
    """Plan and measure; what cannot be measured is told."""
    try:
        setup.barrier  # noqa: B018
    except NoBarrierError as error:
        return _unanswered(setup, NO_BARRIER, str(error), seed=seed)
    if setup.instability:
        return _unanswered(setup, DIVERGED, setup.instability, seed=seed)
    setup.process()  # raises where the configuration breaks a rule: theory would be asked about it next
    plan = plan_for(setup, run)
    try:
        measured = measure(setup, plan, run, seed=seed, checkpoint=checkpoint)
    except DivergedError as error:
        return _unanswered(setup, DIVERGED, str(error), seed=seed, plan=plan)
    except TooFewEscapesError as error:  # of splitting: brute force keeps what it has
        partial = error.result if isinstance(error.result, xr.Dataset) else None
        return _unanswered(setup, TOO_FEW, str(error), seed=seed, plan=plan, partial=partial)
    return _answered(setup, plan, run, measured)


def _answered(setup: Setup, plan: Plan, run: Mapping[str, Any], measured: Measured) -> xr.Dataset:
    """The run with its estimate, the prediction and what separates them."""
    goal, confidence = run.get("precision"), float(run["confidence"])
    status, message = FINISHED, ""
    found = estimate(measured.run, confidence, burn_in=measured.burn_in, min_escapes=FEWEST_ESCAPES)
    if "exit_time" in measured.run.variables and found.n_escaped < min(FEWEST_ESCAPES, found.n):
        status = TOO_FEW
        message = _too_few(found, float(measured.run["horizon"]))
    precision = (found.upper - found.lower) / (2 * found.value) if math.isfinite(found.upper) else math.inf
    values = {
        **budget_columns(plan.rungs, found),
        **_comparison(setup, plan, found, measured.run),
        "lower": found.lower,
        "upper": found.upper,
        "n_escaped": found.n_escaped,
        "n_replicas": found.n,
        "precision": precision,
        "precision_goal": math.nan if goal is None else float(goal),
        "precision_reached": goal is None or precision <= float(goal),
        "replica_steps": measured.replica_steps,
        "pilot_steps": measured.pilot_steps,
        "pilot_replicas": measured.pilot_replicas,
        "burn_in": measured.burn_in,
    }
    ds = _merged(setup, measured.run, values)
    notes = [*plan.notes, *plan.rungs.notes, *measured.notes]
    return ds.assign_attrs(_status(status, message), **_attrs(plan, found.method), notes="; ".join(notes))


def _too_few(found: Estimate, horizon: float) -> str:
    escaped = f"{found.n_escaped} of {found.n} replicas escaped before {horizon:.4g}"
    return f"{escaped}, expected {FEWEST_ESCAPES} or more: the mean exit time is above {found.lower:.4g}"


def _comparison(setup: Setup, plan: Plan, found: Estimate, run: xr.Dataset) -> dict[str, float]:
    """Measured beside predicted; a prediction to leading order is no yardstick for statistical errors."""
    rungs, exact = plan.rungs, plan.exact
    known = math.isfinite(found.value) and math.isfinite(rungs.best)
    spread = math.hypot(found.standard_error, rungs.relative_error * rungs.best)
    row = {
        "barrier": setup.barrier.height,
        "barrier_over_temperature": setup.barrier_over_temperature,
        "predicted_mean": rungs.best,
        "predicted_relative_error": rungs.relative_error if exact else math.nan,
        "ratio": found.value / rungs.best if known else math.nan,
        "ratio_error": found.standard_error / rungs.best if known else math.nan,
        "difference_se": (found.value - rungs.best) / spread if known and exact and spread else math.nan,
        "ks_p_value": math.nan,
    }
    if exact and rungs.law is not None and "exit_time" in run.variables:
        row["ks_p_value"] = ks_test(run, rungs.law.survival).p_value
    return row


def _unanswered(
    setup: Setup, status: str, message: str, *, seed: int, plan: Plan | None = None, partial: xr.Dataset | None = None
) -> xr.Dataset:
    """A point of the grid without an answer, with what is known of it."""
    nan = math.nan
    values: dict[str, Any] = {"barrier": nan, "barrier_over_temperature": nan}
    if status != NO_BARRIER:
        values = {"barrier": setup.barrier.height, "barrier_over_temperature": setup.barrier_over_temperature}
    attrs: dict[str, str] = {}
    if setup.engine == "theory":
        values |= {"asymptotic_time": nan, "exact_time": nan, "relative_error": nan, "valid": False}
    else:
        none = Estimate(nan, nan, nan, nan, 0, 0, "none")
        values |= dict.fromkeys(("lower", "upper", "precision", "precision_goal", "replica_steps", "pilot_steps"), nan)
        values |= dict.fromkeys(("predicted_mean", "predicted_relative_error", "ratio", "ratio_error"), nan)
        values |= dict.fromkeys(("difference_se", "ks_p_value", "mean_exit_time", "standard_error"), nan)
        values |= dict.fromkeys(("asymptotic_time", "total_error", "burn_in", "pilot_replicas", *BUDGET_COLUMNS), nan)
        values |= {"n_escaped": 0, "n_replicas": 0, "precision_reached": False}
        if plan is not None:
            attrs = _attrs(plan, none.method)
            values |= {"predicted_mean": plan.rungs.best, "asymptotic_time": plan.rungs.asymptotic}
    if partial is None:
        return _labelled(setup, values, seed=seed).assign_attrs(_status(status, message), **attrs)
    return _merged(setup, partial, values).assign_attrs(_status(status, message), **attrs)


def _merged(setup: Setup, run: xr.Dataset, values: Mapping[str, Any]) -> xr.Dataset:
    """A run with further scalars, and with everything that was set as its coordinates."""
    coords = {k: v for k, v in _settings(setup).items() if k not in run.coords}
    run = run.assign({name: ((), value, schema.describe(name)) for name, value in values.items()})
    return run.assign_coords(coords).assign_attrs(cell=schema.canonical_json(setup.config))


def _labelled(setup: Setup, values: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Scalars with their labels, the settings as coordinates, and where they come from."""
    ds = xr.Dataset({name: ((), value, schema.describe(name)) for name, value in values.items()}, _settings(setup))
    origin = schema.provenance(seed=seed, dtype="float64", device="cpu", configuration=setup.config)
    return ds.assign_attrs(origin, cell=schema.canonical_json(setup.config))


def _settings(setup: Setup) -> dict[str, Any]:
    """What was set, as labelled scalar coordinates; the temperature where it is known without a barrier."""
    coords = setup.coordinates() | {"temperature": math.nan, "target_threshold": math.nan}
    with contextlib.suppress(NoBarrierError):
        coords["temperature"] = setup.temperature
        coords["target_threshold"] = setup.target.threshold
    return {name: ((), value, schema.describe(name)) for name, value in coords.items()}


def _attrs(plan: Plan, estimator: str) -> dict[str, str]:
    none = math.isnan(plan.rungs.best)
    return {
        "method": plan.method,
        "method_reason": plan.reason,
        "estimator": estimator,
        "prediction": "none" if none else "exact" if plan.exact else "asymptotic",
        "time_step_method": plan.rungs.time_step_method,
    }


def _status(status: str, message: str = "") -> dict[str, str]:
    return {"status": status, "status_message": message}


@dataclass(frozen=True)
class _Clock:
    """When and where a cell was computed: the only attributes in which two equal cells differ."""

    started: str
    since: float

    @classmethod
    def start(cls) -> _Clock:
        return cls(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), time.perf_counter())

    def stamped(self, ds: xr.Dataset) -> xr.Dataset:
        seconds = round(time.perf_counter() - self.since, 3)
        return ds.assign_attrs(host=socket.gethostname(), started=self.started, seconds=seconds)
