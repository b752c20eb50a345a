r"""Control schedules measured: how soon does a trapped network learn, and what does it end with?

Time is counted in *steps*, which the user pays for, whatever the learning rate; the samples processed stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.theory.control import Plan
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["control"]


def control(
    process: SGD,
    plans: Mapping[str, Plan],
    *,
    n_steps: int,
    target: Region,
    n_replicas: int,
    seed: int,
    start: ArrayLike | None = None,
) -> xr.Dataset:
    r"""Run schedules on equal numbers of steps and replicas, and tabulate what they reach.

    Every plan runs twice on the same noise: once frozen at the first arrival in the target, for the steps to learn;
    once to the end, for what has been learned *and kept*, and for the loss that training ends with.

    Parameters
    ----------
    process : SGD
        Model with one output of one input (a mode or a chain), data, noise of fixed per-sample variance; its learning
        rate, batch size and weight decay are replaced by each plan's.
    plans : mapping of str to Plan
    n_steps : int
        Steps of every plan.
    target : Region
        What counts as learned.
    n_replicas, seed
        As in `first_passage`; all plans share the seed, which makes their comparison a paired one.
    start : array_like, optional
        Where replicas begin; the unlearned state if not given.

    Returns
    -------
    xarray.Dataset
        Along ``schedule``: ``mean_steps`` to learn, cut at the end (restricted mean), ``learned_at_end``,
        ``final_loss`` (mean population loss without decay), ``learned_loss`` (the same over those that have learned),
        each with its standard error ``…_error``; ``samples`` processed. Along (schedule, replica): ``learn_step``,
        n_steps where ``escaped`` is False.

    Raises
    ------
    InvalidParameterError
        Without plans; for several order parameters; as in `first_passage`.
    """
    n_steps = checks.positive_int("n_steps", n_steps)
    if not plans:
        raise InvalidParameterError("`plans` is empty.\nGive at least one, `{'constant': Plan.constant(setting)}`.")
    rows = [_run(process, plan, n_steps, target, n_replicas, seed, start) for plan in plans.values()]
    table = xr.concat(rows, dim="schedule", combine_attrs="override")
    table = table.assign_coords(schedule=("schedule", list(plans), {"units": "1", "long_name": "schedule"}))
    return table.assign_attrs(n_steps=n_steps, n_replicas=n_replicas, seed=str(seed), threshold=target.threshold)


def _run(
    process: SGD,
    plan: Plan,
    n_steps: int,
    target: Region,
    n_replicas: int,
    seed: int,
    start: ArrayLike | None,
) -> xr.Dataset:
    system = process.system
    if not isinstance(system, Mode | DeepLinearChain):
        raise InvalidParameterError(
            f"`process` trains a {type(system).__name__}, expected a Mode or a DeepLinearChain: the loss is taken from "
            "its one order parameter.\nUse `process.model` with `trace` and the observable `Loss` for networks."
        )
    moved = process.replace(lr=plan.lr, batch_size=plan.batch_size, weight_decay=plan.weight_decay)
    clock = moved.times(np.arange(n_steps + 1))
    first = first_passage(
        moved, target=target, n_replicas=n_replicas, max_time=float(clock[-1]), seed=seed, start=start
    )
    escaped = first["escaped"].values
    # Times are sums of learning rates: half a step of tolerance finds the number
    ends = clock - 0.5 * np.diff(clock, prepend=clock[0] - 1.0)
    step = np.where(escaped, np.searchsorted(ends, first["exit_time"].values, side="right") - 1, n_steps)
    state, _ = moved.advance(moved.start(n_replicas, seed=seed, point=start), n_steps)
    m = moved.order_parameters(state.theta).cpu().numpy()
    loss = 0.5 * system.input_variance * (system.singular_value - m[:, 0]) ** 2
    kept = target.contains(m[:, target.feature])
    found: dict[str, tuple[float, float]] = {
        "mean_steps": _mean(step.astype(np.float64)),
        "learned_at_end": _mean(kept.astype(np.float64)),
        "final_loss": _mean(loss),
        "learned_loss": _mean(loss[kept]) if kept.sum() > 1 else (np.nan, np.nan),
    }
    data = {name: ((), value, describe(name)) for name, (value, _) in found.items()}
    for name, (_, error) in found.items():
        label = describe(name)
        data[f"{name}_error"] = ((), error, label | {"long_name": f"standard error of the {label['long_name']}"})
    sizes = np.rint(plan.batch_size(np.arange(n_steps)))
    return xr.Dataset(data).assign(
        samples=((), float(sizes.sum()), describe("samples")),
        learn_step=("replica", step, describe("learn_step")),
        escaped=("replica", escaped, describe("escaped")),
    )


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))
