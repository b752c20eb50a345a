"""Normal numbers for blocks of replicas in lanes: see :mod:`kramers_grok.core.lanes`.

The numbers are those of :mod:`kramers_grok.core.rng`, without its packing of one or two numbers a step: number j of a
step lies in lane j mod 4 of counter j div 4. Several counters of all replicas are worked on at once, in loops long
enough for vector instructions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.compiled import box_muller, box_muller_single, njit, wide_vectors
from kramers_grok.core.lanes import Block, into_njit, lanes_of, load, load_as, multiplied, plus, stay_out, store
from kramers_grok.core.threefry import threefry4x32_13

__all__ = ["Drawing", "add_normals", "drawing", "fill_normals"]

Words = NDArray[np.uint32]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_COUNTERS = 32  # worked on at once: their words and numbers stay in the first-level cache


class Drawing(NamedTuple):
    """Who draws, and room to work in; make it with :func:`drawing`, one for each thread."""

    low: Any  # words of the seed
    high: Any
    streams: Words  # of every lane, once for each counter worked on
    number: Words  # which of these counters
    words: Words  # four rows of (counter, lane), flat
    normals: Floats
    singles: Singles


@into_njit
def drawing(like: Block, streams: Words, begin: int, low: Any, high: Any) -> Drawing:
    """Return what draws for the replicas begin, begin + 1, … of `streams`; lanes beyond the last repeat it."""
    lanes = lanes_of(like)
    size = _COUNTERS * lanes
    repeated, number = np.empty(size, np.uint32), np.empty(size, np.uint32)
    for i in range(size):
        repeated[i] = streams[min(begin + i % lanes, streams.shape[0] - 1)]
        number[i] = i // lanes
    words = np.empty(4 * size, np.uint32)
    return Drawing(low, high, repeated, number, words, np.empty(4 * size), np.empty(4 * size, np.float32))


@njit
def _word_rows(
    out0: Words, out1: Words, out2: Words, out3: Words, low: Any, high: Any, purpose: Any, streams: Words,
    step_word: Any, first: Any, number: Words,
) -> None:  # fmt: skip
    wide_vectors()
    for i in range(streams.shape[0]):
        counter = np.uint32(first + number[i])
        out0[i], out1[i], out2[i], out3[i] = threefry4x32_13(purpose, streams[i], step_word, counter, low, high)


@njit
def _normal_rows(out0: Floats, out1: Floats, words0: Words, words1: Words) -> None:
    wide_vectors()
    for i in range(out0.shape[0]):
        out0[i], out1[i] = box_muller(words0[i], words1[i])


@njit
def _single_rows(
    out0: Singles, out1: Singles, out2: Singles, out3: Singles, low: Any, high: Any, purpose: Any, streams: Words,
    step_word: Any, first: Any, number: Words,
) -> None:  # fmt: skip
    wide_vectors()
    for i in range(streams.shape[0]):
        counter = np.uint32(first + number[i])
        words = threefry4x32_13(purpose, streams[i], step_word, counter, low, high)
        out0[i], out1[i] = box_muller_single(words[0], words[1])
        out2[i], out3[i] = box_muller_single(words[2], words[3])


@njit
def _draw(source: Drawing, purpose: Any, step: int, first: int, size: int, single: bool) -> None:
    """Make the normals of `size` counters and lanes, from counter `first` on, in double or single precision."""
    stay_out()
    low, high, streams, number = source.low, source.high, source.streams[:size], source.number[:size]
    word, begin = np.uint32(step), np.uint32(first)
    row = source.streams.shape[0]
    if single:
        out = source.singles
        _single_rows(
            out[:size], out[row : row + size], out[2 * row : 2 * row + size], out[3 * row : 3 * row + size],
            low, high, purpose, streams, word, begin, number,
        )  # fmt: skip
        return
    words, full = source.words, source.normals
    w0, w1, w2, w3 = words[:row], words[row : 2 * row], words[2 * row : 3 * row], words[3 * row :]
    _word_rows(w0, w1, w2, w3, low, high, purpose, streams, word, begin, number)
    _normal_rows(full[:size], full[row : row + size], w0, w1)
    _normal_rows(full[2 * row : 2 * row + size], full[3 * row : 3 * row + size], w2, w3)


@njit
def _spread(
    block: Block, at: Any, n: Any, scale: Any, source: Drawing, purpose: Any, step: int, single: bool, adding: Any
) -> None:
    stay_out()
    lanes = lanes_of(block)
    factor = load(block, scale)
    for first in range(0, n, 4 * _COUNTERS):
        here = min(n - first, 4 * _COUNTERS)
        _draw(source, purpose, step, first // 4, (here + 3) // 4 * lanes, single)
        for j in range(here):
            group = j % 4 * _COUNTERS + j // 4  # four rows, one for each number of a counter
            normal = load_as(block, source.singles, group) if single else load_as(block, source.normals, group)
            value = multiplied(factor, normal)
            store(block, at + first + j, plus(load(block, at + first + j), value) if adding else value)


@into_njit
def fill_normals(
    block: Block, at: int, n: int, scale: int, source: Drawing, purpose: Any, step: int, single: bool
) -> None:
    """Write n normals of a step, times the replica's number in entry `scale`, to the entries from `at` on.

    Parameters
    ----------
    single : bool
        Make them by single-precision arithmetic: the same to 1e-6, and sooner.
    """
    _spread(block, np.int64(at), np.int64(n), np.int64(scale), source, purpose, step, single, np.bool_(False))


@into_njit
def add_normals(
    block: Block, at: int, n: int, scale: int, source: Drawing, purpose: Any, step: int, single: bool
) -> None:
    """Add n normals of a step, times the replica's number in entry `scale`, to the entries from `at` on."""
    _spread(block, np.int64(at), np.int64(n), np.int64(scale), source, purpose, step, single, np.bool_(True))
