r"""Asymptotic escape rates: Arrhenius, Kramers, Eyring–Kramers.

.. math:: k = \frac{\kappa}{2\pi}\,\sqrt{\frac{\det' H_{\min}}{|\det' H_s|}}\;(2\pi T)^{-(n_s-n_m)/2}\,
          \frac{\mathrm{Vol}_s}{\mathrm{Vol}_m}\; e^{-\Delta F/T}

with the growth rate κ away from the saddle: :math:`|\mu_-|` in overdamped motion,
:math:`\sqrt{\gamma^2/4+|\mu_-|}-\gamma/2` at unit mass and friction γ. Volumes, and zero modes left out of the
determinants, are those of continuous symmetries; without them the ratio is the number of equivalent saddles. All
are leading orders in T/ΔF; the relative error is of first order in it (0.4 T/ΔF for the chain of three weights).
They count crossings to the *other well*: the time to the barrier's top is half of 1/k.

References: Hänggi, Talkner & Borkovec, Rev. Mod. Phys. 62, 251 (1990); Berglund, arXiv:1106.5799.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.barrier import Barrier, RateBarrier
from kramers_grok.core.barrier_traits import IsolatedPoints, SpectralDifferences
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning

__all__ = [
    "VALIDITY_THRESHOLD",
    "Rate",
    "Well",
    "arrhenius_rate",
    "eyring_kramers_rate",
    "kramers_rate",
    "multiplicative_kramers_rate",
]

Array = NDArray[np.float64]

#: ΔF/T below which an asymptotic rate is marked invalid. At 10 the chain's exact time exceeds it by 3.5 %.
VALIDITY_THRESHOLD = 10.0

# Eigenvalues below this fraction of the largest are zero modes, for which a determinant means nothing.
_ZERO_MODE = 1e-12


@dataclass(frozen=True)
class Rate:
    """An escape rate that knows whether its formula applies.

    Attributes
    ----------
    value : float
        Escape rate k, summed over equivalent saddles [1/time].
    kind : str
        Name of the formula, for labels.
    barrier_over_temperature : float
        ΔF/T, the large parameter of the expansion.
    valid : bool
        Whether no flag is raised.
    note : str
        Why it is not valid, empty otherwise.
    flags : tuple of str
        One short text for each condition of the formula that fails.
    """

    value: float
    kind: str
    barrier_over_temperature: float
    valid: bool
    note: str
    flags: tuple[str, ...] = ()

    @property
    def mean_time(self) -> float:
        """Mean escape time 1/k [time], infinite where k underflows."""
        return math.inf if self.value == 0 else 1.0 / self.value


@dataclass(frozen=True)
class Well(IsolatedPoints, SpectralDifferences):
    """One-dimensional barrier given by its curvatures, for potentials without a `Landscape`.

    Parameters
    ----------
    height : float
        Barrier height ΔU > 0 [loss].
    minimum_curvature : float
        U'' > 0 at the minimum.
    saddle_curvature : float
        U'' < 0 at the top.
    multiplicity : int
        Number of equivalent tops.

    Raises
    ------
    InvalidParameterError
        For a curvature of the wrong sign or a height that is not positive.
    """

    height: float
    minimum_curvature: float
    saddle_curvature: float
    multiplicity: int = 1

    def __post_init__(self) -> None:
        top = checks.finite("saddle_curvature", self.saddle_curvature)
        if top >= 0:
            raise checks.invalid("saddle_curvature", top, "a number < 0", "the top of a barrier is a maximum")
        object.__setattr__(self, "saddle_curvature", top)
        object.__setattr__(self, "height", checks.positive("height", self.height))
        object.__setattr__(self, "minimum_curvature", checks.positive("minimum_curvature", self.minimum_curvature))
        object.__setattr__(self, "multiplicity", checks.positive_int("multiplicity", self.multiplicity))

    @property
    def minimum_spectrum(self) -> Array:
        """Curvature at the minimum, as a spectrum of length 1."""
        return np.array([self.minimum_curvature])

    @property
    def saddle_spectrum(self) -> Array:
        """Curvature at the top, as a spectrum of length 1."""
        return np.array([self.saddle_curvature])


def arrhenius_rate(height: float, temperature: float, *, prefactor: float, warn: bool = True) -> Rate:
    r"""Arrhenius' law :math:`k = A\,e^{-\Delta F/T}` with a prefactor A of your own.

    Parameters
    ----------
    height : float
        ΔF > 0 [loss].
    temperature : float
        T > 0 [loss].
    prefactor : float
        A > 0 [1/time].
    warn : bool
        Whether to warn below `VALIDITY_THRESHOLD`; the result says it in any case.

    Raises
    ------
    InvalidParameterError
        For numbers that are not positive.

    Warns
    -----
    ValidityWarning
        If ΔF/T is below `VALIDITY_THRESHOLD`.

    Examples
    --------
    >>> arrhenius_rate(0.0, 1.0, prefactor=2.0)
    Traceback (most recent call last):
    ...
    kramers_grok.core.exceptions.InvalidParameterError: `height` = 0.0, expected a finite number > 0.
    >>> print(f"{arrhenius_rate(20.0, 1.0, prefactor=2.0).value:.6e}")
    4.122307e-09
    """
    ratio = checks.positive("height", height) / _temperature(temperature)
    return _rate("Arrhenius", ratio, math.log(checks.positive("prefactor", prefactor)), warn)


def kramers_rate(
    barrier: Barrier | Well, temperature: float, *, friction: float | None = None, warn: bool = True
) -> Rate:
    r"""Kramers' rate in one dimension, overdamped or with friction.

    .. math:: k = \frac{\sqrt{U''_{\min}|U''_s|}}{2\pi} e^{-\Delta U/T}, \qquad
        k = \frac{\kappa}{2\pi}\sqrt{\frac{U''_{\min}}{|U''_s|}} e^{-\Delta U/T},\quad
        \kappa = \sqrt{\gamma^2/4+|U''_s|}-\gamma/2.

    Parameters
    ----------
    barrier : Barrier or Well
        A barrier in one coordinate with mobility 1.
    temperature : float
        T > 0 [loss].
    friction : float, optional
        γ ≥ 0 at unit mass (from moderate friction upwards); None is the overdamped motion.
    warn : bool
        As in `arrhenius_rate`.

    Returns
    -------
    Rate

    Raises
    ------
    InvalidParameterError
        For a barrier in several coordinates, or numbers out of range.

    Warns
    -----
    ValidityWarning
        If ΔU/T is below `VALIDITY_THRESHOLD`.

    Examples
    --------
    The potential (x² − 1)² at β = 4, γ = 2:

    >>> rate = kramers_rate(Well(1.0, 8.0, -4.0), temperature=0.25, friction=2.0, warn=False)
    >>> print(f"{rate.mean_time:.0f} {rate.valid}")
    196 False
    """
    if len(barrier.minimum_spectrum) != 1:
        raise InvalidParameterError(
            f"`barrier` has {len(barrier.minimum_spectrum)} coordinates, expected 1: Kramers' formula leaves out "
            "the entropy of the other directions.\nUse `eyring_kramers_rate(barrier, temperature)`."
        )
    return _eyring_kramers("Kramers", barrier, temperature, friction, warn)


def multiplicative_kramers_rate(
    well: Barrier | Well,
    *,
    potential_difference: float,
    minimum_diffusion: float,
    saddle_diffusion: float,
    warn: bool = True,
) -> Rate:
    r"""Kramers' rate in one dimension with state-dependent diffusion 𝒟 (Itô).

    .. math:: k = \frac{\sqrt{U''_{\min}|U''_s|}}{2\pi}\sqrt{\frac{\mathcal D_{\min}}{\mathcal D_s}}\,
        e^{-(\Phi_s-\Phi_{\min})}, \qquad \Phi' = U'/\mathcal D.

    Parameters
    ----------
    well : Barrier or Well
        Curvatures of the drift's potential U in one coordinate (its height is not used).
    potential_difference : float
        Φ_s − Φ_min > 0, dimensionless: it takes the place of ΔU/T.
    minimum_diffusion, saddle_diffusion : float
        𝒟 > 0 at the minimum and at the top [loss].
    warn : bool
        As in `arrhenius_rate`.

    Raises
    ------
    InvalidParameterError
        For a barrier in several coordinates, or numbers that are not positive. At 𝒟_min = 0 the noise is
        absorbing and no rate exists.

    Warns
    -----
    ValidityWarning
        If Φ_s − Φ_min is below `VALIDITY_THRESHOLD`.

    Examples
    --------
    >>> well = Well(1.0, 8.0, -4.0)
    >>> rate = multiplicative_kramers_rate(
    ...     well, potential_difference=20.0, minimum_diffusion=0.05, saddle_diffusion=0.05
    ... )
    >>> rate.value == kramers_rate(well, temperature=0.05).value
    True
    """
    if len(well.minimum_spectrum) != 1:
        raise InvalidParameterError(
            f"`well` has {len(well.minimum_spectrum)} coordinates, expected 1.\nUse `chain.mode.barrier()`."
        )
    absorbing = "where the noise vanishes the state is absorbing and the mean escape time infinite"
    at_minimum = checks.positive("minimum_diffusion", minimum_diffusion, absorbing)
    at_saddle = checks.positive("saddle_diffusion", saddle_diffusion, absorbing)
    ratio = checks.positive("potential_difference", potential_difference)
    log_prefactor = _log_prefactor(well, None) + 0.5 * math.log(at_minimum / at_saddle)
    return _rate("Kramers (multiplicative)", ratio, log_prefactor, warn)


def eyring_kramers_rate(
    barrier: RateBarrier,
    temperature: float,
    *,
    friction: float | None = None,
    step: float = 0.0,
    warn: bool = True,
) -> Rate:
    r"""Eyring–Kramers rate in any number of coordinates, with the orbits of continuous symmetries.

    .. math:: k = \frac{|\mu_-|}{2\pi}\sqrt{\frac{\det' H_{\min}}{|\det' H_s|}}\;(2\pi T)^{-(n_s-n_m)/2}\,
              \frac{\mathrm{Vol}_s}{\mathrm{Vol}_m}\;e^{-\Delta F/T}

    Zero modes are left out of the determinants; without any the ratio of volumes is the number of equivalent
    saddles, and for the chain of D scalar weights :math:`k = 2^{(D-1)/2}\sqrt{\lambda|\mu_-|}/(2\pi)\,e^{-\Delta F/T}`.
    It counts crossings to the *other well*, summed over the whole orbit of saddles.

    Parameters
    ----------
    barrier : Barrier, Well, OrbitBarrier or NumericalBarrier
        From ``mode.barrier()``, ``chain.barrier()``, ``MatrixNetwork(...).barrier(rank)`` or
        ``find_barrier(model, minimum, destination)``.
    temperature, friction
        As in `kramers_rate`.
    step : float
        Time step h ≥ 0 of an Euler–Maruyama walk [time], for its own rate to first order in h and leading order
        in T, :math:`\ln (k_h/k_0) = -\tfrac h2|\mu_-| + \tfrac h4(\operatorname{tr} H_{\min} - \operatorname{tr} H_s)`.
    warn
        As in `kramers_rate`.

    Returns
    -------
    Rate

    Raises
    ------
    InvalidParameterError
        If the minimum is no minimum, the saddle has not exactly one negative eigenvalue, a spectrum holds
        zero modes that no orbit accounts for, or a time step is combined with friction.

    Warns
    -----
    ValidityWarning
        If ΔF/T is below `VALIDITY_THRESHOLD`, or the barrier raises a flag, as those of
        `kramers_grok.core.saddle_validity.orbit_flags`.

    Examples
    --------
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> barrier = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25).barrier()
    >>> print(f"{eyring_kramers_rate(barrier, barrier.height / 20).mean_time:.6e}")
    6.255428e+09
    >>> from kramers_grok.theory.saddles import MatrixNetwork
    >>> wide = MatrixNetwork((1, 2, 2, 1), (1.0,), weight_decay=0.25).barrier()
    >>> print(f"{eyring_kramers_rate(wide, wide.height / 8, warn=False).mean_time:.0f}")
    1504
    """
    h = checks.non_negative("step", step, "it is the time step of a walk")
    if h > 0 and friction is not None:
        raise InvalidParameterError(
            f"`step` = {h:g} with `friction` = {friction:g}: the correction is that of the overdamped Euler–Maruyama "
            "walk.\nUse `friction=None`, or `step=0.0`."
        )
    return _eyring_kramers("Eyring–Kramers", barrier, temperature, friction, warn, h)


def _eyring_kramers(
    kind: str,
    barrier: RateBarrier,
    temperature: float,
    friction: float | None,
    warn: bool,
    step: float = 0.0,
) -> Rate:
    heat = _temperature(temperature)
    log_prefactor = _log_prefactor(barrier, friction)
    log_prefactor -= 0.5 * barrier.extra_zero_modes * math.log(2 * math.pi * heat)
    if step > 0:
        log_prefactor += step * (0.5 * float(np.min(barrier.saddle_spectrum)) + 0.25 * barrier.trace_difference)
    return _rate(kind, barrier.height / heat, log_prefactor, warn, barrier.flags(heat))


def _temperature(value: float) -> float:
    return checks.positive("temperature", value, "without noise nothing escapes, and no rate exists")


def _log_prefactor(barrier: RateBarrier, friction: float | None) -> float:
    """Logarithm of the prefactor without the temperature's power."""
    bottom, top = np.sort(barrier.minimum_spectrum), np.sort(barrier.saddle_spectrum)
    for name, spectrum in (("minimum", bottom), ("saddle", top)):
        # Where zero modes are known they are already out: what is left may be soft, which a flag says.
        floor = 0.0 if barrier.zero_modes_known else _ZERO_MODE * np.abs(spectrum).max()
        if np.abs(spectrum).min() <= floor:
            raise InvalidParameterError(
                f"The {name} has the spectrum {spectrum.tolist()} with a zero mode: a continuous symmetry makes "
                "it an orbit, and the determinant of its Hessian vanishes.\n"
                "Use `MatrixNetwork(...).barrier(rank)`, which knows its orbits' volumes, or the chain of scalars."
            )
    if bottom[0] < 0:
        raise InvalidParameterError(f"`barrier.minimum` is no minimum: its spectrum is {bottom.tolist()}.")
    if top[0] >= 0 or (top.size > 1 and top[1] < 0):
        raise InvalidParameterError(
            f"`barrier.saddle` has {int((top < 0).sum())} negative eigenvalues, expected 1: only such a saddle has "
            f"a Kramers rate (spectrum {top.tolist()}).\nUse the barrier to the strongest unlearned feature."
        )
    entropy = 0.5 * barrier.log_determinant_ratio
    return barrier.log_volume_ratio + math.log(_growth(-float(top[0]), friction) / (2 * math.pi)) + entropy


def _growth(curvature: float, friction: float | None) -> float:
    """Growth rate κ away from the saddle."""
    if friction is None:
        return curvature
    gamma = checks.non_negative("friction", friction, "friction removes energy")
    # The difference of the root and γ/2, without its cancellation at large friction.
    return curvature / (math.sqrt(gamma**2 / 4 + curvature) + gamma / 2)


def _rate(kind: str, ratio: float, log_prefactor: float, warn: bool, others: tuple[str, ...] = ()) -> Rate:
    flags = others
    if ratio < VALIDITY_THRESHOLD:
        flags = (
            f"ΔF/T = {ratio:.3g} is below {VALIDITY_THRESHOLD:g}; corrections of relative order "
            f"T/ΔF = {1 / ratio:.2g} are left out",
            *others,
        )
    note = ""
    if flags:
        # The radial free energy keeps what makes a network's orbits fail, the capacity what makes soft modes fail.
        way = "`radial_rate`, `capacity_rate` or a simulation" if others else "`exit_time` for the exact time"
        note = f"{kind}: {'; '.join(flags)}. Use {way}."
        if warn:
            warnings.warn(note, ValidityWarning, stacklevel=4)
    return Rate(math.exp(log_prefactor - ratio), kind, ratio, not flags, note, flags)
