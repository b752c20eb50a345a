"""Compiled counter-based draws that reject, search or sort: chi-square numbers, integers, subsets, permutations.

Which number lies where is told in :mod:`kramers_grok.core.rng`. Nothing here checks its arguments. The ``draw``
functions work on one replica, the ``rows`` functions on one after the other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.compiled import box_muller, inline_njit, log, njit
from kramers_grok.core.rng_blocks import CHUNK, fill_word_quads
from kramers_grok.core.threefry import threefry4x32_13

__all__ = [
    "CHI_SQUARE_ATTEMPTS",
    "FIRST_CHI_SQUARE_BLOCK",
    "FIRST_INDEX_BLOCK",
    "draw_chi_square",
    "draw_index",
    "draw_indices",
    "draw_permutation",
    "draw_subset",
]


Words = NDArray[np.uint32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FIRST_INDEX_BLOCK = 1 << 30
FIRST_CHI_SQUARE_BLOCK = 1 << 31
CHI_SQUARE_ATTEMPTS = 16  # at least 95 % of attempts succeed: none of 16 does with probability below 1e-20


# ---------------------------------------------------------------- one replica


@inline_njit
def _marsaglia_tsang(w0: Any, w1: Any, w2: Any, d: float) -> float:
    """One attempt: the chi-square number of 2(d + ⅓) degrees of freedom, or −1 where it is rejected; no branch."""
    x, _ = box_muller(w0, w1)
    v = 1.0 + x / math.sqrt(9.0 * d)
    v = v * v * v
    bound = 0.5 * x * x + d - d * v + d * log(v if v > 0.0 else 1.0)
    accepted = (v > 0.0) & (log((np.float64(w2) + 0.5) * 2.0**-32) < bound)
    return 2.0 * d * v if accepted else -1.0


@njit
def draw_chi_square(
    dof: int, seed_lo: Any, seed_hi: Any, purpose: Any, stream: Any, step: Any, index: int = 0, attempts: int = 0
) -> float:
    """Chi-square number with `dof` ≥ 1 degrees of freedom, by Marsaglia and Tsang's rejection.

    Attempt k uses block FIRST_CHI_SQUARE_BLOCK + 16·index + k: a normal from words (0, 1), a uniform from word 2.
    One degree of freedom is a squared normal.

    Parameters
    ----------
    index : int
        Distinguishes several chi-square numbers of one step.
    attempts : int
        Attempts known to be rejected.

    Notes
    -----
    Source: Marsaglia & Tsang, ACM Trans. Math. Softw. 26, 363 (2000).
    """
    first = FIRST_CHI_SQUARE_BLOCK + CHI_SQUARE_ATTEMPTS * index
    d = 0.5 * dof - 1.0 / 3.0
    for attempt in range(attempts, CHI_SQUARE_ATTEMPTS):
        w0, w1, w2, _ = threefry4x32_13(purpose, stream, step, first + attempt, seed_lo, seed_hi)
        if dof == 1:
            x, _ = box_muller(w0, w1)
            return x * x
        drawn = _marsaglia_tsang(w0, w1, w2, d)
        if drawn >= 0.0:
            return drawn
    return 2.0 * d


@njit
def _attempt_row(out: Floats, words0: Words, words1: Words, words2: Words, d: float) -> None:
    for i in range(out.shape[0]):
        out[i] = _marsaglia_tsang(words0[i], words1[i], words2[i], d)


@njit
def _square_row(out: Floats, words0: Words, words1: Words) -> None:
    for i in range(out.shape[0]):
        x, _ = box_muller(words0[i], words1[i])
        out[i] = x * x


@inline_njit
def draw_index(word: Any, n: int) -> Any:
    """Integer in range(n) from a 32-bit word, ⌊word·n/2³²⌋; each has probability 1/n to within 2⁻³².

    Examples
    --------
    >>> draw_index(0, 10), draw_index(2**31, 10), draw_index(2**32 - 1, 10)
    (0, 5, 9)
    """
    return np.int64((np.uint64(word) * np.uint64(n)) >> np.uint64(32))


@inline_njit
def _index_words(
    first: int, seed_lo: Any, seed_hi: Any, purpose: Any, stream: Any, step: Any
) -> tuple[Any, Any, Any, Any]:
    block = FIRST_INDEX_BLOCK + first // 4
    return threefry4x32_13(purpose, stream, step, block, seed_lo, seed_hi)


@njit
def draw_indices(out: Integers, n: int, seed_lo: Any, seed_hi: Any, purpose: Any, stream: Any, step: Any) -> None:
    """Write independent integers of range(n) for one replica; shape (B,)."""
    for first in range(0, out.shape[0], 4):
        words = _index_words(first, seed_lo, seed_hi, purpose, stream, step)
        for lane in range(min(4, out.shape[0] - first)):
            out[first + lane] = draw_index(words[lane], n)


@njit
def draw_subset(out: Integers, n: int, seed_lo: Any, seed_hi: Any, purpose: Any, stream: Any, step: Any) -> None:
    """Write B different integers of range(n) for one replica, every subset equally likely; shape (B,), B ≤ n.

    Floyd's algorithm, at O(B²) cost. The *order* within the subset is not uniform.

    Notes
    -----
    Source: Bentley & Floyd, Commun. ACM 30, 754 (1987).
    """
    size = out.shape[0]
    for first in range(0, size, 4):
        words = _index_words(first, seed_lo, seed_hi, purpose, stream, step)
        for lane in range(min(4, size - first)):
            drawn = first + lane
            last = n - size + drawn
            candidate = draw_index(words[lane], last + 1)
            for i in range(drawn):
                if out[i] == candidate:
                    candidate = last
                    break
            out[drawn] = candidate


@njit
def draw_permutation(out: Integers, seed_lo: Any, seed_hi: Any, purpose: Any, stream: Any, step: Any) -> None:
    """Write a random permutation of range(n) for one replica; shape (n,).

    The stable order of n random 32-bit keys; two keys are equal with probability below n²/2³³.
    """
    n = out.shape[0]
    keys = np.empty(n, np.uint32)
    for first in range(0, n, 4):
        words = _index_words(first, seed_lo, seed_hi, purpose, stream, step)
        for lane in range(min(4, n - first)):
            keys[first + lane] = words[lane]
    order = np.argsort(keys, kind="mergesort")
    for i in range(n):
        out[i] = order[i]


# ---------------------------------------------------------------- one replica after the other


@njit
def chi_square_rows(
    out: Floats, dof: int, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: Any, index: int
) -> None:
    """Write one chi-square number per replica; shape (replica,). What `draw_chi_square` draws, many at once."""
    first = FIRST_CHI_SQUARE_BLOCK + CHI_SQUARE_ATTEMPTS * index
    d = 0.5 * dof - 1.0 / 3.0
    words = np.empty((4, min(out.shape[0], CHUNK)), np.uint32)
    for begin in range(0, out.shape[0], CHUNK):
        end = min(begin + CHUNK, out.shape[0])
        fill_word_quads(words[:, : end - begin], seed_lo, seed_hi, purpose, streams[begin:end], step, first)
        if dof == 1:
            _square_row(out[begin:end], words[0], words[1])
            continue
        # The first attempts of all replicas in vector instructions; the few rejected ones go on alone.
        _attempt_row(out[begin:end], words[0], words[1], words[2], d)
        for i in range(begin, end):
            if out[i] < 0.0:
                out[i] = draw_chi_square(dof, seed_lo, seed_hi, purpose, streams[i], step, index, 1)


@njit
def index_rows(out: Integers, n: int, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: Any) -> None:
    """Write independent integers of range(n) per replica; shape (replica, B)."""
    for i in range(streams.shape[0]):
        draw_indices(out[i], n, seed_lo, seed_hi, purpose, streams[i], step)


@njit
def subset_rows(out: Integers, n: int, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: Any) -> None:
    """Write B different integers of range(n) per replica; shape (replica, B)."""
    for i in range(streams.shape[0]):
        draw_subset(out[i], n, seed_lo, seed_hi, purpose, streams[i], step)


@njit
def permutation_rows(out: Integers, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: Any) -> None:
    """Write a permutation of range(n) per replica; shape (replica, n)."""
    for i in range(streams.shape[0]):
        draw_permutation(out[i], seed_lo, seed_hi, purpose, streams[i], step)
