"""Any torch module as a replica-batched model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.dynamics.langevin import Langevin
from kramers_grok.dynamics.process import Watch
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.landscape.hessian import hessian
from kramers_grok.models.activations import GELU, Tanh
from kramers_grok.models.base import SampleModel
from kramers_grok.models.data import FiniteData, finite
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel, squared_loss


@pytest.fixture(autouse=True)
def _modules_begin_the_same() -> Iterator[None]:
    """Torch's modules draw their first weights from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def data(n: int = 12) -> FiniteData:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    return finite(x, np.tanh(x @ [[1.0], [0.5]]))


def network(biases: bool = False, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3, bias=biases), activation(), nn.Linear(3, 1, bias=biases))


def model(module: nn.Module | None = None, **options: Any) -> ModuleModel:
    return ModuleModel(network() if module is None else module, data=data(), weight_decay=0.1, **options)


def points(n: int = 5, size: int = 9) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(n, size)))


def test_it_is_the_hand_written_network() -> None:
    theta = points()
    for activation, own in ((nn.Tanh, Tanh()), (nn.GELU, GELU())):
        ours, by_hand = model(network(activation=activation)), MLP.from_data(data(), (3,), own, weight_decay=0.1)
        assert isinstance(ours, SampleModel)
        torch.testing.assert_close(ours.energy(theta), by_hand.energy(theta), rtol=1e-13, atol=0)
        torch.testing.assert_close(ours.gradient(theta), by_hand.gradient(theta), rtol=1e-12, atol=1e-14)


def test_batches_of_one_s_own_and_shared_ones() -> None:
    theta, ours = points(), model()
    by_hand = MLP.from_data(data(), (3,), Tanh(), weight_decay=0.1)
    rng = np.random.default_rng(2)
    for replicas in (1, 5):
        x, y = (torch.from_numpy(rng.normal(size=(replicas, 4, d))) for d in (2, 1))
        for name in ("forward", "sample_loss", "sample_gradient"):
            samples = (x,) if name == "forward" else (x, y)
            found, expected = (getattr(m, name)(theta, *samples) for m in (ours, by_hand))
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_replica_does_not_see_the_others() -> None:
    """To the bit for tanh; torch's GELU computes the last few entries of a tensor by other code than the rest."""
    for activation, tolerance in ((nn.Tanh, 0.0), (nn.ReLU, 0.0), (nn.GELU, 1e-14)):
        theta, ours = points(33), model(network(activation=activation))
        for function in (ours.gradient, ours.energy, ours.order_parameters):
            whole = function(theta)
            for part in (slice(0, 1), slice(3, 10), slice(17, 33), slice(5, 5)):
                torch.testing.assert_close(function(theta[part]), whole[part], rtol=0.0, atol=tolerance)


def test_its_gradient_can_be_differentiated() -> None:
    """As Hessians are computed: against difference quotients of the gradient."""
    ours = model(network(biases=True))
    point = points(1, 13)[0]
    found, step = hessian(ours.gradient, point[None])[0], 1e-5 * torch.eye(13, dtype=torch.float64)
    quotient = (ours.gradient(point + step) - ours.gradient(point - step)) / 2e-5
    torch.testing.assert_close(found, quotient, rtol=1e-7, atol=1e-9)


def test_weights_that_are_shared_move_together() -> None:
    first = nn.Linear(2, 2, bias=False)
    ours = model(nn.Sequential(first, nn.Tanh(), first, nn.Flatten(), nn.Linear(2, 1, bias=False)))
    assert ours.n_parameters == 6
    theta = points(3, 6)
    w, v = theta[:, :4].reshape(3, 2, 2), theta[:, 4:]
    hidden = torch.tanh(torch.from_numpy(data().x) @ w.transpose(1, 2)) @ w.transpose(1, 2)
    torch.testing.assert_close(ours.outputs(theta), hidden @ v.unsqueeze(2), rtol=1e-12, atol=1e-14)


def test_on_another_device_nothing_strays() -> None:
    """Shown on the meta device, with a bridge; fake CUDA tensors cannot be differentiated, and are shown forward."""
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).eval()
    net[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    ours = model(net)
    for process in (
        Langevin(ours, temperature=0.01, dt=0.1, device="meta"),
        SGD(ours, ours.data, lr=0.1, batch_size=4, device="meta"),
    ):
        watch = Watch(Region(0.5), bridge=isinstance(process, Langevin))
        state, record = process.advance(process.start(5, seed=0), 2, watch)
        assert {t.device.type for t in (state.theta, record.best, record.hit_step)} == {"meta"}
    with FakeTensorMode(allow_non_fake_inputs=True):
        theta = torch.zeros(5, ours.n_parameters, dtype=torch.float64, device="cuda")
        for function in (ours.energy, ours.order_parameters, ours.outputs):
            assert function(theta).device.type == "cuda"


def test_same_paths_as_the_hand_written_network() -> None:
    by_hand = MLP.from_data(data(), (3,), Tanh(), weight_decay=0.1)
    trained, langevin = {"lr": 0.05, "batch_size": 4, "device": "cpu"}, {"temperature": 0.01, "dt": 0.05}
    for make in (
        lambda m: SGD(m, data(), noise=per_sample(variance=0.1), fused=False, **trained),
        lambda m: Langevin(m, device="cpu", **langevin),
    ):
        a, b = (make(m).advance(make(m).start(4, seed=0), 40)[0].theta for m in (model(), by_hand))
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_what_does_not_move_stays() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).eval()
    net[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ours = model(net)
    assert ours.n_parameters == 6 + 3 + 3 + 3 + 1
    theta = ours.parameters_of(net)[None]
    with torch.no_grad():
        expected = 0.5 * (net.double()(torch.from_numpy(data().x)) - torch.from_numpy(data().y)).square().mean()
    assert float(ours.energy(theta)) == pytest.approx(float(expected + 0.05 * theta.square().sum()), rel=1e-12)
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).double()
    ours.load(theta[0], other)
    assert torch.equal(ours.parameters_of(other), theta[0])
    assert all(torch.equal(value, before[name].to(value.dtype)) for name, value in net.state_dict().items())


def test_a_loss_of_one_s_own() -> None:
    rng = np.random.default_rng(3)
    x, classes = rng.normal(size=(10, 2)), rng.integers(3, size=(10, 1))
    net = nn.Sequential(nn.Linear(2, 3))
    ours = ModuleModel(
        net, data=finite(x, classes), weight_decay=0.0,
        loss=lambda outputs, labels: nn.functional.cross_entropy(outputs, labels[:, 0].long()),
    )  # fmt: skip
    theta = points(3)
    logits = torch.einsum("sd,rod->rso", torch.from_numpy(x), theta[:, :6].reshape(3, 3, 2)) + theta[:, None, 6:]
    expected = [nn.functional.cross_entropy(row, torch.from_numpy(classes[:, 0])) for row in logits]
    torch.testing.assert_close(ours.energy(theta), torch.stack(expected), rtol=1e-12, atol=0)
    with pytest.raises(InvalidParameterError, match="between"):
        ours.order_parameters(theta)
    assert ours.between(theta[0], theta[1]).order_parameters(theta[:2]).tolist() == [[0.0], [pytest.approx(1.0)]]


# ---------------------------------------------------------------- the order parameter


def test_order_parameter_is_blind_to_symmetries() -> None:
    a, b, c = points(3)
    m = model().between(a, b)
    first, second = c[:6].reshape(3, 2), c[6:]
    order, signs = torch.tensor([2, 0, 1]), torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    same = torch.cat([(signs[:, None] * first[order]).reshape(-1), signs * second[order]])
    found = m.order_parameters(torch.stack([a, b, c, same]))[:, 0]
    assert found[:2].tolist() == [0.0, pytest.approx(1.0)]
    assert float(found[2]) == pytest.approx(float(found[3]), rel=1e-12)
    with pytest.raises(InvalidParameterError, match="same function"):
        m.between(c, same)


def test_without_references_it_goes_from_nothing_to_the_labels() -> None:
    found = model().order_parameters(torch.zeros(1, 9, dtype=torch.float64))
    assert found.tolist() == [[0.0]]
    labels = model().between_functions(np.zeros((12, 1)), data().y)
    assert torch.equal(labels.order_parameters(points()), model().order_parameters(points()))
    with pytest.raises(InvalidParameterError, match="references"):
        model().between_functions(np.zeros((12, 2)), np.ones((12, 2)))


def test_replicas_escape() -> None:
    ours = model()
    run = first_passage(
        Langevin(ours, temperature=0.05, dt=0.1, device="cpu"),
        target=Region(0.5), n_replicas=16, max_time=500.0, seed=0,
    )  # fmt: skip
    assert run.escaped.all()


# ---------------------------------------------------------------- what is no function of parameters and sample


class Module(nn.Module):
    """A function of its inputs."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


CLOCK = iter(range(10**9))


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (nn.Dropout(0.001), "random numbers.*submodule `1`"),
        (Module(lambda x: x + torch.randn_like(x)), "random numbers.*submodule `1`"),
        (Module(lambda x: x + next(CLOCK)), "run again.*submodule `1`"),
        (nn.BatchNorm1d(3), "buffer `1.running_mean`.*submodule `1`"),
        (Counting(), "buffer `1.calls`"),
        (nn.BatchNorm1d(3, track_running_stats=False), "other samples of its batch"),
        (Module(lambda x: x - x.mean(dim=0)), "other samples of its batch"),
        (Module(lambda x: x + torch.arange(len(x))[:, None]), "place there"),
        (Module(lambda x: x.detach()), "cut off from differentiation"),
        (Module(lambda x: x + (x.round() - x).detach()), "differentiated as"),
        (Module(lambda x: x if float(x.sum()) > 0 else -x), "replicas at once.*\n.*`.item"),
    ],
    ids=[
        "dropout", "noise", "a clock", "batch norm", "counter", "batch norm without memory", "centred", "numbered",
        "detached", "straight through", "a decision",
    ],
)  # fmt: skip
def test_a_module_that_is_no_function_is_found(part: nn.Module, what: str) -> None:
    with pytest.raises(InvalidParameterError, match=what):
        model(nn.Sequential(nn.Linear(2, 3), part, nn.Linear(3, 1)))


def test_a_head_that_begins_at_zero_hides_nothing() -> None:
    net = nn.Sequential(nn.Linear(2, 3), Module(lambda x: x + next(CLOCK)), nn.Linear(3, 1, bias=False))
    nn.init.zeros_(net[2].weight)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="run again"):
        model(net)


def test_a_kink_where_the_weights_begin_is_no_harm() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    assert model(net).initial.tolist() == [0.0] * 13


def test_the_same_parts_may_be_harmless() -> None:
    for part in (nn.Dropout(0.5), nn.BatchNorm1d(3)):
        model(nn.Sequential(nn.Linear(2, 3), part, nn.Linear(3, 1)).eval())


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (nn.Linear(3, 1), "could not be run"),
        (nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (2, 2))), "outputs of shape"),
        (nn.Sequential(nn.Linear(2, 1), Module(lambda x: x.float())), "float64"),
        (nn.Sequential(nn.Linear(2, 1), Module(lambda x: torch.log(-x.square()))), "finite outputs"),
        (nn.Sequential(Module(lambda x: x.mul_(2.0)), nn.Linear(2, 1)), "writes into its inputs"),
        (nn.Tanh(), "no parameter"),
        (3, "torch.nn.Module"),
    ],
    ids=["inputs", "outputs", "precision", "not a number", "in place", "nothing to move", "number"],
)
def test_what_cannot_be_run_is_explained(module: Any, what: str) -> None:
    with pytest.raises(InvalidParameterError, match=what):
        model(module)


def test_data_are_a_data_set() -> None:
    with pytest.raises(InvalidParameterError, match=r"a tuple.*\n.*kg.finite"):
        ModuleModel(network(), data=(np.ones((3, 2)), np.ones(3)), weight_decay=0.1)  # type: ignore[arg-type]


def test_losses() -> None:
    with pytest.raises(InvalidParameterError, match="a scalar tensor"):
        model(loss=lambda f, y: (f - y).square())
    with pytest.raises(InvalidParameterError, match=r"could not be computed.*\n.*long\(\)"):
        model(loss=lambda f, y: nn.functional.cross_entropy(f, y[:, 3]))
    summed = model(loss=nn.MSELoss(reduction="sum"))
    theta = points()
    assert torch.equal(summed.gradient(theta[:2]), summed.gradient(theta)[:2])
    with pytest.raises(InvalidParameterError, match=r"not the mean.*\n.*reduction='mean'"):
        SGD(summed, data(), lr=0.1, batch_size=2).advance(SGD(summed, data(), lr=0.1).start(1, seed=0), 1)
    mean = model(loss=nn.MSELoss())
    ours = model(loss=lambda f, y: 2 * squared_loss(f, y))
    torch.testing.assert_close(mean.gradient(theta), ours.gradient(theta))
    torch.testing.assert_close(12 * (mean.gradient(theta) - 0.1 * theta), summed.gradient(theta) - 0.1 * theta)
