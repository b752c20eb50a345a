"""Hand-written gradients are autograd's; symmetries hold; PyTorch's optimizer takes our step."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.base import BatchModel
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

F64 = torch.float64
Model = ChainModel | DeepLinearNetwork


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def network(widths: tuple[int, ...], seed: int = 0, weight_decay: float = 0.3, q: float = 1.0) -> DeepLinearNetwork:
    matrix = np.random.default_rng(seed).normal(size=(widths[-1], widths[0]))
    return DeepLinearNetwork(widths, matrix, weight_decay=weight_decay, input_variance=q)


@st.composite
def models(draw: st.DrawFn) -> Model:
    decay, q = draw(st.floats(0.01, 2.0)), draw(st.floats(0.1, 3.0))
    if draw(st.booleans()):
        sigma = draw(st.floats(0.1, 3.0))
        return ChainModel(DeepLinearChain(draw(st.integers(2, 6)), sigma, decay, q))
    widths = tuple(draw(st.lists(st.integers(1, 4), min_size=3, max_size=6)))
    return network(widths, draw(st.integers(0, 2**32 - 1)), decay, q)


def end_to_end(model: Model, theta: Tensor) -> Tensor:
    """The network's map from W_1, …, W_D as they are said to lie in `theta`; shape (replica, output, input)."""
    if isinstance(model, ChainModel):
        return theta.prod(dim=1)[:, None, None]
    product, start = torch.eye(model.widths[0], dtype=F64).expand(len(theta), -1, -1), 0
    for below, above in itertools.pairwise(model.widths):
        product = theta[:, start : start + above * below].reshape(-1, above, below) @ product
        start += above * below
    return product


def autograd(loss: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), theta)[0]


def decay_of(model: Model) -> float:
    return model.chain.weight_decay if isinstance(model, ChainModel) else model.weight_decay


@given(models(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_gradient_is_autograd_of_the_energy(model: Model, replicas: int, seed: int) -> None:
    theta = normal(seed, replicas, model.n_parameters).requires_grad_(True)
    energy = model.energy(theta)
    misfit = torch.from_numpy(model.teacher_matrix) - end_to_end(model, theta)
    formula = 0.5 * model.input_variance * (misfit**2).sum(dim=(1, 2)) + 0.5 * decay_of(model) * (theta**2).sum(dim=1)
    torch.testing.assert_close(energy, formula, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.gradient(theta), autograd(energy, theta), rtol=1e-10, atol=1e-10)


@given(models(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_population_moments_give_the_population_gradient(model: Model, replicas: int, seed: int) -> None:
    theta = normal(seed, replicas, model.n_parameters)
    xx = model.input_variance * torch.eye(model.n_inputs, dtype=F64)[None]
    yx = model.input_variance * torch.from_numpy(model.teacher_matrix)[None]
    torch.testing.assert_close(model.batch_gradient(theta, xx, yx), model.gradient(theta), rtol=1e-12, atol=1e-12)


def batch(model: BatchModel, replicas: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """One batch of samples for every replica, labels unrelated to the teacher."""
    return normal(seed, replicas, size, model.n_inputs), normal(seed + 1, replicas, size, model.n_outputs)


def batch_loss(model: Model, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """½ mean ‖y − W x‖² + ½ λ ‖θ‖², sample by sample."""
    residual = y - x @ end_to_end(model, theta).transpose(1, 2)
    return 0.5 * (residual**2).sum(dim=2).mean(dim=1) + 0.5 * decay_of(model) * (theta**2).sum(dim=1)


@given(models(), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**32 - 3))
def test_the_batch_gradient_is_autograd_of_the_batch_loss(model: Model, replicas: int, size: int, seed: int) -> None:
    theta = normal(seed, replicas, model.n_parameters).requires_grad_(True)
    x, y = batch(model, replicas, size, seed + 1)
    xx, yx = x.transpose(1, 2) @ x / size, y.transpose(1, 2) @ x / size
    expected = autograd(batch_loss(model, theta, x, y), theta)
    torch.testing.assert_close(model.batch_gradient(theta, xx, yx), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("widths", "layers_first"),
    [((9, 1, 2, 9), 1), ((9, 6, 1, 9), 2), ((8, 16, 16, 8), 3), ((9, 2, 2, 1), 3), ((4, 4, 4), 2)],
)
def test_any_order_of_products_is_the_same_gradient(widths: tuple[int, ...], layers_first: int) -> None:
    """A batch's moments meet W where that takes the fewest operations; autograd multiplies from left to right."""
    model = network(widths)
    assert model._narrow == layers_first
    inputs = normal(1, 3, 5, widths[0])
    xx, yx = inputs.transpose(1, 2) @ inputs / 5, normal(2, 3, widths[-1], widths[0])
    theta = normal(3, 3, model.n_parameters).requires_grad_()
    w = end_to_end(model, theta)
    loss = 0.5 * (w @ xx * w).sum() - (w * yx).sum()
    torch.testing.assert_close(
        model.data_gradient(theta.detach(), xx, yx), autograd(loss, theta), rtol=1e-12, atol=1e-12
    )


@settings(max_examples=20)
@given(models(), st.integers(0, 2**32 - 3))
def test_pytorchs_sgd_takes_our_step(model: Model, seed: int) -> None:
    """PyTorch's weight decay on the ½-loss is ours: the steps agree to rounding, momentum and all left out."""
    lr, size = 0.07, 5
    start = normal(seed, 1, model.n_parameters)
    x, y = batch(model, 1, size, seed + 1)
    shapes = [(1, 1)] * model.n_parameters
    if isinstance(model, DeepLinearNetwork):
        shapes = [(above, below) for below, above in itertools.pairwise(model.widths)]
    parts = torch.split(start[0], [a * b for a, b in shapes])
    weights = [torch.nn.Parameter(p.reshape(shape).clone()) for p, shape in zip(parts, shapes, strict=True)]
    optimizer = torch.optim.SGD(weights, lr=lr, weight_decay=decay_of(model))
    output = x[0].T
    for weight in weights:
        output = weight @ output
    (0.5 * ((y[0].T - output) ** 2).sum(dim=0).mean()).backward()
    optimizer.step()
    theirs = torch.cat([w.detach().reshape(-1) for w in weights])[None]
    xx, yx = x.transpose(1, 2) @ x / size, y.transpose(1, 2) @ x / size
    ours = start - lr * model.batch_gradient(start, xx, yx)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    # a factor 2 in the decay, as from a loss without the ½, would be seen
    wrong = ours - lr * decay_of(model) * start
    assert not torch.allclose(wrong, theirs, rtol=1e-12, atol=1e-12)


def rotated(model: DeepLinearNetwork, theta: Tensor, seed: int) -> Tensor:
    """Weights after random rotations of every hidden layer: W_l → R_l W_l R_{l−1}ᵀ."""
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.normal(size=(h, h)))[0] for h in model.widths]
    turns[0], turns[-1] = np.eye(model.widths[0]), np.eye(model.widths[-1])
    layers = [
        torch.from_numpy(turns[l + 1]) @ w @ torch.from_numpy(turns[l].T) for l, w in enumerate(model.layers(theta))
    ]
    return torch.cat([w.reshape(len(theta), -1) for w in layers], dim=1)


@given(st.lists(st.integers(1, 4), min_size=3, max_size=5), st.integers(0, 2**32 - 2))
def test_rotations_of_hidden_layers_change_nothing_that_counts(widths: list[int], seed: int) -> None:
    model = network(tuple(widths), seed)
    theta = normal(seed, 3, model.n_parameters)
    turned = rotated(model, theta, seed + 1)
    torch.testing.assert_close(model.energy(turned), model.energy(theta), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.order_parameters(turned), model.order_parameters(theta), rtol=1e-10, atol=1e-10)
    # and the gradient turns with the weights
    torch.testing.assert_close(
        model.gradient(turned), rotated(model, model.gradient(theta), seed + 1), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_chain_is_a_network_of_width_one(depth: int) -> None:
    chain = ChainModel(DeepLinearChain(depth, 1.4, 0.2, 0.7))
    narrow = DeepLinearNetwork((1,) * (depth + 1), [1.4], weight_decay=0.2, input_variance=0.7)
    theta, xx, yx = normal(1, 6, depth), normal(2, 6, 1, 1) ** 2, normal(3, 6, 1, 1)
    pairs = [
        (chain.energy(theta), narrow.energy(theta)),
        (chain.gradient(theta), narrow.gradient(theta)),
        (chain.batch_gradient(theta, xx, yx), narrow.batch_gradient(theta, xx, yx)),
        (chain.order_parameters(theta), narrow.order_parameters(theta)),
    ]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_a_chain_along_one_feature_of_a_network() -> None:
    """Aligned weights a_l |k⟩⟨k| make m_k = ∏ a_l, and the energy the chain's plus the other features' ½qσ²."""
    model = DeepLinearNetwork((4, 3, 3, 2), [2.0, 1.0], weight_decay=0.2, input_variance=0.7)
    amplitudes = normal(0, 5, 3)
    layers = []
    for l, (below, above) in enumerate(itertools.pairwise(model.widths)):
        layer = torch.zeros(5, above, below, dtype=F64)
        layer[:, 1, 1] = amplitudes[:, l]
        layers.append(layer.reshape(5, -1))
    theta = torch.cat(layers, dim=1)
    chain = ChainModel(DeepLinearChain(3, 1.0, 0.2, 0.7))
    zero = torch.zeros(5, dtype=F64)
    expected = torch.stack([zero, amplitudes.prod(dim=1)], dim=1)
    torch.testing.assert_close(model.order_parameters(theta), expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(model.energy(theta), chain.energy(amplitudes) + 0.5 * 0.7 * 4.0, rtol=1e-12, atol=0)


@pytest.mark.parametrize("widths", [(3, 2, 5), (5, 2, 2, 3), (4, 4, 4)])
def test_order_parameters_are_seen_through_the_teachers_singular_vectors(widths: tuple[int, ...]) -> None:
    model = network(widths, seed=3)
    theta = normal(0, 4, model.n_parameters)
    u, values, vt = np.linalg.svd(model.teacher_matrix)
    rank = min(widths[0], widths[-1])
    expected = np.einsum("ok,roi,ki->rk", u[:, :rank], end_to_end(model, theta).numpy(), vt[:rank])
    np.testing.assert_allclose(model.order_parameters(theta), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(model.singular_values, values[:rank], rtol=1e-13)
    assert (np.diff(model.singular_values) <= 0).all()


def test_a_network_that_is_its_teacher_has_the_singular_values_as_order_parameters() -> None:
    model = network((3, 3, 3), seed=5)
    layers = (torch.eye(3, dtype=F64), torch.from_numpy(model.teacher_matrix))
    theta = torch.cat([w.reshape(1, -1) for w in layers], dim=1)
    np.testing.assert_allclose(model.order_parameters(theta)[0], model.singular_values, rtol=1e-12)
    fit = model.energy(theta) - 0.5 * model.weight_decay * (theta**2).sum()
    assert float(fit) == pytest.approx(0.0, abs=1e-25)


def test_features_that_the_teacher_lacks_are_left_out() -> None:
    model = DeepLinearNetwork((3, 2, 3), np.diag([2.0, 0.0, 0.5]), weight_decay=0.1)
    assert model.singular_values.tolist() == [2.0, 0.5]
    assert model.order_parameters(torch.ones(1, model.n_parameters, dtype=F64)).shape == (1, 2)
    mode = model.mode(1)
    assert (mode.depth, mode.singular_value, mode.weight_decay, mode.input_variance) == (2, 0.5, 0.1, 1.0)


def test_dtypes_are_kept() -> None:
    model = network((2, 3, 2))
    narrow = torch.ones(2, model.n_parameters, dtype=torch.float32)
    for value in (model.energy(narrow), model.gradient(narrow), model.order_parameters(narrow)):
        assert value.dtype == torch.float32
    torch.testing.assert_close(model.gradient(narrow).to(F64), model.gradient(narrow.to(F64)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("widths", [(3, 4, 3, 3), (4, 3, 3, 4, 5), (3, 3, 3, 2)])
def test_points_of_the_theory_lie_in_the_teachers_basis(widths: tuple[int, ...]) -> None:
    """Stationary, with the theory's energy and order parameters, for a teacher in a random basis."""
    model = network(widths, seed=2, weight_decay=0.05, q=0.9)
    theory = model.theory
    assert (theory.widths, theory.weight_decay, theory.input_variance) == (widths, 0.05, 0.9)
    np.testing.assert_allclose(theory.singular_values, model.singular_values, rtol=1e-14)
    barrier = theory.barrier(1)
    for point in (theory.state(0), theory.state(1), theory.saddle(1)):
        theta = model.embed(point)[None]
        assert float(model.gradient(theta).abs().max()) < 1e-12
        np.testing.assert_allclose(model.order_parameters(theta)[0], point.order_parameters, atol=1e-12)
    both = model.embed(np.stack([barrier.minimum, barrier.saddle]))
    assert both.shape == (2, model.n_parameters)
    assert both.dtype == F64
    energies = model.energy(both)
    assert float(energies[1] - energies[0]) == pytest.approx(barrier.height, rel=1e-9)
    torch.testing.assert_close(both[1], model.embed(theory.saddle(1)))
    # a teacher that is diagonal already keeps its weights, but for signs of its singular vectors
    plain = DeepLinearNetwork(widths, model.singular_values, weight_decay=0.05, input_variance=0.9)
    torch.testing.assert_close(plain.embed(barrier.saddle), torch.from_numpy(barrier.saddle), rtol=1e-14, atol=0)
    for wrong in (barrier.saddle[1:], np.zeros((1, 1, model.n_parameters))):
        with pytest.raises(InvalidParameterError, match=r"`point` has shape .*\n.*network.theory.state"):
            model.embed(wrong)


@pytest.mark.parametrize(
    ("widths", "matrix", "keywords", "message"),
    [
        ((2, 2), [1.0], {}, r"`widths` = \(2, 2\), expected .*at least one hidden layer.\nUse"),
        ((2, 0, 2), [1.0], {}, r"`widths` = 0, expected an integer >= 1"),
        ((2, 1.5, 2), [1.0], {}, r"`widths` = 1.5"),
        ((2, 3, 4), np.ones((2, 4)), {}, r"`teacher_matrix` has shape \(2, 4\), expected \(4, 2\) = \(outputs,"),
        ((2, 3, 2), [1.0, 1.0, 1.0], {}, r"`teacher_matrix` has shape \(3,\)"),
        ((2, 3, 2), [1.0, np.nan], {}, "teacher_matrix.*NaN"),
        ((2, 3, 2), [1.0], {"weight_decay": 0.0}, "`weight_decay` = 0.0, expected a finite number > 0"),
        ((2, 3, 2), [1.0], {"weight_decay": np.nan}, "`weight_decay` = nan"),
        ((2, 3, 2), [1.0], {"input_variance": -1.0}, "`input_variance` = -1.0"),
    ],
)
def test_bad_networks(widths: tuple[int, ...], matrix: object, keywords: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        DeepLinearNetwork(widths, matrix, **({"weight_decay": 0.1} | keywords))  # type: ignore[arg-type]
