"""Rates beyond brute force: what an answer costs, whether the theory holds, and where a difference comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.budget import BUDGET_COLUMNS
from kramers_grok.analysis.cost import cost_exponent
from kramers_grok.analysis.extrapolation import extrapolated_ratio
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.style import CYCLE, DASHES, MARKERS, axes, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["error_budget", "ratio_extrapolation", "splitting_cost"]


def splitting_cost(tables: Mapping[str, xr.Dataset], ax: Axes | None = None) -> Axes:
    """Draw the cost of splitting against the barrier, with its fitted power law, and brute force beside it.

    Parameters
    ----------
    tables : mapping of Dataset
        By the system's name, from `kramers_grok.analysis.splitting_cost`. With three points or more the law is fitted.
    ax : Axes, optional

    Raises
    ------
    InvalidParameterError
        If a table lacks ``cost`` or ``barrier_over_temperature``.
    """
    for name, table in tables.items():
        _need(f"table {name!r}", table, ("cost", "barrier_over_temperature"), "splitting_cost(runs, barrier.height)")
    ax = axes(ax)
    percent = 10.0
    for number, (name, table) in enumerate(tables.items()):
        percent = 100 * float(table.attrs.get("relative_error", 0.1))
        colour, x = CYCLE[number % len(CYCLE)], table["barrier_over_temperature"].values
        text = name
        if np.unique(x).size > 2:
            fit = cost_exponent(table)
            text += f": exponent {fit.exponent:.2f} ± {fit.standard_error:.2f}"
            fine = np.geomspace(x.min(), x.max(), 50)
            ax.plot(fine, fit.predict(fine), color=colour, lw=1.2, zorder=1)
        cost = table["cost"].values
        bars = _log_bars(cost, table["cost_error"].values) if "cost_error" in table else None
        marker = MARKERS[number % len(MARKERS)]
        ax.errorbar(x, cost, bars, ls="none", marker=marker, ms=4.5, mfc="white", capsize=2, color=colour, label=text)
        if "brute_force_cost" in table:
            brute = "brute force" if number == 0 else None
            ax.plot(x, table["brute_force_cost"], ":", color=colour, lw=1.2, label=brute)
    ax.set_yscale("log")
    ax.set_xscale("log")
    _plain_ticks(ax)
    ax.set_xlabel(label("barrier_over_temperature"))
    ax.set_ylabel(f"replica steps for {percent:g} % error")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _log_bars(values: Any, relative: Any) -> Any:
    """Error bars of a factor exp(±relative): they stay positive on a logarithmic axis."""
    return np.abs(np.stack([values * np.expm1(-relative), values * np.expm1(relative)]))


def _plain_ticks(ax: Axes) -> None:
    """Numbers instead of powers of ten on a logarithmic axis of less than two decades."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


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

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    _need("the table", table, ("x", "ratio", "ratio_error"), "xr.Dataset({'x': ..., 'ratio': ..., 'ratio_error': ...})")
    if "case" not in table.dims:
        table = table.expand_dims("case")
    ax = axes(ax)
    ax.axhspan(1 - tolerance, 1 + tolerance, color="0.92", zorder=0)
    ax.axhline(1, color="black", lw=0.8, zorder=1)
    for number in range(table.sizes["case"]):
        row = table.isel(case=number)
        good = np.isfinite(row["ratio"].values)
        x, ratio, error = (row[name].values[good] for name in ("x", "ratio", "ratio_error"))
        fit = extrapolated_ratio(x, ratio, error)
        colour, marker = CYCLE[number % len(CYCLE)], MARKERS[number % len(MARKERS)]
        name = f"{row['case'].values}: " if "case" in row.coords else ""
        text = f"{name}{fit.intercept:.3f} ± {fit.standard_error:.3f}"
        fine = np.linspace(0, x.max(), 100)
        middle, band = fit.predict(fine), fit.band(fine)
        ax.plot(fine, middle, DASHES[number // len(CYCLE) % len(DASHES)], color=colour, lw=1.1, zorder=2)
        ax.fill_between(fine, middle - band, middle + band, color=colour, alpha=0.15, lw=0)
        style: dict[str, Any] = {"ls": "none", "marker": marker, "ms": 4.5, "mfc": "white", "capsize": 2}
        style["color"] = colour
        ax.errorbar(x, ratio, error, label=text, zorder=3, **style)
        # Beside the axis, a little apart, so that the cases' intercepts can be told apart
        aside = -(number + 1) * 0.012 * float(np.nanmax(table["x"]))
        ax.errorbar([aside], [fit.intercept], [fit.standard_error], zorder=3, **(style | {"mfc": colour}))
    ax.axvline(0, color="0.6", lw=0.8)
    ax.set_xlabel("temperature over barrier T/ΔF")
    ax.set_ylabel("simulated over predicted mean time")
    ax.legend(frameon=False, fontsize="small", title="intercept", title_fontsize="small")
    return ax


def error_budget(table: xr.Dataset, ax: Axes | None = None, *, dim: str = "engine") -> Axes:
    """Draw where the differences between simulations and the asymptotic time come from, in percent of it.

    Parameters
    ----------
    table : Dataset
        The table of a comparison made with `system` and `target`, or several of `kramers_grok.analysis.error_budget`
        joined along `dim`. Each arm has one group of bars; those of one arm sum to its diamond, whose bar is one
        standard error.
    ax : Axes, optional
    dim : str
        Dimension of the arms.

    Raises
    ------
    InvalidParameterError
        If the table has no budget.
    """
    _need("the table", table, ("total_error", "asymptotic_time"), "compare(system=chain, target=target, ...)['table']")
    table = table.expand_dims(dim) if dim not in table.dims else table
    table = table.isel({dim: np.flatnonzero(np.isfinite(table["asymptotic_time"].values))})
    ax = axes(ax)
    percent = 100 / table["asymptotic_time"].values
    shown = [name for name in BUDGET_COLUMNS if np.nan_to_num(table[name].values).any()]
    place = np.arange(table.sizes[dim])
    width = 0.8 / (len(shown) + 1)
    for number, name in enumerate(shown):
        at = place + (number - len(shown) / 2) * width
        text = name.removesuffix("_error").replace("_", " ")
        colour = CYCLE[BUDGET_COLUMNS.index(name) % len(CYCLE)]
        ax.bar(at, table[name].values * percent, 0.92 * width, color=colour, label=text)
    at, total = place + len(shown) / 2 * width, table["total_error"].values * percent
    error = table["standard_error"].values * percent
    ax.errorbar(at, total, error, ls="none", marker="D", ms=5, color="black", capsize=2, label="total ± 1 s.e.")
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(place, _names(table, dim))
    ax.set_xlim(-0.6, place.size - 0.4)
    ax.set_ylabel("measured minus asymptotic [%]")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _names(table: xr.Dataset, dim: str) -> list[str]:
    """Labels of the arms: numbers short, names as they are."""
    values = table[dim].values
    title = label(table[dim]).split(" [")[0] if dim in table.coords and values.dtype.kind == "f" else ""
    return [f"{title} = {v:.3g}" if values.dtype.kind == "f" else str(v) for v in values]


def _need(what: str, ds: xr.Dataset, names: tuple[str, ...], fix: str) -> None:
    missing = [name for name in names if name not in ds.variables]
    if missing:
        raise InvalidParameterError(
            f"{what} has no `{'`, `'.join(missing)}`, it holds {sorted(map(str, ds.variables))}.\nMake it with `{fix}`."
        )
