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
    "bridge_uniform",
    "count_beyond",
    "count_near",
    "distinct_moments",
    "epoch_moments",
    "online_moments",
    "raise_peak",
    "replacement_moments",
]

Floats = NDArray[np.float64]
Words = NDArray[np.uint32]
Integers = NDArray[np.int64]

BLOCK = 256  # replicas whose state, noise and scores stay in the first-level cache

# A path crosses between two steps with probability exp(−d₀d₁/(T dt)); below e^-23 no 32-bit uniform is that small.
BRIDGE_REACH = 23.0

NONE, CONSTANT, ONLINE, REPLACEMENT, DISTINCT, EPOCHS = range(6)

_DATA, _LABEL, _SHUFFLE, _BRIDGE = (
    np.uint32(p) for p in (Purpose.DATA, Purpose.LABEL, Purpose.SHUFFLE, Purpose.BRIDGE)
)


@njit
def count_beyond(score: Floats, threshold: float) -> int:
    """Count replicas whose score has reached the threshold."""
    count = 0
    for i in range(score.shape[0]):
        count += score[i] >= threshold
    return count


@njit
def count_near(score: Floats, near: Floats, far: Floats, threshold: float, scale: float) -> int:
    """Count replicas beyond the threshold, or close enough to it before and after the step to have crossed between."""
    count = 0
    for i in range(score.shape[0]):
        count += (score[i] >= threshold) | (near[i] * far[i] < BRIDGE_REACH * scale)
    return count


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
def online_moments(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any,
    batch_size: int, slope: float, variance: float, label_noise: float, labels: Floats, fresh: bool,
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
    """
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
    all_xx: Floats, all_yx: Floats, order: NDArray[np.int64],
) -> None:  # fmt: skip
    """Take the second moments of one step's batches of shuffled epochs; arguments as `replacement_moments`.

    `order` (replica, sample) is each replica's order of the current epoch, written when a new one begins.
    """
    n = all_xx.shape[0]
    epoch, position = step // (n // batch_size), step % (n // batch_size)
    for i in range(streams.shape[0]):
        if position == 0:
            draw_permutation(order[i], low, high, _SHUFFLE, streams[i], epoch)
        index = order[i, position * batch_size : (position + 1) * batch_size]
        _batch_means(xx, yx, i, index, all_xx, all_yx)
