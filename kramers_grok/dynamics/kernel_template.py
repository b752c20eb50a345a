"""Text of generated kernels, with holes for what depends on the landscape."""

from __future__ import annotations

__all__ = ["TEMPLATE"]

# Each loop over replicas is a function of its own: only then is it turned into vector instructions. Rows are parts of
# one array, a known distance apart: rows of their own would be checked for overlap, and many of them not vectorised.
TEMPLATE = '''"""Generated from a symbolic landscape; do not edit."""
import math

import numpy as np

from kramers_grok.core import rng_blocks as rng
from kramers_grok.core.compiled import njit
from kramers_grok.dynamics import blocks

# Compiled parts that this source calls, by content: {dependencies}


@njit
def _move(count, x, z, first, xx, yx, {noisy_hyper}, constants):
{unpack}    for i in range(count):
{noisy}


@njit
def _descend(count, x, xx, yx, {quiet_hyper}, constants):
{unpack}    for i in range(count):
{quiet}


@njit
def _score(count, x, sign, border, score, constants):
{unpack}    for i in range(count):
{score}


@njit
def _border(count, x, sign, threshold, score, distance, constants):
{unpack}    for i in range(count):
{border}
        score[i] = sign * m
        distance[i] = (threshold - sign * m) / slope


@njit
def advance(theta, moved, streams, first, n_steps, {hyper}, low, high, purpose, watching, bridging, threshold,
            floor, border, sign, bridge_scale, hit, fell, best, order, constants,
            kind, {batch_size}, teacher, variance, label_noise, all_xx, all_yx):
    n = theta.shape[0]
    reach = blocks.BRIDGE_REACH * bridge_scale if bridging else -1.0
    for begin in range(0, n, blocks.BLOCK):
        end = min(begin + blocks.BLOCK, n)
        width = end - begin
        where = np.arange(begin, end)
        lanes_of_x = np.empty(({dimension}, blocks.STRIDE))
        x = lanes_of_x.reshape(-1)
        blocks.gather(lanes_of_x, theta, begin, end)
        count = np.uint64(width)
        lanes = streams[begin:end]
        normals = rng.new_cache({dimension}, blocks.STRIDE)
        z = normals.reshape(-1)
        score = np.empty(width)
        peak = np.full(width, -np.inf)
        near = np.zeros(width)
        far = np.zeros(width)
        picked = np.empty(width, np.int64)
        xx = np.empty(width)
        yx = np.empty(width)
        labels = rng.new_cache(1, width)
        if kind == blocks.CONSTANT:
            for i in range(width):
                xx[i] = all_xx[0]
                yx[i] = all_yx[0]
{lanes}        if bridging:
            _border(count, x, sign, threshold, score, far, constants)
        alive = width
        fresh = True
        for number in range(first, first + n_steps):
{now}            {draw}
            if {noisy_if}:
                row = rng.refresh_normals(normals, low, high, purpose, lanes, number, {dimension}, fresh)
                _move(count, x, z, np.uint64(row * blocks.STRIDE), xx, yx, {noisy_hyper}, constants)
            else:
                _descend(count, x, xx, yx, {quiet_hyper}, constants)
            fresh = False
            if not watching:
                continue
            if bridging:
                _border(count, x, sign, threshold, score, near, constants)
                out = blocks.count_near(score, near, far, threshold, floor, reach)
            else:
                _score(count, x, sign, border, score, constants)
                out = blocks.count_out(score, threshold, floor)
            blocks.raise_peak(peak, score)
            if out > 0:
                for index in range(blocks.pick_out(picked, score, near, far, threshold, floor, reach)):
                    i = picked[index]
                    escaped = score[i] >= threshold
                    if bridging and not escaped:
                        chance = math.exp(-near[i] * far[i] / bridge_scale)
                        escaped = blocks.bridge_uniform(low, high, lanes[i], number) < chance
                    if escaped or score[i] <= floor:
                        replica = where[i]
                        if escaped:
                            hit[replica] = number + 1
                        else:
                            fell[replica] = number + 1
                        best[replica] = peak[i]
                        where[i] = -1
                        for j in range({dimension}):
                            moved[replica, j] = lanes_of_x[j, i]
                            # not-a-number never compares: the lane runs on at full speed and is never seen again
                            lanes_of_x[j, i] = np.nan
                        near[i] = np.nan
                        alive -= 1
                if alive == 0:
                    break
                if 4 * alive <= 3 * width:  # the others close up, and draw their noise anew
                    kept = blocks.kept_lanes(where)
                    width = kept.shape[0]
                    where, lanes = blocks.take(where, kept), blocks.take(lanes, kept)
                    peak, near, far = blocks.take(peak, kept), blocks.take(near, kept), blocks.take(far, kept)
                    blocks.close_up(lanes_of_x, kept)
{close_up}                    score, xx, yx = score[:width], xx[:width], yx[:width]
                    count = np.uint64(width)
                    alive = width
                    fresh = True
            if bridging:
                near, far = far, near
        for i in range(width):
            replica = where[i]
            if replica >= 0:
                best[replica] = peak[i]
                for j in range({dimension}):
                    moved[replica, j] = lanes_of_x[j, i]
'''
