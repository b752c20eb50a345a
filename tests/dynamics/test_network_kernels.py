"""Compiled kernels of matrix networks: the torch loop's paths, whatever the batch, its place in it and the threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import kramers_grok as kg
from kramers_grok.core.noise import per_sample
from kramers_grok.core.rng import Purpose
from kramers_grok.core.samplers import BySamples, Sampler, WithoutReplacement
from kramers_grok.core.schedules import Piecewise
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.network_kernels import NetworkKernel
from kramers_grok.dynamics.process import Record, State, Watch, select
from kramers_grok.escape.scores import LayerAmplitudes
from kramers_grok.models.data import finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork

# Paths of two roundings drift apart by 1e-16 (1e-7) a step and stay together in a stable landscape.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
DTYPES = (torch.float64, torch.float32)

Process = Langevin | kg.SGD


def network(*widths: int, white: bool = True) -> DeepLinearNetwork:
    rng = np.random.default_rng(len(widths))
    matrix = 0.1 * rng.normal(size=(widths[-1], widths[0]))
    np.fill_diagonal(matrix, np.linspace(1.5, 0.7, min(matrix.shape)))
    root = rng.normal(size=(widths[0], widths[0]))
    covariance = None if white else root @ root.T / widths[0] + 0.1 * np.eye(widths[0])
    return DeepLinearNetwork(widths, matrix, weight_decay=0.1, input_covariance=covariance)


def langevin(model: DeepLinearNetwork, **changes: object) -> Langevin:
    return Langevin(model, **({"temperature": 0.02, "dt": 0.02} | changes))  # type: ignore[arg-type]


def sgd(model: DeepLinearNetwork, data: object, **changes: object) -> kg.SGD:
    return kg.SGD(model, data, **({"lr": 0.02, "noise": per_sample(variance=0.2)} | changes))  # type: ignore[arg-type]


def started(process: Process, n_replicas: int) -> State:
    size = process.model.n_parameters
    point = 0.3 * np.random.default_rng(2).normal(size=(n_replicas, size))
    return process.start(n_replicas, seed=3, point=point)


def on_torch(process: Process) -> Process:
    if isinstance(process, kg.SGD):
        return process.on_torch()
    return langevin(process.system, dtype=process.dtype, integrator=Fused(compiled=False))  # type: ignore[arg-type]


def agree(process: Process, watch: Watch | None = None, *, n_replicas: int = 21, n_steps: int = 150) -> Record:
    assert isinstance(process._kernel, NetworkKernel)
    state = started(process, n_replicas)
    slow, expected = on_torch(process).advance(state, n_steps, watch)
    fast, record = process.advance(state, n_steps, watch)
    tolerance = TOLERANCE[process.dtype]
    assert fast.theta.dtype == process.dtype
    assert fast.step == n_steps
    torch.testing.assert_close(fast.theta, slow.theta, rtol=0.0, atol=tolerance)
    torch.testing.assert_close(record.best.to(process.dtype), expected.best, rtol=0.0, atol=tolerance)
    assert torch.equal(record.hit_step, expected.hit_step)
    assert torch.equal(record.fell_step, expected.fell_step)
    return record


def middle(process: Process, *, feature: int = 0, sign: float = 1.0) -> float:
    """A threshold that about half of the replicas reach in time, between the highest scores of two of them."""
    far = kg.Region(sign * 1e6, above=sign > 0, feature=feature)
    _, record = process.advance(started(process, 21), 150, Watch(far))
    ordered = record.best.sort().values
    return float(sign * (ordered[10] + ordered[11]) / 2)


LANGEVIN = {
    "wide": network(8, 16, 16, 8),
    "unequal": network(3, 5, 2, 4),
    "two layers, not white": network(8, 6, 8, white=False),
    "four layers, not white": network(2, 3, 4, 5, 3, white=False),
    "one input, one output": network(1, 16, 16, 1),
}


@pytest.mark.parametrize("name", LANGEVIN)
@pytest.mark.parametrize("dtype", DTYPES)
def test_langevin_takes_the_paths_of_the_torch_loop(name: str, dtype: torch.dtype) -> None:
    model = LANGEVIN[name]
    if model.n_parameters <= 80 and model.is_white and dtype == torch.float64:
        pytest.skip("it has a kernel of its own landscape")
    process = langevin(model, dtype=dtype)
    threshold = middle(process)
    floor = float(process.order_parameters(started(process, 21).theta)[:, 0].quantile(0.2)) - 0.01
    record = agree(process, Watch(kg.Region(threshold), floor=floor))
    assert 0 < int((record.hit_step > 0).sum()) < 21


def test_crossings_between_two_steps_are_the_torch_loops() -> None:
    process = langevin(LANGEVIN["wide"], temperature=0.1)
    threshold = middle(process, feature=1, sign=-1.0)
    region = kg.Region(threshold, above=False, feature=1)
    bridged = agree_bridged(process, Watch(region, bridge=True, floor=-1.2))
    plain = process.advance(started(process, 21), 150, Watch(region, floor=-1.2))[1]
    earlier = (bridged.hit_step > 0) & ((plain.hit_step < 0) | (bridged.hit_step < plain.hit_step))
    assert bool(earlier.any())  # the bridge did something


def agree_bridged(process: Langevin, watch: Watch) -> Record:
    slow = Langevin(
        process.system, temperature=process.temperature, dt=process.dt, integrator=Fused(compiled=False)
    )  # fmt: skip
    state = started(process, 21)
    expected, wanted = slow.advance(state, 150, watch)
    fast, record = process.advance(state, 150, watch)
    torch.testing.assert_close(fast.theta, expected.theta, rtol=0.0, atol=1e-12)
    assert torch.equal(record.hit_step, wanted.hit_step)
    assert torch.equal(record.fell_step, wanted.fell_step)
    return record


BATCHES: dict[str, tuple[DeepLinearNetwork, float, int, Sampler | None]] = {
    "samples": (network(8, 16, 16, 8), 0.1, 8, BySamples()),
    "samples, not white": (network(3, 5, 2, 4, white=False), 0.1, 5, BySamples()),
    "samples summed up": (network(3, 5, 2, 4, white=False), 0.1, 60, BySamples()),
    "samples without label noise, summed up": (network(3, 5, 2, 4), 0.0, 60, BySamples()),
    "moments": (network(8, 16, 16, 8), 0.1, 11, None),
    "moments of fewer samples than inputs": (network(8, 6, 8, white=False), 0.1, 3, None),
    "scalar moments": (network(1, 16, 16, 1), 0.1, 4, None),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sgd_on_fresh_samples_takes_the_paths_of_the_torch_loop(name: str, dtype: torch.dtype) -> None:
    model, label_noise, size, sampler = BATCHES[name]
    process = sgd(model, teacher(label_noise=label_noise), batch_size=size, sampler=sampler, dtype=dtype)
    threshold = middle(process)
    record = agree(process, Watch(kg.Region(threshold)))
    assert 0 < int((record.hit_step > 0).sum()) < 21


@pytest.mark.parametrize("dtype", DTYPES)
def test_sgd_on_finite_data_takes_the_paths_of_the_torch_loop(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 5))
    data = finite(x, x[:, :3] @ rng.normal(size=(3, 3)) + 0.1 * rng.normal(size=(40, 3)))
    model = DeepLinearNetwork.from_data(data, (6, 4), weight_decay=0.1)
    agree(sgd(model, data, batch_size=4, dtype=dtype))
    agree(sgd(model, data, batch_size=4, dtype=dtype, sampler=WithoutReplacement()))
    agree(sgd(model, data, batch_size=39, dtype=dtype, sampler=WithoutReplacement()))
    agree(sgd(model, data, dtype=dtype))  # the full batch
    agree(sgd(network(8, 6, 8, white=False), population(), dtype=dtype, noise=None))


def test_shuffled_epochs_are_left_to_torch() -> None:
    rng = np.random.default_rng(4)
    data = finite(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)))
    model = DeepLinearNetwork.from_data(data, (6, 4), weight_decay=0.1)
    assert sgd(model, data, batch_size=4, sampler=kg.ShuffledEpochs())._kernel is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_hyperparameters_of_every_step_and_replica(dtype: torch.dtype) -> None:
    model = network(8, 16, 16, 8)
    process = sgd(
        model, teacher(label_noise=0.1), batch_size=Piecewise((4.0, 9.0, 40.0), (50, 100)), sampler=BySamples(),
        lr=np.linspace(0.01, 0.03, 21), weight_decay=Piecewise((0.1, 0.2), (70,)), dtype=dtype,
    )  # fmt: skip
    agree(process, Watch(kg.Region(middle(process)), floor=-0.4))
    region = kg.Region(0.5)
    assert process._kernel is not None
    assert not process._kernel.takes(Watch(region, bridge=True), varying=True)


def test_scores_of_ones_own_are_left_to_torch() -> None:
    model = network(8, 16, 16, 8)
    kernel = langevin(model)._kernel
    assert kernel is not None
    assert kernel.takes(None)
    assert kernel.takes(Watch(kg.Region(0.5)))
    assert not kernel.takes(Watch(kg.Region(0.5), score=LayerAmplitudes.of(model)))


PROCESSES = {
    "langevin": lambda dtype, threads: langevin(
        network(8, 16, 16, 8), dtype=dtype, integrator=Fused(n_threads=threads)
    ),
    "samples": lambda dtype, threads: sgd(
        network(8, 16, 16, 8), teacher(label_noise=0.1), batch_size=8, sampler=BySamples(), dtype=dtype,
        n_threads=threads,
    ),
    "moments": lambda dtype, threads: sgd(
        network(8, 6, 8, white=False), teacher(label_noise=0.1), batch_size=3, dtype=dtype, n_threads=threads
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_replica_depends_on_its_own_stream_alone_to_the_bit(name: str, dtype: torch.dtype) -> None:
    process = PROCESSES[name](dtype, 1)
    state = started(process, 37)
    watch = Watch(kg.Region(middle(process)))
    whole, record = process.advance(state, 60, watch)
    threaded, again = PROCESSES[name](dtype, 2).advance(state, 60, watch)
    assert torch.equal(threaded.theta, whole.theta)
    assert torch.equal(again.hit_step, record.hit_step)
    for index in (torch.tensor([5]), torch.arange(36, 2, -3)):
        some, own = process.advance(select(state, index), 60, watch)
        assert torch.equal(some.theta, whole.theta[index])
        assert torch.equal(own.hit_step, record.hit_step[index])
        assert torch.equal(own.best, record.best[index])
    halfway, _ = process.advance(state, 30)
    both, _ = process.advance(halfway, 30)
    straight, _ = process.advance(state, 60)
    assert torch.equal(both.theta, straight.theta)


def test_a_stopped_replica_stays_where_it_stopped() -> None:
    process = langevin(network(8, 16, 16, 8))
    state, watch = started(process, 21), Watch(kg.Region(middle(langevin(network(8, 16, 16, 8)))))
    whole, record = process.advance(state, 150, watch)
    stopped = int(torch.argmax(record.hit_step))
    alone, _ = process.advance(select(state, torch.tensor([stopped])), int(record.hit_step[stopped]))
    assert torch.equal(alone.theta[0], whole.theta[stopped])
    reached = process.order_parameters(whole.theta)[record.hit_step > 0, 0]
    assert bool((reached >= watch.region.threshold - 1e-12).all())


def test_what_diverges_is_handed_back_as_it_is() -> None:
    process = langevin(network(8, 16, 16, 8))
    state = started(process, 9)
    theta = state.theta.clone()
    theta[4] *= 1e3
    moved, record = process.advance(replace(state, theta=theta), 60, Watch(kg.Region(50.0), floor=-50.0))
    assert not bool(torch.isfinite(moved.theta[4]).all()) or int(record.hit_step[4] + record.fell_step[4]) > -2
    others = torch.tensor([i for i in range(9) if i != 4])
    alone, _ = process.advance(select(state, others), 60, Watch(kg.Region(50.0), floor=-50.0))
    assert torch.equal(moved.theta[others], alone.theta)


def test_no_steps_and_no_replicas() -> None:
    process = langevin(network(8, 16, 16, 8))
    state = started(process, 3)
    same, record = process.advance(state, 0, Watch(kg.Region(0.5), bridge=True))
    assert torch.equal(same.theta, state.theta)
    assert bool((record.best == -torch.inf).all())
    nobody, _ = process.advance(select(state, torch.zeros(0, dtype=torch.int64)), 5)
    assert nobody.n_replicas == 0
    assert nobody.step == 5


def test_single_precision_noise_moves_a_path_by_rounding_only() -> None:
    model = network(8, 16, 16, 8)
    process = langevin(model)
    state = started(process, 9)
    full, _ = process.advance(state, 50)
    kernel = NetworkKernel(model, process._kernel.plan, torch.float32)  # type: ignore[union-attr]
    single, _ = kernel.advance(
        state, 50, None, step=0.02, amplitude=process._amplitude, purpose=Purpose.LANGEVIN, n_threads=1
    )  # fmt: skip
    torch.testing.assert_close(single.theta, full.theta, rtol=0.0, atol=1e-5)
    assert not torch.equal(single.theta, full.theta)
