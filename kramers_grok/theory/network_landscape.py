r"""Symbolic landscape of a matrix network, and its gradient as a short program.

.. math:: F = \tfrac q2 \|W_D\cdots W_1 - M\|_F^2 + \tfrac\lambda2 \sum_l \|W_l\|_F^2

Written out, the product of the layers has :math:`h^{D-1}` terms in each entry. Nothing is written out here: partial
products stay nested, and the gradient is a list of small statements over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape

__all__ = ["Program", "gradient_program", "network_landscape", "weight_symbols"]

Matrix = list[list[sympy.Expr]]


def weight_symbols(widths: Sequence[int]) -> list[Matrix]:
    """Entries of W_1 … W_D as symbols ``w{layer}_{row}_{column}``, all counted from 1.

    Examples
    --------
    >>> weight_symbols((1, 2, 1))
    [[[w1_1_1], [w1_2_1]], [[w2_1_1, w2_1_2]]]
    """
    return [
        [[sympy.Symbol(f"w{l}_{i}_{j}", real=True) for j in range(1, below + 1)] for i in range(1, above + 1)]
        for l, (below, above) in enumerate(pairwise(widths), start=1)
    ]


def network_landscape(
    widths: Sequence[int], teacher_matrix: ArrayLike, weight_decay: float, input_variance: float = 1.0
) -> Landscape:
    r"""Energy of a matrix network and its order parameters :math:`m_k = u_k^T W_D\cdots W_1 v_k`.

    Coordinates are the entries of W_1, …, W_D row by row, as in `DeepLinearNetwork`; u_k and v_k are the teacher's
    singular vectors, strongest feature first.

    Parameters
    ----------
    widths : sequence of int
        (d, h_1, …, h_{D−1}, o).
    teacher_matrix : array_like, shape (o, d)
        M.
    weight_decay : float
        λ > 0 [loss / amplitude²].
    input_variance : float
        q > 0.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range or the teacher does not fit the widths.

    Examples
    --------
    >>> landscape = network_landscape((1, 2, 1), [[3.0]], weight_decay=0.5)
    >>> landscape.coordinates
    (w1_1_1, w1_2_1, w2_1_1, w2_1_2)
    >>> landscape.energy_at([1.0, 0.0, 2.0, 0.0]), landscape.order_parameters_at([1.0, 0.0, 2.0, 0.0])
    (array(1.75), array([2.]))
    """
    sizes = tuple(checks.positive_int("widths", w) for w in widths)
    teacher = checks.finite_array("teacher_matrix", teacher_matrix, ndim=2)
    if len(sizes) < 2 or teacher.shape != (sizes[-1], sizes[0]):
        raise InvalidParameterError(
            f"`teacher_matrix` has shape {teacher.shape} with widths {sizes}, expected (outputs, inputs) = the last "
            "and the first width.\nUse `np.diag([…])` or `teacher_matrix.T`."
        )
    decay = checks.positive("weight_decay", weight_decay)
    variance = checks.positive("input_variance", input_variance)
    return _landscape(sizes, tuple(teacher.ravel().tolist()), decay, variance)


@lru_cache(maxsize=64)
def _landscape(widths: tuple[int, ...], entries: tuple[float, ...], decay: float, variance: float) -> Landscape:
    layers = weight_symbols(widths)
    teacher = np.array(entries).reshape(widths[-1], widths[0])
    product = layers[0]
    for layer in layers[1:]:
        product = _product(layer, product)
    weights = tuple(w for layer in layers for row in layer for w in row)
    misfit = sum((w - sympy.Float(m)) ** 2 for w, m in _entries(product, teacher.tolist()))
    energy = sympy.Float(variance) / 2 * misfit + sympy.Float(decay) / 2 * sum(w**2 for w in weights)
    return Landscape(energy, weights, _order_parameters(layers, teacher))


def _order_parameters(layers: list[Matrix], teacher: NDArray[np.float64]) -> tuple[sympy.Expr, ...]:
    """m_k, multiplied from the inside out: one vector through the layers, no matrix product."""
    u, values, vt = np.linalg.svd(teacher)
    parameters = []
    for k in range(int((values > 1e-12 * values[0]).sum())):
        inner: Matrix = _product(layers[0], [[_component(v)] for v in vt[k]])
        for layer in layers[1:-1]:
            inner = _product(layer, inner)
        if len(layers) == 1:
            outer: Matrix = [[_component(v) for v in u[:, k]]]
        else:
            outer = _product([[_component(v) for v in u[:, k]]], layers[-1])
        parameters.append(_product(outer, inner)[0][0])
    return tuple(parameters)


def _component(value: float) -> sympy.Expr:
    """Component of a unit vector; one that is 0 or ±1 to rounding leaves no number behind."""
    nearest = round(value)
    return sympy.Integer(nearest) if abs(value - nearest) < 1e-15 else sympy.Float(value)


def _product(a: Matrix, b: Matrix) -> Matrix:
    columns = list(zip(*b, strict=True))
    return [[sympy.Add(*(x * y for x, y in zip(row, column, strict=True))) for column in columns] for row in a]


def _transposed(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


# ---------------------------------------------------------------- gradient


class Program(NamedTuple):
    """Statements ``symbol = expression`` in order, and the gradient's components in their symbols."""

    statements: tuple[tuple[sympy.Symbol, sympy.Expr], ...]
    gradient: tuple[sympy.Expr, ...]

    @property
    def operations(self) -> int:
        """Number of additions and multiplications."""
        return int(sum(sympy.count_ops(e) for e in (*(e for _, e in self.statements), *self.gradient)))


def gradient_program(
    widths: Sequence[int], xx: sympy.Expr, yx: Sequence[Sequence[sympy.Expr]], weight_decay: float | sympy.Expr
) -> Program:
    r"""Gradient of a batch's loss, :math:`A_l^T (xx\,W - yx) B_l^T + \lambda W_l` for each layer l.

    W is the product of all layers, A_l of those above and B_l of those below layer l. The cheaper of two orders of
    multiplication is taken: the error matrix sent back through the layers, or Gram matrices,
    :math:`xx\,(A_l^TA_l) W_l (B_lB_l^T) - A_l^T yx\,B_l^T`, which never form the large matrix where hidden layers are
    narrower than inputs and outputs.

    Parameters
    ----------
    widths : sequence of int
    xx : sympy.Expr
        Second moment of every input of the batch: inputs are white, or there is one.
    yx : sequence of sequences of sympy.Expr, shape (output, input)
        Second moments of outputs with inputs.
    weight_decay : float or sympy.Expr

    Examples
    --------
    >>> xx, yx = sympy.symbols("xx yx", real=True)
    >>> program = gradient_program((1, 1, 1), xx, [[yx]], weight_decay=0.5)
    >>> program.statements
    ((t0, w1_1_1*w2_1_1), (t1, t0*xx - yx), (t2, t1*w1_1_1), (t3, t1*w2_1_1))
    >>> program.gradient
    (t3 + 0.5*w1_1_1, t2 + 0.5*w2_1_1)
    """
    return _program(tuple(widths), sympy.sympify(xx), tuple(map(tuple, yx)), sympy.sympify(weight_decay))


@lru_cache(maxsize=64)
def _program(
    widths: tuple[int, ...], xx: sympy.Expr, yx: tuple[tuple[sympy.Expr, ...], ...], decay: sympy.Expr
) -> Program:
    layers, target = weight_symbols(widths), [list(row) for row in yx]
    programs = []
    for fit_gradient in (_through_the_error, _through_gram_matrices):
        writer = _Writer()
        fits = fit_gradient(writer, layers, xx, target)
        pairs = [pair for fit, layer in zip(fits, layers, strict=True) for pair in _entries(fit, layer)]
        programs.append(Program(tuple(writer.statements), tuple(g + decay * w for g, w in pairs)))
    return min(programs, key=lambda program: program.operations)


def _entries(a: Matrix, b: Matrix) -> list[tuple[sympy.Expr, sympy.Expr]]:
    return [(x, y) for row, other in zip(a, b, strict=True) for x, y in zip(row, other, strict=True)]


class _Writer:
    """Gives a name to every entry of a matrix that is computed."""

    def __init__(self) -> None:
        self.statements: list[tuple[sympy.Symbol, sympy.Expr]] = []

    def name(self, expression: sympy.Expr) -> sympy.Expr:
        if not expression.args:  # a number or a name
            return expression
        symbol = sympy.Symbol(f"t{len(self.statements)}", real=True)
        self.statements.append((symbol, expression))
        return symbol

    def product(self, a: Matrix, b: Matrix) -> Matrix:
        return [[self.name(e) for e in row] for row in _product(a, b)]

    def symmetric_product(self, a: Matrix, b: Matrix) -> Matrix:
        """A product known to be symmetric: half of it is computed."""
        full = _product(a, b)
        named = [[self.name(e) if j >= i else e for j, e in enumerate(row)] for i, row in enumerate(full)]
        return [[named[min(i, j)][max(i, j)] for j in range(len(full))] for i in range(len(full))]


def _through_the_error(writer: _Writer, layers: list[Matrix], xx: sympy.Expr, yx: Matrix) -> list[Matrix]:
    below = [layers[0]]
    for layer in layers[1:]:
        below.append(writer.product(layer, below[-1]))
    back = [
        [writer.name(xx * w - y) for w, y in zip(row, target, strict=True)]
        for row, target in zip(below[-1], yx, strict=True)
    ]
    fits: list[Matrix] = []
    for index in range(len(layers) - 1, 0, -1):
        fits.append(writer.product(back, _transposed(below[index - 1])))
        back = writer.product(_transposed(layers[index]), back)
    return [back, *reversed(fits)]


def _through_gram_matrices(writer: _Writer, layers: list[Matrix], xx: sympy.Expr, yx: Matrix) -> list[Matrix]:
    # For each layer, from the bottom: W_l S_l with S_l = B_l B_lᵀ (nothing below the first), and B_l itself.
    right, below = [layers[0]], [layers[0]]
    for layer in layers[1:]:
        gram = writer.symmetric_product(right[-1], _transposed(layers[len(right) - 1]))
        right.append(writer.product(layer, gram))
        below.append(writer.product(layer, below[-1]) if len(below) < len(layers) - 1 else [])
    # From the top: R_l = A_lᵀA_l, and A_lᵀ yx.
    fits: list[Matrix] = []
    gram_above: Matrix | None = None
    target = yx
    for index in range(len(layers) - 1, -1, -1):
        layer = layers[index]
        fit = right[index] if gram_above is None else writer.product(gram_above, right[index])
        cross = writer.product(target, _transposed(below[index - 1])) if index else target
        fits.append([[xx * a - c for a, c in zip(*rows, strict=True)] for rows in zip(fit, cross, strict=True)])
        if index:
            inner = layer if gram_above is None else writer.product(gram_above, layer)
            gram_above = writer.symmetric_product(_transposed(layer), inner)
            target = writer.product(_transposed(layer), target)
    return fits[::-1]
