"""A model's energy as functions of numpy arrays, which is what searches and linear algebra speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.hessian import curvature_along, hessian, hessian_products
from kramers_grok.models.base import Model

__all__ = ["DENSE_LIMIT", "PointLike", "Surface", "as_point"]

Array = NDArray[np.float64]


class _HasTheta(Protocol):
    @property
    def theta(self) -> Array: ...


PointLike = ArrayLike | Tensor | _HasTheta
"""One point, shape (parameter,): an array, a tensor, or a stationary point."""

#: Parameters up to which whole Hessians are computed; beyond, what is needed of them by Lanczos' iteration.
DENSE_LIMIT = 2000


@dataclass(frozen=True, eq=False)
class Surface:
    """The energy of a model, in float64 on the CPU.

    Parameters
    ----------
    model : Model
        Any model.
    """

    model: Model

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.model.n_parameters

    def energies(self, points: Array) -> Array:
        """Energy at each row of `points`, shape (point,) [loss]."""
        with torch.no_grad():
            return _array(self.model.energy(_tensor(points)))

    def energy(self, theta: Array) -> float:
        """Energy at one point [loss]."""
        return float(self.energies(theta[None])[0])

    def gradients(self, points: Array) -> Array:
        """Gradient at each row of `points`, shape (point, parameter)."""
        return _array(self.model.gradient(_tensor(points)))

    def gradient(self, theta: Array) -> Array:
        """Gradient at one point, shape (parameter,)."""
        return np.asarray(self.gradients(theta[None])[0])

    def hessian(self, theta: Array) -> Array:
        """Hessian at one point, shape (parameter, parameter)."""
        return np.asarray(_array(hessian(self.model.gradient, _tensor(theta[None])))[0])

    def products(self, theta: Array, vectors: Array) -> Array:
        """Hessian at one point times each row of `vectors`, shape (vector, parameter)."""
        if not len(vectors):
            return np.empty_like(vectors)
        return _array(hessian_products(self.model.gradient, _tensor(theta), _tensor(vectors)))

    def curvatures(self, points: Array, directions: Array) -> Array:
        """Hessian times direction, each row at its own point, shape (point, parameter)."""
        return _array(curvature_along(self.model.gradient, _tensor(points), _tensor(directions)))

    def order_parameters(self, points: Array) -> Array:
        """Order parameters at each row of `points`, shape (point, feature)."""
        with torch.no_grad():
            return _array(self.model.order_parameters(_tensor(points)))

    def point(self, name: str, theta: PointLike) -> Array:
        """Return an argument as one point of this surface, shape (parameter,)."""
        return as_point(name, theta, self.size)


def as_point(name: str, theta: PointLike, size: int) -> Array:
    """Return `theta` as a float64 array of shape (parameter,), or say what is wrong with it."""
    given: Any = theta.detach().cpu().numpy() if isinstance(theta, Tensor) else getattr(theta, "theta", theta)
    array = checks.finite_array(name, given)
    if array.shape == (1, size):
        array = array[0]
    if array.shape != (size,):
        raise InvalidParameterError(
            f"`{name}` has shape {array.shape}, expected ({size},): one point is one row of the model's parameters.\n"
            f"Use one row, such as `{name}[0]`, of a batch of points."
        )
    return array


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))  # a copy: torch refuses what is read-only


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
