"""What is measured along a run, against the same computed by hand; nothing is read back before the end."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.noise import per_sample
from kramers_grok.core.schedules import Geometric
from kramers_grok.dynamics.langevin import Langevin
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
from kramers_grok.dynamics.process import Process, select
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.tracing import observe, trace
from kramers_grok.models.data import FiniteData, finite, linear_teacher_data, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

Array = NDArray[np.float64]
WIDTHS = (4, 3, 5, 3)
MATRIX = np.random.default_rng(0).normal(size=(3, 4))
ROOT = np.random.default_rng(1).normal(size=(4, 4))
NETWORK = DeepLinearNetwork(WIDTHS, MATRIX, weight_decay=0.1, input_covariance=ROOT @ ROOT.T)
DATA = finite(np.random.default_rng(2).normal(size=(9, 4)), np.random.default_rng(3).normal(size=(9, 3)))


def still(model: Any) -> SGD:
    return SGD(model, population(), lr=0.1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def matrices(theta: Array) -> list[Array]:
    """W_1, W_2, … of one replica, cut by hand."""
    parts, start = [], 0
    for below, above in pairwise(WIDTHS):
        parts.append(theta[start : start + below * above].reshape(above, below))
        start += below * above
    return parts


def of(observable: Observable, process: Process, theta: Tensor) -> Array:
    return observable(process, theta).numpy()


def test_a_network_by_hand() -> None:
    process, theta = still(NETWORK), normal(4, 6, NETWORK.n_parameters)
    u, _, vt = np.linalg.svd(MATRIX @ NETWORK.input_covariance)
    for i, row in enumerate(theta.numpy()):
        w1, w2, w3 = matrices(row)
        product = w3 @ w2 @ w1
        m = [u[:, k] @ product @ vt[k] for k in range(3)]
        np.testing.assert_allclose(np.abs(of(OrderParameters(), process, theta)[i]), np.abs(m), rtol=1e-10)
        values = np.linalg.svd(product, compute_uv=False)
        np.testing.assert_allclose(of(SingularValues(), process, theta)[i], values, rtol=1e-10)
        assert of(Rank(float(values[1]) * 0.99), process, theta)[i] == 2
        norms = [np.sqrt((w**2).sum()) for w in (w1, w2, w3)]
        np.testing.assert_allclose(of(LayerNorms(), process, theta)[i], norms, rtol=1e-12)
        gaps = [np.linalg.norm(b.T @ b - a @ a.T) for a, b in ((w1, w2), (w2, w3))]
        np.testing.assert_allclose(of(Imbalance(), process, theta)[i], gaps, rtol=1e-12)
        for k in range(3):
            path = [vt[k], w1 @ vt[k], w2 @ w1 @ vt[k], product @ vt[k]]
            stretched = [np.linalg.norm(b) / np.linalg.norm(a) for a, b in pairwise(path)]
            np.testing.assert_allclose(of(FeatureAmplitudes(), process, theta)[i, k], stretched, rtol=1e-10)
        residual = DATA.y - DATA.x @ product.T
        loss = 0.5 * (residual**2).sum(axis=1).mean()
        assert of(Loss(DATA), process, theta)[i] == pytest.approx(loss, rel=1e-12)
        gap = (product - MATRIX) @ ROOT
        assert of(Loss(population()), process, theta)[i] == pytest.approx(0.5 * (gap**2).sum(), rel=1e-11)


def test_states_that_are_known() -> None:
    """Aligned balanced weights: amplitudes a_k in every layer, balance, rank; the unlearned feature is seen."""
    network = DeepLinearNetwork((3, 4, 4, 3), [2.0, 1.0, 0.7], weight_decay=0.05)
    process, theta = still(network), network.ordered_state([0, 2])[None]
    amplitudes = [network.mode(0).learned_amplitude(), 0.0, network.mode(2).learned_amplitude()]
    expected = np.repeat(np.array(amplitudes)[:, None], 3, axis=1)
    np.testing.assert_allclose(of(FeatureAmplitudes(), process, theta)[0], expected, atol=1e-14)
    m = np.array(amplitudes) ** 3
    np.testing.assert_allclose(of(SingularValues(), process, theta)[0], np.sort(m)[::-1], atol=1e-14)
    assert of(Rank(0.1), process, theta).tolist() == [2]
    assert float(of(Imbalance(), process, theta).max()) < 1e-14
    decay = 0.5 * 0.05 * theta.square().sum()
    assert of(Loss(population()), process, theta)[0] == pytest.approx(float(network.energy(theta)[0] - decay))


def test_a_loss_of_almost_nothing_keeps_its_digits() -> None:
    """1e-24 beside second moments of 1: from the moments alone it would be rounding of 1e-16."""
    network = DeepLinearNetwork((2, 2, 2), [1.0, 1.0], weight_decay=0.1)
    x = np.random.default_rng(0).normal(size=(7, 2))
    theta = torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0 + 1e-12, 0.0, 0.0, 1.0]], dtype=torch.float64)
    value = float(of(Loss(finite(x, x)), still(network), theta)[0])
    assert value == pytest.approx(0.5e-24 * (x[:, 0] ** 2).mean(), rel=0.01)


@pytest.mark.parametrize("rows", [2, 40], ids=["fewer samples than inputs", "more"])
def test_losses_of_data(rows: int) -> None:
    data = linear_teacher_data(MATRIX, n_samples=rows, label_noise=0.3, seed=1)
    theta = normal(0, 3, NETWORK.n_parameters)
    for i, row in enumerate(theta.numpy()):
        w1, w2, w3 = matrices(row)
        expected = 0.5 * ((data.y - data.x @ (w3 @ w2 @ w1).T) ** 2).sum(axis=1).mean()
        assert of(Loss(data, "test_loss"), still(NETWORK), theta)[i] == pytest.approx(expected, rel=1e-11)


def test_chains_modes_and_diagonal_networks() -> None:
    chain, mode = still(DeepLinearChain(3, 1.5, 0.1, 0.7)), still(Mode(3, 1.5, 0.1, 0.7))
    diagonal = still(DiagonalNetwork(3, [1.5, 0.5], weight_decay=0.1, input_variances=[0.7, 1.0]))
    theta, x = normal(0, 4, 3), normal(1, 4, 1)
    m = theta.prod(dim=1).numpy()
    np.testing.assert_allclose(of(SingularValues(), chain, theta)[:, 0], np.abs(m))
    np.testing.assert_allclose(of(LayerNorms(), chain, theta), theta.abs())
    np.testing.assert_allclose(of(FeatureAmplitudes(), chain, theta)[:, 0], theta.abs(), rtol=1e-14)
    np.testing.assert_allclose(of(Imbalance(), chain, theta), np.abs(np.diff(theta.numpy() ** 2, axis=1)))
    np.testing.assert_allclose(of(Loss(population()), chain, theta), 0.35 * (1.5 - m) ** 2)
    data = finite(np.arange(4.0), np.arange(4.0) ** 2)
    expected = [0.5 * ((data.y - value * data.x) ** 2).mean() for value in m]
    np.testing.assert_allclose(of(Loss(data), chain, theta), expected)
    a = (x / 3**0.5).numpy()
    np.testing.assert_allclose(of(OrderParameters(), mode, x), a**3, rtol=1e-12)
    np.testing.assert_allclose(of(LayerNorms(), mode, x), np.abs(np.repeat(a, 3, axis=1)))
    np.testing.assert_allclose(of(FeatureAmplitudes(), mode, x)[:, 0], np.abs(np.repeat(a, 3, axis=1)))
    np.testing.assert_allclose(of(Loss(population()), mode, x), 0.35 * (1.5 - a[:, 0] ** 3) ** 2)
    both = torch.cat([theta, normal(2, 4, 3)], dim=1)
    m = both.reshape(4, 2, 3).prod(dim=2).numpy()
    np.testing.assert_allclose(of(SingularValues(), diagonal, both), -np.sort(-np.abs(m), axis=1))
    np.testing.assert_allclose(of(FeatureAmplitudes(), diagonal, both), both.reshape(4, 2, 3).abs())
    squares = both.reshape(4, 2, 3).numpy() ** 2
    np.testing.assert_allclose(of(Imbalance(), diagonal, both), np.linalg.norm(np.diff(squares, axis=2), axis=1))
    expected = 0.35 * (1.5 - m[:, 0]) ** 2 + 0.5 * (0.5 - m[:, 1]) ** 2
    np.testing.assert_allclose(of(Loss(population()), diagonal, both), expected)


def test_balance_decays_at_twice_the_weight_decay() -> None:
    """Without noise the imbalance shrinks as (1 − ηλ)² a step, up to O(η²)."""
    network = DeepLinearNetwork((2, 3, 3, 2), [1.0, 0.5], weight_decay=0.5)
    process = SGD(network, population(), lr=1e-3)
    start = process.start(1, seed=0, point=np.random.default_rng(0).normal(size=network.n_parameters) * 0.5)
    _, run = trace(process, start, [0, 1000], [Imbalance()])
    ratio = run.imbalance.isel(time=1) / run.imbalance.isel(time=0)
    np.testing.assert_allclose(ratio, np.exp(-1.0), rtol=0.01)


# ---------------------------------------------------------------- along a run

ALL: list[Observable] = [
    OrderParameters(),
    SingularValues(),
    Rank(0.3),
    FeatureAmplitudes(),
    LayerNorms(),
    Imbalance(),
    Loss(DATA, "train_loss"),
    Loss(population()),
]


def run_of(network: DeepLinearNetwork = NETWORK, **changes: Any) -> SGD:
    return SGD(network, teacher(label_noise=0.1), lr=0.01, batch_size=3, noise=per_sample(variance=0.1), **changes)


def test_a_trace_is_the_run_looked_at() -> None:
    process = run_of()
    state = process.start(5, seed=2, point=np.full(NETWORK.n_parameters, 0.1))
    steps = [0, 1, 4, 10]
    last, run = trace(process, state, steps, ALL)
    for i, number in enumerate(steps):
        there, _ = process.advance(process.start(5, seed=2, point=np.full(NETWORK.n_parameters, 0.1)), number)
        for o in ALL:
            np.testing.assert_allclose(run[o.name].isel(time=i), o(process, there.theta), rtol=1e-12, atol=1e-15)
    assert torch.equal(last.theta, there.theta)
    assert last.step == 10
    assert run.order_parameter.dims == ("replica", "time", "feature")
    assert run.effective_rank.dims == run.train_loss.dims == ("replica", "time")
    assert run.layer_amplitude.dims == ("replica", "time", "feature", "layer")
    np.testing.assert_allclose(run.time, [0.0, 0.01, 0.04, 0.1])
    assert run.step.values.tolist() == steps
    assert run.replica.values.tolist() == [0, 1, 2, 3, 4]
    assert run.layer.values.tolist() == [1, 2, 3]
    assert run.hidden_layer.values.tolist() == [1, 2]
    assert {v.attrs["units"] for v in run.variables.values()} <= {"1", "time", "steps", "loss", "weight", "weight²"}


def test_a_trace_goes_on_where_the_state_is() -> None:
    process = run_of()
    state, first = trace(process, process.start(3, seed=0), [0, 2], [OrderParameters()])
    state, second = trace(process, select(state, torch.tensor([2, 0])), [2, 5], [OrderParameters()])
    _, whole = trace(process, process.start(3, seed=0), [0, 2, 5], [OrderParameters()])
    assert second.replica.values.tolist() == [2, 0]
    np.testing.assert_array_equal(second.order_parameter, whole.order_parameter.isel(replica=[2, 0], time=[1, 2]))
    np.testing.assert_array_equal(first.order_parameter, whole.order_parameter.isel(time=[0, 1]))


def test_times_follow_a_schedule() -> None:
    process = run_of().replace(lr=Geometric(0.02, 0.005, 8))
    _, run = trace(process, process.start(2, seed=0), [0, 3, 9], [OrderParameters()])
    np.testing.assert_allclose(run.time, process.times([0, 3, 9]))
    assert np.diff(run.time)[1] / 6 < np.diff(run.time)[0] / 3


def test_replicas_with_clocks_of_their_own() -> None:
    process = run_of().replace(lr=[0.01, 0.02, 0.03])
    state = select(process.start(3, seed=0), torch.tensor([2, 0]))
    _, run = trace(process, state, [0, 5, 10], [OrderParameters()])
    assert run.order_parameter.dims == ("replica", "step", "feature")
    np.testing.assert_allclose(run.time, [[0.0, 0.15, 0.3], [0.0, 0.05, 0.1]])
    assert run.time.dims == ("replica", "step")


def test_langevin_dynamics_are_observed_too() -> None:
    process = Langevin(NETWORK, temperature=0.01, dt=0.01)
    _, run = trace(process, process.start(2, seed=0), [0, 4], ALL)
    assert run.sizes["time"] == 2
    np.testing.assert_allclose(run.time, [0.0, 0.04])


# ---------------------------------------------------------------- devices

MODELS: dict[str, Callable[[], Any]] = {
    "network": lambda: DeepLinearNetwork(WIDTHS, MATRIX, weight_decay=0.1),
    "correlated inputs": lambda: DeepLinearNetwork(WIDTHS, MATRIX, weight_decay=0.1, input_covariance=ROOT @ ROOT.T),
    "chain": lambda: DeepLinearChain(3, 1.0, 0.25),
    "diagonal": lambda: DiagonalNetwork(3, [2.0, 1.0], weight_decay=0.1),
}


def data_for(process: SGD) -> FiniteData:
    rng = np.random.default_rng(0)
    return finite(rng.normal(size=(6, process.model.n_inputs)), rng.normal(size=(6, process.model.n_outputs)))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_observing_stays_on_the_device(make: Callable[[], Any]) -> None:
    """Under FakeTensorMode a host read raises, and so does a CPU tensor that strays among CUDA tensors."""
    with FakeTensorMode():
        process = SGD(make(), teacher(label_noise=0.1), lr=0.1, batch_size=3, device="cuda")
        observables = [*ALL[:-2], Loss(data_for(process)), Loss(population())]
        _, values = observe(process, process.start(5, seed=0), [0, 1, 3], observables)
        for o in observables:
            assert values[o.name].device.type == "cuda"
            assert values[o.name].shape[:2] == (5, 3)
            assert values[o.name].ndim == 2 + len(o.dims)


def test_a_host_read_would_be_noticed() -> None:
    class Reading(OrderParameters):
        def __call__(self, process: Process, theta: Tensor) -> Tensor:
            return process.order_parameters(theta) * float(theta.sum())

    with FakeTensorMode():
        process = SGD(MODELS["network"](), population(), lr=0.1, device="cuda")
        with pytest.raises(RuntimeError, match=r"device|cuda|_local_scalar_dense"):
            observe(process, process.start(5, seed=0), [0, 1], [Reading()])


@pytest.mark.cuda
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_cuda_observes_what_the_cpu_observes(make: Callable[[], Any]) -> None:
    runs = []
    for device in ("cpu", "cuda"):
        process = SGD(make(), teacher(label_noise=0.1), lr=0.1, batch_size=3, device=device)
        observables = [*ALL[:-2], Loss(data_for(process)), Loss(population())]
        runs.append(trace(process, process.start(5, seed=0), [0, 1, 3], observables)[1])
    for name in runs[0]:
        np.testing.assert_allclose(runs[1][name], runs[0][name], rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- refusals


def test_what_has_no_layers() -> None:
    import sympy

    x = sympy.Symbol("x", real=True)
    process = Langevin(Landscape((x**2 - 1) ** 2, (x,), (x,)), temperature=0.1, dt=0.01)
    theta = torch.ones(1, 1, dtype=torch.float64)
    assert of(OrderParameters(), process, theta).tolist() == [[1.0]]
    for observable in ALL[1:]:
        with pytest.raises(InvalidParameterError, match=r"of a Landscape do not exist.*\n.*OrderParameters"):
            observable(process, theta)
    with pytest.raises(InvalidParameterError, match="imbalance of a Mode does not exist"):
        Imbalance()(still(Mode(3, 1.0, 0.1)), theta)


def test_refusals() -> None:
    process = run_of()
    state, _ = process.advance(process.start(2, seed=0), 3)
    for steps in ([2, 5], [5, 5], [4.5], [3, 6, 5]):
        with pytest.raises(InvalidParameterError, match=r"`steps` = .*ascending whole numbers from 3 on"):
            trace(process, state, steps, [OrderParameters()])
    for observables in ([], [Loss(DATA), Loss(DATA)]):
        with pytest.raises(InvalidParameterError, match=r"`observables` = .*different names"):
            trace(process, state, [5], observables)
    with pytest.raises(InvalidParameterError, match="`threshold` = 0"):
        Rank(0.0)
    with pytest.raises(InvalidParameterError, match=r"`source` is a OnlineTeacher.*\n.*population\(\)"):
        Loss(teacher(label_noise=0.1))  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="`my_loss` is not a known variable"):
        Loss(DATA, "my_loss")
    with pytest.raises(InvalidParameterError, match=r"\(outputs, inputs\) = \(1, 1\), the network has \(3, 4\)"):
        trace(process, state, [5], [Loss(finite([1.0], [1.0]))])
