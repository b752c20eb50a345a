"""Figures of minimum-energy paths: what noise has to climb, and how far the function has come meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from kramers_grok.plots.inputs import groups, require
from kramers_grok.plots.style import axes, drawn, label, legend, looks, sparse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["energy_path"]

_MAKE = "find_barrier(model, minimum, destination).table()"
_NEEDED = ("free_energy", "order_parameter", "arc_length", "state_energy", "state_arc_length")
_MARKERS = ("o", "X", "s")  # minimum, saddle, destination


@runtime_checkable
class BarrierLike(Protocol):
    """A barrier that was found numerically."""

    def table(self) -> xr.Dataset:
        """Energies along the path, and the states on it."""
        ...


Paths = BarrierLike | xr.Dataset | xr.DataTree | Mapping[str, BarrierLike | xr.Dataset]
"""A barrier or its table, or several by name."""


@drawn
def energy_path(data: Paths, ax: Axes | None = None, *, against: str = "arc_length") -> Axes:
    """Draw the energy along minimum-energy paths, with their minima and saddles.

    Parameters
    ----------
    data : NumericalBarrier, or its ``table()``; or several by name
    ax : Axes, optional
    against : str
        ``"arc_length"`` from the saddle, or ``"order_parameter"``, how far the function has come.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    tables = _tables(data)
    for name, ds in tables.items():
        require(name or "the table", ds, _NEEDED, _MAKE)
    ax = axes(ax)
    for number, (style, (name, ds)) in enumerate(zip(looks(tables).values(), tables.items(), strict=True)):
        x = ds[against].values
        every = sparse(number) if len(tables) > 1 else []
        ax.plot(x, ds["free_energy"], marker=style.marker, markevery=every, label=name or None, **style.line())
        places = np.interp(ds["state_arc_length"], ds["arc_length"], x)
        for place, energy, marker in zip(places, ds["state_energy"].values, _MARKERS, strict=True):
            ax.plot(place, energy, marker=marker, ls="none", color=style.colour, ms=7, mfc="white", zorder=3)
    table = next(iter(tables.values()))
    ax.set(xlabel=label(table[against]), ylabel=label(table["free_energy"]))
    legend(ax)
    return ax


def _tables(data: Any) -> dict[str, xr.Dataset]:
    if isinstance(data, BarrierLike):
        return {"": data.table()}
    if isinstance(data, Mapping) and not isinstance(data, xr.Dataset | xr.DataTree):
        return groups({str(k): v.table() if isinstance(v, BarrierLike) else v for k, v in data.items()}, _MAKE)
    return {"": data} if isinstance(data, xr.Dataset) else groups(data, _MAKE)
