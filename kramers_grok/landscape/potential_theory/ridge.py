r"""How a barrier's top moves along a pseudo-orbit whose rotations are broken.

With :math:`F(R,c)` the energy at the rotation R and :math:`F_1=F-\bar F`, to first order in :math:`F_1` and in c,

.. math:: \partial_zF_1 = f_z(R) + \delta H_{zz}(R)\,z + \delta H_{zi}(R)\,y_i

bends the committor's level sets, as the cubic terms do, to :math:`\Phi(\sqrt{\mu/T}\,(z+g))` with the further terms

.. math:: g_R = -\frac{f_z}{\mu} - \frac{\delta H_{zz}}{2\mu}z - \frac{\delta H_{zi}}{\mu+\kappa_i}y_i .

Motion along the orbit is slow and left out of g; it is kept in the gradient of :math:`f_z(R)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.landscape.potential_theory.slice_energy import SliceEnergy

__all__ = ["Ridge", "mean_row", "ridge_at"]

Array = NDArray[np.float64]

_FARTHEST = 3.0  # thermal lengths at which the ridge's shift saturates
_STEEPEST = 0.5  # largest tilt, relative to the undisturbed slope


@dataclass(frozen=True, eq=False)
class Ridge:
    """Level sets at each of some rotations.

    Attributes
    ----------
    shift : ndarray, shape (draw,)
        Of the level.
    tilt : ndarray, shape (draw, slice)
        Of its gradient in c.
    turn : ndarray, shape (draw, r)
        Derivatives of the shift along the pseudo-orbit.
    place : ndarray, shape (draw, slice)
        The barrier's top in c.
    """

    shift: Array
    tilt: Array
    turn: Array
    place: Array


def _forces(energy: SliceEnergy, turns: list[Array], centre: Array, frame: Array) -> tuple[Array, Array, Array]:
    """Boltzmann exponents, gradients, and Hessian times z, at one point of the slice turned; all turned back."""
    orbit, surface, n = energy.orbit, energy.surface, len(turns[0])
    points = orbit.rotated(turns, np.repeat(orbit.points(centre[None]), n, axis=0))
    along = orbit.rotated(turns, np.repeat((orbit.normals @ frame[:, 0])[None], n, axis=0))
    force = orbit.rotated(turns, surface.gradients(points), back=True)
    rows = orbit.rotated(turns, surface.curvatures(points, along), back=True)
    return -surface.energies(points) / energy.temperature, force, rows


def mean_row(energy: SliceEnergy, centre: Array, frame: Array) -> Array:
    """Boltzmann's mean of the Hessian's row of z over the energy's own rotations, in c, shape (slice,)."""
    exponent, _, rows = _forces(energy, energy.rotations, centre, frame)
    weight = np.exp(exponent - exponent.max())
    return np.asarray((weight / weight.sum()) @ rows @ energy.orbit.normals @ frame)


def ridge_at(
    energy: SliceEnergy, turns: list[Array], centre: Array, frame: Array, growth: float, curvatures: Array, mean: Array
) -> Ridge:
    """Return the ridge at rotations, from the gradient and one row of the Hessian there.

    Parameters
    ----------
    energy : SliceEnergy
    turns : list of ndarray, shape (draw, h, h)
    centre, frame : ndarray
        Saddle on the slice, and map from c to it.
    growth : float
        μ [1/time].
    curvatures : ndarray, shape (slice - 1,)
        κ [1/time].
    mean : ndarray, shape (slice,)
        From `mean_row`.
    """
    orbit, heat = energy.orbit, energy.temperature
    _, force, rows = _forces(energy, turns, centre, frame)
    entropy = heat * orbit.log_jacobian_gradient(centre[None])
    pull = (force @ orbit.normals - entropy) @ frame
    change = rows @ orbit.normals @ frame - mean
    scale = math.sqrt(growth / heat)
    shift = -scale * pull[:, 0] / growth
    root = 1 / np.sqrt(1 + (shift / _FARTHEST) ** 2)
    axis, reference = orbit.normals @ frame[:, 0], orbit.points(centre[None])
    turn = np.einsum("ap,np->na", orbit.images(reference)[0], rows)
    # G is antisymmetric: −z·(G force) = (G z)·force
    turn += np.einsum("ap,np->na", orbit.images(axis[None])[0], force)
    widths = np.sqrt(heat / curvatures)
    aside = np.clip(-pull[:, 1:] / curvatures, -_FARTHEST * widths, _FARTHEST * widths)
    tilt = -change / np.concatenate([[2 * growth], growth + curvatures])
    return Ridge(
        shift=shift * root,
        tilt=scale * np.clip(tilt, -_STEEPEST, _STEEPEST),
        turn=-scale / growth * root[:, None] ** 3 * turn,
        place=np.concatenate([-(shift * root / scale)[:, None], aside], axis=1),
    )
