r"""What minibatches add to an escape, to first order along the minimum-energy path.

SGD with learning rate η and batches of B independent samples diffuses with :math:`\mathcal D = \tfrac{\eta}{2B}C` on
top of the temperature, C(θ) the covariance of the samples' gradients. The most probable path stays, to this order, the
minimum-energy path with tangent t, and the escape quickens by

.. math:: \ln\frac{k_{\rm with}}{k_{\rm without}} = \int_{\min}^{s}\Big[\frac1T-\frac1{T+\mathcal D_t}\Big]dF
          - \tfrac12\ln\Big(1+\frac{\mathcal D_t(s)}T\Big), \qquad \mathcal D_t = \tfrac{\eta}{2B}\,t^TCt .
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import simpson

from kramers_grok.core import checks
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.surface import Surface
from kramers_grok.models.base import SampleModel
from kramers_grok.theory.minibatch import PathNoise

__all__ = ["path_log_factor", "variance_along"]

Array = NDArray[np.float64]

_ROWS = 8192  # images times samples whose gradients are held at once


def variance_along(barrier: NumericalBarrier) -> Array:
    r"""Variance :math:`t^TCt` of the samples' gradients along the path, minimum to saddle, shape (image,).

    Over the samples of the model's data, normalised by 1/N.

    Raises
    ------
    InvalidParameterError
        If the barrier's model has no data of samples.
    """
    return _along(barrier)[0]


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
    variance, tangents = _along(barrier)
    diffusion = 0.5 * noise.lr_over_batch * variance
    # 1/T − 1/(T + 𝒟) without its cancellation
    gain = diffusion / (heat * (heat + diffusion))
    climb = (Surface(barrier.model).gradients(barrier.path.images[: len(gain)]) * tangents).sum(axis=1)
    exponent = simpson(gain * climb, x=barrier.path.arc_length[: len(gain)])
    return float(exponent - 0.5 * np.log1p(diffusion[-1] / heat))


def _along(barrier: NumericalBarrier) -> tuple[Array, Array]:
    """Variance of the samples' gradients along the path up to the saddle, and its unit tangents."""
    model = barrier.model
    data = model.data if isinstance(model, SampleModel) else None
    if not isinstance(model, SampleModel) or data is None:
        raise checks.invalid(
            "barrier.model", type(model).__name__, "a model that learns from a finite data set",
            "minibatch noise is that of its samples", "Use an MLP or a ModuleModel with `data`.",
        )  # fmt: skip
    images = barrier.path.images[: barrier.top + 2]
    tangents = np.gradient(images, axis=0)[:-1]
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    x, y = (torch.as_tensor(a, dtype=torch.float64).unsqueeze(1) for a in (data.x, data.y))
    result = []
    with torch.no_grad():
        for image, tangent in zip(images[:-1], tangents, strict=True):
            along = []
            for start in range(0, len(x), _ROWS):
                part = slice(start, start + _ROWS)
                theta = torch.from_numpy(image.copy()).expand(len(x[part]), -1).contiguous()
                along.append(model.sample_gradient(theta, x[part], y[part]).numpy() @ tangent)
            result.append(float(np.concatenate(along).var()))
    return np.array(result), tangents
