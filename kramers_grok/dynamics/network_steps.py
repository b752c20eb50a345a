"""Compiled arithmetic of matrix networks, a replica in each lane: gradients, steps, order parameters.

A batch enters in one of two ways. As **columns**: inputs X (input, column) and labels Y, through which
H_l = W_l … W_1 X, δ_D = (H_D − Y)/B, and layer l descends along δ_l H_{l−1}ᵀ with δ_{l−1} = W_lᵀ δ_l. As second
**moments**: the same with X = 1, hence H_1 = W_1, and δ_D = H_D Σ_xx − Σ_yx.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit
from kramers_grok.core.lane_products import descend, product
from kramers_grok.core.lanes import Block, into_njit, load, minus, multiplied, plus, stay_out, store

__all__ = ["Layout", "align", "backward", "distance", "error", "forward", "make_layout"]

Entries = Any  # int64 (6, D + 1), whose elements are integers to compiled code


# Rows of the table of a network's widths and of the entries where its parts begin, a column for each layer from 0 to D.
WIDTHS, WEIGHTS, HIDDEN, BACK, ALONG, AGAINST = range(6)


class Layout(NamedTuple):
    """Where everything else lies in a block: numbers of first entries; make it with :func:`make_layout`."""

    raw: int  # normal numbers before they become inputs; Σ̂_yx
    labels: int  # of every column, or their noise alone
    moments: int  # Σ̂_xx
    teacher: int  # constant: −M, or Σ_yx
    root: int  # constant: Σ_xx^½, or Σ_xx
    rate: int  # and the entries after it: see the names below
    score: int
    slope: int
    end: int


# Entries after `rate`: what each replica multiplies by.
DECAY, AMPLITUDE, ONE, SHARE, SPREAD, LABEL = range(1, 7)
FACTORS = 7


def make_layout(widths: tuple[int, ...], columns: int) -> tuple[NDArray[np.int64], Layout]:
    """Return the table and the layout for batches of at most so many columns.

    The rows of the table: widths h_l; weights W_{l+1}; H_l of every column, the first of them X and the last the
    error; two places for δ_l; W_l … W_1 v; W_{l+1}ᵀ … W_Dᵀ u.

    Examples
    --------
    >>> make_layout((2, 3, 1), columns=4)[0][WEIGHTS].tolist()
    [0, 6, 0]
    """
    at = 0

    def room(entries: int) -> int:
        nonlocal at
        at += entries
        return at - entries

    columns = max(columns, widths[0])
    inputs, outputs = widths[0], widths[-1]
    table = np.zeros((6, len(widths)), dtype=np.int64)
    table[WIDTHS] = widths
    table[WEIGHTS, :-1] = [room(above * below) for below, above in pairwise(widths)]
    table[HIDDEN] = [room(columns * width) for width in widths]
    table[BACK, :2] = [room(columns * max(widths)) for _ in range(2)]
    table[ALONG] = [room(width) for width in widths]
    table[AGAINST] = [room(width) for width in widths]
    return table, Layout(
        raw=room(columns * max(inputs, outputs) + 4),
        labels=room(columns * max(inputs, outputs) + 4),
        moments=room(inputs * inputs),
        teacher=room(outputs * inputs),
        root=room(inputs * inputs),
        rate=room(FACTORS),
        score=room(1),
        slope=room(3),
        end=room(0),
    )


@into_njit
def forward(block: Block, at: Entries, layout: Layout, columns: int, x_row: int, x_column: int, moments: bool) -> None:
    """Fill H_1 … H_D; `x_row`, `x_column` are the strides of X. From moments H_1 is W_1 itself and not copied."""
    for layer in range(1 if moments else 0, at.shape[1] - 1):
        below, row, column = at[HIDDEN, layer], columns, 1
        if layer == 0:
            row, column = x_row, x_column
        elif layer == 1 and moments:
            below = at[WEIGHTS, 0]
        product(
            block, at[HIDDEN, layer + 1], columns, at[WEIGHTS, layer], at[WIDTHS, layer], 1, below, row, column,
            at[WIDTHS, layer + 1], at[WIDTHS, layer], columns, False,
        )  # fmt: skip


@njit
def error(
    block: Block, into: int, of: int, rows: int, columns: int, labels: int, row: int, column: int, scale: int,
    labelled: bool,
) -> None:  # fmt: skip
    """E ← scale·(H − Y), or scale·H where there are no labels; `row`, `column` are the strides of Y."""
    stay_out()
    factor = load(block, scale)
    for i in range(rows):
        for j in range(columns):
            value = load(block, of + i * columns + j)
            if labelled:
                value = minus(value, load(block, labels + i * row + j * column))
            store(block, into + i * columns + j, multiplied(factor, value))


@into_njit
def backward(block: Block, at: Entries, layout: Layout, columns: int, x_row: int, x_column: int, moments: bool) -> None:
    """Step every layer down its gradient, from the error in H_D on; arguments as for :func:`forward`.

    From the top: a layer's old weights carry the error down before they move.
    """
    depth = at.shape[1] - 1
    rate, decay = layout.rate, layout.rate + DECAY
    delta = at[HIDDEN, depth]
    for layer in range(depth - 1, -1, -1):
        weights, above, below = at[WEIGHTS, layer], at[WIDTHS, layer + 1], at[WIDTHS, layer]
        carried = at[BACK, layer % 2]
        if layer > 0:
            product(block, carried, columns, weights, 1, below, delta, columns, 1, below, above, columns, False)
        if layer == 0 and moments:
            step_down(block, weights, delta, above * below, rate, decay)
            break
        inputs, row, column = at[HIDDEN, layer], columns, 1
        if layer == 0:
            row, column = x_row, x_column
        elif layer == 1 and moments:
            inputs = at[WEIGHTS, 0]
        descend(
            block, weights, below, delta, columns, 1, inputs, column, row, above, columns, below, rate, decay,
        )  # fmt: skip
        delta = carried


@into_njit
def step_down(block: Block, weights: int, gradient: int, n: int, rate: int, decay: int) -> None:
    """Move `n` weights down their gradient with weight decay, in every lane."""
    eta, pull = load(block, rate), load(block, decay)
    for j in range(n):
        old = load(block, weights + j)
        slope = plus(load(block, gradient + j), multiplied(pull, old))
        store(block, weights + j, minus(old, multiplied(eta, slope)))


@into_njit
def align(block: Block, at: Entries, layout: Layout) -> None:
    """Fill `along` from v on, and put m = uᵀ W v into `score`."""
    depth = at.shape[1] - 1
    for layer in range(depth):
        product(
            block, at[ALONG, layer + 1], 1, at[WEIGHTS, layer], at[WIDTHS, layer], 1, at[ALONG, layer], 1, 1,
            at[WIDTHS, layer + 1], at[WIDTHS, layer], 1, False,
        )  # fmt: skip
    dot(block, layout.score, at[AGAINST, depth], at[ALONG, depth], at[WIDTHS, depth])


@njit
def dot(block: Block, into: int, a: int, b: int, n: int) -> None:
    """Put the inner product of two rows of `n` entries into one entry, in every lane."""
    product(block, into, 1, a, n, 1, b, 1, 1, 1, n, 1, False)


@into_njit
def distance(block: Block, at: Entries, layout: Layout) -> None:
    """Put ‖∇m‖² into `slope`, after :func:`align`.

    The gradient in W_l is the dyad of W_{l+1}ᵀ … W_Dᵀ u and W_{l−1} … W_1 v, so its norm is the product of theirs.
    """
    depth = at.shape[1] - 1
    total, upper, lower = layout.slope, layout.slope + 1, layout.slope + 2
    for layer in range(depth - 1, -1, -1):
        dot(block, upper, at[AGAINST, layer + 1], at[AGAINST, layer + 1], at[WIDTHS, layer + 1])
        dot(block, lower, at[ALONG, layer], at[ALONG, layer], at[WIDTHS, layer])
        squared = multiplied(load(block, upper), load(block, lower))
        store(block, total, squared if layer == depth - 1 else plus(load(block, total), squared))
        if layer > 0:
            product(
                block, at[AGAINST, layer], 1, at[WEIGHTS, layer], 1, at[WIDTHS, layer], at[AGAINST, layer + 1],
                1, 1, at[WIDTHS, layer], at[WIDTHS, layer + 1], 1, False,
            )  # fmt: skip
