"""Compiled parts that every generated kernel calls: batch moments, scores, the bridge's uniform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit
from kramers_grok.core.rng import Purpose
from kramers_grok.core.rng_blocks import (
    chi_square_rows,
    draw_indices,
    draw_permutation,
    draw_subset,
    locate,
    refresh_normals,
)
from kramers_grok.core.threefry import threefry4x32_13

__all__ = [
    "BLOCK",
    "BRIDGE_REACH",
    "CONSTANT",
    "DISTINCT",
    "EPOCHS",
    "NONE",
    "ONLINE",
    "REPLACEMENT",
    "STRIDE",
    "bridge_uniform",
    "close_up",
    "count_near",
    "count_out",
    "distinct_moments",
    "epoch_moments",
    "gather",
    "kept_lanes",
    "online_moments",
    "pick_out",
    "raise_peak",
    "replacement_moments",
    "take",
]

Floats = NDArray[np.float64]
Words = NDArray[np.uint32]
Integers = NDArray[np.int64]

# Replicas that advance side by side: few enough for the second-level cache to hold their state, noise and scores,
# enough for vector instructions to pay off still when most of them have left.
BLOCK = 1024

# From one row to the next, known to the compiler: it proves that rows do not overlap and makes vector instructions
# without a check. One cache line more than a block: rows a power of two apart would fight for the same cache sets.
STRIDE = BLOCK + 8

# A path crosses between two steps with probability exp(−d₀d₁/(T dt)); below e^-23 no 32-bit uniform is that small.
BRIDGE_REACH = 23.0

NONE, CONSTANT, ONLINE, REPLACEMENT, DISTINCT, EPOCHS = range(6)

_DATA, _LABEL, _SHUFFLE, _BRIDGE, _MINIBATCH = (
    np.uint32(p) for p in (Purpose.DATA, Purpose.LABEL, Purpose.SHUFFLE, Purpose.BRIDGE, Purpose.MINIBATCH)
)


@njit
def count_out(score: Floats, threshold: float, floor: float) -> int:
    """Count replicas whose score has reached the threshold or is back at the floor (not a number: no floor)."""
    count = 0
    for i in range(score.shape[0]):
        count += (score[i] >= threshold) | (score[i] <= floor)
    return count


@njit
def count_near(score: Floats, near: Floats, far: Floats, threshold: float, floor: float, reach: float) -> int:
    """Count replicas that are out, or close enough to the border before and after the step to have crossed between."""
    count = 0
    for i in range(score.shape[0]):
        out = (score[i] >= threshold) | (score[i] <= floor)
        count += out | (near[i] * far[i] < reach)
    return count


@njit
def pick_out(
    picked: Integers, score: Floats, near: Floats, far: Floats, threshold: float, floor: float, reach: float
) -> int:
    """Write the lanes that are out, or within reach of the border, to `picked` and return how many they are."""
    count = 0
    for i in range(score.shape[0]):
        picked[count] = i  # no branch: a wrong guess of the processor costs more than writing too much
        count += (score[i] >= threshold) | (score[i] <= floor) | (near[i] * far[i] < reach)
    return count


@njit
def kept_lanes(where: Integers) -> Integers:
    """Lanes that hold a replica: `where` is its number, −1 once it has left."""
    kept = np.empty(where.shape[0], np.int64)
    count = 0
    for i in range(where.shape[0]):
        kept[count] = i
        count += where[i] >= 0
    return kept[:count]


@njit
def take(values: Any, kept: Integers) -> Any:
    """Return the lanes `kept` of a row."""
    taken = np.empty(kept.shape[0], values.dtype)
    for i in range(kept.shape[0]):
        taken[i] = values[kept[i]]
    return taken


@njit
def close_up(rows: Floats, kept: Integers) -> None:
    """Move the lanes `kept`, which are in order, to the front of every row."""
    for j in range(rows.shape[0]):
        for i in range(kept.shape[0]):
            rows[j, i] = rows[j, kept[i]]


@njit
def gather(rows: Floats, theta: Floats, begin: int, end: int) -> None:
    """Write the replicas begin … end of `theta` (replica, parameter) to the lanes of `rows`."""
    for j in range(rows.shape[0]):
        for i in range(end - begin):
            rows[j, i] = theta[begin + i, j]


@njit
def raise_peak(peak: Floats, score: Floats) -> None:
    """Keep the highest score of each replica; not-a-number never counts."""
    for i in range(peak.shape[0]):
        peak[i] = score[i] if score[i] > peak[i] else peak[i]


@njit
def bridge_uniform(low: Any, high: Any, stream: Any, step: int) -> float:
    """Uniform number that decides whether a path crossed between two steps."""
    word, lane = locate(step, 1)
    words = threefry4x32_13(_BRIDGE, stream, word, 0, low, high)
    return (np.float64(words[lane]) + 0.5) * 2.0**-32


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
