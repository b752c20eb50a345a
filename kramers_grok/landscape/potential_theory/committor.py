r"""A trial committor about a saddle, second-order in the distance from it.

The committor q, the probability to reach the state behind the barrier first, minimises Dirichlet's form; what a trial
gives is an upper bound of the capacity. Beside a saddle with the energy
:math:`F = F_s - \tfrac12\mu z^2 + \tfrac12\sum_i\kappa_iy_i^2 + F_3`, to leading order :math:`q=\Phi(z\sqrt{\mu/T})`.
The cubic terms :math:`F_3 = \tfrac16az^3 + \tfrac12b_iz^2y_i + \tfrac12A_{ij}zy_iy_j+\dots` bend its level sets:

.. math:: q = \Phi\bigl(\sqrt{\mu/T}\,(z+g)\bigr), \qquad
          g = -\frac{a\,z^2}{6\mu} - \frac{b_i\,zy_i}{2\mu+\kappa_i} - \frac{A_{ij}\,y_iy_j}{2(\mu+\kappa_i+\kappa_j)}
              + \frac{2T}\mu\,(\text{sum of the diagonal coefficients}),

which solves :math:`T\Delta q-\nabla F\cdot\nabla q=0` to first order in F₃. The bound is then off in the order
:math:`T^2` instead of T. On a pseudo-orbit z and y are coordinates across it, and F the free energy
:math:`-T\ln\langle e^{-F(R\,\cdot)/T}\rangle_R - T\ln J` of what has been integrated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from kramers_grok.landscape.potential_theory.ridge import Ridge, mean_row, ridge_at
from kramers_grok.landscape.potential_theory.slice_energy import SliceEnergy

__all__ = ["BEND", "Flow", "TrialCommittor"]

Array = NDArray[np.float64]

#: Thermal lengths at which the bend of the level sets saturates.
BEND = 1.5
_WHOLE = 40  # coordinates up to which the Laplacian is taken direction by direction
_PROBES = 8
_ANGLE = 1e-3


@dataclass(frozen=True, eq=False)
class Flow:
    """The gradient of a trial q as a motion of weights.

    Attributes
    ----------
    square : ndarray, shape (draw,)
        ‖∇q‖².
    velocity : ndarray, shape (draw, slice)
        Of the coordinates c.
    turning : ndarray, shape (draw, r)
        Of the angles along the pseudo-orbit.
    gradient : ndarray, shape (draw, parameter)
        ∇q in weight space, before the rotation.
    """

    square: Array
    velocity: Array
    turning: Array
    gradient: Array


@dataclass(eq=False)
class TrialCommittor:
    """The trial on a slice, in coordinates c = (z, y) in which noise is isotropic and the saddle diagonal.

    Parameters
    ----------
    energy : SliceEnergy
    start : ndarray, shape (slice,)
        Near the saddle.
    forth : ndarray, shape (slice,)
        About the direction out of the trap.
    reach : float
        Level, in thermal lengths, beyond which the trial is constant.
    """

    energy: SliceEnergy
    start: Array
    forth: Array
    reach: float = 4.0

    @cached_property
    def _saddle(self) -> tuple[Array, Array, Array]:
        """Place, curvatures, and the map L: ξ = ξ_s + L c."""
        xi, hessian = self.energy.saddle(self.start)
        root = self._root_of_mobility(xi)
        curvature, modes = np.linalg.eigh(root @ hessian @ root)
        frame = root @ modes
        if frame[:, 0] @ self.forth < 0:
            frame[:, 0] *= -1
        return xi, curvature, frame

    def _root_of_mobility(self, xi: Array) -> Array:
        """Square root of the mobility of ξ: the identity without a pseudo-orbit, and larger beside it."""
        eye = np.eye(len(xi))
        here = np.repeat(xi[None], len(xi), axis=0)
        mobility, _ = self.energy.orbit.velocity(here, self.energy.orbit.along(here, eye), eye)
        size, axes = np.linalg.eigh(0.5 * (mobility + mobility.T))
        return np.asarray(axes * np.sqrt(size) @ axes.T)

    @property
    def growth(self) -> float:
        """μ, the rate at which the distance from the saddle grows [1/time]."""
        return -float(self._saddle[1][0])

    @property
    def curvatures(self) -> Array:
        """κ of the stable directions, ascending [1/time]."""
        return self._saddle[1][1:]

    @property
    def scale(self) -> float:
        """√(μ/T) [1/weight]."""
        return math.sqrt(self.growth / self.energy.temperature)

    @property
    def centre(self) -> Array:
        """The saddle on the slice, shape (slice,)."""
        return self._saddle[0]

    @property
    def frame(self) -> Array:
        """L of ξ = centre + L c, shape (slice, slice)."""
        return self._saddle[2]

    def xi(self, c: Array) -> Array:
        """Coordinates on the slice, shape (draw, slice)."""
        return self._saddle[0] + c @ self._saddle[2].T

    @cached_property
    def _bend(self) -> tuple[float, Array, Array, float]:
        """Coefficients of g: of z², z y_i, y_i y_j and 1."""
        xi, curvature, frame = self._saddle
        mu, kappa = -curvature[0], curvature[1:]
        # A third derivative over a third of a thermal length: far above rounding and what the average leaves.
        step = 0.3 / self.scale
        ends = [self.energy.hessian(xi + s * step * frame[:, 0]) for s in (1.0, -1.0)]
        third = frame.T @ (ends[0] - ends[1]) @ frame / (2 * step)
        zz = -third[0, 0] / (6 * mu)
        zy = -third[0, 1:] / (2 * mu + kappa)
        yy = -0.5 * third[1:, 1:] / (mu + kappa[:, None] + kappa)
        return float(zz), zy, yy, float(2 * self.energy.temperature / mu * (zz + np.trace(yy)))

    def coordinates(self, xi: Array) -> Array:
        """Inverse of `xi`."""
        return np.asarray(np.linalg.solve(self.frame, (xi - self.centre).T).T, dtype=np.float64)

    def ridge(self, turns: list[Array]) -> Ridge | None:
        """What rotations that are broken do to the level sets; None for no rotations."""
        if not turns:
            return None
        return ridge_at(self.energy, turns, self.centre, self.frame, self.growth, self.curvatures, self._mean_row)

    @cached_property
    def _mean_row(self) -> Array:
        """Boltzmann's mean over rotations of the Hessian's row of z, shape (slice,)."""
        return mean_row(self.energy, self.centre, self.frame)

    def level(self, c: Array, ridge: Ridge | None = None) -> tuple[Array, Array, Array]:
        """√(μ/T)(z + g), its gradient in c, and its Laplacian in c; g saturates at some thermal lengths."""
        zz, zy, yy, shift = self._bend
        z, y = c[:, :1], c[:, 1:]
        turned = y @ yy
        bend = self.scale * (zz * z[:, 0] ** 2 + z[:, 0] * (y @ zy) + (turned * y).sum(axis=1) + shift)
        slope = self.scale * np.concatenate([2 * zz * z + (y @ zy)[:, None], z * zy + 2 * turned], axis=1)
        # Far off, where the quadratic form is large it means nothing: b/√(1 + b²/m²) instead of b.
        root = 1 / np.sqrt(1 + (bend / BEND) ** 2)
        second = -3 * bend * root**5 / BEND**2
        laplacian = root**3 * self.scale * 2 * (zz + float(np.trace(yy))) + second * (slope**2).sum(axis=1)
        slope = root[:, None] ** 3 * slope
        slope[:, 0] += self.scale
        value = self.scale * z[:, 0] + bend * root
        if ridge is not None:
            value = value + ridge.shift + (ridge.tilt * c).sum(axis=1)
            slope = slope + ridge.tilt
        return value, slope, laplacian

    def value(self, c: Array, ridge: Ridge | None = None) -> Array:
        """The trial q, 0 in the trap and 1 behind the barrier, shape (draw,)."""
        level = np.clip(self.level(c, ridge)[0], -self.reach, self.reach)
        return np.asarray((ndtr(level) - ndtr(-self.reach)) / (ndtr(self.reach) - ndtr(-self.reach)))

    def density(self, level: Array) -> Array:
        """Derivative of the trial in the level, shape (draw,)."""
        # The cut keeps far-off draws, where the quadratic g means nothing, out of the sums; q stays a valid trial.
        inside = np.abs(level) < self.reach
        norm = math.sqrt(2 * math.pi) * math.erf(self.reach / math.sqrt(2))
        return np.where(inside, np.exp(-0.5 * np.where(inside, level, 0.0) ** 2), 0.0) / norm

    def flow(self, c: Array, ridge: Ridge | None = None) -> Flow:
        """∇q, and what moves with it."""
        orbit, xi = self.energy.orbit, self.xi(c)
        level, slope, _ = self.level(c, ridge)
        density = self.density(level)
        slope = np.asarray(np.linalg.solve(self.frame.T, (density[:, None] * slope).T).T, dtype=np.float64)
        y = orbit.along(xi, slope, None if ridge is None else density[:, None] * ridge.turn)
        velocity, turning = orbit.velocity(xi, y, slope)
        return Flow(
            square=(slope**2).sum(axis=1) + (y**2).sum(axis=1),
            velocity=np.asarray(np.linalg.solve(self.frame, velocity.T).T, dtype=np.float64),
            turning=turning,
            gradient=slope @ orbit.normals.T + y @ orbit.tangents.T,
        )

    def laplacian(self, c: Array, rng: np.random.Generator, turns: list[Array] | None = None) -> tuple[Array, Array]:
        """Two estimates of Δq with independent errors, shape (draw,); the same exact one where that is affordable."""
        orbit = self.energy.orbit
        if not orbit.dimension:
            level, slope, curved = self.level(c)
            exact = self.density(level) * (curved - level * (slope**2).sum(axis=1))
            return exact, exact
        ridge = self.ridge(turns or [])
        log_jacobian = orbit.log_jacobian_gradient(self.xi(c)) @ self.frame
        drift = (self.flow(c, ridge).velocity * log_jacobian).sum(axis=1)
        for axis in range(orbit.dimension if turns else 0):
            # Haar's measure does not change along R e^{ωG}: the divergence is the derivative of the angle's velocity.
            ends = [self.flow(c, self.ridge(orbit.nudged(turns or [], axis, s * _ANGLE))).turning for s in (1.0, -1.0)]
            drift = drift + (ends[0] - ends[1])[:, axis] / (2 * _ANGLE)
        n = c.shape[1]
        if n <= _WHOLE:
            exact = drift + sum(self._spread(c, ridge, axis) for axis in np.eye(n))
            return exact, exact
        signs = rng.choice([-1.0, 1.0], size=(2, _PROBES, n))
        first, second = (np.mean([self._spread(c, ridge, probe) for probe in half], axis=0) for half in signs)
        return drift + first, drift + second

    def _spread(self, c: Array, ridge: Ridge | None, probe: Array) -> Array:
        """Derivative of the velocity along a direction, projected on it."""
        step = 1e-4 / self.scale
        ends = [self.flow(c + s * step * probe, ridge).velocity for s in (1.0, -1.0)]
        return np.asarray((ends[0] - ends[1]) @ probe / (2 * step))
