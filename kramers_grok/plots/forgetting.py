"""Figures of forgetting: where the diffusion limit may be trusted, and where one dimension stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from kramers_grok.plots.inputs import require, single
from kramers_grok.plots.style import axes, drawn, label, legend, look, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["diffusion_departure", "extra_dimensions"]

_MAKE_MAP = "make evidence NAME=forgetting_map: tree['map']"
_MAKE_RUNS = "make evidence NAME=forgetting_map: tree['dimensions']"
# Between these barriers S'/ε runs can wait for the escape
_METASTABLE = (2.0, 15.0)


@drawn
def diffusion_departure(table: xr.Dataset, *, label_noise: float, ax: Axes | None = None) -> Axes:
    """Draw how much longer SGD takes to forget than its diffusion limit, over λ and ε = η/B.

    Parameters
    ----------
    table : Dataset
        `log_departure` and `action_over_ratio` over `weight_decay`, `label_noise`, `lr_over_batch`.
    label_noise : float
        The s to draw; must be on the table's grid.
    ax : Axes, optional

    Returns
    -------
    Axes
        Contours of the factor, only where the barrier S'/ε of the diffusion limit is between 2 and 15 (dotted lines):
        below nothing is metastable, above nobody waits.

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    table = single("the table", table, _MAKE_MAP)
    needed = ("log_departure", "action_over_ratio", "weight_decay", "label_noise", "lr_over_batch")
    require("the table", table, needed, _MAKE_MAP)
    ax = axes(ax)
    cut = table.sel(label_noise=label_noise, method="nearest").transpose("lr_over_batch", "weight_decay")
    low, high = _METASTABLE
    grid, barriers = (cut.weight_decay, cut.lr_over_batch), cut.action_over_ratio
    levels = [1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0]
    # Where nothing is metastable the laws overflow or mean nothing: kept on the scale, and then painted over
    factor = np.exp(cut.log_departure.clip(0.0, np.log(levels[-1])))
    drawn = ax.contourf(*grid, factor, levels=levels, cmap="viridis_r", norm="log", extend="max")
    for outside in ([0.0, low], [high, np.inf]):
        ax.contourf(*grid, barriers.clip(0.0, 1e3), levels=np.minimum(outside, 1e3), colors="w")
    lines = ax.contour(*grid, barriers, levels=[low, 5.0, high], colors="k", linestyles=":")
    ax.clabel(lines, fmt=lambda value: f"S'/ε = {value:g}", fontsize="small")
    bar = ax.figure.colorbar(drawn, ax=ax, label="SGD's mean time over the diffusion limit's", ticks=levels)
    bar.ax.set_yticklabels([f"{value:g}" for value in levels])
    bar.ax.minorticks_off()
    ax.set_yscale("log")
    ax.set(xlabel=label(cut.weight_decay), ylabel=label(cut.lr_over_batch), title=f"label noise s = {label_noise:g}")
    return ax


@drawn
def extra_dimensions(table: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw measured times to forget over the exact time of the one mode, against the predicted factor.

    Parameters
    ----------
    table : Dataset
        Along `run`: `mean_exit_time`, `standard_error`, `predicted_time`, `predicted_factor`, `n_inputs`, `n_outputs`,
        `width` and `batch_size`.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    table = single("the table", table, _MAKE_RUNS)
    needed = ("mean_exit_time", "standard_error", "predicted_time", "predicted_factor", "n_inputs", "n_outputs")
    require("the table", table, needed, _MAKE_RUNS)
    ax = axes(ax)
    ratio = table.mean_exit_time / table.predicted_time
    error = 1.96 * table.standard_error / table.predicted_time
    groups = {
        "more inputs": table.n_outputs == 1,
        "more outputs": (table.n_inputs == 1) & (table.n_outputs > 1),
        "both": (table.n_inputs > 1) & (table.n_outputs > 1),
    }
    for number, (name, rows) in enumerate(groups.items()):
        x, y, e = (v.values[rows.values] for v in (table.predicted_factor, ratio, error))
        ax.errorbar(x, y, e, label=name, **look(number).points())
    ends = np.array([float(table.predicted_factor.min()) * 0.85, 1.15])
    ax.plot(ends, ends, "k-", lw=1, label="as predicted")
    ax.axhline(1.0, color="k", ls=":", lw=1, label="one mode")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="predicted factor of the mean time",
        ylabel="measured / exact time of one mode",
    )
    plain_ticks(ax.xaxis)
    plain_ticks(ax.yaxis)
    legend(ax)
    return ax
