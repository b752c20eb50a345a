r"""Radial free energy: energy minus temperature times the logarithm of an orbit's volume.

Rotations of the hidden layers leave a deep linear network's loss alone. What they cannot change of one channel is its
amplitude in every layer: a radius :math:`\rho_l` for each hidden layer, and an alignment z in the layer where the radii
built from both ends meet. With :math:`m = z\prod\rho` their equilibrium density is :math:`e^{-E/T}`,

.. math:: E = \tfrac q2(\sigma - m)^2 + \tfrac\lambda2\Big(\sum_l\rho_l^2 + z^2\Big)
    - T\sum_l(h_l-1)\ln\rho_l + T\,S .

**Exact** for rank 0 and one input or one output (`Exactness.EXACT_MEASURE`): all other weights are Gaussian given
these, and S holds the d − 1 extra inputs, :math:`\frac{d-1}2\ln(1+qb^2/\lambda)` with b the product of the radii (or
extra outputs likewise). Otherwise (`Exactness.APPROXIMATION`) S holds Gaussian determinants of leading order in T about
the aligned point: extra inputs and outputs, pairs with other unlearned features and, at rank r ≥ 1, pairs with the
learned channels, which are frozen at their amplitudes while the exponents become :math:`h_l-r-1`.

Kramers' formula in these few coordinates holds where the Gaussian saddle of the whole network fails: where its orbit is
not much larger than the thermal width. It takes unit mobility for the radii, which is right for T → 0 only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from kramers_grok.core import checks
from kramers_grok.core.exceptions import NoBarrierError, ValidityWarning
from kramers_grok.theory.radial_channel import channel_potential, check_channel
from kramers_grok.theory.radial_potential import RadialPoint, RadialPotential
from kramers_grok.theory.radial_well import log_gaussian_well, log_well_integral
from kramers_grok.theory.rates import Rate
from kramers_grok.theory.saddles import MatrixNetwork

__all__ = [
    "LOWEST_BARRIER",
    "Exactness",
    "RadialBarrier",
    "RadialFreeEnergy",
    "WellIntegral",
    "critical_width",
    "entropic_spinodal",
    "radial_rate",
]

Array = NDArray[np.float64]

#: Radial barrier over T below which a radial rate is marked invalid. Above it simulated times (D = 3 and 4, widths 2 to
#: 16, from rank 1, 8 inputs and outputs) were 0 to 9 % shorter than predicted: evidence/melting.py.
LOWEST_BARRIER = 2.0
# A trap that persists up to e^8 times the expected temperature does not melt
RANGE = 8.0


class Exactness(Enum):
    """What a radial free energy is."""

    EXACT_MEASURE = "exact equilibrium measure of the radii"
    APPROXIMATION = "directions across the channel to leading order in the temperature"


class WellIntegral(Enum):
    """How the trap's partition function is evaluated."""

    EXACT = "integrated over m < m_s"
    GAUSSIAN = "every weight Gaussian with variance T/λ, the pull of the data left out"
    LAPLACE = "Gaussian about the minimum of the radial free energy"


@dataclass(frozen=True)
class RadialBarrier:
    """Trap, saddle and learned state of a radial free energy.

    Attributes
    ----------
    trap, saddle, learned : RadialPoint
    """

    trap: RadialPoint
    saddle: RadialPoint
    learned: RadialPoint

    @property
    def height(self) -> float:
        """E(saddle) − E(trap) [loss]."""
        return self.saddle.energy - self.trap.energy


@dataclass(frozen=True)
class RadialFreeEnergy:
    """Radial free energy of the strongest unlearned feature of a matrix network.

    Parameters
    ----------
    network : MatrixNetwork
    temperature : float
        T > 0 [loss].
    rank : int
        Number r of learned features.

    Attributes
    ----------
    exactness : Exactness
        Whether it is the exact equilibrium measure.

    Raises
    ------
    InvalidParameterError
        For T ≤ 0, a rank out of range, or a feature as strong as another one (a continuous symmetry of the teacher,
        which this free energy does not hold).
    NoBarrierError
        If D = 2, a learned feature is above its spinodal, all features are learned, or a hidden layer has no free unit.

    Examples
    --------
    >>> network = MatrixNetwork((1, 4, 4, 1), (1.0,), weight_decay=0.25)
    >>> radial = RadialFreeEnergy(network, temperature=0.001)
    >>> radial.exactness.name, radial.exponents
    ('EXACT_MEASURE', (3, 3))
    >>> print(f"{radial.barrier().height / radial.temperature:.4f}")
    0.6500
    """

    network: MatrixNetwork
    temperature: float
    rank: int = 0

    def __post_init__(self) -> None:
        why = "the entropy of an orbit counts in units of the temperature"
        object.__setattr__(self, "temperature", checks.positive("temperature", self.temperature, why))
        check_channel(self.network, checks.positive_int("rank", self.rank, minimum=0))

    @property
    def exactness(self) -> Exactness:
        """Whether this is the exact equilibrium measure or a leading order."""
        one_sided = 1 in (self.network.widths[0], self.network.widths[-1])
        return Exactness.EXACT_MEASURE if self.rank == 0 and one_sided else Exactness.APPROXIMATION

    @property
    def exponents(self) -> tuple[int, ...]:
        """h_l − r − 1 of each hidden layer: the dimension of its part of the orbit."""
        return tuple(h - self.rank - 1 for h in self.network.hidden)

    @cached_property
    def potential(self) -> RadialPotential:
        """E as a function of the D amplitudes."""
        return channel_potential(self.network, self.rank, self.temperature, np.array(self.exponents, dtype=np.float64))

    def energy(self, amplitudes: ArrayLike) -> Array:
        """E at amplitudes of the D layers, shape (..., layer) [loss].

        Parameters
        ----------
        amplitudes : array_like, shape (..., layer)

        Returns
        -------
        array, shape (...)
        """
        return self.potential.energy(_amplitudes(amplitudes, self.network.depth))

    def profile(self, order_parameter: ArrayLike) -> Array:
        """Lowest E at given order parameters 0 < m < σ, shape (...,) [loss]; NaN where no minimum exists.

        Parameters
        ----------
        order_parameter : array_like

        Returns
        -------
        array, the shape of `order_parameter`
        """
        m = checks.finite_array("order_parameter", order_parameter)
        if not ((m > 0) & (m < self.potential.singular_value)).all():
            raise checks.invalid(
                "order_parameter", float(m.min()), "numbers between 0 and σ", "radii are positive between the states"
            )
        return self.potential.energy(self.potential.constrained(m)[0])

    def barrier(self) -> RadialBarrier:
        """Trap, saddle and learned state.

        Returns
        -------
        RadialBarrier

        Raises
        ------
        NoBarrierError
            If the trap has melted (the temperature is above `entropic_spinodal`), or λ is at or above the spinodal.
        """
        return self._barrier

    @cached_property
    def _barrier(self) -> RadialBarrier:
        self.network.mode(self.rank).saddle_amplitude()  # says why there is none at D = 2 or above the spinodal
        potential = self.potential
        excess, crest = potential.crest()
        if not excess > 0:
            raise _melted(self.network, self.temperature, self.rank)
        saddle = potential.saddle(crest)
        return RadialBarrier(
            potential.point(potential.trap(crest)), potential.point(saddle), potential.point(potential.learned(saddle))
        )

    def log_well(self, well: WellIntegral = WellIntegral.EXACT) -> float:
        r"""Logarithm of the trap's partition function :math:`\int_{\rm trap} e^{-E/T}\,da`, evaluated as `well` says.

        Parameters
        ----------
        well : WellIntegral

        Returns
        -------
        float

        Raises
        ------
        NoBarrierError
            As in `barrier`, except for ``WellIntegral.GAUSSIAN``, which needs no barrier.
        """
        if well is WellIntegral.GAUSSIAN:
            return log_gaussian_well(self.potential)
        barrier = self.barrier()
        if well is WellIntegral.EXACT:
            return log_well_integral(self.potential, barrier.saddle.order_parameter)
        # A radius without entropy has its maximum at 0, the end of its range.
        return _log_laplace(barrier.trap, self.temperature) - math.log(2) * self.exponents.count(0)


def radial_rate(
    network: MatrixNetwork,
    temperature: float,
    rank: int = 0,
    *,
    well: WellIntegral = WellIntegral.EXACT,
    warn: bool = True,
) -> Rate:
    r"""Kramers' rate in the radial coordinates.

    .. math:: k = \frac{|\mu_-|}{2\pi}\,\frac{(2\pi T)^{D/2}}{\sqrt{|\det E''_s|}}\,\frac{e^{-E_s/T}}{Z_{\min}}

    with unit mobility and :math:`\mu_-` the negative eigenvalue of :math:`E''` at the saddle.

    Parameters
    ----------
    network : MatrixNetwork
    temperature : float
        T > 0 [loss].
    rank : int
        Number r of learned features; the rate is that of learning the next one.
    well : WellIntegral
        How Z_min is evaluated.
    warn : bool
        Whether to warn where the expansion is poor; the result says it in any case.

    Returns
    -------
    Rate
        Its ``barrier_over_temperature`` is the *radial* barrier over T.

    Raises
    ------
    InvalidParameterError, NoBarrierError
        As in `RadialFreeEnergy` and its ``barrier``.

    Warns
    -----
    ValidityWarning
        If the radial barrier is low.

    Examples
    --------
    >>> network = MatrixNetwork((1, 2, 2, 1), (1.0,), weight_decay=0.25)
    >>> height = network.barrier().height
    >>> print(f"{radial_rate(network, height / 8, warn=False).mean_time:.0f}")
    1979
    """
    radial = RadialFreeEnergy(network, temperature, rank)
    barrier = radial.barrier()
    saddle, T = barrier.saddle, radial.temperature
    log_rate = math.log(-float(saddle.spectrum[0]) / (2 * math.pi)) + _log_laplace(saddle, T) - radial.log_well(well)
    return _rate(log_rate, barrier.height / T, warn)


def entropic_spinodal(network: MatrixNetwork, rank: int = 0) -> float:
    r"""Temperature at which the radial free energy loses the trap [loss].

    Trap and saddle merge there. For weak decay and one width h it is
    :math:`T^* = 2\Delta F\,(D-1)^{-(D-1)/(D-2)}/(h-1)`. A notion of the reduced coordinate: escape times have no
    singularity there.

    Parameters
    ----------
    network : MatrixNetwork
    rank : int
        Number of learned features.

    Returns
    -------
    float
        [loss]

    Raises
    ------
    NoBarrierError
        If the trap never melts: a hidden layer with a single free unit has no entropy to gain, or the learned state
        disappears first; and as in `RadialFreeEnergy`.

    Examples
    --------
    >>> network = MatrixNetwork((1, 8, 8, 1), (1.0,), weight_decay=0.25)
    >>> print(f"{entropic_spinodal(network) * 7 / network.barrier().height:.4f}")
    0.4959
    """
    check_channel(network, checks.positive_int("rank", rank, minimum=0))
    exponents = np.array([h - rank - 1.0 for h in network.hidden])
    height = network.mode(rank).barrier().height
    if not exponents.all():
        raise NoBarrierError(
            f"widths={network.widths}: a hidden layer has a single free unit at rank={rank}, whose amplitude gains no "
            f"entropy by leaving 0, so the trap does not melt.\nUse hidden widths of at least {rank + 2}."
        )

    def crest(log_temperature: float) -> float:
        return channel_potential(network, rank, math.exp(log_temperature), exponents).crest()[0]

    return math.exp(_last_positive(crest, math.log(2 * height / float(exponents.mean()))))


def critical_width(network: MatrixNetwork, temperature: float, rank: int = 0) -> float:
    """Common hidden width, as a real number, above which the radial free energy has no trap at a temperature.

    Parameters
    ----------
    network : MatrixNetwork
        Its own hidden widths do not matter.
    temperature : float
        T > 0 [loss].
    rank : int
        Number of learned features.

    Returns
    -------
    float

    Raises
    ------
    NoBarrierError
        As in `entropic_spinodal`.

    Examples
    --------
    >>> network = MatrixNetwork((1, 2, 2, 1), (1.0,), weight_decay=0.25)
    >>> print(f"{critical_width(network, network.barrier().height / 14):.3f}")
    7.942
    """
    check_channel(network, checks.positive_int("rank", rank, minimum=0))
    T = checks.positive("temperature", temperature, "at T = 0 the orbit's volume does not count")
    network.mode(rank).saddle_amplitude()

    def crest(log_exponent: float) -> float:
        exponents = np.full(network.depth - 1, math.exp(log_exponent))
        return channel_potential(network, rank, T, exponents).crest()[0]

    guess = math.log(2 * network.mode(rank).barrier().height / T)
    return 1 + rank + math.exp(_last_positive(crest, guess))


def _last_positive(crest: Callable[[float], float], guess: float) -> float:
    """Zero of a function that falls from positive to negative values, by bracketing around a guess."""
    low = high = guess
    while crest(low) <= 0:
        low -= 1.0
    while crest(high) > 0:
        low, high = high, high + 0.5
        if high > guess + RANGE:
            raise NoBarrierError(
                "The trap does not melt: the extra inputs and outputs hold it back however large the entropy of the "
                "hidden layers is.\nUse `radial_rate` wherever there is a learned state."
            )
    return float(brentq(crest, low, high, xtol=1e-13, rtol=1e-13))


def _amplitudes(value: ArrayLike, depth: int) -> Array:
    a = checks.finite_array("amplitudes", value)
    if a.shape[-1:] != (depth,):
        raise checks.invalid(
            "amplitudes", checks.Described(f"array of shape {a.shape}"), f"shape (..., {depth})", "one for each layer"
        )
    return a


def _log_laplace(point: RadialPoint, temperature: float) -> float:
    """Logarithm of the Gaussian integral about a stationary point; of the modulus of its determinant at a saddle."""
    spectrum = np.abs(point.spectrum)
    return 0.5 * float(np.log(2 * math.pi * temperature / spectrum).sum()) - point.energy / temperature


def _melted(network: MatrixNetwork, temperature: float, rank: int) -> NoBarrierError:
    width = critical_width(network, temperature, rank)
    return NoBarrierError(
        f"The trap has melted: with hidden widths {network.hidden} at temperature={temperature:.6g} the radial free "
        "energy falls all the way to the learned state, because the entropy of wide layers outweighs the barrier's "
        "energy. There is no activated escape, and no barrier whose rate could be asked for.\n"
        f"Use a temperature below {entropic_spinodal(network, rank):.6g}, hidden widths below {width:.3g}, or simulate."
    )


def _rate(log_rate: float, ratio: float, warn: bool) -> Rate:
    flags: tuple[str, ...] = ()
    note = ""
    if ratio < LOWEST_BARRIER:
        flags = (
            f"the radial barrier is {ratio:.3g} T, below {LOWEST_BARRIER:g} T: escape is hardly an activated event",
        )
        note = f"Radial Kramers: {flags[0]}. Use a simulation."
        if warn:
            warnings.warn(note, ValidityWarning, stacklevel=3)
    return Rate(math.exp(log_rate), "radial Kramers", ratio, not flags, note, flags)
