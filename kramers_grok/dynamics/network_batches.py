"""Compiled batches of matrix networks, a replica in each lane: the numbers of :mod:`kramers_grok.dynamics.sampling`.

Every batch becomes columns of inputs X and labels Y (see :mod:`kramers_grok.dynamics.network_steps`): samples, or the
min(d, B) columns whose second moments are those of B samples. Where the columns outnumber the inputs by enough, their
second moments are cheaper to go on with.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.lane_noise import Drawing, fill_normals
from kramers_grok.core.lane_products import product
from kramers_grok.core.lanes import Block, into_njit, lanes_of, load, multiplied, store
from kramers_grok.core.rng import Purpose
from kramers_grok.core.rng_draws import chi_square_rows, draw_indices, draw_subset
from kramers_grok.dynamics.network_steps import (
    BACK,
    HIDDEN,
    LABEL,
    ONE,
    SHARE,
    SPREAD,
    WIDTHS,
    Entries,
    Layout,
    backward,
    error,
    forward,
)  # fmt: skip

__all__ = [
    "CONSTANT", "DISTINCT", "MOMENTS", "REPLACEMENT", "SAMPLES", "Batches", "draw_samples",
    "take_samples", "take_step",
]  # fmt: skip

Integers = NDArray[np.int64]

CONSTANT, SAMPLES, MOMENTS, REPLACEMENT, DISTINCT = range(5)

_DATA, _LABEL = np.uint32(Purpose.DATA), np.uint32(Purpose.LABEL)


class Batches(NamedTuple):
    """Where batches come from, in the form that compiled code takes."""

    kind: int
    summed_from: int  # batches of so many samples and more go on as second moments
    white: bool  # inputs have one variance and are uncorrelated
    noisy_labels: bool
    x: Any  # samples, (sample, input)
    y: Any  # (sample, output)


@into_njit
def _colour(block: Block, at: Entries, layout: Layout, columns: int) -> None:
    """X ← Σ^½ X, column by column: the root is symmetric."""
    inputs = at[WIDTHS, 0]
    product(block, at[HIDDEN, 0], inputs, layout.raw, inputs, 1, layout.root, inputs, 1, columns, inputs, inputs, False)


@into_njit
def draw_samples(
    block: Block, at: Entries, layout: Layout, batches: Batches, source: Drawing, step: int, size: int, single: bool
) -> None:
    """Fill X with fresh samples, column after column, and the labels' noise."""
    inputs, outputs = at[WIDTHS, 0], at[WIDTHS, at.shape[1] - 1]
    if batches.white:
        fill_normals(block, at[HIDDEN, 0], size * inputs, layout.rate + SPREAD, source, _DATA, step, single)
    else:
        fill_normals(block, layout.raw, size * inputs, layout.rate + ONE, source, _DATA, step, single)
        _colour(block, at, layout, size)
    if batches.noisy_labels:
        fill_normals(block, layout.labels, size * outputs, layout.rate + LABEL, source, _LABEL, step, single)


@into_njit
def _draw_factor(
    block: Block, at: Entries, layout: Layout, batches: Batches, source: Drawing, step: int, size: int, single: bool
) -> None:
    """Bartlett's factor A, times the root: Σ̂_xx = (Σ^½ A)(Σ^½ A)ᵀ/B."""
    inputs, outputs = at[WIDTHS, 0], at[WIDTHS, at.shape[1] - 1]
    columns = min(size, inputs)
    lanes = lanes_of(block)
    factor = at[HIDDEN, 0] if batches.white else layout.raw
    scale = layout.rate + (SPREAD if batches.white else ONE)
    chi2 = np.empty(lanes)
    # The normals below the diagonal, row by row, wait where labels will be.
    below = columns * (columns - 1) // 2 + (inputs - columns) * columns
    if below > 0:
        fill_normals(block, layout.moments, below, scale, source, _DATA, step, single)
    number = layout.moments
    for i in range(inputs):
        for j in range(columns):
            entry = factor + j * inputs + i
            if j < i:
                store(block, entry, load(block, number))
                number += 1
            elif j == i:  # above the diagonal the block holds zeros from the start
                chi_square_rows(chi2, size - i, source.low, source.high, _DATA, source.streams[:lanes], step, i)
                for lane in range(lanes):
                    block[entry * lanes + lane] = math.sqrt(chi2[lane])
                store(block, entry, multiplied(load(block, entry), load(block, scale)))
    if not batches.white:
        _colour(block, at, layout, columns)
    if not batches.noisy_labels:
        return
    if inputs == 1 and outputs == 1:  # one number a step: four steps share a counter
        fill_normals(block, layout.raw, 4, layout.rate + LABEL, source, _LABEL, step // 4, single)
        store(block, layout.labels, load(block, layout.raw + step % 4))
    else:
        fill_normals(block, layout.labels, outputs * columns, layout.rate + LABEL, source, _LABEL, step, single)


@into_njit
def take_samples(
    block: Block, at: Entries, layout: Layout, batches: Batches, source: Drawing, step: int, size: int, where: Integers
) -> None:  # fmt: skip
    """Fill X and the labels, column after column, with samples drawn from a data set."""
    inputs, outputs = at[WIDTHS, 0], at[WIDTHS, at.shape[1] - 1]
    lanes = lanes_of(block)
    n = batches.x.shape[0]
    index = np.zeros(size, np.int64)
    for lane in range(lanes):
        if where[lane] < 0:
            continue
        stream = source.streams[lane]
        if batches.kind == REPLACEMENT:
            draw_indices(index, n, source.low, source.high, _DATA, stream, step)
        else:
            draw_subset(index, n, source.low, source.high, _DATA, stream, step)
        for j in range(size):
            for i in range(inputs):
                block[(at[HIDDEN, 0] + j * inputs + i) * lanes + lane] = batches.x[index[j], i]
            for i in range(outputs):
                block[(layout.labels + j * outputs + i) * lanes + lane] = batches.y[index[j], i]


@into_njit
def _draw_columns(
    block: Block, at: Entries, layout: Layout, batches: Batches, source: Drawing, step: int, size: int, single: bool,
    where: Integers,
) -> None:  # fmt: skip
    """Fill X, column after column, and what labels need, from a batch of `size` samples of every replica."""
    if batches.kind == SAMPLES:
        draw_samples(block, at, layout, batches, source, step, size, single)
    elif batches.kind == MOMENTS:
        _draw_factor(block, at, layout, batches, source, step, size, single)
    elif batches.kind == REPLACEMENT or batches.kind == DISTINCT:
        take_samples(block, at, layout, batches, source, step, size, where)


@into_njit
def _sum_up(block: Block, at: Entries, layout: Layout, columns: int, labelled: bool) -> None:
    """Sum the columns' second moments: B Σ̂_xx, and B Σ̂_yx or the labels' noise in it."""
    inputs, outputs, x = at[WIDTHS, 0], at[WIDTHS, at.shape[1] - 1], at[HIDDEN, 0]
    product(block, layout.moments, inputs, x, 1, inputs, x, inputs, 1, inputs, columns, inputs, False)
    if labelled:
        product(block, layout.raw, inputs, layout.labels, 1, outputs, x, inputs, 1, outputs, columns, inputs, False)


@into_njit
def take_step(
    block: Block, at: Entries, layout: Layout, batches: Batches, source: Drawing, step: int, size: int, single: bool,
    where: Integers,
) -> None:  # fmt: skip
    """Draw a batch of `size` samples and step every layer down the gradient of its loss and of the weight decay.

    Parameters
    ----------
    where : ndarray, shape (lane,)
        Each lane's replica, −1 for none.
    """
    kind, inputs, outputs = batches.kind, at[WIDTHS, 0], at[WIDTHS, at.shape[1] - 1]
    constant, online = kind == CONSTANT, kind == SAMPLES or kind == MOMENTS
    labelled = not online or batches.noisy_labels
    _draw_columns(block, at, layout, batches, source, step, size, single, where)
    columns = min(size, inputs) if kind == MOMENTS else size
    by_moments = constant or columns >= batches.summed_from
    if by_moments and not constant:
        _sum_up(block, at, layout, columns, labelled)
    columns = inputs if by_moments else columns
    forward(block, at, layout, columns, 1, inputs, by_moments)
    # The error: scale·(H Σ_xx − Σ_yx) from moments, scale·(H − Y) from columns; first its product, if any.
    outcome, scale, labels, row, column = at[HIDDEN, at.shape[1] - 1], layout.rate + SHARE, layout.labels, 1, outputs
    seen = outcome
    x, x_row, x_column = at[HIDDEN, 0], 1, inputs
    if by_moments:
        labels, row, column = layout.teacher if constant else layout.raw, inputs, 1
        x, x_row, x_column = layout.root if constant else layout.moments, inputs, 1
        if constant:
            scale = layout.rate + (SPREAD if batches.white else ONE)
        if not (constant and batches.white):
            seen = at[BACK, 0]
            product(block, seen, inputs, outcome, inputs, 1, x, inputs, 1, outputs, inputs, inputs, False)
    elif kind == MOMENTS:  # Bartlett's factor has its labels row by row
        row, column = columns, 1
    if online:  # − M X, or − M Σ̂_xx
        product(block, seen, columns, layout.teacher, inputs, 1, x, x_row, x_column, outputs, inputs, columns, True)
    error(block, outcome, seen, outputs, columns, labels, row, column, scale, labelled)
    backward(block, at, layout, columns, 1, inputs, by_moments)
