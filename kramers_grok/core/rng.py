r"""Counter-based random numbers: what a replica draws depends on seed, purpose, stream and step, on nothing else.

Threefry4x32 with 13 rounds (:mod:`kramers_grok.core.threefry`) maps a counter and a key to four 32-bit words:

    key     = (seed mod 2³², seed div 2³², 0, 0)
    counter = (purpose, stream, step word, block)

Number j of a step lies in lane j mod 4 of block j div 4. **Packing**: with n = 1 or 2 numbers per step,
4/n consecutive steps share one counter, since its other lanes would be wasted: step word = step div (4/n),
lane = (step mod (4/n))·n + j. For n ≥ 3 the step word is the step. :func:`locate` is that rule, and everything here
and in :mod:`kramers_grok.dynamics.torch_noise` follows it.

**Single precision.** Normals in float32 are made from the same words, at the same places, by arithmetic in single
precision (:func:`kramers_grok.core.compiled.box_muller_single`): each is the number of double precision to a relative
5e-7, in the tails and near 0 too, and costs a third. Uniforms and chi-square numbers are made in double precision.

Chi-square numbers and indices (integers, subsets, permutations) use ranges of blocks of their own and are not packed,
so at one step a purpose may have normals, one kind of indices and chi-square numbers. Words, uniforms and normals are
one another's raw material: draw only one of the three, and always the same n, under one purpose.

The functions here check their arguments and return arrays with one row per replica. They run the compiled functions of
:mod:`kramers_grok.core.rng_blocks`, which take (seed_lo, seed_hi, …) and belong inside other compiled loops.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks, rng_draws
from kramers_grok.core.rng_blocks import (
    fill_normal_quads,
    fill_normal_table,
    fill_normals,
    fill_single_quads,
    fill_uniforms,
    fill_word_quads,
    fill_words,
    locate,
    new_cache,
    refresh_normals,
    refresh_words,
    steps_per_counter,
)
from kramers_grok.core.rng_draws import (
    CHI_SQUARE_ATTEMPTS,
    FIRST_CHI_SQUARE_BLOCK,
    FIRST_INDEX_BLOCK,
    draw_chi_square,
    draw_index,
    draw_indices,
    draw_permutation,
    draw_subset,
)
from kramers_grok.core.threefry import threefry4x32, threefry4x32_13

__all__ = [
    "CHI_SQUARE_ATTEMPTS",
    "FIRST_CHI_SQUARE_BLOCK",
    "FIRST_INDEX_BLOCK",
    "Purpose",
    "check_step",
    "chi_square",
    "draw_chi_square",
    "draw_index",
    "draw_indices",
    "draw_permutation",
    "draw_subset",
    "fill_normal_quads",
    "fill_normal_table",
    "fill_normals",
    "fill_single_quads",
    "fill_uniforms",
    "fill_word_quads",
    "fill_words",
    "integers",
    "locate",
    "new_cache",
    "normals",
    "permutation",
    "refresh_normals",
    "refresh_words",
    "sample_without_replacement",
    "split_seed",
    "steps_per_counter",
    "threefry4x32",
    "threefry4x32_13",
    "uniforms",
    "words",
]


class Purpose(IntEnum):
    """What a random number is for: the first word of its counter, so that no two uses ever collide."""

    LANGEVIN = 0
    DATA = 1
    LABEL = 2
    SHUFFLE = 3
    INJECTED = 4
    BRIDGE = 5
    START = 6
    LEVY = 7
    ACTIVATION = 8
    UNDERDAMPED = 9
    VELOCITY = 10
    MINIBATCH = 11


@lru_cache(maxsize=64)
def split_seed(seed: int) -> tuple[np.uint32, np.uint32]:
    """Low and high word of a 64-bit seed: the first two words of the key.

    Raises
    ------
    InvalidParameterError
        If `seed` is not an integer in [0, 2⁶⁴).

    Examples
    --------
    >>> tuple(int(word) for word in split_seed(2**32 + 5))
    (5, 1)
    """
    number = checks.seed(seed)
    return np.uint32(number & 0xFFFFFFFF), np.uint32(number >> 32)


def check_step(step: int, n: int = 4) -> int:
    """Return `step` if the counter of its n numbers fits into a 32-bit step word."""
    if type(step) is int and 0 <= step < 2**32:  # at every step of every simulation
        return step
    number = checks.positive_int("step", step, minimum=0, why="it is a word of the generator's counter")
    if locate(number, n)[0] >= 2**32:
        limit = 2**32 * steps_per_counter(n)
        raise checks.invalid("step", step, f"a step below {limit}", "the counter's step word has 32 bits")
    return number


def _check_streams(streams: ArrayLike) -> NDArray[np.uint32]:
    given = np.asarray(streams)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        what = checks.Described(f"array of shape {given.shape} and dtype {given.dtype}")
        fix = "Use `numpy.arange(n_replicas)` for replicas 0, 1, …"
        raise checks.invalid("streams", what, "a one-dimensional array of integers", "one stream is one replica", fix)
    if given.size and (given.min() < 0 or given.max() >= 2**32):
        raise checks.invalid("streams", f"values up to {given.max()}", "integers in [0, 2**32)", "a stream is one word")
    return np.ascontiguousarray(given, dtype=np.uint32)


def words(seed: int, purpose: int, streams: ArrayLike, step: int, n: int) -> NDArray[np.uint32]:
    """Return the n 32-bit words of each replica at a step.

    Parameters
    ----------
    seed : int
        In [0, 2⁶⁴).
    purpose : Purpose
        What the numbers are for; different purposes are independent.
    streams : array_like of int, shape (replica,)
        The replicas' stream numbers, in [0, 2³²).
    step : int
        Number of the step.
    n : int
        Numbers per step; part of the address for n ≤ 2 (see the packing rule above).

    Returns
    -------
    ndarray of uint32, shape (replica, n)

    Raises
    ------
    InvalidParameterError
        If seed, a stream or the step does not fit into its words of the counter.

    Examples
    --------
    >>> [f"{word:08x}" for word in words(0, Purpose.LANGEVIN, [0], step=0, n=4)[0]]
    ['531c7e4f', '39491ee5', '2c855a92', '3d6abf9a']
    """
    n = checks.positive_int("n", n)
    lo, hi, lanes, step = *split_seed(seed), _check_streams(streams), check_step(step, n)
    out = np.empty((n, lanes.size), np.uint32)
    fill_words(out, lo, hi, np.uint32(purpose), lanes, step)
    return np.ascontiguousarray(out.T)


def uniforms(seed: int, purpose: int, streams: ArrayLike, step: int, n: int) -> NDArray[np.float64]:
    """Return n uniforms of (0, 1) per replica at a step, u = (word + ½)/2³²; parameters as for :func:`words`.

    Examples
    --------
    >>> uniforms(0, Purpose.BRIDGE, [3, 1], step=2, n=1).shape
    (2, 1)
    """
    n = checks.positive_int("n", n)
    lo, hi, lanes, step = *split_seed(seed), _check_streams(streams), check_step(step, n)
    out = np.empty((n, lanes.size))
    fill_uniforms(out, lo, hi, np.uint32(purpose), lanes, step)
    return np.ascontiguousarray(out.T)


def normals(seed: int, purpose: int, streams: ArrayLike, step: int, n: int) -> NDArray[np.float64]:
    """Return n standard normals per replica at a step, by Box and Muller; parameters as for :func:`words`.

    A replica's row does not depend on which other replicas are asked for:

    Examples
    --------
    >>> alone = normals(7, Purpose.LANGEVIN, [5], step=10, n=3)
    >>> bool((normals(7, Purpose.LANGEVIN, [1, 5, 9], step=10, n=3)[1] == alone).all())
    True
    """
    n = checks.positive_int("n", n)
    lo, hi, lanes, step = *split_seed(seed), _check_streams(streams), check_step(step, n)
    out = np.empty((lanes.size, n))
    fill_normal_table(out, lo, hi, np.uint32(purpose), lanes, step)
    return out


def chi_square(
    dof: int, seed: int, purpose: int, streams: ArrayLike, step: int, *, index: int = 0
) -> NDArray[np.float64]:
    """Return a chi-square number with `dof` degrees of freedom per replica, exact up to 32-bit words.

    Parameters
    ----------
    dof : int
        Degrees of freedom, at least 1.
    seed, purpose, streams, step
        As for :func:`words`.
    index : int
        Distinguishes several chi-square numbers of one step, below 2²⁷.

    Returns
    -------
    ndarray of float64, shape (replica,)

    Examples
    --------
    >>> chi_square(8, 0, Purpose.DATA, range(4), step=0).shape
    (4,)
    """
    dof, index = checks.positive_int("dof", dof), checks.positive_int("index", index, minimum=0)
    if index >= 2**27:
        raise checks.invalid("index", index, "an integer below 2**27", "16 blocks belong to each")
    lo, hi, lanes, step = *split_seed(seed), _check_streams(streams), check_step(step)
    out = np.empty(lanes.size)
    rng_draws.chi_square_rows(out, dof, lo, hi, np.uint32(purpose), lanes, step, index)
    return out


def _check_range(n: int) -> int:
    number = checks.positive_int("n", n)
    if number > FIRST_INDEX_BLOCK:
        raise checks.invalid("n", n, "at most 2**30", "indices are made from 32-bit words")
    return number


def integers(seed: int, purpose: int, streams: ArrayLike, step: int, n: int, size: int) -> NDArray[np.int64]:
    """Return `size` independent integers of range(n) per replica; shape (replica, size).

    ⌊word·n/2³²⌋: the probability of each integer is 1/n to within 2⁻³².

    Examples
    --------
    >>> bool((integers(0, Purpose.DATA, range(9), step=0, n=5, size=7) < 5).all())
    True
    """
    n, size = _check_range(n), checks.positive_int("size", size)
    lo, hi, lanes, step = *split_seed(seed), _check_streams(streams), check_step(step)
    out = np.empty((lanes.size, size), np.int64)
    rng_draws.index_rows(out, n, lo, hi, np.uint32(purpose), lanes, step)
    return out


def sample_without_replacement(
    seed: int, purpose: int, streams: ArrayLike, step: int, n: int, size: int
) -> NDArray[np.int64]:
    """Return `size` different integers of range(n) per replica, every subset equally likely; shape (replica, size).

    The order within a row is not uniform; :func:`permutation` is for orders.

    Raises
    ------
    InvalidParameterError
        If `size` is larger than n.

    Examples
    --------
    >>> sorted(sample_without_replacement(0, Purpose.DATA, [4], step=0, n=3, size=3)[0].tolist())
    [0, 1, 2]
    """
    n, size = _check_range(n), checks.positive_int("size", size)
    if size > n:
        raise checks.invalid("size", size, f"at most n = {n}", "no index is drawn twice", "Use `integers` to repeat.")
    lo, hi, lanes, step = *split_seed(seed), _check_streams(streams), check_step(step)
    out = np.empty((lanes.size, size), np.int64)
    rng_draws.subset_rows(out, n, lo, hi, np.uint32(purpose), lanes, step)
    return out


def permutation(seed: int, purpose: int, streams: ArrayLike, step: int, n: int) -> NDArray[np.int64]:
    """Return a random permutation of range(n) per replica; shape (replica, n).

    Examples
    --------
    >>> sorted(permutation(0, Purpose.SHUFFLE, [4], step=0, n=3)[0].tolist())
    [0, 1, 2]
    """
    n = _check_range(n)
    lo, hi, lanes, step = *split_seed(seed), _check_streams(streams), check_step(step)
    out = np.empty((lanes.size, n), np.int64)
    rng_draws.permutation_rows(out, lo, hi, np.uint32(purpose), lanes, step)
    return out
