r"""Minibatch noise of one mode and of the scalar chain, in the diffusion limit.

One sample :math:`(x, y)` with residual :math:`r = y - m x` gives layer l the gradient :math:`-v_l\,r x`,
:math:`v_l = m/a_l` the product of the other layers. All layers share the one random number :math:`rx`, so the
diffusion tensor of SGD has rank one:

.. math:: \mathcal D = \tfrac{\varepsilon}{2}\,c(m)\,v v^T, \qquad c(m) = \operatorname{Var}(rx), \quad
          \varepsilon = \eta/B .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.gradient_noise import ResidualVariance

__all__ = ["MinibatchNoise", "PathNoise", "minibatch_log_factor"]

# Nodes of the quadrature: the integrand is a rational function without poles near the path.
_NODES = 200


@dataclass(frozen=True)
class MinibatchNoise:
    r"""Noise of minibatch SGD with independent draws, in the diffusion limit.

    Parameters
    ----------
    lr_over_batch : float
        :math:`\varepsilon = \eta/B`; for draws without replacement from N samples multiply by (N−B)/(N−1).
    residual_variance : callable
        c(m), the variance of :math:`rx` at order parameter m: `GaussianResidualVariance` or
        `EmpiricalResidualVariance`.

    Examples
    --------
    >>> from kramers_grok.theory.gradient_noise import GaussianResidualVariance
    >>> float(MinibatchNoise(0.01, GaussianResidualVariance(1.0, label_noise=0.5)).strength(0.5))
    0.00375
    """

    lr_over_batch: float
    residual_variance: ResidualVariance

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "lr_over_batch", checks.non_negative("lr_over_batch", self.lr_over_batch, "it is lr/batch")
        )

    def strength(self, m: ArrayLike) -> NDArray[np.float64]:
        r"""Prefactor :math:`\tfrac{\varepsilon}{2}c(m)` of :math:`vv^T`.

        Parameters
        ----------
        m : array_like

        Returns
        -------
        array, the shape of `m`
        """
        return np.asarray(0.5 * self.lr_over_batch * self.residual_variance(m))


@dataclass(frozen=True)
class PathNoise:
    """Noise of minibatch SGD on a finite data set, for a numerical barrier.

    Parameters
    ----------
    lr_over_batch : float
        η/B [time/sample] of independent draws; for draws without replacement from N samples times (N − B)/(N − 1).

    Examples
    --------
    >>> PathNoise(0.0125)
    PathNoise(lr_over_batch=0.0125)
    """

    lr_over_batch: float

    def __post_init__(self) -> None:
        value = checks.non_negative("lr_over_batch", self.lr_over_batch, "it is lr/batch")
        object.__setattr__(self, "lr_over_batch", value)


def minibatch_log_factor(mode: Mode, temperature: float, noise: MinibatchNoise) -> float:
    r"""Logarithm of the factor by which minibatch noise on top of a temperature quickens the escape to learning.

    .. math:: \ln\frac{k_{\rm with}}{k_{\rm without}} = \int_0^{x_s} F'(x)\Big[\frac1T-\frac1{T+\mathcal D(x)}\Big]dx
              - \frac12\ln\Big(1+\frac{\mathcal D(x_s)}T\Big),
              \qquad \mathcal D = \tfrac\varepsilon2\,c(m)\,D\,a^{2D-2},

    along the balanced path in arc length :math:`x=\sqrt D\,a`. In the mode this is the multiplicative Kramers rate over
    the additive one. In the chain and in a matrix network the integral is the exponent's first order in 𝒟/T, of one
    feature's own noise: the most probable path stays the balanced one. The prefactor there also depends on how the
    noise changes beside the path, which is left out: in the chain of three weights it adds some 0.05 𝒟(x_s)/T. So use
    it where 𝒟(x_s)/T is a few per cent: a *small share*. In wide layers entropy carries the escape up most of ΔF, and
    this factor is too large: see `kramers_grok.theory.radial_minibatch.radial_minibatch_log_factor`.

    Parameters
    ----------
    mode : Mode
        The balanced mode; for a network ``network.mode(feature)``.
    temperature : float
        T > 0 of the isotropic noise [loss].
    noise : MinibatchNoise
        Of independent batches, in the diffusion limit.

    Returns
    -------
    float
        Positive at high barriers, where the exponent wins over the prefactor.

    Raises
    ------
    InvalidParameterError
        For T ≤ 0: minibatch noise alone vanishes at the unlearned state, and no rate exists.
    NoBarrierError
        If D = 2 or λ is at or above the spinodal.

    Examples
    --------
    >>> from kramers_grok.theory.gradient_noise import GaussianResidualVariance
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> noise = MinibatchNoise(0.001, GaussianResidualVariance(1.0))
    >>> print(f"{minibatch_log_factor(mode, mode.barrier().height / 10, noise):.4f}")
    0.0142
    """
    heat = checks.positive("temperature", temperature, "minibatch noise alone vanishes at the unlearned state")
    depth = mode.depth
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    top = mode.saddle_amplitude()
    a = 0.5 * top * (nodes + 1)
    slope = depth * a * (mode.weight_decay - mode.input_variance * a ** (depth - 2) * (mode.singular_value - a**depth))
    diffusion = noise.strength(a**depth) * depth * a ** (2 * depth - 2)
    # 1/T − 1/(T + 𝒟) without its cancellation
    exponent = 0.5 * top * weights @ (slope * diffusion / (heat * (heat + diffusion)))
    at_saddle = noise.strength(top**depth) * depth * top ** (2 * depth - 2)
    return float(exponent - 0.5 * np.log1p(at_saddle / heat))
