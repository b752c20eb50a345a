"""Torch functions of symbolic landscapes say what numpy's say."""

import numpy as np
import pytest
import sympy
import torch

from kramers_grok.core.landscape import Landscape
from kramers_grok.models.base import BatchModel, SymbolicModel, torch_function
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

X, Y = sympy.symbols("x y", real=True)
LANDSCAPES = {
    "smooth": Landscape(
        (X**2 - 1) ** 2 + sympy.sqrt(3) * X * Y + sympy.exp(-(Y**2)) + sympy.log(2 + Y**2),
        (X, Y),
        (sympy.sin(X) + sympy.pi, sympy.Integer(2)),
    ),
    "with corners": Landscape(sympy.Abs(X) + sympy.Max(X, Y) + sympy.Min(2 * X, Y) ** 2, (X, Y), (sympy.Abs(Y),)),
    "flat": Landscape(sympy.Integer(0), (X, Y), (X,)),
    "mode": Mode(depth=5, singular_value=1.2, weight_decay=0.1).landscape,
    "chain": DeepLinearChain(depth=3, singular_value=1.2, weight_decay=0.1, input_variance=0.6).landscape,
}


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
def test_torch_agrees_with_numpy(landscape: Landscape) -> None:
    model = SymbolicModel(landscape)
    points = np.random.default_rng(0).normal(size=(11, landscape.dimension))
    theta = torch.from_numpy(points)
    assert model.n_parameters == landscape.dimension
    np.testing.assert_allclose(model.energy(theta), landscape.energy_at(points), rtol=1e-13)
    np.testing.assert_allclose(model.gradient(theta), landscape.gradient_at(points), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(model.order_parameters(theta), landscape.order_parameters_at(points), rtol=1e-13)


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
def test_the_gradient_is_autograds(landscape: Landscape) -> None:
    model = SymbolicModel(landscape)
    points = np.random.default_rng(1).normal(size=(11, landscape.dimension))
    theta = torch.from_numpy(points).requires_grad_(True)
    energy = model.energy(theta)
    if not energy.requires_grad:  # the flat one
        assert (model.gradient(theta) == 0).all()
        return
    (expected,) = torch.autograd.grad(energy.sum(), theta)
    np.testing.assert_allclose(model.gradient(theta).detach(), expected, rtol=1e-12, atol=1e-14)


def test_expressions_share_one_row() -> None:
    function = torch_function((X, Y), (X + Y, sympy.Integer(3), sympy.Heaviside(X)))
    row = function(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5]))
    assert row.tolist() == [[1.5, 3.0, 1.0], [-1.5, 3.0, 0.0]]


def test_the_dtype_of_the_parameters_is_kept() -> None:
    theta = torch.ones(2, 2, dtype=torch.float32)
    assert SymbolicModel(LANDSCAPES["smooth"]).gradient(theta).dtype == torch.float32


def test_networks_are_batch_models_and_landscapes_are_not() -> None:
    chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.1)
    assert isinstance(ChainModel(chain), BatchModel)
    assert isinstance(DeepLinearNetwork((2, 2, 2), [1.0], weight_decay=0.1), BatchModel)
    assert not isinstance(SymbolicModel(chain.landscape), BatchModel)
