"""What all figures share: one look, labels from ``long_name`` and ``units``, axes made when asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec

import xarray as xr

from kramers_grok.core.schema import VARIABLES, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = [
    "COLOURS",
    "CYCLE",
    "DASHES",
    "HATCHES",
    "MARKERS",
    "STYLE",
    "Look",
    "axes",
    "colour_of",
    "drawn",
    "label",
    "legend",
    "look",
    "looks",
    "plain_ticks",
    "sparse",
    "styled",
    "symbol",
]

# Okabe–Ito, whose colours are told apart with every kind of colour vision. Some have nearly the same lightness, so a
# series never has its colour alone: see `Look`.
COLOURS = {"theory": "#000000", "langevin": "#0072B2", "sgd": "#D55E00"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "d")
Dash = str | tuple[int, tuple[float, ...]]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.", (0, (8, 2, 1, 2, 1, 2)), (0, (10, 4)), (0, (3, 3)), (0, (1, 4)))
HATCHES = ("", "////", "....", "xx", "\\\\\\\\", "oo", "++", "--")

STYLE: Mapping[str, Any] = {
    "figure.figsize": (5.6, 4.0),
    "figure.constrained_layout.use": True,
    "axes.titlesize": "medium",
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.prop_cycle": f"cycler('color', {list(CYCLE)})",
    "lines.linewidth": 1.3,
    "lines.markersize": 5.0,
    "errorbar.capsize": 2.0,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": "small",
    "legend.title_fontsize": "small",
    "image.cmap": "viridis",
    "savefig.dpi": 150,
}
"""Settings of matplotlib that every figure is drawn with."""


@dataclass(frozen=True)
class Look:
    """How a series is told from the others: by its colour, and in grey by its marker or its dashes."""

    colour: str
    marker: str
    dash: Dash
    hatch: str
    filled: bool = False

    def points(self, **more: Any) -> dict[str, Any]:
        """Arguments of `plot` or `errorbar` for what was measured: markers without a line."""
        face = self.colour if self.filled else "white"
        return {"color": self.colour, "marker": self.marker, "ls": "none", "mfc": face, "lw": 1.0, **more}

    def line(self, **more: Any) -> dict[str, Any]:
        """Arguments of `plot` for a curve of its own dashes."""
        return {"color": self.colour, "ls": self.dash, **more}


def look(number: int) -> Look:
    """Look of series `number`.

    Examples
    --------
    >>> look(0).marker, look(1).marker, look(7).colour == look(0).colour, look(7).marker == look(0).marker
    ('o', 's', True, False)
    """
    return Look(
        CYCLE[number % len(CYCLE)],
        MARKERS[number % len(MARKERS)],
        DASHES[number % len(DASHES)],
        HATCHES[number % len(HATCHES)],
    )


# An engine looks the same in every figure, whatever else is in it
_ENGINES = {"langevin": 0, "sgd": 1}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Looks of series by name: an engine has its own everywhere, the others take what is left.

    Examples
    --------
    >>> {name: each.marker for name, each in looks(["splitting", "sgd"]).items()}
    {'splitting': 'o', 'sgd': 's'}
    """
    names = list(names)
    taken = {_ENGINES[name.lower()] for name in names if name.lower() in _ENGINES}
    free = (number for number in range(len(names) + len(_ENGINES)) if number not in taken)
    return {name: look(_ENGINES[name.lower()] if name.lower() in _ENGINES else next(free)) for name in names}


def sparse(number: int = 0, marks: int = 8) -> tuple[float, float]:
    """Where a curve carries markers (`markevery`): a few, evenly to the eye, at places of its own for every series."""
    every = 1.0 / marks
    return (0.3 * number % 1.0) * every, every


# ---------------------------------------------------------------- one look, applied in one place


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the look of the package's figures, e.g. panels of your own beside them.

    ::

        with kg.plots.styled():
            figure, (left, right) = plt.subplots(1, 2)

    Yields
    ------
    None
    """
    import matplotlib

    settings: Any = dict(STYLE)  # matplotlib's type names every key it knows
    with matplotlib.rc_context(settings):
        yield


P = ParamSpec("P")


def drawn(function: Callable[P, Axes]) -> Callable[P, Axes]:
    """Let a figure be drawn in the common style, whatever the caller's settings are."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with styled():
            return function(*args, **kwargs)

    return inside


def axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def legend(ax: Axes, **options: Any) -> None:
    """Add a legend where there is anything to name."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(**options)


def plain_ticks(axis: Axis, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """Label 1, 2, 5 of each decade on a logarithmic axis of about two: the default labels run into each other."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = sorted(axis.get_view_interval())
    if high < 200 * low:
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------- labels


def _described(data: xr.DataArray | str) -> tuple[str, str]:
    """Name in words, and units ("1" where there are none)."""
    attrs: Mapping[Any, Any] = describe(data) if isinstance(data, str) else data.attrs
    name = "" if isinstance(data, str) or data.name is None else str(data.name)
    if name in VARIABLES:
        attrs = describe(name) | dict(attrs)
    return str(attrs.get("long_name", name)), str(attrs.get("units", "1"))


def label(data: xr.DataArray | str) -> str:
    """Return an axis label from ``long_name`` and ``units`` (of an array, or of a name in the vocabulary).

    Parameters
    ----------
    data : DataArray or str

    Returns
    -------
    str

    Examples
    --------
    >>> label("exit_time"), label("survival")
    ('exit time [time]', 'survival probability')
    """
    text, units = _described(data)
    return text if units in ("", "1") else f"{text} [{units}]"


def symbol(data: xr.DataArray | str) -> str:
    """Return the symbol that ends a long name, or the long name where there is none.

    Examples
    --------
    >>> symbol("weight_decay"), symbol("lr_over_batch"), symbol("horizon")
    ('λ', 'η/B', 'censoring horizon')
    """
    text, _ = _described(data)
    last = text.split(" ")[-1]
    return last if len(last) == 1 or (len(last) <= 5 and not last.isascii()) else text


def colour_of(name: str, number: int) -> str:
    """Colour of a curve: its engine's where it is called after one, else by number."""
    return COLOURS.get(name.lower(), CYCLE[number % len(CYCLE)])
