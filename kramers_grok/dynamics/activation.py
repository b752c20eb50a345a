r"""Training through noisy hidden activations, :math:`h_l = W_l h_{l-1} + n_l` with :math:`n_l \sim N(0, s_h^2)`.

Each sample of each batch has its own noise, so a batch no longer enters through its second moments: its samples are
drawn, and passed through the network one by one. The noise of a replica at a step depends on the seed, its stream and
the step alone, like all other noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import ActivationNoise
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.batching import Batches, Data
from kramers_grok.dynamics.by_samples import SampleBatches, SampleGradient, Samples, samples_only
from kramers_grok.dynamics.sampling import BatchSource, FiniteSource, SampledSource, Sampler
from kramers_grok.dynamics.update import BatchGradient
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.chain import ChainModel
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.layers import layers_of

__all__ = [
    "NoisyActivations",
    "NoisyBatches",
    "NoisySamples",
    "batches_and_gradient",
    "hidden_widths",
    "sampler_for",
]


def hidden_widths(model: BatchModel | SampleModel) -> tuple[int, ...]:
    """Widths h_1 … h_{D−1} of the hidden layers.

    Raises
    ------
    InvalidParameterError
        For models whose activations are not known: a mode's layers move as one, a diagonal network has no samples.
    """
    if isinstance(model, ChainModel):
        return (1,) * (model.n_parameters - 1)
    if isinstance(model, DeepLinearNetwork):
        return model.widths[1:-1]
    raise InvalidParameterError(
        f"`activation_noise` is given for a {type(model).__name__}, expected a DeepLinearNetwork or a DeepLinearChain: "
        "only their hidden activations are known one by one.\nUse `DeepLinearChain(depth, σ, λ)` for one feature."
    )


def sampler_for(
    model: BatchModel | SampleModel, data: Data, sampler: Sampler | None, noise: ActivationNoise | None
) -> Sampler | None:
    """Return the sampler of a model's batches; None where the usual one of its data does.

    Raises
    ------
    InvalidParameterError
        For population data and batches drawn as moments where samples are needed.
    """
    if noise is not None:
        return samples_only(data, sampler, "`activation_noise`", "each sample's activations have noise of their own")
    if isinstance(model, SampleModel):
        what = f"A nonlinear model ({type(model).__name__})"
        return samples_only(data, sampler, what, "each sample passes through the activation functions by itself")
    return sampler


class NoisySamples(Samples):
    """Batches as samples, with the noise of their activations.

    Parameters
    ----------
    source : SampledSource or FiniteSource
    n_hidden : int
        Activations of one sample, Σ h_l.
    std : float
        s_h.
    """

    def __init__(self, source: SampledSource | FiniteSource, n_hidden: int, std: float) -> None:
        super().__init__(source)
        self.n_hidden, self.std = n_hidden, std

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Inputs (replica, B, d), labels with the activations' noise (replica, B, o + Σ h_l), and the new buffers.

        They stand where other sources have second moments; `NoisyActivations` is what understands them.
        """
        x, y, buffers = self.source.samples(seed, streams, step, buffers)
        # At least three numbers, whose address does not depend on how many there are: batch sizes may change.
        count = x.shape[1] * self.n_hidden
        noise = torch_noise.normals(seed, Purpose.ACTIVATION, streams, step, max(count, 3), dtype=x.dtype)
        noise = self.std * noise.narrow(1, 0, count).reshape(*x.shape[:2], -1)
        return x, torch.cat([y, noise], dim=2), buffers


class NoisyBatches(SampleBatches):
    """`Batches` as samples with noisy activations.

    Raises
    ------
    InvalidParameterError
        If the model's activations are not known, or as `Batches`.
    """

    def __init__(
        self, model: BatchModel, data: Data, size: int, sampler: Sampler, like: Tensor, noise: ActivationNoise
    ) -> None:
        self.noise, self.n_hidden = noise, sum(hidden_widths(model))
        super().__init__(model, data, size, sampler, like)

    def _source(self, size: int) -> BatchSource:
        return NoisySamples(self._samples(size), self.n_hidden, self.noise.std)


class NoisyActivations:
    r"""Gradient of a batch's loss through noisy hidden activations.

    With :math:`h_0 = x`, :math:`h_l = W_l h_{l-1} + n_l`, :math:`\delta_D = W_D h_{D-1} - y` and
    :math:`\delta_{l-1} = W_l^T\delta_l` a sample gives layer l the gradient :math:`\delta_l h_{l-1}^T`.

    Parameters
    ----------
    model : ChainModel or DeepLinearNetwork
    """

    def __init__(self, model: BatchModel) -> None:
        hidden = hidden_widths(model)
        assert isinstance(model, ChainModel | DeepLinearNetwork)
        self.model = model
        self.cuts = list(pairwise([model.n_outputs + sum(hidden[:index]) for index in range(len(hidden) + 1)]))

    def data_gradient(self, theta: Tensor, inputs: Tensor, rest: Tensor) -> Tensor:
        """Gradient without weight decay, shape (replica, parameter).

        `inputs` has shape (replica, B, input), `rest` (replica, B, output + Σ h_l): the labels, then each layer's
        noise.
        """
        layers = layers_of(self.model, theta)
        activations = [inputs]
        for weight, (begin, end) in zip(layers, self.cuts, strict=False):
            passed = torch.bmm(activations[-1], weight.transpose(1, 2))
            activations.append(passed + rest.narrow(2, begin, end - begin))
        labels = rest.narrow(2, 0, self.model.n_outputs)
        # Divided once, here: the mean over the batch.
        delta = (torch.bmm(activations[-1], layers[-1].transpose(1, 2)) - labels) / inputs.shape[1]
        gradients: list[Tensor] = []
        for index in range(len(layers) - 1, -1, -1):
            gradients.append(torch.bmm(delta.transpose(1, 2), activations[index]).reshape(len(theta), -1))
            if index:
                delta = torch.bmm(delta, layers[index])
        gradients.reverse()
        return torch.cat(gradients, dim=1)


def batches_and_gradient(
    model: BatchModel | SampleModel,
    data: Data,
    size: int,
    sampler: Sampler,
    like: Tensor,
    noise: ActivationNoise | None,
) -> tuple[Batches, BatchGradient]:
    """Return where batches come from, and what takes their gradient."""
    if noise is not None:
        hidden_widths(model)  # raises where activations are not known
        assert isinstance(model, BatchModel)
        return NoisyBatches(model, data, size, sampler, like, noise), NoisyActivations(model)
    if isinstance(model, SampleModel):
        return SampleBatches(model, data, size, sampler, like), SampleGradient(model)
    return Batches(model, data, size, sampler, like), model
