"""Compiled arithmetic of nonlinear networks, a replica in each lane: what the loop of matrix networks calls for them.

A batch enters as columns: inputs X and labels Y. With H_l = σ(W_l H_{l−1} + b_l), the last without σ, and
δ_D = (H_D − Y)/B, layer l descends along δ_l H_{l−1}ᵀ, its biases along Σ δ_l, and δ_{l−1} = σ′ ⊙ W_lᵀ δ_l. Where all
samples of a data set are seen, for a full batch or an order parameter, they come a part at a time and gradients are
summed up.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit
from kramers_grok.core.lane_functions import IDENTITY, activate, multiply
from kramers_grok.core.lane_products import descend, product
from kramers_grok.core.lanes import Block, into_njit, lanes_of, load, minus, multiplied, plus, stay_out, store
from kramers_grok.dynamics.network_advance import is_layout, measure_block, take_block_step
from kramers_grok.dynamics.network_batches import SAMPLES, draw_samples, take_samples
from kramers_grok.dynamics.network_steps import (
    BACK,
    DECAY,
    FACTORS,
    HIDDEN,
    SHARE,
    WEIGHTS,
    WIDTHS,
    Entries,
    dot,
    error,
    step_down,
)

__all__ = ["BIASES", "SLOPES", "WHOLE", "NonlinearLayout", "SampleBatches", "make_nonlinear_layout"]

SLOPES, BIASES = 6, 7  # more rows of the table: σ′ of every column and layer; b_{l+1}, after all weights
WHOLE = 6  # one more kind of batches: all samples


class NonlinearLayout(NamedTuple):
    """Where everything else lies in a block: numbers of first entries; see `network_steps.Layout`."""

    columns: int  # there is room for
    activation: int  # one of `lane_functions`
    biased: bool
    n_parameters: int
    gradient: int  # of all parameters, where it is summed up
    shares: int  # of every output and column: what it counts in the order parameter
    raw: int  # normal numbers before they become inputs
    labels: int  # of every column, or their noise alone
    moments: int  # nothing
    teacher: int  # constant: −M
    root: int  # constant: Σ_xx^½
    rate: int  # and the entries after it, as in `network_steps`
    score: int
    slope: int
    end: int


class SampleBatches(NamedTuple):
    """Where batches come from, and what order parameters are of, in the form that compiled code takes."""

    kind: int
    white: bool
    noisy_labels: bool
    x: Any  # samples, (sample, input)
    y: Any  # (sample, output)
    probe: Any  # inputs, (sample, input)
    shares: Any  # w of every output, (output, sample), of m = Σ_n w_n · f(x_n) − c: see `readouts.Readout`
    offset: float  # c


def make_nonlinear_layout(
    widths: tuple[int, ...], columns: int, activation: int, *, biased: bool
) -> tuple[NDArray[np.int64], NonlinearLayout]:
    """Return the table and the layout for so many columns at once.

    Examples
    --------
    >>> make_nonlinear_layout((2, 3, 1), 4, 1, biased=True)[0][BIASES].tolist()
    [9, 12, 0]
    """
    at = 0

    def room(entries: int) -> int:
        nonlocal at
        at += entries
        return at - entries

    inputs, outputs = widths[0], widths[-1]
    n_parameters = sum((below + biased) * above for below, above in pairwise(widths))
    table = np.zeros((8, len(widths)), dtype=np.int64)
    table[WIDTHS] = widths
    table[WEIGHTS, :-1] = [room(above * below) for below, above in pairwise(widths)]
    table[BIASES, :-1] = [room(above * biased) for above in widths[1:]]
    table[HIDDEN] = [room(columns * width) for width in widths]
    table[SLOPES, 1:-1] = [room(columns * width) for width in widths[1:-1]]
    table[BACK, :2] = [room(columns * max(widths)) for _ in range(2)]
    return table, NonlinearLayout(
        columns=columns,
        activation=activation,
        biased=biased,
        n_parameters=n_parameters,
        gradient=room(n_parameters),
        shares=room(columns * outputs),
        raw=room(columns * max(inputs, outputs) + 4),
        labels=room(columns * outputs + 4),
        moments=room(0),
        teacher=room(outputs * inputs),
        root=room(inputs * inputs),
        rate=room(FACTORS),
        score=room(1),
        slope=room(3),
        end=room(0),
    )


@njit
def _spread(block: Block, entry: int, values: Any) -> None:
    """Write numbers to entries, the same in every lane."""
    lanes = lanes_of(block)
    for j in range(values.shape[0]):
        for lane in range(lanes):
            block[(entry + j) * lanes + lane] = values[j]


@njit
def _pass(block: Block, at: Entries, layout: NonlinearLayout, columns: int) -> None:
    """Fill H_1 … H_D and the slopes."""
    stay_out()
    depth = at.shape[1] - 1
    row, column = 1, at[WIDTHS, 0]  # X lies column after column, the others row by row
    for layer in range(depth):
        above, below, into = at[WIDTHS, layer + 1], at[WIDTHS, layer], at[HIDDEN, layer + 1]
        product(
            block, into, columns, at[WEIGHTS, layer], below, 1, at[HIDDEN, layer], row, column, above, below,
            columns, False,
        )  # fmt: skip
        if layout.biased:
            for i in range(above):
                bias = load(block, at[BIASES, layer] + i)
                for j in range(into + i * columns, into + (i + 1) * columns):
                    store(block, j, plus(load(block, j), bias))
        if layer + 1 < depth:
            activate(block, into, at[SLOPES, layer + 1], above * columns, layout.activation)
        row, column = columns, 1


@njit
def _carry_back(block: Block, at: Entries, layout: NonlinearLayout, columns: int, summing: bool, adding: bool) -> None:
    """Step every layer down its gradient, from the error in H_D on.

    From the top: a layer's old weights carry the error down before they move. Where `summing` nothing moves: the
    gradient, without weight decay, is put into `gradient`, or added to it where `adding`.
    """
    stay_out()
    depth = at.shape[1] - 1
    delta = at[HIDDEN, depth]
    for layer in range(depth - 1, -1, -1):
        weights, above, below = at[WEIGHTS, layer], at[WIDTHS, layer + 1], at[WIDTHS, layer]
        carried = at[BACK, layer % 2]
        row, column = 1, below
        if layer > 0:
            row, column = columns, 1
            product(block, carried, columns, weights, 1, below, delta, columns, 1, below, above, columns, False)
            if layout.activation != IDENTITY:
                multiply(block, carried, at[SLOPES, layer], below * columns)
        if layout.biased:
            _biases_down(block, at, layout, layer, delta, columns, summing, adding)
        if summing:
            product(
                block, layout.gradient + weights, below, delta, columns, 1, at[HIDDEN, layer], column, row, above,
                columns, below, adding,
            )  # fmt: skip
        else:
            descend(
                block, weights, below, delta, columns, 1, at[HIDDEN, layer], column, row, above, columns, below,
                layout.rate, layout.rate + DECAY,
            )  # fmt: skip
        delta = carried


@into_njit
def _biases_down(
    block: Block, at: Entries, layout: NonlinearLayout, layer: int, delta: int, columns: int, summing: bool,
    adding: bool,
) -> None:  # fmt: skip
    """What `_carry_back` does with weights, for the biases of a layer: their gradient is Σ δ."""
    eta, pull = load(block, layout.rate), load(block, layout.rate + DECAY)
    bias = at[BIASES, layer]
    sums = layout.gradient + bias
    for i in range(at[WIDTHS, layer + 1]):
        total = load(block, delta + i * columns)
        for j in range(1, columns):
            total = plus(total, load(block, delta + i * columns + j))
        if not summing:
            old = load(block, bias + i)
            store(block, bias + i, minus(old, multiplied(eta, plus(total, multiplied(pull, old)))))
        elif adding:
            store(block, sums + i, plus(load(block, sums + i), total))
        else:
            store(block, sums + i, total)


@into_njit
def _show(block: Block, at: Entries, layout: NonlinearLayout, x: Any, begin: int, columns: int) -> None:
    """Fill X with samples of a table, the same for all replicas."""
    for j in range(columns):
        _spread(block, at[HIDDEN, 0] + j * at[WIDTHS, 0], x[begin + j])


@into_njit
def _take_whole_step(block: Block, at: Entries, layout: NonlinearLayout, x: Any, y: Any) -> None:
    """Step down the gradient of the mean loss on all samples."""
    outputs, outcome = at[WIDTHS, at.shape[1] - 1], at[HIDDEN, at.shape[1] - 1]
    for begin in range(0, x.shape[0], layout.columns):
        columns = min(layout.columns, x.shape[0] - begin)
        _show(block, at, layout, x, begin, columns)
        for j in range(columns):
            _spread(block, layout.labels + j * outputs, y[begin + j])
        _pass(block, at, layout, columns)
        error(block, outcome, outcome, outputs, columns, layout.labels, 1, outputs, layout.rate + SHARE, True)
        _carry_back(block, at, layout, columns, True, begin > 0)
    step_down(block, at[WEIGHTS, 0], layout.gradient, layout.n_parameters, layout.rate, layout.rate + DECAY)


@into_njit
def _take_batch_step(
    block: Block, at: Entries, layout: Any, batches: Any, source: Any, step: int, columns: int, single: bool,
    where: Any,
) -> None:  # fmt: skip
    """Draw a batch of samples and step down the gradient of its loss."""
    inputs, outputs, outcome = at[WIDTHS, 0], at[WIDTHS, at.shape[1] - 1], at[HIDDEN, at.shape[1] - 1]
    if batches.kind == SAMPLES:
        draw_samples(block, at, layout, batches, source, step, columns, single)
    else:
        take_samples(block, at, layout, batches, source, step, columns, where)
    _pass(block, at, layout, columns)
    labelled = True
    if batches.kind == SAMPLES:  # − M X
        x = at[HIDDEN, 0]
        product(
            block, outcome, columns, layout.teacher, inputs, 1, x, 1, inputs, outputs, inputs, columns, True
        )  # fmt: skip
        labelled = batches.noisy_labels
    error(block, outcome, outcome, outputs, columns, layout.labels, 1, outputs, layout.rate + SHARE, labelled)
    _carry_back(block, at, layout, columns, False, False)


@into_njit
def _read(block: Block, at: Entries, layout: NonlinearLayout, batches: SampleBatches, slope: bool) -> None:
    """Put the order parameter Σ_n w_n · f(x_n) − c into `score`, and with `slope` ‖∇m‖² into `slope`."""
    x, shares = batches.probe, batches.shares
    outputs, outcome = at[WIDTHS, at.shape[1] - 1], at[HIDDEN, at.shape[1] - 1]
    for begin in range(0, x.shape[0], layout.columns):
        columns = min(layout.columns, x.shape[0] - begin)
        _show(block, at, layout, x, begin, columns)
        for i in range(outputs):
            _spread(block, layout.shares + i * columns, shares[i, begin : begin + columns])
        _pass(block, at, layout, columns)
        n = outputs * columns
        product(block, layout.score, 1, layout.shares, n, 1, outcome, 1, 1, 1, n, 1, begin > 0)
        if slope:
            for j in range(n):
                store(block, outcome + j, load(block, layout.shares + j))
            _carry_back(block, at, layout, columns, True, begin > 0)
    lanes = lanes_of(block)
    for lane in range(lanes):
        block[layout.score * lanes + lane] -= batches.offset
    if slope:
        dot(block, layout.slope, layout.gradient, layout.gradient, layout.n_parameters)


@overload(take_block_step)  # type: ignore[untyped-decorator]
def _compile_step(
    block: Any, at: Any, layout: Any, batches: Any, source: Any, step: Any, size: Any, single: Any, where: Any
) -> Any:
    if not is_layout(layout, NonlinearLayout):
        return None

    def call(
        block: Any, at: Any, layout: Any, batches: Any, source: Any, step: Any, size: Any, single: Any, where: Any
    ) -> None:
        if batches.kind == WHOLE:
            _take_whole_step(block, at, layout, batches.x, batches.y)
        else:
            _take_batch_step(block, at, layout, batches, source, step, size, single, where)

    return call


@overload(measure_block)  # type: ignore[untyped-decorator]
def _compile_measure(block: Any, at: Any, layout: Any, batches: Any, border: Any) -> Any:
    if not is_layout(layout, NonlinearLayout):
        return None

    def call(block: Any, at: Any, layout: Any, batches: Any, border: Any) -> None:
        _read(block, at, layout, batches, border.bridging)

    return call
