"""The free energy across a pseudo-orbit, and its saddle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.landscape.potential_theory.pseudo_orbit import PseudoOrbit
from kramers_grok.landscape.surface import Surface

__all__ = ["SliceEnergy"]

Array = NDArray[np.float64]

_STEP = 1e-4  # of differences, in units of weights
_NEWTON = 60
_TRUST = 0.1  # longest Newton step, relative to the point's length
_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class SliceEnergy:
    """The free energy on a slice: what is along the pseudo-orbit has been averaged, its volume counted.

    Parameters
    ----------
    surface : Surface
    orbit : PseudoOrbit
    temperature : float
        T [loss].
    rotations : list of ndarray, shape (draw, h, h)
        Over which the energy is averaged; empty where it does not change under rotations.
    """

    surface: Surface
    orbit: PseudoOrbit
    temperature: float
    rotations: list[Array]

    def gradients(self, xi: Array) -> Array:
        """Gradient at each row of `xi`, shape (point, slice)."""
        theta = self.orbit.points(xi)
        if self.rotations:
            n = len(self.rotations[0])
            rows = max(_ROWS // n, 1)
            forces = [self._averaged(theta[i : i + rows], n) for i in range(0, len(theta), rows)]
            force = np.concatenate(forces)
        else:
            force = np.concatenate([self.surface.gradients(theta[i : i + _ROWS]) for i in range(0, len(theta), _ROWS)])
        across = force @ self.orbit.normals - self.temperature * self.orbit.log_jacobian_gradient(xi)
        return np.asarray(across, dtype=np.float64)

    def _averaged(self, theta: Array, n: int) -> Array:
        """Mean of the gradient over rotations, weighted by Boltzmann's factor, shape (point, parameter)."""
        turns = [np.tile(r, (len(theta), 1, 1)) for r in self.rotations]
        turned = self.orbit.rotated(turns, np.repeat(theta, n, axis=0))
        energy = self.surface.energies(turned).reshape(-1, n)
        weight = np.exp(-(energy - energy.min(axis=1, keepdims=True)) / self.temperature)
        weight /= weight.sum(axis=1, keepdims=True)
        force = self.orbit.rotated(turns, self.surface.gradients(turned), back=True)
        return np.asarray(np.einsum("pn,pni->pi", weight, force.reshape(len(theta), n, -1)), dtype=np.float64)

    def hessian(self, xi: Array) -> Array:
        """Hessian at one point, shape (slice, slice)."""
        step = _STEP * np.eye(len(xi))
        slopes = self.gradients(np.concatenate([xi + step, xi - step]))
        matrix = (slopes[: len(xi)] - slopes[len(xi) :]) / (2 * _STEP)
        return np.asarray(0.5 * (matrix + matrix.T))

    def saddle(self, start: Array) -> tuple[Array, Array]:
        """Saddle of index 1 next to `start` and its Hessian.

        Raises
        ------
        NoBarrierError
            If there is none: the pseudo-orbit's volume, entropy, has melted the barrier.
        """
        xi = start
        longest = _TRUST * float(np.linalg.norm(self.orbit.point))
        for _ in range(_NEWTON):
            matrix = self.hessian(xi)
            curvature, modes = np.linalg.eigh(matrix)
            along = modes.T @ self.gradients(xi[None])[0]
            step = -along / np.maximum(np.abs(curvature), 1e-3 * np.abs(curvature).max())
            step[0] *= -1
            length = float(np.linalg.norm(step))
            xi = xi + modes @ step * min(1.0, longest / max(length, 1e-300))
            if length < 1e-7 * longest:
                break
        else:
            length = math.inf
        if not (length < 1e-7 * longest and curvature[0] < 0 < curvature[1] and self.orbit.jacobian(xi[None])[0] > 0):
            raise NoBarrierError(
                f"At temperature {self.temperature:.4g} the free energy across the pseudo-orbit has no saddle of index "
                "1: the volume of the rotated states opens the way, and no activated escape is left.\n"
                "Use a lower temperature, or simulate."
            )
        return xi, matrix
