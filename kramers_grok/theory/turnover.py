r"""Kramers' turnover: escape rates against friction, from energy diffusion to overdamped motion.

A particle of unit mass crosses a barrier at Kramers' rate of moderate and strong friction,
:math:`k_K = \frac{\kappa}{2\pi}\sqrt{U''_{\min}/|U''_s|}\,e^{-\Delta U/T}`, only if friction brings enough particles
up to the barrier's energy. What one round in the well loses there is, in units of T,

.. math:: \delta = \frac{\gamma I}{T}, \qquad I = \oint p\,dx \text{ at the barrier's energy},

and the rate is :math:`A(\delta)\,k_K` with Mel'nikov and Meshkov's depopulation factor

.. math:: A(\delta) = \exp\Big[\frac1{2\pi}\int_{-\infty}^\infty
    \ln\!\big(1 - e^{-\delta(s^2+1/4)}\big)\frac{ds}{s^2+1/4}\Big]

(:math:`A \approx \delta` for small, 1 for large :math:`\delta`). That is the rate of a *metastable well*: what is
across does not return. The mean first-passage time to a target past the barrier is of this kind, whatever lies behind
the target. The rate of hopping to another well *and staying there* has in its place
:math:`A(\delta)A(\delta')/A(\delta+\delta')`, :math:`\delta'` the loss in the other well. A symmetric well with a
barrier on either side is one that loses :math:`\delta/2` between two attempts.

References
----------
H. A. Kramers, Physica 7, 284 (1940); V. I. Mel'nikov and S. V. Meshkov, J. Chem. Phys. 85, 1018 (1986);
P. Hänggi, P. Talkner and M. Borkovec, Rev. Mod. Phys. 62, 251 (1990), sections IV and VI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.barrier import Barrier
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.theory.rates import Rate, Well, kramers_rate

__all__ = [
    "InertialWell",
    "depopulation_factor",
    "energy_diffusion_rate",
    "energy_diffusion_time",
    "turnover_rate",
]

Array = NDArray[np.float64]

_NODES = 200


@dataclass(frozen=True)
class InertialWell(Well):
    r"""One-dimensional barrier with what inertia asks for: the actions at the barrier's energy.

    Parameters
    ----------
    height, minimum_curvature, saddle_curvature, multiplicity
        As in `Well`. With multiplicity 2 a barrier stands on either side of a symmetric well.
    action : float
        :math:`I = \oint p\,dx > 0` of a full round in the well at the barrier's energy.
    return_action : float, optional
        The same in the well behind the barrier, for the rate of hopping there and staying; None where nothing
        returns, as behind a target of first passage.

    Raises
    ------
    InvalidParameterError
        For an action that is not positive, or a return over one of two barriers.
    """

    action: float = math.nan
    return_action: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        why = "without the action at the barrier's energy the loss in one round is not known"
        object.__setattr__(
            self, "action", checks.positive("action", self.action, why, "Use `InertialWell.of(barrier)`.")
        )
        if self.return_action is not None:
            object.__setattr__(self, "return_action", checks.positive("return_action", self.return_action))
            if self.multiplicity != 1:
                raise InvalidParameterError(
                    f"`return_action` = {self.return_action:g} with {self.multiplicity} barriers, expected 1: where a "
                    "particle returns to is not said.\nUse `return_action=None`: first passage to either side."
                )

    @classmethod
    def of(cls, barrier: Barrier, *, returns: bool = False) -> InertialWell:
        """Take a barrier in one coordinate, and find its actions by quadrature.

        Parameters
        ----------
        barrier : Barrier
            From ``mode.barrier()``, or of your own landscape.
        returns : bool
            Whether particles may come back from the well behind the barrier: then the rate is that of hopping there and
            staying, otherwise that of a first passage.

        Examples
        --------
        >>> import sympy
        >>> x = sympy.Symbol("x", real=True)
        >>> double_well = Landscape((x**2 - 1) ** 2, (x,), (x,))
        >>> points = [np.array([p]) for p in (-1.0, 0.0, 1.0)]
        >>> well = InertialWell.of(Barrier(double_well, *points, height=1.0))
        >>> round(well.action, 9)  # 8/3
        2.666666667
        """
        if barrier.landscape.dimension != 1:
            raise InvalidParameterError(
                f"`barrier` has {barrier.landscape.dimension} coordinates, expected 1: how energy is lost in several "
                "is not known in closed form.\nUse `chain.mode.barrier()`, or a simulation by `UnderdampedLangevin`."
            )
        minimum, saddle, behind = (float(p[0]) for p in (barrier.minimum, barrier.saddle, barrier.destination))
        return cls(
            height=barrier.height,
            minimum_curvature=float(barrier.minimum_spectrum[0]),
            saddle_curvature=float(barrier.saddle_spectrum[0]),
            multiplicity=barrier.multiplicity,
            action=_action(barrier.landscape, minimum, saddle, barrier.multiplicity == 2),
            return_action=_action(barrier.landscape, behind, saddle, False) if returns else None,
        )

    def loss(self, temperature: float, friction: float) -> float:
        """Energy lost between two attempts at a barrier, in units of T: δ, or δ/2 between two barriers."""
        return friction * self.action / (self.multiplicity * temperature)


def depopulation_factor(loss: ArrayLike) -> Array:
    r"""Mel'nikov and Meshkov's factor :math:`A(\delta)`, of the shape of `loss`.

    Parameters
    ----------
    loss : array_like
        δ > 0: energy lost between two attempts at the barrier, in units of T.

    Raises
    ------
    InvalidParameterError
        For a loss that is not positive.

    Examples
    --------
    >>> depopulation_factor([0.01, 1.0, 10.0]).round(6).tolist()
    [0.009209, 0.442978, 0.974171]
    """
    delta = checks.finite_array("loss", loss)
    if (delta <= 0).any():
        raise checks.invalid("loss", float(delta.min()), "numbers > 0", "without friction nothing escapes")
    # s = tan(θ)/2: the integral over all s is 2/π times the one over θ in (0, π/2). Written with the angle from π/2,
    # and squared nodes for the logarithm's singularity there at small δ.
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    u = (nodes + 1) / 2
    angle = 0.5 * math.pi * u**2
    exponent = delta[..., None] / (4 * np.sin(angle) ** 2)
    logarithm = np.log(-np.expm1(-exponent))
    return np.asarray(np.exp(2 / math.pi * (logarithm * weights * 0.5 * math.pi * u).sum(axis=-1)))


def turnover_rate(barrier: Barrier | InertialWell, temperature: float, *, friction: float, warn: bool = True) -> Rate:
    r"""Escape rate at any friction, :math:`A(\delta)\,k_K`: Mel'nikov and Meshkov's interpolation.

    Parameters
    ----------
    barrier : Barrier or InertialWell
        A `Barrier` in one coordinate gives the rate of first passage to a target past it. With
        ``InertialWell.of(barrier, returns=True)`` it is the rate of hopping to the other well and staying there.
    temperature : float
        T > 0 [loss].
    friction : float
        γ > 0 at unit mass [1/time].
    warn : bool
        As in `kramers_rate`.

    Returns
    -------
    Rate
        Its corrections are of order T/ΔU at strong friction, and larger, √(T/ΔU) or so, around the turnover.

    Raises
    ------
    InvalidParameterError
        For a barrier in several coordinates, or numbers that are not positive.

    Warns
    -----
    ValidityWarning
        As `kramers_rate`.

    Examples
    --------
    >>> well = InertialWell(1.0, 8.0, -4.0, action=8 / 3)
    >>> [round(turnover_rate(well, 0.1, friction=g, warn=False).mean_time) for g in (0.01, 1.0, 100.0)]
    [281120, 62685, 2447503]
    """
    well = InertialWell.of(barrier) if isinstance(barrier, Barrier) else barrier
    gamma = checks.positive("friction", friction, "without friction the energy is conserved")
    strong = kramers_rate(well, temperature, friction=gamma, warn=warn)
    delta = well.loss(temperature, gamma)
    factor = float(depopulation_factor(delta))
    if well.return_action is not None:
        other = gamma * well.return_action / temperature
        there, both = (float(depopulation_factor(d)) for d in (other, delta + other))
        factor *= there / both
    return replace(strong, value=strong.value * factor, kind="Mel'nikov–Meshkov")


def energy_diffusion_rate(
    barrier: Barrier | InertialWell, temperature: float, *, friction: float, warn: bool = True
) -> Rate:
    r"""Kramers' rate of low friction, :math:`k = \frac{\gamma I}{T}\frac{\omega_0}{2\pi}e^{-\Delta U/T}`.

    Parameters
    ----------
    barrier, temperature, friction, warn
        As in `turnover_rate`. With a return action the rate of hopping and staying, :math:`I I'/(I+I')` for I.

    Examples
    --------
    >>> well = InertialWell(1.0, 8.0, -4.0, action=8 / 3)
    >>> slow = energy_diffusion_rate(well, 0.1, friction=1e-6, warn=False)
    >>> round(slow.value / turnover_rate(well, 0.1, friction=1e-6, warn=False).value, 2)
    1.0
    """
    well = InertialWell.of(barrier) if isinstance(barrier, Barrier) else barrier
    gamma = checks.positive("friction", friction, "without friction the energy is conserved")
    frictionless = kramers_rate(well, temperature, friction=0.0, warn=warn)
    factor = well.loss(temperature, gamma)
    if well.return_action is not None:
        factor *= well.return_action / (well.action + well.return_action)
    return replace(frictionless, value=frictionless.value * factor, kind="energy diffusion")


def energy_diffusion_time(barrier: Barrier, temperature: float, *, friction: float, points: int = 400) -> float:
    r"""Mean first-passage time over a barrier in the limit of low friction, at any barrier height.

    .. math:: \tau = \frac1{\gamma T}\int_0^{\Delta U}\!dE\,\frac{e^{E/T}}{I(E)}\int_0^E dE'\,I'(E')\,
        e^{-E'/T}, \qquad I(E) = \oint p\,dx,

    averaged over the energies of a start at the minimum with equilibrium velocities. It knows no expansion in T/ΔU,
    only γ → 0.

    Parameters
    ----------
    barrier : Barrier
        In one coordinate.
    temperature, friction
        As in `turnover_rate`.
    points : int
        Energies at which the action is computed.

    Examples
    --------
    >>> from kramers_grok.theory.deep_linear import Mode
    >>> barrier = Mode(depth=3, singular_value=1.0, weight_decay=0.25).barrier()
    >>> exact = energy_diffusion_time(barrier, barrier.height / 40, friction=0.01)
    >>> rate = energy_diffusion_rate(barrier, barrier.height / 40, friction=0.01, warn=False)
    >>> round(exact * rate.value, 2)
    1.04
    """
    heat, gamma = checks.positive("temperature", temperature), checks.positive("friction", friction)
    minimum, saddle = float(barrier.minimum[0]), float(barrier.saddle[0])
    two_sided = barrier.multiplicity == 2
    bottom = float(barrier.landscape.energy_at(barrier.minimum))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    # Panels shrink towards the top, where the round takes longer and longer: I' diverges as a logarithm.
    edges = barrier.height * (1 - (1 - np.linspace(0, 1, max(points // 8, 4) + 1)) ** 3)
    half = np.diff(edges)[:, None] / 2
    energies = (edges[:-1, None] + edges[1:, None]) / 2 + half * nodes
    actions = _actions(barrier.landscape, minimum, saddle, bottom + energies.ravel(), two_sided)
    inside = actions.reshape(energies.shape)
    # ∫I'e^(−E/T) = I e^(−E/T) + ∫I e^(−E/T)/T: no derivative of a table is needed
    filled = _running(inside * np.exp(-energies / heat) / heat, half, nodes, weights)
    inner = filled + inside * np.exp(-energies / heat)
    slope = np.exp(energies / heat) * inner / inside / (gamma * heat)
    # P(E' < E) at the start: velocities are normal, so E = v²/2 and the share below E weighs dτ/dE
    below = _share_below(energies / heat)
    return float((weights * half * slope * below).sum())


def _running(values: Array, half: Array, nodes: Array, weights: Array) -> Array:
    """Integral from the first edge to each node."""
    whole = (values * weights * half).sum(axis=1)
    before = np.concatenate([[0.0], np.cumsum(whole)[:-1]])
    # Integral of the interpolating polynomial from the panel's left end to each node
    powers = np.vander(nodes, increasing=True)
    order = np.arange(1, len(nodes) + 1)
    primitives = (nodes[:, None] ** order - (-1.0) ** order) / order
    return np.asarray(before[:, None] + half * (values @ (primitives @ np.linalg.inv(powers)).T))


def _share_below(ratio: Array) -> Array:
    """Probability that a start with equilibrium velocity has less energy than `ratio` T."""
    return np.asarray(np.vectorize(math.erf)(np.sqrt(ratio)))


def _action(landscape: Landscape, minimum: float, saddle: float, two_sided: bool) -> float:
    """Action of a full round at the saddle's energy."""
    return float(_actions(landscape, minimum, saddle, landscape.energy_at([[saddle]]), two_sided)[0])


def _actions(landscape: Landscape, minimum: float, saddle: float, energies: Array, two_sided: bool) -> Array:
    """Actions ∮p dx of full rounds at energies between minimum and saddle, shape (energy,)."""
    near = _turning_points(landscape, minimum, saddle, energies)
    far = 2 * minimum - near
    if not two_sided:
        end, step = minimum, minimum - saddle
        while float(landscape.energy_at([end])) < energies.max():
            end, step = end + step, 1.5 * step
            if abs(end - minimum) > 1e9 * abs(minimum - saddle):
                raise InvalidParameterError(
                    "The landscape does not rise to the barrier's energy on the far side of the minimum: there is no "
                    "round trip.\nUse a landscape that confines the particle."
                )
        far = _turning_points(landscape, minimum, end, energies)
    # x = centre − half·cos θ: the square roots at the turning points become smooth.
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    theta = 0.5 * math.pi * (nodes + 1)
    centre, half = (near + far) / 2, np.abs(near - far) / 2
    x = centre[:, None] - half[:, None] * np.cos(theta)
    kinetic = np.maximum(energies[:, None] - landscape.energy_at(x[..., None]), 0.0)
    return np.asarray(math.pi * half * (np.sqrt(2 * kinetic) * np.sin(theta) @ weights))


def _turning_points(landscape: Landscape, minimum: float, end: float, energies: Array) -> Array:
    """Where a landscape that rises from a minimum to `end` reaches each energy, by bisection."""
    low, high = np.full(energies.shape, minimum), np.full(energies.shape, end)
    for _ in range(60):
        middle = (low + high) / 2
        under = landscape.energy_at(middle[:, None]) < energies
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return high
