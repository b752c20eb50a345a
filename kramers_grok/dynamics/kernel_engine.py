"""The compiled loop over blocks and steps that all generated kernels share.

A landscape's own code is three loops over replicas, called by their addresses (see
:mod:`kramers_grok.dynamics.kernel_source`); what surrounds them is compiled once, not once for each landscape:

- ``leap`` takes all replicas of a block through the steps whose noise is drawn together, in registers, and looks for
  nothing but signs that one of them may have been out, or near the border;
- ``move`` takes some replicas one step further, and ``watch`` computes their scores and distances to the border.

The few that leapt suspiciously go through the same steps again, one by one from where they were, and stop where they
left. What is found, and every path, is the same to the bit as if all of them had been followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from kramers_grok.core.compiled import njit
from kramers_grok.dynamics import block_moments, blocks

__all__ = ["address", "advance", "moments_address", "signature"]

_F, _U = types.float64, types.uint64
_I, _W = types.int64, types.uint32
_ROW, _FLAGS = types.Array(_F, 1, "C"), types.Array(types.uint8, 1, "C")

_MOMENTS = types.none(
    types.Array(_F, 2, "C"), _I, _I, _I, types.Array(_W, 1, "C"), types.Array(_I, 1, "C"), _W, _W, _I,
    types.Array(_I, 1, "C"), _F, _F, _F, types.Array(_F, 2, "C"), types.boolean, _ROW, _ROW, types.Array(_I, 2, "C"),
)  # fmt: skip


def signature(name: str, noise: Any) -> Any:
    """Return numba's signature of one of a landscape's loops: "leap", "move" or "watch".

    `noise` is the numba type of normal numbers.
    """
    z = types.Array(noise, 1, "C")
    return {
        "leap": types.int64(_U, _ROW, _ROW, _ROW, _FLAGS, z, _U, _ROW, _ROW, _ROW, _F, _F, _F, _F, _F, _ROW),
        "move": types.none(_U, _ROW, z, _U, _ROW, _U, _ROW, _U, _ROW, _ROW),
        "watch": types.none(_U, _ROW, _F, _F, _F, _ROW, _ROW, _ROW),
    }[name]


_procedure: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic


def _call(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Generate a call of the function at an address, by numba's own convention."""
    returns, takes = signature.return_type, signature.args[1:]
    function = context.call_conv.get_function_type(returns, takes)
    pointer = builder.inttoptr(arguments[0], function.as_pointer())
    status, value = context.call_conv.call_function(builder, pointer, returns, takes, arguments[1:])
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)
    return value


@_procedure
def _leap(
    typing: Any, address: Any, count: Any, x: Any, y: Any, mark: Any, flags: Any, z: Any, first: Any, moments: Any,
    hyper: Any, own: Any, sign: Any, threshold: Any, floor: Any, border: Any, reach: Any, constants: Any,
) -> Any:  # fmt: skip
    return types.int64(types.uintp, *signature("leap", z.dtype).args), _call


@_procedure
def _move(
    typing: Any, address: Any, count: Any, x: Any, z: Any, first: Any, moments: Any, drawn: Any, hyper: Any, now: Any,
    own: Any, constants: Any,
) -> Any:  # fmt: skip
    return types.none(types.uintp, *signature("move", z.dtype).args), _call


@_procedure
def _watch(
    typing: Any, address: Any, count: Any, x: Any, sign: Any, threshold: Any, border: Any, score: Any, distance: Any,
    constants: Any,
) -> Any:  # fmt: skip
    return types.none(types.uintp, *signature("watch", _F).args), _call


@_procedure
def _draw_moments(
    typing: Any, address: Any, moments: Any, together: Any, number: Any, begin: Any, lanes: Any, where: Any, low: Any,
    high: Any, kind: Any, sizes: Any, teacher: Any, variance: Any, label_noise: Any, labels: Any, fresh: Any,
    all_xx: Any, all_yx: Any, order: Any,
) -> Any:  # fmt: skip
    return types.none(types.uintp, *_MOMENTS.args), _call


@cache
def moments_address() -> int:
    """Compile `block_moments.draw_moments` and return its address: called by it, kernels without batches go without."""
    return address(block_moments.draw_moments, _MOMENTS)


def address(function: Any, signature: Any) -> int:
    """Compile a function for a signature and return the address of its machine code."""
    function.compile(signature)
    result = function.overloads[signature.args]
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


@njit
def _set_hyper(hyper: Any, together: int, at: int, steps: Any, decays: Any, amplitudes: Any) -> None:
    """Write step, decay and amplitude of each of the steps; tables of one entry hold for all."""
    for s in range(together):
        hyper[3 * s] = steps[min(at + s, steps.shape[0] - 1)]
        hyper[3 * s + 1] = decays[min(at + s, decays.shape[0] - 1)]
        hyper[3 * s + 2] = amplitudes[min(at + s, amplitudes.shape[0] - 1)]


@njit
def _follow(
    move: Any, watch: Any, size: int, together: int, number: int, row: int, z_rows: int, drawn: int, x: Any, z: Any,
    moments: Any, hyper: Any, own: Any, where: Any, lanes: Any, score: Any, near: Any, far: Any, picked: Any,
    mark: Any, low: Any, high: Any, watching: bool, bridging: bool, threshold: float, floor: float, border: float,
    sign: float, bridge_scale: float, reach: float, hit: Any, fell: Any, best: Any, moved: Any, constants: Any,
) -> int:  # fmt: skip
    """Take replicas through some steps, stop those that leave, and return how many did."""
    dimension = x.shape[0] - 1
    count, lanes_of_x, peak = np.uint64(size), x.reshape(-1), x[dimension, :size]
    left = 0
    blocks.fill(near, 0.0)
    blocks.fill(far, 0.0)
    if bridging:
        _watch(watch, count, lanes_of_x, sign, threshold, border, score, far, constants)
    for s in range(together):
        first = np.uint64((row + s * z_rows) * blocks.STRIDE)
        _move(
            move, count, lanes_of_x, z, first, moments, np.uint64(s * drawn * blocks.STRIDE), hyper, np.uint64(3 * s),
            own, constants,
        )  # fmt: skip
        if not watching:
            continue
        _watch(watch, count, lanes_of_x, sign, threshold, border, score, near, constants)
        blocks.raise_peak(peak, score)
        if blocks.count_near(score[:size], near, far, threshold, floor, reach) > 0:
            for index in range(blocks.pick_out(picked, score[:size], near, far, threshold, floor, reach)):
                i = picked[index]
                escaped = score[i] >= threshold
                if bridging and not escaped:
                    chance = math.exp(-near[i] * far[i] / bridge_scale)
                    escaped = blocks.bridge_uniform(low, high, lanes[i], number + s) < chance
                if escaped or score[i] <= floor:
                    replica = where[i]
                    if escaped:
                        hit[replica] = number + s + 1
                    else:
                        fell[replica] = number + s + 1
                    best[replica] = peak[i]
                    where[i] = -1
                    for j in range(dimension):
                        moved[replica, j] = x[j, i]
                        # not-a-number never compares: the lane runs on at full speed and is never seen again
                        x[j, i] = np.nan
                    near[i] = np.nan
                    left += 1
        if bridging:
            near, far = far, near
    blocks.mark_lanes(mark, where, far, reach, size)
    return left


@njit
def advance(
    leap: Any, move: Any, watch: Any, draw: Any, z: Any, few_z: Any, theta: Any, moved: Any, streams: Any, first: int,
    n_steps: int, steps: Any, decays: Any, amplitudes: Any, noisy: bool, factors: Any, low: Any, high: Any,
    purpose: Any, watching: bool, bridging: bool, threshold: float, floor: float, border: float, sign: float,
    bridge_scale: float, hit: Any, fell: Any, best: Any, order: Any, constants: Any, kind: int, batch_sizes: Any,
    teacher: float, variance: float, label_noise: float, all_xx: Any, all_yx: Any,
) -> None:  # fmt: skip
    """Take replicas through `n_steps` steps, block by block.

    Parameters
    ----------
    leap, move, watch, draw : int
        Addresses of the landscape's loops, and of `block_moments.draw_moments` where there are batches to draw.
    z, few_z : ndarray of float64 or float32, shape (blocks.noise_rows(parameter, kind), blocks.STRIDE)
        Room for normal numbers; its dtype is their precision. Zero where there is no noise.
    theta, moved : ndarray, shape (replica, parameter)
        Where replicas begin, and where they end: written.
    steps, decays, amplitudes, batch_sizes : ndarray
        One entry for each step, or one for all.
    factors : ndarray, shape (replica, 3)
        By which step, decay and amplitude are multiplied for each replica; no rows where they are not.
    hit, fell, best : ndarray, shape (replica,)
        The record; written.
    kind, batch_sizes, teacher, variance, label_noise, all_xx, all_yx
        Where the batches' moments come from; see `kernels.DataSource`.
    """
    dimension = theta.shape[1]
    apart, z_rows = blocks.steps_together(dimension, kind), blocks.rows_per_step(dimension)
    drawn = 1 if blocks.draws(kind) else 0
    reach = blocks.BRIDGE_REACH * bridge_scale if bridging else -1.0
    x, y, few_x = blocks.rows(dimension + 1), blocks.rows(dimension + 1), blocks.rows(dimension + 1)
    moments, few_moments = blocks.rows(2 * (apart if drawn else 1)), blocks.rows(2 * (apart if drawn else 1))
    own, few_own, labels = blocks.rows(3), blocks.rows(3), blocks.rows(4)
    mark, few_mark, score, near, far = blocks.row(), blocks.row(), blocks.row(), blocks.row(), blocks.row()
    hyper, flags = np.empty(12), np.empty(blocks.STRIDE, np.uint8)
    picked, chosen, few_where = blocks.numbers(), blocks.numbers(), blocks.numbers()
    few_lanes = np.empty(blocks.STRIDE, np.uint32)
    flat_z, few_flat_z, flat_own, few_flat_own = z.reshape(-1), few_z.reshape(-1), own.reshape(-1), few_own.reshape(-1)
    flat_moments, few_flat_moments = moments.reshape(-1), few_moments.reshape(-1)
    if kind == blocks.CONSTANT:
        blocks.fill(moments[0], all_xx[0])
        blocks.fill(moments[1], all_yx[0])
    for begin in range(0, theta.shape[0], blocks.BLOCK):
        alive = min(begin + blocks.BLOCK, theta.shape[0]) - begin
        where, lanes = blocks.enter(x, theta, streams, begin, alive)
        if factors.shape[0] > 0:
            blocks.gather_parameters(own, factors, begin, alive)
        width = where.shape[0]
        if bridging:
            _watch(watch, np.uint64(width), x.reshape(-1), sign, threshold, border, score, far, constants)
        blocks.mark_lanes(mark, where, far, reach, width)
        fresh = True
        number, last, doubt = first, first + n_steps, 0
        while number < last:
            together = min(apart - number % apart, last - number)
            _set_hyper(hyper, together, number - first, steps, decays, amplitudes)
            if drawn:
                _draw_moments(
                    draw, moments, together, number, first, lanes, where, low, high, kind, batch_sizes, teacher,
                    variance, label_noise, labels, fresh, all_xx, all_yx, order,
                )  # fmt: skip
            row = 0
            if noisy:
                row = blocks.draw_normals(z, low, high, purpose, lanes, number, together, dimension, fresh)
            fresh = False
            if together == apart and doubt == 0:
                found = _leap(
                    leap, np.uint64(width), x.reshape(-1), y.reshape(-1), mark, flags, flat_z,
                    np.uint64(row * blocks.STRIDE), flat_moments, hyper, flat_own, sign, threshold, floor, border,
                    blocks.wider(reach), constants,
                )  # fmt: skip
                size = blocks.pick_flags(chosen, flags, width) if found > 0 else 0
                doubt = 16 if 2 * size > width else 0  # to follow all of them is faster then
            else:
                size = blocks.pick_all(chosen, width)
                doubt = max(0, doubt - 1)
            left = 0
            if size > 0:
                blocks.gather(few_x, x, chosen, size)
                blocks.gather(few_z, z, chosen, size)
                if kind != blocks.NONE:
                    blocks.gather(few_moments, moments, chosen, size)
                if factors.shape[0] > 0:
                    blocks.gather(few_own, own, chosen, size)
                blocks.gather_numbers(few_where, few_lanes, where, lanes, chosen, size)
                left = _follow(
                    move, watch, size, together, number, row, z_rows, drawn, few_x, few_flat_z, few_flat_moments, hyper,
                    few_flat_own, few_where, few_lanes, score, near, far, picked, few_mark, low, high, watching,
                    bridging, threshold, floor, border, sign, bridge_scale, reach, hit, fell, best, moved, constants,
                )  # fmt: skip
                blocks.scatter(y, mark, where, few_x, few_mark, few_where, chosen, size)
            x, y = y, x
            number += together
            alive -= left
            if alive == 0:
                break
            if left > 0 and 4 * alive <= 3 * width:  # the others close up, and draw their noise anew
                kept = blocks.kept_lanes(where)
                blocks.close_up(x, kept)
                if factors.shape[0] > 0:
                    blocks.close_up(own, kept)
                where, lanes = blocks.close_up_lanes(x, mark, where, lanes, kept)
                width = where.shape[0]
                fresh = True
        blocks.leave(moved, best, x, where, watching)
