"""Losses against time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import xarray as xr

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.style import CYCLE, axes, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["grokking"]


def grokking(
    curves: Mapping[str, xr.DataArray] | xr.DataArray,
    ax: Axes | None = None,
    *,
    time: str = "time",
    interval: float = 0.8,
) -> Axes:
    """Draw loss curves against the logarithm of time: the median over replicas, and a quantile band.

    Parameters
    ----------
    curves : DataArray or mapping of DataArray
        Dimensions (replica, time), by name; or one array with a further dimension, one curve for each of its
        entries (e.g. ``lr_over_batch``).
    ax : Axes, optional
    time : str
        Name of the time dimension; its coordinate is the abscissa, points at t <= 0 are left out.
    interval : float
        Share of replicas in the band.

    Raises
    ------
    InvalidParameterError
        If a curve lacks the time dimension.
    """
    interval = checks.fraction("interval", interval)
    named = _named_curves(curves, time)
    ax = axes(ax)
    losses: list[str] = []
    for number, (name, loss) in enumerate(named.items()):
        if time not in loss.dims:
            raise InvalidParameterError(
                f"curve {name!r} has dimensions {loss.dims}, expected {time!r} among them.\n"
                "Rename it: `loss.rename(step='time')`, or pass `time='step'`."
            )
        loss = loss.where(loss[time] > 0, drop=True)
        x, colour = loss[time].values, CYCLE[number % len(CYCLE)]
        others = [d for d in loss.dims if d != time]
        if others:
            tail = 0.5 * (1.0 - interval)
            low, middle, high = loss.quantile([tail, 0.5, 1.0 - tail], dim=others).transpose("quantile", time).values
            ax.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        else:
            middle = loss.values
        ax.plot(x, middle, color=colour, lw=1.3, label=name)
        losses.append(label(loss[time]))
        ax.set_ylabel(label(loss) or label("loss"))
    ax.set_xscale("log")
    ax.set_xlabel(losses[0] if losses else label("time"))
    ax.legend(frameon=False, fontsize="small")
    return ax


def _named_curves(curves: Mapping[str, xr.DataArray] | xr.DataArray, time: str) -> dict[str, xr.DataArray]:
    """Split one array along its further dimension into named curves."""
    if not isinstance(curves, xr.DataArray):
        return dict(curves)
    further = [d for d in curves.dims if d not in (time, "replica", "quantile")]
    if not further:
        return {"loss" if curves.name is None else str(curves.name): curves}
    dim = further[0]
    values = curves[dim].values.tolist()
    title = label(curves[dim]).split(" [")[0]
    return {
        f"{title} = {value:.4g}" if isinstance(value, int | float) else str(value): curves.isel({dim: number})
        for number, value in enumerate(values)
    }
