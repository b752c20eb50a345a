r"""Hamiltonians of one coordinate, SGD of the balanced mode, and the action of a path.

What large deviations of a process need to know of it is one function: with :math:`\varepsilon` the size of its kicks,

.. math:: H(x, p) = \lim_{\varepsilon\to0}\frac{\varepsilon}{dt}\log\mathbb E\,e^{p\,dx/\varepsilon},

for SGD :math:`\log\mathbb E\,e^{-p\,g(x)}`, g the gradient of one sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.optimize import brentq

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.action_cumulants import SampleCumulants, check_same_mean
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.mode_exit import ModeDynamics

__all__ = [
    "HamiltonianJet",
    "LineHamiltonian",
    "ModeHamiltonian",
    "QuasiPotential",
    "momentum",
    "quasi_potential",
]

Array = NDArray[np.float64]

# Newton's method from beyond the root of a convex function: monotone, quadratic at the end
_MAX_NEWTON = 100
# A sign change of the drift is looked for between so many points of a path
_SCAN = 257


@dataclass(frozen=True)
class HamiltonianJet:
    r"""H and its derivatives :math:`H_x, H_p, H_{pp}, H_{xp}` at the same points."""

    value: Array
    x: Array
    p: Array
    pp: Array
    xp: Array


class LineHamiltonian(Protocol):
    r"""Hamiltonian of one coordinate: convex in p, H(x, 0) = 0, :math:`H_p(x, 0)` the drift."""

    def jet(self, x: Array, p: Array) -> HamiltonianJet:
        """Value and derivatives at points (x, p) inside `limits`.

        Parameters
        ----------
        x, p : array

        Returns
        -------
        HamiltonianJet
        """
        ...

    def limits(self, x: Array) -> tuple[Array, Array]:
        """Ends of the interval of p, around 0, in which H is finite.

        Parameters
        ----------
        x : array

        Returns
        -------
        array
            Lower ends.
        array
            Upper ends.
        """
        ...


@dataclass(frozen=True)
class ModeHamiltonian:
    r"""SGD of one balanced mode in arc length :math:`x = \sqrt D\,a`, with :math:`m' = dm/dx`.

    .. math:: H(x, p) = -p\lambda x + \Gamma(p\,m'(x);\,m(x)) + \tfrac12 g^2p^2

    Γ is the cumulant generating function of rx: true minibatches. With `TwoCumulants` it is the diffusion limit.

    Parameters
    ----------
    mode : Mode
    samples : SampleCumulants
        `GaussianCumulants`, `EmpiricalCumulants`, or the diffusion limit of either.
    noise_variance : float
        g² ≥ 0 of isotropic Gaussian noise on every sample's gradient: T = ε g²/2.

    Raises
    ------
    InvalidParameterError
        If the samples' mean gradient is not the mode's, or g² < 0.

    Examples
    --------
    >>> from kramers_grok.theory.action_cumulants import GaussianCumulants
    >>> hamiltonian = ModeHamiltonian(Mode(3, 1.0, 0.44), GaussianCumulants(1.0, label_noise=0.5))
    >>> learned, saddle = hamiltonian.forgetting()
    >>> bool(abs(hamiltonian.jet(np.array([saddle]), np.zeros(1)).p[0]) < 1e-14)  # no drift
    True
    """

    mode: Mode
    samples: SampleCumulants
    noise_variance: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_variance", checks.non_negative("noise_variance", self.noise_variance))
        check_same_mean(self.samples, self.mode.singular_value, self.mode.input_variance)

    def jet(self, x: Array, p: Array) -> HamiltonianJet:
        """Value and derivatives."""
        m, slope, bend, _ = ModeDynamics(self.mode, 0.0).order_parameter_derivatives(x)
        gamma = self.samples.jet(p * slope, m)
        decay, heat = self.mode.weight_decay, self.noise_variance
        return HamiltonianJet(
            value=-p * decay * x + gamma.value + 0.5 * heat * p**2,
            x=-p * decay + gamma.t * p * bend + gamma.m * slope,
            p=-decay * x + gamma.t * slope + heat * p,
            pp=gamma.tt * slope**2 + heat,
            xp=-decay + gamma.t * bend + slope * (gamma.tt * p * bend + gamma.tm * slope),
        )

    def limits(self, x: Array) -> tuple[Array, Array]:
        """Limits of Γ divided by the slope of the order parameter."""
        m, slope, _, _ = ModeDynamics(self.mode, 0.0).order_parameter_derivatives(x)
        low, high = self.samples.limits(m)
        size = np.abs(slope)
        with np.errstate(divide="ignore"):
            low, high = np.divide(low, size), np.divide(high, size)
        return np.where(slope < 0, -high, low), np.where(slope < 0, -low, high)

    def two(self) -> ModeHamiltonian:
        """Its diffusion limit."""
        return ModeHamiltonian(self.mode, self.samples.two(), self.noise_variance)

    def forgetting(self) -> tuple[float, float]:
        """Arc lengths of the learned state and of the barrier's top."""
        root = np.sqrt(self.mode.depth)
        return float(root * self.mode.learned_amplitude()), float(root * self.mode.saddle_amplitude())

    def learning(self) -> tuple[float, float]:
        """Arc lengths of the unlearned state, 0, and of the barrier's top."""
        return 0.0, float(np.sqrt(self.mode.depth) * self.mode.saddle_amplitude())


@dataclass(frozen=True, eq=False)
class QuasiPotential:
    r"""Action and momentum along a path of one coordinate.

    Attributes
    ----------
    action : float
        :math:`S = \int p\,dx`, ≥ 0 [loss · time]; times are :math:`\sim e^{S/\varepsilon}`.
    x, p : ndarray, shape (node,)
        Gauss–Legendre nodes in the order of the path, and the momentum there (0 where the drift itself leads on).
    weights : ndarray, shape (node,)
        Weights of the integral over x, negative on a path downwards.
    """

    action: float
    x: Array
    p: Array
    weights: Array


def quasi_potential(hamiltonian: LineHamiltonian, start: float, end: float, *, n_nodes: int = 40) -> QuasiPotential:
    r"""Action of the most probable path of one coordinate from `start` to `end`.

    Against the drift p solves H(x, p) = 0, p ≠ 0; along it p = 0 and the way is free.

    Parameters
    ----------
    hamiltonian : LineHamiltonian
    start, end : float
        In the Hamiltonian's coordinate.
    n_nodes : int
        Gauss–Legendre nodes between two zeros of the drift.

    Returns
    -------
    QuasiPotential

    Raises
    ------
    InvalidParameterError
        If noise cannot push against the drift somewhere: the action is infinite.

    Examples
    --------
    >>> from kramers_grok.theory.action_cumulants import GaussianCumulants
    >>> mode = Mode(3, 1.0, 0.25)
    >>> only_noise = ModeHamiltonian(mode, GaussianCumulants(1.0).two(), noise_variance=2e6)
    >>> path = quasi_potential(only_noise, *only_noise.learning())
    >>> print(f"{path.action * 1e6 / mode.barrier().height:.4f}")
    1.0000
    """
    start, end = checks.finite("start", start), checks.finite("end", end)
    nodes, weights = leggauss(checks.positive_int("n_nodes", n_nodes))
    edges = _pieces(hamiltonian, start, end)
    half = 0.5 * np.diff(edges)[:, None]
    x = (edges[:-1, None] + half * (nodes + 1)).ravel()
    weight = (half * weights).ravel()
    direction, outer = float(np.sign(end - start)), np.array([start, end])
    # Where the noise vanishes at an end, p diverges towards it and the nodes alone would not show it
    silent = hamiltonian.jet(outer, np.zeros(2)).pp == 0
    silent &= hamiltonian.jet(x[[0, -1]], np.zeros(2)).p * direction < 0
    if silent.any():
        raise _out_of_reach(float(outer[silent][0]))
    p = momentum(hamiltonian, x, direction)
    return QuasiPotential(action=float(weight @ p), x=x, p=p, weights=weight)


def _pieces(hamiltonian: LineHamiltonian, start: float, end: float) -> Array:
    """Ends and, between them, the zeros of the drift, where the momentum has a kink."""

    def drift(x: float) -> float:
        return float(hamiltonian.jet(np.array([x]), np.zeros(1)).p[0])

    grid = np.linspace(start, end, _SCAN)
    # The ends may be stationary points themselves, known to rounding
    values = hamiltonian.jet(grid[1:-1], np.zeros(_SCAN - 2)).p
    at = np.flatnonzero(values[1:] * values[:-1] < 0) + 1
    zeros = [float(brentq(drift, grid[i], grid[i + 1], xtol=1e-15)) for i in at]
    return np.array([start, *zeros, end])


def momentum(hamiltonian: LineHamiltonian, x: Array, direction: float) -> Array:
    """Momentum of the path that moves in `direction` (±1): the second root of H, or 0 along the drift.

    Parameters
    ----------
    hamiltonian : LineHamiltonian
    x : ndarray, shape (point,)
    direction : float
        1 upwards, −1 downwards.

    Raises
    ------
    InvalidParameterError
        If noise cannot push against the drift somewhere.
    """
    rest = hamiltonian.jet(x, np.zeros_like(x))
    uphill = rest.p * direction < 0
    p = np.zeros_like(x)
    if uphill.any():
        p[uphill] = _second_root(hamiltonian, x[uphill], rest.p[uphill], rest.pp[uphill])
    return p


def _second_root(hamiltonian: LineHamiltonian, x: Array, drift: Array, variance: Array) -> Array:
    low, high = hamiltonian.limits(x)
    edge = np.where(drift < 0, high, low)
    with np.errstate(divide="ignore"):
        guess = -2 * np.divide(drift, variance)
    stuck = ~np.isfinite(guess)
    guess[stuck] = 0.0
    finite = np.isfinite(edge)
    p = np.where(finite & (np.abs(guess) >= np.abs(edge)), 0.5 * edge, guess)
    for _ in range(_MAX_NEWTON):  # outwards to H > 0
        with np.errstate(over="ignore", invalid="ignore"):
            value = hamiltonian.jet(x, p).value
        short = ~(value > 0) & ~stuck
        if not short.any():
            break
        p = np.where(short, np.where(finite, p + 0.5 * (np.where(finite, edge, 0.0) - p), 2 * p), p)
    else:
        # With H < 0 up to a limit the root is within rounding of it
        p = np.where(short & finite, edge, p)
        stuck |= short & ~finite
    if stuck.any():
        raise _out_of_reach(float(x[stuck][0]))
    for _ in range(_MAX_NEWTON):
        jet = hamiltonian.jet(x, p)
        step = jet.value / jet.p
        p = p - step
        if (np.abs(step) <= 1e-8 * np.abs(p)).all():  # convergence is quadratic: this was the last step but rounding
            break
    return np.asarray(p)


def _out_of_reach(x: float) -> InvalidParameterError:
    return InvalidParameterError(
        f"No sample and no noise moves the coordinate against its drift at x = {x:.6g}: the action is infinite, such a "
        "path never happens.\nAdd `noise_variance=…`, or use data with label noise."
    )
