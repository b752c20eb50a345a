"""Hysteresis: loops in weight decay, staircases of features, returns with noise, area against complexity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.style import CYCLE, MARKERS, axes, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["hysteresis_loop", "loop_area", "returns", "staircase"]


def _require(ds: xr.Dataset, names: tuple[str, ...], made_by: str) -> None:
    missing = [name for name in names if name not in ds.variables]
    if missing:
        raise InvalidParameterError(
            f"the data set has no `{'`, `'.join(missing)}`, it holds {sorted(map(str, ds.variables))}.\n"
            f"Use the result of `{made_by}`."
        )


def hysteresis_loop(ds: xr.Dataset, ax: Axes | None = None, *, max_features: int = 12) -> Axes:
    """Draw order parameters of a sweep up and down, with predicted branches and spinodals.

    Parameters
    ----------
    ds : Dataset
        From `kramers_grok.escape.protocols.hysteresis_loop`.
    ax : Axes, optional
    max_features : int
        Features drawn at most.

    Raises
    ------
    InvalidParameterError
        If the branches are missing.
    """
    _require(ds, ("up", "down"), "hysteresis_loop")
    ax = axes(ax)
    x = ds["weight_decay"].values
    for k in range(min(ds.sizes["feature"], max_features)):
        colour = CYCLE[k % len(CYCLE)]
        # One way visits values that the other does not: lines go on across them.
        up, down = (ds[way].isel(feature=k).dropna("weight_decay") for way in ("up", "down"))
        ax.plot(up["weight_decay"], up, "-", color=colour, lw=1.6, label=f"feature {k + 1}")
        ax.plot(down["weight_decay"], down, "--", color=colour, lw=1.6)
        if "predicted_up" in ds:
            ax.plot(x, ds["predicted_up"].isel(feature=k), ":", color="black", lw=1.0, zorder=5)
        if "spinodal" in ds.coords and np.isfinite(float(ds["jump"].isel(feature=k))):
            at, fall = float(ds["spinodal"].isel(feature=k)), -float(ds["jump"].isel(feature=k))
            ax.plot(at, fall, "v", color=colour, ms=6, mec="black", mew=0.6, zorder=6)
    ax.plot([], [], "k-", lw=1.4, label="λ rising")
    ax.plot([], [], "k--", lw=1.2, label="λ falling, no noise")
    if "predicted_up" in ds:
        ax.plot([], [], "k:", lw=1.0, label="predicted branch")
        ax.plot([], [], "kv", ms=6, ls="none", label="predicted spinodal")
    _decay_axis(ax, float(x.min()), float(x.max()))
    ax.set_ylabel(label("order_parameter"))
    ax.set_ylim(-0.04 * float(ds["up"].max()), 1.08 * float(ds["up"].max()))
    ax.legend(frameon=False, fontsize="x-small", ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def staircase(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw every feature's order parameter on the way up as a heat map, with predicted spinodals and brackets.

    Parameters
    ----------
    ds : Dataset
        From `kramers_grok.escape.protocols.hysteresis_loop`, of a model that knows its features.
    ax : Axes, optional

    Raises
    ------
    InvalidParameterError
        If the way up is missing.
    """
    _require(ds, ("up", "before", "after"), "hysteresis_loop")
    ax = axes(ax)
    shown = ds["up"].dropna("weight_decay", how="all")
    x, n = shown["weight_decay"].values, ds.sizes["feature"]
    edges = np.concatenate([[x[0]], np.sqrt(x[1:] * x[:-1]), [x[-1]]])
    colours = ax.pcolormesh(
        edges, np.arange(n + 1) + 0.5, shown.values.T, cmap="Blues", vmin=0.0, vmax=float(shown.max()), rasterized=True
    )
    for k in range(n):
        if "spinodal" in ds.coords:
            at = float(ds["spinodal"].isel(feature=k))
            ax.plot(
                [at, at], [k + 0.5, k + 1.5], color=CYCLE[1], lw=1.6, label="predicted spinodal" if k == 0 else None
            )
    ax.figure.colorbar(colours, ax=ax, label=label("order_parameter"))
    _decay_axis(ax, float(x.min()), float(x.max()))
    ax.set_ylabel("feature, strongest first")
    ax.set_yticks(np.arange(1, n + 1))
    ax.invert_yaxis()
    ax.legend(fontsize="small", loc="upper left", framealpha=0.9)
    return ax


def returns(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw which fraction of replicas has got each feature back, while λ goes down in stairs, and the prediction.

    Parameters
    ----------
    ds : Dataset
        ``returned``, ``predicted_lower`` and ``predicted_upper`` (feature, weight_decay); optionally ``spinodal``.
    ax : Axes, optional

    Raises
    ------
    InvalidParameterError
        If one of them is missing.
    """
    _require(ds, ("returned", "predicted_lower", "predicted_upper"), "the arm `hysteresis`")
    ax = axes(ax)
    x = ds["weight_decay"].values
    for k in range(ds.sizes["feature"]):
        colour, row = CYCLE[k % len(CYCLE)], ds.isel(feature=k)
        ax.fill_between(x, row["predicted_lower"], row["predicted_upper"], color=colour, alpha=0.3, lw=0)
        ax.plot(x, row["returned"], MARKERS[k % len(MARKERS)], color=colour, ms=4.5, label=f"feature {k + 1}")
    ax.fill_between([], [], [], color="grey", alpha=0.4, label="predicted")
    _decay_axis(ax, float(x.min()), float(x.max()))
    ax.set_xlim(1.02 * float(x.max()), float(x.min()) / 1.02)
    ax.set_ylabel("fraction that has returned")
    ax.set_ylim(-0.04, 1.27)  # features fill the panel from left to right: the legend goes above them
    ax.legend(frameon=False, fontsize="small", loc="upper center", ncols=3, columnspacing=1.2, handletextpad=0.4)
    return ax


def loop_area(families: dict[str, xr.Dataset], ax: Axes | None = None) -> Axes:
    """Draw the area of all hysteresis loops against the number of features, measured and predicted, and the jumps.

    Parameters
    ----------
    families : dict of str to Dataset
        Each with ``area``, ``predicted_area``, ``n_jumps`` along ``n_features``; areas are drawn relative to each
        family's largest.
    ax : Axes, optional

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax)
    beside: Any = ax.twinx()
    highest = 1
    for number, (name, ds) in enumerate(families.items()):
        _require(ds, ("area", "predicted_area", "n_jumps", "n_features"), "the arm `hysteresis`")
        colour, x = CYCLE[number % len(CYCLE)], ds["n_features"].values
        scale = float(ds["predicted_area"].max())
        ax.plot(x, ds["predicted_area"] / scale, "-", color=colour, lw=1.2)
        ax.plot(x, ds["area"] / scale, MARKERS[number], color=colour, ms=6, label=f"{name}: area")
        beside.plot(x, ds["n_jumps"], MARKERS[number], mfc="none", color=colour, ms=9, label=f"{name}: jumps")
        highest = max(highest, int(x.max()))
    ax.plot([], [], "k-", lw=1.2, label="predicted area")
    beside.plot([0, highest], [0, highest], ":", color="grey", lw=1.0)
    ax.set_xlabel("features: rank of the teacher, or dimension of the data")
    ax.set_ylabel("area of all loops / largest")
    beside.set_ylabel("number of jumps (open symbols, dotted: one a feature)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    beside.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, 1.15)
    beside.set_ylim(0, 1.15 * highest)
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def _decay_axis(ax: Axes, low: float, high: float) -> None:
    """Label the axis of weight decay; logarithmic where it spans much."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    if high > 4 * low:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 20 * low else (1,)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(low, high)
    ax.set_xlabel(label("weight_decay"))
