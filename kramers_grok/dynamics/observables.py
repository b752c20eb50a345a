r"""What is measured along a training run, on the device that trains.

An observable maps weights (replica, parameter) to numbers of every replica. `trace` collects several of them at chosen
steps and reads them back once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.vocabulary import VARIABLES, describe
from kramers_grok.dynamics.process import Process
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.data import FiniteData, Population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.models.layers import LayeredModel, LinearModel, layers_of, product_of
from kramers_grok.models.mode import ModeModel

__all__ = [
    "Deferred",
    "FeatureAmplitudes",
    "Imbalance",
    "LayerNorms",
    "Loss",
    "Observable",
    "OrderParameters",
    "Rank",
    "SingularValues",
]

Array = NDArray[np.float64]


@runtime_checkable
class Observable(Protocol):
    """Numbers of every replica, computed where the weights are.

    Attributes
    ----------
    name : str
        Name of the variable in a result.
    dims : tuple of str
        Dimensions beyond the replica.
    """

    @property
    def name(self) -> str:
        """Name of the variable in a result."""
        ...

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions beyond the replica."""
        ...

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """Values of `theta` (replica, parameter), shape (replica, …)."""
        ...


@runtime_checkable
class Deferred(Observable, Protocol):
    """An observable whose last part waits for the end of a trace: a decomposition, which would stop a GPU each time."""

    def first(self, process: Process, theta: Tensor) -> Tensor:
        """What is kept of each step."""
        ...

    def then(self, kept: Tensor) -> Tensor:
        """Values of what was kept, for any number of leading dimensions."""
        ...


def _linear(process: Process, what: str) -> LinearModel:
    """The process's network."""
    model = getattr(process, "model", None)
    if isinstance(model, LinearModel):
        return model
    system = type(getattr(process, "system", process)).__name__
    raise InvalidParameterError(
        f"{what} of a {system} do not exist, expected a linear network: a Mode, DeepLinearChain, DiagonalNetwork or "
        "DeepLinearNetwork.\nUse `OrderParameters()`, which any landscape has."
    )


def _layered(process: Process, what: str) -> LayeredModel:
    """The process's network, linear or not."""
    model = getattr(process, "model", None)
    return model if isinstance(model, LayeredModel) else _linear(process, what)


# ---------------------------------------------------------------- observables


@dataclass(frozen=True)
class OrderParameters:
    """Order parameter m_k of every feature."""

    name = "order_parameter"
    dims = ("feature",)

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """m_k, shape (replica, feature)."""
        return process.order_parameters(theta)


@dataclass(frozen=True)
class SingularValues:
    """Singular values of the end-to-end map W_D … W_1, largest first, whether aligned with features or not."""

    name = "product_singular_value"
    dims = ("component",)

    def first(self, process: Process, theta: Tensor) -> Tensor:
        """The end-to-end map, shape (replica, output, input)."""
        return product_of(_linear(process, "Singular values"), theta)

    def then(self, kept: Tensor) -> Tensor:
        """Singular values of maps."""
        values: Tensor = torch.linalg.svdvals(kept)
        return values

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """Singular values, shape (replica, component)."""
        return self.then(self.first(process, theta))


@dataclass(frozen=True)
class Rank:
    """Number of singular values of the end-to-end map above a threshold.

    Attributes
    ----------
    threshold : float
        > 0, in units of the order parameter; for instance half of the weakest feature's saddle.

    Raises
    ------
    InvalidParameterError
        If the threshold is not positive.
    """

    threshold: float
    name = "effective_rank"
    dims = ()

    def __post_init__(self) -> None:
        checks.positive("threshold", self.threshold)

    def first(self, process: Process, theta: Tensor) -> Tensor:
        """The end-to-end map, shape (replica, output, input)."""
        return product_of(_linear(process, "Ranks"), theta)

    def then(self, kept: Tensor) -> Tensor:
        """Ranks of maps."""
        values: Tensor = torch.linalg.svdvals(kept)
        return (values > self.threshold).sum(dim=-1)

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """Rank, shape (replica,)."""
        return self.then(self.first(process, theta))


@dataclass(frozen=True)
class FeatureAmplitudes:
    r"""Amplitude of every feature in every layer: how much layer l stretches what the layers below made of v_k.

    .. math:: s_{kl} = \|W_l h_{l-1}\| / \|h_{l-1}\|, \qquad h_0 = v_k,\; h_l = W_l h_{l-1}

    In an aligned state these are the features' singular values of the layers; their product is at least
    :math:`|m_k|`, and equal to it where the output is along u_k. Of a feature that is not learned :math:`s_{k1}` is the
    amplitude from which it escapes; zero input stays zero.
    """

    name = "layer_amplitude"
    dims = ("feature", "layer")

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """s_kl, shape (replica, feature, layer)."""
        model = _linear(process, "Layer amplitudes")
        if isinstance(model, DiagonalNetwork):
            return theta.reshape(-1, model.n_features, model.depth).abs()
        layers = layers_of(model, theta)
        if isinstance(model, DeepLinearNetwork):
            image = model.input_vectors(theta).T.unsqueeze(0).expand(len(theta), -1, -1)  # columns v_k
        else:
            image = torch.ones_like(layers[0])
        lengths = [image.norm(dim=1)]
        for layer in layers:
            image = torch.bmm(layer, image)
            lengths.append(image.norm(dim=1))
        tiny = torch.finfo(theta.dtype).tiny
        return torch.stack([b / a.clamp_min(tiny) for a, b in pairwise(lengths)], dim=-1)


@dataclass(frozen=True)
class LayerNorms:
    """Frobenius norm of every layer's weights, without biases."""

    name = "layer_norm"
    dims = ("layer",)

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """‖W_l‖, shape (replica, layer)."""
        layers = layers_of(_layered(process, "Layer norms"), theta)
        return torch.stack([w.square().sum(dim=(-2, -1)).sqrt() for w in layers], dim=-1)


@dataclass(frozen=True)
class Imbalance:
    r"""How far neighbouring layers are from balance, :math:`\|W_{l+1}^T W_{l+1} - W_l W_l^T\|_F`.

    Gradient flow with weight decay shrinks it as :math:`e^{-2\lambda t}`; gradient noise feeds it.
    """

    name = "imbalance"
    dims = ("hidden_layer",)

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """Imbalance of layers l and l + 1, shape (replica, hidden layer)."""
        model = _linear(process, "Imbalances")
        if isinstance(model, ModeModel):
            raise InvalidParameterError(
                "The imbalance of a Mode does not exist: its layers are equal by construction.\n"
                "Use `DeepLinearChain`, whose layers move by themselves."
            )
        layers = layers_of(model, theta)
        gaps = [
            torch.bmm(above.transpose(1, 2), above) - torch.bmm(below, below.transpose(1, 2))
            for below, above in pairwise(layers)
        ]
        return torch.stack([gap.square().sum(dim=(-2, -1)).sqrt() for gap in gaps], dim=-1)


class Loss:
    r"""Mean loss without weight decay: of a data set, or of the population.

    A nonlinear network's is the mean of ½‖y − f(x)‖² over a data set's samples. For a linear network it is

    .. math:: \tfrac12\|(W - \hat M)\,\Sigma_{xx}^{1/2}\|_F^2 + \text{what no linear map explains}

    with the least-squares map :math:`\hat M`: no digits are lost where the loss is small.

    Parameters
    ----------
    source : FiniteData or Population
        `FiniteData` for a training or test error; `Population()` for the model's own teacher and inputs without label
        noise, the generalisation error.
    name : str, optional
        "train_loss" and "test_loss" are in the vocabulary; "loss" for data and "population_loss" if not given.

    Examples
    --------
    >>> from kramers_grok.dynamics.sgd import SGD
    >>> from kramers_grok.models.data import finite, population
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> process = SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=0.1)
    >>> theta = torch.ones(1, 3, dtype=torch.float64)
    >>> losses = Loss(finite([1.0, 2.0], [1.0, 0.0])), Loss(population())
    >>> [round(loss(process, theta).item(), 12) for loss in losses]
    [1.0, 0.0]
    """

    dims = ()

    def __init__(self, source: FiniteData | Population, name: str | None = None) -> None:
        if not isinstance(source, FiniteData | Population):
            raise InvalidParameterError(
                f"`source` is a {type(source).__name__}, expected a finite data set or the population: a loss is a "
                "mean over something.\nUse `population()` for an online teacher."
            )
        self.source = source
        self.name = _known(name or ("population_loss" if isinstance(source, Population) else "loss"))
        self._moved: dict[Any, tuple[Tensor, Tensor, float]] = {}
        self._drawn: dict[Any, tuple[Tensor, Tensor]] = {}

    def __call__(self, process: Process, theta: Tensor) -> Tensor:
        """Loss, shape (replica,)."""
        model = getattr(process, "model", None)
        if isinstance(model, SampleModel):
            return model.sample_loss(theta, *self._samples(model, theta))
        model = _linear(process, "Losses")
        best, root, floor = self._constants(model, theta)
        gap = product_of(model, theta) - best
        return 0.5 * torch.bmm(gap, root.expand(len(theta), -1, -1)).square().sum(dim=(-2, -1)) + floor

    def _samples(self, model: SampleModel, like: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels where `like` is, moved there once."""
        if isinstance(self.source, Population):
            raise InvalidParameterError(
                f"The population's loss of a {type(model).__name__} is asked for, expected a data set: an expectation "
                "through an activation function has no closed form.\n"
                "Use `Loss(linear_teacher_data(matrix, n_samples=4096, label_noise=0.0, seed=0), 'test_loss')`."
            )
        _check_shape(self.source, model)
        key = (like.dtype, like.device)
        if key not in self._drawn:
            x, y = (torch.as_tensor(a).to(like).unsqueeze(0) for a in (self.source.x, self.source.y))
            self._drawn[key] = x, y
        return self._drawn[key]

    def _constants(self, model: LinearModel, like: Tensor) -> tuple[Tensor, Tensor, float]:
        """Least-squares map and root of Σ_xx where `like` is, moved there once, and the loss that stays."""
        key = (model if isinstance(self.source, Population) else None, like.dtype, like.device)
        if key not in self._moved:
            best, root, floor = _least_squares(self.source, model)
            self._moved[key] = torch.as_tensor(best).to(like), torch.as_tensor(root).to(like).unsqueeze(0), floor
        return self._moved[key]


def _check_shape(source: FiniteData, model: BatchModel | SampleModel) -> None:
    shape = (source.y.shape[1], source.x.shape[1])
    if shape != (model.n_outputs, model.n_inputs):
        raise InvalidParameterError(
            f"The data of a loss have (outputs, inputs) = {shape}, the network has "
            f"{(model.n_outputs, model.n_inputs)}.\nUse data of the task that the network is trained on."
        )


def _least_squares(source: FiniteData | Population, model: BatchModel) -> tuple[Array, Array, float]:
    """Best linear map (output, input), root of Σ_xx (input, input), smallest loss of a source."""
    floor = 0.0
    if isinstance(source, Population):
        best, xx = model.teacher_matrix, model.input_covariance
    else:
        _check_shape(source, model)
        best = np.asarray(np.linalg.lstsq(source.x, source.y, rcond=None)[0].T, dtype=np.float64)
        xx = source.input_covariance
        floor = 0.5 * float(np.square(source.y - source.x @ best.T).sum(axis=1).mean())
    values, vectors = np.linalg.eigh(xx)
    return best, vectors * np.sqrt(values.clip(min=0.0)), floor


def _known(name: str) -> str:
    if name not in VARIABLES:
        describe(name)  # raises
    return name
