"""Order parameters that are linear in a network's outputs on its data."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.data import FiniteData

__all__ = ["BetweenFunctions", "LinearFit", "Readout"]

Array = NDArray[np.float64]
Place = tuple[torch.dtype, torch.device]


class Readout(Protocol):
    r"""Order parameters :math:`m_k = \sum_n w_{kn}\cdot f(x_n) - c_k` of a network's outputs on its N samples."""

    @property
    def x(self) -> Array | None:
        """Inputs that the outputs are of, shape (sample, input); None: those of the network's data."""
        ...

    def inputs(self, like: Tensor) -> Tensor | None:
        """Return `x` in the dtype and on the device of `like`, shape (1, sample, input)."""
        ...

    def values(self, outputs: Tensor) -> Tensor:
        """Return m of outputs (replica, sample, output), shape (replica, feature)."""
        ...

    def weights(self, feature: int) -> tuple[Array, float]:
        """Return w of a feature, shape (sample, output), and c."""
        ...


class LinearFit:
    """The least-squares linear map of the outputs, read along singular vectors: m_k = Σ_n c_kn u_k · f(x_n).

    Parameters
    ----------
    weights : ndarray, shape (feature, sample)
        c = v_kᵀ X⁺.
    outputs : ndarray, shape (feature, output)
        u.
    """

    x = None

    def __init__(self, weights: Array, outputs: Array) -> None:
        self._inputs, self._outputs = weights, outputs
        self._moved: dict[Place, tuple[Tensor, Tensor]] = {}

    def inputs(self, like: Tensor) -> None:
        """None: those of the network's data."""

    def values(self, outputs: Tensor) -> Tensor:
        """Return m, shape (replica, feature)."""
        key = (outputs.dtype, outputs.device)
        if key not in self._moved:
            c, u = (torch.as_tensor(a).to(outputs).unsqueeze(0) for a in (self._inputs, self._outputs))
            self._moved[key] = c, u
        c, u = self._moved[key]
        return (torch.bmm(c.expand(outputs.shape[0], -1, -1), outputs) * u).sum(dim=-1)

    def weights(self, feature: int) -> tuple[Array, float]:
        """Return w of a feature, shape (sample, output), and c = 0."""
        return np.outer(self._inputs[feature], self._outputs[feature]), 0.0


class BetweenFunctions:
    r"""One order parameter in function space, 0 where a network computes A and 1 at B.

    .. math:: m = \frac{\langle f - f_A,\, f_B - f_A\rangle}{\|f_B - f_A\|^2},

    with the inner product summed over samples and outputs. What leaves the function alone leaves it alone: no symmetry
    of the parameters can fool it.

    Parameters
    ----------
    low, high : array_like, shape (sample, output)
        Outputs f_A and f_B.
    x : array_like, shape (sample, input), optional
        What they are outputs of; the inputs of the network's data if not given.

    Raises
    ------
    InvalidParameterError
        If they have different shapes, or are the same function.

    Examples
    --------
    >>> line = BetweenFunctions([[0.0], [0.0]], [[2.0], [0.0]])
    >>> line.values(torch.tensor([[[0.5], [7.0]]])).tolist()
    [[0.25]]
    """

    def __init__(self, low: ArrayLike, high: ArrayLike, x: ArrayLike | None = None) -> None:
        self.low, self.high = (checks.finite_array("references", f, ndim=2) for f in (low, high))
        if self.low.shape != self.high.shape:
            raise checks.invalid(
                "references", (self.low.shape, self.high.shape), "two arrays of one shape", "outputs on the same data"
            )
        self.x = None if x is None else checks.finite_array("x", x, ndim=2)
        way = self.high - self.low
        size = np.linalg.norm(self.low) + np.linalg.norm(self.high)
        if not np.linalg.norm(way) > _SAME * size:
            raise InvalidParameterError(
                "The two references compute the same function on the data, expected different ones: no order "
                "parameter tells them apart.\nThey may be one state up to a symmetry; use two different minima."
            )
        self.direction: Array = way / np.square(way).sum()
        self._moved: dict[Place, tuple[Tensor, Tensor]] = {}
        self._inputs_moved: dict[Place, Tensor] = {}

    def inputs(self, like: Tensor) -> Tensor | None:
        """Return `x` in the dtype and on the device of `like`, shape (1, sample, input), moved there once."""
        if self.x is None:
            return None
        key = (like.dtype, like.device)
        if key not in self._inputs_moved:
            self._inputs_moved[key] = torch.as_tensor(self.x).to(like).unsqueeze(0)
        return self._inputs_moved[key]

    def values(self, outputs: Tensor) -> Tensor:
        """Return m, shape (replica, 1)."""
        key = (outputs.dtype, outputs.device)
        if key not in self._moved:
            low = torch.as_tensor(self.low).to(outputs).unsqueeze(0)
            self._moved[key] = low, torch.as_tensor(self.direction).to(outputs).reshape(1, -1, 1)
        low, direction = self._moved[key]
        n = outputs.shape[0]
        # A batched product: the rounding of a sum over several axes depends on the number of replicas.
        return torch.bmm((outputs - low).flatten(1).unsqueeze(1), direction.expand(n, -1, -1)).squeeze(2)

    def require(self, data: FiniteData, n_inputs: int, n_outputs: int) -> None:
        """Raise if the references are no outputs of a network of this shape on these data."""
        expected = (data.n_samples, n_outputs)
        if self.low.shape != expected:
            raise checks.invalid(
                "references", self.low.shape, f"outputs of shape {expected}", "one row for each sample of the data"
            )
        if data.x.shape[1] != n_inputs:
            raise checks.invalid("data.x", data.x.shape, f"{n_inputs} inputs", "the network has so many")

    def weights(self, feature: int) -> tuple[Array, float]:
        """Return w = (f_B − f_A)/‖f_B − f_A‖², shape (sample, output), and c = ⟨f_A, w⟩."""
        return self.direction, float((self.direction * self.low).sum())


# Distance relative to the size of both, below which two functions are one: minima to a gradient of 1e-10 of a
# curvature of 1e-3 are known to 1e-7 only.
_SAME = 1e-7
