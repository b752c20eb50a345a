"""Compiled parts that every generated kernel calls: batch moments, scores, the bridge's uniform."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit
from kramers_grok.core.rng import Purpose
from kramers_grok.core.rng_blocks import (
    draw_chi_square,
    draw_indices,
    draw_permutation,
    draw_subset,
    fill_normals,
    locate,
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
    "moments",
    "raise_peak",
]

Floats = NDArray[np.float64]
Words = NDArray[np.uint32]

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
def _online(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any,
    batch_size: int, slope: float, variance: float, label_noise: float,
) -> None:  # fmt: skip
    noise = np.empty((1, streams.shape[0]))
    fill_normals(noise, low, high, _LABEL, streams, step)
    for i in range(streams.shape[0]):
        chi2 = draw_chi_square(batch_size, low, high, _DATA, streams[i], step)
        xx[i] = chi2 * (variance / batch_size)
        yx[i] = slope * xx[i] + label_noise * np.sqrt(xx[i] / batch_size) * noise[0, i]


@njit
def _finite(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any, kind: int, batch_size: int,
    all_xx: Floats, all_yx: Floats, order: NDArray[np.int64],
) -> None:  # fmt: skip
    n = all_xx.shape[0]
    index = np.empty(batch_size, np.int64)
    epoch, position = 0, 0
    if kind == EPOCHS:
        steps = n // batch_size
        epoch, position = step // steps, step % steps
    for i in range(streams.shape[0]):
        if kind == REPLACEMENT:
            draw_indices(index, n, low, high, _DATA, streams[i], step)
        elif kind == DISTINCT:
            draw_subset(index, n, low, high, _DATA, streams[i], step)
        else:
            if position == 0:
                draw_permutation(order[i], low, high, _SHUFFLE, streams[i], epoch)
            index[:] = order[i, position * batch_size : (position + 1) * batch_size]
        sum_xx, sum_yx = 0.0, 0.0
        for j in range(batch_size):
            sum_xx += all_xx[index[j]]
            sum_yx += all_yx[index[j]]
        xx[i] = sum_xx / batch_size
        yx[i] = sum_yx / batch_size


@njit
def moments(
    xx: Floats, yx: Floats, streams: Words, step: int, low: Any, high: Any, kind: int, batch_size: int,
    slope: float, variance: float, label_noise: float, all_xx: Floats, all_yx: Floats, order: NDArray[np.int64],
) -> None:  # fmt: skip
    """Draw the second moments of one step's batch for a block of replicas (one input, one output).

    Parameters
    ----------
    xx, yx : ndarray, shape (replica,)
        Written: Σ̂_xx and Σ̂_yx.
    kind : int
        ONLINE, REPLACEMENT, DISTINCT or EPOCHS.
    slope, variance, label_noise : float
        σ, q and s of the online teacher.
    all_xx, all_yx : ndarray, shape (sample,)
        x² and x·y of the data set.
    order : ndarray of int64, shape (replica, sample)
        Each replica's order of the current epoch; written when a new one begins.
    """
    if kind == ONLINE:
        _online(xx, yx, streams, step, low, high, batch_size, slope, variance, label_noise)
    else:
        _finite(xx, yx, streams, step, low, high, kind, batch_size, all_xx, all_yx, order)
