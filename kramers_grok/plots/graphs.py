"""A many-state landscape as a picture: minima, saddles, and what joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.inputs import require
from kramers_grok.plots.style import CYCLE, axes, drawn, label, legend, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["landscape_graph"]

Array = NDArray[np.float64]
_MAKE = "explore(model, minima).to_datatree()"
_CURVE = 40  # points of a line from a minimum to a saddle


class GraphLike(Protocol):
    """A graph of minima and saddles, as tables."""

    @property
    def minima(self) -> xr.Dataset:
        """One row a minimum."""
        ...

    @property
    def saddles(self) -> xr.Dataset:
        """One row a saddle."""
        ...


@drawn
def landscape_graph(data: xr.DataTree | GraphLike, ax: Axes | None = None, *, feature: int | None = 0) -> Axes:
    """Draw minima and saddles at their energies, joined where a saddle lies between two minima.

    Parameters
    ----------
    data : LandscapeGraph or DataTree
        From `kramers_grok.landscape.explore.explore`, or with the groups ``minima`` and ``saddles`` of its tree.
    ax : Axes, optional
    feature : int, optional
        Order parameter on the abscissa. None, or states that have none: side by side, neighbours next to each other.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If something is missing, or there is no such order parameter.
    """
    minima, saddles = _tables(data)
    ax = axes(ax)
    ends, low, top = saddles["ends"].values.astype(int), minima["energy"].values, saddles["energy"].values
    known = feature is not None and minima["order_parameter"].shape[1] > 0
    if known:
        across, there = (_order_parameter(table, int(feature or 0)) for table in (minima, saddles))
    else:
        across = _side_by_side(len(low), ends)
        there = across[ends].mean(axis=1) if len(ends) else np.zeros(0)
    for number, (i, j) in enumerate(ends):
        for state in (i, j):
            _join(ax, (across[state], low[state]), (there[number], top[number]), dashed=i == j)
    ax.plot(there, top, ls="none", marker="X", color=CYCLE[1], mec="black", mew=0.5, ms=8, label="saddles", zorder=3)
    ax.plot(across, low, ls="none", marker="o", color=CYCLE[0], mec="black", mew=0.5, ms=9, label="minima", zorder=3)
    for number, place in enumerate(zip(across, low, strict=True)):
        ax.annotate(str(number), place, xytext=(0, -6), textcoords="offset points", ha="center", va="top")
    ax.margins(0.08, 0.12)
    ax.set_ylabel(label(minima["energy"]))
    if known:
        ax.set_xlabel(_name(minima, int(feature or 0)))
    else:
        ax.set_xticks([])
        ax.set_xlabel("states, neighbours next to each other")
    legend(ax)
    return ax


def _tables(data: xr.DataTree | GraphLike) -> tuple[xr.Dataset, xr.Dataset]:
    if isinstance(data, xr.DataTree):
        if not {"minima", "saddles"} <= set(data.children):
            raise InvalidParameterError(
                f"The tree has the groups {sorted(data.children)}, expected `minima` and `saddles`.\n"
                f"Make it with `{_MAKE}`."
            )
        tables = data["minima"].to_dataset(), data["saddles"].to_dataset()
    elif hasattr(data, "minima") and hasattr(data, "saddles"):
        tables = data.minima, data.saddles
    else:
        if isinstance(data, xr.Dataset):
            require("`data`", data, ("minima", "saddles"), _MAKE)
        raise InvalidParameterError(
            f"`data` is {type(data).__name__}, expected a graph of minima and saddles.\nMake it with `{_MAKE}`."
        )
    require("the table of minima", tables[0], ("energy", "order_parameter"), _MAKE)
    require("the table of saddles", tables[1], ("energy", "order_parameter", "ends"), _MAKE)
    return tables


def _order_parameter(table: xr.Dataset, feature: int) -> Array:
    values = table["order_parameter"].values
    if not 0 <= feature < values.shape[1]:
        raise InvalidParameterError(
            f"`feature` = {feature}, expected a number below {values.shape[1]}, the number of order parameters."
        )
    return np.asarray(values[:, feature], dtype=np.float64)


def _name(table: xr.Dataset, feature: int) -> str:
    text = label(table["order_parameter"])
    return text if table["order_parameter"].shape[1] == 1 else f"{text} of feature {feature}"


def _side_by_side(count: int, ends: NDArray[np.int64]) -> Array:
    """Places 0, 1, … of the states in the order of the graph's slowest mode, which keeps neighbours together."""
    joined = np.zeros((count, count))
    for i, j in ends:
        joined[i, j] = joined[j, i] = float(i != j)
    laplacian = np.diag(joined.sum(axis=1)) - joined
    modes = np.linalg.eigh(laplacian)[1]
    slowest = modes[:, min(1, count - 1)]
    slowest = slowest * np.sign(slowest[np.argmax(np.abs(slowest))])
    # Rounded: states that the mode does not tell apart stay in the order of their numbers.
    places = np.empty(count)
    places[np.argsort(slowest.round(9), kind="stable")] = np.arange(count)
    return places


def _join(ax: Axes, low: tuple[float, float], top: tuple[float, float], *, dashed: bool) -> None:
    """A line that leaves both ends level, as the energy does."""
    share = np.linspace(0, 1, _CURVE)
    style: dict[str, Any] = look(1).line() if dashed else look(0).line()
    style |= {"color": "0.55", "zorder": 1}
    ax.plot(low[0] + share * (top[0] - low[0]), low[1] + np.sin(0.5 * np.pi * share) ** 2 * (top[1] - low[1]), **style)
