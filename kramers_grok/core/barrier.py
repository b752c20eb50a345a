"""The product of every landscape search: a minimum, the saddle that leaves it, and their spectra.

`Barrier` joins two points, `OrbitBarrier` two orbits (of a network's symmetries); both are closed forms.
`kramers_grok.landscape.barriers.NumericalBarrier` is found by a search. Rates and regions ask all of them the same
questions, those of `AnyBarrier`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.barrier_traits import Crossing, IsolatedPoints, SpectralDifferences, log_determinant
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.saddle_validity import orbit_flags

__all__ = ["AnyBarrier", "Barrier", "OrbitBarrier", "RateBarrier", "log_determinant"]

Array = NDArray[np.float64]


class RateBarrier(Protocol):
    """What a rate asks of a barrier."""

    @property
    def height(self) -> float:
        """F(saddle) − F(minimum) [loss]."""
        ...

    @property
    def minimum_spectrum(self) -> Array:
        """Eigenvalues of the Hessian at the minimum, ascending, known zero modes left out [loss / coordinate²]."""
        ...

    @property
    def saddle_spectrum(self) -> Array:
        """Eigenvalues of the Hessian at the saddle, ascending, known zero modes left out."""
        ...

    @property
    def zero_modes_known(self) -> bool:
        """Whether zero modes are out of the spectra, and the volumes that they span in `log_volume_ratio`."""
        ...

    @property
    def extra_zero_modes(self) -> int:
        """n₀, the saddle's zero modes beyond the minimum's: the rate's prefactor has the power T^(−n₀/2)."""
        ...

    @property
    def log_volume_ratio(self) -> float:
        """Logarithm of the number of equivalent saddles, or of the ratio of the orbits' volumes."""
        ...

    @property
    def log_determinant_ratio(self) -> float:
        """Ln det' H(minimum) − ln det' H(saddle), moduli."""
        ...

    @property
    def trace_difference(self) -> float:
        """Tr H(minimum) − tr H(saddle) [loss / coordinate²]."""
        ...

    def flags(self, temperature: float) -> tuple[str, ...]:
        """Conditions of the harmonic formula that fail at this temperature, a short text for each."""
        ...


class AnyBarrier(RateBarrier, Protocol):
    """What rates and regions ask of a barrier, whoever made it."""

    @property
    def minimum(self) -> Array:
        """Where the network is trapped, shape (coordinate,)."""
        ...

    @property
    def saddle(self) -> Array:
        """The barrier's top, shape (coordinate,)."""
        ...

    @property
    def destination(self) -> Array:
        """The state behind it, shape (coordinate,)."""
        ...

    @property
    def minimum_zero_modes(self) -> int:
        """Dimension of the minimum's orbit."""
        ...

    @property
    def saddle_zero_modes(self) -> int:
        """Dimension of the saddle's orbit."""
        ...

    @property
    def negative_eigenvalue(self) -> float:
        """The saddle's one negative eigenvalue: the growth rate away from it is its modulus [1/time]."""
        ...

    @property
    def feature(self) -> int:
        """Number of the order parameter that the crossing changes."""
        ...

    @property
    def degeneracy(self) -> int:
        """Number of features that the crossing may change alike; with more than 1 no single one marks it."""
        ...

    @property
    def order_parameter_at_minimum(self) -> float:
        """Order parameter of the barrier's feature where the network is trapped."""
        ...

    @property
    def order_parameter_at_saddle(self) -> float:
        """Order parameter of the barrier's feature at its top."""
        ...

    @property
    def order_parameter_at_destination(self) -> float:
        """Order parameter of the barrier's feature in the state behind it."""
        ...

    def order_parameter_beyond(self, fraction: float) -> float:
        """Order parameter at a fraction of the way from the top (0) to the state behind it (1)."""
        ...


@dataclass(frozen=True, eq=False)
class Barrier(IsolatedPoints, Crossing, SpectralDifferences):
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
    def feature(self) -> int:
        """Number of the order parameter that the crossing changes."""
        return 0

    @property
    def degeneracy(self) -> int:
        """1: the feature has a singular value of its own."""
        return 1

    @cached_property
    def order_parameters_on_the_way(self) -> tuple[float, float, float]:
        """Order parameter of the first feature at minimum, saddle and destination."""
        at_minimum, top, behind = (self._order_parameter(p) for p in (self.minimum, self.saddle, self.destination))
        return at_minimum, top, behind

    def order_parameter_beyond(self, fraction: float) -> float:
        """Order parameter at `saddle + fraction · (destination − saddle)`.

        Parameters
        ----------
        fraction : float
            0 is the saddle, 1 the destination.

        Returns
        -------
        float
        """
        return self._order_parameter(self.saddle + fraction * (self.destination - self.saddle))

    def _order_parameter(self, point: Array) -> float:
        return float(self.landscape.order_parameters_at(point)[0])


@dataclass(frozen=True, eq=False)
class OrbitBarrier(Crossing, SpectralDifferences):
    r"""A barrier of a matrix network, whose minimum and saddle are orbits of its rotations.

    Made by `kramers_grok.theory.saddles.MatrixNetwork`.

    Parameters
    ----------
    depth : int
        Number of weight layers D.
    feature : int
        The feature that is learned or forgotten, strongest feature 0.
    minimum, saddle, destination : ndarray, shape (parameter,)
        One point of each orbit, for the teacher diag(singular values).
    height : float
        F(saddle) − F(minimum) [loss].
    minimum_spectrum, saddle_spectrum : ndarray
        Eigenvalues of the Hessian without the zero modes, ascending [loss / amplitude²].
    minimum_zero_modes, saddle_zero_modes : int
        Dimensions of the orbits.
    log_volume_ratio : float
        ln Vol(saddle) − ln Vol(minimum), discrete copies counted in.
    minimum_order_parameters, saddle_order_parameters, destination_order_parameters : ndarray, shape (feature,)
        m_k, strongest feature first.
    degeneracy : int
        Number of features that share the singular value.
    spare_units : tuple of int
        Units of each hidden layer that no channel of the saddle uses.
    weight_decay : float
        λ [loss / amplitude²].
    trap_widening : float
        Relative growth of the trap's partition function with T by the loss's cubic term [1/loss]; 0 for D > 3.
    """

    depth: int
    feature: int
    minimum: Array
    saddle: Array
    destination: Array
    height: float
    minimum_spectrum: Array
    saddle_spectrum: Array
    minimum_zero_modes: int
    saddle_zero_modes: int
    log_volume_ratio: float
    minimum_order_parameters: Array
    saddle_order_parameters: Array
    destination_order_parameters: Array
    degeneracy: int
    spare_units: tuple[int, ...]
    weight_decay: float
    trap_widening: float

    @property
    def zero_modes_known(self) -> bool:
        """True: they are those of the network's rotations."""
        return True

    @property
    def order_parameters_on_the_way(self) -> tuple[float, float, float]:
        """Order parameter of the barrier's feature at minimum, saddle and destination."""
        at_minimum, top, behind = (
            float(seen[self.feature])
            for seen in (
                self.minimum_order_parameters, self.saddle_order_parameters, self.destination_order_parameters,
            )
        )  # fmt: skip
        return at_minimum, top, behind

    def flags(self, temperature: float) -> tuple[str, ...]:
        """Conditions of Gaussian integrals about the orbits that fail: `orbit_flags`."""
        return orbit_flags(self, temperature)

    @property
    def saddle_amplitude(self) -> float:
        """Amplitude a of each layer, in the barrier's feature, at the top."""
        return float(self.order_parameter_at_saddle ** (1 / self.depth))

    def order_parameter_beyond(self, fraction: float) -> float:
        """Order parameter a^D at the amplitude `a_s + fraction · (a_destination − a_s)`."""
        a, b = (m ** (1 / self.depth) for m in (self.order_parameter_at_saddle, self.order_parameter_at_destination))
        return float((a + fraction * (b - a)) ** self.depth)
