"""Training through noisy activations: its gradient against autograd, its noise, and what it leaves as it was.

Statistical tests at 1e-5 each.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import activation_noise, per_sample
from kramers_grok.dynamics.activation import NoisyActivations
from kramers_grok.dynamics.noise_temperature import gradient_noise_temperature
from kramers_grok.dynamics.optimizers import AdamW, Momentum
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
from kramers_grok.escape.protocols.trap import without_noise
from kramers_grok.models.data import OnlineTeacher, finite, population, teacher
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

Array = NDArray[np.float64]
ALPHA = 1e-5
CHAIN = DeepLinearChain(3, 1.3, 0.1, 0.8)
X = np.random.default_rng(1).normal(size=(20, 3))
DATA = finite(X, X[:, :2] + np.random.default_rng(2).normal(size=(20, 2)))
NETWORK = DeepLinearNetwork.from_data(DATA, (4, 3), weight_decay=0.1)
THETA = np.random.default_rng(0).normal(size=NETWORK.n_parameters) * 0.4
NOISE = activation_noise(std=0.3)
ONLINE = teacher(label_noise=0.4)


def by_autograd(sgd: SGD, theta: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Gradient of the mean loss of the step's own samples through the step's own noise, row by row."""
    source = sgd._batches.of(sgd.batch_size)
    x, rest, _ = source.moments(seed, torch.arange(len(theta)), step, source.buffers(len(theta)))
    point = theta.clone().requires_grad_(True)
    model = sgd.model
    layers = model.layers(point) if isinstance(model, DeepLinearNetwork) else point[:, :, None, None].unbind(1)
    h, begin = x.transpose(1, 2), model.n_outputs
    y = rest[:, :, :begin].transpose(1, 2)
    for weight in layers[:-1]:
        h = weight @ h + rest[:, :, begin : begin + weight.shape[1]].transpose(1, 2)
        begin += weight.shape[1]
    assert begin == rest.shape[2]
    loss = 0.5 * (layers[-1] @ h - y).square().sum(dim=1).mean(dim=1)
    return torch.autograd.grad(loss.sum(), point)[0]


def process(kind: str) -> SGD:
    if kind == "chain":
        return SGD(CHAIN, ONLINE, lr=0.05, batch_size=4, activation_noise=NOISE)
    if kind == "online":
        return SGD(NETWORK, ONLINE, lr=0.05, batch_size=4, activation_noise=NOISE)
    samplers: dict[str, Sampler] = {"finite": WithReplacement(), "full": FullBatch(), "epochs": ShuffledEpochs()}
    sampler = samplers[kind]
    return SGD(NETWORK, DATA, lr=0.05, batch_size=4, sampler=sampler, activation_noise=NOISE)


def start_point(sgd: SGD) -> Array:
    return THETA if isinstance(sgd.system, DeepLinearNetwork) else np.array([0.9, 0.5, 1.2])


@pytest.mark.parametrize("kind", ["chain", "online", "finite", "full"])
def test_a_step_is_autograds(kind: str) -> None:
    sgd = process(kind)
    state = sgd.start(6, seed=3, point=start_point(sgd))
    end, _ = sgd.advance(state, 1)
    expected = state.theta - 0.05 * (by_autograd(sgd, state.theta, 3, 0) + 0.1 * state.theta)
    np.testing.assert_allclose(end.theta, expected, rtol=1e-12, atol=1e-14)
    assert len(np.unique(end.theta.numpy(), axis=0)) == 6  # noise of its own in each replica, under full batches too


@pytest.mark.parametrize("kind", ["chain", "online", "finite", "full", "epochs"])
def test_rows_do_not_depend_on_the_batch(kind: str) -> None:
    for optimizer in (None, Momentum(0.9), AdamW()):
        sgd = process(kind).replace(optimizer=optimizer, noise=per_sample(variance=0.01), lr=0.01)
        point = start_point(sgd)
        many, _ = sgd.advance(sgd.start(40, seed=1, point=point), 12)
        assert many.theta.isfinite().all()
        for n in (1, 3, 7):
            few, _ = sgd.advance(sgd.start(n, seed=1, point=point), 12)
            assert torch.equal(few.theta, many.theta[:n])
        split, _ = sgd.advance(sgd.advance(sgd.start(40, seed=1, point=point), 5)[0], 7)
        assert torch.equal(split.theta, many.theta)


@pytest.mark.parametrize("kind", ["online", "finite"])
def test_without_strength_the_paths_are_the_quiet_ones(kind: str) -> None:
    """To rounding, on the same samples: neither data nor injected noise use the activations' random numbers."""
    sgd = process(kind).replace(activation_noise=activation_noise(std=0.0), noise=per_sample(variance=0.01))
    sampler = BySamples() if kind == "online" else WithReplacement()
    quiet = sgd.replace(activation_noise=None, sampler=sampler)
    ends = [p.advance(p.start(5, seed=2, point=THETA), 10)[0].theta for p in (sgd, quiet)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-11, atol=1e-13)
    loud = sgd.replace(activation_noise=activation_noise(std=1e-3))
    assert not np.allclose(loud.advance(loud.start(5, seed=2, point=THETA), 10)[0].theta, ends[0], rtol=1e-7)


def test_temperatures_are_the_predicted_ones() -> None:
    """6 000 batches know a temperature to about 4 %: the share of the activations, at least a fifth, is seen."""
    directions = np.random.default_rng(4).normal(size=(2, NETWORK.n_parameters))
    noisy = activation_noise(std=0.8)
    for sampler in (WithReplacement(), WithoutReplacement(), FullBatch(), None):
        sgd = process("finite").replace(sampler=sampler, batch_size=10, activation_noise=noisy)
        if sampler is None:
            sgd = sgd.replace(data=ONLINE)
        found = gradient_noise_temperature(sgd, THETA, directions, n_batches=6000, seed=3, confidence=1 - ALPHA / 2)
        predicted = found.predicted_noise_temperature
        assert ((found.noise_temperature_lower < predicted) & (predicted < found.noise_temperature_upper)).all()
        quiet = gradient_noise_temperature(
            sgd.replace(activation_noise=activation_noise(std=0.0)), THETA, directions, n_batches=8, seed=3
        ).predicted_noise_temperature
        assert (quiet < found.noise_temperature_lower).any()


def test_the_top_layers_noise_is_not_gated() -> None:
    """From all weights 0 a step moves the top layer alone, with s_h² E y²; without activation noise nothing moves."""
    sgd = SGD(CHAIN, ONLINE, lr=0.1, batch_size=1, activation_noise=NOISE)
    end, _ = sgd.advance(sgd.start(4000, seed=5), 1)
    assert (end.theta[:, :2] == 0).all()
    square = ((end.theta[:, 2] / 0.1) ** 2).numpy()
    expected = 0.09 * (0.8 * 1.3**2 + 0.4**2)
    assert abs(square.mean() - expected) < 4.42 * square.std() / 4000**0.5
    assert abs(square.mean() - 2 * expected) > 4.42 * square.std() / 4000**0.5
    quiet = sgd.replace(activation_noise=None)
    assert (quiet.advance(quiet.start(10, seed=5), 5)[0].theta == 0).all()


def test_it_is_told_and_taken_away() -> None:
    sgd = process("chain")
    assert sgd.describe()["activation_noise"] == pytest.approx(0.3)
    assert sgd.describe()["sampler"] == "BySamples"
    assert "activation_noise" not in sgd.replace(activation_noise=None).describe()
    assert without_noise(sgd).activation_noise is None
    assert isinstance(NoisyActivations(ChainModel(CHAIN)).model, ChainModel)


def test_refusals() -> None:
    def ask(model: object = CHAIN, data: OnlineTeacher = ONLINE, **more: object) -> None:
        SGD(model, data, lr=0.1, batch_size=4, activation_noise=NOISE, **more)  # type: ignore[arg-type]

    with pytest.raises(InvalidParameterError, match=r"`population\(\)`.*\n.*teacher"):
        ask(data=population())  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match=r"ByMoments\(\) is given with `activation_noise`"):
        ask(sampler=ByMoments())
    for model in (Mode(3, 1.0, 0.1), DiagonalNetwork(3, [1.0], weight_decay=0.1)):
        with pytest.raises(InvalidParameterError, match=r"`activation_noise` is given for a (ModeModel|DiagonalNet)"):
            ask(model)
    with pytest.raises(InvalidParameterError, match="exactly one of `variance` and `std`"):
        activation_noise()
    with pytest.raises(InvalidParameterError, match="`variance` = -1"):
        activation_noise(variance=-1.0)
