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

__all__ = ["grokking", "grokking_map", "train_and_test"]


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


def train_and_test(run: xr.Dataset, ax: Axes | None = None, *, interval: float = 0.8, legend: bool = True) -> Axes:
    """Draw train and test error of one run against the logarithm of time, with the predicted means where given.

    Lines are means over the replicas: the median of a loss that falls in one step does so at one time, whatever the
    law of the escape. Bands hold `interval` of the replicas.

    Parameters
    ----------
    run : Dataset
        ``train_loss`` and ``test_loss`` (replica, time); ``train_predicted`` and ``test_predicted`` (time) if there.
    ax : Axes, optional
    interval : float
    legend : bool

    Raises
    ------
    InvalidParameterError
        If a loss is missing.
    """
    share = checks.fraction("interval", interval)
    missing = [name for name in ("train_loss", "test_loss") if name not in run]
    if missing:
        raise InvalidParameterError(
            f"the run has no `{'`, `'.join(missing)}`, it holds {sorted(map(str, run.data_vars))}.\n"
            "Use `trace(process, state, steps, [Loss(data, name='train_loss'), Loss(test, name='test_loss')])`."
        )
    ax = axes(ax)
    for name, colour in (("train", CYCLE[0]), ("test", CYCLE[1])):
        loss = run[f"{name}_loss"]
        time = loss["time"].values
        tail = 0.5 * (1.0 - share)
        low, high = loss.quantile([tail, 1.0 - tail], dim="replica").transpose("quantile", "time").values
        ax.fill_between(time, low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(time, loss.mean("replica").values, color=colour, lw=1.4, label=f"{name} error")
        if f"{name}_predicted" in run:
            ax.plot(time, run[f"{name}_predicted"].values, color=colour, lw=1.0, ls="--", label=f"{name}, predicted")
    ax.set_xscale("log")
    ax.set_xlabel(label("time"))
    ax.set_ylabel("error [loss]")
    if legend:
        ax.legend(frameon=False, fontsize="small")
    return ax


def grokking_map(verdicts: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw where curves of grokking exist in the plane of samples per input and weight decay.

    Parameters
    ----------
    verdicts : Dataset
        ``measured`` and ``predicted`` (samples_per_input, weight_decay), boolean.
    ax : Axes, optional

    Raises
    ------
    InvalidParameterError
        If a verdict has other dimensions.
    """
    dims = ("samples_per_input", "weight_decay")
    for name in ("measured", "predicted"):
        if set(verdicts[name].dims) != set(dims):
            raise InvalidParameterError(
                f"`{name}` has dimensions {verdicts[name].dims}, expected {dims}.\n"
                "Select one batch size first: `verdicts.sel(batch_size=2)`."
            )
    ax = axes(ax)
    measured, predicted = (verdicts[name].transpose(*dims).values for name in ("measured", "predicted"))
    edges = range(len(verdicts["samples_per_input"])), range(len(verdicts["weight_decay"]))
    for i in edges[0]:
        for j in edges[1]:
            if predicted[i, j]:
                ax.scatter(i, j, marker="s", s=330, color=CYCLE[1], alpha=0.25, lw=0)
            ax.scatter(i, j, s=45, color=CYCLE[0], facecolor=CYCLE[0] if measured[i, j] else "none")
    ax.scatter([], [], marker="s", s=110, color=CYCLE[1], alpha=0.25, lw=0, label="curve predicted")
    ax.scatter([], [], s=45, color=CYCLE[0], label="curve measured")
    ax.scatter([], [], s=45, color=CYCLE[0], facecolor="none", label="no curve measured")
    ax.set_xticks(list(edges[0]), [f"{v:g}" for v in verdicts["samples_per_input"].values])
    ax.set_yticks(list(edges[1]), [f"{v:g}" for v in verdicts["weight_decay"].values])
    ax.set_xlim(-0.5, len(edges[0]) - 0.5)
    ax.set_ylim(-0.5, len(edges[1]) - 0.5)
    ax.set_xlabel(label("samples_per_input").split(" [")[0])
    ax.set_ylabel(label("weight_decay"))
    return ax
