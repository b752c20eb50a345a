"""Sets that minibatches cannot leave, against what symmetries and hand-written gradients say of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.noise import per_sample
from kramers_grok.dynamics.optimizers import Adam, GradientDescent, Momentum, Optimizer
from kramers_grok.dynamics.sampling import ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.landscape.symmetries.invariant_sets import InvariantSet, invariant_set, per_sample_gradients
from kramers_grok.landscape.symmetries.symmetry import symmetry_of
from kramers_grok.models.activations import GELU, Activation, Identity, Quadratic, ReLU, Softplus, Tanh
from kramers_grok.models.data import FiniteData, finite, linear_teacher_data, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel

Array = NDArray[np.float64]
DATA = linear_teacher_data([1.5, 1.0], n_samples=24, label_noise=0.5, seed=0)


def mlp(activation: Activation, hidden: tuple[int, ...] = (3, 3), *, biases: bool = False) -> MLP:
    return MLP.from_data(DATA, hidden, activation, weight_decay=0.1, biases=biases)


def written(network: MLP, **weights: ArrayLike) -> Array:
    """A random state, with what is given written over its layers W1, W2, …"""
    theta = torch.from_numpy(np.random.default_rng(5).normal(size=(1, network.n_parameters)))
    layers = network.layers(theta)
    for name, value in weights.items():
        layers[int(name[1:]) - 1][0] = torch.as_tensor(np.asarray(value), dtype=torch.float64)
    return theta[0].numpy()


def duplicates(network: MLP) -> Array:
    """A random state whose hidden units are all alike."""
    theta = torch.from_numpy(np.random.default_rng(6).normal(size=(1, network.n_parameters)))
    layers = network.layers(theta)
    for index, layer in enumerate(layers):
        layer[:] = layer.mean(dim=1, keepdim=True) if index < network.depth - 1 else layer
        layer[:] = layer.mean(dim=2, keepdim=True) if index else layer
    for bias in network.bias_vectors(theta)[:-1]:
        bias[:] = bias.mean(dim=1, keepdim=True)
    return theta[0].numpy()


def with_dead_units(network: MLP) -> Array:
    """A random state in which only the first unit of every hidden layer is used."""
    theta = torch.from_numpy(np.random.default_rng(7).normal(size=(1, network.n_parameters)))
    layers = network.layers(theta)
    for index, layer in enumerate(layers):
        if index < network.depth - 1:
            layer[:, 1:] = 0.0
        if index:
            layer[:, :, 1:] = 0.0
    for bias in network.bias_vectors(theta)[:-1]:
        bias[:, 1:] = 0.0
    return theta[0].numpy()


ZERO = [
    # Without biases the gradient of one sample is a product of all other layers; ReLU and GELU have σ(0) = 0 too.
    (Identity(), (3, 3), False, 0, 2.0),
    (Tanh(), (3, 3), False, 0, 2.0),
    (GELU(), (3, 3), False, 0, 2.0),
    (ReLU(), (3, 3), False, 0, 2.0),
    (Tanh(), (3, 3, 3), False, 0, 3.0),
    (Tanh(), (3,), False, 0, 1.0),
    (Quadratic(), (3,), False, 0, 2.0),
    # The output's bias moves, and a hidden bias with a weight after it makes a pair at any depth.
    (Tanh(), (3, 3), True, 2, 1.0),
    (Tanh(), (3, 3, 3), True, 2, 1.0),
    # σ(0) ≠ 0: everything moves but the differences between units: rows alike, one W_2, columns alike.
    (Softplus(), (3, 3), False, 2 + 1 + 2, 1.0),
    (Softplus(), (3,), True, 2 + 1 + 2 + 2, 1.0),
]


@pytest.mark.parametrize(("activation", "hidden", "biases", "dimension", "order"), ZERO)
def test_unlearned_states(
    activation: Activation, hidden: tuple[int, ...], biases: bool, dimension: int, order: float
) -> None:
    network = mlp(activation, hidden, biases=biases)
    found = invariant_set(network, np.zeros(network.n_parameters), seed=0)
    assert (found.dimension, found.order) == (dimension, order)
    assert found.dimension + found.codimension == network.n_parameters
    assert (found.noise == 0.0) == (activation != Softplus() and not biases)


@pytest.mark.parametrize("activation", [Tanh(), GELU(), ReLU(), Softplus()])
@pytest.mark.parametrize("biases", [False, True])
def test_units_that_are_alike_are_what_permutations_leave_alone(activation: Activation, biases: bool) -> None:
    network = mlp(activation, biases=biases)
    found = invariant_set(network, duplicates(network), seed=0)
    fixed = 2 + 1 + 2 + (1 + 1 + 2 if biases else 0)  # a row, an entry, a column, and biases
    if activation != ReLU():  # whose dead samples and halves of lines may make it smaller
        assert found.dimension == fixed
    assert found.dimension <= fixed
    assert found.contains(duplicates(network))


@pytest.mark.parametrize("biases", [False, True])
def test_dead_units_are_what_flips_leave_alone(biases: bool) -> None:
    """Of an odd activation; and the subgroup that the package finds by itself leaves no more and no less."""
    network = mlp(Tanh(), biases=biases)
    point = with_dead_units(network)
    found = invariant_set(network, point, seed=0)
    assert found.dimension == 2 + 1 + 2 + (1 + 1 + 2 if biases else 0)
    assert found.order == 1.0
    symmetry = symmetry_of(network)
    inside = found.basis @ np.random.default_rng(0).normal(size=found.dimension)
    off = inside + 0.1 * found.transverse[:, 0]
    # A point of the set has as many distinct images as the state; off it the stabiliser is smaller.
    assert symmetry.log_orbit_volume(inside) == pytest.approx(symmetry.log_orbit_volume(point))
    assert symmetry.log_orbit_volume(off) > symmetry.log_orbit_volume(point) + 0.5


@pytest.mark.parametrize("activation", [GELU(), ReLU(), Quadratic()])
def test_a_unit_without_weights_stays_so_without_any_flip(activation: Activation) -> None:
    """σ(0) = 0 is enough: a smaller set than that of the symmetries."""
    network = mlp(activation, (3,))
    used = written(network, W1=np.diag([1.0, 0.0, 0.0])[:, :2], W2=[[1.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    assert invariant_set(network, used, seed=0).dimension == 2 + 2
    softplus = mlp(Softplus(), (3,))
    assert invariant_set(softplus, used, seed=0).dimension == 2 * (2 + 2)  # the two others stay alike, no more


def test_rank_one_is_kept_by_linear_networks_only() -> None:
    """Rows of W_1 and columns of W_2 that are multiples of one, of different lengths."""
    rows = np.outer([1.0, 0.6, -0.4], [0.8, 0.3])
    columns = np.outer([0.7, -0.2], [1.0, 0.6, -0.4])
    linear, curved = mlp(Identity(), (3,)), mlp(Tanh(), (3,))
    point = written(linear, W1=rows, W2=columns)
    assert invariant_set(linear, point, seed=0).dimension == 2 + 2
    assert invariant_set(curved, point, seed=0).codimension == 0
    network = DeepLinearNetwork((2, 3, 2), [1.5, 1.0], weight_decay=0.1)
    assert invariant_set(network, point, data=teacher(label_noise=0.3), seed=0).dimension == 2 + 2


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_ordered_states_of_linear_networks(rank: int) -> None:
    network = DeepLinearNetwork((4, 3, 3, 5), [2.0, 1.0], weight_decay=0.1)
    point = network.ordered_state(range(rank)).numpy()
    found = invariant_set(network, point, data=teacher(label_noise=0.5), seed=0)
    assert found.dimension == rank * (4 + rank + 5)
    assert found.order == (2.0 if rank == 0 else 1.0)


def test_a_unit_that_is_dead_on_all_samples_only_decays() -> None:
    """Weights into it keep their direction, weights out of it are not moved at all."""
    data = finite(np.abs(DATA.x), DATA.y)
    network = MLP.from_data(data, (2,), ReLU(), weight_decay=0.1)
    point = written(network, W1=[[1.0, 0.5], [-1.0, -0.5]], W2=[[1.0, 0.0], [0.5, 0.0]])
    found = invariant_set(network, point, seed=0)
    # What is left: across the dead unit's weights, and its two weights to the outputs.
    assert (found.codimension, found.order) == (1 + 2, math.inf)
    g = per_sample_gradients(network, point[None], data.x, data.y)[0]
    assert np.abs(g[:, 2:4]).max() == 0.0  # the dead unit's row
    assert np.abs(g[:, [5, 7]]).max() == 0.0  # and column


def test_a_pixel_that_is_always_dark_is_found_too() -> None:
    x = np.column_stack([DATA.x, np.zeros(DATA.n_samples)])
    network = MLP.from_data(finite(x, DATA.y), (2,), Tanh(), weight_decay=0.1)
    point = np.random.default_rng(0).normal(size=network.n_parameters)
    found = invariant_set(network, point, seed=0)
    # Both weights from it keep their ratio: one direction, which is part of the state's own.
    assert found.codimension == 1
    assert not found.contains(np.roll(point, 1))


@pytest.mark.parametrize("sampler", [WithReplacement(), WithoutReplacement(), ShuffledEpochs()])
@pytest.mark.parametrize("optimizer", [GradientDescent(), Momentum(0.9)])
def test_training_stays_in_the_set(sampler: object, optimizer: Optimizer) -> None:
    network = mlp(Softplus())
    found = invariant_set(network, np.zeros(network.n_parameters), seed=0)
    process = SGD(network, DATA, lr=0.05, batch_size=3, sampler=sampler, optimizer=optimizer)  # type: ignore[arg-type]
    state, _ = process.advance(process.start(4, seed=1, point=found.point), 200)
    assert found.distance(state.theta).max() < 1e-12
    assert (state.theta.norm(dim=1) > 0.1).all()  # it has moved


def test_other_noise_leaves_the_set() -> None:
    """Negative controls: noise on every weight, and Adam on a set that is not one of zeros and equal entries."""
    network = mlp(Tanh())
    point = with_dead_units(network)
    found = invariant_set(network, point, seed=0)
    heated = SGD(network, DATA, lr=0.05, batch_size=3, noise=per_sample(variance=1e-4))
    state, _ = heated.advance(heated.start(4, seed=1, point=point), 50)
    assert found.distance(state.theta).min() > 1e-4
    linear = mlp(Identity(), (3,))
    turned = written(linear, W1=np.outer([1.0, 0.6, -0.4], [0.8, 0.3]), W2=np.outer([0.7, -0.2], [1.0, 0.6, -0.4]))
    rank_one = invariant_set(linear, turned, seed=0)
    for optimizer, leaves in ((Adam(), True), (GradientDescent(), False)):
        process = SGD(linear, DATA, lr=0.01, batch_size=3, optimizer=optimizer)
        state, _ = process.advance(process.start(2, seed=1, point=turned), 50)
        assert (rank_one.distance(state.theta).min() > 1e-3) == leaves


def test_the_set_is_the_smallest() -> None:
    """Without any one of its directions it would be left: noise and mean of the gradients span all of it."""
    network = mlp(GELU())
    found = invariant_set(network, duplicates(network), seed=0)
    points = np.stack([found.point, found.basis @ np.random.default_rng(0).normal(size=found.dimension)])
    g = per_sample_gradients(network, points, DATA.x, DATA.y).reshape(-1, network.n_parameters)
    inside = np.linalg.svd(g @ found.basis, compute_uv=False)
    assert inside[-1] > 1e-6 * inside[0]
    assert np.abs(g @ found.transverse).max() < 1e-12


def test_any_module() -> None:
    with torch.random.fork_rng(devices=[]):
        module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    model = ModuleModel(module, data=DATA, weight_decay=0.1)
    found = invariant_set(model, np.zeros(model.n_parameters), seed=0)
    same = mlp(Tanh(), (3,), biases=True)
    assert (found.dimension, found.codimension) == (2, same.n_parameters - 2)


def test_a_saturated_unit_is_reported() -> None:
    network = mlp(GELU(), (2,), biases=True)
    point = written(network, W2=[[1.0, 1.0], [0.5, 0.7]])
    point[2:4] = 0.01  # the second unit's row
    point[9] = -5.0  # and bias: Φ(−5) is 3e-7, and what is left of it in the samples' differences less
    with pytest.warns(ValidityWarning, match="smaller set is nearly invariant"):
        invariant_set(network, point, seed=0)


def test_what_cannot_be_asked() -> None:
    network = mlp(Tanh())
    with pytest.raises(InvalidParameterError, match="`point` has shape"):
        invariant_set(network, np.zeros((1, network.n_parameters)), seed=0)
    linear = DeepLinearNetwork((2, 3, 2), [1.5, 1.0], weight_decay=0.1)
    with pytest.raises(InvalidParameterError, match="`data` = None"):
        invariant_set(linear, np.zeros(12), seed=0)
    with pytest.raises(InvalidParameterError, match="tolerance"):
        invariant_set(network, np.zeros(network.n_parameters), seed=0, tolerance=0.0)


def test_it_does_not_depend_on_the_seed() -> None:
    network = mlp(Tanh())
    point = with_dead_units(network)
    sets: list[InvariantSet] = [invariant_set(network, point, seed=seed) for seed in (0, 1)]
    products = np.linalg.svd(sets[0].basis.T @ sets[1].basis, compute_uv=False)
    np.testing.assert_allclose(products, 1.0, atol=1e-10)
    assert isinstance(network.data, FiniteData)
