"""On another device nothing strays back to the host: shown without one.

Fake CUDA tensors carry shapes and devices, no data: reading one raises, and so does mixing it with a CPU tensor.
A PyTorch built without CUDA cannot differentiate them, so bridges, which need the order parameter's slope, are shown on
the meta device, which has the same two properties.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from kramers_grok.core.noise import activation_noise, per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Cosine, Linear, Piecewise
from kramers_grok.dynamics import loop
from kramers_grok.dynamics.langevin import Langevin, TorchSDE
from kramers_grok.dynamics.minibatch_sde import Minibatches
from kramers_grok.dynamics.observables import (
    FeatureAmplitudes,
    Imbalance,
    LayerNorms,
    Loss,
    Observable,
    OrderParameters,
    Rank,
    SingularValues,
)
from kramers_grok.dynamics.optimizers import Adam, AdamW, Momentum
from kramers_grok.dynamics.process import OrderParameter, Process, Watch
from kramers_grok.dynamics.sampling import BySamples, Sampler, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.tracing import observe
from kramers_grok.dynamics.underdamped import UnderdampedLangevin
from kramers_grok.models.activations import Softplus
from kramers_grok.models.data import FiniteData, finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

CHAIN = DeepLinearChain(3, 1.0, 0.25)
NOISE = per_sample(variance=0.1)
SIGNS = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
CHAIN_DATA = finite(SIGNS, SIGNS)


def network() -> DeepLinearNetwork:
    """A new one each time: it keeps its constants where it was used."""
    return DeepLinearNetwork((2, 3, 2), [2.0, 1.0], weight_decay=0.1)


def network_data() -> FiniteData:
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 2)))[0] * 8**0.5
    return finite(x, x * [2.0, 1.0])


def sgd(kind: str, sampler: Sampler | None, device: str) -> SGD:
    model, finite_data = (CHAIN, CHAIN_DATA) if kind == "chain" else (network(), network_data())
    data = finite_data if sampler else teacher(label_noise=0.1)
    return SGD(model, data, lr=0.1, batch_size=3, sampler=sampler, noise=NOISE, device=device)


def langevin(system: Any, device: str, integrator: TorchSDE | None = None) -> Langevin:
    return Langevin(system, temperature=0.01, dt=0.1, device=device, integrator=integrator)


def minibatch(system: Any, data: Any, device: str) -> Langevin:
    return Langevin(system, temperature=0.01, dt=0.1, minibatch=Minibatches(data, 0.02), device=device)


PROCESSES: dict[str, Callable[[str], Process]] = {
    "sgd, mode": lambda device: SGD(Mode(3, 1.0, 0.25), CHAIN_DATA, lr=0.1, batch_size=3, noise=NOISE, device=device),
    "langevin, mode": lambda device: langevin(Mode(3, 1.0, 0.25), device),
    "langevin, chain": lambda device: langevin(CHAIN, device),
    "langevin, network": lambda device: langevin(network(), device),
    "langevin, euler": lambda device: langevin(network(), device, TorchSDE("euler")),
    "langevin, srk": lambda device: langevin(CHAIN, device, TorchSDE("srk")),
    "minibatch, network": lambda device: minibatch(network(), teacher(label_noise=0.1), device),
    "minibatch, network, finite": lambda device: minibatch(network(), network_data(), device),
    "inertia, chain": lambda device: UnderdampedLangevin(CHAIN, temperature=0.01, friction=0.5, dt=0.1, device=device),
    "inertia, network": lambda device: UnderdampedLangevin(
        network(), temperature=0.01, friction=0.5, dt=0.1, device=device
    ),
    "sgd, chain, population": lambda device: SGD(CHAIN, population(), lr=0.1, noise=NOISE, device=device),
    "sgd, network, full batch": lambda device: SGD(network(), network_data(), lr=0.1, noise=NOISE, device=device),
}
for kind in ("chain", "network"):
    for sampler in (None, WithReplacement(), WithoutReplacement(), ShuffledEpochs()):
        PROCESSES[f"sgd, {kind}, {sampler or 'online'}"] = lambda device, k=kind, s=sampler: sgd(k, s, device)  # type: ignore[misc]
PROCESSES["sgd, network, by samples"] = lambda device: SGD(
    network(), teacher(label_noise=0.1), lr=0.1, batch_size=3, sampler=BySamples(), noise=NOISE, device=device
)
PROCESSES["sgd, noisy activations, online"] = lambda device: SGD(
    CHAIN, teacher(label_noise=0.1), lr=0.1, batch_size=3, activation_noise=activation_noise(std=0.1), device=device
)
PROCESSES["sgd, noisy activations, finite"] = lambda device: SGD(
    network(), network_data(), lr=0.1, batch_size=3, activation_noise=activation_noise(std=0.1), device=device
)
PROCESSES["sgd, diagonal network"] = lambda device: SGD(
    DiagonalNetwork(3, [2.0, 1.0], weight_decay=0.1), teacher(label_noise=0.1), lr=0.1, batch_size=1, device=device
)
PROCESSES["sgd, correlated inputs"] = lambda device: SGD(
    DeepLinearNetwork((2, 3, 2), [2.0, 1.0], weight_decay=0.1, input_covariance=[[1.0, 0.2], [0.2, 2.0]]),
    teacher(label_noise=0.1), lr=0.1, batch_size=3, device=device,
)  # fmt: skip


def mlp() -> MLP:
    return MLP.from_data(network_data(), (3,), Softplus(), weight_decay=0.1, biases=True)


PROCESSES["sgd, mlp, epochs"] = lambda device: SGD(
    mlp(), network_data(), lr=0.1, batch_size=3, sampler=ShuffledEpochs(), noise=NOISE, device=device
)
PROCESSES["langevin, mlp"] = lambda device: langevin(mlp(), device)
PROCESSES["langevin, mlp between functions"] = lambda device: langevin(
    mlp().between_functions(np.zeros((8, 2)), network_data().y, data=finite(np.ones((8, 2)), np.ones((8, 2)))), device
)
PROCESSES["minibatch, mlp"] = lambda device: minibatch(mlp(), network_data(), device)
FIVE = np.arange(5)
CHANGES: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": Momentum(0.9, dampening=0.1)},
    "Nesterov": {"optimizer": Momentum(0.9, nesterov=True)},
    "Adam": {"optimizer": Adam()},
    "AdamW": {"optimizer": AdamW()},
    "schedules": {
        "lr": Cosine(0.1, 0.0, 4),
        "batch_size": Piecewise((2, 4, 2), (1, 3, 9)),
        "weight_decay": Linear(0, 1, 3),
    },
    "one for each": {"lr": 0.01 * (1 + FIVE), "weight_decay": 0.1 * FIVE, "noise": per_sample(variance=0.1 * FIVE)},
    "both": {"optimizer": AdamW(), "lr": Linear(0.1, 0.05, 3), "weight_decay": 0.1 * FIVE},
}


def changed(kind: str, change: str, device: str) -> SGD:
    model = CHAIN if kind == "chain" else network()
    given: dict[str, Any] = {"lr": 0.1, "batch_size": 3, "noise": NOISE} | CHANGES[change]
    return SGD(model, teacher(label_noise=0.1), device=device, **given)


for kind in ("chain", "network"):
    for change in CHANGES:
        PROCESSES[f"sgd, {kind}, {change}"] = lambda device, k=kind, c=change: changed(k, c, device)  # type: ignore[misc]
each_process = pytest.mark.parametrize("make", PROCESSES.values(), ids=PROCESSES)


class Transfers(TorchDispatchMode):
    """Counts operations that bring tensors to another device, or numbers to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {a.device for a in args if isinstance(a, Tensor)}
        if isinstance(out, Tensor) and devices and out.device not in devices:
            self.seen.append(str(func))
        return out


WATCHES = {
    "a region": Watch(Region(0.5)),
    "a floor": Watch(Region(0.5, above=False), floor=-2.0, level=-0.6),
    "a score": Watch(Region(0.5), floor=-2.0, score=OrderParameter(sign=-1.0), level=7.0),
}


@each_process
def test_steps_stay_on_the_device(make: Callable[[str], Process]) -> None:
    with FakeTensorMode():
        process = make("cuda")
        # Constants move once, here, for each batch size
        begun, _ = process.advance(process.start(5, seed=0), 3, WATCHES["a region"])
        for name, watch in WATCHES.items():
            with Transfers() as transfers:
                state, record = process.advance(begun, 2, watch)  # into the next epoch
            assert transfers.seen == [], name
            n = state.theta.shape[1]
            for tensor, shape in (
                (state.theta, (5, n)), (record.best, (5,)), (record.hit_step, (5,)), (record.fell_step, (5,))
            ):  # fmt: skip
                assert tensor.device.type == "cuda"
                assert tensor.shape == shape
            assert all(buffer.device.type == "cuda" for buffer in state.buffers.values())


MEASURED: list[Observable] = [
    OrderParameters(), SingularValues(), Rank(0.5), LayerNorms(), Imbalance(), FeatureAmplitudes(), Loss(population()),
    Loss(network_data(), "test_loss"),
]  # fmt: skip


def test_observables_stay_on_the_device() -> None:
    with FakeTensorMode():
        process = changed("network", "both", "cuda")
        state, _ = observe(process, process.start(5, seed=0), [0, 1], MEASURED)  # constants move once, here
        with Transfers() as transfers:
            state, values = observe(process, state, [1, 2, 3], MEASURED)
        assert transfers.seen == []
        assert set(values) == {measured.name for measured in MEASURED}
        for value in values.values():
            assert value.device.type == "cuda"
            assert value.shape[:2] == (5, 3)


@pytest.mark.parametrize("name", [name for name in PROCESSES if name.startswith("langevin")])
def test_bridges_stay_on_the_device(name: str) -> None:
    process = PROCESSES[name]("meta")
    state = process.start(5, seed=0)
    for above in (True, False):
        state, record = process.advance(state, 1, Watch(Region(0.5, above=above), bridge=True))
        assert {t.device.type for t in (state.theta, record.best, record.hit_step)} == {"meta"}


def run(step: loop.Step, device: str) -> None:
    process = langevin(CHAIN, device)
    loop.run(process.start(3, seed=0), 2, step, process, Watch(Region(0.5)), 0.1)


def reading(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
    return theta * float(theta.sum()), buffers


def deciding(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
    return (theta if bool((theta > 0).any()) else -theta), buffers


def straying(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
    return theta + torch.ones(3, dtype=torch.float64), buffers


@pytest.mark.parametrize("step", [reading, deciding, straying])
def test_a_stray_tensor_or_a_host_read_would_be_noticed(step: loop.Step) -> None:
    """Negative control."""
    with FakeTensorMode(), pytest.raises(RuntimeError, match=r"device|cuda|_local_scalar_dense"):
        run(step, "cuda")
    with pytest.raises(RuntimeError, match="meta"):
        run(step, "meta")


def test_a_transfer_would_be_noticed() -> None:
    """Negative control: a constant that is moved at every step is no error, but it is seen."""
    table = np.ones(3)

    def moving(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
        return theta + torch.as_tensor(table).to(theta), buffers

    with FakeTensorMode(), Transfers() as transfers:
        run(moving, "cuda")
    assert len(transfers.seen) == 2


@pytest.mark.cuda
@each_process
def test_cuda_walks_the_paths_of_the_cpu(make: Callable[[str], Process]) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        process = make(device)
        n = 5 if getattr(process, "_members", None) is not None else 50
        state, record = process.advance(process.start(n, seed=0), 30, Watch(Region(0.05)))
        ends.append((state.theta.cpu(), record.hit_step.cpu()))
    assert torch.equal(ends[0][1], ends[1][1])
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=1e-9, atol=1e-11)
