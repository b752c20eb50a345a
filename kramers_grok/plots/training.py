"""Losses against time, and where curves of grokking exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.inputs import named, require, single
from kramers_grok.plots.style import CYCLE, axes, drawn, label, legend, look, sparse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["grokking", "grokking_map", "train_and_test"]

_MAKE = "trace(process, state, steps, [Loss(data, name='loss')])"
_MAKE_BOTH = "trace(process, state, steps, [Loss(data, name='train_loss'), Loss(test, name='test_loss')])"
_MAKE_MAP = "the main job: tree['subsampling/map']"
# What a data set's curve is called, the first that is there
_LOSSES = ("loss", "population_loss", "test_loss", "train_loss")


@drawn
def grokking(
    curves: xr.Dataset | xr.DataTree | xr.DataArray | Mapping[str, xr.DataArray | xr.Dataset],
    ax: Axes | None = None,
    *,
    time: str = "time",
    interval: float = 0.8,
) -> Axes:
    """Draw loss curves against the logarithm of time: the median over replicas, and a quantile band.

    Parameters
    ----------
    curves : Dataset, DataArray or mapping of them
        A data set with ``loss`` (or ``population_loss``, ``test_loss``, ``train_loss``: the first that is there) of
        dimensions (replica, time), or such an array; several by name, or one with a further dimension, one curve for
        each of its entries (e.g. ``lr_over_batch``).
    ax : Axes, optional
    time : str
        Name of the time dimension; its coordinate is the abscissa, points at t <= 0 are left out.
    interval : float
        Share of replicas in the band.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If there is no loss, or a curve lacks the time dimension.
    """
    interval = checks.fraction("interval", interval)
    found = _named_curves(curves, time)
    for name, loss in found.items():
        if time not in loss.dims:
            raise InvalidParameterError(
                f"curve {name!r} has dimensions {loss.dims}, expected {time!r} among them.\n"
                "Rename it: `loss.rename(step='time')`, or pass `time='step'`."
            )
    ax = axes(ax)
    for number, (name, loss) in enumerate(found.items()):
        loss = loss.where(loss[time] > 0, drop=True)
        x, own = loss[time].values, look(number)
        others = [d for d in loss.dims if d != time]
        if others:
            tail = 0.5 * (1.0 - interval)
            low, middle, high = loss.quantile([tail, 0.5, 1.0 - tail], dim=others).transpose("quantile", time).values
            ax.fill_between(x, low, high, color=own.colour, alpha=0.2, lw=0)
        else:
            middle = loss.values
        marks: dict[str, Any] = {"marker": own.marker, "mfc": "white", "markevery": sparse(number)}
        ax.plot(x, middle, color=own.colour, label=name, **marks)
    first = next(iter(found.values()))
    ax.set_xscale("log")
    ax.set_xlabel(label(first[time]) or label("time"))
    ax.set_ylabel(label(first) or label("loss"))
    legend(ax)
    return ax


def _named_curves(curves: Any, time: str) -> dict[str, xr.DataArray]:
    """Loss curves by name; one array is split along its further dimension."""
    if isinstance(curves, Mapping) and not isinstance(curves, xr.Dataset | xr.DataTree):
        if not curves:
            raise InvalidParameterError(f"there is nothing to draw: the mapping is empty.\nMake it with `{_MAKE}`.")
        return {name: each if isinstance(each, xr.DataArray) else _loss_of(each) for name, each in curves.items()}
    loss = curves if isinstance(curves, xr.DataArray) else _loss_of(curves)
    further = [d for d in loss.dims if d not in (time, "replica", "quantile")]
    if not further or time not in loss.dims:
        return {"loss" if loss.name is None else str(loss.name): loss}
    dim = further[0]
    whole = loss.to_dataset(name="loss")
    return {named(whole, dim, number): loss.isel({dim: number}) for number in range(loss.sizes[dim])}


def _loss_of(data: Any) -> xr.DataArray:
    ds = single("the run", data, _MAKE)
    name = next((name for name in _LOSSES if name in ds), None)
    if name is None:
        require("the run", ds, ("loss",), _MAKE)  # raises
    return ds[str(name)]


@drawn
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

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a loss is missing.
    """
    share = checks.fraction("interval", interval)
    run = single("the run", run, _MAKE_BOTH)
    require("the run", run, ("train_loss", "test_loss"), _MAKE_BOTH)
    ax = axes(ax)
    for number, name in enumerate(("train", "test")):
        loss, own = run[f"{name}_loss"], look(number)
        time = loss["time"].values
        tail = 0.5 * (1.0 - share)
        low, high = loss.quantile([tail, 1.0 - tail], dim="replica").transpose("quantile", "time").values
        ax.fill_between(time, low, high, color=own.colour, alpha=0.2, lw=0)
        marks: dict[str, Any] = {"marker": own.marker, "mfc": "white", "markevery": sparse(number)}
        ax.plot(time, loss.mean("replica").values, color=own.colour, lw=1.4, label=f"{name} error", **marks)
        if f"{name}_predicted" in run:
            style: dict[str, Any] = {"color": own.colour, "lw": 1.0, "ls": ("--", ":")[number]}
            ax.plot(time, run[f"{name}_predicted"].values, label=f"{name}, predicted", **style)
    ax.set_xscale("log")
    ax.set_xlabel(label(run["train_loss"]["time"]))
    ax.set_ylabel("error [loss]")
    if legend:
        ax.legend()
    return ax


@drawn
def grokking_map(verdicts: xr.Dataset, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw where curves of grokking exist in the plane of samples per input and weight decay.

    Parameters
    ----------
    verdicts : Dataset
        ``measured`` and ``predicted`` (samples_per_input, weight_decay), boolean.
    ax : Axes, optional
    legend : bool

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a verdict is missing or has other dimensions.
    """
    dims = ("samples_per_input", "weight_decay")
    verdicts = single("the map", verdicts, _MAKE_MAP)
    require("the map", verdicts, ("measured", "predicted"), _MAKE_MAP)
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
    ax.set_xlabel(label(verdicts["samples_per_input"]).split(" [")[0])
    ax.set_ylabel(label(verdicts["weight_decay"]))
    if legend:
        # Beside the axes: marks fill them
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
