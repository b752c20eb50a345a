r"""Minibatch noise of one mode and of the scalar chain, in the diffusion limit.

One sample :math:`(x, y)` with residual :math:`r = y - m x` gives layer l the gradient :math:`-v_l\,r x`,
:math:`v_l = m/a_l` the product of the other layers. All layers share the one random number :math:`rx`, so the
diffusion tensor of SGD, :math:`\tfrac{\varepsilon}{2}\operatorname{Cov}`, has rank one:

.. math:: \mathcal D = \tfrac{\varepsilon}{2}\,c(m)\,v v^T, \qquad c(m) = \operatorname{Var}(rx), \quad
          \varepsilon = \eta/B .

For :math:`x \sim N(0, q)`, :math:`y = \sigma x + s n`: :math:`rx = (\sigma-m)x^2 + s\,n x`, whose two parts are
uncorrelated, hence :math:`c = 2q^2(\sigma-m)^2 + q s^2`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["GaussianResidual", "MinibatchNoise", "SampleResidual"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GaussianResidual:
    r"""Variance of :math:`rx` for Gaussian inputs: :math:`c(m) = 2q^2(\sigma-m)^2 + q s^2`.

    Parameters
    ----------
    singular_value, input_variance : float
        σ and q of the mode.
    label_noise : float
        Standard deviation s of the label noise.

    Examples
    --------
    >>> GaussianResidual(singular_value=1.0, label_noise=0.5)(0.5)
    0.75
    """

    singular_value: float
    label_noise: float
    input_variance: float = 1.0

    def __call__(self, m: Any) -> Any:
        """Variance at order parameter `m`."""
        q = self.input_variance
        return 2 * q**2 * (self.singular_value - m) ** 2 + q * self.label_noise**2


@dataclass(frozen=True)
class SampleResidual:
    r"""Variance of :math:`rx = xy - m x^2` over a finite data set, a quadratic in m.

    Make it with `from_data`.

    Parameters
    ----------
    target_variance, covariance, input_variance : float
        Var(xy), Cov(xy, x²), Var(x²), normalised by the number of samples.
    """

    target_variance: float
    covariance: float
    input_variance: float

    @classmethod
    def from_data(cls, x: ArrayLike, y: ArrayLike) -> SampleResidual:
        """Take the moments from scalar data `x`, `y` of shape (sample,).

        Examples
        --------
        >>> SampleResidual.from_data([1.0, 2.0], [1.0, 1.0])(0.0)
        0.25
        """
        inputs = checks.finite_array("x", x, ndim=1)
        targets = checks.finite_array("y", y, ndim=1)
        if inputs.shape != targets.shape:
            raise InvalidParameterError(
                f"`y` has shape {targets.shape}, expected {inputs.shape}: one target for each input.\n"
                "Use `y[: len(x)]`."
            )
        moments = np.cov(inputs * targets, inputs**2, bias=True)
        return cls(float(moments[0, 0]), float(moments[0, 1]), float(moments[1, 1]))

    def __call__(self, m: Any) -> Any:
        """Variance at order parameter `m`."""
        return self.target_variance - 2 * m * self.covariance + m**2 * self.input_variance


@dataclass(frozen=True)
class MinibatchNoise:
    r"""Noise of minibatch SGD with independent draws, in the diffusion limit.

    Parameters
    ----------
    lr_over_batch : float
        :math:`\varepsilon = \eta/B`; for draws without replacement from N samples multiply by (N−B)/(N−1).
    residual_variance : callable
        c(m), the variance of :math:`rx` at order parameter m, vectorised.
    """

    lr_over_batch: float
    residual_variance: Callable[[Any], Any]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "lr_over_batch", checks.non_negative("lr_over_batch", self.lr_over_batch, "it is lr/batch")
        )

    def strength(self, m: Any) -> Any:
        r"""Prefactor :math:`\tfrac{\varepsilon}{2}c(m)` of :math:`vv^T`."""
        return 0.5 * self.lr_over_batch * self.residual_variance(m)
