"""The scalar chain as a torch model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.models.base import SymbolicModel
from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = ["ChainModel", "products_of_others"]

Array = NDArray[np.float64]


class ChainModel(SymbolicModel):
    """The scalar chain as a torch model: parameters a_1 … a_D, order parameter m = ∏ a_l.

    Parameters
    ----------
    chain : DeepLinearChain
    """

    n_inputs = 1
    n_outputs = 1

    def __init__(self, chain: DeepLinearChain) -> None:
        super().__init__(chain.landscape)
        self.chain = chain

    @property
    def input_variance(self) -> float:
        """Variance q of the input."""
        return self.chain.input_variance

    @property
    def teacher_matrix(self) -> Array:
        """Teacher's map, shape (1, 1)."""
        return np.array([[self.chain.singular_value]])

    @property
    def input_covariance(self) -> Array:
        """Second moment of the input, shape (1, 1)."""
        return np.array([[self.chain.input_variance]])

    def data_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """(xx·m − yx) ∂m/∂a_l, shape (replica, parameter)."""
        others, m = products_of_others(theta)
        residual = xx.reshape(-1) * m - yx.reshape(-1)
        return residual.unsqueeze(1) * others

    def batch_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """`data_gradient` + λ a_l, shape (replica, parameter)."""
        return self.data_gradient(theta, xx, yx) + self.chain.weight_decay * theta


def products_of_others(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Product of all other weights of a chain for each of them, and of all; weights along the last axis.

    From either side: dividing the product of all by a weight fails where it is 0.
    """
    columns = weights.unbind(-1)
    below = [torch.ones_like(columns[0])]
    for weight in columns[:-1]:
        below.append(below[-1] * weight)
    above = [torch.ones_like(columns[0])]
    for weight in reversed(columns[1:]):
        above.append(above[-1] * weight)
    above.reverse()
    others = torch.stack([b * a for b, a in zip(below, above, strict=True)], dim=-1)
    return others, below[-1] * columns[-1]
