r"""The rotations of hidden units about a point: the orbit they make, and coordinates on it and across it.

Rotations R in :math:`\prod_l O(h_l)` of the hidden layers leave a deep linear network's energy alone. An activation
function breaks them: what was an orbit of equal energy is a *pseudo-orbit*, along which the energy changes little. In
its neighbourhood every point is

.. math:: \theta = R\,(\theta_0 + N\xi), \qquad N^T t_a = 0, \quad t_a = G_a\theta_0,

with generators :math:`G_a` and tangents :math:`t_a` of the orbit. Rotations that leave :math:`\theta_0` alone (of
unused units) are its stabiliser S; the others have the dimension r of the orbit. Then, exactly,

.. math:: \int d\theta\, f(\theta) = \frac{|\prod_l O(h_l)|}{|S|}\; \mathbb E_{R\sim\rm Haar}\int d\xi\; J(\xi)\,
          f\bigl(R(\theta_0+N\xi)\bigr), \qquad J = \det\langle G_a(\theta_0+N\xi),\, \hat t_b\rangle,

:math:`\hat t` an orthonormal basis of the tangents, as far as :math:`\theta_0` is the point of its orbit next to θ.
The shape of the energy does not enter: rotations may be broken or exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import expm

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.surface import Surface
from kramers_grok.landscape.symmetries.symmetry_group import Symmetry
from kramers_grok.landscape.symmetries.units import UnitLayer
from kramers_grok.theory.orbits import log_stiefel_volume

__all__ = ["SOFT_SHARE", "PseudoOrbit", "SoftMode", "soft_modes", "soft_orbit", "soft_text"]

Array = NDArray[np.float64]

#: Thermal width of a mode along a pseudo-orbit, in units of the orbit's radius, above which it is no Gaussian.
SOFT_SHARE = 0.25
#: Directions among a layer's units with less than this share of the strongest one's weight count as unused.
_UNUSED = 0.3
#: … and below this share of the natural size of weights, which is rounding.
_NOTHING = 1e-6


@dataclass(frozen=True)
class SoftMode:
    """One direction along a pseudo-orbit.

    Attributes
    ----------
    curvature : float
        Of the energy along it, the other directions relaxed [loss/weight²]; 0 (to rounding) for an exact rotation.
    radius : float
        Distance moved for each radian of rotation [weight].
    """

    curvature: float
    radius: float

    def share(self, temperature: float) -> float:
        """Thermal width √(T/κ) over the radius; infinite where the curvature is not positive."""
        return math.inf if self.curvature <= 0 else math.sqrt(temperature / self.curvature) / self.radius


@dataclass(frozen=True, eq=False)
class PseudoOrbit:
    """The rotated images of a point, with a slice across them.

    Without layers it is the point itself: the slice is the whole space and the Jacobian 1.

    Parameters
    ----------
    layers : sequence of UnitLayer
        Hidden layers whose units are rotated, as ``symmetry_of(model).softened.layers``.
    point : ndarray, shape (parameter,)
        The orbit's reference is this point without the directions of its hidden units that are hardly used.
    scale : float, optional
        Natural size of the weights; by default the largest of this point. At the state 0 give another one's.

    Raises
    ------
    InvalidParameterError
        If rotations of *several* layers together leave the reference alone: their volume is not known.
    """

    layers: tuple[UnitLayer, ...]
    point: Array
    scale: float

    def __init__(self, layers: Sequence[UnitLayer], point: Array, *, scale: float | None = None) -> None:
        object.__setattr__(self, "layers", tuple(layer for layer in layers if layer.width > 1))
        object.__setattr__(self, "point", np.asarray(point, dtype=np.float64))
        object.__setattr__(self, "scale", float(np.abs(self.point).max()) if scale is None else scale)
        free = zip(self.layers, self.used, strict=True)
        expected = sum(_freedom(layer.width) - _freedom(layer.width - u) for layer, u in free)
        if self.dimension != expected:
            raise InvalidParameterError(
                f"The pseudo-orbit has {self.dimension} directions, expected {expected} from {self.used} used "
                "direction(s) of the hidden layers: rotations of several layers together leave the point alone.\n"
                "Use a point of full support, or integrate without the pseudo-orbit."
            )

    # ------------------------------------------------------------ the orbit

    @cached_property
    def _reference(self) -> tuple[Array, tuple[int, ...]]:
        """The point with what is hardly used left out, and the number of used directions of each layer."""
        theta, used = self.point.copy(), []
        for layer in self.layers:
            rows = theta[layer.members]
            left, size, _ = np.linalg.svd(rows, full_matrices=False)
            kept = int((size > max(_UNUSED * size[0], _NOTHING * self.scale)).sum())
            theta[layer.members] = left[:, :kept] @ (left[:, :kept].T @ rows)
            used.append(kept)
        return theta, tuple(used)

    @property
    def reference(self) -> Array:
        """θ₀, shape (parameter,)."""
        return self._reference[0]

    @property
    def used(self) -> tuple[int, ...]:
        """Number of directions among each layer's units that the reference uses."""
        return self._reference[1]

    @cached_property
    def _frame(self) -> tuple[Array, Array, Array, Array]:
        """Generators (r, parameter, parameter) across the stabiliser, tangents (parameter, r), normals.

        Last, each generator's coefficients in the rotations of pairs of units, (r, pair).
        """
        size = self.point.size
        eye = torch.eye(size, dtype=torch.float64)
        every = [layer.tangents(eye).numpy() for layer in self.layers]  # row i: images of the unit vector i
        if not every:
            return np.zeros((0, size, size)), np.zeros((size, 0)), np.eye(size), np.zeros((0, 0))
        generators = np.concatenate(every, axis=1).transpose(1, 2, 0)
        tangents = generators @ self.reference  # (generator, parameter)
        left, lengths, right = np.linalg.svd(tangents.T, full_matrices=True)
        r = int((lengths > 1e-9 * max(lengths[0], 1e-300)).sum())
        own = np.tensordot(right[:r], generators, axes=1)
        return own, left[:, :r], left[:, r:], right[:r]

    @property
    def dimension(self) -> int:
        """Dimension r of the orbit."""
        return int(self._frame[1].shape[1])

    @property
    def tangents(self) -> Array:
        """Orthonormal t̂ along the orbit at the reference, shape (parameter, r)."""
        return self._frame[1]

    @property
    def normals(self) -> Array:
        """Orthonormal N across the orbit, shape (parameter, slice)."""
        return self._frame[2]

    @cached_property
    def log_volume(self) -> float:
        """Ln of the rotations' volume over that of the stabiliser, in radians (reflections are in it)."""
        return sum(
            log_stiefel_volume(layer.width, layer.width) - log_stiefel_volume(layer.width - u, layer.width - u)
            for layer, u in zip(self.layers, self.used, strict=True)
        )

    @property
    def n_normals(self) -> int:
        """Normal numbers that `rotations` needs for each of its draws."""
        return sum(layer.width**2 for layer in self.layers)

    def rotations(self, normals: Array) -> list[Array]:
        """Haar-distributed rotations, one (draw, h, h) for each layer, from normal numbers (draw, `n_normals`)."""
        out, start = [], 0
        for layer in self.layers:
            h = layer.width
            q, r = np.linalg.qr(normals[:, start : start + h * h].reshape(-1, h, h))
            out.append(q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :])
            start += h * h
        return out

    def rotated(self, rotations: Sequence[Array], theta: Array, *, back: bool = False) -> Array:
        """Images of points (draw, parameter), or with `back` under the inverse rotations."""
        out = theta
        for layer, rotation in zip(self.layers, rotations, strict=True):
            turn = np.swapaxes(rotation, 1, 2) if back else rotation
            out = layer.rotated(torch.from_numpy(np.ascontiguousarray(out)), torch.from_numpy(turn.copy())).numpy()
        return out

    def nudged(self, rotations: Sequence[Array], direction: int, angle: float) -> list[Array]:
        """Rotations R e^{ωG} with the generator G of a direction along the orbit."""
        out, start = [], 0
        for layer, rotation in zip(self.layers, rotations, strict=True):
            matrix = np.zeros((layer.width, layer.width))
            upper = np.triu_indices(layer.width, 1)
            matrix[upper] = self._frame[3][direction, start : start + len(upper[0])]
            out.append(rotation @ expm(angle * (matrix - matrix.T)))
            start += len(upper[0])
        return out

    def images(self, theta: Array) -> Array:
        """G_a θ of each row, shape (draw, r, parameter)."""
        return np.asarray(np.einsum("aij,nj->nai", self._frame[0], theta, optimize=True), dtype=np.float64)

    # ------------------------------------------------------------ the slice

    def points(self, xi: Array) -> Array:
        """θ₀ + N ξ, shape (draw, parameter)."""
        return self.reference + xi @ self.normals.T

    @property
    def slice_of_point(self) -> Array:
        """Coordinates ξ of the point itself: 0 unless it uses what the reference leaves out."""
        return (self.point - self.reference) @ self.normals

    @cached_property
    def _overlaps(self) -> tuple[Array, Array]:
        """Linear maps θ to ⟨G_a θ, t̂_b⟩, (parameter, r r), and the sign-fixed ⟨G_a θ₀, t̂_b⟩."""
        generators, tangents = self._frame[:2]
        linear = np.einsum("aij,ib->jab", generators, tangents)
        return linear.reshape(self.point.size, -1), np.einsum("j,jab->ab", self.reference, linear)

    def matrix(self, xi: Array) -> Array:
        """Overlaps M_ab = ⟨G_a θ, t̂_b⟩, shape (draw, r, r)."""
        r = self.dimension
        return (self.points(xi) @ self._overlaps[0]).reshape(-1, r, r)

    def jacobian(self, xi: Array) -> Array:
        """J(ξ) [weight^r], shape (draw,); 0 where the reference is not the orbit's nearest point any more."""
        if not self.dimension:
            return np.ones(len(xi))
        return np.where(self.closeness(xi) > 0, np.abs(np.linalg.det(self.matrix(xi))), 0.0)

    def closeness(self, xi: Array) -> Array:
        """1 on the orbit, falling to 0 where the orbit's nearest point is no longer unique (an axis), shape (draw,).

        For one circle it is the distance from its centre over the radius.
        """
        if not self.dimension:
            return np.ones(len(xi))
        # The Hessian of half the squared distance along the orbit, ⟨G_a θ₀, G_b θ⟩, is symmetric on the slice.
        root = np.linalg.inv(np.linalg.cholesky(self._overlaps[1] @ self._overlaps[1].T))
        distance = root @ self.matrix(xi) @ self._overlaps[1].T @ root.T
        return np.asarray(np.linalg.eigvalsh(0.5 * (distance + np.swapaxes(distance, 1, 2)))[:, 0])

    def log_jacobian_gradient(self, xi: Array) -> Array:
        """∇ ln J, shape (draw, slice)."""
        r = self.dimension
        if not r:
            return np.zeros_like(xi)
        inverse = np.linalg.inv(self.matrix(xi)).transpose(0, 2, 1).reshape(-1, r * r)
        return np.asarray(inverse @ (self._overlaps[0].T @ self.normals))

    def along(self, xi: Array, slope: Array, turn: Array | None = None) -> Array:
        r"""Tangential part y of a function's gradient, shape (draw, r).

        With the gradient `slope` in ξ and the derivatives `turn` along the generators (0 if not given) the gradient in
        weight space is :math:`N\,{\rm slope} + \hat t y`, up to the rotation.
        """
        if not self.dimension:
            return np.zeros((len(xi), 0))
        right = np.einsum("nap,np->na", self.images(self.points(xi)), slope @ self.normals.T)
        right = -right if turn is None else turn - right
        return np.linalg.solve(self.matrix(xi), right[..., None])[..., 0]

    def velocity(self, xi: Array, y: Array, slope: Array) -> tuple[Array, Array]:
        """Velocities of ξ, (draw, slice), and of the angles, (draw, r), when θ moves with N slope + t̂ y."""
        if not self.dimension:
            return slope, y
        turning = np.asarray(
            np.linalg.solve(np.swapaxes(self.matrix(xi), 1, 2), y[..., None])[..., 0], dtype=np.float64
        )
        return slope - np.einsum("nap,na->np", self.images(self.points(xi)), turning) @ self.normals, turning

    # ------------------------------------------------------------ is it soft?

    def modes(self, hessian: Array) -> tuple[SoftMode, ...]:
        """Directions along the orbit at the point itself, softest first, from the Hessian there.

        The other directions relax: the curvature is the Schur complement of the Hessian.
        """
        if not self.dimension:
            return ()
        _, tangents, normals, _ = self._frame
        across = normals.T @ hessian @ normals
        mixed = tangents.T @ hessian @ normals
        relaxed = tangents.T @ hessian @ tangents - mixed @ np.linalg.solve(across, mixed.T)
        curvatures, directions = np.linalg.eigh(0.5 * (relaxed + relaxed.T))
        # A unit displacement along a direction is a rotation by 1/radius.
        angles = np.linalg.norm(np.linalg.solve(self._overlaps[1].T, directions), axis=0)
        scale = 1e-9 * float(np.abs(hessian).max())
        pairs = zip(np.where(np.abs(curvatures) < scale, 0.0, curvatures), 1.0 / angles, strict=True)
        return tuple(SoftMode(float(k), float(r)) for k, r in pairs)


def _freedom(n: int) -> int:
    return n * (n - 1) // 2


def soft_modes(surface: Surface, layers: Sequence[UnitLayer], point: Array) -> tuple[SoftMode, ...]:
    """Directions along the pseudo-orbit of a stationary point, softest first; none where it has no pseudo-orbit.

    Parameters
    ----------
    surface : Surface
    layers : sequence of UnitLayer
        As in `PseudoOrbit`.
    point : ndarray, shape (parameter,)
    """
    try:
        orbit = PseudoOrbit(layers, point)
    except InvalidParameterError:
        return ()
    return orbit.modes(surface.hessian(point)) if orbit.dimension else ()


def soft_orbit(
    symmetry: Symmetry, point: Array, hessian: Array, temperature: float, *, scale: float, wanted: bool | None = None
) -> PseudoOrbit | None:
    """Return the pseudo-orbit about a stationary point, or None where the rotations of units are no matter there.

    Parameters
    ----------
    symmetry : Symmetry
        Of the energy. Exact rotations are always integrated.
    point : ndarray, shape (parameter,)
    hessian : ndarray, shape (parameter, parameter)
        At the point.
    temperature : float
        T > 0 [loss]: broken rotations matter where a mode is soft.
    scale : float
        As in `PseudoOrbit`.
    wanted : bool, optional
        Say whether to integrate broken rotations in place of looking at their modes.
    """
    # An even activation has no linear part at 0, and rotations of its units are nowhere near a symmetry.
    known = zip(symmetry.layers, symmetry.softened.layers, strict=True)
    layers = tuple(soft for own, soft in known if own.flips is None or bool(own.flips.all()))
    if not layers or (wanted is False and not symmetry.is_continuous):
        return None
    orbit = PseudoOrbit(layers, point, scale=scale)
    if symmetry.is_continuous or wanted or any(m.share(temperature) > SOFT_SHARE for m in orbit.modes(hessian)):
        return orbit
    return None


def soft_text(name: str, modes: Sequence[SoftMode], temperature: float) -> tuple[str, ...]:
    """Say which Gaussian integral a soft mode makes invalid, or nothing.

    Parameters
    ----------
    name : str
        Of the point: "minimum" or "saddle".
    modes : sequence of SoftMode
        Without those that are exact zero modes of the energy.
    temperature : float
        T > 0 [loss].

    Examples
    --------
    >>> [text.split(":")[0] for text in soft_text("saddle", [SoftMode(0.003, 0.36)], 0.001)]
    ['soft mode at the saddle']
    >>> soft_text("saddle", [SoftMode(0.5, 0.36)], 0.001)
    ()
    """
    heat = checks.positive("temperature", temperature)
    shares = [(mode.share(heat), mode) for mode in modes if mode.curvature != 0]
    if not shares or max(shares, key=lambda pair: pair[0])[0] <= SOFT_SHARE:
        return ()
    worst, mode = max(shares, key=lambda pair: pair[0])
    size = "without bound" if math.isinf(worst) else f"by {worst:.2g} of the pseudo-orbit's radius"
    return (
        f"soft mode at the {name}: curvature {mode.curvature:.2g} along a broken rotation of hidden units lets it "
        f"turn {size}, above {SOFT_SHARE:g}; `capacity_rate` integrates over the pseudo-orbit",
    )
