"""Batch sizes and samplers as they are asked for: what fits which data, and sources for every size."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schedules import Schedule
from kramers_grok.dynamics.hyperparameters import Hyperparameter
from kramers_grok.dynamics.sampling import (
    BatchSource,
    ByMoments,
    BySamples,
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithReplacement,
    batch_source,
)
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population

__all__ = ["Batches", "Data", "batching"]

Data: TypeAlias = OnlineTeacher | Population | FiniteData


def batching(data: Data, batch_size: int | Schedule | None, sampler: Sampler | None) -> tuple[Hyperparameter, Sampler]:
    """Return the batch size and how batches are cut."""
    _check_sampler(data, sampler)
    if callable(batch_size):
        scheduled = Hyperparameter.read(
            "batch_size", batch_size, lowest=1.0, highest=data.n_samples if isinstance(data, FiniteData) else np.inf
        )
        if isinstance(sampler, FullBatch | ShuffledEpochs):
            raise InvalidParameterError(
                f"`batch_size` = {batch_size!r} changes with `sampler` = {sampler}, expected independent batches: a "
                "full batch has one size, and epochs of changing batches have no fixed length.\n"
                "Use `sampler=WithoutReplacement()`."
            )
        return scheduled, sampler or _usual(data)
    if isinstance(data, FiniteData):
        if batch_size is None and not isinstance(sampler, FullBatch | None):
            raise InvalidParameterError(
                f"`batch_size` is missing: `sampler` = {sampler} cuts batches, expected to know of how many samples.\n"
                "Use `batch_size=8`, or leave both out for the full batch."
            )
        if batch_size is None or isinstance(sampler, FullBatch):
            return _fixed(data.n_samples), FullBatch()
        return _fixed(batch_size), sampler or _usual(data)
    if batch_size is None:
        if isinstance(data, OnlineTeacher):
            raise InvalidParameterError(
                "`batch_size` is missing: an online teacher's samples never end.\n"
                "Use `batch_size=8`, or `population()` for the exact gradient."
            )
        return _fixed(1), _usual(data)
    return _fixed(batch_size), sampler or _usual(data)


def _fixed(batch_size: int) -> Hyperparameter:
    return Hyperparameter("batch_size", float(checks.positive_int("batch_size", batch_size)))


def _usual(data: Data) -> Sampler:
    return ByMoments() if isinstance(data, OnlineTeacher) else WithReplacement()


def _check_sampler(data: Data, sampler: Sampler | None) -> None:
    """Raise for a sampler of another kind of data."""
    if sampler is None or isinstance(data, FiniteData):
        return
    if not (isinstance(data, OnlineTeacher) and isinstance(sampler, ByMoments | BySamples)):
        raise InvalidParameterError(
            f"`sampler` = {sampler} is given with {type(data).__name__} data, expected a finite data set: only that "
            "can be cut in several ways.\nLeave `sampler` out, or use `finite(x, y)`."
        )


class Batches:
    """Where batches come from, whatever their size.

    Raises
    ------
    InvalidParameterError
        If the data do not fit the model, or are fewer than a batch.
    """

    def __init__(self, model: BatchModel | SampleModel, data: Data, size: int, sampler: Sampler, like: Tensor) -> None:
        self.model, self.data, self.sampler, self.like = model, data, sampler, like
        self.first = size
        self._sources: dict[int, BatchSource] = {}
        self.of(size)

    def of(self, size: int) -> BatchSource:
        """Return the source of batches of `size` samples, made once."""
        if isinstance(self.data, Population) or isinstance(self.sampler, FullBatch):
            size = self.first  # the moments do not depend on it
        if size not in self._sources:
            self._sources[size] = self._source(size)
        return self._sources[size]

    def _source(self, size: int) -> BatchSource:
        assert isinstance(self.model, BatchModel)  # the others' batches are samples
        return batch_source(self.model, self.data, size, self.sampler, self.like)
