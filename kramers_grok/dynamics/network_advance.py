"""The compiled loop of matrix networks: blocks of replicas, steps, stopping and bridges.

What :func:`kramers_grok.dynamics.loop.run` computes with torch operations, on the same noise: the two agree path by
path to rounding. A replica that stopped is written down and its lane goes on unseen; a block ends when all have
stopped.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit
from kramers_grok.core.lane_noise import add_normals, drawing
from kramers_grok.core.lanes import Block, empty_entries, gather, into_njit, lanes_of, scatter
from kramers_grok.dynamics.blocks import BRIDGE_REACH, bridge_uniform
from kramers_grok.dynamics.network_batches import Batches, take_step
from kramers_grok.dynamics.network_steps import (
    AMPLITUDE,
    DECAY,
    SHARE,
    WEIGHTS,
    Entries,
    Layout,
    align,
    distance,
)

__all__ = ["Border", "Chain", "advance", "is_layout", "measure_block", "take_block_step"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Chain(NamedTuple):
    """What moves, and on which noise."""

    n_parameters: int
    low: Any  # words of the seed
    high: Any
    purpose: Any  # of the injected noise
    noisy: bool  # whether there is any
    single: bool  # whether normal numbers are made by single-precision arithmetic


class Border(NamedTuple):
    """What stops a replica."""

    watching: bool
    bridging: bool
    level: float  # score of a hit
    floor: float  # not a number: none
    sign: float
    bridge_scale: float


@into_njit
def _set_rates(
    block: Block, layout: Layout, rates: Floats, factors: Floats, size: int, column: int, begin: int
) -> None:
    """Write what every replica of the block multiplies by at a step."""
    lanes, last = lanes_of(block), factors.shape[0] - 1
    for lane in range(lanes):
        replica = min(begin + lane, last)
        block[layout.rate * lanes + lane] = rates[0, column] * factors[replica, 0]
        block[(layout.rate + DECAY) * lanes + lane] = rates[1, column] * factors[replica, 1]
        block[(layout.rate + AMPLITUDE) * lanes + lane] = rates[2, column] * factors[replica, 2]
        block[(layout.rate + SHARE) * lanes + lane] = 1.0 / size


def take_block_step(*arguments: Any) -> None:
    """Take a step with a block: what it does depends on the layout. Arguments as for `network_batches.take_step`."""
    raise NotImplementedError  # for compiled code


def measure_block(*arguments: Any) -> None:
    """Put m into `score`, and where asked ‖∇m‖² into `slope`; arguments block, at, layout, batches, border."""
    raise NotImplementedError  # for compiled code


def is_layout(given: Any, kind: type) -> bool:
    """Whether numba's type of a layout is that of a kind of layouts."""
    return getattr(given, "instance_class", None) is kind


@overload(take_block_step)  # type: ignore[untyped-decorator]
def _compile_step(
    block: Any, at: Any, layout: Any, batches: Any, source: Any, step: Any, size: Any, single: Any, where: Any
) -> Any:
    if not is_layout(layout, Layout):
        return None

    def call(
        block: Any, at: Any, layout: Any, batches: Any, source: Any, step: Any, size: Any, single: Any, where: Any
    ) -> None:
        take_step(block, at, layout, batches, source, step, size, single, where)

    return call


@overload(measure_block)  # type: ignore[untyped-decorator]
def _compile_measure(block: Any, at: Any, layout: Any, batches: Any, border: Any) -> Any:
    if not is_layout(layout, Layout):
        return None

    def call(block: Any, at: Any, layout: Any, batches: Any, border: Any) -> None:
        align(block, at, layout)
        if border.bridging:
            distance(block, at, layout)

    return call


@into_njit
def _measure(block: Block, at: Entries, layout: Layout, batches: Batches, border: Border, score: Any, gap: Any) -> None:
    """Write the score of every lane, and its distance to the border where that counts."""
    lanes = lanes_of(block)
    measure_block(block, at, layout, batches, border)
    for lane in range(lanes):
        score[lane] = border.sign * block[layout.score * lanes + lane]
        if border.bridging:
            slope = math.sqrt(block[layout.slope * lanes + lane])
            gap[lane] = (border.level - score[lane]) / max(slope, 1e-300)


@njit
def _judge(
    chain: Chain, border: Border, streams: Any, number: int, score: Any, near: Any, far: Any, peak: Any,
    where: Integers, hit: Integers, fell: Integers,
) -> int:  # fmt: skip
    """Find the replicas that stop at a step, write down when, and return how many they are."""
    stopped = 0
    reach = BRIDGE_REACH * border.bridge_scale if border.bridging else -1.0
    for lane in range(where.shape[0]):
        replica = where[lane]
        if replica < 0:
            continue
        if score[lane] > peak[lane]:
            peak[lane] = score[lane]
        escaped = score[lane] >= border.level
        if not escaped and near[lane] * far[lane] < reach:
            chance = math.exp(-near[lane] * far[lane] / border.bridge_scale)
            escaped = bridge_uniform(chain.low, chain.high, streams[replica], number) < chance
        if escaped:
            hit[replica] = number + 1
        elif score[lane] <= border.floor:
            fell[replica] = number + 1
        else:
            continue
        stopped += 1
    return stopped


@njit
def advance(
    theta: Any, moved: Any, streams: Any, first: int, n_steps: int, at: Entries, layout: Layout, image: Any,
    batches: Batches, sizes: Integers, rates: Floats, factors: Floats, chain: Chain, border: Border,
    hit: Integers, fell: Integers, best: Any,
) -> None:  # fmt: skip
    """Take `n_steps` steps with the replicas `theta` (replica, parameter), from step number `first` on.

    Parameters
    ----------
    moved, hit, fell, best : ndarray
        Written: where each replica is, the steps where it stopped, its highest score.
    at, layout, image
        What lies where in a block, and the numbers that begin there; flat, a cache line each entry.
    sizes : ndarray of int64, shape (step,) or (1,)
        Batch sizes.
    rates : ndarray, shape (3, step) or (3, 1)
        Learning rate, weight decay and amplitude of every step, times
    factors : ndarray, shape (replica, 3)
        those of every replica.
    """
    replicas, weights, columns = theta.shape[0], at[WEIGHTS, 0], rates.shape[1]
    block = empty_entries(layout.end, image)
    lanes = lanes_of(block)
    score, peak = np.empty(lanes, block.dtype), np.empty(lanes, block.dtype)
    near, far = np.empty(lanes, block.dtype), np.empty(lanes, block.dtype)
    where = np.empty(lanes, np.int64)
    for i in range(block.shape[0]):
        block[i] = image[i]
    for begin in range(0, replicas, lanes):
        end = min(begin + lanes, replicas)
        gather(block, weights, theta, begin, end)
        source = drawing(block, streams, begin, chain.low, chain.high)
        alive = end - begin
        for lane in range(lanes):
            where[lane] = begin + lane if lane < alive else -1
            peak[lane] = -np.inf
            near[lane] = far[lane] = np.inf
        # Step 0 of the call only looks where the replicas begin.
        for number in range(first - 1, first + n_steps):
            if number >= first:
                column = min(number - first, columns - 1)
                size = sizes[min(number - first, sizes.shape[0] - 1)]
                if number == first or columns > 1 or sizes.shape[0] > 1:
                    _set_rates(block, layout, rates, factors, size, column, begin)
                take_block_step(block, at, layout, batches, source, number, size, chain.single, where)
                if chain.noisy:
                    add_normals(
                        block, weights, chain.n_parameters, layout.rate + AMPLITUDE, source, chain.purpose, number,
                        chain.single,
                    )  # fmt: skip
            elif not border.bridging:
                continue
            if border.watching:
                _measure(block, at, layout, batches, border, score, near)
                if number >= first:
                    stopped = _judge(chain, border, streams, number, score, near, far, peak, where, hit, fell)
                    if stopped > 0:
                        for lane in range(lanes):
                            replica = where[lane]
                            if replica >= 0 and max(hit[replica], fell[replica]) >= 0:
                                best[replica] = peak[lane]
                                scatter(moved[replica], block, weights, lane)
                                where[lane] = -1
                        alive -= stopped
                        if alive == 0:
                            break
                near, far = far, near
        for lane in range(lanes):
            if where[lane] >= 0:
                best[where[lane]] = peak[lane]
                scatter(moved[where[lane]], block, weights, lane)
