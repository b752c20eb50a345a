"""Batch sources: which samples each step sees, as second moments of the batch.

For a linear network a batch enters through Σ̂_xx = Σ x xᵀ/B and Σ̂_yx = Σ y xᵀ/B only. Every source is counter
based: the batch of a replica at a step depends on the seed, the replica's stream and the step alone.

The sampler is part of the noise (N samples, batch size B, learning rate η):

- with replacement: the noise has the covariance C of the per-sample gradients (normalised by 1/N), over B;
- without replacement, independent from step to step: times (N − B)/(N − 1);
- shuffled epochs (PyTorch's ``shuffle=True``): the batches of an epoch are anticorrelated, so slow directions feel
  far less noise than either; see `kramers_grok.theory.samplers`.

An online teacher's Gaussian batches can be drawn sample by sample, or as moments at a cost that does not depend on B:
the law is the same, derived in the chapter on the batch's moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.rng import Purpose
from kramers_grok.core.samplers import (
    ByMoments,
    BySamples,
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
)
from kramers_grok.dynamics import torch_noise
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.models.diagonal import DiagonalNetwork

__all__ = [
    "BatchSource",
    "ByMoments",
    "BySamples",
    "FullBatch",
    "Sampler",
    "ShuffledEpochs",
    "WithReplacement",
    "WithoutReplacement",
    "batch_source",
    "check_finite",
    "teacher_of",
]


class BatchSource(Protocol):
    """Draws the second moments of one step's batches."""

    def buffers(self, n_replicas: int) -> dict[str, Tensor]:
        """Return what the source remembers from step to step, one row a replica."""
        ...

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Return Σ̂_xx (replica or 1, d, d), Σ̂_yx (replica or 1, o, d) and the new buffers."""
        ...


class ConstantSource:
    """The same moments at every step: the population, or the full batch."""

    def __init__(self, xx: Tensor, yx: Tensor) -> None:
        self.xx, self.yx = xx.unsqueeze(0), yx.unsqueeze(0)

    def buffers(self, n_replicas: int) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """The constant moments."""
        return self.xx, self.yx, buffers


class _Teacher(NamedTuple):
    """An online teacher on one device."""

    matrix: Tensor  # (output, input)
    root: Tensor  # (input, input), the symmetric root of Σ_xx
    scale: Tensor | None  # (input,), its diagonal where it has nothing else

    def correlate(self, z: Tensor) -> Tensor:
        """Σ_xx^½ z for numbers z (replica, input, column); a diagonal root gives the product's bits for less."""
        if self.scale is not None:
            return z * self.scale.unsqueeze(1)
        return torch.bmm(self.root.expand(len(z), -1, -1), z)

    def label(self, factor: Tensor) -> Tensor:
        """Return M R for inputs R (replica, input, column)."""
        return torch.bmm(self.matrix.expand(len(factor), -1, -1), factor)


def teacher_of(model: BatchModel | SampleModel, like: Tensor) -> _Teacher:
    """Return what online batches are made of.

    The symmetric root is unique, also where Σ_xx is singular: paths must not depend on a solver's choice of signs.

    Raises
    ------
    InvalidParameterError
        If the model has no teacher.
    """
    if model.teacher_matrix is None:
        raise InvalidParameterError(
            f"The data are an online teacher's and this {type(model).__name__} has none, expected a map that labels "
            "fresh inputs.\nUse `teacher_matrix=…` when making the model, or `SGD(model, model.data, …)`."
        )
    q = np.diag(model.input_covariance)
    diagonal = bool((model.input_covariance == np.diag(q)).all())
    if diagonal:
        root = np.diag(np.sqrt(q))
    else:
        values, vectors = np.linalg.eigh(model.input_covariance)
        root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    scale = torch.as_tensor(np.sqrt(q)).to(like) if diagonal else None
    return _Teacher(torch.as_tensor(model.teacher_matrix).to(like), torch.as_tensor(root).to(like), scale)


def _normals(seed: int, purpose: Purpose, streams: Tensor, step: int, n: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers, shape (replica, n), at an address that does not depend on n.

    One or two numbers a step would be packed, and a batch size that changes could then meet the same counter twice.
    """
    return torch_noise.normals(seed, purpose, streams, step, max(n, 3), dtype=dtype).narrow(1, 0, n)


class SampledSource:
    """Fresh Gaussian samples at every step: x = Σ_xx^½ z, y = M x + s·n."""

    def __init__(self, model: BatchModel | SampleModel, label_noise: float, batch_size: int, like: Tensor) -> None:
        self.teacher = teacher_of(model, like)
        self.label_noise = label_noise
        self.batch_size = batch_size

    def buffers(self, n_replicas: int) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Moments of B fresh samples."""
        x, noise = self._drawn(seed, streams, step)
        xx = torch.bmm(x.transpose(1, 2), x) / self.batch_size
        yx = torch.bmm(self.teacher.matrix.expand(len(x), -1, -1), xx)
        if noise is not None:
            yx = yx + torch.bmm(noise.transpose(1, 2), x) * (self.label_noise / self.batch_size)
        return xx, yx, buffers

    def samples(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Inputs (replica, B, d) and labels (replica, B, o) of the samples that `moments` summarises."""
        x, noise = self._drawn(seed, streams, step)
        y = torch.bmm(x, self.teacher.matrix.T.expand(len(x), -1, -1))
        return x, y if noise is None else y + self.label_noise * noise, buffers

    def _drawn(self, seed: int, streams: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """Inputs (replica, B, d) and the labels' normal numbers (replica, B, o), None without label noise."""
        size, (outputs, inputs), dtype = self.batch_size, self.teacher.matrix.shape, self.teacher.matrix.dtype
        z = _normals(seed, Purpose.DATA, streams, step, size * inputs, dtype).reshape(-1, size, inputs)
        # Batched products only, with nothing laid side by side: rounding must not depend on the number of replicas.
        x = torch.bmm(z, self.teacher.root.expand(len(z), -1, -1))
        if not self.label_noise:
            return x, None
        return x, _normals(seed, Purpose.LABEL, streams, step, size * outputs, dtype).reshape(-1, size, outputs)


class MomentSource:
    r"""Second moments of B fresh Gaussian samples at every step, drawn without the samples.

    With A the lower triangular factor of d × min(d, B) entries :math:`A_{ii}^2 \sim \chi^2_{B-i}` (i = 0, 1, …),
    :math:`A_{ij} \sim N(0,1)` below (Bartlett), :math:`R = \Sigma_{xx}^{1/2} A` and standard normal G,

    .. math:: \hat\Sigma_{xx} = R R^T / B, \qquad \hat\Sigma_{yx} = M\hat\Sigma_{xx} + s\,G R^T / B.
    """

    def __init__(self, model: BatchModel, label_noise: float, batch_size: int, like: Tensor) -> None:
        self.teacher = teacher_of(model, like)
        self.label_noise = label_noise
        self.batch_size = batch_size
        inputs = self.teacher.matrix.shape[1]
        self.columns = columns = min(inputs, batch_size)
        # Where each entry of A comes from, in a row of [0, diagonal, normals]: no masks, no scatter.
        source = np.zeros((inputs, columns), dtype=np.int64)
        np.fill_diagonal(source, 1 + np.arange(columns))
        below = np.tril_indices(inputs, -1, columns)
        self.n_normals = len(below[0])
        source[below] = 1 + columns + np.arange(self.n_normals)
        self.source = torch.as_tensor(source.ravel()).to(like.device)

    def buffers(self, n_replicas: int) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Moments of B fresh samples."""
        size, (outputs, inputs), dtype = self.batch_size, self.teacher.matrix.shape, self.teacher.matrix.dtype
        diagonal = torch.sqrt(torch_noise.chi_squares(size, self.columns, seed, Purpose.DATA, streams, step, dtype))
        parts = [torch.zeros_like(diagonal.narrow(1, 0, 1)), diagonal]
        if self.n_normals:
            parts.append(_normals(seed, Purpose.DATA, streams, step, self.n_normals, dtype))
        factor = torch.cat(parts, dim=1).index_select(1, self.source).reshape(-1, inputs, self.columns)
        factor = self.teacher.correlate(factor)
        xx = torch.bmm(factor, factor.transpose(1, 2)) / size
        if not self.label_noise:
            return xx, self._noiseless_cross(factor, xx), buffers
        noise = _normals(seed, Purpose.LABEL, streams, step, outputs * self.columns, dtype)
        # M (R Rᵀ) + s G Rᵀ as (M R + s G) Rᵀ: one product with d × d entries less
        labels = self.teacher.label(factor) + noise.reshape(-1, outputs, self.columns) * self.label_noise
        return xx, torch.bmm(labels, factor.transpose(1, 2)) / size, buffers

    def _noiseless_cross(self, factor: Tensor, xx: Tensor) -> Tensor:
        """M Σ̂_xx, in the order of products that takes fewer operations."""
        inputs = factor.shape[1]
        if 2 * self.columns < inputs:
            return torch.bmm(self.teacher.label(factor), factor.transpose(1, 2)) / self.batch_size
        return self.teacher.label(xx)


class ScalarMomentSource:
    """`MomentSource` for one input and one output: Σ̂_xx = q χ²_B / B and Σ̂_yx = σ Σ̂_xx + s √(Σ̂_xx / B) · n."""

    def __init__(self, model: BatchModel, label_noise: float, batch_size: int, like: Tensor) -> None:
        self.matrix = torch.as_tensor(model.teacher_matrix).to(like)
        self.variance = float(model.input_covariance[0, 0])
        self.label_noise = label_noise
        self.batch_size = batch_size

    def buffers(self, n_replicas: int) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Moments of B fresh samples."""
        size, dtype = self.batch_size, self.matrix.dtype
        chi2 = torch_noise.chi_square(size, seed, Purpose.DATA, streams, step, dtype=dtype)
        noise = torch_noise.normals(seed, Purpose.LABEL, streams, step, 1, dtype=dtype).squeeze(1)
        scalar = chi2 * (self.variance / size)
        cross = self.matrix.reshape(()) * scalar + self.label_noise * torch.sqrt(scalar / size) * noise
        return scalar.reshape(-1, 1, 1), cross.reshape(-1, 1, 1), buffers


class FiniteSource:
    """Minibatches of a finite data set."""

    def __init__(self, data: FiniteData, batch_size: int, sampler: Sampler, like: Tensor) -> None:
        self.x = torch.as_tensor(data.x).to(like)
        self.y = torch.as_tensor(data.y).to(like)
        self.batch_size = batch_size
        self.sampler = sampler
        self.steps_per_epoch = data.n_samples // batch_size

    def buffers(self, n_replicas: int) -> dict[str, Tensor]:
        """The current epoch's order, for shuffled epochs."""
        if isinstance(self.sampler, ShuffledEpochs):
            order = torch.zeros((n_replicas, len(self.x)), dtype=torch.int64, device=self.x.device)
            return {"order": order}
        return {}

    def indices(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Sample numbers of every replica's batch at this step, shape (replica, B)."""
        n, size = len(self.x), self.batch_size
        if isinstance(self.sampler, WithReplacement):
            return torch_noise.integers(seed, Purpose.DATA, streams, step, n, size), buffers
        if isinstance(self.sampler, WithoutReplacement):
            return torch_noise.sample_without_replacement(seed, Purpose.DATA, streams, step, n, size), buffers
        if isinstance(self.sampler, FullBatch):
            return torch.arange(n, device=streams.device).expand(len(streams), -1), buffers
        epoch, position = divmod(step, self.steps_per_epoch)
        if position == 0:
            order = torch_noise.permutation(seed, Purpose.SHUFFLE, streams, epoch, n)
            buffers = {**buffers, "order": order}
        return buffers["order"].narrow(1, position * size, size), buffers

    def samples(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Inputs (replica, B, d) and labels (replica, B, o) of the samples drawn."""
        if isinstance(self.sampler, FullBatch):
            return self.x.expand(len(streams), -1, -1), self.y.expand(len(streams), -1, -1), buffers
        index, buffers = self.indices(seed, streams, step, buffers)
        return _rows(self.x, index), _rows(self.y, index), buffers

    def moments(
        self, seed: int, streams: Tensor, step: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Moments of the samples drawn."""
        x, y, buffers = self.samples(seed, streams, step, buffers)
        if x.shape[-1] == y.shape[-1] == 1:
            xx = (x * x).sum(dim=1, keepdim=True) / self.batch_size
            yx = (y * x).sum(dim=1, keepdim=True) / self.batch_size
            return xx, yx, buffers
        return (
            torch.bmm(x.transpose(1, 2), x) / self.batch_size,
            torch.bmm(y.transpose(1, 2), x) / self.batch_size,
            buffers,
        )


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table, shape (*index.shape, column)."""
    return table.index_select(0, index.reshape(-1)).reshape(*index.shape, -1)


def batch_source(
    model: BatchModel,
    data: OnlineTeacher | Population | FiniteData,
    batch_size: int,
    sampler: Sampler,
    like: Tensor,
) -> BatchSource:
    """Return the source of batches; `like` gives dtype and device.

    Raises
    ------
    InvalidParameterError
        If a batch is larger than the data set or the data do not fit the model.
    """
    if isinstance(data, Population):
        xx = torch.as_tensor(model.input_covariance).to(like)
        return ConstantSource(xx, torch.as_tensor(model.teacher_matrix @ model.input_covariance).to(like))
    if isinstance(data, OnlineTeacher):
        if isinstance(sampler, FullBatch):
            raise InvalidParameterError(
                "An online teacher has no full batch: its samples never end.\n"
                "Use `population()` for the exact gradient."
            )
        if isinstance(sampler, BySamples):
            return SampledSource(model, data.label_noise, batch_size, like)
        scalar = model.n_inputs == model.n_outputs == 1
        return (ScalarMomentSource if scalar else MomentSource)(model, data.label_noise, batch_size, like)
    if isinstance(sampler, ByMoments | BySamples):
        raise InvalidParameterError(
            f"`sampler` = {sampler} is given with finite data, expected one that cuts batches from their samples.\n"
            "Use `WithReplacement()`, `WithoutReplacement()` or `ShuffledEpochs()`."
        )
    check_finite(model, data, batch_size)
    if isinstance(sampler, FullBatch):
        xx = torch.as_tensor(data.input_covariance).to(like)
        return ConstantSource(xx, torch.as_tensor(data.cross_covariance).to(like))
    return FiniteSource(data, batch_size, sampler, like)


def check_finite(model: BatchModel | SampleModel, data: FiniteData, batch_size: int) -> None:
    """Raise if a data set does not fit the batch size, the model's shapes or its stated statistics."""
    checks.positive_int("batch_size", batch_size)
    if batch_size > data.n_samples:
        raise InvalidParameterError(
            f"`batch_size` = {batch_size}, expected at most the {data.n_samples} samples of the data set.\n"
            f"Use `batch_size={data.n_samples}` or the sampler `FullBatch()`."
        )
    shape = (data.y.shape[1], data.x.shape[1])
    if shape != (model.n_outputs, model.n_inputs):
        raise InvalidParameterError(
            f"The data have (outputs, inputs) = {shape}, the model has {(model.n_outputs, model.n_inputs)}.\n"
            "Build the model from the data, for instance with `DeepLinearNetwork.from_data`."
        )
    if isinstance(model, SampleModel):
        _check_same(model, data)
        return
    moments = [data.input_covariance, data.cross_covariance]
    stated = [model.input_covariance, model.teacher_matrix @ model.input_covariance]
    if isinstance(model, DiagonalNetwork):  # nothing off the diagonal acts on it
        moments = [np.diag(m) for m in moments]
        stated = [np.diag(m) for m in stated]
    _check_moment("input variance", moments[0], stated[0])
    _check_moment("teacher", moments[1], stated[1])


def _check_same(model: SampleModel, data: FiniteData) -> None:
    """Raise if a model with data of its own is to learn others; beside a teacher its data are a probe."""
    own = model.data
    if own is None or own is data or model.teacher_matrix is not None:
        return
    if not (np.array_equal(own.x, data.x) and np.array_equal(own.y, data.y)):
        raise InvalidParameterError(
            f"SGD is given other data ({data.n_samples} samples) than the model ({own.n_samples} samples): energy and "
            "order parameters would be of another landscape than the one it descends.\n"
            "Use `SGD(model, model.data, …)`, and `Loss(data, 'test_loss')` for data it does not see."
        )


def _check_moment(what: str, measured: NDArray[np.float64], stated: NDArray[np.float64]) -> None:
    scale = float(np.abs(measured).max())
    error = float(np.abs(measured - stated).max())
    if error > 1e-8 * scale:
        raise InvalidParameterError(
            f"The data's {what} differs from the model's by {error:.3g} (of {scale:.3g}): theory would be asked about "
            "another landscape than the one SGD descends.\n"
            "Use `DeepLinearChain.from_data(x, y, …)` or `DeepLinearNetwork.from_data(data, …)`."
        )
