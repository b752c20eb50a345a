"""What dynamics need of a model, and torch versions of symbolic landscapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core.landscape import Landscape, with_float_constants
from kramers_grok.models.data import FiniteData

__all__ = ["BatchModel", "Model", "SampleModel", "SymbolicModel", "WeightedModel", "torch_function"]


class Model(Protocol):
    """A replica-batched energy: `theta` has shape (replica, parameter)."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        ...

    def energy(self, theta: Tensor) -> Tensor:
        """Loss including weight decay, shape (replica,).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica,)
            [loss]
        """
        ...

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of `energy`, shape (replica, parameter).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica, parameter)
        """
        ...

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters m, shape (replica, feature).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica, feature)
        """
        ...


@runtime_checkable
class BatchModel(Model, Protocol):
    """A model of linear response, whose loss on a batch depends on the batch's second moments only.

    With Σ̂_xx and Σ̂_yx the second moments of a batch, the loss is
    ½ tr(W Σ̂_xx Wᵀ) − tr(W Σ̂_yxᵀ) + ½ λ ‖θ‖² up to a constant, W the network's end-to-end map.
    """

    @property
    def n_inputs(self) -> int:
        """Input dimension d."""
        ...

    @property
    def n_outputs(self) -> int:
        """Output dimension o."""
        ...

    @property
    def teacher_matrix(self) -> NDArray[np.float64]:
        """Teacher's map M, shape (output, input)."""
        ...

    @property
    def input_covariance(self) -> NDArray[np.float64]:
        """Second moments of the inputs Σ_xx, shape (input, input)."""
        ...

    def data_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """Gradient of a batch's loss without weight decay, shape (replica, parameter).

        `xx` has shape (replica or 1, input, input), `yx` (replica or 1, output, input).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)
        xx : Tensor, shape (replica or 1, input, input)
        yx : Tensor, shape (replica or 1, output, input)

        Returns
        -------
        Tensor, shape (replica, parameter)
        """
        ...

    def batch_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """`data_gradient` + λ θ, with the model's own weight decay λ.

        Parameters
        ----------
        theta, xx, yx
            As in `data_gradient`.

        Returns
        -------
        Tensor, shape (replica, parameter)
        """
        ...


@runtime_checkable
class SampleModel(Model, Protocol):
    """A model that learns from samples one by one: its loss on a batch is no function of second moments.

    `energy` is the mean loss on `data` with weight decay ½ λ ‖θ‖², and may raise where there are none.
    """

    @property
    def n_inputs(self) -> int:
        """Input dimension d."""
        ...

    @property
    def n_outputs(self) -> int:
        """Output dimension o."""
        ...

    @property
    def data(self) -> FiniteData | None:
        """What energy, gradient and order parameters are of."""
        ...

    @property
    def teacher_matrix(self) -> NDArray[np.float64] | None:
        """Map M of an online teacher, shape (output, input); None where labels come from data alone."""
        ...

    @property
    def input_covariance(self) -> NDArray[np.float64]:
        """Second moments of the online teacher's inputs, shape (input, input)."""
        ...

    def sample_loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss over samples without weight decay, shape (replica,); shapes as `sample_gradient`.

        Parameters
        ----------
        theta, x, y
            As in `sample_gradient`.

        Returns
        -------
        Tensor, shape (replica,)
            [loss]
        """
        ...

    def sample_gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the mean loss over samples without weight decay, shape (replica, parameter).

        `x` has shape (replica or 1, sample, input), `y` (replica or 1, sample, output).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)
        x : Tensor, shape (replica or 1, sample, input)
        y : Tensor, shape (replica or 1, sample, output)

        Returns
        -------
        Tensor, shape (replica, parameter)
        """
        ...


@runtime_checkable
class WeightedModel(SampleModel, Protocol):
    """A `SampleModel` whose samples may have weights, which draws the noise of minibatches in one backward pass."""

    weight_decay: float

    def weighted_gradient(self, theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Σ_i w_i ∇ℓ_i over samples without weight decay, shape (replica, parameter).

        `x` and `y` as for `sample_gradient`; `weights` has shape (replica or 1, sample).

        Parameters
        ----------
        theta, x, y
            As in `sample_gradient`.
        weights : Tensor, shape (replica or 1, sample)

        Returns
        -------
        Tensor, shape (replica, parameter)
        """
        ...


def torch_function(arguments: tuple[sympy.Symbol, ...], expressions: tuple[sympy.Expr, ...]) -> Callable[..., Tensor]:
    """Compile expressions to one torch function of 1-D tensors; the result's last axis is the expression."""
    numeric = [with_float_constants(e) for e in expressions]
    function: Callable[..., Any] = sympy.lambdify(arguments, numeric, modules=[_TORCH, torch], cse=True)

    def evaluate(*columns: Tensor) -> Tensor:
        template = columns[0]
        values = function(*columns)
        # A constant expression comes back as a bare number.
        return torch.stack([v if isinstance(v, Tensor) else torch.full_like(template, float(v)) for v in values], -1)

    return evaluate


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Tensor]:
    """Let a function of two tensors take a number for one of them."""

    def evaluate(a: Any, b: Any) -> Tensor:
        like = a if isinstance(a, Tensor) else b
        first, second = (v if isinstance(v, Tensor) else torch.full_like(like, float(v)) for v in (a, b))
        return function(first, second)

    return evaluate


# By the names that sympy prints; its own translation does not know that torch refuses numbers here.
_TORCH = {
    "max": _of_two(torch.maximum),
    "min": _of_two(torch.minimum),
    "heaviside": _of_two(torch.heaviside),
}


class SymbolicModel:
    """Torch functions of a symbolic landscape.

    Parameters
    ----------
    landscape : Landscape
        Any landscape; its coordinates are the parameters.
    """

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        coordinates = landscape.coordinates
        self._energy = torch_function(coordinates, (landscape.energy,))
        self._gradient = torch_function(coordinates, landscape.gradient)
        self._order_parameters = torch_function(coordinates, landscape.order_parameters)

    @property
    def n_parameters(self) -> int:
        """Number of coordinates."""
        return self.landscape.dimension

    def energy(self, theta: Tensor) -> Tensor:
        """Energy, shape (replica,)."""
        return self._energy(*theta.unbind(-1)).squeeze(-1)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient, shape (replica, parameter)."""
        return self._gradient(*theta.unbind(-1))

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters, shape (replica, feature)."""
        return self._order_parameters(*theta.unbind(-1))
