"""The symbolic network against plain matrix products, for many widths, teachers and both orders of multiplication."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory import network_landscape as nl
from kramers_grok.theory.network_landscape import gradient_program, network_landscape, weight_symbols

Array = NDArray[np.float64]
WIDTHS = [(1, 2, 2, 1), (1, 3, 3, 1), (1, 2, 3, 2, 1), (2, 2, 2, 2), (3, 2, 1, 2), (2, 4, 3), (4, 2, 2, 4)]


def matrices(widths: tuple[int, ...], theta: Array) -> list[Array]:
    sizes = [a * b for a, b in pairwise(widths)]
    parts = np.split(theta, np.cumsum(sizes)[:-1])
    return [part.reshape(above, below) for part, (below, above) in zip(parts, pairwise(widths), strict=True)]


def chained(parts: list[Array], width: int) -> Array:
    product = np.eye(width)
    for w in parts:
        product = w @ product
    return product


def gradient(widths: tuple[int, ...], theta: Array, xx: float, yx: Array, decay: float) -> Array:
    """A_lᵀ (W xx − yx) B_lᵀ + λ W_l, layer by layer."""
    parts = matrices(widths, theta)
    error = xx * chained(parts, widths[0]) - yx
    rows = []
    for l, w in enumerate(parts):
        below, above = chained(parts[:l], widths[0]), chained(parts[l + 1 :], widths[l + 1])
        rows.append((above.T @ error @ below.T + decay * w).ravel())
    return np.concatenate(rows)


def teacher_of(widths: tuple[int, ...], rng: np.random.Generator, *, dense: bool) -> Array:
    full = rng.normal(size=(widths[-1], widths[0]))
    return full if dense else np.eye(*full.shape) * np.linspace(2.0, 1.0, full.shape[1])


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("widths", WIDTHS)
def test_energy_gradient_and_order_parameters(widths: tuple[int, ...], dense: bool) -> None:
    rng = np.random.default_rng(len(widths))
    teacher, decay, q = teacher_of(widths, rng, dense=dense), 0.3, 0.7
    landscape = network_landscape(widths, teacher, decay, q)
    u, values, vt = np.linalg.svd(teacher)
    assert len(landscape.order_parameters) == len(values)
    for theta in rng.normal(size=(3, landscape.dimension)):
        w = chained(matrices(widths, theta), widths[0])
        energy = q / 2 * ((w - teacher) ** 2).sum() + decay / 2 * (theta**2).sum()
        assert landscape.energy_at(theta) == pytest.approx(energy, rel=1e-13)
        slope = gradient(widths, theta, q, q * teacher, decay)
        np.testing.assert_allclose(landscape.gradient_at(theta), slope, rtol=1e-11, atol=1e-13)
        features = [u[:, k] @ w @ vt[k] for k in range(len(values))]
        np.testing.assert_allclose(landscape.order_parameters_at(theta), features, rtol=1e-11, atol=1e-13)


def evaluated(program: nl.Program, values: dict[str, float]) -> Array:
    scope = dict(values)
    for name, expression in program.statements:
        scope[str(name)] = eval(str(expression), {}, scope)
    return np.array([eval(str(e), {}, scope) for e in program.gradient])


@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=5).map(tuple),
    st.sampled_from([nl._through_the_error, nl._through_gram_matrices]),
    st.integers(0, 2**32),
)
@settings(max_examples=25)
def test_programs_compute_the_gradient(widths: tuple[int, ...], order: object, seed: int) -> None:
    """Both orders of multiplication, whichever is cheaper: not what the package takes, but what it chooses from."""
    rng = np.random.default_rng(seed)
    xx, decay = 0.7, 0.3
    yx = rng.normal(size=(widths[-1], widths[0])) * (rng.random((widths[-1], widths[0])) < 0.7)
    symbols = [w for layer in weight_symbols(widths) for row in layer for w in row]
    theta = rng.normal(size=len(symbols))
    entries = [[sympy.Float(m) if m else sympy.Integer(0) for m in row] for row in yx]
    writer = nl._Writer()
    fits = order(writer, weight_symbols(widths), sympy.Float(xx), entries)  # type: ignore[operator]
    program = nl.Program(tuple(writer.statements), tuple(e for fit in fits for row in fit for e in row))
    found = evaluated(program, dict(zip(map(str, symbols), theta, strict=True))) + decay * theta
    np.testing.assert_allclose(found, gradient(widths, theta, xx, yx, decay), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("widths", [(1, 4, 4, 1), (1, 2, 2, 2, 1), (8, 2, 2, 8)])
def test_the_cheaper_order_is_taken(widths: tuple[int, ...]) -> None:
    """Narrow ends: about four operations a weight with the error sent back; narrow middle: Gram matrices."""
    xx, yx = sympy.Symbol("xx", real=True), [[sympy.Integer(0)] * widths[0] for _ in range(widths[-1])]
    for k in range(min(widths[0], widths[-1], 2)):
        yx[k][k] = sympy.Integer(1)
    program = gradient_program(widths, xx, yx, 0.1)
    weights = sum(a * b for a, b in pairwise(widths))
    assert program.operations < 14 * weights
    squares = [e for _, e in program.statements if e.atoms(sympy.Pow)]
    assert bool(squares) == (widths[0] > widths[1])  # only a Gram matrix squares weights


def test_nothing_is_written_out() -> None:
    """Five layers of width 4: the product has 256 terms, each with five factors."""
    landscape = network_landscape((1, 4, 4, 4, 4, 1), [[1.0]], 0.1)
    shared, _ = sympy.cse(landscape.order_parameters)
    assert sum(sympy.count_ops(e) for _, e in shared) < 2 * (4 + 3 * 16 + 4)


def test_symbols_and_coordinates_are_in_the_order_of_theta() -> None:
    assert [str(x) for x in network_landscape((2, 1, 1), [[1.0, 0.0]], 0.1).coordinates] == [
        "w1_1_1",
        "w1_1_2",
        "w2_1_1",
    ]


def test_unit_vectors_leave_no_numbers() -> None:
    landscape = network_landscape((2, 2, 2), np.diag([2.0, 1.0]), 0.1)
    assert not any(m.atoms(sympy.Float) for m in landscape.order_parameters)


@pytest.mark.parametrize(
    ("widths", "teacher", "decay", "q", "message"),
    [
        ((2, 3, 1), [[1.0], [2.0]], 0.1, 1.0, r"`teacher_matrix` has shape \(2, 1\) with widths \(2, 3, 1\)"),
        ((2,), [[1.0, 0.0]], 0.1, 1.0, "`teacher_matrix` has shape"),
        ((1, 0, 1), [[1.0]], 0.1, 1.0, "`widths` = 0"),
        ((1, 1, 1), [[1.0]], 0.0, 1.0, "`weight_decay` = 0"),
        ((1, 1, 1), [[1.0]], 0.1, -1.0, "`input_variance` = -1"),
        ((1, 1, 1), [[np.nan]], 0.1, 1.0, "`teacher_matrix` = "),
    ],
)
def test_bad_arguments(
    widths: tuple[int, ...], teacher: list[list[float]], decay: float, q: float, message: str
) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        network_landscape(widths, teacher, decay, q)
