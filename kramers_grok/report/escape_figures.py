"""Figures of a study of escapes over a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.core.schema import describe
from kramers_grok.plots.style import looks, symbol
from kramers_grok.report.drawing import new_figure
from kramers_grok.studies.results.export import FINISHED, run_of

__all__ = ["figures"]

MOST_BARS = 8
MOST_LINES = 4
_NAMES = {"langevin": "Langevin", "sgd": "SGD"}
_SYSTEM = ("system", "depth", "singular_value", "weight_decay", "width")
# What tells simulations apart, in short
_TOLD = {
    "system": "", "depth": "D", "width": "h", "singular_value": "σ", "weight_decay": "λ",
    "barrier_over_temperature": "ΔF/T", "lr": "η", "batch_size": "B", "dt": "dt", "seed": "seed",
}  # fmt: skip

# What draws, what is seen (for those who do not see it), and the caption
Drawing = tuple[Callable[[], Any], str, str]


def figures(tree: xr.DataTree) -> Iterator[Drawing]:
    """Yield the figures for which the study has something to show."""
    table = tree["comparison"].to_dataset()
    if "mean_exit_time" not in table:
        return
    done = table.isel(row=np.flatnonzero(np.isfinite(table["ratio"].values) & (table["status"].values == FINISHED)))
    if done.sizes["row"] and np.unique(done["temperature"].values).size > 1:
        against = "the inverse temperature" if _one_system(done) else "barrier over temperature"
        yield (
            lambda: _arrhenius(tree, done),
            f"Mean escape time, logarithmic, against {against}: simulations with error bars, theory as lines.",
            f"Mean escape time against {against}: points measured with their intervals, lines predicted.",
        )
    if done.sizes["row"]:
        yield (
            lambda: _ratios(done),
            "Measured over predicted mean escape time against the barrier over temperature, one mark a simulation.",
            "Measured over predicted mean escape time, with two standard errors. At 1 theory is right.",
        )
    chosen = _typical(tree, done)
    if chosen:
        name, groups = chosen
        yield (
            lambda: _survival(groups),
            "Share of replicas that are still trapped, logarithmic, against time: measured with bands, and predicted.",
            f"Replicas still trapped at time t, with 95 % bands, and the predicted curve of continuous time: {name}.",
        )
    split = done.isel(row=np.flatnonzero(np.isfinite(done["total_error"].values))) if "total_error" in done else None
    if split is not None and split.sizes["row"]:
        yield (
            lambda: _budget(split),
            "Bars: the parts of the difference between measured and asymptotic mean escape time, in percent.",
            "Where the difference to the asymptotic formula comes from"
            + (f" (the {MOST_BARS} highest barriers)." if split.sizes["row"] > MOST_BARS else "."),
        )


def _arrhenius(tree: xr.DataTree, done: xr.Dataset) -> Any:
    """Engines as points, whatever their steps and batches; theory as lines."""
    curves = _theory(tree["theory"].to_dataset()) if "theory" in tree.children else {}
    columns = ("mean_exit_time", "lower", "upper", "temperature", "barrier_over_temperature")
    for engine, name in _NAMES.items():
        own = done.isel(row=np.flatnonzero(done["engine"].values == engine))
        if own.sizes["row"]:
            curves[name] = xr.Dataset({n: ("run", own[n].values, own[n].attrs) for n in columns})
    figure, ax = new_figure((6.0, 4.3))
    plots.arrhenius(curves, ax, against="temperature" if _one_system(done) else "barrier_over_temperature")
    return figure


def _one_system(rows: xr.Dataset) -> bool:
    """Whether all rows have one barrier; others are compared by ΔF/T."""
    return np.unique(np.round(rows["barrier"].values, 12)).size == 1


def _theory(theory: xr.Dataset) -> dict[str, xr.Dataset]:
    """Predicted times of each system, exact where that is known; of a single system the asymptotic ones as well."""
    noise = next(
        (n for n in ("barrier_over_temperature", "temperature", "noise_std") if n in theory["status"].dims), ""
    )
    others = [str(d) for d in theory["status"].dims if d != noise]
    told = [d for d in others if theory.sizes[d] > 1]
    curves = {}
    for at in list(np.ndindex(*(theory.sizes[d] for d in others)))[:MOST_LINES]:
        one = theory.isel(dict(zip(others, at, strict=True)))
        where = ", ".join(f"{symbol(one[d])} = {_text(one[d].values.item())}" for d in told)
        lines = {"exact": _line(one, "exact_time"), "leading order": _line(one, "asymptotic_time")}
        known = [(name, line) for name, line in lines.items() if line is not None]
        for name, line in known if not told else known[:1]:
            curves[f"theory, {name}{f' ({where})' if where else ''}"] = line
    return curves


def _line(one: xr.Dataset, variable: str) -> xr.Dataset | None:
    """A prediction along the temperature; None where it is not known."""
    if variable not in one:
        return None
    times = np.atleast_1d(one[variable].values)
    known = np.isfinite(times)
    if not known.any():
        return None
    data: dict[str, Any] = {"mean_exit_time": ("run", times[known], describe("mean_exit_time"))}
    for name in ("temperature", "barrier_over_temperature"):
        data[name] = ("run", np.broadcast_to(one[name].values, known.shape)[known], dict(one[name].attrs))
    return xr.Dataset(data)


def _ratios(done: xr.Dataset) -> Any:
    """Measured over predicted against ΔF/T, marks side by side where many would lie on each other."""
    figure, ax = new_figure((6.0, 4.0))
    x_all = done["barrier_over_temperature"].values
    spread = 0.012 * max(float(np.ptp(x_all)), 0.5)
    for number, (engine, look) in enumerate(looks(_NAMES).items()):
        own = done.isel(row=np.flatnonzero(done["engine"].values == engine))
        for exact in (True, False):
            rows = own.isel(row=np.flatnonzero((_texts(own, "prediction") != "asymptotic") == exact))
            n = rows.sizes["row"]
            if not n:
                continue
            x, ratio = rows["barrier_over_temperature"].values, rows["ratio"].values
            aside = spread * (number - 0.5 + 0.5 * np.linspace(-1, 1, n)) if n > 1 else spread * (number - 0.5)
            error = 2 * np.nan_to_num(rows["ratio_error"].values)
            fill = "white" if exact else look.colour
            text = _NAMES[engine] if exact else f"{_NAMES[engine]} (prediction of leading order)"
            ax.errorbar(x + aside, ratio, error, label=text, **look.points(mfc=fill, ms=5))
    ax.axhline(1, color="black", lw=1)
    ax.margins(x=0.08)
    ax.set_xlabel(plots.label("barrier_over_temperature"))
    ax.set_ylabel("measured / predicted (± 2 s.e.)")
    figure.legend(loc="outside lower center", ncols=2)  # bars may be anywhere in the panel
    return figure


def _typical(tree: xr.DataTree, done: xr.Dataset) -> tuple[str, dict[str, xr.Dataset]] | None:
    """The simulations of one point of the grid that have exit times, and the theory there; the point with most."""
    if not done.sizes["row"] or "n_replicas" not in done:
        return None
    with_times = done.isel(row=np.flatnonzero(done["n_replicas"].values > 0))
    if not with_times.sizes["row"]:
        return None
    keys = _points(with_times)
    engine = with_times["engine"].values.astype(str)
    # Most engines, then most simulations, then the highest barrier
    counted = {key: (len(set(engine[keys == key])), int((keys == key).sum())) for key in np.unique(keys)}
    height = dict(zip(keys.tolist(), with_times["barrier_over_temperature"].values.tolist(), strict=True))
    best = max(counted, key=lambda key: (*counted[key], height[key]))
    groups: dict[str, xr.Dataset] = {}
    for i in np.flatnonzero(keys == best):
        if _NAMES[engine[i]] not in groups:
            group = tree[str(engine[i])].to_dataset()
            run = run_of(group, **_where(group, with_times.isel(row=i)))
            if "exit_time" in run:
                groups[_NAMES[engine[i]]] = run
    first = with_times.isel(row=int(np.flatnonzero(keys == best)[0]))
    if groups and "theory" in tree.children and "survival" in tree["theory"]:
        theory = tree["theory"].to_dataset()
        curve = run_of(theory, **_where(theory, first))
        if curve.sizes.get("time", 0):
            groups["theory"] = curve
    name = f"ΔF/T = {float(first['barrier_over_temperature']):.3g}, λ = {float(first['weight_decay']):g}"
    return (name, groups) if groups else None


def _points(rows: xr.Dataset) -> Any:
    """System and barrier over temperature of each row, as texts that can be compared."""
    columns = [rows[n].values.astype(str) for n in _SYSTEM if n in rows]
    ratio = [f"{value:.9g}" for value in rows["barrier_over_temperature"].values]
    return np.array(["\n".join(key) for key in zip(*columns, ratio, strict=True)])


def _where(group: xr.Dataset, row: xr.Dataset) -> dict[str, Any]:
    """Values of a row for every dimension of a group's grid; the first of what the row does not have."""
    found = {}
    for dim in map(str, group["status"].dims):
        values = group[dim].values
        if dim in ("temperature", "barrier_over_temperature"):
            found[dim] = values[int(np.argmin(np.abs(values - float(row[dim]))))].item()
        elif dim in row and row[dim].values.item() in values.tolist():
            found[dim] = row[dim].values.item()
        else:
            found[dim] = values[0].item() if hasattr(values[0], "item") else values[0]
    return found


def _survival(groups: dict[str, xr.Dataset]) -> Any:
    figure, ax = new_figure((6.0, 4.3))
    plots.survival(groups, ax)
    return figure


def _budget(split: xr.Dataset) -> Any:
    """The parts of the difference for the highest barriers, each simulation named by what tells it apart."""
    order = np.argsort(-split["barrier_over_temperature"].values, kind="stable")[:MOST_BARS]
    rows = split.isel(row=np.sort(order))
    differ = [n for n in _TOLD if n in rows and np.unique(rows[n].values[~_missing(rows[n].values)]).size > 1]
    names = []
    for i in range(rows.sizes["row"]):
        row = rows.isel(row=i)
        parts = [_NAMES[str(row["engine"].values)]]
        parts += [f"{_TOLD[n]} {_text(row[n].values.item())}" for n in differ if not _missing(row[n].values)]
        names.append(", ".join(parts))
    if len(set(names)) < len(names):  # repetitions
        names = [f"{name} ({number + 1})" for number, name in enumerate(names)]
    figure, ax = new_figure((7.0, 4.6))
    plots.error_budget(rows.assign_coords(arm=("row", names)).swap_dims(row="arm"), ax, dim="arm")
    ax.set_xlabel("")
    return figure


def _missing(values: Any) -> Any:
    array = np.asarray(values)
    return np.isnan(array.astype(float)) if array.dtype.kind in "fi" else array == ""


def _texts(rows: xr.Dataset, name: str) -> Any:
    return rows[name].values.astype(str) if name in rows else np.full(rows.sizes["row"], "")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
