"""Where a trap is a trap: radial barrier, escape rate and melting over hidden width and temperature."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.theory.radial import critical_width, entropic_spinodal, radial_rate
from kramers_grok.theory.saddles import MatrixNetwork

__all__ = ["width_temperature_diagram"]

Array = NDArray[np.float64]


def width_temperature_diagram(
    network: MatrixNetwork, *, widths: ArrayLike, temperatures: ArrayLike, rank: int = 0
) -> xr.Dataset:
    """Radial barrier, rate and melting of the trap for common hidden widths and temperatures.

    Parameters
    ----------
    network : MatrixNetwork
        Everything but the hidden widths, which are replaced.
    widths : array_like of int, shape (width,)
        Common hidden widths h ≥ rank + 1.
    temperatures : array_like, shape (temperature,)
        T > 0 [loss].
    rank : int
        Number of learned features.

    Returns
    -------
    xarray.Dataset
        Along (width, temperature): `radial_barrier_over_temperature` and `escape_rate`, NaN where the trap has melted,
        and the flag `melted`. Along width: `entropic_spinodal`, the temperature of melting, infinite where a single
        free unit keeps the trap from it. Along temperature: `critical_width`, a real number.

    Raises
    ------
    InvalidParameterError, NoBarrierError
        As in `RadialFreeEnergy`; melting is no error here.

    Examples
    --------
    >>> network = MatrixNetwork((1, 2, 2, 1), (1.0,), weight_decay=0.25)
    >>> T = network.barrier().height / 10
    >>> diagram = width_temperature_diagram(network, widths=[2, 4, 8], temperatures=[T])
    >>> diagram.melted.values.ravel().tolist(), diagram.critical_width.round(3).values.tolist()
    ([False, False, True], [5.959])
    """
    hidden = [checks.positive_int("widths", w, minimum=rank + 1) for w in np.atleast_1d(np.asarray(widths)).tolist()]
    heats = np.sort(np.atleast_1d(checks.finite_array("temperatures", temperatures)))
    for heat in heats:
        checks.positive("temperatures", heat)
    networks = [replace(network, widths=_widths(network, h)) for h in hidden]
    spinodal = np.array([_melting(n, rank) for n in networks])
    melted = heats[None, :] >= spinodal[:, None]
    barrier, rate = np.full(melted.shape, np.nan), np.full(melted.shape, np.nan)
    for i, j in np.argwhere(~melted):
        found = radial_rate(networks[i], float(heats[j]), rank, warn=False)
        barrier[i, j], rate[i, j] = found.barrier_over_temperature, found.value
    return xr.Dataset(
        {
            "radial_barrier_over_temperature": _along("width temperature", barrier, "1", "radial barrier over T"),
            "escape_rate": _along("width temperature", rate, "1/time", "escape rate"),
            "melted": _along("width temperature", melted, "1", "trap melted"),
            "entropic_spinodal": _along("width", spinodal, "loss", "entropic spinodal T*"),
            "critical_width": _along(
                "temperature", [_critical(network, float(t), rank) for t in heats], "units", "critical width"
            ),
        },
        coords={
            "width": _along("width", hidden, "units", "hidden width h"),
            "temperature": _along("temperature", heats, "loss", "temperature T"),
            "energy_barrier": ((), network.mode(rank).barrier().height, {"units": "loss", "long_name": "barrier ΔF"}),
        },
        attrs={"depth": network.depth, "weight_decay": network.weight_decay, "rank": rank},
    )


def _along(dims: str, values: ArrayLike, units: str, name: str) -> xr.Variable:
    return xr.Variable(dims.split(), np.asarray(values), {"units": units, "long_name": name})


def _widths(network: MatrixNetwork, hidden: int) -> tuple[int, ...]:
    return (network.widths[0], *[hidden] * (network.depth - 1), network.widths[-1])


def _melting(network: MatrixNetwork, rank: int) -> float:
    return math.inf if min(network.hidden) == rank + 1 else entropic_spinodal(network, rank)


def _critical(network: MatrixNetwork, temperature: float, rank: int) -> float:
    try:
        return critical_width(network, temperature, rank)
    except NoBarrierError:
        return math.nan
