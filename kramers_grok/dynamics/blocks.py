"""Compiled parts of the loop that every generated kernel runs in: lanes of a block, scores, the bridge's uniform."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.compiled import inline_njit, njit
from kramers_grok.core.rng import Purpose
from kramers_grok.core.rng_blocks import locate, refresh_normals, steps_per_counter
from kramers_grok.core.threefry import threefry4x32_13

__all__ = [
    "BLOCK",
    "BRIDGE_REACH",
    "CONSTANT",
    "DISTINCT",
    "EPOCHS",
    "LANES",
    "NONE",
    "ONLINE",
    "REPLACEMENT",
    "STRIDE",
    "bridge_uniform",
    "close_up",
    "close_up_lanes",
    "count_near",
    "draw_normals",
    "draws",
    "enter",
    "fill",
    "gather",
    "gather_numbers",
    "gather_parameters",
    "kept_lanes",
    "leave",
    "mark_lanes",
    "noise_rows",
    "numbers",
    "pick_all",
    "pick_flags",
    "pick_out",
    "raise_peak",
    "row",
    "rows",
    "rows_per_step",
    "scatter",
    "steps_together",
    "wider",
]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Words = NDArray[np.uint32]
Integers = NDArray[np.int64]

# Replicas that advance side by side: few enough for the second-level cache to hold their state, noise and scores,
# enough for vector instructions to pay off still when most of them have left.
BLOCK = 1024

# From one row to the next, known to the compiler: it proves that rows do not overlap and makes vector instructions
# without a check. One cache line more than a block: rows a power of two apart would fight for the same cache sets.
STRIDE = BLOCK + 16

# Lanes are filled up to whole vectors: of the widest, and of the narrowest numbers.
LANES = 16

# A path crosses between two steps with probability exp(−d₀d₁/(T dt)); below e^-23 no 32-bit uniform is that small.
BRIDGE_REACH = 23.0

NONE, CONSTANT, ONLINE, REPLACEMENT, DISTINCT, EPOCHS = range(6)

_BRIDGE = np.uint32(Purpose.BRIDGE)


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
def close_up(rows: Floats, kept: Integers) -> None:
    """Move the lanes `kept`, which are in order, to the front of every row."""
    for j in range(rows.shape[0]):
        for i in range(kept.shape[0]):
            rows[j, i] = rows[j, kept[i]]


@njit
def _padded(count: int) -> int:
    return (count + LANES - 1) // LANES * LANES


@njit
def _pad(x: Floats, where: Integers, lanes: Words, first: int) -> None:
    """Make lanes from `first` on hold nobody: not-a-number never compares."""
    for i in range(first, where.shape[0]):
        where[i] = -1
        lanes[i] = 0
        for j in range(x.shape[0]):
            x[j, i] = np.nan


@njit
def enter(x: Floats, theta: Floats, streams: Words, begin: int, count: int) -> tuple[Integers, Words]:
    """Write replicas of `theta` (replica, parameter) to the lanes of `x`, whose last row is the peak score.

    Returns
    -------
    where : ndarray of int64
        Number of the replica in each lane, −1 for none; as many as fill whole vectors.
    lanes : ndarray of uint32
        Its stream.
    """
    where, lanes = np.empty(_padded(count), np.int64), np.empty(_padded(count), np.uint32)
    for i in range(count):
        where[i] = begin + i
        lanes[i] = streams[begin + i]
        x[x.shape[0] - 1, i] = -np.inf
    gather_parameters(x, theta, begin, count)
    _pad(x, where, lanes, count)
    return where, lanes


@njit
def gather_parameters(rows: Floats, table: Floats, begin: int, count: int) -> None:
    """Write `count` replicas of a table (replica, parameter) to the lanes of rows."""
    for j in range(table.shape[1]):
        for i in range(count):
            rows[j, i] = table[begin + i, j]


@njit
def close_up_lanes(x: Floats, mark: Floats, where: Integers, lanes: Words, kept: Integers) -> tuple[Integers, Words]:
    """Return `where` and `lanes` of the lanes that are kept, filled up to whole vectors; `x` has closed up already."""
    count = kept.shape[0]
    still, streams = np.empty(_padded(count), np.int64), np.empty(_padded(count), np.uint32)
    for i in range(count):
        still[i], streams[i], mark[i] = where[kept[i]], lanes[kept[i]], mark[kept[i]]
    for i in range(count, still.shape[0]):
        mark[i] = -1.0
    _pad(x, still, streams, count)
    return still, streams


@njit
def leave(moved: Floats, best: Floats, x: Floats, where: Integers, watching: bool) -> None:
    """Write the lanes of the replicas that are still there, and their highest scores, to their places."""
    peak = x.shape[0] - 1
    for i in range(where.shape[0]):
        if where[i] >= 0:
            best[where[i]] = x[peak, i] if watching else -np.inf
            for j in range(peak):
                moved[where[i], j] = x[j, i]


@njit
def mark_lanes(mark: Floats, where: Integers, distance: Floats, reach: float, count: int) -> None:
    """Mark lanes that hold nobody by −1, those within reach of the border by 1, others by 0.

    Two distances whose product is within reach are not both beyond the root of it.
    """
    for i in range(count):
        close = (reach > 0.0) & (not ((distance[i] > 0.0) & (distance[i] * distance[i] > wider(reach))))
        mark[i] = -1.0 if where[i] < 0 else (1.0 if close else 0.0)


@inline_njit
def wider(reach: float) -> float:
    """Reach with room for rounding: whoever is outside has nothing to fear."""
    return reach * (1.0 + 1e-9)


@njit
def pick_flags(chosen: Integers, flags: NDArray[np.uint8], count: int) -> int:
    """Write the flagged lanes to `chosen` and return how many they are."""
    found = 0
    for i in range(count):
        chosen[found] = i
        found += flags[i] != 0
    return found


@njit
def pick_all(chosen: Integers, count: int) -> int:
    """Write all lanes to `chosen` and return how many they are."""
    for i in range(count):
        chosen[i] = i
    return count


@njit
def gather(few: Any, rows: Any, chosen: Integers, size: int) -> None:
    """Copy the chosen lanes of every row to the front of another's."""
    for j in range(rows.shape[0]):
        for i in range(size):
            few[j, i] = rows[j, chosen[i]]


@njit
def gather_numbers(
    few_where: Integers, few_lanes: Words, where: Integers, lanes: Words, chosen: Integers, size: int
) -> None:
    """Copy who is in the chosen lanes."""
    for i in range(size):
        few_where[i], few_lanes[i] = where[chosen[i]], lanes[chosen[i]]


@njit
def scatter(
    x: Floats, mark: Floats, where: Integers, few_x: Floats, few_mark: Floats, few_where: Integers,
    chosen: Integers, size: int,
) -> None:  # fmt: skip
    """Put the chosen lanes back in their places."""
    for i in range(size):
        mark[chosen[i]], where[chosen[i]] = few_mark[i], few_where[i]
    for j in range(x.shape[0]):
        for i in range(size):
            x[j, chosen[i]] = few_x[j, i]


@njit
def fill(row: Any, value: float) -> None:
    """Set a row; assigning a slice takes numba seconds to compile."""
    for i in range(row.shape[0]):
        row[i] = value


@njit
def rows(count: int) -> Floats:
    """Rows of a block's numbers."""
    return np.empty((count, STRIDE))


@njit
def row() -> Floats:
    """One row of a block's numbers."""
    return np.empty(STRIDE)


@njit
def numbers() -> Integers:
    """One row of integers."""
    return np.empty(STRIDE, np.int64)


@inline_njit
def draws(kind: int) -> bool:
    """Whether the batches' moments are drawn at every step."""
    return (kind != NONE) & (kind != CONSTANT)


@inline_njit
def steps_together(n: int, kind: int) -> int:
    """Steps of n normals that are taken together: those that share a counter, unless an epoch may end between them.

    Examples
    --------
    >>> steps_together(1, ONLINE), steps_together(2, NONE), steps_together(3, NONE), steps_together(1, EPOCHS)
    (4, 2, 1, 1)
    """
    return 1 if kind == EPOCHS else steps_per_counter(n)


@inline_njit
def rows_per_step(n: int) -> int:
    """How many rows apart the normals of steps taken together lie: n for n ≤ 2, otherwise 4⌈n/4⌉."""
    return n if n <= 2 else 4 * ((n + 3) // 4)


@inline_njit
def noise_rows(n: int) -> int:
    """Rows that the normals of steps taken together fill."""
    return max(4, rows_per_step(n))


@njit
def draw_normals(
    z: Any, low: Any, high: Any, purpose: Any, lanes: Words, number: int, together: int, n: int, fresh: bool
) -> int:
    """Draw the n normals of steps taken together, `rows_per_step` apart, and return the row of the first."""
    if n <= 2:
        return refresh_normals(z, low, high, purpose, lanes, number, n, fresh)
    apart = rows_per_step(n)
    for s in range(together):
        refresh_normals(z[s * apart : (s + 1) * apart], low, high, purpose, lanes, number + s, n, True)
    return 0


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
