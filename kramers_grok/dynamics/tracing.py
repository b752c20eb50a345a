"""Observables along a run: what is measured at chosen steps, as a labelled data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.vocabulary import describe
from kramers_grok.dynamics.observables import Deferred, Observable
from kramers_grok.dynamics.process import Process, State

__all__ = [
    "observe",
    "trace",
]

Array = NDArray[np.float64]


def observe(
    process: Process, state: State, steps: ArrayLike, observables: Sequence[Observable]
) -> tuple[State, dict[str, Tensor]]:
    """Advance a process and return observables at chosen steps as tensors on its device; see `trace`.

    Returns
    -------
    State
        After the last of the steps.
    dict of str to Tensor
        Shape (replica, step, …) each. Nothing has been read back to the host.
    """
    numbers = _check_steps(steps, state.step)
    names = [o.name for o in observables]
    if not names or len(set(names)) < len(names):
        raise checks.invalid(
            "observables", names, "one or more of different names", "each becomes a variable of the result",
            "Use `Loss(data, name='test_loss')` for a second loss.",
        )  # fmt: skip
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    for number in numbers.tolist():
        if number > state.step:
            state, _ = process.advance(state, number - state.step)
        for o in observables:
            kept[o.name].append(o.first(process, state.theta) if isinstance(o, Deferred) else o(process, state.theta))
    stacked = {name: torch.stack(values, dim=1) for name, values in kept.items()}
    return state, {o.name: o.then(stacked[o.name]) if isinstance(o, Deferred) else stacked[o.name] for o in observables}


def trace(
    process: Process, state: State, steps: ArrayLike, observables: Sequence[Observable]
) -> tuple[State, xr.Dataset]:
    """Advance a process and return observables at chosen steps.

    Parameters
    ----------
    process : Process
    state : State
    steps : array_like of int
        Numbers of steps since the start, ascending; the first may be where the state is.
    observables : sequence of Observable
        Of different names.

    Returns
    -------
    State
        After the last of the steps.
    Dataset
        One variable for each observable, dims (replica, time, …), with coordinates `time` [time] and `step`. Where
        replicas have learning rates of their own the dims are (replica, step, …) and `time` is (replica, step). All is
        read back from the device once, at the end.

    Raises
    ------
    InvalidParameterError
        For steps that are not ascending or lie in the past, no observables, or two of one name.

    Examples
    --------
    >>> from kramers_grok.dynamics.observables import Loss, OrderParameters
    >>> from kramers_grok.dynamics.sgd import SGD
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> process = SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=0.1)
    >>> state = process.start(2, seed=0, point=[1.0, 1.0, 1.0])
    >>> state, run = trace(process, state, [0, 5, 10], [OrderParameters(), Loss(population())])
    >>> dict(run.sizes), run.time.values.tolist()
    ({'replica': 2, 'time': 3, 'feature': 1}, [0.0, 0.5, 1.0])
    """
    numbers = _check_steps(steps, state.step)
    streams, member = state.streams, state.buffers.get("member")
    state, values = observe(process, state, numbers, observables)
    replica = ("replica", streams.cpu().numpy(), describe("replica"))
    times = process.times(numbers)
    along, coords = _clock(times if member is None or times.ndim == 1 else times[member.cpu().numpy()], numbers)
    variables = {
        o.name: (("replica", along, *o.dims), values[o.name].cpu().numpy(), describe(o.name)) for o in observables
    }
    dataset = xr.Dataset(variables, coords={"replica": replica, **coords})
    for name in dataset.sizes:
        if name not in dataset.coords:
            first = 1 if name in ("layer", "hidden_layer") else 0  # layers are counted from 1
            numbering = first + np.arange(dataset.sizes[name])
            dataset = dataset.assign_coords({name: (name, numbering, describe(str(name)))})
    return state, dataset


def _clock(times: Array, numbers: NDArray[np.int64]) -> tuple[str, Mapping[str, Any]]:
    """Dimension along a run, with the coordinates `time` and `step`."""
    if times.ndim == 1:
        return "time", {"time": ("time", times, describe("time")), "step": ("time", numbers, describe("step"))}
    both = ("replica", "step")
    return "step", {"step": ("step", numbers, describe("step")), "time": (both, times, describe("time"))}


def _check_steps(steps: ArrayLike, now: int) -> NDArray[np.int64]:
    numbers = checks.finite_array("steps", steps, ndim=1)
    if (numbers != np.round(numbers)).any() or numbers[0] < now or (np.diff(numbers) <= 0).any():
        raise checks.invalid(
            "steps", checks.Described(f"{numbers.tolist()[:6]}"), f"ascending whole numbers from {now} on",
            "they count steps since the start, and no process goes back", "Use `state.step + np.arange(0, 100, 10)`.",
        )  # fmt: skip
    return numbers.astype(np.int64)
