"""Ramps of the weight decay and control schedules: predicted curves with what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.plots.style import CYCLE, MARKERS, axes, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["learning_curves", "loop_width", "ramp_escapes"]


def ramp_escapes(runs: xr.Dataset, ax: Axes | None = None, *, adiabatic: bool = True) -> Axes:
    """Draw the share that has escaped against λ, one colour for each ramp rate: measured steps on predicted lines.

    Parameters
    ----------
    runs : Dataset
        ``weight_decay_at_exit`` and ``escaped`` (ramp_rate, replica), ``driven_survival`` and ``adiabatic_survival``
        (ramp_rate, position), coordinates ``weight_decay`` (position) and ``ramp_rate``.
    ax : Axes, optional
    adiabatic : bool
        Draw the adiabatic prediction too, dashed.
    """
    ax = axes(ax)
    grid = runs["weight_decay"].values
    falling = grid[-1] < grid[0]
    for number in range(runs.sizes["ramp_rate"]):
        row, colour = runs.isel(ramp_rate=number), CYCLE[number % len(CYCLE)]
        ax.plot(grid, 1 - row["driven_survival"], color=colour, lw=1.2, label=f"r = {float(row.ramp_rate):g}")
        if adiabatic:
            ax.plot(grid, 1 - row["adiabatic_survival"], color=colour, lw=1.0, ls="--")
        left = row["escaped"].values.astype(bool)
        at = np.sort(row["weight_decay_at_exit"].values[left])
        share = np.arange(1, at.size + 1) / left.size
        ax.step(at[::-1] if falling else at, share, where="post", color=colour, lw=3.0, alpha=0.35)
    ax.set_xlabel(label(runs["weight_decay"]))
    ax.set_ylabel("share that has escaped")
    if falling:
        ax.invert_xaxis()
    return ax


def loop_width(loops: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the width of the hysteresis loop against the ramp rate, one colour for each temperature.

    Parameters
    ----------
    loops : Dataset
        ``width``, ``width_error``, ``driven_width``, ``adiabatic_width`` along (temperature, ramp_rate).
    ax : Axes, optional
    """
    ax = axes(ax)
    rate = loops["ramp_rate"].values
    for number in range(loops.sizes["temperature"]):
        row, colour = loops.isel(temperature=number), CYCLE[number % len(CYCLE)]
        ax.plot(rate, row["driven_width"], color=colour, lw=1.2, label=f"T = {float(row.temperature):g}")
        ax.plot(rate, row["adiabatic_width"], color=colour, lw=1.0, ls="--")
        ax.errorbar(rate, row["width"], yerr=2 * row["width_error"], fmt=MARKERS[number], ms=5, capsize=2, color=colour)
    ax.set_xscale("log")
    ax.set_xlabel(label("ramp_rate"))
    ax.set_ylabel("width of the loop [loss/weight²]")
    ax.legend(frameon=False, fontsize="small")
    return ax


def learning_curves(schedules: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the share that has not learned against the step, one colour for each schedule, predicted lines beneath.

    Parameters
    ----------
    schedules : Dataset
        ``learn_step`` and ``escaped`` (schedule, replica), ``predicted_survival`` (schedule, step).
    ax : Axes, optional
    """
    ax = axes(ax)
    for number, name in enumerate(schedules["schedule"].values.tolist()):
        row, colour = schedules.sel(schedule=name), CYCLE[number % len(CYCLE)]
        style: dict[str, Any] = {"ls": "-" if number < len(CYCLE) else "-."}
        ax.plot(row["step"], row["predicted_survival"], color=colour, lw=1.2, label=name, **style)
        left = row["escaped"].values.astype(bool)
        at = np.sort(row["learn_step"].values[left])
        share = 1 - np.arange(1, at.size + 1) / left.size
        ax.step(at, share, where="post", color=colour, lw=3.0, alpha=0.3)
    ax.set_xlabel(label("step"))
    ax.set_ylabel("share that has not learned")
    # Beside the axes: curves fill them
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
