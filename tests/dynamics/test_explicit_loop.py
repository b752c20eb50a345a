"""Every engine walks the paths of a plain loop over replicas and steps, written here without the package's dynamics."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import sympy
import torch
from numpy.typing import NDArray

from kramers_grok.core import rng
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.process import Process, Watch
from kramers_grok.dynamics.sampling import FullBatch, Sampler, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

Array = NDArray[np.float64]
SEED, REPLICAS, STEPS = 2**40 + 7, 24, 50
RTOL, ATOL = 1e-10, 1e-12


@dataclass(frozen=True)
class Walk:
    """What the plain loop needs to know: ∇F (θ, stream, step), m and |∇m| of θ."""

    gradient: Callable[[Array, int, int], Array]
    order: Callable[[Array], float]
    slope: Callable[[Array], float]


def explicit(
    walk: Walk, watch: Watch, start: Array, *, lr: float, amplitude: float, purpose: Purpose
) -> tuple[Array, NDArray[np.int64], Array]:
    """θ ← θ − lr ∇F + amplitude ξ until the region is entered, one replica and one step at a time."""
    region, hits, best = watch.region, np.full(REPLICAS, -1), np.full(REPLICAS, -np.inf)
    sign = 1.0 if region.above else -1.0
    end = np.empty((REPLICAS, len(start)))
    for replica in range(REPLICAS):
        x = start.copy()
        for step in range(STEPS):
            xi = rng.normals(SEED, purpose, [replica], step, len(x))[0]
            moved = x - lr * walk.gradient(x, replica, step) + amplitude * xi
            gaps = [sign * (region.threshold - walk.order(point)) for point in (x, moved)]
            best[replica] = max(best[replica], sign * walk.order(moved))
            crossed = gaps[1] <= 0
            if watch.bridge and not crossed and walk.slope(x) > 0:
                exponent = gaps[0] * gaps[1] / (walk.slope(x) * walk.slope(moved)) / (amplitude**2 / 2)
                crossed = rng.uniforms(SEED, Purpose.BRIDGE, [replica], step, 1)[0, 0] < np.exp(-exponent)
            x = moved
            if crossed:
                hits[replica] = step + 1
                break
        end[replica] = x
    return end, hits, best


def compare(process: Process, watch: Watch, start: Array, expected: tuple[Array, NDArray[np.int64], Array]) -> None:
    state, record = process.advance(process.start(REPLICAS, seed=SEED, point=start), STEPS, watch)
    end, hits, best = expected
    assert record.hit_step.tolist() == hits.tolist()
    np.testing.assert_allclose(state.theta, end, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(record.best, best, rtol=RTOL, atol=ATOL)
    assert state.step == STEPS


def others(a: Array) -> Array:
    """∂m/∂a_l of a chain: the product of the other weights."""
    return np.array([np.prod(np.delete(a, l)) for l in range(len(a))])


def slope_of_product(a: Array) -> float:
    return float(np.linalg.norm(others(a)))


# ---------------------------------------------------------------- Langevin

Q, SIGMA, DECAY = 0.8, 1.3, 0.25


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


X, Y = sympy.symbols("x y", real=True)
DOUBLE_WELL = Landscape((X**2 - 1) ** 2 + 0.3 * X + X * Y / 4 + Y**2 / 2, (X, Y), (X, X + 0.5 * Y))


def double_well_walk() -> Walk:
    """Watches the second order parameter, x + y/2."""

    def gradient(z: Array, stream: int, step: int) -> Array:
        x, y = z
        return np.array([4 * x * (x * x - 1) + 0.3 + y / 4, x / 4 + y])

    return Walk(gradient, lambda z: z[0] + 0.5 * z[1], lambda z: 1.25**0.5)


PARAMETERS = {"singular_value": SIGMA, "weight_decay": DECAY, "input_variance": Q}
# system, walk, start, temperature, dt, region
LANGEVIN = {
    "mode": (Mode(depth=3, **PARAMETERS), mode_walk(), np.array([0.6]), 0.05, 0.1, Region(0.25)),
    "mode, forgetting": (
        Mode(depth=3, **PARAMETERS), mode_walk(), np.array([1.4]), 0.05, 0.1, Region(0.3, above=False)
    ),
    "chain 3": (DeepLinearChain(3, **PARAMETERS), chain_walk(), np.full(3, 0.4), 0.1, 0.1, Region(0.2)),
    "chain 4": (DeepLinearChain(4, **PARAMETERS), chain_walk(), np.full(4, 0.5), 0.1, 0.1, Region(0.2)),
    "chain 3 from 0": (DeepLinearChain(3, **PARAMETERS), chain_walk(), np.zeros(3), 0.15, 0.1, Region(0.2)),
    "double well": (DOUBLE_WELL, double_well_walk(), np.array([-0.9, 0.1]), 0.4, 0.03, Region(0.0, feature=1)),
}  # fmt: skip
INTEGRATORS = {"compiled": Fused(), "torch": Fused(compiled=False), "torchsde": TorchSDE("euler")}


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("name", LANGEVIN)
def test_langevin(name: str, bridge: bool) -> None:
    system, walk, start, temperature, dt, region = LANGEVIN[name]
    watch, amplitude = Watch(region, bridge=bridge), (2 * temperature * dt) ** 0.5
    expected = explicit(walk, watch, start, lr=dt, amplitude=amplitude, purpose=Purpose.LANGEVIN)
    escaped = (expected[1] >= 0).sum()
    assert 0 < escaped < REPLICAS  # both kinds of end are seen
    for integrator in INTEGRATORS.values():
        compare(Langevin(system, temperature=temperature, dt=dt, integrator=integrator), watch, start, expected)


def test_a_bridge_sees_what_the_steps_do_not() -> None:
    system, _, start, temperature, dt, region = LANGEVIN["double well"]
    process = Langevin(system, temperature=temperature, dt=dt)
    hits = [
        process.advance(process.start(REPLICAS, seed=SEED, point=start), STEPS, Watch(region, bridge=bridge))[
            1
        ].hit_step
        for bridge in (False, True)
    ]
    at_steps, between = (torch.where(h < 0, STEPS + 1, h) for h in hits)
    assert (between <= at_steps).all()
    assert (between < at_steps).any()


def test_without_noise_it_is_gradient_descent() -> None:
    system, walk, start, _, dt, region = LANGEVIN["double well"]
    for bridge in (False, True):
        watch = Watch(region, bridge=bridge)
        expected = explicit(walk, Watch(region), start, lr=dt, amplitude=0.0, purpose=Purpose.LANGEVIN)
        assert (expected[1] == -1).all()
        for integrator in INTEGRATORS.values():
            compare(Langevin(system, temperature=0.0, dt=dt, integrator=integrator), watch, start, expected)


def test_another_temperature_walks_another_path() -> None:
    """Negative control: the comparison above notices a temperature wrong by one part in a million."""
    system, walk, start, temperature, dt, region = LANGEVIN["chain 3"]
    expected = explicit(walk, Watch(region), start, lr=dt, amplitude=(2 * temperature * dt) ** 0.5,
                        purpose=Purpose.LANGEVIN)  # fmt: skip
    warmer = Langevin(system, temperature=temperature * (1 + 1e-6), dt=dt)
    with pytest.raises(AssertionError):
        compare(warmer, Watch(region), start, expected)


# ---------------------------------------------------------------- SGD

LR, BATCH, LABEL_NOISE = 0.15, 4, 0.6
Batch = Callable[[int, int], tuple[Array, Array]]  # (stream, step) → x (sample, input), y (sample, output)


def chain_sgd_walk(batch: Batch, decay: float) -> Walk:
    """The mean of per-sample gradients of ½(y − m x)², sample by sample."""

    def gradient(a: Array, stream: int, step: int) -> Array:
        x, y = batch(stream, step)
        misfits = [-(yi - np.prod(a) * xi) * xi for xi, yi in zip(x[:, 0], y[:, 0], strict=True)]
        return np.mean(misfits) * others(a) + decay * a

    return Walk(gradient, lambda a: float(np.prod(a)), slope_of_product)


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
START, REGION = np.array([0.7, 0.4, 0.6]), Region(0.3)


@pytest.mark.parametrize("injected", [0.0, 0.8])
@pytest.mark.parametrize("sampler", [WithReplacement(), WithoutReplacement(), ShuffledEpochs(), FullBatch()], ids=repr)
def test_sgd_on_finite_data(sampler: Sampler, injected: float) -> None:
    chain = DeepLinearChain.from_data(DATA.x[:, 0], DATA.y[:, 0], depth=3, weight_decay=DECAY)
    process = SGD(chain, DATA, lr=LR, batch_size=BATCH, sampler=sampler, noise=per_sample(variance=injected))
    size = DATA.n_samples if isinstance(sampler, FullBatch) else BATCH
    walk = chain_sgd_walk(sampled(DATA, sampler, size), DECAY)
    expected = explicit(walk, Watch(REGION), START, lr=LR, amplitude=LR * (injected / size) ** 0.5,
                        purpose=Purpose.INJECTED)  # fmt: skip
    compare(process, Watch(REGION), START, expected)
    compare(process.on_torch(), Watch(REGION), START, expected)
    if injected and not isinstance(sampler, FullBatch):
        assert 0 < (expected[1] >= 0).sum() < REPLICAS


def chain_moments_walk(moments: Callable[[int, int], tuple[float, float]], decay: float) -> Walk:
    def gradient(a: Array, stream: int, step: int) -> Array:
        xx, yx = moments(stream, step)
        return (xx * np.prod(a) - yx) * others(a) + decay * a

    return Walk(gradient, lambda a: float(np.prod(a)), slope_of_product)


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("source", ["online", "population"])
def test_sgd_on_endless_data(source: str, bridge: bool) -> None:
    chain, injected = DeepLinearChain(3, **PARAMETERS), 0.8

    def moments(stream: int, step: int) -> tuple[float, float]:
        if source == "population":
            return Q, Q * SIGMA
        chi2 = rng.chi_square(BATCH, SEED, Purpose.DATA, [stream], step)[0]
        noise = rng.normals(SEED, Purpose.LABEL, [stream], step, 1)[0, 0]
        xx = Q * chi2 / BATCH
        return xx, SIGMA * xx + LABEL_NOISE * (xx / BATCH) ** 0.5 * noise

    data = population() if source == "population" else teacher(label_noise=LABEL_NOISE)
    process = SGD(chain, data, lr=LR, batch_size=BATCH, noise=per_sample(variance=injected))
    watch = Watch(REGION, bridge=bridge)
    expected = explicit(chain_moments_walk(moments, DECAY), watch, START, lr=LR,
                        amplitude=LR * (injected / BATCH) ** 0.5, purpose=Purpose.INJECTED)  # fmt: skip
    assert 0 < (expected[1] >= 0).sum() < REPLICAS
    compare(process, watch, START, expected)
    compare(process.on_torch(), watch, START, expected)


def test_population_sgd_is_euler_maruyama() -> None:
    """With dt = lr and T = lr g²/(2B): in law, since the noise has another purpose; without noise, exactly."""
    chain = DeepLinearChain(3, **PARAMETERS)
    sgd, langevin = SGD(chain, population(), lr=LR), Langevin(chain, temperature=0.0, dt=LR)
    ends = [p.advance(p.start(1, seed=0, point=START), STEPS)[0].theta for p in (sgd, langevin)]
    torch.testing.assert_close(ends[0], ends[1], rtol=RTOL, atol=ATOL)
    noisy = SGD(chain, population(), lr=LR, batch_size=8, noise=per_sample(variance=0.5))
    assert noisy.temperature == pytest.approx(LR * 0.5 / 16, rel=1e-15)
    assert noisy._amplitude == pytest.approx((2 * noisy.temperature * LR) ** 0.5, rel=1e-14)


# ---------------------------------------------------------------- matrix networks

NETWORK = DeepLinearNetwork((2, 3, 2, 2), [1.5, 0.9], weight_decay=DECAY, input_variance=Q)
WIDTHS = NETWORK.widths
WEIGHTS = np.random.default_rng(8).normal(size=NETWORK.n_parameters) * 0.5


def matrices(theta: Array) -> list[Array]:
    parts, start = [], 0
    for below, above in pairwise(WIDTHS):
        parts.append(theta[start : start + above * below].reshape(above, below))
        start += above * below
    return parts


def chained(parts: list[Array], width: int) -> Array:
    product = np.eye(width)
    for w in parts:
        product = w @ product
    return product


def network_walk(batch: Batch) -> Walk:
    """Per-sample gradients A_lᵀ r xᵀ B_lᵀ, averaged; m is the first feature, at matrix entry (0, 0)."""

    def gradient(theta: Array, stream: int, step: int) -> Array:
        x, y = batch(stream, step)
        parts = matrices(theta)
        rows = []
        for l, w in enumerate(parts):
            below, above = chained(parts[:l], WIDTHS[0]), chained(parts[l + 1 :], WIDTHS[l + 1])
            total = np.zeros_like(w)
            for xi, yi in zip(x, y, strict=True):
                residual = chained(parts, WIDTHS[0]) @ xi - yi
                total += np.outer(above.T @ residual, below @ xi)
            rows.append((total / len(x) + DECAY * w).reshape(-1))
        return np.concatenate(rows)

    return Walk(gradient, lambda theta: float(chained(matrices(theta), WIDTHS[0])[0, 0]), lambda theta: np.nan)


def fresh(stream: int, step: int) -> tuple[Array, Array]:
    x = rng.normals(SEED, Purpose.DATA, [stream], step, BATCH * 2)[0].reshape(BATCH, 2) * Q**0.5
    noise = rng.normals(SEED, Purpose.LABEL, [stream], step, BATCH * 2)[0].reshape(BATCH, 2) * LABEL_NOISE
    return x, x @ NETWORK.teacher_matrix.T + noise


def white_data() -> FiniteData:
    """Inputs with second moment Q·1 exactly, labels the teacher's: what the network was told."""
    x = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 2)))[0] * (9 * Q) ** 0.5
    return finite(x, x @ NETWORK.teacher_matrix.T)


@pytest.mark.parametrize("source", ["online", "with replacement", "shuffled epochs"])
def test_sgd_on_a_matrix_network(source: str) -> None:
    data, sampler, batch = white_data(), None, fresh
    if source != "online":
        sampler = WithReplacement() if source == "with replacement" else ShuffledEpochs()
        batch = sampled(data, sampler, BATCH)
    given = teacher(label_noise=LABEL_NOISE) if source == "online" else data
    process = SGD(NETWORK, given, lr=LR, batch_size=BATCH, sampler=sampler, noise=per_sample(variance=0.3))
    watch = Watch(Region(1.5))
    expected = explicit(network_walk(batch), watch, WEIGHTS, lr=LR, amplitude=LR * (0.3 / BATCH) ** 0.5,
                        purpose=Purpose.INJECTED)  # fmt: skip
    assert 0 < (expected[1] >= 0).sum() < REPLICAS
    compare(process, watch, WEIGHTS, expected)
