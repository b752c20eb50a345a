"""What every network on a data set shares: its loss on all samples, and order parameters in function space."""

from __future__ import annotations

import abc
import copy
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.models.arguments import teacher_map
from kramers_grok.models.data import FiniteData
from kramers_grok.models.readouts import BetweenFunctions, Readout

__all__ = ["OnData"]

Array = NDArray[np.float64]


class OnData(abc.ABC):
    """Energy, gradient and order parameters of a network from its outputs and losses on samples.

    Parameters
    ----------
    data : FiniteData or None
        What energy, gradient and order parameters are of.
    weight_decay : float
        λ, checked.
    teacher_matrix : array_like, shape (output, input), or (K,), or None
        The map M of an online teacher; K numbers are its singular values.
    input_variance : float
        q > 0, the variance of every input of the online teacher.
    """

    data: FiniteData | None

    def __init__(
        self, data: FiniteData | None, weight_decay: float, teacher_matrix: ArrayLike | None, input_variance: float
    ) -> None:
        self.data = data
        self.weight_decay = weight_decay
        self.input_variance = checks.positive("input_variance", input_variance)
        self._matrix = None if teacher_matrix is None else teacher_map(teacher_matrix, self.n_inputs, self.n_outputs)
        self._moved: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}
        self.own_readout: BetweenFunctions | None = None  # of `between`

    # ---------------------------------------------------------------- what a network adds

    @property
    @abc.abstractmethod
    def n_inputs(self) -> int:
        """Input dimension d."""

    @property
    @abc.abstractmethod
    def n_outputs(self) -> int:
        """Number of labels of a sample."""

    @property
    @abc.abstractmethod
    def readout(self) -> Readout:
        """How order parameters are read off outputs."""

    @abc.abstractmethod
    def required_data(self) -> FiniteData:
        """Return `data`, or raise where there are none."""

    @abc.abstractmethod
    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs f(x), shape (replica, sample, output); x has shape (replica or 1, sample, input).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)
        x : Tensor, shape (replica or 1, sample, input)

        Returns
        -------
        Tensor, shape (replica, sample, output)
        """

    @abc.abstractmethod
    def _loss_of_all(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Loss of a whole data set without weight decay, shape (replica,)."""

    @abc.abstractmethod
    def _gradient_of_all(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the loss of a whole data set without weight decay, shape (replica, parameter)."""

    @property
    def _output_width(self) -> int:
        """Number of outputs of a sample, which need not be that of its labels."""
        return self.n_outputs

    # ---------------------------------------------------------------- what follows

    @property
    def teacher_matrix(self) -> Array | None:
        """The online teacher's map M, shape (output, input); None where labels come from data alone."""
        return self._matrix

    @property
    def input_covariance(self) -> Array:
        """Second moments of the online teacher's inputs, shape (input, input)."""
        return self.input_variance * np.eye(self.n_inputs)

    def between(self, a: ArrayLike | Tensor, b: ArrayLike | Tensor, *, data: FiniteData | None = None) -> Self:
        r"""Return the same network with one order parameter in function space: 0 where it computes what it does at `a`.

        .. math:: m = \langle f - f_a,\, f_b - f_a\rangle / \|f_b - f_a\|^2 ,

        summed over samples and outputs; 1 at `b`. No symmetry of the weights changes it.

        Parameters
        ----------
        a, b : array_like, shape (parameter,)
        data : FiniteData, optional
            Samples on which functions are compared; the network's own if not given.

        Returns
        -------
        Self

        Raises
        ------
        InvalidParameterError
            If there are no data, or both compute the same function on them: then nothing tells them apart.

        Examples
        --------
        >>> from kramers_grok.models.activations import Tanh
        >>> from kramers_grok.models.data import finite
        >>> from kramers_grok.models.mlp import MLP
        >>> mlp = MLP.from_data(finite([1.0, 2.0], [0.5, 1.0]), (2,), Tanh(), weight_decay=0.1)
        >>> a, b = np.zeros(4), np.array([1.0, 0.0, 1.0, 0.0])
        >>> same_as_b = np.array([0.0, -1.0, 0.0, -1.0])
        >>> found = mlp.between(a, b).order_parameters(torch.from_numpy(np.stack([a, b, same_as_b])))
        >>> found.numpy().round(12).ravel().tolist()
        [0.0, 1.0, 1.0]
        """
        points = torch.stack([torch.as_tensor(np.asarray(p), dtype=torch.float64) for p in (a, b)])
        x = torch.as_tensor((self.required_data() if data is None else data).x).unsqueeze(0)
        low, high = self.forward(points, x).numpy()
        return self.between_functions(low, high, data=data)

    def between_functions(self, low: ArrayLike, high: ArrayLike, *, data: FiniteData | None = None) -> Self:
        """Return `between` of two functions given by their outputs, shape (sample, output) each.

        Parameters
        ----------
        low, high : array_like, shape (sample, output)
            Labels, say.
        data : FiniteData, optional
            Samples that they are outputs of; the network's own if not given.

        Returns
        -------
        Self

        Raises
        ------
        InvalidParameterError
            If shapes do not fit, or both are the same function.
        """
        samples = self.required_data() if data is None else data
        twin = copy.copy(self)
        twin.own_readout = BetweenFunctions(low, high, None if data is None else data.x)
        twin.own_readout.require(samples, self.n_inputs, self._output_width)
        return twin

    def outputs(self, theta: Tensor) -> Tensor:
        """Outputs on the data, shape (replica, sample, output).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica, sample, output)
        """
        return self.forward(theta, self._samples(theta)[0])

    def energy(self, theta: Tensor) -> Tensor:
        """Loss on the data with weight decay, shape (replica,) [loss]; raises where there are no data."""
        return self._loss_of_all(theta, *self._samples(theta)) + 0.5 * self.weight_decay * theta.square().sum(dim=-1)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of `energy`, shape (replica, parameter)."""
        return self._gradient_of_all(theta, *self._samples(theta)) + self.weight_decay * theta

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters m, shape (replica, feature); after `between` the one in function space."""
        x = self.readout.inputs(theta)
        return self.readout.values(self.outputs(theta) if x is None else self.forward(theta, x))

    def _samples(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels in the dtype and on the device of `like`, shape (1, sample, …), moved there once."""
        place = (like.dtype, like.device)
        if place not in self._moved:
            data = self.required_data()
            x, y = (torch.as_tensor(a).to(like).unsqueeze(0) for a in (data.x, data.y))
            self._moved[place] = x, y
        return self._moved[place]
