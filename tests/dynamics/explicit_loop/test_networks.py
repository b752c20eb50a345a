"""Langevin dynamics and SGD of matrix networks walk the paths of a plain loop."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from plain_loop import (
    BATCH,
    DATA,
    DECAY,
    INTEGRATORS,
    LABEL_NOISE,
    LR,
    REPLICAS,
    SEED,
    SIGMA,
    Array,
    Batch,
    Q,
    Walk,
    compare,
    endless_moments,
    explicit,
    sampled,
)

from kramers_grok.core import rng
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.process import Watch
from kramers_grok.dynamics.sampling import (
    BySamples,
    ShuffledEpochs,
    WithReplacement,
)
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

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
