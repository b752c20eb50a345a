"""Threefry4x32, the block function of the counter-based generator.

Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11, doi:10.1145/2063384.2063405.
It maps a counter and a key of four 32-bit words each to four words that pass BigCrush from 12 rounds on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.compiled import inline_njit

__all__ = ["PARITY", "ROTATIONS", "threefry4x32", "threefry4x32_13"]

ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
PARITY = 0x1BD11BDA
_PARITY = np.uint32(PARITY)


def threefry4x32(counter: ArrayLike, key: ArrayLike, rounds: int = 13) -> NDArray[np.uint32]:
    """Return Threefry4x32 of counters under a key, for any number of rounds.

    Parameters
    ----------
    counter : array_like of uint32, shape (..., 4)
    key : array_like of uint32, shape (..., 4)
    rounds : int
        The library uses 13; 20 is Random123's default.

    Returns
    -------
    ndarray of uint32, shape (..., 4)

    Raises
    ------
    InvalidParameterError
        If `rounds` is not a positive integer, or counter or key do not end in four words.

    Examples
    --------
    >>> [f"{word:08x}" for word in threefry4x32([0, 0, 0, 0], [0, 0, 0, 0])]
    ['531c7e4f', '39491ee5', '2c855a92', '3d6abf9a']
    """
    c, k = np.asarray(counter, dtype=np.uint32), np.asarray(key, dtype=np.uint32)
    for name, words in (("counter", c), ("key", k)):
        if words.shape[-1:] != (4,):
            raise checks.invalid(
                name, checks.Described(f"array of shape {words.shape}"), "shape (..., 4)", "it is four 32-bit words"
            )
    last = np.bitwise_xor.reduce(k, axis=-1, keepdims=True) ^ _PARITY
    schedule = np.concatenate([k, last], axis=-1)
    x: NDArray[np.uint32] = c + schedule[..., :4]
    for number in range(checks.positive_int("rounds", rounds)):
        # Even rounds mix words (0, 1) and (2, 3), odd ones (0, 3) and (2, 1).
        i, j = (1, 3) if number % 2 == 0 else (3, 1)
        by_i, by_j = ROTATIONS[number % 8]
        x[..., 0] += x[..., i]
        x[..., i] = _rotate(x[..., i], by_i) ^ x[..., 0]
        x[..., 2] += x[..., j]
        x[..., j] = _rotate(x[..., j], by_j) ^ x[..., 2]
        if number % 4 == 3:
            injection = number // 4 + 1
            x += np.roll(schedule, -injection, axis=-1)[..., :4]
            x[..., 3] += np.uint32(injection % 2**32)
    return x


def _rotate(word: NDArray[np.uint32], by: int) -> NDArray[np.uint32]:
    return (word << np.uint32(by)) | (word >> np.uint32(32 - by))


@inline_njit
def _add(a: Any, b: Any) -> Any:
    # numba widens 32-bit integers in every operation; casting back lets LLVM keep to 32-bit lanes.
    return np.uint32(a + b)


@inline_njit
def _mix(a: Any, b: Any, by: int) -> tuple[Any, Any]:
    total = _add(a, b)
    rotated = np.uint32(np.uint32(b << np.uint32(by)) | np.uint32(b >> np.uint32(32 - by)))
    return total, np.uint32(rotated ^ total)


@inline_njit
def _two_rounds(x0: Any, x1: Any, x2: Any, x3: Any, a: int, b: int, c: int, d: int) -> tuple[Any, Any, Any, Any]:
    x0, x1 = _mix(x0, x1, a)
    x2, x3 = _mix(x2, x3, b)
    x0, x3 = _mix(x0, x3, c)
    x2, x1 = _mix(x2, x1, d)
    return x0, x1, x2, x3


@inline_njit
def threefry4x32_13(
    c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any, k2: Any = 0, k3: Any = 0
) -> tuple[Any, Any, Any, Any]:
    """Threefry4x32 with 13 rounds of one counter; a compiled loop over it becomes vector instructions.

    Examples
    --------
    >>> [f"{word:08x}" for word in threefry4x32_13(0, 0, 0, 0, 0, 0)]
    ['531c7e4f', '39491ee5', '2c855a92', '3d6abf9a']
    """
    k0, k1, k2, k3 = np.uint32(k0), np.uint32(k1), np.uint32(k2), np.uint32(k3)
    k4 = np.uint32(np.uint32(_PARITY ^ np.uint32(k0 ^ k1)) ^ np.uint32(k2 ^ k3))
    x0, x1, x2, x3 = _add(np.uint32(c0), k0), _add(np.uint32(c1), k1), _add(np.uint32(c2), k2), _add(np.uint32(c3), k3)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    x0, x1, x2, x3 = _add(x0, k1), _add(x1, k2), _add(x2, k3), _add(_add(x3, k4), np.uint32(1))
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 6, 20, 17, 11)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 25, 10, 18, 20)
    x0, x1, x2, x3 = _add(x0, k2), _add(x1, k3), _add(x2, k4), _add(_add(x3, k0), np.uint32(2))
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    x0, x1, x2, x3 = _add(x0, k3), _add(x1, k4), _add(x2, k0), _add(_add(x3, k1), np.uint32(3))
    x0, x1 = _mix(x0, x1, 6)
    x2, x3 = _mix(x2, x3, 20)
    return x0, x1, x2, x3
