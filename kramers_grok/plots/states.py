"""States and transitions: free energies with their stationary points, phase diagrams, states of a spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import describe
from kramers_grok.plots.inputs import named, require, single
from kramers_grok.plots.style import CYCLE, axes, drawn, label, legend, look, plain_ticks, sparse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["landscape", "phase_diagram", "phases"]

Array = NDArray[np.float64]
_MAKE_CURVES = "free_energy_table(mode, [0.2, 0.3])"
_MAKE_SPECTRUM = "FeatureSpectrum.from_teacher(singular_values).table(depth)"
# Of the stationary points; the curve's own marker is that of its series
_STATES = {"unlearned": "o", "saddle": "X", "learned": "s"}


class ModeLike(Protocol):
    """A mode with a barrier: its free energy and stationary points, amplitudes a [weight]."""

    def free_energy(self, a: NDArray[np.float64], /) -> Any:
        """Free energy at amplitudes `a`."""
        ...

    def saddle_amplitude(self) -> float:
        """Amplitude at the barrier's top."""
        ...

    def learned_amplitude(self) -> float:
        """Amplitude of the learned state."""
        ...


@drawn
def landscape(data: xr.Dataset | ModeLike, ax: Axes | None = None, *, n_points: int = 400) -> Axes:
    """Draw the free energy F(a) for each weight decay, with its stationary points.

    Parameters
    ----------
    data : Dataset or Mode
        From `kramers_grok.theory.mode_tables.free_energy_table`: ``free_energy`` along ``amplitude`` (and
        ``weight_decay``), ``stationary_amplitude`` and ``stationary_energy`` along ``state``. A mode by itself is
        drawn at its own λ; it needs ``free_energy(a)``, ``saddle_amplitude()`` and ``learned_amplitude()``.
    ax : Axes, optional
    n_points : int
        Points of a mode's curve.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If a variable is missing.
    """
    ds = data if isinstance(data, xr.Dataset) else _curve_of(data, n_points)
    require("the table", ds, ("free_energy", "stationary_amplitude", "stationary_energy"), _MAKE_CURVES)
    if "weight_decay" not in ds["free_energy"].dims:
        ds = ds.expand_dims("weight_decay")
    ax = axes(ax)
    several = ds.sizes["weight_decay"] > 1
    for number in range(ds.sizes["weight_decay"]):
        row = ds.isel(weight_decay=number)
        text = named(ds, "weight_decay", number) if "weight_decay" in ds.coords else None
        style = look(number).line() if several else {"color": "black"}
        ax.plot(row["amplitude"].values, row["free_energy"].values, label=text, **style)
        for state in row["state"].values.tolist():
            point = row.sel(state=state)
            at, height = float(point["stationary_amplitude"]), float(point["stationary_energy"])
            own = None if several else f"{state}: a = {at:.3g}, F = {height:.4g}"
            if np.isfinite(at):
                ax.plot(
                    at, height, ls="none", marker=_STATES[state], ms=7, color=style["color"], mec="black", label=own
                )
    if several:
        for state, marker in _STATES.items():
            ax.plot([], [], ls="none", marker=marker, ms=7, color="black", mfc="white", label=state)
    ax.set_xlabel(label(ds["amplitude"]))
    ax.set_ylabel(label(ds["free_energy"]))
    legend(ax)
    return ax


def _curve_of(mode: ModeLike, n_points: int) -> xr.Dataset:
    """Table of a mode that only knows itself at its own weight decay."""
    if not all(hasattr(mode, name) for name in ("free_energy", "saddle_amplitude", "learned_amplitude")):
        single("`data`", mode, _MAKE_CURVES)  # raises
    at = np.array([0.0, mode.saddle_amplitude(), mode.learned_amplitude()])
    a = np.linspace(0.0, 1.2 * at[-1], checks.positive_int("n_points", n_points, minimum=2))
    return xr.Dataset(
        {
            "free_energy": ("amplitude", np.asarray(mode.free_energy(a)), describe("free_energy")),
            "stationary_amplitude": ("state", at, describe("amplitude")),
            "stationary_energy": ("state", np.asarray(mode.free_energy(at)), describe("free_energy")),
        },
        coords={"amplitude": ("amplitude", a, describe("amplitude")), "state": list(_STATES)},
    )


@drawn
def phase_diagram(ds: xr.Dataset, ax: Axes | None = None, *, against: str | None = None) -> Axes:
    """Draw the phase diagram of single features: weight decay against the teacher's or the data's spectrum.

    Parameters
    ----------
    ds : Dataset
        From `kramers_grok.theory.phases.FeatureSpectrum.table`: ``spinodal`` and ``binodal`` along ``feature``.
    ax : Axes, optional
    against : str, optional
        Variable or coordinate along ``feature`` that is the abscissa: ``singular_value``, ``input_variance`` (the
        data's spectrum), ``feature``. If not given, the first of the first two that varies.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If the spinodals or binodals are missing, or nothing varies.
    """
    ds = single("the table", ds, _MAKE_SPECTRUM)
    require("the table", ds, ("spinodal", "binodal"), _MAKE_SPECTRUM)
    name = against or _varying(ds)
    require("the table", ds, (name,), _MAKE_SPECTRUM)
    ds = ds.sortby(name)
    x, spinodal, binodal = (ds[v].values.astype(np.float64) for v in (name, "spinodal", "binodal"))
    ax = axes(ax)
    wide = bool((x > 0).all()) and x.max() > 100 * x.min()
    low = 0.5 * float(min(spinodal.min(), binodal.min())) if wide else 0.0
    high = (2.0 if wide else 1.2) * float(max(spinodal.max(), binodal.max()))
    _fill_phases(ax, x, spinodal, binodal, (low, high))
    marks = sparse(0, 12) if x.size > 24 else None
    continuous = np.allclose(spinodal, binodal, rtol=1e-9)
    curves = (("onset", spinodal, 0),) if continuous else (("spinodal", spinodal, 0), ("binodal", binodal, 1))
    for text, y, number in curves:
        own = look(number)
        text = text if text == "onset" else label(ds[text]).split(" weight decay")[0]
        ax.plot(x, y, color=own.colour, ls=own.dash, marker=own.marker, mfc="white", markevery=marks, label=text)
    if wide:
        ax.set_xscale("log")
        ax.set_yscale("log")
    ax.set_xlim(x.min(), x.max())
    ax.set_ylim(low, high)
    ax.set_xlabel(label(ds[name]))
    ax.set_ylabel(label("weight_decay"))
    ax.legend(frameon=True, framealpha=0.9)
    return ax


def _fill_phases(ax: Axes, x: Array, spinodal: Array, binodal: Array, limits: tuple[float, float]) -> None:
    """Shade what is stable; hatched where both states are metastable, for readers in grey."""
    low, high = limits
    edge: dict[str, Any] = {"edgecolor": "0.5", "lw": 0.0, "zorder": 0}
    ax.fill_between(x, spinodal, high, facecolor="white", label="unlearned only", **(edge | {"lw": 0.5}))
    if not np.allclose(spinodal, binodal, rtol=1e-9):
        ax.fill_between(x, binodal, spinodal, facecolor="0.93", hatch="////", label="learned is metastable", **edge)
    ax.fill_between(x, low, binodal, facecolor="0.80", label="learned is the ground state", **edge)


def _varying(ds: xr.Dataset) -> str:
    for name in ("singular_value", "input_variance"):
        if name in ds.variables and ds[name].ndim and np.ptp(ds[name].values) > 0:
            return name
    raise InvalidParameterError(
        "neither `singular_value` nor `input_variance` varies along `feature`: there is nothing to draw λ against.\n"
        "Use `FeatureSpectrum.from_teacher(np.linspace(0.1, 2, 100)).table(depth)`, or name it: `against='feature'`."
    )


@drawn
def phases(ds: xr.Dataset, ax: Axes | None = None, *, max_features: int = 60) -> Axes:
    """Draw the number of metastable states against weight decay, with each feature's transition.

    Parameters
    ----------
    ds : Dataset
        ``spinodal(feature)`` and ``binodal(feature)``, strongest first; optionally ``n_states(weight_decay)``.
    ax : Axes, optional
    max_features : int
        Features drawn at most.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidParameterError
        If the spinodals or binodals are missing.
    """
    ds = single("the table", ds, _MAKE_SPECTRUM)
    require("the table", ds, ("spinodal", "binodal"), _MAKE_SPECTRUM)
    ax = axes(ax)
    spinodal, binodal = ds["spinodal"].values[:max_features], ds["binodal"].values[:max_features]
    # Feature k opens the (k+1)-th state, so the spinodals lie on the corners of the staircase.
    level = np.arange(1, spinodal.size + 1) + 0.5
    ax.hlines(level, binodal, spinodal, color="0.6", lw=1.2, zorder=1)
    ax.plot(binodal, level, ls="none", marker="|", color=CYCLE[1], ms=7, mew=1.5,
            label="binodal: learned state becomes the ground state")  # fmt: skip
    ax.plot(spinodal, level, ls="none", marker="o", color=CYCLE[0], ms=3.5, label="spinodal: learned state appears")
    if "n_states" in ds.variables:
        states = ds["n_states"].sortby("weight_decay")
        x = states["weight_decay"].values
        ax.step(x, states.values, where="pre", color="black", lw=1.2, label=label(states))
    ax.set_xscale("log")
    ax.set_xlabel(label("weight_decay"))
    ax.set_ylabel(label("n_states"))
    ax.set_ylim(0, spinodal.size + 2)
    ax.set_xlim(0.7 * np.nanmin(binodal), 2.0 * np.nanmax(spinodal))
    plain_ticks(ax.xaxis)
    legend(ax)
    return ax
