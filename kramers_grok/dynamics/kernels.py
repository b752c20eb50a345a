"""Compiled CPU kernels of symbolic landscapes.

A kernel advances blocks of replicas through many steps: noise, the batch's moments where there are data, the update,
the watched border, the bridge. It computes what :func:`kramers_grok.dynamics.loop.run` computes with torch operations,
on the same noise; the two agree path by path to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import sympy
import torch
from numpy.typing import NDArray

from kramers_grok.core.landscape import Landscape
from kramers_grok.core.rng import Purpose, split_seed
from kramers_grok.dynamics import blocks, kernel_source
from kramers_grok.dynamics.kernel_source import XX, YX, KernelSpec
from kramers_grok.dynamics.process import Record, Score, State, Watch
from kramers_grok.dynamics.sampling import FullBatch, Sampler, ShuffledEpochs, WithoutReplacement
from kramers_grok.models.base import BatchModel
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.network_landscape import gradient_program, network_landscape

__all__ = [
    "DataSource",
    "Kernel",
    "data_source",
    "landscape_spec",
    "langevin_kernel",
    "network_spec",
    "population_source",
    "scalar_spec",
    "sgd_kernel",
]


# Beyond that torch's matrix products are no slower, and compiling takes longer than most runs.
MOST_PARAMETERS = 64


def landscape_spec(landscape: Landscape) -> KernelSpec:
    """Return the kernel expressions of Langevin dynamics in a landscape."""
    return KernelSpec(landscape, landscape.gradient)


def scalar_spec(system: DeepLinearChain | Mode) -> KernelSpec:
    """Return the kernel expressions of SGD in a chain or a mode: the loss of a batch with moments XX and YX."""
    landscape = system.landscape
    (m,) = landscape.order_parameters
    decay = sympy.Float(system.weight_decay) / 2 * sum(a**2 for a in landscape.coordinates)
    loss = XX * m**2 / 2 - YX * m + decay
    gradient = tuple(sympy.diff(loss, a) for a in landscape.coordinates)
    return KernelSpec(landscape, gradient)


def network_spec(network: DeepLinearNetwork) -> KernelSpec:
    """Return the kernel expressions of a matrix network.

    With one input and one output the gradient is that of a batch with moments XX and YX, otherwise the population's.
    """
    q, teacher = network.input_variance, network.teacher_matrix
    landscape = network_landscape(network.widths, teacher, network.weight_decay, q)
    scalar = _is_scalar(network)
    xx = XX if scalar else sympy.Float(q)
    # A zero is left out: which entries are zero belongs to the kernel's shape.
    yx = [[YX]] if scalar else [[sympy.Float(q * m) if m else sympy.Integer(0) for m in row] for row in teacher]
    program = gradient_program(network.widths, xx, yx, network.weight_decay)
    return KernelSpec(landscape, program.gradient, program.statements)


class DataSource(NamedTuple):
    """Where a kernel's batch moments come from, in the form that compiled code takes."""

    kind: int
    batch_size: int
    slope: float  # teacher's σ
    variance: float  # input variance q
    label_noise: float
    xx: NDArray[np.float64]  # x² of every sample; one entry: the constant moment
    yx: NDArray[np.float64]


_EMPTY = np.zeros(1)
NO_DATA = DataSource(blocks.NONE, 1, 0.0, 0.0, 0.0, _EMPTY, _EMPTY)


def population_source(model: BatchModel) -> DataSource:
    """Return the population's moments, Σ_xx = q and Σ_yx = qσ, at every step."""
    q, sigma = model.input_variance, float(model.teacher_matrix[0, 0])
    return DataSource(blocks.CONSTANT, 1, sigma, q, 0.0, np.array([q]), np.array([q * sigma]))


def data_source(
    model: BatchModel,
    data: OnlineTeacher | Population | FiniteData,
    batch_size: int,
    sampler: Sampler,
) -> DataSource:
    """Return the compiled form of a batch source with one input and one output."""
    q, sigma = model.input_variance, float(model.teacher_matrix[0, 0])
    if isinstance(data, Population):
        return population_source(model)
    if isinstance(data, OnlineTeacher):
        return DataSource(blocks.ONLINE, batch_size, sigma, q, data.label_noise, _EMPTY, _EMPTY)
    xx, yx = data.x[:, 0] ** 2, data.x[:, 0] * data.y[:, 0]
    if isinstance(sampler, FullBatch):
        xx, yx = np.array([data.input_covariance[0, 0]]), np.array([data.cross_covariance[0, 0]])
        return DataSource(blocks.CONSTANT, batch_size, sigma, q, 0.0, xx, yx)
    kind = blocks.EPOCHS if isinstance(sampler, ShuffledEpochs) else blocks.REPLACEMENT
    if isinstance(sampler, WithoutReplacement):
        kind = blocks.DISTINCT
    return DataSource(kind, batch_size, sigma, q, 0.0, xx, yx)


class Kernel:
    """A compiled `advance` for one landscape.

    Parameters
    ----------
    spec : KernelSpec
    source : DataSource
        Batch moments; none for Langevin dynamics.
    """

    def __init__(self, spec: KernelSpec, source: DataSource = NO_DATA) -> None:
        self.spec = spec
        self.source = source
        self._functions: dict[tuple[int, sympy.Expr | None], tuple[Callable[..., Any], NDArray[np.float64]]] = {}
        self._latest: tuple[Score | None, sympy.Expr | None] = (None, None)

    def advance(
        self,
        state: State,
        n_steps: int,
        watch: Watch | None,
        *,
        step: float,
        amplitude: float,
        purpose: Purpose,
        n_threads: int,
    ) -> tuple[State, Record]:
        """Take `n_steps` steps of θ ← θ − step·∇F + amplitude·ξ; see `Process.advance`."""
        function, constants = self._function(watch)
        replicas, low_high = state.n_replicas, split_seed(state.seed)
        theta = np.ascontiguousarray(state.theta.numpy())
        moved = np.empty_like(theta)
        streams = state.streams.numpy().astype(np.uint32)
        hit, fell = np.full(replicas, -1, dtype=np.int64), np.full(replicas, -1, dtype=np.int64)
        best = np.full(replicas, -np.inf)
        order = state.buffers["order"].numpy().copy() if "order" in state.buffers else np.zeros((replicas, 0), np.int64)
        border = _border_arguments(watch)

        def work(part: slice) -> None:
            function(
                theta[part], moved[part], streams[part], state.step, n_steps, step, amplitude, *low_high,
                np.uint32(purpose), *border, amplitude**2 / 2, hit[part], fell[part], best[part], order[part],
                constants, *self.source,
            )  # fmt: skip

        size = max(1, -(-replicas // n_threads))
        parts = [slice(begin, min(begin + size, replicas)) for begin in range(0, replicas, size)]
        if len(parts) <= 1:
            work(slice(0, replicas))
        else:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(work, parts))
        buffers = {**state.buffers, "order": torch.from_numpy(order)} if "order" in state.buffers else state.buffers
        advanced = replace(state, theta=torch.from_numpy(moved), step=state.step + n_steps, buffers=buffers)
        return advanced, Record(torch.from_numpy(hit), torch.from_numpy(best), torch.from_numpy(fell))

    def takes(self, watch: Watch | None) -> bool:
        """Whether the watched score has an expression that can be compiled."""
        return watch is None or watch.score is None or self._score(watch.score) is not None

    def _score(self, score: Score) -> sympy.Expr | None:
        if self._latest[0] is not score:  # compared by identity: a score may hold arrays
            self._latest = score, score.expression(self.spec.landscape)
        return self._latest[1]

    def _function(self, watch: Watch | None) -> tuple[Callable[..., Any], NDArray[np.float64]]:
        """Return the compiled function and its constants."""
        feature = watch.region.feature if watch else 0
        score = self._score(watch.score) if watch and watch.score is not None else None
        key = feature, score
        if key not in self._functions:
            text, constants = kernel_source.source(self.spec, feature, self.source.kind, score)
            self._functions[key] = kernel_source.compiled(text), np.asarray(constants)
        return self._functions[key]


def langevin_kernel(system: Mode | DeepLinearChain | DeepLinearNetwork | Landscape) -> Kernel | None:
    """Return the kernel of Langevin dynamics, or None where there is none: no expression, or too many weights."""
    if isinstance(system, DeepLinearChain):  # the kernel of SGD on the population's moments: compiled once for both
        return Kernel(scalar_spec(system), population_source(ChainModel(system)))
    if isinstance(system, DeepLinearNetwork):
        return _network_kernel(system, population_source)
    landscape = system if isinstance(system, Landscape) else getattr(system, "landscape", None)
    return Kernel(landscape_spec(landscape)) if isinstance(landscape, Landscape) else None


def sgd_kernel(
    system: Mode | DeepLinearChain | DeepLinearNetwork,
    model: BatchModel,
    data: OnlineTeacher | Population | FiniteData,
    batch_size: int,
    sampler: Sampler,
) -> Kernel | None:
    """Return the kernel of SGD, or None where there is none: samples of several inputs or outputs, or many weights.

    `model` is the torch model of `system`.
    """

    def source(model: BatchModel) -> DataSource:
        return data_source(model, data, batch_size, sampler)

    if not isinstance(system, DeepLinearNetwork):
        return Kernel(scalar_spec(system), source(model))
    if not _is_scalar(system) and not isinstance(data, Population):
        return None
    return _network_kernel(system, source)


def _network_kernel(network: DeepLinearNetwork, source: Callable[[BatchModel], DataSource]) -> Kernel | None:
    if network.n_parameters > MOST_PARAMETERS:
        return None
    return Kernel(network_spec(network), source(network) if _is_scalar(network) else NO_DATA)


def _is_scalar(network: DeepLinearNetwork) -> bool:
    return network.n_inputs == network.n_outputs == 1


def _border_arguments(watch: Watch | None) -> tuple[bool, bool, float, float, float, float]:
    """Whether it watches, whether it bridges, the level, the floor (not a number: none), border and sign."""
    if watch is None:
        return False, False, np.inf, np.nan, np.inf, 1.0
    sign = watch.region.sign
    floor = np.nan if watch.floor is None else watch.floor
    return True, watch.bridge, watch.hit_level, floor, sign * watch.region.threshold, sign
