"""The balanced mode as a torch model."""

from __future__ import annotations

import numpy as np
import sympy
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.models.base import SymbolicModel, torch_function
from kramers_grok.theory.deep_linear import Mode

__all__ = ["ModeModel"]


class ModeModel(SymbolicModel):
    r"""One mode on its balanced path as a torch model: parameter x = √D a, order parameter m = (x/√D)^D.

    A batch's loss is that of the chain with all weights equal:
    :math:`\tfrac12 \hat\Sigma_{xx} m^2 - \hat\Sigma_{yx} m + \tfrac12 \lambda x^2`.

    Parameters
    ----------
    mode : Mode

    Examples
    --------
    >>> import torch
    >>> model = ModeModel(Mode(depth=3, singular_value=1.0, weight_decay=0.25))
    >>> theta = torch.tensor([[1.0]], dtype=torch.float64)
    >>> xx = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> torch.equal(model.batch_gradient(theta, xx, xx), model.gradient(theta))  # the population: Σ_xx = Σ_yx = 1
    True
    """

    n_inputs = 1
    n_outputs = 1

    def __init__(self, mode: Mode) -> None:
        super().__init__(mode.landscape)
        self.mode = mode
        (x,), (m,) = mode.landscape.coordinates, mode.landscape.order_parameters
        self._slope = torch_function((x,), (sympy.diff(m, x),))

    @property
    def input_variance(self) -> float:
        """Variance q of the input."""
        return self.mode.input_variance

    @property
    def teacher_matrix(self) -> NDArray[np.float64]:
        """Teacher's map, shape (1, 1)."""
        return np.array([[self.mode.singular_value]])

    @property
    def input_covariance(self) -> NDArray[np.float64]:
        """Second moment of the input, shape (1, 1)."""
        return np.array([[self.mode.input_variance]])

    def data_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """(xx·m − yx) dm/dx, shape (replica, 1)."""
        residual = xx.reshape(-1, 1) * self.order_parameters(theta) - yx.reshape(-1, 1)
        return residual * self._slope(theta.squeeze(-1))

    def batch_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """`data_gradient` + λ x, shape (replica, 1)."""
        return self.data_gradient(theta, xx, yx) + self.mode.weight_decay * theta
