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
from kramers_grok.theory.gradient_noise import ResidualVariance

__all__ = ["MinibatchNoise"]


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
        r"""Prefactor :math:`\tfrac{\varepsilon}{2}c(m)` of :math:`vv^T`."""
        return np.asarray(0.5 * self.lr_over_batch * self.residual_variance(m))
