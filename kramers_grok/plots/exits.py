"""Escape times: survival curves and the Arrhenius plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.analysis.survival import survival_curve
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.style import COLOURS, DASHES, MARKERS, axes, colour_of, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["arrhenius", "survival"]


def _groups(data: xr.DataTree | xr.Dataset | Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Named data sets of a comparison, a mapping, or a single run."""
    if isinstance(data, xr.DataTree):
        groups = {name: node.to_dataset() for name, node in data.children.items() if name != "table"}
        # An arm of splitting has a mean, and no curve
        return {name: ds for name, ds in groups.items() if {"exit_time", "survival"} & set(map(str, ds.variables))}
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
    ax = axes(ax)
    horizons, lowest, number = [], 1.0, 0
    for name, ds in groups.items():
        if "exit_time" not in ds.variables:
            continue
        curve = survival_curve(ds, confidence)
        keep = np.unique(np.linspace(0, curve.sizes["time"] - 1, max_points).astype(int))
        curve = curve.isel(time=keep)
        t, colour = curve["time"].values / scale, colour_of(name, number)
        number += 1
        escaped = f"{int(ds['escaped'].sum())}/{ds.sizes['replica']} escaped"
        ax.step(t, curve["survival"], where="post", color=colour, lw=1.2, label=f"{name} ({escaped})")
        ax.fill_between(t, curve["lower"], curve["upper"], step="post", color=colour, alpha=0.2, lw=0)
        horizons.append(float(ds["horizon"]) / scale)
        lowest = min(lowest, float(curve["survival"].where(curve["survival"] > 0).min()))
    for name, ds in groups.items():
        if "survival" in ds.variables:
            colour = COLOURS["theory"] if name == "theory" else colour_of(name, number)
            t = ds["time"].values / scale
            number += name != "theory"
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
    ax = axes(ax)
    lines = points = 0
    controls: list[tuple[str, xr.Dataset, str]] = []
    for name, ds in curves.items():
        temperature = np.atleast_1d(ds["temperature"].values).astype(np.float64)
        tau = np.broadcast_to(np.atleast_1d(ds["mean_exit_time"].values), temperature.shape)
        if "upper" not in ds.variables:
            order = np.argsort(-temperature)
            colour = "black" if lines < len(DASHES) else "grey"
            style = DASHES[lines % len(DASHES)]
            ax.plot(1.0 / temperature[order], tau[order], style, color=colour, lw=1.2, label=name, zorder=1)
            lines += 1
            continue
        colour = colour_of(name, points)
        marker = MARKERS[points % len(MARKERS)]
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
