"""The Arrhenius plot: mean exit times against the inverse temperature."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.inputs import Data, groups, parts, require
from kramers_grok.plots.style import DASHES, Look, axes, drawn, label, legend, look, looks, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["arrhenius"]

Array = NDArray[np.float64]
_MAKE = "exit_time_table(runs)`, or with a study: `tree['sgd']"
_COLUMNS = ("temperature", "mean_exit_time", "lower", "upper", "predicted_mean", "barrier_over_temperature", "barrier")
_COUNTS = ("n_escaped", "n_replicas", "horizon")
# Predictions of a study's theory, and what they are called
_THEORIES = {"exact_time": "exact", "asymptotic_time": "asymptotic"}
# Repetitions, not different systems
_REPEATED = ("seed", "repeat", "run")


@drawn
def arrhenius(
    curves: Data,
    ax: Axes | None = None,
    *,
    by: Sequence[str] | None = None,
    against: Literal["temperature", "barrier_over_temperature"] = "temperature",
    gradient_noise_variance: float | None = None,
) -> Axes:
    """Draw mean exit times on a logarithmic scale against 1/T.

    Parameters
    ----------
    curves : Dataset, DataTree or mapping of Dataset
        One table, several by name, a study's tree or one of its nodes. Each has ``mean_exit_time`` with the coordinate
        (or variable) ``temperature``. With ``lower`` and ``upper`` it is measured: points with error bars, an arrow up
        from `lower` where `upper` is infinite (nothing, or too little, escaped), and a tick at ``predicted_mean``
        where it is there. Otherwise it is a predicted line, as are ``exact_time`` and ``asymptotic_time`` of a study's
        theory. A point at temperature 0 is drawn as a control at the right edge; cells without an answer are left out.
    ax : Axes, optional
    by : sequence of str, optional
        Dimensions along which a data set is taken apart into series. If not given: those that the barrier depends on,
        and those that the temperature does not depend on (but not seeds).
    against : {"temperature", "barrier_over_temperature"}
        Abscissa: 1/T, or ΔF/T, on which systems of different barriers can be compared.
    gradient_noise_variance : float, optional    [loss²/weight²]
        Per-sample noise g²; adds the axis B/η = g²/(2T) on top.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a curve lacks ``mean_exit_time`` or ``temperature``, or no cell has an answer.
    """
    if against not in ("temperature", "barrier_over_temperature"):
        raise checks.invalid("against", against, "'temperature' or 'barrier_over_temperature'")
    measured, predicted = _series(groups(curves, _MAKE), by, against)
    ax = axes(ax)
    _draw_lines(ax, predicted, measured, against)
    controls = []
    for series, own in zip(measured, _looks(measured), strict=True):
        hot = series.rows["temperature"].values > 0
        _draw_points(ax, series.rows.isel(run=hot), against, own, series.name)
        if not hot.all():
            controls.append((series.name, series.rows.isel(run=~hot), own.colour))
    _draw_own_predictions(ax, measured, against)
    ax.set_yscale("log")
    first = [*measured, *predicted][0].rows
    ax.set_xlabel(_x_label(first, against))
    ax.set_ylabel(label(first["mean_exit_time"]))
    for row, (name, ds, colour) in enumerate(controls):
        _draw_control(ax, name, ds, colour, row)
    if gradient_noise_variance is not None and against == "temperature":
        _batch_axis(ax, checks.positive("gradient_noise_variance", gradient_noise_variance))
    plain_ticks(ax.yaxis)
    several = len({series.system for series in measured}) > 1
    # Lines of one system leave the upper left free
    legend(ax, loc="upper left", **({"bbox_to_anchor": (1.0, 1.0)} if several else {}))
    return ax


# ---------------------------------------------------------------- from data sets to series


@dataclass(frozen=True)
class _Series:
    """One curve: the data set it is from, which system (barrier) and what else, and its rows along ``run``."""

    group: str
    system: str
    part: str
    rows: xr.Dataset

    @property
    def name(self) -> str:
        where = ", ".join(text for text in (self.system, self.part) if text)
        return ": ".join(text for text in (self.group, where) if text)


def _series(
    given: dict[str, xr.Dataset], by: Sequence[str] | None, against: str
) -> tuple[list[_Series], list[_Series]]:
    """Measured and predicted series, each a table without missing means."""
    needed = ["temperature"] if against == "temperature" else ["temperature", "barrier_over_temperature"]
    measured: list[_Series] = []
    predicted: list[_Series] = []
    for group, ds in given.items():
        for name, column, table in _columns(group, ds):
            require(f"curve {name!r}", table, [column, *needed], _MAKE)
            interval = {"lower", "upper"} <= set(map(str, table.variables))
            systems, others = _taken_apart(table, column, by)
            for system, mine in parts(table, systems).items():
                for part, cells in parts(mine, others).items():
                    rows = _flat(cells, column)
                    if rows.sizes["run"]:
                        (measured if interval else predicted).append(_Series(name, system, part, rows))
    if not measured and not predicted:
        status = sorted({str(v) for ds in given.values() if "status" in ds for v in ds["status"].values.ravel()})
        raise InvalidParameterError(
            f"no cell of {', '.join(given)} has a mean exit time{f' (status: {status})' if status else ''}.\n"
            "See why with `ds.status`, or finish the study."
        )
    return measured, predicted


def _columns(group: str, ds: xr.Dataset) -> Iterator[tuple[str, str, xr.Dataset]]:
    """Name, column and table of each curve in a data set: theory may hold two."""
    theories = [column for column in _THEORIES if column in ds.variables]
    if "mean_exit_time" in ds.variables or not theories:
        yield group, "mean_exit_time", ds
        return
    for column in theories:
        if bool(np.isfinite(ds[column]).any()):
            yield f"{group}, {_THEORIES[column]}", column, ds


def _taken_apart(ds: xr.Dataset, column: str, by: Sequence[str] | None) -> tuple[list[Hashable], list[Hashable]]:
    """Dimensions that tell series apart: those of different barriers, and the others."""
    dims = list(ds[column].dims)
    barriers = [d for d in dims if "barrier" in ds.variables and _varies(ds["barrier"], d)]
    if by is None:
        if len(dims) < 2:
            return [], []
        apart = [d for d in dims if d not in _REPEATED and (d in barriers or not _varies(ds["temperature"], d))]
    else:
        unknown = [d for d in by if d not in dims]
        if unknown:
            raise InvalidParameterError(
                f"`by` names {unknown[0]!r}, expected some of the dimensions {list(map(str, dims))}.\n"
                "Use `by=()` for one series."
            )
        apart = list(by)
    return [d for d in apart if d in barriers], [d for d in apart if d not in barriers]


def _varies(array: xr.DataArray, dim: Hashable) -> bool:
    """Whether an array changes along a dimension, unknown values aside."""
    if dim not in array.dims or array.sizes[dim] < 2:
        return False
    low, high = array.min([dim], skipna=True).values, array.max([dim], skipna=True).values
    known = np.isfinite(low) & np.isfinite(high)
    return bool((high[known] - low[known] > 1e-9 * np.abs(high[known])).any())


def _flat(ds: xr.Dataset, column: str) -> xr.Dataset:
    """Make a table along ``run`` of a data set of any dimensions, without the cells that have no answer."""
    held = {name: ds[name] for name in (*_COLUMNS, *_COUNTS) if name in ds.variables}
    held["mean_exit_time"] = ds[column]
    arrays = dict(zip(held, xr.broadcast(*held.values()), strict=True))
    dims = arrays["mean_exit_time"].dims
    flat = xr.Dataset(
        {name: ("run", np.ravel(a.transpose(*dims).values), held[name].attrs) for name, a in arrays.items()}
    )
    known = flat["mean_exit_time"].notnull()
    if "lower" in flat:
        known = known | flat["lower"].notnull()
    return flat.isel(run=np.flatnonzero(known.values & flat["temperature"].notnull().values))


# ---------------------------------------------------------------- drawing


def _looks(measured: list[_Series]) -> list[Look]:
    """One look for each series: engines have their own; where there are several systems, each has its colour."""
    systems = list(dict.fromkeys(series.system for series in measured))
    if len(systems) < 2:
        return list(looks(series.name for series in measured).values())
    sources = list(dict.fromkeys(series.group for series in measured))
    return [
        replace(look(systems.index(s.system)), marker=look(number).marker, filled=sources.index(s.group) % 2 == 1)
        for number, s in enumerate(measured)
    ]


def _draw_lines(ax: Axes, predicted: list[_Series], measured: list[_Series], against: str) -> None:
    """Draw what was predicted: black by itself, in the colour of its system where there are several."""
    systems = list(dict.fromkeys(series.system for series in [*measured, *predicted]))
    kinds = list(dict.fromkeys((series.group, series.part) for series in predicted))
    apart = len({series.system for series in predicted}) > 1
    for series in predicted:
        x, kind = _abscissa(series.rows, against), kinds.index((series.group, series.part))
        order = np.argsort(x)
        # Runs of different systems at one abscissa are no line
        line = np.unique(np.round(x, 12)).size == x.size
        style: dict[str, Any] = {"ls": DASHES[kind % len(DASHES)]} if line else {"ls": "none", "marker": "."}
        style["color"] = (
            look(systems.index(series.system)).colour if apart else "black" if kind < len(DASHES) else "0.5"
        )
        text = None if apart else series.name
        ax.plot(x[order], series.rows["mean_exit_time"].values[order], label=text, zorder=1, **style)
    if apart:
        for kind, names in enumerate(kinds):
            ax.plot([], [], ls=DASHES[kind % len(DASHES)], color="black", label=": ".join(n for n in names if n))


def _abscissa(ds: xr.Dataset, against: str) -> Array:
    if against == "temperature":
        return np.asarray(1.0 / ds["temperature"].values.astype(np.float64))
    return np.asarray(ds["barrier_over_temperature"].values.astype(np.float64))


def _x_label(ds: xr.Dataset, against: str) -> str:
    if against == "barrier_over_temperature":
        return label(ds[against])
    attrs = ds["temperature"].attrs
    words, units = attrs.get("long_name", "temperature T"), attrs.get("units", "loss")
    name, _, last = words.rpartition(" ")
    text = f"inverse {name} 1/{last}" if name else f"1 / {last}"
    return text if units in ("", "1") else f"{text} [1/{units}]"


def _draw_points(ax: Axes, ds: xr.Dataset, against: str, own: Look, name: str) -> None:
    """Draw points with error bars; an arrow up from `lower` where `upper` is unknown."""
    x, tau = _abscissa(ds, against), ds["mean_exit_time"].values
    lower, upper = ds["lower"].values, ds["upper"].values
    known = np.isfinite(upper) & np.isfinite(tau)
    bars = np.maximum([tau[known] - lower[known], upper[known] - tau[known]], 0.0)
    ax.errorbar(x[known], tau[known], yerr=bars, label=name, zorder=3, **own.points())
    for at, bound in zip(x[~known], lower[~known], strict=True):
        arrow = {"arrowstyle": "<-", "color": own.colour, "lw": 1.3}
        ax.plot([at, at], [bound, 8.0 * bound], ls="none")  # room for the arrow
        ax.plot(at, bound, color=own.colour, marker=own.marker, mfc="white", ms=4)
        ax.annotate("", (at, bound), (0, 22), textcoords="offset points", arrowprops=arrow)


def _draw_own_predictions(ax: Axes, measured: list[_Series], against: str) -> None:
    """A tick at what each run predicts of itself, with its own step and watching."""
    tables = [series.rows for series in measured if "predicted_mean" in series.rows]
    runs = [ds.isel(run=ds["temperature"].values > 0) for ds in tables]
    if runs:
        x = np.concatenate([_abscissa(ds, against) for ds in runs])
        tau = np.concatenate([ds["predicted_mean"].values for ds in runs])
        ax.plot(x, tau, "_", color="black", ms=11, mew=1.2, label="predicted for each run", zorder=2)


def _draw_control(ax: Axes, name: str, ds: xr.Dataset, colour: str, row: int) -> None:
    """Note the runs without noise at the right edge, where 1/T → ∞: how many left, and after how long."""
    escaped = int(ds["n_escaped"].sum()) if "n_escaped" in ds else 0
    n = int(ds["n_replicas"].sum()) if "n_replicas" in ds else 0
    count = f"{escaped} of {n} escaped" if n else "none escaped"
    if "horizon" in ds:
        count += f" by t = {float(ds['horizon'].max()):.3g}"
    style: dict[str, Any] = {"xycoords": "axes fraction", "ha": "right", "va": "bottom", "fontsize": "small"}
    ax.annotate(f"T = 0, {name}: {count} →", (0.985, 0.03 + 0.07 * row), color=colour, **style)


def _batch_axis(ax: Axes, variance: float) -> None:
    """Add B/η = g²/(2T) on top: both axes are linear in 1/T."""

    def forward(x: Any) -> Any:
        return 0.5 * variance * x

    def back(x: Any) -> Any:
        return x / (0.5 * variance)

    top = ax.secondary_xaxis("top", functions=(forward, back))
    top.set_xlabel("batch size over learning rate B/η [samples·step/time]")
