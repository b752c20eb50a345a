"""Compiled second moments of the batches of a block of replicas, one input and one output."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit
from kramers_grok.core.rng import Purpose
from kramers_grok.core.rng_blocks import refresh_normals
from kramers_grok.core.rng_draws import chi_square_rows, draw_indices, draw_permutation, draw_subset
from kramers_grok.dynamics import blocks

__all__ = ["distinct_moments", "draw_moments", "epoch_moments", "online_moments", "replacement_moments"]

Floats = NDArray[np.float64]
Words = NDArray[np.uint32]
Integers = NDArray[np.int64]

_DATA, _LABEL, _SHUFFLE, _MINIBATCH = (
    np.uint32(p) for p in (Purpose.DATA, Purpose.LABEL, Purpose.SHUFFLE, Purpose.MINIBATCH)
)


@njit
def _online_row(
    xx: Floats, yx: Floats, noise: Floats, batch_size: int, slope: float, variance: float, label_noise: float
) -> None:
    for i in range(xx.shape[0]):
        xx[i] = xx[i] * (variance / batch_size)
        yx[i] = slope * xx[i] + label_noise * math.sqrt(xx[i] / batch_size) * noise[i]


@njit
def _gaussian_row(
    xx: Floats, yx: Floats, first: Floats, second: Floats, scale: float, slope: float, variance: float,
    label_noise: float,
) -> None:  # fmt: skip
    for i in range(xx.shape[0]):
        xx[i] = variance + scale * variance * math.sqrt(2.0) * first[i]
        yx[i] = slope * xx[i] + scale * label_noise * math.sqrt(variance) * second[i]


@njit
def online_moments(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any,
    batch_size: int, slope: float, variance: float, label_noise: float, labels: Floats, fresh: bool, scale: Floats,
) -> None:  # fmt: skip
    """Draw the second moments of one step's fresh samples for a block of replicas (one input, one output).

    Parameters
    ----------
    xx, yx : ndarray, shape (replica,)
        Written: Σ̂_xx = q χ²_B / B and Σ̂_yx = σ Σ̂_xx + s √(Σ̂_xx / B) n.
    slope, variance, label_noise : float
        σ, q and s of the online teacher.
    labels : ndarray
        Room for the labels' noise, ``new_cache(1, replicas)``, kept from step to step; `fresh` at the first.
    scale : ndarray
        Read at `batch_size` 0, the diffusion limit: normal moments with the variances of a batch of 1/scale[0] samples.
    """
    if batch_size == 0:
        row = refresh_normals(labels, low, high, _MINIBATCH, streams, step, 2, fresh)
        _gaussian_row(xx, yx, labels[row], labels[row + 1], math.sqrt(scale[0]), slope, variance, label_noise)
        return
    chi_square_rows(xx, batch_size, low, high, _DATA, streams, step, 0)
    row = refresh_normals(labels, low, high, _LABEL, streams, step, 1, fresh)
    _online_row(xx, yx, labels[row], batch_size, slope, variance, label_noise)


@njit
def _batch_means(xx: Floats, yx: Floats, i: int, index: Integers, all_xx: Floats, all_yx: Floats) -> None:
    sum_xx, sum_yx = 0.0, 0.0
    for j in range(index.shape[0]):
        sum_xx += all_xx[index[j]]
        sum_yx += all_yx[index[j]]
    xx[i] = sum_xx / index.shape[0]
    yx[i] = sum_yx / index.shape[0]


@njit
def replacement_moments(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any, batch_size: int,
    all_xx: Floats, all_yx: Floats,
) -> None:  # fmt: skip
    """Draw the second moments of one step's batches with replacement; `all_xx` and `all_yx` hold x² and x·y."""
    index = np.empty(batch_size, np.int64)
    for i in range(streams.shape[0]):
        draw_indices(index, all_xx.shape[0], low, high, _DATA, streams[i], step)
        _batch_means(xx, yx, i, index, all_xx, all_yx)


@njit
def distinct_moments(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any, batch_size: int,
    all_xx: Floats, all_yx: Floats,
) -> None:  # fmt: skip
    """Draw the second moments of one step's batches of different samples; arguments as `replacement_moments`."""
    index = np.empty(batch_size, np.int64)
    for i in range(streams.shape[0]):
        draw_subset(index, all_xx.shape[0], low, high, _DATA, streams[i], step)
        _batch_means(xx, yx, i, index, all_xx, all_yx)


@njit
def epoch_moments(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any, batch_size: int,
    all_xx: Floats, all_yx: Floats, order: NDArray[np.int64], rows: Integers,
) -> None:  # fmt: skip
    """Take the second moments of one step's batches of shuffled epochs; arguments as `replacement_moments`.

    `order` (row, sample) holds orders of the current epoch, written when a new one begins; `rows` says whose is where.
    Replicas that have left (row −1) keep the order that they had: a clone must go on from there.
    """
    n = all_xx.shape[0]
    epoch, position = step // (n // batch_size), step % (n // batch_size)
    for i in range(streams.shape[0]):
        if rows[i] < 0:
            continue
        own = order[rows[i]]
        if position == 0:
            draw_permutation(own, low, high, _SHUFFLE, streams[i], epoch)
        _batch_means(xx, yx, i, own[position * batch_size : (position + 1) * batch_size], all_xx, all_yx)


@njit
def draw_moments(
    moments: Any, together: int, number: int, begin: int, lanes: Any, where: Any, low: Any, high: Any, kind: int,
    sizes: Any, teacher: float, variance: float, label_noise: float, labels: Any, fresh: bool, all_xx: Any,
    all_yx: Any, order: Any,
) -> None:  # fmt: skip
    """Draw the second moments of the batches of some steps: rows of Σ_xx, then rows of Σ_yx."""
    width = lanes.shape[0]
    for s in range(together):
        xx, yx = moments[s, :width], moments[moments.shape[0] // 2 + s, :width]
        step = number + s
        size = sizes[min(step - begin, sizes.shape[0] - 1)]
        if kind == blocks.ONLINE:
            online_moments(
                xx, yx, lanes, step, low, high, size, teacher, variance, label_noise, labels, fresh and s == 0, all_xx
            )
        elif kind == blocks.REPLACEMENT:
            replacement_moments(xx, yx, lanes, step, low, high, size, all_xx, all_yx)
        elif kind == blocks.DISTINCT:
            distinct_moments(xx, yx, lanes, step, low, high, size, all_xx, all_yx)
        else:
            epoch_moments(xx, yx, lanes, step, low, high, size, all_xx, all_yx, order, where)
