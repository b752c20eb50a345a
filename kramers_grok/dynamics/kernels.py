"""Compiled CPU kernels of symbolic landscapes.

A kernel advances blocks of replicas through many steps: noise, the batch's moments where there are data, the update,
the watched border, the bridge. It computes what :func:`kramers_grok.dynamics.loop.run` computes with torch operations,
on the same noise; the two agree path by path to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import sympy
import torch
from numpy.typing import NDArray

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.rng import Purpose, split_seed
from kramers_grok.dynamics import blocks, kernel_engine, kernel_source
from kramers_grok.dynamics.kernel_source import DECAY, XX, YX, KernelSpec, Loops
from kramers_grok.dynamics.process import Record, Score, State, Watch
from kramers_grok.dynamics.sampling import ByMoments, BySamples, FullBatch, Sampler, ShuffledEpochs, WithoutReplacement
from kramers_grok.dynamics.threads import parts_of, side_by_side
from kramers_grok.models.base import BatchModel, Model, SampleModel
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.network_landscape import gradient_program, network_landscape

__all__ = [
    "DataSource",
    "Hyper",
    "Kernel",
    "System",
    "Varying",
    "data_source",
    "diagonal_spec",
    "landscape_spec",
    "langevin_kernel",
    "minibatch_kernel",
    "network_spec",
    "population_source",
    "scalar_spec",
    "sgd_kernel",
]


System = Mode | DeepLinearChain | DeepLinearNetwork | DiagonalNetwork

# Widths (1, 8, 8, 1). Beyond that compiling, once on each machine, takes longer than most runs: 16 s there.
MOST_PARAMETERS = 80


def landscape_spec(landscape: Landscape) -> KernelSpec:
    """Return the kernel expressions of Langevin dynamics in a landscape."""
    return KernelSpec(landscape, landscape.gradient)


def scalar_spec(system: DeepLinearChain | Mode, decay: sympy.Expr | None = None) -> KernelSpec:
    """Return the kernel expressions of SGD in a chain or a mode: the loss of a batch with moments XX and YX.

    `decay` is an expression in place of the system's weight decay.
    """
    landscape = system.landscape
    (m,) = landscape.order_parameters
    strength = sympy.Float(system.weight_decay) if decay is None else decay
    loss = XX * m**2 / 2 - YX * m + strength / 2 * sum(a**2 for a in landscape.coordinates)
    gradient = tuple(sympy.diff(loss, a) for a in landscape.coordinates)
    return KernelSpec(landscape, gradient)


def network_spec(network: DeepLinearNetwork, decay: sympy.Expr | None = None) -> KernelSpec:
    """Return the kernel expressions of a matrix network.

    With one input and one output the gradient is that of a batch with moments XX and YX, otherwise the population's.
    `decay` is an expression in place of the network's weight decay.
    """
    q, teacher = network.input_variance, network.teacher_matrix
    landscape = network_landscape(network.widths, teacher, network.weight_decay, q)
    scalar = _is_scalar(network)
    xx = XX if scalar else sympy.Float(q)
    # A zero is left out: which entries are zero belongs to the kernel's shape.
    yx = [[YX]] if scalar else [[sympy.Float(q * m) if m else sympy.Integer(0) for m in row] for row in teacher]
    program = gradient_program(network.widths, xx, yx, network.weight_decay if decay is None else decay)
    return KernelSpec(landscape, program.gradient, program.statements)


def diagonal_spec(network: DiagonalNetwork, decay: sympy.Expr | None = None) -> KernelSpec:
    """Return the kernel expressions of independent chains on the population's moments, chain by chain.

    `decay` is an expression in place of the network's weight decay.
    """
    landscape = network.landscape
    strength = sympy.Float(network.weight_decay) if decay is None else decay
    energy = strength / 2 * sum(a**2 for a in landscape.coordinates)
    for chain, m in zip(network.chains, landscape.order_parameters, strict=True):
        energy += sympy.Float(chain.input_variance) / 2 * (m - sympy.Float(chain.singular_value)) ** 2
    return KernelSpec(landscape, tuple(sympy.diff(energy, a) for a in landscape.coordinates))


class DataSource(NamedTuple):
    """Where a kernel's batch moments come from, in the form that compiled code takes."""

    kind: int
    batch_size: int | NDArray[np.int64]  # one for each step where it varies
    slope: float  # teacher's σ
    variance: float  # input variance q
    label_noise: float
    xx: NDArray[np.float64]  # x² of every sample; one entry: the constant moment
    yx: NDArray[np.float64]


_EMPTY = np.zeros(1)
_NO_FACTORS = np.zeros((0, 3))
_Floats = NDArray[np.float64]
# Steps, decays and amplitudes: of each step or of all; whether there is noise; factors of the replicas
_Tables = tuple[_Floats, _Floats, _Floats, bool, _Floats]
NO_DATA = DataSource(blocks.NONE, 1, 0.0, 0.0, 0.0, _EMPTY, _EMPTY)


def population_source(model: BatchModel) -> DataSource:
    """Return the population's moments, Σ_xx = q and Σ_yx = qσ, at every step."""
    q, sigma = float(model.input_covariance[0, 0]), float(model.teacher_matrix[0, 0])
    return DataSource(blocks.CONSTANT, 1, sigma, q, 0.0, np.array([q]), np.array([q * sigma]))


def data_source(
    model: BatchModel,
    data: OnlineTeacher | Population | FiniteData,
    batch_size: int,
    sampler: Sampler,
) -> DataSource:
    """Return the compiled form of a batch source with one input and one output."""
    q, sigma = float(model.input_covariance[0, 0]), float(model.teacher_matrix[0, 0])
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


class Hyper(NamedTuple):
    """A hyperparameter of every step of a call and every replica: ``table[s] * factor[i]``."""

    table: NDArray[np.float64]  # (step,)
    factor: NDArray[np.float64]  # (replica,)


class Varying(NamedTuple):
    """Hyperparameters that change from step to step or differ between replicas."""

    lr: Hyper
    decay: Hyper
    amplitude: Hyper
    batch_size: NDArray[np.int64]  # (step,)


class Kernel:
    """A compiled `advance` for one landscape.

    Parameters
    ----------
    spec : KernelSpec
    source : DataSource
        Batch moments; none for Langevin dynamics.
    varying : callable, optional
        Returns the same spec with `kernel_source.DECAY` for the weight decay. Without it only constant hyperparameters
        have a kernel.
    single : bool
        Whether injected noise is drawn in single precision.
    """

    def __init__(
        self,
        spec: KernelSpec,
        source: DataSource = NO_DATA,
        varying: Callable[[], KernelSpec] | None = None,
        *,
        single: bool = False,
    ) -> None:
        self.spec = spec
        self.source = source
        self.single = single
        self._varying = varying
        self._known: dict[tuple[int, sympy.Expr | None, bool], tuple[Loops, NDArray[np.float64]]] = {}
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
        compiled = self._compiled(watch, varying=False)
        tables = np.array([step]), np.zeros(1), np.array([amplitude]), amplitude > 0.0, _NO_FACTORS

        def hyper(part: slice) -> _Tables:
            return tables

        return self._run(compiled, self.source, hyper, amplitude**2 / 2, state, n_steps, watch, purpose, n_threads)

    def advance_varying(
        self, state: State, n_steps: int, watch: Watch | None, *, varying: Varying, purpose: Purpose, n_threads: int
    ) -> tuple[State, Record]:
        """Take `n_steps` steps of θ ← θ − lr·(∇L + decay·θ) + amplitude·ξ, each step and replica with its own numbers.

        Raises
        ------
        InvalidParameterError
            If the batch size changes under shuffled epochs: an epoch has no fixed length then.
        """
        lr, decay, amplitude, sizes = varying
        if self.source.kind == blocks.EPOCHS and len(sizes) and sizes.min() != sizes.max():
            raise InvalidParameterError(
                f"`batch_size` changes from {sizes.min()} to {sizes.max()} under shuffled epochs, expected one size: "
                "an epoch would have no fixed length.\nUse `sampler=WithoutReplacement()`."
            )
        compiled = self._compiled(watch, varying=True)
        # Copies: what was broadcast is read-only, for numba another type, for which all would be compiled again.
        steps, decays, amplitudes = (np.array(h.table, dtype=np.float64) for h in (lr, decay, amplitude))
        factors = np.stack([h.factor for h in (lr, decay, amplitude)], axis=1, dtype=np.float64)
        noisy = bool(np.any(amplitudes) and np.any(factors[:, 2]))
        source = self.source._replace(batch_size=np.array(sizes, dtype=np.int64))

        def hyper(part: slice) -> _Tables:
            return steps, decays, amplitudes, noisy, factors[part]

        return self._run(compiled, source, hyper, 0.0, state, n_steps, watch, purpose, n_threads)

    def _run(
        self,
        compiled: tuple[Loops, NDArray[np.float64]],
        source: DataSource,
        hyper: Callable[[slice], _Tables],
        bridge_scale: float,
        state: State,
        n_steps: int,
        watch: Watch | None,
        purpose: Purpose,
        n_threads: int,
    ) -> tuple[State, Record]:
        loops, constants = compiled
        replicas, low_high = state.n_replicas, split_seed(state.seed)
        theta = np.ascontiguousarray(state.theta.numpy())
        moved = np.empty_like(theta)
        streams = state.streams.numpy().astype(np.uint32)
        hit, fell = np.full(replicas, -1, dtype=np.int64), np.full(replicas, -1, dtype=np.int64)
        best = np.full(replicas, -np.inf)
        order = state.buffers["order"].numpy().copy() if "order" in state.buffers else np.zeros((replicas, 0), np.int64)
        border, data = _border_arguments(watch), source._replace(batch_size=np.atleast_1d(np.int64(source.batch_size)))
        room = blocks.noise_rows(theta.shape[1]), blocks.STRIDE
        precision = np.float32 if self.single else np.float64
        moments = kernel_engine.moments_address() if blocks.draws(source.kind) else 0

        def work(part: slice) -> None:
            arguments: tuple[Any, ...] = (
                *loops, moments, np.zeros(room, precision), np.empty(room, precision),
                theta[part], moved[part], streams[part], state.step, n_steps, *hyper(part), *low_high,
                np.uint32(purpose), *border, bridge_scale, hit[part], fell[part], best[part], order[part],
                constants, *data,
            )  # fmt: skip
            kernel_engine.advance(*arguments)

        parts = parts_of(replicas, n_threads, blocks.BLOCK, work=theta.size * n_steps)
        side_by_side(work, parts, n_threads)
        buffers = {**state.buffers, "order": torch.from_numpy(order)} if "order" in state.buffers else state.buffers
        advanced = replace(state, theta=torch.from_numpy(moved), step=state.step + n_steps, buffers=buffers)
        return advanced, Record(torch.from_numpy(hit), torch.from_numpy(best), torch.from_numpy(fell))

    def takes(self, watch: Watch | None, *, varying: bool = False) -> bool:
        """Whether it can do this: a watched score needs an expression; varying noise has no bridge."""
        if varying and (self._varying is None or (watch is not None and watch.bridge)):
            return False
        return watch is None or watch.score is None or self._score(watch.score) is not None

    def _score(self, score: Score) -> sympy.Expr | None:
        if self._latest[0] is not score:  # compared by identity: a score may hold arrays
            self._latest = score, score.expression(self.spec.landscape)
        return self._latest[1]

    def _compiled(self, watch: Watch | None, *, varying: bool) -> tuple[Loops, NDArray[np.float64]]:
        """Return the compiled loops and their constants."""
        feature = watch.region.feature if watch else 0
        score = self._score(watch.score) if watch and watch.score is not None else None
        key = feature, score, varying
        if key not in self._known:
            assert not varying or self._varying is not None
            spec = self._varying() if varying and self._varying is not None else self.spec
            text, constants = kernel_source.source(spec, feature, self.source.kind, score, varying=varying)
            self._known[key] = kernel_source.compiled(text, self.single), np.asarray(constants)
        return self._known[key]


def langevin_kernel(system: System | Model | Landscape, *, single: bool = False) -> Kernel | None:
    """Return the kernel of Langevin dynamics, or None where there is none: no expression, or too many weights.

    `single` draws its noise in single precision.
    """
    if isinstance(system, DeepLinearChain):  # the kernel of SGD on the population's moments: compiled once for both
        return Kernel(scalar_spec(system), population_source(ChainModel(system)), single=single)
    if isinstance(system, DeepLinearNetwork):
        return _network_kernel(system, population_source, single=single)
    if isinstance(system, DiagonalNetwork):
        return _diagonal_kernel(system, single=single)
    landscape = system if isinstance(system, Landscape) else getattr(system, "landscape", None)
    return Kernel(landscape_spec(landscape), single=single) if isinstance(landscape, Landscape) else None


def sgd_kernel(
    system: System | BatchModel | SampleModel,
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

    if isinstance(sampler, BySamples):  # compiled batches are drawn by moments
        return None
    if isinstance(system, Mode | DeepLinearChain):
        return Kernel(scalar_spec(system), source(model), partial(scalar_spec, system, DECAY))
    if isinstance(system, DiagonalNetwork) and isinstance(data, Population):
        return _diagonal_kernel(system)
    if isinstance(system, DeepLinearNetwork) and (_is_scalar(system) or isinstance(data, Population)):
        return _network_kernel(system, source)
    return None


def minibatch_kernel(
    system: System | Model | Landscape, model: BatchModel, label_noise: float, variance: float
) -> Kernel | None:
    """Return the kernel of Langevin dynamics with the noise of an online teacher's minibatches; None as `sgd_kernel`.

    It is SGD's own, on normal moments. `variance` is that of the moments' fluctuations relative to one sample's.
    """

    def source(model: BatchModel) -> DataSource:
        online = data_source(model, OnlineTeacher(label_noise), 0, ByMoments())
        return online._replace(xx=np.array([variance]))

    if isinstance(system, Mode | DeepLinearChain):
        return Kernel(scalar_spec(system), source(model))
    if isinstance(system, DeepLinearNetwork) and _is_scalar(system):
        return _network_kernel(system, source)
    return None


def _network_kernel(
    network: DeepLinearNetwork, source: Callable[[BatchModel], DataSource], *, single: bool = False
) -> Kernel | None:
    if network.n_parameters > MOST_PARAMETERS or not network.is_white:
        return None
    data = source(network) if _is_scalar(network) else NO_DATA
    return Kernel(network_spec(network), data, partial(network_spec, network, DECAY), single=single)


def _diagonal_kernel(network: DiagonalNetwork, *, single: bool = False) -> Kernel | None:
    """Return the kernel of the population's landscape: the same for SGD and Langevin dynamics."""
    if network.n_parameters > MOST_PARAMETERS:
        return None
    return Kernel(diagonal_spec(network), NO_DATA, partial(diagonal_spec, network, DECAY), single=single)


def _is_scalar(network: DeepLinearNetwork) -> bool:
    return network.n_inputs == network.n_outputs == 1


def _border_arguments(watch: Watch | None) -> tuple[bool, bool, float, float, float, float]:
    """Whether it watches, whether it bridges, the level, the floor (not a number: none), border and sign."""
    if watch is None:
        return False, False, np.inf, np.nan, np.inf, 1.0
    sign = watch.region.sign
    floor = np.nan if watch.floor is None else watch.floor
    return True, watch.bridge, watch.hit_level, floor, sign * watch.region.threshold, sign
