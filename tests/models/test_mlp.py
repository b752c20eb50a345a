"""Nonlinear networks: gradients against automatic differentiation, the linear network as a special case, wiring."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.activations import GELU, Activation, Identity, Quadratic, ReLU, Softplus, Tanh
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.data import FiniteData, finite, linear_teacher_data
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.layers import batch_model, layers_of
from kramers_grok.models.mlp import MLP

F64 = torch.float64
ACTIVATIONS: tuple[Activation, ...] = (Identity(), Tanh(), ReLU(), GELU(), Softplus(), Quadratic())
NONLINEAR = {
    Tanh(): torch.tanh, ReLU(): torch.relu, GELU(): torch.nn.functional.gelu, Quadratic(): torch.square,
    Softplus(): lambda z: torch.nn.functional.softplus(z, threshold=1000.0), Identity(): lambda z: z,
}  # fmt: skip
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def made(seed: int, widths: tuple[int, ...], activation: Activation, biases: bool, n: int = 7) -> MLP:
    data = finite(normal(seed, n, widths[0]).numpy(), normal(seed + 1, n, widths[-1]).numpy())
    return MLP(widths, activation, weight_decay=0.3, data=data, biases=biases)


def outputs(mlp: MLP, theta: Tensor, x: Tensor) -> Tensor:
    """f(x) of one replica, from weights and biases as they are said to lie in `theta`; x is (sample, input)."""
    start, weights = 0, []
    for below, above in pairwise(mlp.widths):
        weights.append(theta[start : start + above * below].reshape(above, below))
        start += above * below
    h = x
    for index, weight in enumerate(weights):
        h = h @ weight.T
        if mlp.biases:
            h = h + theta[start : start + len(weight)]
            start += len(weight)
        h = h if index == len(weights) - 1 else NONLINEAR[mlp.activation](h)
    assert start == mlp.n_parameters
    return h


@given(
    st.sampled_from(ACTIVATIONS), st.booleans(), st.lists(st.integers(1, 4), min_size=3, max_size=5),
    st.integers(1, 4), st.booleans(), st.integers(0, 2**32 - 9),
)  # fmt: skip
@settings(max_examples=60)
def test_gradients_are_autograds(
    activation: Activation, biases: bool, widths: list[int], replicas: int, shared: bool, seed: int
) -> None:
    mlp = made(seed, tuple(widths), activation, biases)
    theta = normal(seed + 2, replicas, mlp.n_parameters).requires_grad_(True)
    rows = 1 if shared else replicas
    x, y = normal(seed + 3, rows, 5, mlp.n_inputs), normal(seed + 4, rows, 5, mlp.n_outputs)
    losses = []
    for r in range(replicas):
        residual = outputs(mlp, theta[r], x[r % rows]) - y[r % rows]
        losses.append(0.5 * residual.square().sum(dim=1).mean())
    loss = torch.stack(losses)
    torch.testing.assert_close(mlp.sample_loss(theta, x, y), loss, rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(loss.sum(), theta)
    torch.testing.assert_close(mlp.sample_gradient(theta, x, y), slope, rtol=1e-10, atol=1e-10)
    (full,) = torch.autograd.grad(mlp.energy(theta).sum(), theta)
    torch.testing.assert_close(mlp.gradient(theta), full, rtol=1e-10, atol=1e-10)


@each_activation
def test_values_and_derivatives(activation: Activation) -> None:
    """Against torch's own and autograd, from −∞ to ∞ and at 0; the entries of a tensor do not depend on its length."""
    z = torch.cat([normal(0, 500) * 4, torch.tensor([0.0, -0.0, 1e-300, -1e-9, 700.0, -700.0, 1e6, -1e6], dtype=F64)])
    for dtype, tolerance in ((F64, 1e-14), (torch.float32, 2e-6)):
        point = z.to(dtype)
        value = activation.value(point)
        slope = activation.derivative(point, value)
        exact = point.double().requires_grad_(True)
        theirs = NONLINEAR[activation](exact)
        torch.testing.assert_close(value.double(), theirs.detach(), rtol=tolerance, atol=tolerance)
        (their_slope,) = torch.autograd.grad(theirs.sum(), exact)
        torch.testing.assert_close(slope.double(), their_slope, rtol=tolerance, atol=tolerance)
        (ours,) = torch.autograd.grad(activation.value(exact).sum(), exact)
        torch.testing.assert_close(ours, their_slope, rtol=1e-12, atol=1e-14)
        for n in (1, 3, 9):
            part = point[5 : 5 + n].clone()
            assert torch.equal(activation.value(part), value[5 : 5 + n])
            assert torch.equal(activation.derivative(part, activation.value(part)), slope[5 : 5 + n])
        nothing = torch.tensor([torch.nan], dtype=dtype)
        assert activation.value(nothing).isnan().all()


def test_identity_is_the_deep_linear_network() -> None:
    data = finite(normal(0, 20, 3).numpy(), normal(1, 20, 2).numpy())
    linear = DeepLinearNetwork.from_data(data, (4, 3), weight_decay=0.2)
    mlp = MLP.from_data(data, (4, 3), Identity(), weight_decay=0.2)
    theta = normal(2, 6, linear.n_parameters)
    torch.testing.assert_close(mlp.gradient(theta), linear.gradient(theta), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mlp.order_parameters(theta), linear.order_parameters(theta), rtol=1e-11, atol=1e-11)
    gap = mlp.energy(theta) - linear.energy(theta)  # what no linear map explains
    torch.testing.assert_close(gap, gap[:1].expand(6), rtol=1e-11, atol=1e-11)
    x, y = normal(3, 6, 5, 3), normal(4, 6, 5, 2)
    moments = x.transpose(1, 2) @ x / 5, y.transpose(1, 2) @ x / 5
    expected = linear.data_gradient(theta, *moments)
    torch.testing.assert_close(mlp.sample_gradient(theta, x, y), expected, rtol=1e-12, atol=1e-12)
    assert [w.tolist() for w in layers_of(mlp, theta)] == [w.tolist() for w in layers_of(linear, theta)]
    # inputs that do not span their space
    flat = finite(data.x @ np.diag([1.0, 2.0, 0.0]), data.y)
    narrow = MLP.from_data(flat, (4, 3), Identity(), weight_decay=0.2)
    expected = DeepLinearNetwork.from_data(flat, (4, 3), weight_decay=0.2).order_parameters(theta)
    torch.testing.assert_close(narrow.order_parameters(theta), expected, rtol=1e-11, atol=1e-11)


def test_order_parameters_are_of_the_best_linear_fit() -> None:
    mlp = made(5, (3, 4, 2), Tanh(), biases=True, n=12)
    assert mlp.data is not None
    theta = normal(6, 3, mlp.n_parameters)
    for row, found in zip(theta, mlp.order_parameters(theta), strict=True):
        fit = np.linalg.lstsq(mlp.data.x, outputs(mlp, row, torch.from_numpy(mlp.data.x)).numpy(), rcond=None)[0].T
        expected = [u @ fit @ v for u, v in zip(*mlp.linear.singular_vectors, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@each_activation
def test_rows_do_not_depend_on_the_batch(activation: Activation) -> None:
    for biases, n in ((False, 7), (True, 33)):
        mlp = made(7, (5, 9, 6, 3), activation, biases, n)
        for dtype in (F64, torch.float32):
            theta = normal(8, 40, mlp.n_parameters).to(dtype)
            for function in (mlp.gradient, mlp.energy, mlp.order_parameters):
                whole = function(theta)
                for part in (slice(0, 1), slice(3, 10), slice(17, 40)):
                    assert torch.equal(function(theta[part]), whole[part])


def test_a_teacher_and_a_probe() -> None:
    probe = linear_teacher_data([2.0, 1.0], n_samples=16, label_noise=0.0, seed=0, whiten=True)
    mlp = MLP((2, 3, 2), Tanh(), weight_decay=0.1, teacher_matrix=[2.0, 1.0], data=probe)
    theta = normal(0, 2, mlp.n_parameters)
    assert mlp.linear.singular_values.tolist() == [2.0, 1.0]
    assert mlp.order_parameters(theta).shape == (2, 2)
    blind = MLP((2, 3, 2), Tanh(), weight_decay=0.1, teacher_matrix=[2.0, 1.0])
    for ask in (blind.energy, blind.gradient, blind.order_parameters):
        with pytest.raises(InvalidParameterError, match=r"means over data.*\n.*linear_teacher_data"):
            ask(theta)
    assert isinstance(mlp, SampleModel)
    assert not isinstance(mlp, BatchModel)
    assert not isinstance(mlp.linear, SampleModel)


def test_an_order_parameter_in_function_space() -> None:
    """Its definition, on the network's samples and on others; blind to permutations and, for tanh, signs of units."""
    mlp = made(11, (3, 4, 2), Tanh(), biases=False)
    a, b, c = normal(12, 3, mlp.n_parameters)
    first, second = c[:12].reshape(4, 3), c[12:].reshape(2, 4)
    order, signs = torch.tensor([2, 0, 3, 1]), torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=F64)
    same = torch.cat([(signs[:, None] * first[order]).flatten(), (second[:, order] * signs).flatten()])
    other = finite(normal(13, 5, 3).numpy(), normal(14, 5, 2).numpy())
    for data in (None, other):
        line = mlp.between(a, b, data=data)
        found = line.order_parameters(torch.stack([a, b, c, same]))
        assert found.shape == (4, 1)
        x = torch.from_numpy((data or mlp.required_data()).x)
        low, high, here = (outputs(mlp, t, x) for t in (a, b, c))
        expected = ((here - low) * (high - low)).sum() / (high - low).square().sum()
        torch.testing.assert_close(found[2, 0], expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(found[3], found[2], rtol=1e-12, atol=0)
        assert found[:2, 0].tolist() == [0.0, pytest.approx(1.0, rel=1e-14)]
        given = mlp.between_functions(low, high, data=data)
        torch.testing.assert_close(given.order_parameters(c[None]), found[2:3], rtol=1e-12, atol=0)
    assert mlp.order_parameters(c[None]).shape == (1, 2)  # it is as it was
    assert line.order_parameters(c[None].narrow(0, 0, 0)).shape == (0, 1)
    for dtype in (F64, torch.float32):
        theta = normal(15, 40, mlp.n_parameters).to(dtype)
        for part in (slice(0, 1), slice(3, 10), slice(17, 40)):
            assert torch.equal(line.order_parameters(theta[part]), line.order_parameters(theta)[part])


def test_what_no_function_space_can_tell_apart() -> None:
    mlp = made(11, (3, 4, 2), Tanh(), biases=False)
    a = normal(12, mlp.n_parameters)
    with pytest.raises(InvalidParameterError, match=r"same function.*\n.*two different minima"):
        mlp.between(a, a)
    with pytest.raises(InvalidParameterError, match=r"`references` = .*outputs of shape \(7, 2\)"):
        mlp.between_functions(np.zeros((7, 3)), np.ones((7, 3)))
    with pytest.raises(InvalidParameterError, match="one shape"):
        mlp.between_functions(np.zeros((7, 2)), np.ones((6, 2)))
    with pytest.raises(InvalidParameterError, match="3 inputs"):
        mlp.between_functions(np.zeros((5, 2)), np.ones((5, 2)), data=finite(np.ones((5, 2)), np.ones((5, 2))))
    blind = MLP((2, 3, 2), Tanh(), weight_decay=0.1, teacher_matrix=[2.0, 1.0])
    with pytest.raises(InvalidParameterError, match="means over data"):
        blind.between(np.zeros(12), np.ones(12))
    probe = finite(normal(0, 5, 2).numpy(), np.zeros((5, 2)))
    line = blind.between(np.zeros(12), np.ones(12), data=probe)
    assert line.order_parameters(torch.ones(1, 12, dtype=F64)).item() == pytest.approx(1.0)


def test_refusals() -> None:
    data = finite([[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0])
    with pytest.raises(InvalidParameterError, match="at least one hidden layer"):
        MLP((2, 1), Tanh(), weight_decay=0.1, data=data)
    with pytest.raises(InvalidParameterError, match=r"`activation` = .*\n.*Tanh\(\)"):
        MLP((2, 3, 1), Tanh, weight_decay=0.1, data=data)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="Neither `data` nor `teacher_matrix`"):
        MLP((2, 3, 1), Tanh(), weight_decay=0.1)
    with pytest.raises(InvalidParameterError, match=r"`data` has \(inputs, outputs\) = \(2, 1\)"):
        MLP((3, 3, 1), Tanh(), weight_decay=0.1, data=data)
    with pytest.raises(InvalidParameterError, match="`weight_decay` = 0"):
        MLP((2, 3, 1), Tanh(), weight_decay=0.0, data=data)
    even = FiniteData(np.array([[1.0], [-1.0]]), np.array([[1.0], [1.0]]))
    mlp = MLP.from_data(even, (2,), Quadratic(), weight_decay=0.1)
    assert mlp.energy(torch.zeros(1, 4, dtype=F64)).item() == 0.5
    with pytest.raises(InvalidParameterError, match="uncorrelated"):
        mlp.order_parameters(torch.zeros(1, 4, dtype=F64))
    with pytest.raises(InvalidParameterError, match="expected a linear network"):
        batch_model(mlp)
