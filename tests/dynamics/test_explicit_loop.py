"""Every engine walks the paths of a plain loop over replicas and steps, written here without the package's dynamics."""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from kramers_grok.dynamics.process import Observed, OrderParameter, Process, Watch
from kramers_grok.dynamics.sampling import (
    BySamples,
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
)
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
    escaped = (expected.hits >= 0).sum()
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
        assert (expected.hits == -1).all()
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


# ---------------------------------------------------------------- floors, levels and scores of one's own


@dataclass(frozen=True)
class Norm:
    """Distance from the origin as a score."""

    scale: float = 1.0

    def values(self, observed: Observed, theta: torch.Tensor) -> torch.Tensor:
        return self.scale * theta.square().sum(dim=1)

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        return sympy.Float(self.scale) * sum(x**2 for x in landscape.coordinates)


class TorchOnly(Norm):
    """The same without an expression."""

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        return None


# region's own score: floor, level; score of one's own, growing with the distance from 0 (a target above) or falling
WATCHES = {
    "floor": lambda border, above: Watch(border, floor=0.05 if above else -1.3),
    "floor and level": lambda border, above: Watch(border, floor=0.05 if above else -1.3, level=0.2 if above else -0.5),
    "floor and bridge": lambda border, above: Watch(border, floor=0.05 if above else -1.3, bridge=True),
    "the order parameter": lambda border, above: Watch(
        border, floor=0.05 if above else -1.3, score=OrderParameter(sign=1.0 if above else -1.0)
    ),
    "norm": lambda border, above: Watch(border, floor=-2.8 if not above else 0.25, score=Norm(1.0 if above else -1.0)),
    "norm with a level": lambda border, above: Watch(
        border, floor=-2.8 if not above else 0.25, score=Norm(1.0 if above else -1.0), level=1.1 if above else -1.2
    ),
    "torch alone": lambda border, above: Watch(
        border, floor=-2.8 if not above else 0.25, score=TorchOnly(1.0 if above else -1.0), level=1.1 if above else -1.2
    ),
}


@pytest.mark.parametrize("name", ["mode", "mode, forgetting", "chain 3"])
@pytest.mark.parametrize("kind", WATCHES)
def test_floors_levels_and_scores(name: str, kind: str) -> None:
    system, walk, start, temperature, dt, region = LANGEVIN[name]
    watch, amplitude = WATCHES[kind](region, region.above), (2 * temperature * dt) ** 0.5
    score = None
    if isinstance(watch.score, OrderParameter):
        score = lambda x: watch.region.sign * walk.order(x)  # noqa: E731
    elif watch.score is not None:
        score = lambda x: watch.region.sign * float(x @ x)  # noqa: E731
    expected = explicit(walk, watch, start, lr=dt, amplitude=amplitude, purpose=Purpose.LANGEVIN, score=score)
    hits, falls = (expected.hits >= 0).sum(), (expected.falls >= 0).sum()
    assert hits > 0
    assert falls > 0
    for integrator in INTEGRATORS.values():
        compare(Langevin(system, temperature=temperature, dt=dt, integrator=integrator), watch, start, expected)


def test_another_floor_or_score_is_noticed() -> None:
    """Negative control: the comparison above sees a floor, a level and a score that are off by a percent."""
    system, walk, start, temperature, dt, region = LANGEVIN["chain 3"]
    watch = Watch(region, floor=0.25, score=Norm(), level=1.1)
    process = Langevin(system, temperature=temperature, dt=dt)
    expected = explicit(walk, watch, start, lr=dt, amplitude=(2 * temperature * dt) ** 0.5, purpose=Purpose.LANGEVIN,
                        score=lambda x: float(x @ x))  # fmt: skip
    compare(process, watch, start, expected)
    for change in ({"floor": 0.2}, {"level": 1.0}, {"score": Norm(1.01)}):
        with pytest.raises(AssertionError):
            compare(process, replace(watch, **change), start, expected)


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
        assert 0 < (expected.hits >= 0).sum() < REPLICAS


def chain_moments_walk(moments: Callable[[int, int], tuple[float, float]], decay: float) -> Walk:
    def gradient(a: Array, stream: int, step: int) -> Array:
        xx, yx = moments(stream, step)
        return (xx * np.prod(a) - yx) * others(a) + decay * a

    return Walk(gradient, lambda a: float(np.prod(a)), slope_of_product)


def endless_moments(source: str, stream: int, step: int) -> tuple[float, float]:
    """Σ̂_xx and Σ̂_yx of the population, or of a fresh batch."""
    if source == "population":
        return Q, Q * SIGMA
    chi2 = rng.chi_square(BATCH, SEED, Purpose.DATA, [stream], step)[0]
    noise = rng.normals(SEED, Purpose.LABEL, [stream], step, 1)[0, 0]
    xx = Q * chi2 / BATCH
    return xx, SIGMA * xx + LABEL_NOISE * (xx / BATCH) ** 0.5 * noise


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("source", ["online", "population"])
def test_sgd_on_endless_data(source: str, bridge: bool) -> None:
    chain, injected = DeepLinearChain(3, **PARAMETERS), 0.8
    data = population() if source == "population" else teacher(label_noise=LABEL_NOISE)
    process = SGD(chain, data, lr=LR, batch_size=BATCH, noise=per_sample(variance=injected))
    watch = Watch(REGION, bridge=bridge)
    expected = explicit(chain_moments_walk(lambda *at: endless_moments(source, *at), DECAY), watch, START, lr=LR,
                        amplitude=LR * (injected / BATCH) ** 0.5, purpose=Purpose.INJECTED)  # fmt: skip
    assert 0 < (expected.hits >= 0).sum() < REPLICAS
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
    assert noisy._hyper.tables(0, 1).amplitude == pytest.approx((2 * noisy.temperature * LR) ** 0.5, rel=1e-14)


def mode_moments_walk(moments: Callable[[int, int], tuple[float, float]]) -> Walk:
    """D = 3 in arc length: the balanced chain's batch loss, ½ xx m² − yx m + ½ λ x²."""
    mode = mode_walk()

    def gradient(x: Array, stream: int, step: int) -> Array:
        xx, yx = moments(stream, step)
        return (xx * mode.order(x) - yx) * x**2 / 3**0.5 + DECAY * x

    return Walk(gradient, mode.order, mode.slope)


@pytest.mark.parametrize("source", ["online", "finite", "population"])
def test_sgd_in_the_mode(source: str) -> None:
    injected, data = (
        0.4,
        {"online": teacher(label_noise=LABEL_NOISE), "finite": DATA, "population": population()}[source],
    )
    mode, sampler = Mode(3, **PARAMETERS), None
    if source == "finite":
        mode, sampler = Mode.from_data(DATA.x[:, 0], DATA.y[:, 0], depth=3, weight_decay=DECAY), WithoutReplacement()
        batch = sampled(DATA, sampler, BATCH)

    def moments(stream: int, step: int) -> tuple[float, float]:
        if source != "finite":
            return endless_moments(source, stream, step)
        x, y = batch(stream, step)
        return float(np.mean(x * x)), float(np.mean(x * y))

    process = SGD(mode, data, lr=LR, batch_size=BATCH, sampler=sampler, noise=per_sample(variance=injected))
    watch, start = Watch(Region(0.3), floor=0.02), np.array([0.6])
    expected = explicit(mode_moments_walk(moments), watch, start, lr=LR, amplitude=LR * (injected / BATCH) ** 0.5,
                        purpose=Purpose.INJECTED)  # fmt: skip
    assert 0 < (expected.hits >= 0).sum() < REPLICAS
    assert (expected.falls >= 0).any()
    compare(process, watch, start, expected)
    compare(process.on_torch(), watch, start, expected)


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_under_minibatch_noise_alone_the_balanced_chain_is_the_mode(depth: int) -> None:
    """x = √D a all along the path: with isotropic noise, which unbalances the chain, it would not be."""
    data = teacher(label_noise=LABEL_NOISE)
    mode, chain = Mode(depth, **PARAMETERS), DeepLinearChain(depth, **PARAMETERS)
    for fused in (True, False) if depth == 3 else (False,):
        ends = []
        for system, start in ((mode, [depth**0.5]), (chain, np.ones(depth))):
            process = SGD(system, data, lr=LR, batch_size=BATCH, fused=fused)
            watch = Watch(Region(1.2), floor=0.8)
            ends.append(process.advance(process.start(REPLICAS, seed=SEED, point=start), STEPS, watch))
        (x, of_mode), (a, of_chain) = ends
        torch.testing.assert_close(x.theta, a.theta * depth**0.5 @ torch.ones(depth, 1).double() / depth)
        torch.testing.assert_close(a.theta, a.theta[:, :1].expand(-1, depth))
        assert torch.equal(of_mode.hit_step, of_chain.hit_step)
        assert torch.equal(of_mode.fell_step, of_chain.fell_step)
        torch.testing.assert_close(of_mode.best, of_chain.best)
        assert (of_mode.hit_step >= 0).any()
        assert (of_mode.fell_step >= 0).any()


# ---------------------------------------------------------------- matrix networks

NETWORK = DeepLinearNetwork((2, 3, 2, 2), [1.5, 0.9], weight_decay=DECAY, input_variance=Q)
ROTATED = DeepLinearNetwork((2, 2, 3, 3), [[0.4, 1.2], [-1.0, 0.3], [0.2, 0.1]], weight_decay=DECAY, input_variance=Q)
SCALAR = DeepLinearNetwork((1, 2, 3, 1), [SIGMA], weight_decay=DECAY, input_variance=Q)


def weights(network: DeepLinearNetwork) -> Array:
    return np.random.default_rng(8).normal(size=network.n_parameters) * 0.5


def matrices(network: DeepLinearNetwork, theta: Array) -> list[Array]:
    parts, start = [], 0
    for below, above in pairwise(network.widths):
        parts.append(theta[start : start + above * below].reshape(above, below))
        start += above * below
    return parts


def chained(parts: list[Array], width: int) -> Array:
    product = np.eye(width)
    for w in parts:
        product = w @ product
    return product


def network_walk(network: DeepLinearNetwork, error: Callable[[Array, int, int], Array], feature: int = 0) -> Walk:
    """∇F = A_lᵀ E B_lᵀ + λ W_l, with the mean error E = ⟨(W x − y) xᵀ⟩ of (W, stream, step); m = uᵀ W v."""
    widths, (u, _, vt) = network.widths, np.linalg.svd(network.teacher_matrix)

    def back(theta: Array, middle: Array) -> list[Array]:
        parts = matrices(network, theta)
        sides = [(chained(parts[l + 1 :], widths[l + 1]), chained(parts[:l], widths[0])) for l in range(len(parts))]
        return [above.T @ middle @ below.T for above, below in sides]

    def gradient(theta: Array, stream: int, step: int) -> Array:
        w = chained(matrices(network, theta), widths[0])
        return np.concatenate([g.ravel() for g in back(theta, error(w, stream, step))]) + DECAY * theta

    def order(theta: Array) -> float:
        return float(u[:, feature] @ chained(matrices(network, theta), widths[0]) @ vt[feature])

    def slope(theta: Array) -> float:
        return float(np.sqrt(sum((g**2).sum() for g in back(theta, np.outer(u[:, feature], vt[feature])))))

    return Walk(gradient, order, slope)


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("case", ["scalar", "diagonal", "rotated"])
def test_langevin_in_a_matrix_network(case: str, bridge: bool) -> None:
    network, feature, threshold, floor, temperature = {
        "scalar": (SCALAR, 0, 1.45, 0.5, 0.05), "diagonal": (NETWORK, 1, 0.08, -0.19, 0.02),
        "rotated": (ROTATED, 1, 0.6, -0.1, 0.03),
    }[case]  # fmt: skip
    dt, watch = 0.05, Watch(Region(threshold, feature=feature), bridge=bridge, floor=floor)
    walk = network_walk(network, lambda w, stream, step: Q * (w - network.teacher_matrix), feature)
    start, amplitude = weights(network), (2 * temperature * dt) ** 0.5
    expected = explicit(walk, watch, start, lr=dt, amplitude=amplitude, purpose=Purpose.LANGEVIN)
    assert 0 < (expected.hits >= 0).sum() < REPLICAS
    assert (expected.falls >= 0).any()
    for integrator in INTEGRATORS.values():
        process = Langevin(network, temperature=temperature, dt=dt, integrator=integrator)
        assert (process._kernel is not None) == (integrator == Fused())
        compare(process, watch, start, expected)


def fresh(stream: int, step: int) -> tuple[Array, Array]:
    x = rng.normals(SEED, Purpose.DATA, [stream], step, BATCH * 2)[0].reshape(BATCH, 2) * Q**0.5
    noise = rng.normals(SEED, Purpose.LABEL, [stream], step, BATCH * 2)[0].reshape(BATCH, 2) * LABEL_NOISE
    return x, x @ NETWORK.teacher_matrix.T + noise


def white_data() -> FiniteData:
    """Inputs with second moment Q·1 exactly, labels the teacher's: what the network was told."""
    x = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 2)))[0] * (9 * Q) ** 0.5
    return finite(x, x @ NETWORK.teacher_matrix.T)


def mean_error(batch: Batch) -> Callable[[Array, int, int], Array]:
    """Sample by sample: the mean of (W x − y) xᵀ."""

    def error(w: Array, stream: int, step: int) -> Array:
        x, y = batch(stream, step)
        return sum(np.outer(w @ xi - yi, xi) for xi, yi in zip(x, y, strict=True)) / len(x)

    return error


@pytest.mark.parametrize("source", ["online", "with replacement", "shuffled epochs", "population"])
def test_sgd_on_a_matrix_network(source: str) -> None:
    data, sampler, batch = white_data(), None, fresh
    if source in ("with replacement", "shuffled epochs"):
        sampler = WithReplacement() if source == "with replacement" else ShuffledEpochs()
        batch = sampled(data, sampler, BATCH)
    given = {"online": teacher(label_noise=LABEL_NOISE), "population": population()}.get(source, data)
    sampler = BySamples() if source == "online" else sampler
    process = SGD(NETWORK, given, lr=LR, batch_size=BATCH, sampler=sampler, noise=per_sample(variance=0.3))
    assert (process._kernel is not None) == (source != "shuffled epochs")
    error = mean_error(batch) if source != "population" else lambda w, *_: Q * (w - NETWORK.teacher_matrix)
    watch = Watch(Region(1.4), floor=-0.11 if source == "population" else -0.3)
    expected = explicit(network_walk(NETWORK, error), watch, weights(NETWORK), lr=LR,
                        amplitude=LR * (0.3 / BATCH) ** 0.5, purpose=Purpose.INJECTED)  # fmt: skip
    assert 0 < (expected.hits >= 0).sum() < REPLICAS
    compare(process, watch, weights(NETWORK), expected)
    compare(process.on_torch(), watch, weights(NETWORK), expected)


@pytest.mark.parametrize("source", ["online", "shuffled epochs", "population"])
def test_sgd_on_a_network_with_one_input_and_output(source: str) -> None:
    network, sampler = SCALAR, None
    error: Callable[[Array, int, int], Array]
    if source == "shuffled epochs":
        chain = DeepLinearChain.from_data(DATA.x[:, 0], DATA.y[:, 0], depth=3, weight_decay=DECAY)
        network = DeepLinearNetwork((1, 2, 3, 1), [chain.singular_value], weight_decay=DECAY,
                                    input_variance=chain.input_variance)  # fmt: skip
        sampler = ShuffledEpochs()
        error = mean_error(sampled(DATA, sampler, BATCH))
    else:

        def error(w: Array, stream: int, step: int) -> Array:
            xx, yx = endless_moments(source, stream, step)
            return w * xx - yx

    data = {"online": teacher(label_noise=LABEL_NOISE), "population": population()}.get(source, DATA)
    process = SGD(network, data, lr=LR, batch_size=BATCH, sampler=sampler, noise=per_sample(variance=0.6))
    assert process._kernel is not None
    watch, start = Watch(Region(1.35), floor=0.7), weights(network)
    expected = explicit(network_walk(network, error), watch, start, lr=LR, amplitude=LR * (0.6 / BATCH) ** 0.5,
                        purpose=Purpose.INJECTED)  # fmt: skip
    assert 0 < (expected.hits >= 0).sum() < REPLICAS
    assert (expected.falls >= 0).any()
    compare(process, watch, start, expected)
    compare(process.on_torch(), watch, start, expected)
