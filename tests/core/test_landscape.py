"""A landscape's numbers are those of its expressions, in every shape."""

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape, with_float_constants
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

X, Y = sympy.symbols("x y", real=True)
TILTED = Landscape(
    (X**2 - 1) ** 2 + sympy.sqrt(3) * X * Y + sympy.exp(-(Y**2)) + Y**4 / 3, (X, Y), (X + Y**2, sympy.sin(X))
)
LANDSCAPES = {
    "two coordinates": TILTED,
    "mode": Mode(depth=3, singular_value=1.3, weight_decay=0.2, input_variance=0.7).landscape,
    "chain": DeepLinearChain(depth=4, singular_value=1.3, weight_decay=0.2, input_variance=0.7).landscape,
}


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
def test_values_are_those_of_sympy(landscape: Landscape) -> None:
    points = np.random.default_rng(0).normal(size=(5, landscape.dimension))
    for point in points:
        at = dict(zip(landscape.coordinates, point, strict=True))

        def value(expression: sympy.Expr, at: dict[sympy.Symbol, float] = at) -> float:
            return float(expression.evalf(30, subs=at))

        gradient = [value(sympy.diff(landscape.energy, x)) for x in landscape.coordinates]
        hessian = [
            [value(sympy.diff(landscape.energy, x, y)) for y in landscape.coordinates] for x in landscape.coordinates
        ]
        order = [value(m) for m in landscape.order_parameters]
        np.testing.assert_allclose(landscape.energy_at(point), value(landscape.energy), rtol=1e-12)
        np.testing.assert_allclose(landscape.gradient_at(point), gradient, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(landscape.hessian_at(point), hessian, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(landscape.order_parameters_at(point), order, rtol=1e-12)


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=2))
def test_derivatives_are_finite_differences(point: list[float]) -> None:
    x, h = np.array(point), 1e-5
    moved = x + h * np.array([np.eye(2), -np.eye(2)])  # (side, coordinate, coordinate)
    slopes = (TILTED.energy_at(moved[0]) - TILTED.energy_at(moved[1])) / (2 * h)
    curvatures = (TILTED.gradient_at(moved[0]) - TILTED.gradient_at(moved[1])) / (2 * h)
    # central differences err by h²/6 times a third derivative (below 100 here), and by rounding over h
    np.testing.assert_allclose(TILTED.gradient_at(x), slopes, atol=2e-8)
    np.testing.assert_allclose(TILTED.hessian_at(x), curvatures, atol=1e-7)


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3), (0,)])
def test_shapes(batch: tuple[int, ...]) -> None:
    x = np.ones((*batch, 2))
    assert TILTED.energy_at(x).shape == batch
    assert TILTED.gradient_at(x).shape == (*batch, 2)
    assert TILTED.hessian_at(x).shape == (*batch, 2, 2)
    assert TILTED.order_parameters_at(x).shape == (*batch, 2)


def test_constant_entries_are_spread_over_the_batch() -> None:
    bowl = Landscape(X**2 + Y**2, (X, Y), (sympy.Integer(2), X))
    assert bowl.hessian_at(np.zeros((3, 2))).tolist() == [[[2.0, 0.0], [0.0, 2.0]]] * 3
    assert bowl.order_parameters_at(np.zeros((3, 2))).tolist() == [[2.0, 0.0]] * 3


def test_the_order_of_the_coordinates_is_the_one_given() -> None:
    swapped = Landscape(X + 10 * Y, (Y, X), (X,))
    assert swapped.gradient == (10, 1)
    assert swapped.energy_at([1.0, 2.0]) == 12.0


def test_unknown_symbols_are_named() -> None:
    a, b = sympy.symbols("alpha beta")
    with pytest.raises(InvalidParameterError, match=r"symbols \['alpha', 'beta'\].*\n.*energy.subs"):
        Landscape(a * X**2, (X,), (b * X,))


@pytest.mark.parametrize("x", [1.0, np.zeros(3), np.zeros((2, 1))])
def test_a_wrong_number_of_coordinates(x: float) -> None:
    with pytest.raises(InvalidParameterError, match=r"`x` has shape .*expected \(..., 2\).*\['x', 'y'\]"):
        TILTED.gradient_at(x)


def test_irrational_constants_become_floats_and_others_stay() -> None:
    numeric = with_float_constants(sympy.pi * X**2 / 3 + sympy.sqrt(2) * X ** sympy.Rational(3, 2) + 5)
    assert not numeric.has(sympy.pi)
    assert numeric.has(sympy.Rational(3, 2))
    assert float(numeric.subs(X, 4.0)) == pytest.approx(np.pi * 16 / 3 + 2**0.5 * 8 + 5, rel=1e-14)
