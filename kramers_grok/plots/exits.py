"""Survival curves: what was measured with its bands, what was predicted beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.survival import survival_curve
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.inputs import Data, groups, parts
from kramers_grok.plots.style import DASHES, Look, axes, drawn, label, legend, looks, sparse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["survival"]

_MAKE = "first_passage(process, target=..., ...)`, or `compare(theory=..., langevin=..., sgd=...)"
# More curves than that are no figure
_MOST = 12


@drawn
def survival(
    data: Data,
    ax: Axes | None = None,
    *,
    confidence: float = 0.95,
    time_scale: float = 1.0,
    max_points: int = 400,
) -> Axes:
    """Draw survival curves on a logarithmic scale: measured with bands, predicted as broken lines.

    Parameters
    ----------
    data : DataTree, Dataset or mapping of Dataset
        From `kramers_grok.compare`, a study's tree or one of its nodes, one run, or several by name. A data set with
        ``exit_time`` is measured (Kaplan–Meier), one with ``survival`` is predicted. Of several cells each has its
        curve. Where nothing with ``survival`` is given, a run's own ``predicted_mean`` is drawn as an exponential.
    ax : Axes, optional
    confidence : float
        Level of the bands.
    time_scale : float    [time]
        Unit of the time axis, e.g. the predicted mean.
    max_points : int
        Thin measured curves to about this many steps.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a group has neither exit times nor a survival curve, or there are more than 12 curves.
    """
    scale = checks.positive("time_scale", time_scale)
    measured, predicted = _curves(groups(data, _MAKE))
    ax = axes(ax)
    shown = looks([*measured, *(name for name in predicted if name.split(":")[0] != "theory")])
    ends, lowest = [], 1.0
    for number, (name, ds) in enumerate(measured.items()):
        curve = survival_curve(ds, confidence)
        keep = np.unique(np.linspace(0, curve.sizes["time"] - 1, max_points).astype(int))
        curve = curve.isel(time=keep)
        _draw_measured(ax, curve, scale, shown[name], number, f"{name} ({_count(ds)})")
        ends.append(float(ds["horizon"]) / scale)
        lowest = min(lowest, float(curve["survival"].where(curve["survival"] > 0).min()))
    for number, (name, ds) in enumerate(predicted.items()):
        colour = shown[name].colour if name in shown else "black"
        dash = DASHES[1 + number % (len(DASHES) - 1)]
        ax.plot(ds["time"].values / scale, ds["survival"].values, ls=dash, color=colour, label=name, zorder=3)
    if not predicted:
        _draw_exponentials(ax, measured, scale, shown)
    ax.set_yscale("log")
    ax.set_ylim(max(0.5 * lowest, 1e-6), 1.3)
    if ends:
        ax.set_xlim(0, 1.02 * max(ends))
    ax.set_xlabel(_time_label(measured, predicted) if scale == 1.0 else f"time / {scale:.4g}")
    ax.set_ylabel(label("survival"))
    legend(ax)
    return ax


def _time_label(measured: dict[str, xr.Dataset], predicted: dict[str, xr.Dataset]) -> str:
    if not measured:
        return label(next(iter(predicted.values()))["time"])
    attrs = next(iter(measured.values()))["exit_time"].attrs
    return label(xr.DataArray(0.0, attrs={"long_name": "time", "units": attrs.get("units", "time")}))


def _curves(given: dict[str, xr.Dataset]) -> tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Measured runs and predicted curves by name, one for each cell; cells without either are left out."""
    measured: dict[str, xr.Dataset] = {}
    predicted: dict[str, xr.Dataset] = {}
    silent = []
    for name, ds in given.items():
        if "exit_time" in ds.variables:
            for part, run in parts(ds, _others(ds["exit_time"], "replica"), name).items():
                run = run.dropna("replica", subset=["exit_time"])  # cells of fewer replicas are padded
                if run.sizes["replica"]:
                    measured[part] = run
        elif "survival" in ds.variables:
            for part, curve in parts(ds, _others(ds["survival"], *ds["time"].dims[-1:]), name).items():
                if bool(np.isfinite(curve["survival"]).any()):
                    predicted[part] = curve
        elif "mean_exit_time" not in ds.variables and "asymptotic_time" not in ds.variables:
            raise InvalidParameterError(
                f"group {name!r} has neither `exit_time` nor `survival`, it holds "
                f"{sorted(map(str, ds.variables))}.\nMake it with `{_MAKE}`."
            )
        else:
            silent.append(name)  # splitting has a mean, and no curve
    if not measured and not predicted:
        raise InvalidParameterError(
            f"there is no survival curve to draw: {', '.join(silent) or 'every cell'} has a mean exit time only.\n"
            "Draw it with `plots.arrhenius(...)`, or run brute force (`first_passage`)."
        )
    if len(measured) + len(predicted) > _MOST:
        raise InvalidParameterError(
            f"there are {len(measured)} measured and {len(predicted)} predicted curves, expected at most {_MOST}: "
            'nobody could tell more apart.\nSelect some: `tree["sgd"].sel(lr=0.05)`.'
        )
    return measured, predicted


def _others(array: xr.DataArray, *own: Any) -> list[Any]:
    return [d for d in array.dims if d not in own]


def _count(ds: xr.Dataset) -> str:
    return f"{int(ds['escaped'].sum())}/{ds.sizes['replica']} escaped"


def _draw_measured(ax: Axes, curve: xr.Dataset, scale: float, look: Look, number: int, text: str) -> None:
    t = curve["time"].values / scale
    marks = sparse(number)
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "mfc": "white", "markevery": marks}
    ax.step(t, curve["survival"].values, where="post", label=text, **style)
    ax.fill_between(t, curve["lower"], curve["upper"], step="post", color=look.colour, alpha=0.2, lw=0)


def _draw_exponentials(ax: Axes, measured: dict[str, xr.Dataset], scale: float, shown: dict[str, Look]) -> None:
    """The predicted means that runs carry themselves, as exponential decay."""
    text: str | None = "exponential of the predicted mean"
    for name, ds in measured.items():
        mean = float(ds["predicted_mean"]) if "predicted_mean" in ds.variables else np.nan
        if np.isfinite(mean):
            t = np.linspace(0, float(ds["horizon"]), 100)
            ax.plot(t / scale, np.exp(-t / mean), ls="--", color=shown[name].colour, lw=1.0, zorder=3)
            if text:
                ax.plot([], [], ls="--", color="black", lw=1.0, label=text)
                text = None
