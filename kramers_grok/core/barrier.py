"""The product of every landscape search: a minimum, the saddle that leaves it, and their spectra."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.landscape import Landscape

__all__ = ["Barrier"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Barrier:
    """A metastable minimum and the saddle over which it is left.

    Rates do not care whether theory (closed form) or a numerical search made it.

    Parameters
    ----------
    landscape : Landscape
        The energy, with named coordinates and order parameters.
    minimum, saddle, destination : ndarray, shape (coordinate,)
        Where the network is trapped, the barrier's top, and the state behind it.
    height : float
        Barrier height F(saddle) − F(minimum) [loss]. Given by the maker, because theory has forms free
        of the cancellation that a difference of two energies suffers.
    multiplicity : int
        Number of equivalent saddles (the network's symmetries).
    """

    landscape: Landscape
    minimum: Array
    saddle: Array
    destination: Array
    height: float
    multiplicity: int = field(default=1)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(str(c) for c in self.landscape.coordinates)

    @cached_property
    def minimum_spectrum(self) -> Array:
        """Eigenvalues of the Hessian at the minimum, ascending [loss / coordinate²]."""
        return np.asarray(np.linalg.eigvalsh(self.landscape.hessian_at(self.minimum)))

    @cached_property
    def saddle_spectrum(self) -> Array:
        """Eigenvalues of the Hessian at the saddle, ascending; the first is negative."""
        return np.asarray(np.linalg.eigvalsh(self.landscape.hessian_at(self.saddle)))

    @property
    def negative_eigenvalue(self) -> float:
        """The saddle's one negative eigenvalue: the growth rate away from it is its modulus [1/time]."""
        return float(self.saddle_spectrum[0])

    @property
    def order_parameter_at_minimum(self) -> float:
        """Order parameter of the first feature where the network is trapped."""
        return self._order_parameter(self.minimum)

    @property
    def order_parameter_at_saddle(self) -> float:
        """Order parameter of the first feature at the barrier's top."""
        return self._order_parameter(self.saddle)

    @property
    def order_parameter_at_destination(self) -> float:
        """Order parameter of the first feature in the state behind the barrier."""
        return self._order_parameter(self.destination)

    def _order_parameter(self, point: Array) -> float:
        return float(self.landscape.order_parameters_at(point)[0])
