"""States and transitions: the free energy of a mode, and the phases of a spectrum of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.style import CYCLE, axes, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["landscape", "phases"]


class _ModeLike(Protocol):
    """A mode with a barrier: its free energy and stationary points, amplitudes a [weight]."""

    def free_energy(self, a: NDArray[np.float64], /) -> Any: ...
    def saddle_amplitude(self) -> float: ...
    def learned_amplitude(self) -> float: ...


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
    ax = axes(ax)
    a = np.linspace(0.0, 1.2 * learned, checks.positive_int("n_points", n_points, minimum=2))
    ax.plot(a, mode.free_energy(a), color="black", lw=1.3)
    marks = (("unlearned", 0.0, "o"), ("saddle", saddle, "X"), ("learned", learned, "s"))
    for (name, at, marker), colour in zip(marks, CYCLE, strict=False):
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
    ax = axes(ax)
    spinodal, binodal = ds["spinodal"].values[:max_features], ds["binodal"].values[:max_features]
    # Feature k opens the (k+1)-th state, so the spinodals lie on the corners of the staircase.
    level = np.arange(1, spinodal.size + 1) + 0.5
    ax.hlines(level, binodal, spinodal, color=CYCLE[4], lw=1.2, zorder=1)
    ax.plot(binodal, level, "|", color=CYCLE[2], ms=6, label="binodal: learned state becomes the ground state")
    ax.plot(spinodal, level, ".", color=CYCLE[1], ms=5, label="spinodal: learned state appears")
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
