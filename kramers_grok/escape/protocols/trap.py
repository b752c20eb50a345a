r"""Trap and release: collapse features at a high weight decay, then watch the way out at a lower one.

A trap is verified before it is used. Its target feature must be outside the target in every replica, and the weights
must have stopped moving; how far the unused directions have collapsed is recorded for every layer, because an escape by
minibatch noise alone depends on it: the noise on one layer is a product of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.process import State
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import FiniteData, Population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.models.layers import LayeredModel, layers_of
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel

__all__ = ["Trap", "prepare_trap", "release_seed", "trap_and_release", "without_noise"]

Array = NDArray[np.float64]

# Share of the trap's time over which the weights must not move
_LATE = 0.25
# Change of a layer's mean squared norm that counts as none, relative to its size at the border of the target
_STILL = 0.01
# ... or in standard errors over the replicas, for weights that fluctuate
_ERRORS = 5.0


@dataclass(frozen=True, eq=False)
class Trap:
    """Replicas in a trap, and what is known of it.

    Attributes
    ----------
    theta : ndarray, shape (replica, parameter)
        Weights at the end of the trapping.
    order_parameters : ndarray, shape (replica, feature)
        m_k there.
    learned : ndarray of bool, shape (feature,)
        Features whose order parameter is, on average over the replicas, above half its singular value.
    unused_amplitudes : ndarray, shape (replica, layer)
        Root mean square of each layer's singular values beyond those of the learned features: the amplitude of the
        unused directions [weight]. NaN for a layer that has none.
    weight_decay : float
        λ of the trap.
    time : float
        Time spent in it [time].
    """

    theta: Array
    order_parameters: Array
    learned: NDArray[np.bool_]
    unused_amplitudes: Array
    weight_decay: float
    time: float

    def variables(self) -> Mapping[str, Any]:
        """The trap as labelled variables and scalars of a data set, by their names."""
        return {
            "trap_order_parameter": (
                ("replica", "feature"), self.order_parameters, describe("trap_order_parameter"),
            ),
            "trap_amplitude": (("replica", "layer"), self.unused_amplitudes, describe("trap_amplitude")),
            "trap_learned": ("feature", self.learned, describe("trap_learned")),
        }  # fmt: skip

    def coordinates(self) -> Mapping[str, Any]:
        """How the trap was made."""
        return {
            "trap_weight_decay": ((), self.weight_decay, describe("trap_weight_decay")),
            "trap_time": ((), self.time, describe("trap_time")),
        }


def release_seed(seed: int) -> int:
    """Return the seed of what follows a trap that was prepared with `seed`, so that no noise is used twice.

    Examples
    --------
    >>> release_seed(0) != release_seed(1)
    True
    """
    return int(np.random.SeedSequence([checks.seed(seed), 1]).generate_state(1, np.uint64)[0])


def without_noise(process: SGD) -> SGD:
    """Return full-batch descent of the same loss: no minibatches, no injected noise. The control that never escapes.

    Examples
    --------
    >>> from kramers_grok.core.noise import per_sample
    >>> from kramers_grok.models.data import teacher
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> sgd = SGD(DeepLinearChain(3, 1.0, 0.25), teacher(label_noise=0.1), lr=0.1, batch_size=8,
    ...     noise=per_sample(variance=0.3))
    >>> without_noise(sgd).temperature
    0.0
    """
    data = process.data if isinstance(process.data, FiniteData) else Population()
    return process.replace(data=data, batch_size=None, sampler=None, noise=None, activation_noise=None)


def prepare_trap(
    trapping: SGD,
    *,
    trap_time: float,
    target: Region,
    n_replicas: int,
    seed: int,
    start: ArrayLike | None = None,
) -> Trap:
    """Run replicas in a trap, and verify that it is one.

    Parameters
    ----------
    trapping : SGD
        At the trap's weight decay: above the spinodals of the features that are to collapse.
    trap_time : float
        How long [time].
    target : Region
        Where a replica will count as escaped after its release: no replica may be there.
    n_replicas, seed
        As in `first_passage`.
    start : array_like, shape (parameter,) or (replica, parameter), optional
        Where replicas begin, learned or random; all weights 0 if not given.

    Raises
    ------
    InvalidParameterError
        If a replica is in the target at the end (the feature is left learned), or the weights still move: a layer's
        mean squared norm changed over the last quarter by more than five standard errors over the replicas and more
        than 1 % of its size at the target's border.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> learned = DeepLinearChain(3, 1.0, 0.25).forgetting_barrier().minimum
    >>> high = SGD(DeepLinearChain(3, 1.0, 0.6), population(), lr=0.1)
    >>> trap = prepare_trap(high, trap_time=40.0, target=Region(0.3), n_replicas=2, seed=0, start=learned)
    >>> trap.learned.tolist(), bool((trap.unused_amplitudes < 1e-6).all())
    ([False], True)
    """
    dt = trapping.dt
    steps = int(np.ceil(checks.positive("trap_time", trap_time, "features need time to collapse") / dt))
    late = max(1, round(_LATE * steps))
    state = trapping.start(n_replicas, seed=seed, point=start)
    before, _ = trapping.advance(state, steps - late)
    after, _ = trapping.advance(before, late)
    m = trapping.order_parameters(after.theta).detach().cpu().numpy().astype(np.float64)
    if not 0 <= target.feature < m.shape[1]:
        raise checks.invalid("target.feature", target.feature, f"0 to {m.shape[1] - 1}", "one for each order parameter")
    _check_collapsed(m, target, float(trapping.weight_decay))
    _check_settled(trapping, before, after, target)
    learned = np.abs(m).mean(axis=0) > 0.5 * _singular_values(trapping, m.shape[1])
    return Trap(
        theta=after.theta.detach().cpu().numpy().astype(np.float64),
        order_parameters=m,
        learned=learned,
        unused_amplitudes=_unused(trapping, after.theta, int(learned.sum())),
        weight_decay=float(trapping.weight_decay),
        time=steps * dt,
    )


def trap_and_release(
    trapping: SGD,
    released: SGD,
    *,
    trap_time: float,
    target: Region,
    n_replicas: int,
    max_time: float,
    seed: int,
    start: ArrayLike | None = None,
    extra: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> xr.Dataset:
    """Collapse features at one weight decay, release at another, and measure when replicas escape.

    Parameters
    ----------
    trapping, released : SGD
        The same network at the trap's weight decay and at that of the release; noise and batches may differ.
        ``without_noise(released)`` is the control that never escapes.
    trap_time, target, n_replicas
        As in `prepare_trap`.
    max_time : float
        Horizon after the release [time].
    seed, start
        As in `prepare_trap`.
    extra, progress
        As in `first_passage`.

    Returns
    -------
    xarray.Dataset
        That of `first_passage`, the clock starting at the release, with ``trap_order_parameter`` (replica, feature),
        ``trap_amplitude`` (replica, layer) of the unused directions, ``trap_learned`` (feature) and the coordinates
        ``trap_weight_decay`` and ``trap_time``.

    Raises
    ------
    InvalidParameterError
        If the trap is none (see `prepare_trap`), or as in `first_passage`.

    Examples
    --------
    >>> from kramers_grok.core.noise import per_sample
    >>> from kramers_grok.core.region import beyond
    >>> from kramers_grok.models.data import teacher
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> low, high = (DeepLinearChain(3, 1.0, decay) for decay in (0.25, 0.6))
    >>> noise, data = per_sample(temperature=0.004), teacher(label_noise=0.1)
    >>> trapping, released = (SGD(c, data, lr=0.1, batch_size=16, noise=noise) for c in (high, low))
    >>> learned = low.forgetting_barrier().minimum
    >>> result = trap_and_release(trapping, released, trap_time=60.0, target=beyond(low.barrier()), n_replicas=16,
    ...     max_time=2000.0, seed=0, start=learned)
    >>> bool(result.escaped.all()), float(result.trap_weight_decay), bool(result.trap_learned.any())
    (True, 0.6, False)
    """
    trap = prepare_trap(
        trapping, trap_time=trap_time, target=target, n_replicas=n_replicas, seed=seed, start=start
    )  # fmt: skip
    result = first_passage(
        released,
        target=target,
        n_replicas=n_replicas,
        max_time=max_time,
        seed=release_seed(seed),
        start=trap.theta,
        extra=extra,
        progress=progress,
    )
    return result.assign(trap.variables()).assign_coords(trap.coordinates())


# ---------------------------------------------------------------- verification


def _check_collapsed(m: Array, target: Region, decay: float) -> None:
    inside = target.contains(m[:, target.feature])
    if inside.any():
        state = "learned" if target.above else "forgotten"
        fix = "higher" if target.above else "lower"
        raise InvalidParameterError(
            f"The trap is none: feature {target.feature} is {state} in {int(inside.sum())} of {len(inside)} replicas "
            f"at its end (m = {float(np.median(m[inside, target.feature])):.3g}, border {target.threshold:.3g}, "
            f"weight_decay = {decay:g}), expected all of them outside the target.\n"
            f"Use a longer `trap_time`, or a {fix} weight decay for `trapping`: `spectrum.spinodals(depth)` says where "
            "each feature is lost."
        )


def _check_settled(process: SGD, before: State, after: State, target: Region) -> None:
    first, last = (_squared_norms(process, s.theta) for s in (before, after))
    change = (last - first).mean(axis=0)
    spread = (last - first).std(axis=0, ddof=1) / np.sqrt(len(last)) if len(last) > 1 else np.zeros(last.shape[1])
    scale = abs(target.threshold) ** (2 / last.shape[1])
    moving = np.abs(change) > np.maximum(_ERRORS * spread, _STILL * scale)
    if moving.any():
        layer = int(np.argmax(np.abs(change) * moving))
        raise InvalidParameterError(
            f"The trap has not settled: the mean squared norm of layer {layer + 1} went from "
            f"{float(first[:, layer].mean()):.3g} to {float(last[:, layer].mean()):.3g} in the last quarter of "
            f"its time, expected a change below {_STILL:.0%} of {scale:.3g}, its size at the target's border.\n"
            "Use a longer `trap_time`: collapsing features decay as exp(-weight_decay · time)."
        )


def _layers(process: SGD, theta: Tensor) -> list[Tensor]:
    """Weight matrices of every layer, (replica, outputs, inputs); all weights in one row for other models."""
    model, points = process.model, theta.detach().to(device="cpu", dtype=torch.float64)
    return layers_of(model, points) if isinstance(model, LayeredModel) else [points.unsqueeze(1)]


def _squared_norms(process: SGD, theta: Tensor) -> Array:
    """Squared norm of every layer, shape (replica, layer)."""
    return np.stack([w.square().sum(dim=(1, 2)).numpy() for w in _layers(process, theta)], axis=1)


def _unused(process: SGD, theta: Tensor, rank: int) -> Array:
    """Root mean square of each layer's singular values beyond the `rank` largest, shape (replica, layer)."""
    columns = []
    for layer in _layers(process, theta):
        rest = torch.linalg.svdvals(layer)[:, rank:]
        empty = torch.full((len(layer),), torch.nan, dtype=torch.float64)
        columns.append((rest.square().mean(dim=1).sqrt() if rest.shape[1] else empty).numpy())
    return np.stack(columns, axis=1)


def _singular_values(process: SGD, count: int) -> Array:
    """σ_k of every order parameter; the largest one for models that do not know theirs, 1 without a teacher.

    In function space m itself is 1 where the target is computed.
    """
    model = process.model
    if isinstance(model, ModuleModel) or (isinstance(model, MLP) and model.own_readout is not None):
        return np.ones(count)
    model = model.linear if isinstance(model, MLP) else model
    if isinstance(model, DeepLinearNetwork):
        try:
            return np.asarray(model.singular_values)
        except InvalidParameterError:  # features that couple: their covariances over the mean input variance
            q = float(np.trace(model.input_covariance)) / model.n_inputs
            values = np.linalg.svd(model.teacher_matrix @ model.input_covariance, compute_uv=False) / q
            return np.asarray(values[:count])
    if isinstance(model, DiagonalNetwork):
        return np.array([chain.singular_value for chain in model.chains])
    matrix = np.ones((1, 1)) if model.teacher_matrix is None else model.teacher_matrix
    return np.full(count, float(np.linalg.norm(matrix, 2)))
