"""Rates beyond brute force: what an answer costs, whether the theory holds, and where a difference comes from."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.budget import BUDGET_COLUMNS
from kramers_grok.analysis.cost import cost_exponent, with_cost
from kramers_grok.analysis.extrapolation import extrapolated_ratio
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.inputs import Data, groups, named, require, single
from kramers_grok.plots.style import HATCHES, axes, drawn, label, legend, look, looks, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["error_budget", "ratio_extrapolation", "splitting_cost"]

_MAKE_COST = "analysis.splitting_cost(runs, barrier.height)"
_MAKE_RATIO = "xr.Dataset({'x': ..., 'ratio': ..., 'ratio_error': ...})"
_MAKE_BUDGET = "compare(system=chain, target=target, ...)['table']"


@drawn
def splitting_cost(tables: Data, ax: Axes | None = None) -> Axes:
    """Draw the cost of splitting against the barrier, with its fitted power law, and brute force beside it.

    Parameters
    ----------
    tables : Dataset, DataTree or mapping of Dataset
        One, or several by the system's name, from `kramers_grok.analysis.splitting_cost`: ``cost`` along one dimension
        with ``barrier_over_temperature``; or a study's node, whose cells made by splitting are taken. With three
        barriers or more the law is fitted.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a table lacks ``cost`` or ``barrier_over_temperature``.
    """
    given = {name: with_cost(table) for name, table in groups(tables, _MAKE_COST).items()}
    for name, table in given.items():
        require(f"table {name!r}", table, ("cost", "barrier_over_temperature"), _MAKE_COST)
    ax = axes(ax)
    percent = 10.0
    shown = looks(given)
    for name, table in given.items():
        percent = 100 * float(table.attrs.get("relative_error", 0.1))
        own, x, text = shown[name], table["barrier_over_temperature"].values, name
        if np.unique(x).size > 2 and "cost_error" in table:
            fit = cost_exponent(table)
            text += f": exponent {fit.exponent:.2f} ± {fit.standard_error:.2f}"
            fine = np.geomspace(x.min(), x.max(), 50)
            ax.plot(fine, fit.predict(fine), color=own.colour, lw=1.2, zorder=1)
        cost = table["cost"].values
        bars = _log_bars(cost, table["cost_error"].values) if "cost_error" in table else None
        ax.errorbar(x, cost, bars, label=text, **own.points())
        if "brute_force_cost" in table:
            ax.plot(x, table["brute_force_cost"].values, ":", color=own.colour, marker=own.marker, ms=2.5, lw=1.2)
    if any("brute_force_cost" in table for table in given.values()):
        ax.plot([], [], "k:", lw=1.2, label="brute force")
    ax.set_yscale("log")
    ax.set_xscale("log")
    plain_ticks(ax.xaxis, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
    ax.set_xlabel(label(next(iter(given.values()))["barrier_over_temperature"]))
    ax.set_ylabel(f"replica steps for {percent:g} % error")
    legend(ax)
    return ax


def _log_bars(values: Any, relative: Any) -> Any:
    """Error bars of a factor exp(±relative): they stay positive on a logarithmic axis."""
    return np.abs(np.stack([values * np.expm1(-relative), values * np.expm1(relative)]))


@drawn
def ratio_extrapolation(table: xr.Dataset, ax: Axes | None = None, *, tolerance: float = 0.03) -> Axes:
    """Draw simulated over predicted mean times against T/ΔF, with the quadratic fits and their intercepts.

    Parameters
    ----------
    table : Dataset
        ``x`` (T/ΔF), ``ratio`` and ``ratio_error`` along (case, point), or along one dimension for a single case;
        names in the coordinate ``case``. NaN marks a missing point.
    ax : Axes, optional
    tolerance : float
        Half width of the band about 1.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    table = single("the table", table, _MAKE_RATIO)
    require("the table", table, ("x", "ratio", "ratio_error"), _MAKE_RATIO)
    if "case" not in table.dims:
        table = table.expand_dims("case")
    ax = axes(ax)
    ax.axhspan(1 - tolerance, 1 + tolerance, color="0.92", zorder=0)
    ax.axhline(1, color="black", lw=0.8, zorder=1)
    for number in range(table.sizes["case"]):
        row, own = table.isel(case=number), look(number)
        good = np.isfinite(row["ratio"].values)
        x, ratio, error = (row[name].values[good] for name in ("x", "ratio", "ratio_error"))
        fit = extrapolated_ratio(x, ratio, error)
        name = f"{row['case'].values}: " if "case" in row.coords else ""
        text = f"{name}{fit.intercept:.3f} ± {fit.standard_error:.3f}"
        fine = np.linspace(0, x.max(), 100)
        middle, band = fit.predict(fine), fit.band(fine)
        ax.plot(fine, middle, lw=1.1, zorder=2, **own.line())
        ax.fill_between(fine, middle - band, middle + band, color=own.colour, alpha=0.15, lw=0)
        ax.errorbar(x, ratio, error, label=text, zorder=3, **own.points())
        # Beside the axis, a little apart, so that the cases' intercepts can be told apart
        aside = -(number + 1) * 0.012 * float(np.nanmax(table["x"]))
        ax.errorbar([aside], [fit.intercept], [fit.standard_error], zorder=3, **own.points(mfc=own.colour))
    ax.axvline(0, color="0.6", lw=0.8)
    ax.set_xlabel(label(table["x"]) if "long_name" in table["x"].attrs else "temperature over barrier T/ΔF")
    ax.set_ylabel("simulated over predicted mean time")
    legend(ax, title="intercept")
    return ax


@drawn
def error_budget(table: xr.Dataset, ax: Axes | None = None, *, dim: str = "engine") -> Axes:
    """Draw where the differences between simulations and the asymptotic time come from, in percent of it.

    Parameters
    ----------
    table : Dataset
        The table of a comparison made with `system` and `target`, several of `kramers_grok.analysis.error_budget`
        joined along `dim`, or a study's node, each cell of which is an arm. Each arm has one group of bars; those of
        one arm sum to its diamond, whose bar is one standard error.
    ax : Axes, optional
    dim : str
        Dimension of the arms; without it the arms are all cells of the table.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If the table has no budget, or no arm with one.
    """
    table = single("the table", table, _MAKE_BUDGET)
    require("the table", table, ("total_error", "asymptotic_time", "standard_error", *BUDGET_COLUMNS), _MAKE_BUDGET)
    arms, names = _arms(table, dim)
    ax = axes(ax)
    percent = 100 / arms["asymptotic_time"].values
    shown = [name for name in BUDGET_COLUMNS if np.nan_to_num(arms[name].values).any()]
    place = np.arange(len(names))
    width = 0.8 / (len(shown) + 1)
    for number, name in enumerate(shown):
        at = place + (number - len(shown) / 2) * width
        column = BUDGET_COLUMNS.index(name)
        style: dict[str, Any] = {
            "color": look(column).colour,
            "hatch": HATCHES[column],
            "edgecolor": "black",
            "linewidth": 0.5,
        }
        text = name.removesuffix("_error").replace("_", " ")
        ax.bar(at, arms[name].values * percent, 0.92 * width, label=text, **style)
    at, total = place + len(shown) / 2 * width, arms["total_error"].values * percent
    error = arms["standard_error"].values * percent
    ax.errorbar(at, total, error, ls="none", marker="D", color="black", label="total ± 1 s.e.")
    ax.axhline(0, color="black", lw=0.8)
    crowded = len(names) > 3 or max(map(len, names)) > 20
    tilted: dict[str, Any] = {"rotation": 30, "ha": "right", "fontsize": "small"} if crowded else {}
    ax.set_xticks(place, names, **tilted)
    ax.set_xlim(-0.6, place.size - 0.4)
    if dim in table.coords:
        ax.set_xlabel(label(table[dim]))
    ax.set_ylabel("measured minus asymptotic [%]")
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(names) > 2 else {}
    legend(ax, **beside)
    return ax


def _arms(table: xr.Dataset, dim: str) -> tuple[xr.Dataset, list[str]]:
    """Arms of a table along one dimension, and their names; those without a total error are left out."""
    dims: list[Hashable] = [dim] if dim in table.dims else list(table["total_error"].dims)
    columns = [*BUDGET_COLUMNS, "total_error", "standard_error", "asymptotic_time"]
    if not dims:
        table, dims = table.expand_dims(dim), [dim]
    sizes = tuple(table.sizes[d] for d in dims)
    names = []
    for place in np.ndindex(*sizes):
        here = [_arm(table, d, i) for d, i in zip(dims, place, strict=True) if table.sizes[d] > 1 or len(dims) == 1]
        names.append(", ".join(here) or "run")
    like = table["total_error"].transpose(*dims)
    flat = {c: ("arm", np.ravel(table[c].broadcast_like(like).transpose(*dims).values)) for c in columns}
    arms = xr.Dataset(flat)
    kept = np.flatnonzero(np.isfinite(arms["asymptotic_time"].values) & np.isfinite(arms["total_error"].values))
    if not kept.size:
        raise InvalidParameterError(
            "no arm of the table has a total error: nothing measured, or no asymptotic time.\n"
            f"Make it with `{_MAKE_BUDGET}`."
        )
    return arms.isel(arm=kept), [names[k] for k in kept]


# What tells the rows of a table apart
_TOLD_BY = ("engine", "depth", "singular_value", "weight_decay", "barrier_over_temperature", "lr", "batch_size")


def _arm(table: xr.Dataset, dim: Hashable, place: int) -> str:
    """Name of one place on a dimension; rows without a coordinate are called after what varies among them."""
    if dim in table.coords:
        return named(table, dim, place)
    told = [name for name in _TOLD_BY if name in table.variables and table[name].dims == (dim,)]
    texts = [named(table, name, place) for name in told if _several(table[name])]
    return ", ".join(text for text in texts if "nan" not in text) or named(table, dim, place)


def _several(array: xr.DataArray) -> bool:
    return len({str(value) for value in array.values if str(value) != "nan"}) > 1
