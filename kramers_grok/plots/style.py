"""What all figures share: colours, labels from ``long_name`` and ``units``, axes made when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from kramers_grok.core.schema import VARIABLES, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "CYCLE", "DASHES", "MARKERS", "axes", "colour_of", "label"]

# Okabe–Ito: tells the engines apart for every kind of colour vision, and in print by its lightness.
COLOURS = {"theory": "#000000", "langevin": "#0072B2", "sgd": "#D55E00"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")


def axes(ax: Axes | None) -> Axes:
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


def colour_of(name: str, number: int) -> str:
    """Colour of a curve: its engine's where it is called after one, else by number."""
    return COLOURS.get(name.lower(), CYCLE[number % len(CYCLE)])
