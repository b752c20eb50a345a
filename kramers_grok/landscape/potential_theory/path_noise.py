r"""What minibatches add to an escape, to first order along the minimum-energy path.

SGD with learning rate η and batches of B independent samples diffuses with :math:`\mathcal D = \tfrac{\eta}{2B}C` on
top of the temperature, C(θ) the covariance of the samples' gradients. The most probable path stays, to this order, the
minimum-energy path with tangent t, and the escape quickens by

.. math:: \ln\frac{k_{\rm with}}{k_{\rm without}} = \int_{\min}^{s}\Big[\frac1T-\frac1{T+\mathcal D_t}\Big]dA
          - \tfrac12\ln\Big(1+\frac{\mathcal D_t(s)}T\Big), \qquad \mathcal D_t = \tfrac{\eta}{2B}\,t^TCt ,

with the slope dA that the escape climbs. Without soft modes that is the loss, A = F. Where rotations of hidden units
are soft, the entropy of the pseudo-orbit pushes outwards together with the data, and only the rest is climbed:

.. math:: A = -T\ln\mathbb E_R\,e^{-F(R\theta)/T} - \tfrac T2\ln\det\langle G_a\theta,G_b\theta\rangle ,

R Haar-distributed and :math:`G_a` the generators of the orbit; the noise is averaged over the same rotations. The
integral then runs from the minimum of A along the path to its top.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import simpson

from kramers_grok.core import checks
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.potential_theory.pseudo_orbit import PseudoOrbit, soft_orbit
from kramers_grok.landscape.potential_theory.wells import normal_blocks
from kramers_grok.landscape.surface import Surface
from kramers_grok.models.base import SampleModel
from kramers_grok.theory.minibatch import PathNoise

__all__ = ["path_log_factor", "variance_along"]

Array = NDArray[np.float64]

_ROWS = 8192  # images times samples whose gradients are held at once
_ROTATIONS = 512  # over which soft modes are averaged


def variance_along(barrier: NumericalBarrier) -> Array:
    r"""Variance :math:`t^TCt` of the samples' gradients along the path, minimum to saddle, shape (image,).

    Over the samples of the model's data, normalised by 1/N.

    Raises
    ------
    InvalidParameterError
        If the barrier's model has no data of samples.
    """
    return _variances(barrier, *_path(barrier))


def path_log_factor(barrier: NumericalBarrier, temperature: float, noise: PathNoise) -> float:
    """Logarithm of the factor by which minibatches on top of a temperature quicken the escape.

    To first order in their share of the noise: the exponent along the path, and the prefactor's part along the unstable
    direction. How the noise changes beside the path is left out, which matters by some 𝒟/T at the saddle.

    Parameters
    ----------
    barrier : NumericalBarrier
        Of a model with a finite data set.
    temperature : float
        T > 0 of the isotropic noise [loss].
    noise : PathNoise

    Raises
    ------
    InvalidParameterError
        For T ≤ 0, or a model without samples.
    """
    heat = checks.positive("temperature", temperature, "the path is that of weak isotropic noise")
    variance, climb = _climbed(barrier, heat)
    first, last = _last_climb(climb)
    diffusion = 0.5 * noise.lr_over_batch * variance[first:last]
    # 1/T − 1/(T + 𝒟) without its cancellation
    gain = diffusion / (heat * (heat + diffusion))
    exponent = simpson(gain * climb[first:last], x=barrier.path.arc_length[first:last])
    return float(exponent - 0.5 * np.log((heat + diffusion[-1]) / (heat + diffusion[0])))


@lru_cache(maxsize=64)
def _climbed(barrier: NumericalBarrier, temperature: float) -> tuple[Array, Array]:
    """Variance of the samples' gradients and slope that is climbed, at each image; the same for every batch size."""
    surface, saddle = Surface(barrier.model), barrier.saddle
    size = float(np.abs(saddle).max())
    orbit = soft_orbit(barrier.symmetry, saddle, surface.hessian(saddle), temperature, scale=size)
    if orbit is not None:
        return _turned(barrier, orbit, temperature)
    images, tangents = _path(barrier)
    return _variances(barrier, images, tangents), (surface.gradients(images) * tangents).sum(axis=1)


def _last_climb(slope: Array) -> tuple[int, int]:
    """Range of images of the last stretch on which a slope is positive, with the top that it leads to."""
    up = np.flatnonzero(slope > 0)
    if not len(up):
        return len(slope) - 1, len(slope)
    breaks = np.flatnonzero(np.diff(up) > 1)
    return int(up[breaks[-1] + 1] if len(breaks) else up[0]), min(int(up[-1]) + 2, len(slope))


def _turned(barrier: NumericalBarrier, orbit: PseudoOrbit, temperature: float) -> tuple[Array, Array]:
    """Variance along the path and the free energy's slope, both averaged over the rotations of a pseudo-orbit."""
    images, tangents = _path(barrier)
    surface, exact = Surface(barrier.model), barrier.symmetry.is_continuous
    normals = normal_blocks(orbit.n_normals, 1 if exact else _ROTATIONS, 1, 0)[0]
    turns = orbit.rotations(normals)
    variance, slope = np.empty(len(images)), np.empty(len(images))
    for number, (image, tangent) in enumerate(zip(images, tangents, strict=True)):
        theta, way = (orbit.rotated(turns, np.tile(v, (len(normals), 1))) for v in (image, tangent))
        energies = surface.energies(theta)
        weight = np.exp(-(energies - energies.min()) / temperature)
        weight /= weight.sum()
        around, ahead = (orbit.images(v[None])[0] for v in (image, tangent))
        # The derivative of ½ ln det⟨G_a θ, G_b θ⟩ with θ' = t; at θ = 0 it is infinite, and the trap further out
        gram = around @ around.T
        full = np.linalg.matrix_rank(gram) == len(gram)
        outwards = np.trace(np.linalg.solve(gram, around @ ahead.T)) if full else np.inf
        slope[number] = weight @ (surface.gradients(theta) * way).sum(axis=1) - temperature * outwards
        variance[number] = weight @ _variances(barrier, theta, way)
    return variance, slope


def _path(barrier: NumericalBarrier) -> tuple[Array, Array]:
    """Images of the path up to the saddle, and its unit tangents."""
    images = barrier.path.images[: barrier.top + 2]
    tangents = np.gradient(images, axis=0)[:-1]
    return images[:-1], tangents / np.linalg.norm(tangents, axis=1, keepdims=True)


def _variances(barrier: NumericalBarrier, points: Array, directions: Array) -> Array:
    """Variance of the samples' gradients at each point along its direction, shape (point,)."""
    model = barrier.model
    data = model.data if isinstance(model, SampleModel) else None
    if not isinstance(model, SampleModel) or data is None:
        raise checks.invalid(
            "barrier.model", type(model).__name__, "a model that learns from a finite data set",
            "minibatch noise is that of its samples", "Use an MLP or a ModuleModel with `data`.",
        )  # fmt: skip
    x, y = (torch.as_tensor(a, dtype=torch.float64).unsqueeze(1) for a in (data.x, data.y))
    along = np.empty(len(points) * len(x))
    theta, tangent = torch.from_numpy(np.ascontiguousarray(points)), torch.from_numpy(np.ascontiguousarray(directions))
    with torch.no_grad():
        for start in range(0, len(along), _ROWS):
            pairs = torch.arange(start, min(start + _ROWS, len(along)))
            point, sample = pairs // len(x), pairs % len(x)
            gradient = model.sample_gradient(theta[point], x[sample], y[sample])
            along[start : start + _ROWS] = (gradient * tangent[point]).sum(dim=1).numpy()
    return np.asarray(along.reshape(len(points), len(x)).var(axis=1))
