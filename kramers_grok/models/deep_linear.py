"""Deep linear networks in torch, batched over replicas, with hand-written gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.base import SymbolicModel
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.saddles import MatrixNetwork, StationaryPoint

__all__ = ["ChainModel", "DeepLinearNetwork"]


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
    def teacher_matrix(self) -> NDArray[np.float64]:
        """Teacher's map, shape (1, 1)."""
        return np.array([[self.chain.singular_value]])

    def batch_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """(xx·m − yx) ∂m/∂a_l + λ a_l, shape (replica, parameter)."""
        weights = theta.unbind(-1)
        below = [torch.ones_like(weights[0])]
        for weight in weights[:-1]:
            below.append(below[-1] * weight)
        above = [torch.ones_like(weights[0])]
        for weight in reversed(weights[1:]):
            above.append(above[-1] * weight)
        above.reverse()
        others = torch.stack([b * a for b, a in zip(below, above, strict=True)], dim=-1)
        m = below[-1] * weights[-1]
        residual = xx.reshape(-1) * m - yx.reshape(-1)
        return residual.unsqueeze(1) * others + self.chain.weight_decay * theta


class _Constants(NamedTuple):
    """What a network's every step needs, on one device."""

    teacher: Tensor  # (output, input)
    xx: Tensor  # (1, input, input)
    yx: Tensor  # (1, output, input)
    left: Tensor  # (1, feature, output, 1)
    right: Tensor  # (1, feature, 1, input)


class DeepLinearNetwork:
    r"""A deep linear network W_D … W_1 that learns a linear teacher M from white inputs.

    .. math:: F = \tfrac q2 \|M - W_D\cdots W_1\|_F^2 + \tfrac\lambda2 \sum_l \|W_l\|_F^2

    which is the population loss up to the label noise's constant. The order parameters are
    :math:`m_k = u_k^T W_D\cdots W_1 v_k` with the teacher's singular vectors, strongest feature first.
    Parameters are the entries of W_1, …, W_D, row by row, in one row of `theta`.

    Parameters
    ----------
    widths : sequence of int
        (d, h_1, …, h_{D−1}, o): inputs, hidden widths, outputs.
    teacher_matrix : array_like, shape (o, d), or (K,)
        The map M; K numbers are its singular values on the diagonal.
    weight_decay : float
        λ > 0.
    input_variance : float
        q > 0, the variance of every input.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a parameter is out of range.

    Examples
    --------
    >>> network = DeepLinearNetwork((2, 3, 2), [2.0, 1.0], weight_decay=0.1)
    >>> network.n_parameters
    12
    >>> theta = torch.zeros(1, 12, dtype=torch.float64)
    >>> network.energy(theta).item(), network.order_parameters(theta).tolist()
    (2.5, [[0.0, 0.0]])
    """

    def __init__(
        self,
        widths: Sequence[int],
        teacher_matrix: ArrayLike,
        *,
        weight_decay: float,
        input_variance: float = 1.0,
    ) -> None:
        self.widths = tuple(checks.positive_int("widths", w) for w in widths)
        if len(self.widths) < 3:
            raise InvalidParameterError(
                f"`widths` = {self.widths}, expected (inputs, hidden widths …, outputs): at least one hidden layer.\n"
                "Use `widths=(d, h, o)` for a network with one hidden layer."
            )
        self.weight_decay = checks.positive("weight_decay", weight_decay)
        self._input_variance = checks.positive("input_variance", input_variance)
        matrix = checks.finite_array("teacher_matrix", teacher_matrix)
        if matrix.ndim == 1 and len(matrix) <= min(self.widths[0], self.widths[-1]):
            diagonal = np.zeros((self.widths[-1], self.widths[0]))
            np.fill_diagonal(diagonal[: len(matrix), : len(matrix)], matrix)
            matrix = diagonal
        if matrix.shape != (self.widths[-1], self.widths[0]):
            raise InvalidParameterError(
                f"`teacher_matrix` has shape {matrix.shape}, expected ({self.widths[-1]}, {self.widths[0]}) = "
                "(outputs, inputs): it maps inputs to outputs.\nUse `teacher_matrix.T`, or change `widths`."
            )
        if not matrix.any():
            raise InvalidParameterError(
                "`teacher_matrix` is all zeros, expected at least one singular value > 0: there is nothing to learn."
            )
        self._matrix = matrix
        self._moved: dict[tuple[torch.dtype, torch.device], _Constants] = {}

    @property
    def depth(self) -> int:
        """Number of weight layers D."""
        return len(self.widths) - 1

    @property
    def n_inputs(self) -> int:
        """Input dimension d."""
        return self.widths[0]

    @property
    def n_outputs(self) -> int:
        """Output dimension o."""
        return self.widths[-1]

    @property
    def input_variance(self) -> float:
        """Variance q of every input."""
        return self._input_variance

    @property
    def teacher_matrix(self) -> NDArray[np.float64]:
        """Teacher's map M, shape (output, input)."""
        return self._matrix

    @cached_property
    def _svd(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """U (output, output), singular values without zeros, Vᵀ (input, input) of the teacher."""
        u, values, vt = np.linalg.svd(self._matrix)
        return u, values[values > 1e-12 * values[0]], vt

    @property
    def singular_values(self) -> NDArray[np.float64]:
        """Singular values of the teacher, strongest first; zeros left out."""
        return self._svd[1]

    @cached_property
    def theory(self) -> MatrixNetwork:
        """Stationary points, spectra and barriers of this network."""
        values = tuple(float(s) for s in self.singular_values)
        return MatrixNetwork(self.widths, values, self.weight_decay, self._input_variance)

    def embed(self, point: StationaryPoint | ArrayLike) -> Tensor:
        """Weights of a point of `theory` in the teacher's own basis: W_1 → W_1 Vᵀ, W_D → U W_D.

        Parameters
        ----------
        point : StationaryPoint, or array_like of shape (parameter,) or (replica, parameter)
            Weights for the teacher diag(singular values), as ``theory.state(rank)`` or ``barrier.saddle``.

        Returns
        -------
        Tensor, the shape of the weights
            float64; energy, order parameters and spectrum are the point's.

        Raises
        ------
        InvalidParameterError
            If the last axis does not hold this network's weights.

        Examples
        --------
        >>> network = DeepLinearNetwork((2, 3, 3, 2), [[0.0, 1.0], [2.0, 0.0]], weight_decay=0.1)
        >>> theta = network.embed(network.theory.state(rank=1))
        >>> (network.gradient(theta[None]).abs().max() < 1e-12).item()
        True
        """
        given = point.theta if isinstance(point, StationaryPoint) else point
        theta = torch.as_tensor(np.array(given, dtype=np.float64))
        if theta.ndim not in (1, 2) or theta.shape[-1] != self.n_parameters:
            raise InvalidParameterError(
                f"`point` has shape {tuple(theta.shape)}, expected (..., {self.n_parameters}): one row holds the "
                f"weights of widths {self.widths}.\nUse `network.theory.state(rank)`."
            )
        u, _, vt = (torch.from_numpy(a) for a in self._svd)
        layers = self.layers(theta.reshape(-1, self.n_parameters))
        layers[0], layers[-1] = layers[0] @ vt, u @ layers[-1]
        return torch.cat([w.reshape(len(w), -1) for w in layers], dim=1).reshape(theta.shape)

    @cached_property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(a * b for a, b in pairwise(self.widths))

    def layers(self, theta: Tensor) -> list[Tensor]:
        """Weights W_1 … W_D, each of shape (replica, h_l, h_{l−1})."""
        sizes = [a * b for a, b in pairwise(self.widths)]
        parts = torch.split(theta, sizes, dim=-1)
        return [p.reshape(-1, b, a) for p, (a, b) in zip(parts, pairwise(self.widths), strict=True)]

    def product(self, theta: Tensor) -> Tensor:
        """End-to-end map W_D … W_1, shape (replica, output, input)."""
        return self._products_below(self.layers(theta))[-1]

    @staticmethod
    def _products_below(layers: list[Tensor]) -> list[Tensor]:
        products = [layers[0]]
        for layer in layers[1:]:
            products.append(torch.bmm(layer, products[-1]))
        return products

    def energy(self, theta: Tensor) -> Tensor:
        """Population loss with weight decay (label noise left out), shape (replica,)."""
        residual = self.product(theta) - self._constants(theta).teacher
        fit = residual.square().sum(dim=(-2, -1))
        return 0.5 * self._input_variance * fit + 0.5 * self.weight_decay * theta.square().sum(dim=-1)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of `energy`, shape (replica, parameter)."""
        constants = self._constants(theta)
        return self.batch_gradient(theta, constants.xx, constants.yx)

    def batch_gradient(self, theta: Tensor, xx: Tensor, yx: Tensor) -> Tensor:
        """Gradient of a batch's loss, weight decay included: A_lᵀ (W Σ̂_xx − Σ̂_yx) B_lᵀ + λ W_l."""
        layers = self.layers(theta)
        below = self._products_below(layers)
        replicas = theta.shape[0]
        error = torch.bmm(below[-1], xx.expand(replicas, -1, -1)) - yx
        gradients: list[Tensor] = []
        back = error  # A_lᵀ · error for the layers above l, from the top down
        for index in range(len(layers) - 1, -1, -1):
            gradient = torch.bmm(back, below[index - 1].transpose(1, 2)) if index else back
            gradients.append(gradient.reshape(replicas, -1))
            if index:
                back = torch.bmm(layers[index].transpose(1, 2), back)
        gradients.reverse()
        return torch.cat(gradients, dim=-1) + self.weight_decay * theta

    def _constants(self, like: Tensor) -> _Constants:
        """Return the network's constants in the dtype and on the device of `like`, moved there once."""
        key = (like.dtype, like.device)
        if key not in self._moved:
            u, values, vt = self._svd
            rank = len(values)
            arrays = (self._matrix, u[:, :rank].T.copy(), vt[:rank])
            teacher, left, right = (torch.as_tensor(a).to(like) for a in arrays)
            identity = torch.eye(self.n_inputs, dtype=like.dtype, device=like.device)
            xx, yx = (self._input_variance * m.unsqueeze(0) for m in (identity, teacher))
            self._moved[key] = _Constants(teacher, xx, yx, left.reshape(1, rank, -1, 1), right.reshape(1, rank, 1, -1))
        return self._moved[key]

    def order_parameters(self, theta: Tensor) -> Tensor:
        """m_k = u_kᵀ W v_k, strongest feature first, shape (replica, feature)."""
        constants = self._constants(theta)
        return (constants.left * self.product(theta).unsqueeze(1) * constants.right).sum(dim=(-2, -1))

    def mode(self, feature: int = 0) -> Mode:
        """Theory of one feature's balanced mode."""
        return Mode(self.depth, float(self.singular_values[feature]), self.weight_decay, self._input_variance)
