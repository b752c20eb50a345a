"""Compiled CPU kernels of matrix networks of any widths: Langevin dynamics and SGD, in float64 or float32.

They are compiled once for all networks, where kernels of symbolic landscapes are written and compiled for each; those
are faster for very small networks. Paths are those of the torch loop to rounding, on the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from kramers_grok.core.lanes import lane_count
from kramers_grok.core.rng import Purpose, split_seed
from kramers_grok.dynamics import network_batches
from kramers_grok.dynamics.kernels import Varying
from kramers_grok.dynamics.network_advance import Border, Chain, advance
from kramers_grok.dynamics.network_batches import Batches
from kramers_grok.dynamics.network_steps import AGAINST, ALONG, LABEL, ONE, SPREAD, Layout, make_layout
from kramers_grok.dynamics.process import Record, State, Watch
from kramers_grok.dynamics.sampling import (
    BySamples,
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    teacher_of,
)
from kramers_grok.dynamics.threads import parts_of, side_by_side
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.models.deep_linear import DeepLinearNetwork

__all__ = ["BatchPlan", "NetworkKernel", "population_plan", "sgd_plan"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Where a kernel's batches come from.

    Attributes
    ----------
    kind : int
        One of those of :mod:`kramers_grok.dynamics.network_batches`.
    batch_size : int
        Where it does not vary.
    teacher : ndarray, shape (output, input)
        −M of an online teacher, or the constant Σ_yx (M itself where inputs are white).
    root : ndarray, shape (input, input)
        Σ_xx^½ of an online teacher, or the constant Σ_xx.
    spread : float, optional
        √q of white samples, or q of white constant moments; None where inputs are not white.
    label_noise : float
    data : FiniteData, optional
    """

    kind: int
    batch_size: int
    teacher: Array
    root: Array
    spread: float | None
    label_noise: float = 0.0
    data: FiniteData | None = None

    def compiled(self, summed_from: int, dtype: np.dtype[np.floating]) -> Batches:
        """Return it in the form that compiled code takes."""
        x, y = (np.zeros((1, 1)),) * 2 if self.data is None else (self.data.x, self.data.y)
        x, y = (np.array(a, dtype=dtype, order="C") for a in (x, y))  # writable: others would be compiled for anew
        return Batches(self.kind, summed_from, self.spread is not None, self.label_noise != 0.0, x, y)


def _constant(xx: Array, yx: Array) -> BatchPlan:
    """Return the plan of constant moments."""
    q = float(xx[0, 0])
    if q > 0.0 and (xx == q * np.eye(len(xx))).all():
        return BatchPlan(network_batches.CONSTANT, 1, yx / q, xx, q)
    return BatchPlan(network_batches.CONSTANT, 1, yx, xx, None)


def population_plan(network: DeepLinearNetwork) -> BatchPlan:
    """Return the plan of the population's moments."""
    return _constant(network.input_covariance, network.teacher_matrix @ network.input_covariance)


def sgd_plan(
    network: DeepLinearNetwork, data: OnlineTeacher | Population | FiniteData, batch_size: int, sampler: Sampler
) -> BatchPlan | None:
    """Return the plan of SGD's batches; None for shuffled epochs, whose orders are not drawn here."""
    if isinstance(data, Population):
        return population_plan(network)
    if isinstance(data, OnlineTeacher):
        kind = network_batches.SAMPLES if isinstance(sampler, BySamples) else network_batches.MOMENTS
        q = float(network.input_covariance[0, 0])
        spread = q**0.5 if network.is_white else None
        root = teacher_of(network, torch.empty(0, dtype=torch.float64)).root.numpy()
        return BatchPlan(kind, batch_size, -network.teacher_matrix, root, spread, data.label_noise)
    if isinstance(sampler, FullBatch):
        return _constant(data.input_covariance, data.cross_covariance)
    if isinstance(sampler, ShuffledEpochs):
        return None
    kind = network_batches.DISTINCT if isinstance(sampler, WithoutReplacement) else network_batches.REPLACEMENT
    return BatchPlan(kind, batch_size, network.teacher_matrix, np.zeros((1, 1)), None, data=data)


def _summed_from(widths: tuple[int, ...], plan: BatchPlan) -> int:
    """Columns from which on their second moments are cheaper, by multiplications."""
    if plan.kind == network_batches.MOMENTS:
        return 2**62
    layers = [above * below for below, above in pairwise(widths)]
    online = plan.kind == network_batches.SAMPLES
    inputs, outputs = widths[0], widths[-1]
    labels = outputs * inputs if online else 0  # M x
    by_columns = 3 * sum(layers) - layers[0] + labels
    summing = inputs * inputs + (outputs * inputs if not online or plan.label_noise else 0)
    fixed = inputs * 3 * (sum(layers) - layers[0]) + outputs * inputs**2 * (2 if online else 1)
    return -(-fixed // (by_columns - summing)) if by_columns > summing else 2**62


class Shape(Protocol):
    """What a kernel knows of its network: where its numbers lie in a block, and how order parameters are measured."""

    @property
    def weight_decay(self) -> float:
        """λ."""
        ...

    @property
    def measurable(self) -> bool:
        """Whether there are order parameters."""
        ...

    def layout(self, columns: int) -> tuple[NDArray[np.int64], Any]:
        """Return the table and the layout for batches of at most so many samples."""
        ...

    def vectors(self, feature: int | None) -> tuple[Array, Array]:
        """Return u and v of a feature; of any where none is watched."""
        ...

    def batches(self, plan: BatchPlan, feature: int | None, dtype: np.dtype[np.floating]) -> Any:
        """Return a plan in the form that compiled code takes; without a feature nothing is watched."""
        ...


@dataclass(frozen=True, eq=False)
class LinearShape:
    """A deep linear network.

    Attributes
    ----------
    network : DeepLinearNetwork
    """

    network: DeepLinearNetwork

    @property
    def weight_decay(self) -> float:
        """λ."""
        return self.network.weight_decay

    @property
    def measurable(self) -> bool:
        """Whether there are order parameters: always."""
        return True

    def layout(self, columns: int) -> tuple[NDArray[np.int64], Layout]:
        """Return the table and the layout for batches of at most so many samples."""
        return make_layout(self.network.widths, columns)

    def vectors(self, feature: int | None) -> tuple[Array, Array]:
        """Return u and v of a feature; of any where none is watched."""
        left, right = self.network.singular_vectors
        return left[feature or 0], right[feature or 0]

    def batches(self, plan: BatchPlan, feature: int | None, dtype: np.dtype[np.floating]) -> Batches:
        """Return a plan in the form that compiled code takes."""
        return plan.compiled(_summed_from(self.network.widths, plan), dtype)


class NetworkKernel:
    """A compiled `advance` for a network; the interface is that of `kernels.Kernel`.

    Parameters
    ----------
    network : DeepLinearNetwork or Shape
    plan : BatchPlan
    noise : torch.dtype
        Precision in which normal numbers are made.
    """

    def __init__(self, network: DeepLinearNetwork | Shape, plan: BatchPlan, noise: torch.dtype = torch.float64) -> None:
        self.shape: Shape = LinearShape(network) if isinstance(network, DeepLinearNetwork) else network
        self.plan = plan
        self.single = noise == torch.float32
        self._layouts: dict[int, tuple[NDArray[np.int64], Any]] = {}
        self._batches: dict[tuple[int | None, np.dtype[np.floating]], Any] = {}

    def takes(self, watch: Watch | None, *, varying: bool = False) -> bool:
        """Whether it can do this: no score but an order parameter; no bridge under varying noise."""
        if watch is None:
            return True
        return self.shape.measurable and watch.score is None and not (varying and watch.bridge)

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
        """Take `n_steps` steps of θ ← θ − step·∇L + amplitude·ξ; see `Process.advance`."""
        decay = self.shape.weight_decay
        rates = np.array([[step], [decay], [amplitude]], dtype=np.float64)
        sizes = np.array([self.plan.batch_size], dtype=np.int64)
        factors = np.ones((state.n_replicas, 3))
        return self._run(state, n_steps, watch, rates, factors, sizes, amplitude**2 / 2, purpose, n_threads)

    def advance_varying(
        self, state: State, n_steps: int, watch: Watch | None, *, varying: Varying, purpose: Purpose, n_threads: int
    ) -> tuple[State, Record]:
        """Take `n_steps` steps of θ ← θ − lr·(∇L + decay·θ) + amplitude·ξ, with numbers of every step and replica."""
        lr, decay, amplitude, sizes = varying
        rates = np.stack([h.table for h in (lr, decay, amplitude)], dtype=np.float64)
        factors = np.stack([h.factor for h in (lr, decay, amplitude)], axis=1, dtype=np.float64)
        sizes = np.array(sizes, dtype=np.int64)  # a copy: one that must not be written would be another type to numba
        return self._run(state, n_steps, watch, rates, factors, sizes, 0.0, purpose, n_threads)

    def _image(self, table: NDArray[np.int64], layout: Any, feature: int | None, dtype: np.dtype[np.floating]) -> Array:
        """Return what a block holds before the first step: constants, the same for all replicas, and zeros."""
        plan, (left, right) = self.plan, self.shape.vectors(feature)
        image = np.zeros((layout.end, lane_count(dtype)), dtype=dtype)
        constants = {
            layout.teacher: plan.teacher,
            layout.root: plan.root,
            table[ALONG, 0]: right,
            table[AGAINST, -1]: left,
            layout.rate + ONE: np.ones(1),
            layout.rate + SPREAD: np.array([plan.spread or 0.0]),
            layout.rate + LABEL: np.array([plan.label_noise]),
        }
        for entry, values in constants.items():
            image[entry : entry + values.size] = values.reshape(-1, 1)
        return image.ravel()

    def _run(
        self,
        state: State,
        n_steps: int,
        watch: Watch | None,
        rates: Array,
        factors: Array,
        sizes: NDArray[np.int64],
        bridge_scale: float,
        purpose: Purpose,
        n_threads: int,
    ) -> tuple[State, Record]:
        theta = np.ascontiguousarray(state.theta.numpy())
        replicas, dtype = state.n_replicas, theta.dtype
        streams = state.streams.numpy().astype(np.uint32)
        moved, best = np.empty_like(theta), np.full(replicas, -np.inf, dtype=dtype)
        hit, fell = np.full(replicas, -1, dtype=np.int64), np.full(replicas, -1, dtype=np.int64)
        size = int(sizes.max(initial=1))
        if size not in self._layouts:
            self._layouts[size] = self.shape.layout(size)
        table, layout = self._layouts[size]
        feature = None if watch is None else watch.region.feature
        image = self._image(table, layout, feature, dtype)
        if (feature, dtype) not in self._batches:
            self._batches[feature, dtype] = self.shape.batches(self.plan, feature, dtype)
        batches = self._batches[feature, dtype]
        noisy = bool(np.any(rates[2]) and np.any(factors[:, 2]))
        chain = Chain(theta.shape[1], *split_seed(state.seed), np.uint32(purpose), noisy, self.single)
        border = _border(watch, bridge_scale, dtype)

        def work(part: slice) -> None:
            advance(
                theta[part], moved[part], streams[part], state.step, n_steps, table, layout, image, batches, sizes,
                rates, factors[part], chain, border, hit[part], fell[part], best[part],
            )  # fmt: skip

        # Whole blocks for every thread: a block that is not full costs as much as a full one.
        lanes = lane_count(dtype)
        parts = parts_of(replicas, n_threads, lanes, lanes, work=theta.size * n_steps)
        side_by_side(work, parts, n_threads)
        advanced = replace(state, theta=torch.from_numpy(moved), step=state.step + n_steps)
        return advanced, Record(torch.from_numpy(hit), torch.from_numpy(best), torch.from_numpy(fell))


def _border(watch: Watch | None, bridge_scale: float, dtype: np.dtype[np.floating]) -> Border:
    if watch is None:
        return Border(False, False, np.inf, np.nan, 1.0, 0.0)
    floor = np.nan if watch.floor is None else float(dtype.type(watch.floor))
    level = float(dtype.type(watch.hit_level))  # as torch compares
    return Border(True, watch.bridge, level, floor, watch.region.sign, bridge_scale)
