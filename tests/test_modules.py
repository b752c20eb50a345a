"""A module goes wherever a hand-written network goes: same paths, same escapes, on the same noise.

Module and `MLP` share the noise, the loops and the order parameter in function space; forward and backward passes are
torch's own on one side, written by hand on the other.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Linear
from kramers_grok.dynamics.langevin import Langevin, TorchSDE
from kramers_grok.dynamics.minibatch_sde import Minibatches
from kramers_grok.dynamics.noise_temperature import gradient_noise_temperature
from kramers_grok.dynamics.optimizers import Adam, AdamW, Momentum
from kramers_grok.dynamics.process import Process, Watch
from kramers_grok.dynamics.sampling import BySamples, FullBatch, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.underdamped import UnderdampedLangevin
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.escape.protocols import certify, full_gradient, sweep, trap_and_release
from kramers_grok.escape.splitting import splitting
from kramers_grok.models.activations import Tanh
from kramers_grok.models.data import FiniteData, finite, linear_teacher_data, teacher
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel

Network = MLP | ModuleModel
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
DATA = finite(X, np.tanh(X @ RNG.normal(size=(2, 2))))
PROBE = finite(RNG.normal(size=(5, 2)), np.zeros((5, 2)))
THETA = RNG.normal(size=12) * 0.5
TEACHER: dict[str, Any] = {"teacher_matrix": [1.0, 0.7], "input_variance": 0.8}
NOISE = per_sample(variance=0.05)


def chain_of(widths: tuple[int, ...]) -> nn.Sequential:
    parts: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        for below, above in pairwise(widths):
            parts += [nn.Linear(below, above, bias=False), nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def pair(data: FiniteData, widths: tuple[int, ...], weight_decay: float, **more: Any) -> tuple[MLP, ModuleModel]:
    by_hand = MLP(widths, Tanh(), weight_decay=weight_decay, data=data, **more)
    return by_hand, ModuleModel(chain_of(widths), data=data, weight_decay=weight_decay, **more)


def both() -> list[Network]:
    """A small network, with the order parameter between two functions on samples that it does not see."""
    return [m.between(np.zeros(12), 2 * THETA, data=PROBE) for m in pair(DATA, (2, 3, 2), 0.1, **TEACHER)]


def sgd(model: Network, **more: Any) -> SGD:
    given: dict[str, Any] = {"lr": 0.05, "batch_size": 4, "noise": NOISE, "device": "cpu"} | more
    return SGD(model, given.pop("data", DATA), **given)


def langevin(model: Network, **more: Any) -> Langevin:
    given: dict[str, Any] = {"temperature": 0.01, "dt": 0.05, "device": "cpu"} | more
    return Langevin(model, **given)


PROCESSES: dict[str, Callable[[Network], Process]] = {
    "Langevin": langevin,
    "torchsde, Euler": lambda m: langevin(m, integrator=TorchSDE("euler")),
    "torchsde, SRK": lambda m: langevin(m, integrator=TorchSDE("srk")),
    "in single precision": lambda m: langevin(m, dtype=torch.float32),
    "inertia": lambda m: UnderdampedLangevin(m, temperature=0.01, friction=0.5, dt=0.05, device="cpu"),
    "minibatch noise": lambda m: langevin(m, minibatch=Minibatches(DATA, lr_over_batch=0.02)),
    "minibatch noise alone": lambda m: langevin(m, temperature=0.0, minibatch=Minibatches(DATA, lr_over_batch=0.02)),
    "with replacement": lambda m: sgd(m, sampler=WithReplacement()),
    "without replacement": lambda m: sgd(m, sampler=WithoutReplacement()),
    "shuffled epochs": lambda m: sgd(m, sampler=ShuffledEpochs()),
    "full batch": lambda m: sgd(m, sampler=FullBatch()),
    "online": lambda m: sgd(m, data=teacher(label_noise=0.1), sampler=BySamples()),
    "momentum": lambda m: sgd(m, optimizer=Momentum(0.9)),
    "Adam": lambda m: sgd(m, optimizer=Adam(), lr=0.01),
    "AdamW": lambda m: sgd(m, optimizer=AdamW(), lr=0.01),
    "a schedule": lambda m: sgd(m, lr=Linear(0.05, 0.01, 20)),
    "one for each": lambda m: sgd(m, lr=0.01 * np.arange(1, 7), weight_decay=0.05 * np.arange(6)),
}


@pytest.mark.parametrize("make", PROCESSES.values(), ids=PROCESSES)
def test_same_paths(make: Callable[[Network], Process]) -> None:
    """Over 30 steps; where the hand-written network has a compiled kernel, that against torch's own passes."""
    ends, records = [], []
    for model in both():
        process = make(model)
        level = float(model.order_parameters(torch.from_numpy(THETA)[None])[0, 0]) + 0.02
        state, record = process.advance(process.start(6, seed=1, point=THETA), 30, Watch(Region(level)))
        ends.append(state.theta)
        records.append(record.hit_step)
    single = ends[0].dtype == torch.float32
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if single else {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(ends[1], ends[0], **tolerance)
    assert single or torch.equal(*records)
    other = make(both()[1])  # Negative control: other noise
    assert not torch.allclose(other.advance(other.start(6, seed=2, point=THETA), 30)[0].theta, ends[0], atol=1e-3)


def test_the_bridge_sees_the_same() -> None:
    hits = []
    for model in both():
        process = langevin(model, temperature=0.05)
        level = float(model.order_parameters(torch.from_numpy(THETA)[None])[0, 0]) + 0.02
        hits.append(process.advance(process.start(16, seed=0, point=THETA), 40, Watch(Region(level), bridge=True))[1])
    assert torch.equal(hits[0].hit_step, hits[1].hit_step)
    assert (hits[0].hit_step > 0).any()


# ---------------------------------------------------------------- escapes


TRAPPING = linear_teacher_data([1.0], n_samples=8, label_noise=0.0, seed=0, whiten=True)


def trapped() -> list[Network]:
    """Three layers of one tanh unit, at 0; the learned state is 1."""
    models = pair(TRAPPING, (1, 1, 1, 1), 0.2)
    descent = SGD(models[0], TRAPPING, lr=0.5, fused=False, device="cpu")
    learned = descent.advance(descent.start(1, seed=0, point=[1.0, 1.0, 1.5]), 200)[0].theta[0]
    return [m.between(np.zeros(3), learned) for m in models]


def test_same_escapes() -> None:
    """First passages of both processes and splitting: the same numbers, not only the same law."""
    target = Region(0.5)
    makes: list[Callable[[Network], Process]] = [
        lambda m: langevin(m, temperature=0.012, dt=0.5),
        lambda m: sgd(m, data=TRAPPING, lr=0.5, noise=per_sample(temperature=0.012)),
    ]
    models = trapped()
    for make in makes:
        runs = [first_passage(make(m), target=target, n_replicas=8, max_time=400.0, seed=0) for m in models]
        assert runs[0].escaped.all()
        np.testing.assert_array_equal(runs[0].exit_time, runs[1].exit_time)
    rare = [splitting(makes[0](m), target=target, n_replicas=4, n_repeats=8, seed=0) for m in models]
    assert float(rare[0].mean_exit_time) == pytest.approx(float(rare[1].mean_exit_time), rel=1e-9)


def test_same_sweep_and_certificate() -> None:
    descent = [SGD(m, TRAPPING, lr=0.5, fused=False, device="cpu") for m in trapped()]
    found = [sweep(d, weight_decays=[0.2, 0.6], start=[0.74, 0.95, 1.1], seed=0) for d in descent]
    m = found[0].order_parameter.values[:, 0]
    assert m[0] == pytest.approx(1.0, abs=1e-3)
    assert abs(m[1]) < 1e-6
    np.testing.assert_allclose(found[1].order_parameter, found[0].order_parameter, atol=1e-9)
    point = torch.from_numpy(found[0].theta.values)[None]
    one, two = (certify(full_gradient(d, 0.6), d.model, point) for d in descent)
    np.testing.assert_allclose(two.smallest, one.smallest, rtol=1e-9)
    np.testing.assert_allclose(two.largest, one.largest, rtol=1e-9)


def test_same_trap_and_release() -> None:
    runs = []
    for low in trapped():
        high = next(m for m in pair(TRAPPING, (1, 1, 1, 1), 0.8) if type(m) is type(low))
        high = high.between_functions(*_ends(low))
        processes = [
            sgd(m, data=TRAPPING, lr=0.5, noise=per_sample(temperature=0.008)) for m in (high, low)
        ]  # fmt: skip
        run = trap_and_release(
            *processes, trap_time=20.0, target=Region(0.5), n_replicas=8, max_time=400.0, seed=3,
            start=[0.74, 0.95, 1.1],
        )  # fmt: skip
        runs.append(run)
    assert not runs[0].trap_learned.any()
    assert runs[0].escaped.all()
    np.testing.assert_array_equal(runs[0].exit_time, runs[1].exit_time)
    np.testing.assert_allclose(runs[1].trap_order_parameter, runs[0].trap_order_parameter, atol=1e-9)


def _ends(model: Network) -> tuple[Any, Any]:
    readout = model.readout
    return readout.low, readout.high  # type: ignore[union-attr]


def test_same_noise_of_minibatches() -> None:
    """Per-sample gradients: their variance along directions, measured and counted."""
    along = np.random.default_rng(4).normal(size=(2, 12))
    found = [
        gradient_noise_temperature(sgd(m, noise=None), THETA, along, n_batches=64, seed=0) for m in both()
    ]  # fmt: skip
    for name in ("noise_temperature", "predicted_noise_temperature"):
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=1e-9)


def test_weights_of_samples() -> None:
    """Σ w_i g_i is the sum over samples, one at a time; with equal weights the mean gradient."""
    theta = torch.from_numpy(np.stack([THETA, -2 * THETA, THETA**2]))
    x, y = (torch.from_numpy(a)[None] for a in (DATA.x, DATA.y))
    weights = torch.from_numpy(np.random.default_rng(5).normal(size=(3, 12)))
    for model in both():
        single = torch.stack([model.sample_gradient(theta, x[:, i : i + 1], y[:, i : i + 1]) for i in range(12)], 1)
        for w in (weights, weights[:1]):
            expected: Tensor = (w.unsqueeze(2) * single).sum(dim=1)
            torch.testing.assert_close(model.weighted_gradient(theta, x, y, w), expected, rtol=1e-11, atol=1e-13)
        mean = model.weighted_gradient(theta, x, y, torch.full((1, 12), 1 / 12, dtype=torch.float64))
        torch.testing.assert_close(mean, model.sample_gradient(theta, x, y), rtol=1e-12, atol=1e-14)
