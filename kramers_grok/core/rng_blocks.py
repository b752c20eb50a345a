"""Compiled counter-based draws, for use inside other compiled loops.

Which number lies where is told in :mod:`kramers_grok.core.rng`. Nothing here checks its arguments. The functions work
on blocks of replicas, a vector instruction at a time; those of :mod:`kramers_grok.core.rng_draws` on one replica.

Normals come in two precisions, of the same words: :func:`fill_normal_quads` and :func:`fill_single_quads`. Functions
that fill an array with normals take the one that its dtype asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import overload
from numpy.typing import NDArray

from kramers_grok.core.compiled import box_muller, box_muller_single, inline_njit, njit, wide_vectors
from kramers_grok.core.threefry import threefry4x32_13

__all__ = [
    "fill_normal_quads",
    "fill_normal_table",
    "fill_normals",
    "fill_single_quads",
    "fill_uniforms",
    "fill_word_quads",
    "fill_words",
    "locate",
    "new_cache",
    "refresh_normals",
    "refresh_words",
    "steps_per_counter",
]

Words = NDArray[np.uint32]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

CHUNK = 256  # replicas whose words stay in the first-level cache between the integer and the floating-point loop


# ---------------------------------------------------------------- where a number lies


@inline_njit
def steps_per_counter(n: int) -> int:
    """How many steps of n numbers each share one counter: 4, 2 and then 1.

    Examples
    --------
    >>> [steps_per_counter(n) for n in (1, 2, 3, 4, 5)]
    [4, 2, 1, 1, 1]
    """
    return 4 // n if n <= 2 else 1


@inline_njit
def locate(step: int, n: int) -> tuple[int, int]:
    """Step word and first lane of the n numbers of a step: the packing rule.

    Examples
    --------
    >>> [locate(step, 1) for step in (0, 1, 4)], [locate(step, 2) for step in (0, 1, 4)], locate(7, 3)
    ([(0, 0), (0, 1), (1, 0)], [(0, 0), (0, 2), (2, 0)], (7, 0))
    """
    together = steps_per_counter(n)
    return step // together, (step % together) * n


# ---------------------------------------------------------------- blocks of replicas


@njit
def _word_rows(
    out0: Words, out1: Words, out2: Words, out3: Words,
    seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step_word: Any, block: Any,
) -> None:  # fmt: skip
    wide_vectors()
    for i in range(streams.shape[0]):
        words = threefry4x32_13(purpose, streams[i], step_word, block, seed_lo, seed_hi)
        out0[i], out1[i], out2[i], out3[i] = words


@njit
def _normal_rows(out0: Floats, out1: Floats, words0: Words, words1: Words) -> None:
    wide_vectors()
    # A function of its own over plain rows: written inside its caller, this loop is not vectorised.
    for i in range(out0.shape[0]):
        out0[i], out1[i] = box_muller(words0[i], words1[i])


@njit
def _single_rows(
    out0: Singles, out1: Singles, out2: Singles, out3: Singles,
    seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step_word: Any, block: Any,
) -> None:  # fmt: skip
    wide_vectors()
    # One loop: numbers as wide as their words stay in registers between the two.
    for i in range(streams.shape[0]):
        words = threefry4x32_13(purpose, streams[i], step_word, block, seed_lo, seed_hi)
        out0[i], out1[i] = box_muller_single(words[0], words[1])
        out2[i], out3[i] = box_muller_single(words[2], words[3])


@njit
def fill_word_quads(
    out: Words, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step_word: Any, block: Any
) -> None:
    """Write the four words of one counter per replica.

    Parameters
    ----------
    out : ndarray of uint32, shape (4, replica)
    streams : ndarray of uint32, shape (replica,)
    step_word, block : int
        Third and fourth word of the counter; see :func:`locate`.
    """
    wide_vectors()
    _word_rows(out[0], out[1], out[2], out[3], seed_lo, seed_hi, purpose, streams, step_word, block)


@njit
def fill_normal_quads(
    out: Floats, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step_word: Any, block: Any
) -> None:
    """Write the four normals of one counter per replica: words (0, 1) and (2, 3) make a Box–Muller pair each.

    Parameters
    ----------
    out : ndarray of float64, shape (4, replica)
    streams : ndarray of uint32, shape (replica,)
    step_word, block : int
        Third and fourth word of the counter; see :func:`locate`.
    """
    wide_vectors()
    n = streams.shape[0]
    words = np.empty((4, min(n, CHUNK)), np.uint32)
    # Two loops and not one: 32-bit lanes in the first, half as many 64-bit lanes in the second.
    for begin in range(0, n, CHUNK):
        end = min(begin + CHUNK, n)
        _word_rows(
            words[0], words[1], words[2], words[3], seed_lo, seed_hi, purpose, streams[begin:end], step_word, block
        )
        _normal_rows(out[0, begin:end], out[1, begin:end], words[0], words[1])
        _normal_rows(out[2, begin:end], out[3, begin:end], words[2], words[3])


@njit
def fill_single_quads(
    out: Singles, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step_word: Any, block: Any
) -> None:
    """Write the numbers of :func:`fill_normal_quads` in single precision: the same to 1e-6, sooner.

    Parameters
    ----------
    out : ndarray of float32, shape (4, replica)
        Whole rows: in a part of wider rows numbers are made one by one, ten times more slowly.
    streams : ndarray of uint32, shape (replica,)
    step_word, block : int
        Third and fourth word of the counter; see :func:`locate`.
    """
    wide_vectors()
    _single_rows(out[0], out[1], out[2], out[3], seed_lo, seed_hi, purpose, streams, step_word, block)


def _fill_quads(*arguments: Any) -> None:
    """Call `fill_normal_quads` or `fill_single_quads`, as the dtype of the array asks."""
    raise NotImplementedError  # for compiled code


@overload(_fill_quads)  # type: ignore[untyped-decorator]
def _compile_fill_quads(*arguments: Any) -> Any:
    fill = fill_single_quads if arguments[0].dtype == types.float32 else fill_normal_quads

    def call(*arguments: Any) -> None:
        fill(*arguments)

    return call


@njit
def new_cache(n: int, replicas: int) -> Floats:
    """Room for :func:`refresh_normals` with n numbers per step: 4⌈n/4⌉ rows.

    Examples
    --------
    >>> new_cache(5, 100).shape
    (8, 100)
    """
    return np.empty((4 * ((n + 3) // 4), replicas))


@njit
def refresh_normals(
    cache: Floats | Singles, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: int, n: int, fresh: bool
) -> int:
    """Make the n normals of a step available and return the row where they begin.

    Normal j of replica i is then ``cache[row + j, i]``. For n = 1 (2) the cache is filled at every fourth (second)
    step only, or when `fresh`.

    Parameters
    ----------
    cache : ndarray of float64 or float32
        From ``new_cache(n, replicas)``, or of its shape; keep it from step to step. Its dtype is the precision.
    streams : ndarray of uint32, shape (replica,)
    fresh : bool
        True at the first call and whenever streams have moved in the batch, so that the cache holds others' numbers.
    """
    step_word, lane = locate(step, n)
    if fresh or lane == 0:
        for block in range((n + 3) // 4):
            rows = cache[4 * block : 4 * block + 4]
            _fill_quads(rows, seed_lo, seed_hi, purpose, streams, step_word, block)
    return lane


@njit
def refresh_words(
    cache: Words, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: int, n: int, fresh: bool
) -> int:
    """Make the n words of a step available and return the row where they begin; see :func:`refresh_normals`."""
    step_word, lane = locate(step, n)
    if fresh or lane == 0:
        for block in range((n + 3) // 4):
            rows = cache[4 * block : 4 * block + 4]
            fill_word_quads(rows, seed_lo, seed_hi, purpose, streams, step_word, block)
    return lane


@njit
def fill_words(out: Words, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: int) -> None:
    """Write word j of replica i at a step into ``out[j, i]``; shape (n, replica), uint32."""
    n, replicas = out.shape
    cache = np.empty((4 * ((n + 3) // 4), replicas), np.uint32)
    row = refresh_words(cache, seed_lo, seed_hi, purpose, streams, step, n, True)
    for j in range(n):  # element by element: assigning a slice takes numba seconds to compile
        for i in range(replicas):
            out[j, i] = cache[row + j, i]


@njit
def fill_uniforms(out: Floats, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: int) -> None:
    """Write uniform j of replica i, u = (word + ½)/2³², into ``out[j, i]``; shape (n, replica), never 0 or 1."""
    n, replicas = out.shape
    cache = np.empty((4 * ((n + 3) // 4), replicas), np.uint32)
    row = refresh_words(cache, seed_lo, seed_hi, purpose, streams, step, n, True)
    for j in range(n):
        for i in range(replicas):
            out[j, i] = (np.float64(cache[row + j, i]) + 0.5) * 2.0**-32


@njit
def fill_normals(out: Floats | Singles, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: int) -> None:
    """Write normal j of replica i at a step into ``out[j, i]``; shape (n, replica), float64 or float32.

    In a loop over steps :func:`refresh_normals` is faster: for n ≤ 2 it draws no number twice, and it never copies.
    """
    n, replicas = out.shape
    cache = np.empty((4 * ((n + 3) // 4), replicas), out.dtype)
    row = refresh_normals(cache, seed_lo, seed_hi, purpose, streams, step, n, True)
    for j in range(n):
        for i in range(replicas):
            out[j, i] = cache[row + j, i]


@njit
def fill_normal_table(
    out: Floats | Singles, seed_lo: Any, seed_hi: Any, purpose: Any, streams: Words, step: int
) -> None:
    """Write normal j of replica i at a step into ``out[i, j]``; shape (replica, n), float64 or float32."""
    replicas, n = out.shape
    cache = np.empty((4 * ((n + 3) // 4), min(replicas, CHUNK)), out.dtype)
    for begin in range(0, replicas, CHUNK):  # transposed while still in the first-level cache
        lanes = streams[begin : begin + CHUNK]
        if lanes.size < cache.shape[1]:
            cache = np.empty((cache.shape[0], lanes.size), out.dtype)
        row = refresh_normals(cache, seed_lo, seed_hi, purpose, lanes, step, n, True)
        for i in range(lanes.size):
            for j in range(n):
                out[begin + i, j] = cache[row + j, i]
