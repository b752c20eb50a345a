"""Ramps of the weight decay and control schedules: predicted curves with what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.plots.inputs import named, require, single
from kramers_grok.plots.style import Look, axes, drawn, label, legend, look, sparse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["learning_curves", "loop_width", "ramp_escapes"]


@drawn
def ramp_escapes(runs: xr.Dataset, ax: Axes | None = None, *, adiabatic: bool = True) -> Axes:
    """Draw the share that has escaped against λ for each ramp rate: measured symbols on predicted lines.

    Parameters
    ----------
    runs : Dataset
        ``weight_decay_at_exit`` and ``escaped`` (ramp_rate, replica), ``driven_survival`` and ``adiabatic_survival``
        (ramp_rate, position), coordinates ``weight_decay`` (position) and ``ramp_rate``.
    ax : Axes, optional
    adiabatic : bool
        Draw the adiabatic prediction too, dashed.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    make = "the arm `ramp` of the main job: tree['forgetting']"
    runs = single("`runs`", runs, make)
    needed = ["weight_decay_at_exit", "escaped", "driven_survival", "weight_decay", "ramp_rate"]
    require("the data set", runs, [*needed, *(["adiabatic_survival"] if adiabatic else [])], make)
    ax = axes(ax)
    grid = runs["weight_decay"].values
    falling = grid[-1] < grid[0]
    for number in range(runs.sizes["ramp_rate"]):
        row, own = runs.isel(ramp_rate=number), look(number)
        ax.plot(grid, 1 - row["driven_survival"].values, color=own.colour, lw=1.2)
        if adiabatic:
            ax.plot(grid, 1 - row["adiabatic_survival"].values, color=own.colour, lw=1.0, ls="--")
        left = row["escaped"].values.astype(bool)
        at = np.sort(row["weight_decay_at_exit"].values[left])
        share = np.arange(1, at.size + 1) / left.size
        _steps(ax, at[::-1] if falling else at, share, own, number, named(runs, "ramp_rate", number))
    ax.set_xlabel(label(runs["weight_decay"]))
    ax.set_ylabel("share that has escaped")
    if falling:
        ax.invert_xaxis()
    legend(ax)
    return ax


def _steps(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], own: Look, number: int, text: str) -> None:
    """A measured distribution function: a broad pale step with a few symbols, so that lines show through."""
    ax.step(x, y, where="post", color=own.colour, lw=3.0, alpha=0.35)
    ax.plot(x, y, **own.points(markevery=sparse(number), label=text, ms=5.5))


@drawn
def loop_width(loops: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the width of the hysteresis loop against the ramp rate for each temperature.

    Parameters
    ----------
    loops : Dataset
        ``width``, ``width_error``, ``driven_width``, ``adiabatic_width`` along (temperature, ramp_rate).
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    make = "the arm `ramp` of the main job: tree['loops']"
    loops = single("`loops`", loops, make)
    needed = ("width", "width_error", "driven_width", "adiabatic_width", "temperature", "ramp_rate")
    require("the data set", loops, needed, make)
    ax = axes(ax)
    rate = loops["ramp_rate"].values
    for number in range(loops.sizes["temperature"]):
        row, own = loops.isel(temperature=number), look(number)
        ax.plot(rate, row["driven_width"].values, color=own.colour, lw=1.2)
        ax.plot(rate, row["adiabatic_width"].values, color=own.colour, lw=1.0, ls="--")
        bars, text = 2 * row["width_error"].values, named(loops, "temperature", number)
        ax.errorbar(rate, row["width"].values, yerr=bars, label=text, **own.points())
    ax.plot([], [], "k-", lw=1.2, label="driven, predicted")
    ax.plot([], [], "k--", lw=1.0, label="adiabatic, predicted")
    ax.set_xscale("log")
    ax.set_xlabel(label(loops["ramp_rate"]))
    ax.set_ylabel("width of the loop [loss/weight²]")
    legend(ax)
    return ax


@drawn
def learning_curves(schedules: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the share that has not learned against the step for each schedule: measured on predicted lines.

    Parameters
    ----------
    schedules : Dataset
        ``learn_step`` and ``escaped`` (schedule, replica), ``predicted_survival`` (schedule, step).
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    make = "the arm `control` of the main job: tree['schedules']"
    schedules = single("`schedules`", schedules, make)
    require("the data set", schedules, ("learn_step", "escaped", "predicted_survival", "schedule", "step"), make)
    ax = axes(ax)
    for number, name in enumerate(schedules["schedule"].values.tolist()):
        row, own = schedules.sel(schedule=name), look(number)
        left = row["escaped"].values.astype(bool)
        at = np.sort(row["learn_step"].values[left])
        share = 1 - np.arange(1, at.size + 1) / left.size
        ax.step(at, share, where="post", color=own.colour, lw=3.0, alpha=0.3)
        predicted, step = row["predicted_survival"].values, row["step"].values
        marks: dict[str, Any] = {"marker": own.marker, "mfc": "white", "markevery": sparse(number, 6)}
        ax.plot(step, predicted, color=own.colour, lw=1.2, label=name, **marks)
    ax.set_xlabel(label(schedules["step"]))
    ax.set_ylabel("share that has not learned")
    ax.set_xlim(0, 1.02 * float(schedules["step"].max()))
    # Beside the axes: curves fill them
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
