"""Growth off sets that minibatches cannot leave, against exact exponents, Hessians, and another program."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, ValidityWarning
from kramers_grok.core.noise import per_sample
from kramers_grok.dynamics.growth import growth_rate
from kramers_grok.dynamics.optimizers import Adam
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.transverse import transverse_growth
from kramers_grok.landscape.hessian import hessian
from kramers_grok.landscape.symmetries.invariant_sets import InvariantSet, invariant_set
from kramers_grok.models.activations import GELU, Activation, Identity, ReLU, Softplus, Tanh
from kramers_grok.models.data import FiniteData, finite, linear_teacher_data, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel

DATA = linear_teacher_data([1.5, 1.0], n_samples=24, label_noise=0.5, seed=0)
LR, DECAY = 0.1, 0.2
# One unit, the samples' products xy far apart: their mean 1 is above λ, the mean logarithm is below 0.
WIDE = finite([1.0, 1.0], [9.0, -7.0])


def unlearned(network: MLP) -> InvariantSet:
    return invariant_set(network, np.zeros(network.n_parameters), seed=0)


def pair(data: FiniteData, activation: Activation) -> tuple[MLP, np.ndarray]:
    """One unit between one input and one output, and its exponents at 0 under single samples.

    There (w, v) moves by a symmetric matrix with the eigenvectors (1, ±1), the same for all samples.
    """
    network = MLP.from_data(data, (1,), activation, weight_decay=DECAY)
    slope = activation.derivative(torch.zeros(1), activation.value(torch.zeros(1))).item()
    k = slope * (data.x * data.y)[:, 0]
    return network, np.array([np.log(np.abs(1 - LR * DECAY + sign * LR * k)).mean() / LR for sign in (1, -1)])


@pytest.mark.parametrize("activation", [Tanh(), GELU()])
def test_one_unit_has_the_exponents_of_its_samples(activation: Activation) -> None:
    network, exact = pair(WIDE, activation)
    exact = np.sort(exact)[::-1]
    process = SGD(network, WIDE, lr=LR, batch_size=1)
    found = transverse_growth(process, unlearned(network), n_steps=2048, n_replicas=64, seed=0, n_exponents=2)
    assert (np.abs(found.growth_rate - exact) < 4.5 * found.growth_rate_error).all()
    assert (found.growth_rate_error < 0.05).all()
    # Negative control: what the mean of the samples says is excluded by far.
    still = np.log1p(-LR * DECAY + LR * 1.0) / LR
    assert abs(still - found.growth_rate[0]) > 20 * found.growth_rate_error[0] or activation == GELU()


def test_noise_can_make_an_unstable_state_absorbing() -> None:
    """Exactly, in the smallest network: growth on the full batch, decay under single samples."""
    network, exact = pair(WIDE, Tanh())
    assert exact.max() < 0
    around = unlearned(network)
    still = transverse_growth(SGD(network, WIDE, lr=LR), around, n_steps=64, n_replicas=8, seed=0)
    noisy = transverse_growth(SGD(network, WIDE, lr=LR, batch_size=1), around, n_steps=2048, n_replicas=64, seed=0)
    assert (still.verdict, noisy.verdict) == ("escapable", "absorbing")
    np.testing.assert_allclose(still.growth_rate, np.log1p(-LR * DECAY + LR) / LR, rtol=1e-6)


@pytest.mark.parametrize("activation", [Tanh(), GELU(), ReLU(), Identity()])
def test_two_small_factors_decay_as_weight_decay_says(activation: Activation) -> None:
    """Whatever the noise: three layers at 0."""
    network = MLP.from_data(DATA, (3, 3), activation, weight_decay=DECAY)
    process = SGD(network, DATA, lr=LR, batch_size=1)
    found = transverse_growth(process, unlearned(network), n_steps=64, n_replicas=8, seed=0, burn_in=8)
    np.testing.assert_allclose(found.growth_rate, np.log1p(-LR * DECAY) / LR, rtol=1e-4)
    assert found.verdict == "absorbing"
    assert found.attrs["order"] == 2.0


@pytest.mark.parametrize("biases", [False, True])
def test_full_batch_exponents_are_those_of_the_hessian(biases: bool) -> None:
    """Softplus at the minimum among units that are alike: by automatic differentiation instead of two trajectories."""
    network = MLP.from_data(DATA, (2,), Softplus(), weight_decay=DECAY, biases=biases)
    around = unlearned(network)
    descent = SGD(network, DATA, lr=0.2)
    state = descent.start(1, seed=0)
    for _ in range(40):  # rounding grows across the set, where it is unstable
        state, _ = descent.advance(state, 100)
        inside = state.theta @ torch.as_tensor(around.basis @ around.basis.T)
        state = replace(state, theta=inside)
    bottom = invariant_set(network, inside[0].numpy(), seed=0)
    assert (bottom.dimension, bottom.codimension) == (around.dimension, around.codimension)
    curvature = hessian(network.gradient, torch.as_tensor(bottom.point)[None])[0].numpy()
    across = np.linalg.eigvalsh(bottom.transverse.T @ curvature @ bottom.transverse)
    found = transverse_growth(
        SGD(network, DATA, lr=LR), bottom, n_steps=2048, n_replicas=8, seed=0, burn_in=400, n_exponents=2
    )
    np.testing.assert_allclose(found.growth_rate, np.log(1 - LR * across[:2]) / LR, rtol=2e-3, atol=2e-3)


def test_a_linear_network_grows_as_its_own_equations_say() -> None:
    """Above the threshold: the fastest exponent is that of the faster hidden layer. Shared: the law of the batches."""
    network = DeepLinearNetwork((16, 2, 2, 16), [2.0, 1.0, *[0.0] * 14], weight_decay=0.05)
    data = teacher(label_noise=4.0)
    process = SGD(network, data, lr=0.05, batch_size=8)
    around = invariant_set(network, network.ordered_state([0]).numpy(), data=data, seed=0)
    asked = {"n_steps": 1536, "n_replicas": 16, "burn_in": 800}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)  # backgrounds may blow up at this noise
        found = transverse_growth(process, around, seed=0, **asked)
        other = growth_rate(process, seed=1, **asked)
    error = float(np.hypot(found.growth_rate_error[0], other.growth_rate_error.max()))
    assert abs(float(found.growth_rate[0]) - float(other.growth_rate.max())) < 4.5 * error


def test_whole_networks_grow_at_this_rate() -> None:
    """From 1e-9 off the set, without being set back: distances of whole networks, by other batches."""
    network = MLP.from_data(WIDE, (3,), Tanh(), weight_decay=DECAY)
    around = unlearned(network)
    process = SGD(network, WIDE, lr=LR)
    start = 1e-9 * np.random.default_rng(0).normal(size=(8, network.n_parameters))
    early, _ = process.advance(process.start(8, seed=1, point=start), 80)
    late, _ = process.advance(early, 80)
    slope = np.log(around.distance(late.theta) / around.distance(early.theta)) / (80 * LR)
    found = transverse_growth(process, around, n_steps=64, n_replicas=8, seed=0)
    np.testing.assert_allclose(slope, float(found.growth_rate[0]), rtol=1e-4)


def test_any_module_and_reproducible() -> None:
    with torch.random.fork_rng(devices=[]):
        module = torch.nn.Sequential(
            torch.nn.Linear(2, 2, bias=False), torch.nn.Tanh(), torch.nn.Linear(2, 2, bias=False)
        )
    model = ModuleModel(module, data=DATA, weight_decay=DECAY)
    around = invariant_set(model, np.zeros(model.n_parameters), seed=0)
    asked = {"n_steps": 64, "seed": 3, "burn_in": 0}
    same = MLP.from_data(DATA, (2,), Tanh(), weight_decay=DECAY)
    rates = [
        transverse_growth(SGD(m, DATA, lr=LR, batch_size=4), around, n_replicas=n, **asked).block_growth_rate[:, :8]
        for m, n in ((model, 8), (model, 16), (same, 8))
    ]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(rates[0], rates[2], rtol=1e-6, atol=1e-8)


def test_what_cannot_be_asked() -> None:
    network = MLP.from_data(DATA, (2,), Tanh(), weight_decay=DECAY)
    process, around = SGD(network, DATA, lr=LR, batch_size=2), unlearned(network)
    ask = {"n_steps": 64, "n_replicas": 8, "seed": 0}
    with pytest.raises(InvalidParameterError, match="expected GradientDescent"):
        transverse_growth(process.replace(optimizer=Adam()), around, **ask)
    with pytest.raises(InvalidParameterError, match="besides its minibatches"):
        transverse_growth(process.replace(noise=per_sample(variance=0.1)), around, **ask)
    with pytest.raises(InvalidParameterError, match="`lr` changes or differs"):
        transverse_growth(process.replace(lr=[0.1] * 8), around, **ask)
    with pytest.raises(InvalidParameterError, match=r"torch\.float64"):
        transverse_growth(process.replace(dtype=torch.float32), around, **ask)
    with pytest.raises(InvalidParameterError, match="`burn_in`"):
        transverse_growth(process.replace(weight_decay=0.0), around, **ask)
    with pytest.raises(InvalidParameterError, match="`n_exponents`"):
        transverse_growth(process, around, n_exponents=9, **ask)
    with pytest.raises(InvalidParameterError, match="expected a set of the same network"):
        transverse_growth(process, unlearned(MLP.from_data(DATA, (3,), Tanh(), weight_decay=DECAY)), **ask)
    whole = invariant_set(network, np.random.default_rng(0).normal(size=8), seed=0)
    with pytest.raises(InvalidParameterError, match="`around` is the whole space"):
        transverse_growth(process, whole, **ask)


def test_backgrounds_that_diverge_are_reported() -> None:
    network = MLP.from_data(DATA, (2,), Softplus(), weight_decay=DECAY)
    with pytest.raises(DivergedError, match="left the finite numbers") as error:
        transverse_growth(
            SGD(network, DATA, lr=2.5, batch_size=1), unlearned(network), n_steps=640, n_replicas=8, seed=0
        )
    assert error.value.replicas
