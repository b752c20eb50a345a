"""The diffusion limit of minibatch SGD: one step has SGD's mean and covariance, and torchsde takes it as it is."""

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
import torchsde
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.noise import ActivationNoise
from kramers_grok.core.region import Region, beyond
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.minibatch_sde import Minibatches, MinibatchSDE
from kramers_grok.dynamics.optimizers import Adam
from kramers_grok.dynamics.process import Watch
from kramers_grok.dynamics.sampling import ShuffledEpochs, WithoutReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.torchsde_adapter import CounterBrownian
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import FiniteData, OnlineTeacher, finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.models.layers import batch_model
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.discrete_chain import discrete_exit, sgd_exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance, finite_population_factor
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.mode_exit import ModeDynamics
from kramers_grok.theory.quadrature import Interval

F64 = torch.float64
PARAMETERS = {"singular_value": 1.3, "weight_decay": 0.25, "input_variance": 0.8}
MODE, CHAIN = Mode(3, **PARAMETERS), DeepLinearChain(3, **PARAMETERS)
SCALAR = DeepLinearNetwork((1, 2, 2, 1), [1.3], weight_decay=0.25, input_variance=0.8)
CORRELATED = [[1.0, 0.3], [0.3, 0.6]]
NETWORK = DeepLinearNetwork((2, 3, 2), [[1.5, 0.2], [-0.4, 0.9]], weight_decay=0.2, input_covariance=CORRELATED)
DIAGONAL = DiagonalNetwork(3, [1.5, 0.9], weight_decay=0.2)
SYSTEMS: dict[str, Any] = {"mode": MODE, "chain": CHAIN, "scalar": SCALAR, "network": NETWORK, "diagonal": DIAGONAL}
each_system = pytest.mark.parametrize("name", SYSTEMS)
ETA, LABEL_NOISE = 0.11, 0.6


def point(system: Any) -> Tensor:
    n = batch_model(system).n_parameters
    return torch.from_numpy(np.random.default_rng(n).normal(size=n) * 0.7)


def samples(system: Any, n: int = 6) -> FiniteData:
    """Samples whose second moments are exactly the model's, with noise on the labels."""
    model = batch_model(system)
    d, o = model.n_inputs, model.n_outputs
    basis = np.linalg.qr(np.random.default_rng(n).normal(size=(n, d + o)))[0] * n**0.5
    values, vectors = np.linalg.eigh(model.input_covariance)
    x = basis[:, :d] @ (vectors * values**0.5) @ vectors.T
    return finite(x, x @ model.teacher_matrix.T + LABEL_NOISE * basis[:, d:])


def quadrature(system: Any) -> tuple[FiniteData, np.ndarray]:
    """Online samples as nodes and weights: three in each Gaussian variable are exact for polynomials of degree 5."""
    model = batch_model(system)
    d, o = model.n_inputs, model.n_outputs
    nodes, weights = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1, 4, 1]) / 6
    grid = np.array(list(product(nodes, repeat=d + o)))
    weight = np.array([np.prod(w) for w in product(weights, repeat=d + o)])
    x = grid[:, :d] @ np.linalg.cholesky(model.input_covariance).T  # any root: the law is the same
    return FiniteData(x, x @ model.teacher_matrix.T + LABEL_NOISE * grid[:, d:]), weight


def end_to_end(system: Any, theta: Tensor) -> Tensor:
    """The network's map from its definition, (output, input)."""
    if isinstance(system, Mode):
        return ((theta / 3**0.5) ** 3).reshape(1, 1)
    if isinstance(system, DeepLinearChain):
        return theta.prod().reshape(1, 1)
    if isinstance(system, DiagonalNetwork):
        return torch.diag(theta.reshape(2, 3).prod(dim=1))
    out, begin = torch.eye(system.widths[0], dtype=F64), 0
    for below, above in zip(system.widths, system.widths[1:], strict=False):
        out = theta[begin : begin + below * above].reshape(above, below) @ out
        begin += below * above
    return out


def sample_gradients(system: Any, theta: Tensor, data: FiniteData) -> np.ndarray:
    """Gradients of ½‖y − Wx‖² one sample at a time, by autograd, (sample, parameter)."""
    rows = []
    for x, y in zip(torch.from_numpy(data.x), torch.from_numpy(data.y), strict=True):
        weights = theta.clone().requires_grad_(True)
        residual = y - end_to_end(system, weights) @ x
        (gradient,) = torch.autograd.grad(0.5 * residual @ residual, weights)
        rows.append(gradient)
    return torch.stack(rows).numpy()


def mean_and_covariance(gradients: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = weights @ gradients
    centred = gradients - mean
    return mean, (centred * weights[:, None]).T @ centred


def step_of(sde: MinibatchSDE, theta: Tensor, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of one Euler–Maruyama step, which is affine in the channels: by unit vectors."""
    n = sde.n_channels
    channels = torch.cat([torch.zeros(1, n, dtype=F64), torch.eye(n, dtype=F64)])
    moved = sde.step(theta.expand(n + 1, -1), dt, channels).numpy()
    columns = (moved[1:] - moved[0]).T
    return moved[0], columns @ columns.T


def sde_of(system: Any, data: OnlineTeacher | FiniteData, ratio: float, factor: float = 1.0) -> MinibatchSDE:
    return MinibatchSDE(batch_model(system), Minibatches(data, ratio, factor), 0.0, torch.empty(0, dtype=F64))


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("kind", ["finite", "online"])
@each_system
def test_a_step_has_the_mean_and_covariance_of_sgds(name: str, kind: str, batch: int) -> None:
    """θ − η(∇L̂ + λθ): covariance η² C/B. C by autograd on single samples, or on nodes of an exact quadrature.

    Both sides know the model's moments; the gradients are computed by different code.
    """
    system = SYSTEMS[name]
    theta = point(system)
    data: FiniteData | OnlineTeacher
    if kind == "finite":
        data = samples(system)
        gradients, weights = sample_gradients(system, theta, data), np.full(data.n_samples, 1 / data.n_samples)
    else:
        nodes, weights = quadrature(system)
        data, gradients = teacher(label_noise=LABEL_NOISE), sample_gradients(system, theta, nodes)
    mean, covariance = mean_and_covariance(gradients, weights)
    moved, spread = step_of(sde_of(system, data, ETA / batch), theta, ETA)
    np.testing.assert_allclose(
        moved, (1 - ETA * system.weight_decay) * theta.numpy() - ETA * mean, rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(spread, ETA**2 * covariance / batch, rtol=1e-10, atol=1e-12 * spread.max())


@pytest.mark.parametrize("name", ["chain", "network"])
def test_all_batches_counted(name: str) -> None:
    """Every batch of two, with and without replacement, through SGD's own gradient."""
    system = SYSTEMS[name]
    model, theta, data = batch_model(system), point(system), samples(system)
    n = data.n_samples
    for batches, factor in (
        (list(product(range(n), repeat=2)), 1.0),
        (list(combinations(range(n), 2)), finite_population_factor(n, 2)),
    ):
        x, y = (torch.from_numpy(a[np.array(batches)]) for a in (data.x, data.y))
        xx, yx = (torch.bmm(a.transpose(1, 2), x) / 2 for a in (x, y))
        moved = theta - ETA * model.batch_gradient(theta.expand(len(x), -1), xx, yx)
        mean, covariance = mean_and_covariance(moved.numpy(), np.full(len(x), 1 / len(x)))
        ours, spread = step_of(sde_of(system, data, ETA / 2, factor), theta, ETA)
        np.testing.assert_allclose(ours, mean, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(spread, covariance, rtol=1e-10, atol=1e-13)


def test_isotropic_noise_beside_it() -> None:
    theta, temperature = point(NETWORK), 0.03
    like = torch.empty(0, dtype=F64)
    minibatch = Minibatches(teacher(label_noise=LABEL_NOISE), 0.02)
    both = MinibatchSDE(NETWORK, minibatch, temperature, like)
    alone = MinibatchSDE(NETWORK, minibatch, 0.0, like)
    assert both.n_channels == alone.n_channels + NETWORK.n_parameters
    mean, spread = step_of(both, theta, ETA)
    other, minibatches = step_of(alone, theta, ETA)
    np.testing.assert_allclose(mean, other, rtol=1e-14)
    isotropic = 2 * temperature * ETA * np.eye(NETWORK.n_parameters)
    np.testing.assert_allclose(spread, minibatches + isotropic, rtol=1e-12, atol=1e-15)
    y, v = theta.expand(4, -1), both.normals(5, torch.arange(4), 3)
    drift, noise = both.f(0.0, y), both.g_prod(0.0, y, v)
    torch.testing.assert_close(both.step(y, ETA, v), y + ETA * drift + ETA**0.5 * noise, rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------- paths


MINIBATCH = Minibatches(teacher(label_noise=LABEL_NOISE), 0.02, 0.9)


def end(system: Any, temperature: float, integrator: Fused | TorchSDE) -> Tensor:
    process = Langevin(system, temperature=temperature, dt=0.1, minibatch=MINIBATCH, integrator=integrator)
    start = process.start(9, seed=3, point=np.full(batch_model(system).n_parameters, 0.8))
    return process.advance(start, 30)[0].theta


@pytest.mark.parametrize("temperature", [0.0, 0.01])
@each_system
def test_all_integrators_walk_the_same_paths(name: str, temperature: float) -> None:
    """Compiled where there is a kernel, our torch loop, and torchsde's Euler step."""
    ours = end(SYSTEMS[name], temperature, Fused(compiled=False))
    for integrator in (Fused(), TorchSDE("euler")):
        torch.testing.assert_close(end(SYSTEMS[name], temperature, integrator), ours, rtol=1e-10, atol=1e-12)


def test_which_systems_have_a_kernel() -> None:
    compiled = {
        name: Langevin(system, temperature=0.0, dt=0.1, minibatch=MINIBATCH)._kernel is not None
        for name, system in SYSTEMS.items()
    }
    assert compiled == {"mode": True, "chain": True, "scalar": True, "network": False, "diagonal": False}


def test_torchsdes_sdeint_takes_it_as_it_is() -> None:
    """With its own Brownian motion, step by step; only its check of `g_prod` draws from the global generator."""
    dt, steps = 2.0**-4, 24
    process = Langevin(NETWORK, temperature=0.01, dt=dt, minibatch=MINIBATCH)
    sde = process.sde
    assert isinstance(sde, MinibatchSDE)
    y0 = point(NETWORK).expand(5, -1)
    ts = torch.arange(0, steps + 1, 8, dtype=F64) * dt
    bm = torchsde.BrownianInterval(t0=0.0, t1=float(ts[-1]), size=(5, sde.n_channels), dtype=F64, entropy=9)
    with torch.random.fork_rng():
        ys = torchsde.sdeint(sde, y0, ts, bm=bm, method="euler", dt=dt)
    y, saved = y0, [y0]
    for step in range(steps):
        y = sde.step(y, dt, bm(step * dt, (step + 1) * dt) / dt**0.5)
        if step % 8 == 7:
            saved.append(y)
    torch.testing.assert_close(ys, torch.stack(saved), rtol=1e-11, atol=1e-13)


def test_torchsdes_sdeint_on_our_own_increments() -> None:
    dt, steps = 0.1, 12
    process = Langevin(CHAIN, temperature=0.01, dt=dt, minibatch=MINIBATCH)
    sde = process.sde
    assert isinstance(sde, MinibatchSDE)

    class Units:
        noise_type, sde_type = "general", "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return dt * sde.f(t, y)

        def g_prod(self, t: Tensor, y: Tensor, v: Tensor) -> Tensor:
            return dt**0.5 * sde.g_prod(t, y, v)

    state = process.start(6, seed=3, point=np.full(3, 0.8))
    bm = CounterBrownian(3, state.streams, sde.n_channels, normals=sde.normals)
    with torch.random.fork_rng():
        ys = torchsde.sdeint(Units(), state.theta, torch.arange(steps + 1, dtype=F64), bm=bm, method="euler", dt=1.0)
    torch.testing.assert_close(ys[-1], process.advance(state, steps)[0].theta, rtol=1e-11, atol=1e-13)


def test_the_isotropic_noise_is_langevin_dynamics_own() -> None:
    """Weak minibatch noise leaves the path of the temperature alone."""
    weak = Minibatches(teacher(label_noise=LABEL_NOISE), 1e-18)
    ends = [
        p.advance(p.start(4, seed=3, point=np.full(3, 0.8)), 20)[0].theta
        for p in (Langevin(CHAIN, temperature=0.01, dt=0.1, minibatch=m) for m in (None, weak))
    ]
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)


def test_minibatches_of_a_training_process() -> None:
    data = samples(CHAIN, n=11)
    sgd = SGD(CHAIN, data, lr=0.1, batch_size=4, sampler=WithoutReplacement())
    assert Minibatches.of(sgd) == Minibatches(data, 0.025, 0.7)
    assert Minibatches.of(sgd.replace(sampler=None)).population_factor == 1.0
    online = SGD(CHAIN, teacher(label_noise=0.2), lr=0.1, batch_size=4)
    assert Minibatches.of(online) == Minibatches(teacher(label_noise=0.2), 0.025)


# ---------------------------------------------------------------- escapes


def test_forgetting_takes_the_exact_time_of_its_steps_and_not_sgds() -> None:
    """Against the exact chain of Euler–Maruyama steps; |z| < 4.4 (p = 1e-5).

    Independent: the exact time is an integral equation of one mode, the run is the chain of three weights. Power: the
    1600 escapes have an error of 2.5 %. Negative control: SGD's exact time, 1.43 times longer, is rejected.
    """
    chain = DeepLinearChain(3, 1.0, 0.44)
    mode, target, ratio, dt = chain.mode, beyond(chain.forgetting_barrier()), 0.1 / 8, 0.1
    noise = MinibatchNoise(ratio, GaussianResidualVariance(1.0, 1.0, 0.5))
    ends = Interval(3**0.5 * mode.learned_amplitude(), lower=float(mode.coordinate(target.threshold)))
    exact = discrete_exit(ModeDynamics(mode, 0.0, 0.0, noise).process, ends, step=dt).mean
    process = Langevin(chain, temperature=0.0, dt=dt, minibatch=Minibatches(teacher(label_noise=0.5), ratio))
    start = np.full(3, mode.learned_amplitude())
    run = first_passage(process, target=target, n_replicas=1600, max_time=20 * exact, seed=5, start=start)
    times = run.exit_time.values
    assert bool(run.escaped.all())
    error = times.std(ddof=1) / len(times) ** 0.5
    assert abs(times.mean() - exact) < 4.4 * error
    sgd = sgd_exit_time(mode, lr=dt, batch_size=8, label_noise=0.5, target=target).mean
    assert abs(times.mean() - sgd) > 4.4 * error
    assert run.lr_over_batch.item() == ratio


# ---------------------------------------------------------------- what is refused


def make(system: Any = CHAIN, data: Any = None, integrator: TorchSDE | None = None) -> Langevin:
    minibatch = Minibatches(teacher(label_noise=0.1) if data is None else data, 0.01)
    return Langevin(system, temperature=0.1, dt=0.1, minibatch=minibatch, integrator=integrator)


X = CHAIN.landscape.coordinates[0]
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "milstein": (lambda: make(integrator=TorchSDE("milstein")), r"depends on the state.*\n.*TorchSDE\(.euler.\)"),
    "srk": (lambda: make(integrator=TorchSDE("srk")), r"depends on the state.*\n.*TorchSDE\(.euler.\)"),
    "a landscape": (lambda: make(Landscape(X**2, (X,), (X,))), r"a Landscape.*learn\s*from samples"),
    "population": (lambda: make(data=population()), r"`data` is a Population"),
    "other data": (lambda: make(data=finite([1.0, -1.0], [1.0, -1.0])), r"differs from the model's"),
    "no noise": (lambda: Minibatches(teacher(label_noise=0.1), 0.0), r"`lr_over_batch` = 0"),
    "negative": (lambda: Minibatches(teacher(label_noise=0.1), 0.1, -1.0), r"`population_factor` = -1"),
    "Adam": (
        lambda: Minibatches.of(SGD(CHAIN, teacher(label_noise=0.1), lr=0.1, batch_size=2, optimizer=Adam())),
        r"optimizer = Adam",
    ),
    "epochs": (
        lambda: Minibatches.of(SGD(CHAIN, samples(CHAIN), lr=0.1, batch_size=2, sampler=ShuffledEpochs())),
        r"sampler = ShuffledEpochs",
    ),
    "activations": (
        lambda: Minibatches.of(
            SGD(CHAIN, teacher(label_noise=0.1), lr=0.1, batch_size=2, activation_noise=ActivationNoise(0.1))
        ),
        r"`activation_noise`",
    ),
    "full batch": (
        lambda: Minibatches.of(SGD(CHAIN, samples(CHAIN), lr=0.1)),
        "sees the full batch at every step",
    ),
    "no batches": (lambda: Minibatches.of(SGD(CHAIN, population(), lr=0.1)), r"`data` is a Population"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_what_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"(?s){message}"):
        call()


def test_bridges_are_refused_and_not_the_default() -> None:
    process = make()
    assert not process.is_diffusion
    with pytest.raises(InvalidParameterError, match=r"`bridge` = True with minibatch noise"):
        process.advance(process.start(2, seed=0), 1, Watch(Region(0.5), bridge=True))
