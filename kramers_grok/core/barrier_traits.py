"""What barriers have in common: properties that follow from spectra, orbits and order parameters.

Classes to be mixed in, each typed by the questions it asks of the barrier.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Crossing", "IsolatedPoints", "SpectralDifferences", "log_determinant"]

Array = NDArray[np.float64]


def log_determinant(spectrum: Array) -> float:
    """Return Σ ln of the eigenvalues' moduli: determinants of many weights under- and overflow.

    Examples
    --------
    >>> round(log_determinant(np.array([-2.0, 0.5])), 12) == 0
    True
    """
    return float(np.log(np.abs(spectrum)).sum())


class _Spectra(Protocol):
    """What `SpectralDifferences` reads."""

    @property
    def minimum_spectrum(self) -> Array: ...

    @property
    def saddle_spectrum(self) -> Array: ...


class _Crossing(_Spectra, Protocol):
    """What `Crossing` reads."""

    @property
    def minimum_zero_modes(self) -> int: ...

    @property
    def saddle_zero_modes(self) -> int: ...

    @property
    def order_parameters_on_the_way(self) -> tuple[float, float, float]: ...


class SpectralDifferences:
    """What a rate takes from the spectra at a minimum and at a saddle that are both known whole."""

    @property
    def log_determinant_ratio(self: _Spectra) -> float:
        """Ln det' H(minimum) − ln det' H(saddle), moduli."""
        return log_determinant(self.minimum_spectrum) - log_determinant(self.saddle_spectrum)

    @property
    def trace_difference(self: _Spectra) -> float:
        """Tr H(minimum) − tr H(saddle) [loss / coordinate²]."""
        return float(self.minimum_spectrum.sum() - self.saddle_spectrum.sum())


class IsolatedPoints:
    """What a rate asks of a minimum and a saddle without zero modes; a zero mode would show in the spectra."""

    multiplicity: int

    @property
    def minimum_zero_modes(self) -> int:
        """Zero modes of the minimum: none, or the spectrum shows them."""
        return 0

    @property
    def saddle_zero_modes(self) -> int:
        """Zero modes of the saddle: none, or the spectrum shows them."""
        return 0

    @property
    def extra_zero_modes(self) -> int:
        """0: neither point has any."""
        return 0

    @property
    def zero_modes_known(self) -> bool:
        """False: a zero mode would show in the spectra, and no formula for points has a place for it."""
        return False

    @property
    def log_volume_ratio(self) -> float:
        """Logarithm of the number of equivalent saddles."""
        return math.log(self.multiplicity)

    def flags(self, temperature: float) -> tuple[str, ...]:
        """None: closed forms of points know no condition but T ≪ ΔF.

        Parameters
        ----------
        temperature : float
            [loss]

        Returns
        -------
        tuple of str
        """
        return ()


class Crossing:
    """What follows from a barrier's spectra, orbits and order parameters, whoever found them."""

    @property
    def extra_zero_modes(self: _Crossing) -> int:
        """n₀, the saddle's zero modes beyond the minimum's: the rate's prefactor has the power T^(−n₀/2)."""
        return self.saddle_zero_modes - self.minimum_zero_modes

    @property
    def negative_eigenvalue(self: _Crossing) -> float:
        """The saddle's one negative eigenvalue: the growth rate away from it is its modulus [1/time]."""
        return float(self.saddle_spectrum[0])

    @property
    def order_parameter_at_minimum(self: _Crossing) -> float:
        """Order parameter of the barrier's feature where the network is trapped."""
        return self.order_parameters_on_the_way[0]

    @property
    def order_parameter_at_saddle(self: _Crossing) -> float:
        """Order parameter of the barrier's feature at its top."""
        return self.order_parameters_on_the_way[1]

    @property
    def order_parameter_at_destination(self: _Crossing) -> float:
        """Order parameter of the barrier's feature in the state behind it."""
        return self.order_parameters_on_the_way[2]
