"""Compiled kernels of nonlinear networks walk the torch loop's paths, whatever the batch and the threads."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Linear
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.mlp_kernels import CHUNK, activation_of
from kramers_grok.dynamics.network_kernels import NetworkKernel
from kramers_grok.dynamics.process import OrderParameter, Watch
from kramers_grok.dynamics.sampling import FullBatch, Sampler, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.activations import GELU, Activation, Identity, Quadratic, ReLU, Softplus, Tanh
from kramers_grok.models.data import finite, teacher
from kramers_grok.models.mlp import MLP

SAMPLES = 2 * CHUNK + 5  # the whole data set is seen in three parts
X = np.random.default_rng(0).normal(size=(SAMPLES, 3))
DATA = finite(X, np.tanh(X @ np.random.default_rng(1).normal(size=(3, 2))))
ACTIVATIONS: tuple[Activation, ...] = (Identity(), Tanh(), ReLU(), GELU(), Softplus(), Quadratic())
SAMPLERS: dict[str, Sampler | None] = {
    "online": None, "replacement": WithReplacement(), "distinct": WithoutReplacement(), "full": FullBatch(),
}  # fmt: skip
F32, F64 = torch.float32, torch.float64


@cache
def network(activation: Activation, biases: bool) -> MLP:
    return MLP((3, 5, 4, 2), activation, weight_decay=0.1, data=DATA, biases=biases)


@cache
def with_teacher(activation: Activation, biases: bool) -> MLP:
    return MLP(
        (3, 5, 4, 2), activation, weight_decay=0.1, data=DATA, biases=biases, teacher_matrix=[1.0, 0.7],
        input_variance=0.8,
    )  # fmt: skip


def sgd(activation: Activation, biases: bool, sampler: Sampler | None, **more: object) -> SGD:
    given: dict[str, object] = {"lr": 0.02, "batch_size": 5, "noise": per_sample(variance=0.02)} | more
    if sampler is None:
        return SGD(with_teacher(activation, biases), teacher(label_noise=0.2), **given)  # type: ignore[arg-type]
    return SGD(network(activation, biases), DATA, sampler=sampler, **given)  # type: ignore[arg-type]


def start(process: SGD | Langevin, n: int) -> np.ndarray:
    size = process.model.n_parameters
    return np.random.default_rng(2).normal(size=size) * 0.3 * np.ones((n, 1))


def target(process: SGD | Langevin, move: float = 0.02) -> Region:
    """A little above where the replicas begin."""
    m = process.order_parameters(torch.from_numpy(start(process, 1)))
    return Region(float(m[0, 0]) + move)


CASES = [(a, F64) for a in ACTIVATIONS] + [(Tanh(), F32), (Softplus(), F32)]


@pytest.mark.parametrize(("activation", "dtype"), CASES, ids=[f"{a}-{str(d)[6:]}" for a, d in CASES])
def test_paths_are_torchs(activation: Activation, dtype: torch.dtype) -> None:
    """Over a hundred steps, with and without biases, for all batches and stops; hits at the same steps."""
    for number, (name, sampler) in enumerate(SAMPLERS.items()):
        process = sgd(activation, bool(number % 2), sampler, dtype=dtype)
        assert isinstance(process._kernel, NetworkKernel), name
        begin = process.start(17, seed=4, point=start(process, 17))
        for watch in (None, Watch(target(process), floor=target(process, -0.02).threshold)):
            ends, records = zip(*(p.advance(begin, 100, watch) for p in (process, process.on_torch())), strict=True)
            assert ends[0].theta.dtype == dtype
            tolerance = 1e-10 if dtype == F64 else 2e-5
            torch.testing.assert_close(ends[0].theta, ends[1].theta, rtol=tolerance, atol=tolerance)
            if dtype == F64:
                assert torch.equal(records[0].hit_step, records[1].hit_step)
                assert torch.equal(records[0].fell_step, records[1].fell_step)
            torch.testing.assert_close(records[0].best, records[1].best, rtol=tolerance, atol=tolerance)
        assert (records[0].hit_step > 0).any()
    # Negative control: noise of the next step.
    other = process.on_torch().advance(replace(begin, step=1), 100)[0]
    assert not torch.allclose(other.theta, process.advance(begin, 100)[0].theta, atol=1e-3)


@pytest.mark.parametrize("biases", [False, True])
def test_langevins_paths_are_torchs(biases: bool) -> None:
    """With the bridge: hits between two steps too."""
    process = Langevin(network(Tanh(), biases), temperature=0.02, dt=0.05)
    on_torch = Langevin(network(Tanh(), biases), temperature=0.02, dt=0.05, integrator=Fused(compiled=False))
    begin = process.start(21, seed=1, point=start(process, 21))
    watch = Watch(target(process, 0.05), bridge=True)
    ends, records = zip(*(p.advance(begin, 60, watch) for p in (process, on_torch)), strict=True)
    torch.testing.assert_close(ends[0].theta, ends[1].theta, rtol=1e-10, atol=1e-10)
    assert torch.equal(records[0].hit_step, records[1].hit_step)
    assert (records[0].hit_step > 0).any()
    steps = process.advance(begin, 60, Watch(target(process, 0.05)))[1].hit_step
    assert not torch.equal(records[0].hit_step, steps)  # the bridge finds some earlier


@pytest.mark.parametrize("dtype", [F64, F32], ids=["double", "single"])
def test_paths_depend_on_nothing_else(dtype: torch.dtype) -> None:
    """To the bit: neither on the number of replicas, nor on threads, nor on how a run is cut."""
    for sampler in SAMPLERS.values():
        process = sgd(Tanh(), True, sampler, dtype=dtype)
        point = start(process, 40)
        watch = Watch(target(process))
        whole, record = process.advance(process.start(40, seed=1, point=point), 30, watch)
        for n in (1, 7, 16):
            part, hits = process.advance(process.start(n, seed=1, point=point[:n]), 30, watch)
            assert torch.equal(part.theta, whole.theta[:n])
            assert torch.equal(hits.hit_step, record.hit_step[:n])
        threads, _ = process.replace(n_threads=3).advance(process.start(40, seed=1, point=point), 30, watch)
        assert torch.equal(threads.theta, whole.theta)
        free, _ = process.advance(process.start(40, seed=1, point=point), 30)
        cut, _ = process.advance(process.advance(process.start(40, seed=1, point=point), 11)[0], 19)
        assert torch.equal(free.theta, cut.theta)


def test_schedules_and_numbers_of_ones_own() -> None:
    several = {"lr": 0.01 * (1 + np.arange(5)), "weight_decay": 0.1 * np.arange(5)}
    growing = {"lr": Linear(0.02, 0.01, 30), "batch_size": Linear(2, 9, 30)}
    for more in (growing, several, {"batch_size": SAMPLES}):
        for sampler in (None, WithReplacement()):
            process = sgd(Tanh(), True, sampler, **more)
            begin = process.start(5, seed=4, point=start(process, 5))
            ends = [p.advance(begin, 40, Watch(target(process)))[0].theta for p in (process, process.on_torch())]
            torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-10)


def test_what_is_left_to_torch() -> None:
    class Cubic:
        def value(self, z: torch.Tensor) -> torch.Tensor:
            return z**3

        def derivative(self, z: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            return 3 * z**2

    own = MLP.from_data(DATA, (4,), Cubic(), weight_decay=0.1)
    assert activation_of(own) is None
    process = SGD(own, DATA, lr=0.01, batch_size=4)
    assert process._kernel is None
    assert process.advance(process.start(2, seed=0, point=start(process, 2)), 3)[0].theta.isfinite().all()
    assert sgd(Tanh(), False, ShuffledEpochs())._kernel is None
    assert sgd(Tanh(), False, None, dtype=torch.float16)._kernel is None
    kernel = sgd(Tanh(), False, None)._kernel
    assert kernel is not None
    assert not kernel.takes(Watch(Region(0.5), score=OrderParameter()))
    blind = SGD(MLP((2, 2, 2), Tanh(), weight_decay=0.1, teacher_matrix=[1.0]), teacher(label_noise=0.0), lr=0.1,
                batch_size=2)._kernel  # fmt: skip
    assert blind is not None
    assert blind.takes(None)
    assert not blind.takes(Watch(Region(0.5)))


OTHER = finite(np.random.default_rng(3).normal(size=(CHUNK + 3, 3)), np.zeros((CHUNK + 3, 2)))


def in_function_space(process: SGD, *, other: bool) -> SGD:
    """The same process, with an order parameter between two functions on its own samples or on others."""
    model = process.model
    assert isinstance(model, MLP)
    here = start(process, 1)[0]
    return process.replace(model=model.between(0.5 * here, -2.0 * here, data=OTHER if other else None))


@pytest.mark.parametrize("dtype", [F64, F32], ids=["double", "single"])
def test_order_parameters_in_function_space(dtype: torch.dtype) -> None:
    """Hits and highest scores are torch's, for whatever samples functions are compared on."""
    for number, sampler in enumerate(SAMPLERS.values()):
        process = in_function_space(sgd(Tanh(), bool(number % 2), sampler, dtype=dtype), other=number > 1)
        assert isinstance(process._kernel, NetworkKernel)
        begin = process.start(17, seed=4, point=start(process, 17))
        first, middle = (
            float(process.order_parameters(theta).median())
            for theta in (begin.theta, process.advance(begin, 50)[0].theta)
        )
        # Off the replica in the middle, where rounding would decide
        watch = Watch(Region(first + 0.97 * (middle - first), above=middle > first))
        (end, record), (own, expected) = (p.advance(begin, 100, watch) for p in (process, process.on_torch()))
        tolerance = 1e-10 if dtype == F64 else 2e-5
        torch.testing.assert_close(end.theta, own.theta, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(record.best, expected.best, rtol=tolerance, atol=tolerance)
        assert (record.hit_step > 0).any()
        assert dtype == F32 or torch.equal(record.hit_step, expected.hit_step)


def test_bridges_in_function_space() -> None:
    model = network(Tanh(), True)
    here = np.random.default_rng(2).normal(size=model.n_parameters) * 0.3
    model = model.between(0.5 * here, 2.0 * here, data=OTHER)
    records = []
    for fused in (True, False):
        process = Langevin(model, temperature=0.02, dt=0.05, integrator=Fused(compiled=fused))
        begin = process.start(21, seed=1, point=here)
        records.append(process.advance(begin, 60, Watch(target(process, 0.05), bridge=True))[1])
    assert torch.equal(records[0].hit_step, records[1].hit_step)
    assert (records[0].hit_step > 0).any()


def test_nothing_is_asked_of_features_that_nobody_watches() -> None:
    """Labels that no linear map explains: SGD runs, and a watch in function space does."""
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    data = finite(x, x[:, :1] ** 2)
    model = MLP.from_data(data, (3,), Quadratic(), weight_decay=0.1)
    process = SGD(model, data, lr=0.1, batch_size=2)
    process.advance(process.start(3, seed=0), 5)
    watched = process.replace(model=model.between_functions(0 * data.y, data.y))
    assert watched.advance(watched.start(3, seed=0), 5, Watch(Region(0.5)))[1].best.tolist() == [0.0] * 3


def test_online_training_may_be_watched_on_a_probe() -> None:
    model = MLP((3, 5, 4, 2), Tanh(), weight_decay=0.1, teacher_matrix=[1.0, 0.7], input_variance=0.8)
    here = np.random.default_rng(2).normal(size=model.n_parameters) * 0.3
    process = SGD(model.between(0.5 * here, -2.0 * here, data=OTHER), teacher(label_noise=0.2), lr=0.02, batch_size=5)
    begin, watch = process.start(3, seed=0, point=here), Watch(Region(10.0))
    best = [p.advance(begin, 20, watch)[1].best for p in (process, process.on_torch())]
    torch.testing.assert_close(best[0], best[1], rtol=1e-10, atol=1e-10)
