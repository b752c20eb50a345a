"""Figures of what was predicted and measured; data in as xarray, axes out.

Every function draws into `ax` (a new figure if None) and returns it. matplotlib is imported when
a figure is asked for, not with the package. Labels come from ``long_name`` and ``units``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.analysis.survival import survival_curve
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import VARIABLES, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["arrhenius", "grokking", "label", "landscape", "phases", "survival"]

# Okabe–Ito: tells the engines apart for every kind of colour vision, and in print by its lightness.
_COLOURS = {"theory": "#000000", "langevin": "#0072B2", "sgd": "#D55E00"}
_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")


class _ModeLike(Protocol):
    """A mode with a barrier: its free energy and stationary points, amplitudes a [weight]."""

    def free_energy(self, a: NDArray[np.float64], /) -> Any: ...
    def saddle_amplitude(self) -> float: ...
    def learned_amplitude(self) -> float: ...


def _axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(5.6, 4.0), layout="constrained")[1]


def label(data: xr.DataArray | str) -> str:
    """Return an axis label from ``long_name`` and ``units`` (of an array, or of a name in the vocabulary).

    Examples
    --------
    >>> label("exit_time"), label("survival")
    ('exit time [time]', 'survival probability')
    """
    attrs: Mapping[Any, Any] = describe(data) if isinstance(data, str) else data.attrs
    name = "" if isinstance(data, str) or data.name is None else str(data.name)
    if name in VARIABLES:
        attrs = describe(name) | dict(attrs)
    text, units = str(attrs.get("long_name", name)), str(attrs.get("units", "1"))
    return text if units in ("", "1") else f"{text} [{units}]"


def _colour(name: str, number: int) -> str:
    """Colour of a curve: its engine's where it is called after one, else by number."""
    return _COLOURS.get(name.lower(), _CYCLE[number % len(_CYCLE)])


def _groups(data: xr.DataTree | xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Named data sets of a comparison, a mapping, or a single run."""
    if isinstance(data, xr.DataTree):
        return {name: node.to_dataset() for name, node in data.children.items() if name != "table"}
    if isinstance(data, xr.Dataset):
        return {str(data["engine"].values) if "engine" in data.coords else "run": data}
    return dict(data)


def survival(
    data: xr.DataTree | xr.Dataset | Mapping[str, xr.Dataset],
    ax: Axes | None = None,
    *,
    confidence: float = 0.95,
    time_scale: float = 1.0,
    max_points: int = 400,
) -> Axes:
    """Draw survival curves on a logarithmic scale: measured with bands, predicted as dashed lines.

    Parameters
    ----------
    data : DataTree, Dataset or mapping of Dataset
        From `kramers_grok.compare`, one run, or several by name. A data set with ``exit_time`` is measured
        (Kaplan–Meier), one with ``survival`` is predicted.
    ax : Axes, optional
    confidence : float
        Level of the bands.
    time_scale : float    [time]
        Unit of the time axis, e.g. the predicted mean.
    max_points : int
        Thin measured curves to about this many steps.

    Raises
    ------
    InvalidParameterError
        If a group has neither exit times nor a survival curve.
    """
    scale = checks.positive("time_scale", time_scale)
    groups = _groups(data)
    for name, ds in groups.items():
        if "exit_time" not in ds.variables and "survival" not in ds.variables:
            raise InvalidParameterError(
                f"group {name!r} has neither `exit_time` nor `survival`, it holds "
                f"{sorted(map(str, ds.variables))}.\n"
                "Pass runs of `first_passage`, or `compare(...)`."
            )
    ax = _axes(ax)
    horizons, lowest, number = [], 1.0, 0
    for name, ds in groups.items():
        if "exit_time" not in ds.variables:
            continue
        curve = survival_curve(ds, confidence)
        keep = np.unique(np.linspace(0, curve.sizes["time"] - 1, max_points).astype(int))
        curve = curve.isel(time=keep)
        t, colour = curve["time"].values / scale, _colour(name, number)
        number += 1
        escaped = f"{int(ds['escaped'].sum())}/{ds.sizes['replica']} escaped"
        ax.step(t, curve["survival"], where="post", color=colour, lw=1.2, label=f"{name} ({escaped})")
        ax.fill_between(t, curve["lower"], curve["upper"], step="post", color=colour, alpha=0.2, lw=0)
        horizons.append(float(ds["horizon"]) / scale)
        lowest = min(lowest, float(curve["survival"].where(curve["survival"] > 0).min()))
    for name, ds in groups.items():
        if "survival" in ds.variables:
            colour = _COLOURS["theory"] if name == "theory" else _colour(name, number)
            t = ds["time"].values / scale
            ax.plot(t, ds["survival"], "--", color=colour, lw=1.2, label=name, zorder=3)
    ax.set_yscale("log")
    ax.set_ylim(max(0.5 * lowest, 1e-6), 1.3)
    if horizons:
        ax.set_xlim(0, 1.02 * max(horizons))
    ax.set_xlabel(label("time") if scale == 1.0 else f"time / {scale:.4g}")
    ax.set_ylabel(label("survival"))
    ax.legend(frameon=False, fontsize="small")
    return ax


def arrhenius(
    curves: Mapping[str, xr.Dataset],
    ax: Axes | None = None,
    *,
    gradient_noise_variance: float | None = None,
) -> Axes:
    """Draw mean exit times on a logarithmic scale against 1/T.

    Parameters
    ----------
    curves : mapping of Dataset
        By name. Each has ``mean_exit_time`` along one dimension with the coordinate (or variable)
        ``temperature``. With ``lower`` and ``upper`` it is measured: points with error bars, an arrow up from
        `lower` where `upper` is infinite (nothing, or too little, escaped). Otherwise it is a predicted line.
        A point at temperature 0 is drawn as a control at the right edge.
    ax : Axes, optional
    gradient_noise_variance : float, optional    [loss²/weight²]
        Per-sample noise g²; adds the axis B/η = g²/(2T) on top.

    Raises
    ------
    InvalidParameterError
        If a curve lacks ``mean_exit_time`` or ``temperature``.
    """
    for name, ds in curves.items():
        if not {"mean_exit_time", "temperature"} <= set(map(str, ds.variables)):
            raise InvalidParameterError(
                f"curve {name!r} has no `mean_exit_time` or `temperature`, it holds "
                f"{sorted(map(str, ds.variables))}.\n"
                "Make it with `exit_time_table(runs)`."
            )
    ax = _axes(ax)
    lines = points = 0
    controls: list[tuple[str, xr.Dataset, str]] = []
    for name, ds in curves.items():
        temperature = np.atleast_1d(ds["temperature"].values).astype(np.float64)
        tau = np.broadcast_to(np.atleast_1d(ds["mean_exit_time"].values), temperature.shape)
        if "upper" not in ds.variables:
            order = np.argsort(-temperature)
            colour = "black" if lines < len(_DASHES) else "grey"
            style = _DASHES[lines % len(_DASHES)]
            ax.plot(1.0 / temperature[order], tau[order], style, color=colour, lw=1.2, label=name, zorder=1)
            lines += 1
            continue
        colour = _colour(name, points)
        marker = _MARKERS[points % len(_MARKERS)]
        points += 1
        lower, upper = np.atleast_1d(ds["lower"].values), np.atleast_1d(ds["upper"].values)
        hot = temperature > 0
        _measured(ax, np.array([1.0 / temperature[hot], tau[hot], lower[hot], upper[hot]]), colour, marker, name)
        if not hot.all():
            controls.append((name, ds, colour))
    ax.set_yscale("log")
    ax.set_xlabel("inverse temperature 1/T [1/loss]")
    ax.set_ylabel(label("mean_exit_time"))
    for row, (name, ds, colour) in enumerate(controls):
        _control(ax, name, ds, colour, row)
    if gradient_noise_variance is not None:
        half = 0.5 * checks.positive("gradient_noise_variance", gradient_noise_variance)

        # B/η = g²/(2T): both axes are linear in 1/T.

        def forward(x: Any) -> Any:
            return half * x

        def back(x: Any) -> Any:
            return x / half

        top = ax.secondary_xaxis("top", functions=(forward, back))
        top.set_xlabel("batch size over learning rate B/η [samples·step/time]")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def _measured(ax: Axes, points: NDArray[np.float64], colour: str, marker: str, name: str) -> None:
    """Draw points (x, τ, lower, upper) with error bars; an arrow up from `lower` where `upper` is unknown."""
    x, tau, lower, upper = points
    known = np.isfinite(upper) & np.isfinite(tau)
    bars = np.maximum([tau[known] - lower[known], upper[known] - tau[known]], 0.0)
    style: dict[str, Any] = {"color": colour, "ms": 4.5, "capsize": 2, "lw": 1, "ls": "none"}
    ax.errorbar(x[known], tau[known], yerr=bars, marker=marker, mfc="white", label=name, zorder=3, **style)
    for at, bound in zip(x[~known], lower[~known], strict=True):
        arrow = {"arrowstyle": "->", "color": colour, "lw": 1.3}
        ax.plot([at, at], [bound, 8.0 * bound], ls="none")  # room for the arrow
        ax.plot(at, bound, marker="_", color=colour, ms=8)
        ax.annotate("", (at, bound), (0, 22), textcoords="offset points", arrowprops=arrow | {"arrowstyle": "<-"})


def _control(ax: Axes, name: str, ds: xr.Dataset, colour: str, row: int) -> None:
    """Note the runs without noise at the right edge, where 1/T → ∞: how many left, and after how long."""
    cold = np.atleast_1d(ds["temperature"].values) == 0
    escaped = int(np.atleast_1d(ds["n_escaped"].values)[cold].sum()) if "n_escaped" in ds.variables else 0
    n = int(np.atleast_1d(ds["n_replicas"].values)[cold].sum()) if "n_replicas" in ds.variables else 0
    count = f"{escaped} of {n} escaped" if n else "none escaped"
    if "horizon" in ds.variables:
        horizon = np.atleast_1d(ds["horizon"].values)
        count += f" by t = {np.broadcast_to(horizon, cold.shape)[cold].max():.3g}"
    ax.annotate(
        f"T = 0, {name}: {count} →",
        (0.985, 0.03 + 0.07 * row),
        xycoords="axes fraction",
        ha="right",
        va="bottom",
        color=colour,
        fontsize="small",
    )


def landscape(mode: _ModeLike, ax: Axes | None = None, *, n_points: int = 400) -> Axes:
    """Draw the free energy F(a) of a mode with its stationary points.

    Parameters
    ----------
    mode : Mode
        Has ``free_energy(a)``, ``saddle_amplitude()`` and ``learned_amplitude()``.
    ax : Axes, optional
    n_points : int
        Points of the curve.
    """
    saddle, learned = float(mode.saddle_amplitude()), float(mode.learned_amplitude())
    ax = _axes(ax)
    a = np.linspace(0.0, 1.2 * learned, checks.positive_int("n_points", n_points, minimum=2))
    ax.plot(a, mode.free_energy(a), color="black", lw=1.3)
    marks = (("unlearned", 0.0, "o"), ("saddle", saddle, "X"), ("learned", learned, "s"))
    for (name, at, marker), colour in zip(marks, _CYCLE, strict=False):
        height = float(mode.free_energy(np.asarray(at)))
        ax.plot(at, height, marker, color=colour, ms=7, label=f"{name}: a = {at:.3g}, F = {height:.4g}")
    ax.set_xlabel(label("amplitude"))
    ax.set_ylabel(label("free_energy"))
    ax.legend(frameon=False, fontsize="small")
    return ax


def phases(ds: xr.Dataset, ax: Axes | None = None, *, max_features: int = 60) -> Axes:
    """Draw the number of metastable states against weight decay, with each feature's transition.

    Parameters
    ----------
    ds : Dataset
        ``spinodal(feature)`` and ``binodal(feature)``, strongest first; optionally ``n_states(weight_decay)``.
    ax : Axes, optional
    max_features : int
        Features drawn at most.

    Raises
    ------
    InvalidParameterError
        If the spinodals or binodals are missing.
    """
    missing = [name for name in ("spinodal", "binodal") if name not in ds.variables]
    if missing:
        raise InvalidParameterError(
            f"the data set has no `{'`, `'.join(missing)}`, it holds {sorted(map(str, ds.variables))}.\n"
            "Pass `xr.Dataset({'spinodal': ('feature', ...), 'binodal': ('feature', ...)})`."
        )
    ax = _axes(ax)
    spinodal, binodal = ds["spinodal"].values[:max_features], ds["binodal"].values[:max_features]
    # Feature k opens the (k+1)-th state, so the spinodals lie on the corners of the staircase.
    level = np.arange(1, spinodal.size + 1) + 0.5
    ax.hlines(level, binodal, spinodal, color=_CYCLE[4], lw=1.2, zorder=1)
    ax.plot(binodal, level, "|", color=_CYCLE[2], ms=6, label="binodal: learned state becomes the ground state")
    ax.plot(spinodal, level, ".", color=_CYCLE[1], ms=5, label="spinodal: learned state appears")
    if "n_states" in ds.variables:
        states = ds["n_states"].sortby("weight_decay")
        x = states["weight_decay"].values
        ax.step(x, states.values, where="pre", color="black", lw=1.2, label=label(states))
    ax.set_xscale("log")
    if np.nanmax(spinodal) < 50 * np.nanmin(binodal):
        _few_ticks(ax)
    ax.set_xlabel(label("weight_decay"))
    ax.set_ylabel(label("n_states"))
    ax.set_ylim(0, spinodal.size + 2)
    ax.set_xlim(0.7 * np.nanmin(binodal), 2.0 * np.nanmax(spinodal))
    ax.legend(frameon=False, fontsize="small")
    return ax


def _few_ticks(ax: Axes) -> None:
    """Label 1, 2, 5 of each decade: over less than two decades the default labels run into each other."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


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
    ax = _axes(ax)
    losses: list[str] = []
    for number, (name, loss) in enumerate(named.items()):
        if time not in loss.dims:
            raise InvalidParameterError(
                f"curve {name!r} has dimensions {loss.dims}, expected {time!r} among them.\n"
                "Rename it: `loss.rename(step='time')`, or pass `time='step'`."
            )
        loss = loss.where(loss[time] > 0, drop=True)
        x, colour = loss[time].values, _CYCLE[number % len(_CYCLE)]
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
