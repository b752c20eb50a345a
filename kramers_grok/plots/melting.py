"""Where a trap melts, over hidden width and temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from kramers_grok.plots.inputs import require, single
from kramers_grok.plots.style import axes, drawn, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["width_temperature"]

_NEEDED = ("radial_barrier_over_temperature", "melted", "critical_width")
_MAKE = "width_temperature_diagram(network, widths=..., temperatures=...)"


@drawn
def width_temperature(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the radial barrier over T, the region where the trap has melted, and the entropic spinodal between them.

    Parameters
    ----------
    ds : Dataset
        From `kramers_grok.theory.radial_phases.width_temperature_diagram`.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    ds = single("the diagram", ds, _MAKE)
    require("the diagram", ds, _NEEDED, _MAKE)
    from matplotlib.colors import LogNorm

    ax = axes(ax)
    barrier = ds["radial_barrier_over_temperature"].transpose("temperature", "width")
    width, temperature = ds["width"].values.astype(np.float64), ds["temperature"].values
    positive = np.where(barrier.values > 0, barrier.values, np.nan)
    # Below a tenth of T a barrier is none to the eye either.
    norm = LogNorm(vmin=0.1, vmax=max(1.0, float(np.nanmax(positive))) if np.isfinite(positive).any() else 1.0)
    mesh = ax.pcolormesh(width, temperature, positive, shading="nearest", norm=norm, rasterized=True)
    ax.figure.colorbar(mesh, ax=ax, label=label(barrier))
    line = ds["critical_width"]
    # White on the dark side of the line, dark on the white side
    ax.plot(line.values, line["temperature"].values, color="white", lw=3.2)
    ax.plot(line.values, line["temperature"].values, color="black", lw=1.4, ls="--", label="entropic spinodal")
    if bool(ds["melted"].any()):
        ax.annotate("melted", (0.97, 0.95), xycoords="axes fraction", ha="right", va="top")
    ax.set_yscale("log")
    ax.set_xlim(width.min() - 0.5, width.max() + 0.5)
    ax.set_ylim(temperature.min(), temperature.max())
    ax.set_xlabel(label(ds["width"]))
    ax.set_ylabel(label(ds["temperature"]))
    ax.legend(loc="lower left", frameon=True, framealpha=0.85)
    return ax
