"""Hysteresis: loops in weight decay, staircases of features, returns with noise, area against complexity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.plots.inputs import Data, groups, require, single
from kramers_grok.plots.style import axes, drawn, label, legend, look, looks, sparse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["hysteresis_loop", "loop_area", "returns", "staircase"]

_MAKE = "hysteresis_loop(process, weight_decays, start=..., seed=...)"
_MAKE_RETURNS = "the main job: tree['hysteresis/return_stairs']"
_MAKE_AREA = "the main job: tree['hysteresis/complexity_teacher']"


@drawn
def hysteresis_loop(ds: xr.Dataset, ax: Axes | None = None, *, max_features: int = 12) -> Axes:
    """Draw order parameters of a sweep up and down, with predicted branches and spinodals.

    Parameters
    ----------
    ds : Dataset
        From `kramers_grok.escape.protocols.hysteresis_loop`.
    ax : Axes, optional
    max_features : int
        Features drawn at most.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If the branches are missing.
    """
    ds = single("the loop", ds, _MAKE)
    require("the loop", ds, ("up", "down", "weight_decay"), _MAKE)
    ax = axes(ax)
    x = ds["weight_decay"].values
    for k in range(min(ds.sizes["feature"], max_features)):
        row, own = ds.isel(feature=k), look(k)
        # One way visits values that the other does not: lines go on across them.
        up, down = (row[way].dropna("weight_decay") for way in ("up", "down"))
        marks: dict[str, Any] = {"marker": own.marker, "mfc": "white", "markevery": sparse(k, 6)}
        ax.plot(up["weight_decay"].values, up.values, color=own.colour, lw=1.6, label=f"feature {k + 1}", **marks)
        ax.plot(down["weight_decay"].values, down.values, ls="--", color=own.colour, lw=1.6)
        if "predicted_up" in ds:
            ax.plot(x, row["predicted_up"].values, ":", color="black", lw=1.0, zorder=5)
        if {"spinodal", "jump"} <= set(ds.variables) and np.isfinite(float(row["jump"])):
            at, fall = float(row["spinodal"]), -float(row["jump"])
            ax.plot(at, fall, "v", color=own.colour, ms=6, mec="black", mew=0.6, zorder=6)
    ax.plot([], [], "k-", lw=1.4, label="λ rising")
    ax.plot([], [], "k--", lw=1.2, label="λ falling")
    if "predicted_up" in ds:
        ax.plot([], [], "k:", lw=1.0, label="predicted branch")
        ax.plot([], [], "kv", ms=6, ls="none", label="predicted spinodal")
    _decay_axis(ax, ds)
    ax.set_ylabel(label(ds["up"]) if "long_name" in ds["up"].attrs else label("order_parameter"))
    ax.set_ylim(-0.04 * float(ds["up"].max()), 1.08 * float(ds["up"].max()))
    legend(ax, fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


@drawn
def staircase(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw every feature's order parameter on the way up as a heat map, with its fall and the predicted spinodal.

    Parameters
    ----------
    ds : Dataset
        From `kramers_grok.escape.protocols.hysteresis_loop`, of a model that knows its features. With ``before`` and
        ``after`` (feature) the fall is marked in the middle of its bracket.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If the way up is missing.
    """
    ds = single("the loop", ds, _MAKE)
    require("the loop", ds, ("up", "weight_decay"), _MAKE)
    ax = axes(ax)
    shown = ds["up"].transpose("weight_decay", "feature").dropna("weight_decay", how="all")
    x, n = shown["weight_decay"].values, ds.sizes["feature"]
    edges = np.concatenate([[x[0]], np.sqrt(x[1:] * x[:-1]), [x[-1]]])
    heat: dict[str, Any] = {"cmap": "Blues", "vmin": 0.0, "vmax": float(shown.max()), "rasterized": True}
    mesh = ax.pcolormesh(edges, np.arange(n + 1) + 0.5, shown.values.T, **heat)
    if "spinodal" in ds.variables:
        # Black in white: seen on every shade
        for text, colour, width in ((None, "white", 3.4), ("predicted spinodal", "black", 1.5)):
            for k, at in enumerate(ds["spinodal"].values):
                ax.plot([at, at], [k + 0.5, k + 1.5], color=colour, lw=width, label=text if k == 0 else None)
    if {"before", "after"} <= set(ds.variables):
        fall = np.sqrt(ds["before"].values * ds["after"].values)
        style: dict[str, Any] = {"color": "black", "mfc": "white", "ms": 4.5, "label": "fall, measured"}
        ax.plot(fall, np.arange(1, n + 1), ls="none", marker="o", zorder=4, **style)
    text = label(ds["up"]) if "long_name" in ds["up"].attrs else label("order_parameter")
    ax.figure.colorbar(mesh, ax=ax, label=text)
    _decay_axis(ax, ds)
    ax.set_ylabel("feature, strongest first")
    ax.set_yticks(np.arange(1, n + 1))
    ax.invert_yaxis()
    legend(ax, loc="upper left", frameon=True, framealpha=0.9)
    return ax


@drawn
def returns(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw which fraction of replicas has got each feature back, while λ goes down in stairs, and the prediction.

    Parameters
    ----------
    ds : Dataset
        ``returned``, ``predicted_lower`` and ``predicted_upper`` (feature, weight_decay); optionally ``spinodal``.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If one of them is missing.
    """
    ds = single("the stairs", ds, _MAKE_RETURNS)
    require("the stairs", ds, ("returned", "predicted_lower", "predicted_upper", "weight_decay"), _MAKE_RETURNS)
    ax = axes(ax)
    x = ds["weight_decay"].values
    for k in range(ds.sizes["feature"]):
        own, row = look(k), ds.isel(feature=k)
        low, high = row["predicted_lower"].values, row["predicted_upper"].values
        ax.fill_between(x, low, high, color=own.colour, alpha=0.3, lw=0)
        ax.plot(x, row["returned"].values, **own.points(mfc=own.colour, ms=4.5, label=f"feature {k + 1}"))
    ax.fill_between([], [], [], color="grey", alpha=0.4, label="predicted")
    _decay_axis(ax, ds)
    ax.set_xlim(1.02 * float(x.max()), float(x.min()) / 1.02)
    ax.set_ylabel("fraction that has returned")
    ax.set_ylim(-0.04, 1.27)  # features fill the panel from left to right: the legend goes above them
    legend(ax, loc="upper center", ncols=3, columnspacing=1.2, handletextpad=0.4)
    return ax


@drawn
def loop_area(families: Data, ax: Axes | None = None) -> Axes:
    """Draw the area of all hysteresis loops against the number of features, measured and predicted, and the jumps.

    Parameters
    ----------
    families : Dataset, DataTree or mapping of Dataset
        Each with ``area``, ``predicted_area``, ``n_jumps`` along ``n_features``; areas are drawn relative to each
        family's largest.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    from matplotlib.ticker import MaxNLocator

    given = groups(families, _MAKE_AREA)
    for name, ds in given.items():
        require(f"family {name!r}", ds, ("area", "predicted_area", "n_jumps", "n_features"), _MAKE_AREA)
    ax = axes(ax)
    beside: Any = ax.twinx()
    highest, shown = 1, looks(given)
    for name, ds in given.items():
        own, x = shown[name], ds["n_features"].values
        scale = float(ds["predicted_area"].max())
        ax.plot(x, ds["predicted_area"].values / scale, lw=1.2, **own.line())
        filled = own.points(mfc=own.colour, ms=6, label=f"{name}: area")
        ax.plot(x, ds["area"].values / scale, **filled)
        beside.plot(x, ds["n_jumps"].values, **own.points(mfc="none", ms=9, label=f"{name}: jumps"))
        highest = max(highest, int(x.max()))
    ax.plot([], [], "k-", lw=1.2, label="predicted area")
    ax.plot([], [], ":", color="grey", lw=1.0, label="one jump a feature")
    beside.plot([0, highest], [0, highest], ":", color="grey", lw=1.0)
    ax.set_xlabel("features: rank of the teacher, or dimension of the data")
    ax.set_ylabel("area of all loops / largest")
    beside.set_ylabel("number of jumps (open symbols)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    beside.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, 1.15)
    beside.set_ylim(0, 1.15 * highest)
    legend(ax, loc="upper left")
    return ax


def _decay_axis(ax: Axes, ds: xr.Dataset) -> None:
    """Label the axis of weight decay; logarithmic where it spans much."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    low, high = float(ds["weight_decay"].min()), float(ds["weight_decay"].max())
    if high > 4 * low:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 20 * low else (1,)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(low, high)
    ax.set_xlabel(label(ds["weight_decay"]))
