r"""One step of SGD together with its linearisation in the directions that a low-rank network does not use.

A network that uses r units of every hidden layer stays such a network, whatever its batches. Next to it, to first
order, an unused unit of hidden layer l has incoming weights p (a row of :math:`W_l`) and outgoing weights v (a column
of :math:`W_{l+1}`), and

.. math:: p \leftarrow (1-\eta\lambda)\,p + \eta\,K_l^T v, \qquad v \leftarrow (1-\eta\lambda)\,v + \eta\,K_l\,p, \qquad
          K_l = (W_D\cdots W_{l+2})^T (\hat\Sigma_{yx} - W\hat\Sigma_{xx}) (W_{l-1}\cdots W_1)^T .

Weights between two unused units only decay. Different hidden layers do not mix, and the width of the layers does not
enter. A *used* unit, (row i of :math:`W_l`, column i of :math:`W_{l+1}`), obeys the same equations without any
approximation: these r solutions are the rotations of an unused into a used unit, and neither grow nor decay.

With the batch's samples passed forward, :math:`a_l`, and residuals passed back, :math:`\delta_l`,
:math:`K_l = \delta_{l+1} a_{l-1}^T / B`: no second moments are needed where B < d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.sampling import (
    BatchSource,
    FiniteSource,
    FullBatch,
    SampledSource,
    batch_source,
)
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, OnlineTeacher
from kramers_grok.models.deep_linear import DeepLinearNetwork

__all__ = ["Background", "Batch", "Batches", "Passes", "Unused", "used_network", "used_units"]


def used_network(network: DeepLinearNetwork, rank: int) -> DeepLinearNetwork:
    """Return the network that has only `rank` units in every hidden layer, on the same task.

    Examples
    --------
    >>> used_network(DeepLinearNetwork((4, 6, 6, 4), [2.0, 1.0], weight_decay=0.1), 1).widths
    (4, 1, 1, 4)
    """
    widths = (network.n_inputs, *(rank,) * (network.depth - 1), network.n_outputs)
    return DeepLinearNetwork(
        widths,
        network.teacher_matrix,
        weight_decay=network.weight_decay,
        input_variance=1.0,
        input_covariance=network.input_covariance,
    )


@dataclass(frozen=True, eq=False)
class Batch:
    r"""A batch as rows: of samples, or of the identity where its second moments are what is known.

    Attributes
    ----------
    inputs : Tensor, shape (replica, row, input)
    labels : Tensor, shape (replica, row, output)
        Labels of the samples, or :math:`\hat\Sigma_{yx}^T`.
    size : int
        What a sum over rows is divided by.
    xx : Tensor of shape (replica, input, input), optional
        :math:`\hat\Sigma_{xx}`, where rows are those of the identity.
    """

    inputs: Tensor
    labels: Tensor
    size: int
    xx: Tensor | None = None

    def residual(self, response: Tensor) -> Tensor:
        """Labels minus what the network says of them, shape (replica, row, output)."""
        return self.labels - self.seen(response)

    def seen(self, response: Tensor) -> Tensor:
        """A linear response to the rows as the batch weighs it: times Σ̂_xx for rows of the identity."""
        return response if self.xx is None else torch.bmm(self.xx, response)


class Batches:
    """Batches of a process, for another network on the same task.

    Parameters
    ----------
    process : SGD
        One batch size, without activation noise.
    model : DeepLinearNetwork
    """

    def __init__(self, process: SGD, model: DeepLinearNetwork) -> None:
        like = torch.empty(0, dtype=process.dtype, device=process.device)
        self.size, data = process.batch_size, process.data
        self.source: BatchSource
        # Samples cost B rows, moments d: the law of the batch is the same.
        self.by_samples = self.size < model.n_inputs and not isinstance(process.sampler, FullBatch)
        if self.by_samples and isinstance(data, OnlineTeacher):
            self.source = SampledSource(model, data.label_noise, self.size, like)
        else:
            self.source = batch_source(model, data, self.size, process.sampler, like)
            self.by_samples = self.by_samples and isinstance(data, FiniteData)
        self.eye = torch.eye(model.n_inputs, dtype=like.dtype, device=like.device).unsqueeze(0)

    def draw(
        self, seed: int, streams: Tensor, step: int, memory: Mapping[str, Tensor]
    ) -> tuple[Batch, Mapping[str, Tensor]]:
        """Return the batches of step number `step`, and what the source remembers."""
        n = len(streams)
        if self.by_samples:
            assert isinstance(self.source, SampledSource | FiniteSource)
            x, y, memory = self.source.samples(seed, streams, step, memory)
            return Batch(x, y, self.size), memory
        xx, yx, memory = self.source.moments(seed, streams, step, memory)
        return Batch(self.eye.expand(n, -1, -1), yx.transpose(1, 2).expand(n, -1, -1), 1, xx.expand(n, -1, -1)), memory


@dataclass(frozen=True, eq=False)
class Passes:
    """One pass of a batch through the network and back.

    Attributes
    ----------
    forward : list of Tensor, shapes (replica, row, w_l)
        a_0 … a_{D−1}.
    back : list of Tensor, shapes (replica, row, w_l)
        δ_1 … δ_D; δ_D is the residual.
    """

    forward: list[Tensor]
    back: list[Tensor]


@dataclass(frozen=True, eq=False)
class Unused:
    """Unused unit of every hidden layer, to first order.

    Attributes
    ----------
    incoming : list of Tensor, shape (replica, w_{l−1})
    outgoing : list of Tensor, shape (replica, w_{l+1})
    """

    incoming: list[Tensor]
    outgoing: list[Tensor]

    @classmethod
    def random(cls, widths: tuple[int, ...], seed: int, streams: Tensor, dtype: torch.dtype) -> Unused:
        """Return one random direction for each hidden layer."""
        below, above = widths[:-2], widths[2:]
        n = sum(below) + sum(above)
        numbers = torch_noise.normals(seed, Purpose.INJECTED, streams, 0, max(n, 3), dtype=dtype).narrow(1, 0, n)
        parts = torch.split(numbers, [*below, *above], dim=1)
        return cls(list(parts[: len(below)]), list(parts[len(below) :]))


@dataclass(frozen=True, eq=False)
class Background:
    """Plain SGD of a network as layers, rather than as a row of parameters.

    Attributes
    ----------
    lr, weight_decay : float
    """

    lr: float
    weight_decay: float

    @property
    def kept(self) -> float:
        """1 − ηλ, what a step leaves of every weight."""
        return 1.0 - self.lr * self.weight_decay

    def passes(self, layers: list[Tensor], batch: Batch) -> Passes:
        """Send a batch forward, and its residuals back."""
        forward = [batch.inputs]
        for layer in layers:
            forward.append(torch.bmm(forward[-1], layer.transpose(1, 2)))
        back = [batch.residual(forward.pop())]
        for layer in layers[:0:-1]:
            back.append(torch.bmm(back[-1], layer))
        back.reverse()
        return Passes(forward, back)

    def moved(self, layers: list[Tensor], batch: Batch, passes: Passes) -> list[Tensor]:
        """Return the layers after the step."""
        rate = self.lr / batch.size
        return [
            torch.baddbmm(layer, back.transpose(1, 2), forward, beta=self.kept, alpha=rate)
            for layer, forward, back in zip(layers, passes.forward, passes.back, strict=True)
        ]

    def unused(self, unused: Unused, batch: Batch, passes: Passes) -> Unused:
        """Return the unused units after the step."""
        rate, incoming, outgoing = self.lr / batch.size, [], []
        for p, v, forward, back in zip(unused.incoming, unused.outgoing, passes.forward, passes.back[1:], strict=False):
            activation = torch.bmm(forward, p.unsqueeze(2))  # of the unused unit, and what comes back to it
            returned = torch.bmm(back, v.unsqueeze(2))
            incoming.append(
                torch.baddbmm(p.unsqueeze(1), returned.transpose(1, 2), forward, beta=self.kept, alpha=rate)
            )
            outgoing.append(torch.baddbmm(v.unsqueeze(1), activation.transpose(1, 2), back, beta=self.kept, alpha=rate))
        return Unused([p.squeeze(1) for p in incoming], [v.squeeze(1) for v in outgoing])

    def first_layer(self, direction: Tensor, layers: list[Tensor], batch: Batch) -> Tensor:
        """Return a change of W_1, shape (replica, w_1, input), after the step, if the layers above did not move."""
        response = batch.seen(torch.bmm(batch.inputs, direction.transpose(1, 2)))
        for layer in layers[1:]:
            response = torch.bmm(response, layer.transpose(1, 2))
        for layer in layers[:0:-1]:
            response = torch.bmm(response, layer)
        rate = -self.lr / batch.size
        return torch.baddbmm(direction, response.transpose(1, 2), batch.inputs, beta=self.kept, alpha=rate)


def used_units(layers: list[Tensor]) -> list[Tensor]:
    """Return the used units of every hidden layer, each of shape (replica, rank, w_{l−1} + w_{l+1})."""
    return [torch.cat([below, above.transpose(1, 2)], dim=2) for below, above in pairwise(layers)]
