"""Weighted draws about a point or along its pseudo-orbit: quasi-random from a Gaussian, or annealed from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.landscape.potential_theory.annealing import annealed
from kramers_grok.landscape.potential_theory.pseudo_orbit import PseudoOrbit
from kramers_grok.landscape.surface import Surface

__all__ = ["Draws", "Neighbourhood"]

Array = NDArray[np.float64]
Factor = Callable[[Array], tuple[Array, Array]]
"""ln of a factor of the integrand and its gradient, as functions of ξ."""

_LARGEST = 600.0  # logarithm of a weight: beyond, exp overflows


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of one block.

    Attributes
    ----------
    u : ndarray, shape (draw, slice)
        Place on the slice in thermal lengths.
    xi : ndarray, shape (draw, slice)
        Place on the slice.
    theta : ndarray, shape (draw, parameter)
        Place in weight space.
    turns : list of ndarray, shape (draw, h, h)
        Rotations that brought the slice there; empty where the energy does not depend on them.
    log_weight : ndarray, shape (draw,)
        With ``log_scale`` of the neighbourhood, the mean of ``exp(log_weight) φ`` is the integral of
        :math:`J e^{-(F-F_0)/T}φ` over slice and rotations.
    """

    u: Array
    xi: Array
    theta: Array
    turns: list[Array]
    log_weight: Array

    @property
    def weight(self) -> Array:
        """The exponential."""
        return np.asarray(np.exp(np.minimum(self.log_weight, _LARGEST)))


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A Gaussian on a slice, and the energy as it is.

    Parameters
    ----------
    surface : Surface
    orbit : PseudoOrbit
    temperature : float
        T [loss].
    bottom : float
        Energy F_0 from which weights count [loss].
    centre : ndarray, shape (slice,)
    frame : ndarray, shape (slice, slice)
        ξ = centre + frame u, u standard normal.
    broken : bool
        Whether the energy depends on the rotations, which are then drawn.
    factor : callable, optional
        Of rotations: a further factor of the integrand, which annealing follows; weights are without it.
    offset : callable, optional
        Of rotations: where the Gaussian's centre is there, from `centre`, shape (draw, slice).
    """

    surface: Surface
    orbit: PseudoOrbit
    temperature: float
    bottom: float
    centre: Array
    frame: Array
    broken: bool
    factor: Callable[[list[Array]], Factor] | None = None
    offset: Callable[[list[Array]], Array] | None = None

    @property
    def log_scale(self) -> float:
        """Ln of the integral of :math:`e^{-u^2/2}` over ξ."""
        return float(np.linalg.slogdet(self.frame)[1]) + 0.5 * len(self.centre) * math.log(2 * math.pi)

    @property
    def n_normals(self) -> int:
        """Normal numbers for each draw."""
        return len(self.centre) + (self.orbit.n_normals if self.broken else 0)

    def plain(self, normals: Array) -> Draws:
        """Draws of the Gaussian."""
        u, turns, centre = self._split(normals)
        xi, theta, log_density = self._density(u, turns, centre)
        return Draws(u, xi, theta, turns, log_density + 0.5 * (u**2).sum(axis=1))

    def annealed(self, normals: Array, rng: np.random.Generator) -> Draws:
        """Draws that have turned into those of the integrand."""
        u, turns, centre = self._split(normals)
        factor = None if self.factor is None else self.factor(turns)

        def log_density(place: Array) -> tuple[Array, Array]:
            xi, theta, value = self._density(place, turns, centre)
            force = self.surface.gradients(theta)
            if turns:
                force = self.orbit.rotated(turns, force, back=True)
            inside = np.isfinite(value)
            slope = -force @ self.orbit.normals / self.temperature
            slope[inside] += self.orbit.log_jacobian_gradient(xi[inside])
            if factor is not None:
                more, tilt = factor(xi)
                value, slope = value + more, slope + tilt
            return value, slope @ self.frame

        u, weights = annealed(log_density, u, rng)
        xi, theta, _ = self._density(u, turns, centre)
        if factor is not None:
            out = np.isneginf(weights)  # of the factor's support from the start
            weights[~out] -= factor(xi)[0][~out]
        return Draws(u, xi, theta, turns, weights)

    def _split(self, normals: Array) -> tuple[Array, list[Array], Array]:
        """Normal numbers of the slice, rotations, and the Gaussian's centre at each."""
        size = len(self.centre)
        turns = self.orbit.rotations(normals[:, size:]) if self.broken else []
        centre = self.centre[None]
        if turns and self.offset is not None:
            centre = centre + self.offset(turns)
        return normals[:, :size], turns, centre

    def _density(self, u: Array, turns: list[Array], centre: Array) -> tuple[Array, Array, Array]:
        """Places, and ln of the Jacobian times Boltzmann's factor."""
        xi = centre + u @ self.frame.T
        theta = self.orbit.points(xi)
        if turns:
            theta = self.orbit.rotated(turns, theta)
        with np.errstate(divide="ignore"):
            volume = np.log(self.orbit.jacobian(xi))
        return xi, theta, volume - (self.surface.energies(theta) - self.bottom) / self.temperature
