"""Which law escape times follow: times against the noise with their laws, what R² cannot tell, and the law table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.analysis.law_choice import LawChoice
from kramers_grok.analysis.law_table import median_times
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.inputs import require, single
from kramers_grok.plots.style import CYCLE, Look, axes, drawn, label, legend, look, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["arrhenius_trap", "escape_laws", "law_choice", "law_table", "median_times"]

Array = NDArray[np.float64]
MISFIT = 0.3  # of ln τ: a law that misses by more is not drawn
_MAKE = "choose_law(exits, seed=0).table()"
_NEEDED = ("median_exit_time", "lower_limit", "longest_time", "noise", "fitted_median", "curve_noise", "akaike_weight")


def _table(what: str, data: Any) -> xr.Dataset:
    """Table of a choice, whichever way it is given, without the control at noise 0."""
    ds = data.table() if isinstance(data, LawChoice) else single(what, data, _MAKE)
    require(what, ds, _NEEDED, _MAKE)
    return ds.isel(noise=np.flatnonzero(ds["noise"].values > 0))


@drawn
def law_choice(choice: xr.Dataset | LawChoice, ax: Axes | None = None) -> Axes:
    """Draw median exit times against the noise with every law that was fitted, and the verdict.

    Parameters
    ----------
    choice : Dataset or LawChoice
        From `kramers_grok.analysis.law_choice.LawChoice.table`.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If the table lacks a variable.
    """
    ds = _table("the choice", choice)
    ax = axes(ax)
    laws = ds["law"].values.tolist()
    best = str(ds.attrs.get("best", ""))
    for number, law in enumerate(sorted(laws, key=lambda name: name != best)):
        own = look(number)
        text = f"{law}: best" if law == best else f"{law}: {_behind(ds, law, best)}"
        style = own.line(lw=2.0 if law == best else 1.2, label=text, zorder=2)
        _curve(ax, ds, law, 1.0, style)
    _points(ax, ds, look(0), 1.0, "median of the replicas", colour="black")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(label(ds["noise"]))
    ax.set_ylabel(label(ds["median_exit_time"]))
    seen = ds["median_exit_time"].values
    ax.set_ylim(seen.min() / 3, 3 * seen.max())
    plain_ticks(ax.xaxis)
    ax.set_title(f"verdict: {ds.attrs.get('verdict', 'not stated')}")
    legend(ax)
    return ax


def _behind(ds: xr.Dataset, law: str, best: str) -> str:
    """By how much a law is less likely than the best one, given the misfit."""
    weight = ds["akaike_weight"]
    with np.errstate(divide="ignore"):
        nats = float(np.log(weight.sel(law=best) / weight.sel(law=law)))
    return f"{nats:.3g} nats behind" if math.isfinite(nats) else "excluded"


@drawn
def escape_laws(
    choices: Mapping[Any, Any] | xr.Dataset | LawChoice,
    ax: Axes | None = None,
    *,
    relative: bool = False,
) -> Axes:
    """Draw median exit times against the noise with the best law of each row; arrows where fewer than half escaped.

    Parameters
    ----------
    choices : mapping of Dataset or LawChoice, or one of them
        By the row's name; data sets are from `kramers_grok.analysis.law_choice.LawChoice.table`.
    ax : Axes, optional
    relative : bool
        Give the noise over the largest of the row: rows of different optimizers have different scales.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If there is nothing to draw, or a table lacks a variable.
    """
    given: Mapping[Any, Any] = {"run": choices}
    if isinstance(choices, Mapping) and not isinstance(choices, xr.Dataset | xr.DataTree):
        given = choices
    if not given:
        raise InvalidParameterError(f"`choices` is empty.\nUse `{{name: {_MAKE}}}`.")
    tables = {name: _table(f"row {name!r}", choice) for name, choice in given.items()}
    ax = axes(ax)
    for number, (name, ds) in enumerate(tables.items()):
        own, x = look(number), ds["noise"].values
        scale = float(x.max()) if relative else 1.0
        _points(ax, ds, own, scale, f"{name}: {ds.attrs['verdict']}")
        best = ds.attrs["best"]
        if best and not float(ds.attrs["misfit"]) > MISFIT:
            _curve(ax, ds, best, scale, own.line(zorder=2))
    first = next(iter(tables.values()))
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_ticks(ax.xaxis)
    ax.set_xlabel("η/B over the row's largest" if relative else label(first["noise"]))
    ax.set_ylabel(label(first["median_exit_time"]))
    legend(ax)
    return ax


def _points(ax: Axes, ds: xr.Dataset, own: Look, scale: float, text: str, *, colour: str | None = None) -> None:
    """Medians, and arrows up where fewer than half escaped."""
    x, times = ds["noise"].values / scale, ds["median_exit_time"].values
    limit = ds["lower_limit"].values.astype(bool)
    style: dict[str, Any] = own.points(color=colour or own.colour)
    style["mfc"] = style["color"]
    ax.plot(x[~limit], times[~limit], **style, label=text, zorder=3)
    if limit.any():
        style |= {"mfc": "white", "alpha": 0.6}
        ax.errorbar(x[limit], times[limit], 0.35 * times[limit], lolims=True, **style)


def _curve(ax: Axes, ds: xr.Dataset, law: str, scale: float, style: dict[str, Any]) -> None:
    """A law as far as the data and their horizons go."""
    fine, times = ds["curve_noise"].values, ds["fitted_median"].sel(law=law).values
    seen = np.isfinite(times) & (times < 1.5 * float(ds["longest_time"].max()))
    ax.plot(fine[seen] / scale, times[seen], **style)


@drawn
def arrhenius_trap(choice: xr.Dataset | LawChoice, ax: Axes | None = None) -> Axes:
    """Draw what R² cannot tell: escape times against 1/x, with the straight line and the law that made them.

    Parameters
    ----------
    choice : Dataset or LawChoice
        With fits of Arrhenius' law and of the best law; a data set is from
        `kramers_grok.analysis.law_choice.LawChoice.table`.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If the table lacks a variable, or fewer than three conditions have a median.
    """
    ds = _table("the choice", choice)
    seen = ~ds["lower_limit"].values.astype(bool)
    best = str(ds.attrs.get("best", ""))
    if seen.sum() < 3 or not best:
        raise InvalidParameterError(
            f"{int(seen.sum())} conditions have a median exit time, expected at least 3: a line through two is no test."
            "\nRun more replicas or longer."
        )
    ax = axes(ax)
    x, tau = ds["noise"].values[seen], ds["median_exit_time"].values[seen]
    slope, intercept = np.polyfit(1 / x, np.log(tau), 1)
    r_squared = float(np.corrcoef(1 / x, np.log(tau))[0, 1] ** 2)
    fine = np.geomspace(0.97 * x.min(), 1.03 * x.max(), 400)
    ax.plot(
        1 / fine, np.exp(intercept + slope / fine), "--", color="0.4", label=f"Arrhenius line: R² = {r_squared:.3f}"
    )
    curve, law = ds["curve_noise"].values, ds["fitted_median"].sel(law=best).values
    kept = np.isfinite(law) & (law < 3 * tau.max()) & (curve >= fine[0]) & (curve <= fine[-1])
    likelihood = ds["log_likelihood"]
    odds = float(likelihood.sel(law=best)) - float(likelihood.sel(law="arrhenius"))
    text = f"{best} law: likelier by e^{odds:.0f}"
    ax.plot(1 / curve[kept], law[kept], color=CYCLE[1], lw=1.4, label=text)
    ax.plot(1 / x, tau, color=CYCLE[0], marker="o", ls="none", zorder=3, label="median of the replicas")
    ax.set_yscale("log")
    plain_ticks(ax.yaxis)
    ax.set_xlabel("inverse noise B/η [1/time]")
    ax.set_ylabel(label(ds["median_exit_time"]))
    legend(ax)
    return ax


def law_table(choices: Mapping[str, LawChoice], columns: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return a Markdown table: escapes, verdict, the best law's number with its interval, and its nearest rival.

    Parameters
    ----------
    choices : mapping of str to LawChoice
    columns : mapping of str to mapping of str to str, optional
        Further columns after the name: what each row says in them, by the names of `choices`.

    Examples
    --------
    >>> from kramers_grok.analysis.law_choice import choose_law
    >>> from kramers_grok.analysis.laws import ExitTimes
    >>> exits = ExitTimes.of([1.0, 2.0], [[9.0] * 5] * 2, [[False] * 5] * 2)
    >>> print(law_table({"minibatches": choose_law(exits, seed=0)}).splitlines()[-1])
    | minibatches | 0 of 10 | absorbing | rate < 0.067 | – |
    """
    extra = list(dict.fromkeys(title for row in (columns or {}).values() for title in row))
    head = [*extra, "escaped", "verdict", "number", "nearest rival"]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, choice in choices.items():
        noisy = choice.exits.x > 0
        counts = f"{int(choice.exits.escaped[noisy].sum())} of {int(noisy.sum())}"
        own = (columns or {}).get(name, {})
        cells = [
            name,
            *(own.get(title, "–") for title in extra),
            counts,
            choice.verdict,
            _number(choice),
            _rival(choice),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Law, its parameter, how it is called
NUMBERS = {
    "arrhenius": ("barrier", "slope"),
    "power": ("exponent", "exponent"),
    "growth": ("threshold", "threshold"),
}


def _number(choice: LawChoice) -> str:
    if choice.verdict == "absorbing":
        return f"rate < {choice.escape_limit:.2g}"
    if choice.verdict == "deterministic" and math.isfinite(choice.noise_free):
        return f"{choice.noise_free:.0%} escape without noise"
    if choice.best not in NUMBERS:
        return "–"
    name, text = NUMBERS[choice.best]
    fit = choice.fit
    return f"{text} {fit.parameters[name]:.3g} [{fit.lower[name]:.3g}, {fit.upper[name]:.3g}]"


def _rival(choice: LawChoice) -> str:
    if choice.verdict == "none":
        return f"misfit {choice.misfit:.2f} in ln τ ({choice.best} is best)"
    if not choice.rivalries:
        return "–"
    nearest = min(choice.rivalries, key=lambda r: r.log_likelihood_difference)
    return f"{nearest.rival}, {nearest.log_likelihood_difference:.3g} nats behind"
