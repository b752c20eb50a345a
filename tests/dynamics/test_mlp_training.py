"""Nonlinear networks under the processes of linear ones: SGD from samples, Langevin, escapes, observables."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import activation_noise, per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Linear
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.minibatch_sde import Minibatches, MinibatchSDE
from kramers_grok.dynamics.noise_temperature import gradient_noise_temperature
from kramers_grok.dynamics.observables import LayerNorms, Loss, OrderParameters, Rank
from kramers_grok.dynamics.optimizers import AdamW
from kramers_grok.dynamics.sampling import (
    ByMoments,
    BySamples,
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
)
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.tracing import trace
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.escape.protocols.sweep import sweep
from kramers_grok.escape.splitting import splitting
from kramers_grok.models.activations import Identity, Softplus, Tanh
from kramers_grok.models.data import finite, linear_teacher_data, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP

X = np.random.default_rng(0).normal(size=(14, 2))
DATA = finite(X, np.tanh(X @ [[1.0, 0.5], [-0.3, 2.0]]))
MODEL = MLP.from_data(DATA, (4, 3), Tanh(), weight_decay=0.1, biases=True)
THETA = np.random.default_rng(1).normal(size=MODEL.n_parameters) * 0.5
ONLINE = MLP((2, 3, 2), Softplus(), weight_decay=0.1, teacher_matrix=[2.0, 1.0], input_variance=0.7, data=DATA)
SAMPLERS: tuple[Sampler | None, ...] = (WithReplacement(), WithoutReplacement(), ShuffledEpochs(), FullBatch(), None)


def process(sampler: Sampler | None, **more: object) -> SGD:
    """SGD on the data, or online without a sampler."""
    given: dict[str, object] = {"lr": 0.05, "batch_size": 4, "noise": per_sample(variance=0.01)} | more
    if sampler is None:
        return SGD(ONLINE, teacher(label_noise=0.3), **given)  # type: ignore[arg-type]
    return SGD(MODEL, DATA, sampler=sampler, **given)  # type: ignore[arg-type]


def batch_of(sgd: SGD, seed: int, n: int) -> tuple[Tensor, Tensor]:
    source = sgd._batches.of(sgd.batch_size)
    x, y, _ = source.moments(seed, torch.arange(n), 0, source.buffers(n))
    return x, y


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_step_is_autograds(sampler: Sampler | None) -> None:
    sgd = process(sampler, noise=None)
    model = sgd.model
    assert isinstance(model, MLP)
    state = sgd.start(6, seed=3, point=THETA[: model.n_parameters])
    x, y = batch_of(sgd, 3, 6)
    if sampler is None:
        assert sgd.describe()["sampler"] == "BySamples"
        assert abs(float(x.var()) - 0.7) < 0.6  # 48 numbers
    else:
        assert all((DATA.x == row).all(axis=1).any() for row in x[0].numpy())
    point = state.theta.clone().requires_grad_(True)
    loss = 0.5 * (model.forward(point, x) - y).square().sum(dim=2).mean(dim=1)
    (slope,) = torch.autograd.grad(loss.sum(), point)
    end, _ = sgd.advance(state, 1)
    np.testing.assert_allclose(end.theta, state.theta - 0.05 * (slope + 0.1 * state.theta), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_do_not_depend_on_the_batch(sampler: Sampler | None, dtype: torch.dtype) -> None:
    for more in ({}, {"optimizer": AdamW(), "lr": Linear(0.02, 0.01, 9)}):
        sgd = process(sampler, dtype=dtype, fused=False, **more)
        point = THETA[: sgd.model.n_parameters]
        many, _ = sgd.advance(sgd.start(20, seed=1, point=point), 9)
        assert many.theta.dtype == dtype
        assert many.theta.isfinite().all()
        assert len(np.unique(many.theta.numpy(), axis=0)) == 20
        for n in (1, 7):
            few, _ = sgd.advance(sgd.start(n, seed=1, point=point), 9)
            assert torch.equal(few.theta, many.theta[:n])
        split, _ = sgd.advance(sgd.advance(sgd.start(20, seed=1, point=point), 4)[0], 5)
        assert torch.equal(split.theta, many.theta)


def test_identity_walks_the_linear_networks_paths() -> None:
    linear = DeepLinearNetwork((2, 3, 2), [2.0, 1.0], weight_decay=0.1)
    mlp = MLP((2, 3, 2), Identity(), weight_decay=0.1, teacher_matrix=[2.0, 1.0])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        ends = []
        for model in (linear, mlp):
            sgd = SGD(
                model, teacher(label_noise=0.2), lr=0.1, batch_size=4, sampler=BySamples(),
                noise=per_sample(variance=0.1), dtype=dtype, fused=False,
            )  # fmt: skip
            ends.append(sgd.advance(sgd.start(5, seed=2, point=np.full(12, 0.3)), 50)[0].theta)
        torch.testing.assert_close(ends[0], ends[1], rtol=tolerance, atol=tolerance)


def test_langevin_is_sgd_on_the_full_batch() -> None:
    """Gradient descent, temperature 0: two ways to the same steps. With noise the numbers have other addresses."""
    langevin = Langevin(MODEL, temperature=0.0, dt=0.05, integrator=Fused(compiled=False))
    descent = SGD(MODEL, DATA, lr=0.05, fused=False)
    ends = [p.advance(p.start(3, seed=0, point=THETA), 30)[0].theta for p in (langevin, descent)]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-13)
    assert (MODEL.energy(ends[0]) < MODEL.energy(torch.from_numpy(THETA)[None])).all()


def test_escapes_are_measured_as_those_of_linear_networks() -> None:
    """A chain of tanh units trapped at the origin: first passages of both processes, with a bridge, and splitting."""
    data = linear_teacher_data([1.0], n_samples=24, label_noise=0.0, seed=0, whiten=True)
    model = MLP.from_data(data, (1, 1), Tanh(), weight_decay=0.2)
    target = Region(0.4)
    sgd = SGD(model, data, lr=0.5, batch_size=8, noise=per_sample(temperature=0.006))
    langevin = Langevin(model, temperature=0.006, dt=0.5)
    for process in (sgd, langevin):
        found = first_passage(process, target=target, n_replicas=16, max_time=500.0, seed=0)
        assert found.escaped.all()
    rare = splitting(Langevin(model, temperature=0.002, dt=0.5), target=target, n_replicas=16, n_repeats=8, seed=0)
    assert 100.0 < float(rare.lower) < float(rare.mean_exit_time) < float(rare.upper)


def test_what_is_observed() -> None:
    sgd = process(WithReplacement(), batch_size=7)
    test = Loss(finite(X[:5], DATA.y[:5]), "test_loss")
    _, run = trace(sgd, sgd.start(4, seed=0, point=THETA), [0, 10], [OrderParameters(), LayerNorms(), Loss(DATA), test])
    assert dict(run.sizes) == {"replica": 4, "time": 2, "feature": 2, "layer": 3}
    theta = torch.from_numpy(THETA)[None]
    energy = MODEL.energy(theta) - 0.05 * theta.square().sum()
    np.testing.assert_allclose(run.loss[0, 0], energy[0], rtol=1e-12)
    with pytest.raises(InvalidParameterError, match="expected a linear network"):
        trace(sgd, sgd.start(1, seed=0), [0], [Rank(0.5)])
    with pytest.raises(InvalidParameterError, match="no closed form"):
        trace(sgd, sgd.start(1, seed=0), [0], [Loss(population())])
    directions = np.random.default_rng(4).normal(size=(2, MODEL.n_parameters))
    found = gradient_noise_temperature(sgd, THETA, directions, n_batches=4000, seed=3, confidence=1 - 1e-5)
    predicted = found.predicted_noise_temperature
    assert ((found.noise_temperature_lower < predicted) & (predicted < found.noise_temperature_upper)).all()


def test_a_sweep_runs() -> None:
    data = linear_teacher_data([1.5], n_samples=16, label_noise=0.0, seed=0, whiten=True)
    model = MLP.from_data(data, (2,), Tanh(), weight_decay=0.1)
    found = sweep(SGD(model, data, lr=0.2), weight_decays=[0.05, 0.2, 3.0], start=np.full(4, 0.8), seed=0)
    m = found.order_parameter.values[:, 0]
    assert m[0] > m[1] > 0.1 > abs(m[2])


class Unweighted:
    """A model of samples without weights."""

    def __getattr__(self, name: str) -> Any:
        if name == "weighted_gradient":
            raise AttributeError(name)
        return getattr(MODEL, name)


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_identity_has_the_linear_networks_minibatch_noise(temperature: float) -> None:
    """In the diffusion limit: weights of samples there, fluctuations of second moments here, on the same noise."""
    linear = DeepLinearNetwork.from_data(DATA, (4, 3), weight_decay=0.1)
    mlp = MLP.from_data(DATA, (4, 3), Identity(), weight_decay=0.1)
    ends = []
    for model in (linear, mlp):
        process = Langevin(model, temperature=temperature, dt=0.05, minibatch=Minibatches(DATA, 0.05))
        ends.append(process.advance(process.start(5, seed=2, point=np.full(linear.n_parameters, 0.4)), 40)[0].theta)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-11, atol=1e-13)
    assert float((ends[0][0] - ends[0][1]).abs().max()) > 1e-3


@pytest.mark.parametrize("sampler", [WithReplacement(), WithoutReplacement()], ids=repr)
def test_a_step_of_the_diffusion_limit_has_the_batches_mean_and_covariance(sampler: Sampler) -> None:
    """Exactly: a step is affine in its normal numbers; batches' gradients are counted one sample at a time."""
    sgd = process(sampler, batch_size=3, noise=None)
    minibatch = Minibatches.of(sgd)
    sde = MinibatchSDE(MODEL, minibatch, 0.0, torch.empty(0, dtype=torch.float64))
    n, lr = sde.n_channels, sgd.dt
    assert n == DATA.n_samples
    theta = torch.from_numpy(THETA)[None]
    channels = torch.cat([torch.zeros(1, n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)])
    moved = sde.step(theta.expand(n + 1, -1), lr, channels).numpy()
    columns = (moved[1:] - moved[0]).T
    x, y = (torch.from_numpy(a).unsqueeze(1) for a in (DATA.x, DATA.y))
    gradients = MODEL.sample_gradient(theta.expand(n, -1), x, y).numpy()
    centred = gradients - gradients.mean(axis=0)
    mean = THETA - lr * (gradients.mean(axis=0) + 0.1 * THETA)
    factor = (n - 3) / (n - 1) if isinstance(sampler, WithoutReplacement) else 1.0
    np.testing.assert_allclose(moved[0], mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        columns @ columns.T, lr**2 / 3 * factor * centred.T @ centred / n, rtol=1e-10, atol=1e-17
    )


def test_refusals() -> None:
    with pytest.raises(InvalidParameterError, match=r"nonlinear model \(MLP\).*`population\(\)`.*\n.*teacher"):
        SGD(MODEL, population(), lr=0.1)
    with pytest.raises(InvalidParameterError, match=r"ByMoments\(\) is given with A nonlinear model"):
        SGD(ONLINE, teacher(label_noise=0.1), lr=0.1, batch_size=4, sampler=ByMoments())
    with pytest.raises(InvalidParameterError, match="this MLP has none"):
        SGD(MODEL, teacher(label_noise=0.1), lr=0.1, batch_size=4)
    with pytest.raises(InvalidParameterError, match=r"other data \(5 samples\) than the model \(14 samples\)"):
        SGD(MODEL, finite(X[:5], DATA.y[:5]), lr=0.1)
    with pytest.raises(InvalidParameterError, match="the model has"):
        SGD(MODEL, finite(X, X[:, :1]), lr=0.1)
    with pytest.raises(InvalidParameterError, match="`activation_noise` is given for a MLP"):
        SGD(MODEL, DATA, lr=0.1, activation_noise=activation_noise(std=0.1))
    with pytest.raises(InvalidParameterError, match="an online teacher's"):
        Langevin(ONLINE, temperature=0.1, dt=0.1, minibatch=Minibatches(teacher(label_noise=0.1), 0.02))
    with pytest.raises(InvalidParameterError, match="other data"):
        Langevin(MODEL, temperature=0.1, dt=0.1, minibatch=Minibatches(finite(X[:5], DATA.y[:5]), 0.02))
    with pytest.raises(InvalidParameterError, match="without `weighted_gradient`"):
        Langevin(Unweighted(), temperature=0.1, dt=0.1, minibatch=Minibatches(DATA, 0.02))
