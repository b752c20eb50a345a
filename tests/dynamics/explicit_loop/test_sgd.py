"""SGD on modes and chains walks the paths of a plain loop that draws its batches itself."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain_loop import (
    ATOL,
    BATCH,
    DATA,
    DECAY,
    LABEL_NOISE,
    LR,
    PARAMETERS,
    REPLICAS,
    RTOL,
    SEED,
    STEPS,
    Array,
    Batch,
    Walk,
    compare,
    endless_moments,
    explicit,
    mode_walk,
    others,
    sampled,
    slope_of_product,
)

from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics.langevin import Langevin
from kramers_grok.dynamics.process import Watch
from kramers_grok.dynamics.sampling import (
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
)
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import population, teacher
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode


def chain_sgd_walk(batch: Batch, decay: float) -> Walk:
    """The mean of per-sample gradients of ½(y − m x)², sample by sample."""

    def gradient(a: Array, stream: int, step: int) -> Array:
        x, y = batch(stream, step)
        misfits = [-(yi - np.prod(a) * xi) * xi for xi, yi in zip(x[:, 0], y[:, 0], strict=True)]
        return np.mean(misfits) * others(a) + decay * a

    return Walk(gradient, lambda a: float(np.prod(a)), slope_of_product)


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
