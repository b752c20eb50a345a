"""Nonlinear multilayer perceptrons in torch, batched over replicas, with hand-written gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.activations import Activation
from kramers_grok.models.data import FiniteData
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.on_data import OnData
from kramers_grok.models.readouts import LinearFit, Readout

__all__ = ["MLP"]


class MLP(OnData):
    r"""A multilayer perceptron: :math:`h_0 = x`, :math:`h_l = \sigma(W_l h_{l-1} + b_l)`, output without σ.

    .. math:: L(\theta) = \tfrac1{2N}\sum_n \|f_\theta(x_n) - y_n\|^2, \qquad F = L + \tfrac\lambda2\|\theta\|^2 .

    `energy`, `gradient` and `order_parameters` are means over the N samples of `data`. Parameters are the entries of
    W_1, …, W_D, row by row, then b_1, …, b_D where there are biases, in one row of `theta`; weight decay acts on both.

    The order parameters continue those of deep linear networks: :math:`m_k = u_k^T \hat W v_k` with
    :math:`\hat W` the least-squares linear map (without intercept) from the inputs of `data` to the network's outputs,
    and the singular vectors of the teacher, or of the data's :math:`\Sigma_{yx}`; order and signs are those of
    `linear`. With the activation `Identity` they, energy (up to a constant) and gradient are that network's own.
    `between` returns the network with one order parameter in function space instead.

    Parameters
    ----------
    widths : sequence of int
        (d, h_1, …, h_{D−1}, o): inputs, hidden widths, outputs.
    activation : Activation
        `Tanh()`, `ReLU()`, `GELU()`, `Softplus()`, `Quadratic()`, `Identity()`, or an object with the same methods.
    weight_decay : float
        λ > 0.
    data : FiniteData, optional
        What energy, gradient and order parameters are of, and what SGD trains on without an online teacher.
    teacher_matrix : array_like, shape (o, d), or (K,), optional
        The map M of an online teacher, y = M x + noise; K numbers are its singular values. `data` is then a probe.
    input_variance : float
        q > 0, the variance of every input of the online teacher.
    biases : bool
        Whether every layer has biases b_l.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit, a parameter is out of range, or neither data nor a teacher is given.

    Examples
    --------
    >>> from kramers_grok.models.activations import Tanh
    >>> from kramers_grok.models.data import finite
    >>> mlp = MLP((2, 3, 1), Tanh(), weight_decay=0.1, data=finite([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]))
    >>> mlp.n_parameters
    9
    >>> theta = torch.zeros(1, 9, dtype=torch.float64)
    >>> mlp.energy(theta).item(), mlp.order_parameters(theta).tolist()
    (0.5, [[0.0]])
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Activation,
        *,
        weight_decay: float,
        data: FiniteData | None = None,
        teacher_matrix: ArrayLike | None = None,
        input_variance: float = 1.0,
        biases: bool = False,
    ) -> None:
        self.widths = tuple(checks.positive_int("widths", w) for w in widths)
        if len(self.widths) < 3:
            raise InvalidParameterError(
                f"`widths` = {self.widths}, expected (inputs, hidden widths …, outputs): at least one hidden layer.\n"
                "Use `widths=(d, h, o)` for a network with one hidden layer."
            )
        if isinstance(activation, type) or not isinstance(activation, Activation):
            raise checks.invalid(
                "activation", activation, "an activation function, an object with `value` and `derivative`",
                "gradients are written by hand", "Use `Tanh()`, `ReLU()`, `GELU()`, `Softplus()` or `Quadratic()`.",
            )  # fmt: skip
        self.activation, self.biases = activation, bool(biases)
        super().__init__(data, checks.positive("weight_decay", weight_decay), teacher_matrix, input_variance)
        self._check_targets()

    @classmethod
    def from_data(
        cls,
        data: FiniteData,
        hidden: Sequence[int],
        activation: Activation,
        *,
        weight_decay: float,
        biases: bool = False,
    ) -> Self:
        """Return the network of a data set; inputs and outputs have the data's dimensions.

        Parameters
        ----------
        data : FiniteData
        hidden : sequence of int
            Hidden widths (h_1, …, h_{D−1}).
        activation : Activation
        weight_decay : float
        biases : bool

        Examples
        --------
        >>> from kramers_grok.models.activations import GELU
        >>> from kramers_grok.models.data import finite
        >>> MLP.from_data(finite([1.0, 2.0], [0.5, 1.0]), (4, 4), GELU(), weight_decay=0.1, biases=True).n_parameters
        33
        """
        widths = (data.x.shape[1], *hidden, data.y.shape[1])
        return cls(widths, activation, weight_decay=weight_decay, data=data, biases=biases)

    def _check_targets(self) -> None:
        if self.data is None:
            if self._matrix is None:
                raise InvalidParameterError(
                    "Neither `data` nor `teacher_matrix` is given, expected at least one: there is nothing to learn.\n"
                    "Use `MLP.from_data(data, hidden, activation, weight_decay=…)`."
                )
            return
        shape = (self.data.x.shape[1], self.data.y.shape[1])
        if shape != (self.n_inputs, self.n_outputs):
            raise InvalidParameterError(
                f"`data` has (inputs, outputs) = {shape}, `widths` has {(self.n_inputs, self.n_outputs)}.\n"
                "Use `MLP.from_data(data, hidden, activation, weight_decay=…)`."
            )

    # ---------------------------------------------------------------- what it is

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

    @cached_property
    def linear(self) -> DeepLinearNetwork:
        """The deep linear network of the same widths, teacher (or data) and weight decay: features and their theory.

        Raises
        ------
        InvalidParameterError
            If no linear map explains anything of the outputs, as labels that are even in the inputs.
        """
        if self._matrix is not None:
            return DeepLinearNetwork(
                self.widths, self._matrix, weight_decay=self.weight_decay, input_variance=self.input_variance
            )
        data = self.required_data()
        cross = np.abs(data.cross_covariance).max()
        if cross <= 1e-12 * np.sqrt(np.square(data.x).mean() * np.square(data.y).mean()):
            raise InvalidParameterError(
                "Inputs and outputs of the data are uncorrelated, expected features that a linear map can hold: order "
                "parameters are m_k = u_kᵀ Ŵ v_k with their singular vectors.\n"
                "Use a model with `order_parameters` of your own, for instance of the outputs on a data set."
            )
        return DeepLinearNetwork.from_data(data, self.widths[1:-1], weight_decay=self.weight_decay)

    @property
    def readout(self) -> Readout:
        """How order parameters are read off outputs."""
        return self._linear_fit if self.own_readout is None else self.own_readout

    @cached_property
    def _linear_fit(self) -> LinearFit:
        x = self.required_data().x
        inverse = np.linalg.pinv(x, rcond=max(x.shape) * np.finfo(float).eps)
        left, right = self.linear.singular_vectors
        return LinearFit(right @ inverse, left)

    def required_data(self) -> FiniteData:
        """Return `data`, or raise where there are none."""
        if self.data is None:
            raise InvalidParameterError(
                "Energy, gradient and order parameters of an MLP are means over data, and this one has none: an online "
                "teacher's expectation has no closed form through an activation function.\n"
                "Use `MLP(…, data=linear_teacher_data(matrix, n_samples=256, label_noise=0.0, seed=0, whiten=True))`."
            )
        return self.data

    @cached_property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        return [a * b for a, b in pairwise(self.widths)] + (list(self.widths[1:]) if self.biases else [])

    def layers(self, theta: Tensor) -> list[Tensor]:
        """Weights W_1 … W_D, each of shape (replica, h_l, h_{l−1}).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        list of Tensor
        """
        parts = torch.split(theta, self._sizes, dim=-1)
        return [p.reshape(-1, b, a) for p, (a, b) in zip(parts, pairwise(self.widths), strict=False)]

    def bias_vectors(self, theta: Tensor) -> list[Tensor]:
        """Biases b_1 … b_D, each of shape (replica, h_l); none without biases.

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        list of Tensor
        """
        return list(torch.split(theta, self._sizes, dim=-1)[self.depth :])

    # ---------------------------------------------------------------- samples

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs f(x), shape (replica, sample, output); x has shape (replica or 1, sample, input)."""
        return self._passed(theta, x)[1][-1]

    def _passed(self, theta: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Pre-activations z_1 … z_{D−1} and what each layer sees, h_0 … h_{D−1}, then the output."""
        # Batched products only, with nothing laid side by side: rounding must not depend on the number of replicas.
        seen, before = [x.expand(theta.shape[0], -1, -1)], []
        biases = self.bias_vectors(theta)
        for index, weight in enumerate(self.layers(theta)):
            z = torch.bmm(seen[-1], weight.transpose(1, 2))
            if biases:
                z = z + biases[index].unsqueeze(1)
            if index == self.depth - 1:
                seen.append(z)
            else:
                before.append(z)
                seen.append(self.activation.value(z))
        return before, seen

    def sample_loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean of ½‖f(x) − y‖² over samples, without weight decay, shape (replica,); shapes as `sample_gradient`."""
        residual = self.forward(theta, x) - y
        return residual.square().sum(dim=(-2, -1)) * (0.5 / x.shape[1])

    def sample_gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        r"""Gradient of the mean loss over samples, without weight decay, shape (replica, parameter).

        With :math:`\delta_D = f(x) - y` and :math:`\delta_l = \sigma'(z_l) \odot W_{l+1}^T\delta_{l+1}` a sample gives
        layer l the gradients :math:`\delta_l h_{l-1}^T` and :math:`\delta_l`.

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)
        x : Tensor, shape (replica or 1, sample, input)
        y : Tensor, shape (replica or 1, sample, output)
        """
        before, seen = self._passed(theta, x)
        return self._carried_back(theta, before, seen, (seen[-1] - y) * (1.0 / x.shape[1]))

    def weighted_gradient(self, theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Σ_i w_i ∇ℓ_i over samples, without weight decay, shape (replica, parameter).

        Parameters
        ----------
        theta, x, y : Tensor
            As for `sample_gradient`.
        weights : Tensor, shape (replica or 1, sample)
        """
        before, seen = self._passed(theta, x)
        return self._carried_back(theta, before, seen, (seen[-1] - y) * weights.unsqueeze(2))

    def _carried_back(self, theta: Tensor, before: list[Tensor], seen: list[Tensor], delta: Tensor) -> Tensor:
        """Gradient from the outputs' weighted errors `delta`, (replica, sample, output)."""
        layers = self.layers(theta)
        replicas, size = theta.shape[0], delta.shape[1]
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for index in range(self.depth - 1, -1, -1):
            weights.append(torch.bmm(delta.transpose(1, 2), seen[index]).flatten(1))
            if self.biases:
                ones = delta.new_ones((1, 1, 1)).expand(replicas, 1, size)
                biases.append(torch.bmm(ones, delta).flatten(1))
            if index:
                slope = self.activation.derivative(before[index - 1], seen[index])
                delta = torch.bmm(delta, layers[index]) * slope
        return torch.cat([*reversed(weights), *reversed(biases)], dim=1)

    def _loss_of_all(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.sample_loss(theta, x, y)

    def _gradient_of_all(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.sample_gradient(theta, x, y)
