r"""Energy of one channel's radii for any real exponents, and its stationary points by one scalar equation.

.. math:: E(a) = \tfrac q2\Big(\sigma - \prod_l a_l\Big)^2 + \tfrac\lambda2\sum_l a_l^2 - T\sum_l n_l\ln a_l + T\,S(a)

Minimised at a fixed :math:`m = \prod a`, E has the slope :math:`g(m) - qm(\sigma-m)` in ln m, with g the multiplier of
the constraint; for S = 0 it solves :math:`\prod_l(Tn_l+g) = \lambda^D m^2`. The zeros are trap, saddle and learned
state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar

from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.theory.radial_terms import LogDeterminant

__all__ = ["RadialPoint", "RadialPotential"]

Array = NDArray[np.float64]

# Order parameters at which the slope is looked at; maxima between them are refined
GRID = 96
# Newton steps of the constrained minimum, and the longest of them in ln a
STEPS, LONGEST = 60, 0.7
LOWEST = -600.0
# Where a radius vanishes, curvatures are taken this far out, in units of its thermal width
NEXT_TO_ZERO = 1e-4


@dataclass(frozen=True, eq=False)
class RadialPoint:
    """A stationary point of the radial free energy.

    Attributes
    ----------
    order_parameter : float
        m = ∏ a_l.
    amplitudes : ndarray, shape (layer,)
        Radii, and z in its layer.
    energy : float
        E, up to the unit in the logarithms [loss].
    spectrum : ndarray, shape (layer,)
        Eigenvalues of the Hessian of E, ascending.
    """

    order_parameter: float
    amplitudes: Array
    energy: float
    spectrum: Array


@dataclass(frozen=True, eq=False)
class RadialPotential:
    """The radial free energy of one channel with any real exponents; `RadialFreeEnergy` makes it from a network.

    Parameters
    ----------
    singular_value, weight_decay, input_variance, temperature : float
        σ, λ, q, T of the channel.
    exponents : ndarray, shape (layer,)
        n_l ≥ 0 of each radius, 0 in the layer of z.
    alignment : int
        Layer of z, from 0.
    terms : tuple of LogDeterminant
        S.
    """

    singular_value: float
    weight_decay: float
    input_variance: float
    temperature: float
    exponents: Array
    alignment: int
    terms: tuple[LogDeterminant, ...] = ()

    @property
    def depth(self) -> int:
        """Number of layers D."""
        return len(self.exponents)

    @property
    def radii(self) -> NDArray[np.bool_]:
        """Which layers hold a radius, shape (layer,)."""
        return np.asarray(np.arange(self.depth) != self.alignment)

    def energy(self, amplitudes: ArrayLike) -> Array:
        """E at amplitudes, shape (..., layer) [loss]; infinite where a radius with n > 0 vanishes."""
        a = np.asarray(amplitudes, dtype=np.float64)
        fit = 0.5 * self.input_variance * (self.singular_value - a.prod(axis=-1)) ** 2
        with np.errstate(divide="ignore"):
            u = np.log(np.abs(a))
        # Layers without entropy are skipped, not multiplied by 0: their logarithm may be infinite.
        entropic = self.exponents > 0
        entropy = -(self.exponents[entropic] * u[..., entropic]).sum(axis=-1)
        # A polynomial does not mind a vanishing amplitude, 0 · ln 0 does.
        entropy = entropy + sum(term.value(np.maximum(u, LOWEST)) for term in self.terms)
        return np.asarray(fit + 0.5 * self.weight_decay * (a**2).sum(axis=-1) + self.temperature * entropy)

    def hessian(self, amplitudes: ArrayLike) -> Array:
        """Second derivatives of E at amplitudes that do not vanish, shape (..., layer, layer)."""
        a = np.asarray(amplitudes, dtype=np.float64)
        gradient, second = self._slopes(np.log(np.abs(a)))
        m = a.prod(axis=-1)[..., None, None]
        pull = self.input_variance * m * (self.singular_value - m)
        second = second - pull + self.input_variance * m**2
        diagonal = np.arange(self.depth)
        second[..., diagonal, diagonal] -= gradient - pull[..., 0]
        return np.asarray(second / (a[..., :, None] * a[..., None, :]))

    def _slopes(self, u: Array) -> tuple[Array, Array]:
        """Gradient and Hessian in u = ln a of all but the data term."""
        squares = self.weight_decay * np.exp(2 * u)
        gradient = squares - self.temperature * self.exponents
        second = 2 * squares[..., None] * np.eye(self.depth)
        for term in self.terms:
            slope, curvature = term.derivatives(u)
            gradient, second = gradient + self.temperature * slope, second + self.temperature * curvature
        return gradient, second

    def constrained(self, m: ArrayLike) -> tuple[Array, Array]:
        """Amplitudes that minimise E at order parameters m > 0, and the multiplier g = dV/d ln m; NaN where none do.

        Returns
        -------
        tuple of ndarray, shapes (..., layer) and (...,)
        """
        target = np.log(np.asarray(m, dtype=np.float64))
        g = self._multiplier(target)
        push = self.temperature * self.exponents
        u = 0.5 * np.log((push + g[..., None]) / self.weight_decay)
        if not self.terms:
            return np.exp(u), g
        ones = np.ones(self.depth)
        for _ in range(STEPS):
            gradient, second = self._slopes(u)
            second = np.where(np.isfinite(second), second, 1e300 * np.eye(self.depth))
            both = np.linalg.solve(second, np.stack([np.broadcast_to(ones, u.shape), gradient], axis=-1))
            g = (both[..., 1].sum(axis=-1) + target - u.sum(axis=-1)) / both[..., 0].sum(axis=-1)
            step = g[..., None] * both[..., 0] - both[..., 1]
            size = np.abs(step).max(axis=-1, keepdims=True)
            u = u + step * np.minimum(1.0, LONGEST / np.maximum(size, 1e-300))
            if np.nanmax(size) < 1e-9:
                break
        bad = ~(size[..., 0] < 1e-6)
        for term in self.terms:
            bad |= np.isnan(term.value(u))
        return np.where(bad[..., None], np.nan, np.exp(u)), np.where(bad, np.nan, g)

    def _multiplier(self, log_m: Array) -> Array:
        """Solve g ∏(T n_l + g) = λ^D m² over the radii: convex in ln g, so Newton's method cannot overshoot twice."""
        push = self.temperature * self.exponents[self.radii]
        goal = self.depth * math.log(self.weight_decay) + 2 * log_m
        # From the right (all n = 0 gives the largest g) the iteration is monotone.
        x = goal / self.depth
        for _ in range(200):
            g = np.exp(x)[..., None]
            step = (x + np.log(push + g).sum(axis=-1) - goal) / (1 + (g / (push + g)).sum(axis=-1))
            x = x - step
            if np.abs(step).max() < 1e-14:
                break
        return np.exp(x)

    def excess(self, m: ArrayLike) -> Array:
        """Slope of the constrained minimum in ln m over the data's pull, g/(q m (σ − m)) − 1, for 0 < m < σ."""
        m = np.asarray(m, dtype=np.float64)
        return np.asarray(self.constrained(m)[1] / (self.input_variance * m * (self.singular_value - m)) - 1)

    def entropy_of_product(self, p: Array) -> Array:
        """S as a function of the product of the radii alone; 0 where it depends on more."""
        u = np.zeros((*p.shape, self.depth))
        u[..., int(np.argmax(self.radii))] = np.log(p)
        total = np.zeros(p.shape)
        for term in self.terms:
            of_radii = term.powers[:, self.radii]
            if not term.powers[:, self.alignment].any() and (of_radii == of_radii[:, :1]).all():
                total += term.value(u)
        return total

    @property
    def middle(self) -> float:
        """Order parameter of the spinodal at T = 0, between saddle and learned state."""
        return self.singular_value * (self.depth - 2) / (2 * (self.depth - 1))

    @property
    def smallest(self) -> float:
        """Order parameter below that of any trap."""
        push = self.temperature * self.exponents[self.radii & (self.exponents > 0)] / self.weight_decay
        at_rest = math.exp(float(np.log(push).sum())) * self.singular_value * self.input_variance / self.weight_decay
        return 1e-3 * min(at_rest, self.middle, 1e-6 * self.middle)

    def crest(self) -> tuple[float, float]:
        """Largest excess between 0 and the T = 0 spinodal, and its order parameter: the trap exists where it is > 0."""
        log_m = np.linspace(math.log(self.smallest), math.log(self.middle), GRID)
        values = self.excess(np.exp(log_m))
        best = int(np.nanargmax(np.where(np.isfinite(values), values, -np.inf)))
        if best in (0, GRID - 1):
            return float(values[best]), math.exp(log_m[best])
        found = minimize_scalar(
            lambda x: -float(self.excess(math.exp(x))),
            bounds=(log_m[best - 1], log_m[best + 1]),
            method="bounded",
            options={"xatol": 1e-10},
        )
        return -float(found.fun), math.exp(found.x)

    def point(self, m: float) -> RadialPoint:
        """Make a stationary point of its order parameter."""
        if m == 0:
            return self._point_at_zero()
        a, _ = self.constrained(m)
        return RadialPoint(m, a, float(self.energy(a)), np.asarray(np.linalg.eigvalsh(self.hessian(a))))

    def _point_at_zero(self) -> RadialPoint:
        """The trap where a radius has n = 0 (a hidden layer of one free unit): its maximum is at 0."""
        width = math.sqrt(self.temperature / self.weight_decay)
        a = width * np.sqrt(self.exponents)
        hessian = self.hessian(np.where(a > 0, a, NEXT_TO_ZERO * width))
        return RadialPoint(0.0, a, float(self.energy(a)), np.asarray(np.linalg.eigvalsh(hessian)))

    def trap(self, crest: float) -> float:
        """Order parameter of the trap, between 0 and the crest of the excess."""
        low = self.smallest
        return 0.0 if self.excess(low) > 0 else self._zero(low, crest)

    def saddle(self, crest: float) -> float:
        """Order parameter of the saddle, where the excess past the crest first changes sign."""
        if self.excess(self.middle) < 0:
            return self._zero(crest, self.middle)
        log_m = np.linspace(math.log(crest), math.log(self.singular_value * (1 - 1e-9)), GRID)
        below = np.flatnonzero(self.excess(np.exp(log_m)) < 0)
        if not below.size:
            raise NoBarrierError(
                f"At temperature={self.temperature:.6g} there is no learned state: the directions that have to stay "
                "still once the feature is learned cost more entropy than learning gains; the trap is the only state.\n"
                "Use a lower `temperature`, or fewer inputs and outputs."
            )
        return self._zero(math.exp(log_m[below[0] - 1]), math.exp(log_m[below[0]]))

    def learned(self, saddle: float) -> float:
        """Order parameter of the learned state, the zero past the saddle; NaN where this channel has none."""
        edge = self.singular_value * (1 - 1e-12)
        log_m = np.linspace(math.log(saddle), math.log(edge), GRID)[1:]
        above = np.flatnonzero(self.excess(np.exp(log_m)) > 0)
        above = above[above > 0]
        return self._zero(math.exp(log_m[above[0] - 1]), math.exp(log_m[above[0]])) if above.size else math.nan

    def _zero(self, low: float, high: float) -> float:
        root = brentq(lambda x: float(self.excess(math.exp(x))), math.log(low), math.log(high), xtol=1e-14, rtol=1e-14)
        return math.exp(root)
