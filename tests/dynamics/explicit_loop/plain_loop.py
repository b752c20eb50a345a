"""A plain loop over replicas and steps, written without the package's dynamics, and what it walks through."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import rng
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics.langevin import Fused, TorchSDE
from kramers_grok.dynamics.process import Process, Watch
from kramers_grok.dynamics.sampling import (
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
)
from kramers_grok.models.data import FiniteData, finite

Array = NDArray[np.float64]
SEED, REPLICAS, STEPS = 2**40 + 7, 24, 50
RTOL, ATOL = 1e-10, 1e-12


@dataclass(frozen=True)
class Walk:
    """What the plain loop needs to know: ∇F (θ, stream, step), m and |∇m| of θ."""

    gradient: Callable[[Array, int, int], Array]
    order: Callable[[Array], float]
    slope: Callable[[Array], float]


@dataclass(frozen=True)
class Ends:
    """Where replicas end, the steps at which they hit or fell (−1: they did not), their highest scores."""

    theta: Array
    hits: NDArray[np.int64]
    falls: NDArray[np.int64]
    best: Array


def explicit(
    walk: Walk,
    watch: Watch,
    start: Array,
    *,
    lr: float,
    amplitude: float,
    purpose: Purpose,
    score: Callable[[Array], float] | None = None,
) -> Ends:
    """θ ← θ − lr ∇F + amplitude ξ until the region is entered or the floor reached, one replica and step at a time.

    `score` is the watch's own score, if it has one.
    """
    region, hits, falls = watch.region, np.full(REPLICAS, -1), np.full(REPLICAS, -1)
    best = np.full(REPLICAS, -np.inf)
    sign = 1.0 if region.above else -1.0
    end = np.empty((REPLICAS, len(start)))
    for replica in range(REPLICAS):
        x = start.copy()
        for step in range(STEPS):
            xi = rng.normals(SEED, purpose, [replica], step, len(x))[0]
            moved = x - lr * walk.gradient(x, replica, step) + amplitude * xi
            gaps = [sign * (region.threshold - walk.order(point)) for point in (x, moved)]
            value = sign * walk.order(moved)
            crossed = gaps[1] <= 0
            if score is not None:
                value = np.inf if crossed else score(moved)
            if watch.level is not None:
                crossed = value >= watch.level
            best[replica] = max(best[replica], value)
            if watch.bridge and not crossed and walk.slope(x) > 0:
                exponent = gaps[0] * gaps[1] / (walk.slope(x) * walk.slope(moved)) / (amplitude**2 / 2)
                crossed = rng.uniforms(SEED, Purpose.BRIDGE, [replica], step, 1)[0, 0] < np.exp(-exponent)
            x = moved
            if crossed:
                hits[replica] = step + 1
                break
            if watch.floor is not None and value <= watch.floor:
                falls[replica] = step + 1
                break
        end[replica] = x
    return Ends(end, hits, falls, best)


def compare(process: Process, watch: Watch, start: Array, expected: Ends) -> None:
    state, record = process.advance(process.start(REPLICAS, seed=SEED, point=start), STEPS, watch)
    assert record.hit_step.tolist() == expected.hits.tolist()
    assert record.fell_step.tolist() == expected.falls.tolist()
    np.testing.assert_allclose(state.theta, expected.theta, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(record.best, expected.best, rtol=RTOL, atol=ATOL)
    assert state.step == STEPS


def others(a: Array) -> Array:
    """∂m/∂a_l of a chain: the product of the other weights."""
    return np.array([np.prod(np.delete(a, l)) for l in range(len(a))])


def slope_of_product(a: Array) -> float:
    return float(np.linalg.norm(others(a)))


Q, SIGMA, DECAY = 0.8, 1.3, 0.25
PARAMETERS = {"singular_value": SIGMA, "weight_decay": DECAY, "input_variance": Q}
INTEGRATORS = {"compiled": Fused(), "torch": Fused(compiled=False), "torchsde": TorchSDE("euler")}


def mode_walk() -> Walk:
    """D = 3 in arc length: m = (x/√3)³."""

    def gradient(x: Array, stream: int, step: int) -> Array:
        m, slope = (x / 3**0.5) ** 3, x**2 / 3**0.5
        return Q * (m - SIGMA) * slope + DECAY * x

    return Walk(gradient, lambda x: float(x[0] ** 3) / 27**0.5, lambda x: float(x[0] ** 2) / 3**0.5)


def chain_walk() -> Walk:
    def gradient(a: Array, stream: int, step: int) -> Array:
        return Q * (np.prod(a) - SIGMA) * others(a) + DECAY * a

    return Walk(gradient, lambda a: float(np.prod(a)), slope_of_product)


# ---------------------------------------------------------------- minibatches

LR, BATCH, LABEL_NOISE = 0.15, 4, 0.6
Batch = Callable[[int, int], tuple[Array, Array]]  # (stream, step) → x (sample, input), y (sample, output)


def sampled(data: FiniteData, sampler: Sampler, size: int) -> Batch:
    n = data.n_samples

    def batch(stream: int, step: int) -> tuple[Array, Array]:
        match sampler:
            case WithReplacement():
                index = rng.integers(SEED, Purpose.DATA, [stream], step, n, size)[0]
            case WithoutReplacement():
                index = rng.sample_without_replacement(SEED, Purpose.DATA, [stream], step, n, size)[0]
            case ShuffledEpochs():
                epoch, position = divmod(step, n // size)
                order = rng.permutation(SEED, Purpose.SHUFFLE, [stream], epoch, n)[0]
                index = order[position * size : (position + 1) * size]
            case FullBatch():
                index = np.arange(n)
        return data.x[index], data.y[index]

    return batch


RNG = np.random.default_rng(5)
INPUTS = RNG.normal(size=11)
DATA = finite(INPUTS, INPUTS * 1.2 + RNG.normal(size=11) * LABEL_NOISE)


def endless_moments(source: str, stream: int, step: int) -> tuple[float, float]:
    """Σ̂_xx and Σ̂_yx of the population, or of a fresh batch."""
    if source == "population":
        return Q, Q * SIGMA
    chi2 = rng.chi_square(BATCH, SEED, Purpose.DATA, [stream], step)[0]
    noise = rng.normals(SEED, Purpose.LABEL, [stream], step, 1)[0, 0]
    xx = Q * chi2 / BATCH
    return xx, SIGMA * xx + LABEL_NOISE * (xx / BATCH) ** 0.5 * noise
