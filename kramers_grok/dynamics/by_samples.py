"""Batches that reach a model as samples instead of second moments.

A nonlinear network, or one with noisy activations, needs each sample; its sources hand out inputs and labels where
those of linear networks hand out second moments.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.batching import Batches, Data
from kramers_grok.dynamics.sampling import (
    BatchSource,
    ByMoments,
    BySamples,
    FiniteSource,
    SampledSource,
    Sampler,
    check_finite,
)
from kramers_grok.models.base import SampleModel
from kramers_grok.models.data import OnlineTeacher, Population

__all__ = ["SampleBatches", "SampleGradient", "Samples", "samples_only"]


def samples_only(data: Data, sampler: Sampler | None, what: str, why: str) -> Sampler | None:
    """Return the sampler that hands out samples; None where the usual one of finite data does.

    Parameters
    ----------
    what, why : str
        What needs samples, and for what reason: words of the messages.

    Raises
    ------
    InvalidParameterError
        For population data and batches drawn as moments, which have no samples.
    """
    if isinstance(data, Population):
        raise InvalidParameterError(
            f"{what} is given with `population()`, expected data with samples: {why}, and the population's gradient "
            "has no samples.\nUse `teacher(label_noise=0.0)` with `batch_size=8`, or `finite(x, y)`."
        )
    if isinstance(sampler, ByMoments):
        raise InvalidParameterError(
            f"`sampler` = ByMoments() is given with {what}, expected samples: {why}, which second moments cannot "
            "hold.\nUse `sampler=BySamples()`, or leave `sampler` out."
        )
    return BySamples() if isinstance(data, OnlineTeacher) else sampler


class Samples:
    """A source of samples where others are of second moments.

    Parameters
    ----------
    source : SampledSource or FiniteSource
    """

    def __init__(self, source: SampledSource | FiniteSource) -> None:
        self.source = source

    def buffers(self, n_replicas: int) -> dict[str, Tensor]:
        """What the samples' source remembers."""
        return self.source.buffers(n_replicas)

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Inputs (replica, B, d), labels (replica, B, o) and the new buffers: what `SampleGradient` understands."""
        return self.source.samples(seed, streams, step, buffers)


class SampleBatches(Batches):
    """`Batches` as samples."""

    def _samples(self, size: int) -> SampledSource | FiniteSource:
        """Source of batches of `size` samples."""
        if isinstance(self.data, OnlineTeacher):
            return SampledSource(self.model, self.data.label_noise, size, self.like)
        assert not isinstance(self.data, Population)  # see `samples_only`
        check_finite(self.model, self.data, size)
        return FiniteSource(self.data, size, self.sampler, self.like)

    def _source(self, size: int) -> BatchSource:
        return Samples(self._samples(size))


class SampleGradient:
    """Gradient of a batch's loss from its samples.

    Parameters
    ----------
    model : SampleModel
    """

    def __init__(self, model: SampleModel) -> None:
        self.model = model

    def data_gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Gradient without weight decay, shape (replica, parameter)."""
        return self.model.sample_gradient(theta, x, y)
