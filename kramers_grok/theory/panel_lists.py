r"""Panels of many one-dimensional processes in one list, and the mean exit time of each: see `quadrature`.

On panel k, potential :math:`\Phi` measured from its left end, with scale :math:`s_k`, speed :math:`w_k` and the nested
integral :math:`n_k` of speed below scale, an exit through the upper end takes

.. math:: \tau = \sum_{k \ge \text{start}} \Big[n_k + s_k e^{\Phi_k} \sum_{j<k} w_j e^{-\Phi_j}\Big] .
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.quadrature import LOG_CUT, LOG_UNBOUNDED, MAX_PANELS, gauss_rule

__all__ = ["Ends", "PanelList", "log_mean_exits"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Function = Callable[..., Any]

# Panels evaluated at a time: their nodes stay in the second-level cache
_ROWS = 2048
# Φ and ln 𝒟 vary by this much on a panel before it is halved once more: sixteen nodes see e^±2 to rounding
_VARIATION = 4.0


@dataclass(frozen=True)
class Ends:
    """Start, absorbing upper end and left side of each point: absorbing, a wall, or None for the natural boundary."""

    start: Array
    upper: Array
    left: Array | None
    absorbing: bool


@dataclass(frozen=True, eq=False)
class PanelList:
    """Panels of all points, ordered by point and then from left to right.

    Attributes
    ----------
    drift, diffusion : callable
        In the coordinate ``sign * x``.
    parameters : tuple of ndarray, shape (point,)
    sign : float
        −1 for the mirror image, in which a lower exit is an upper one.
    owner : ndarray of int, shape (panel,)
        The point a panel belongs to.
    left, width : ndarray, shape (panel,)
    before : ndarray of bool, shape (panel,)
        Whether it lies left of the start.
    """

    drift: Function
    diffusion: Function
    parameters: tuple[Array, ...]
    sign: float
    owner: Integers
    left: Array
    width: Array
    before: NDArray[np.bool_]

    @classmethod
    def of(
        cls, drift: Function, diffusion: Function, parameters: tuple[Array, ...], ends: Ends, sign: float
    ) -> tuple[PanelList, NDArray[np.bool_]]:
        """Return refined panels of every confined point, and which those are."""
        points = np.arange(ends.start.size)
        empty = np.zeros(0)
        nothing = cls(drift, diffusion, parameters, sign, points[:0], empty, empty, np.zeros(0, dtype=bool))
        confined = np.full(points.size, True)
        if ends.left is None:
            before, confined = nothing.natural_walls(ends)
        else:
            before = nothing._eighths(points, ends.left, ends.start, before=True)
        after = nothing._eighths(points[confined], ends.start, ends.upper, before=False)
        return before._with(after).refined(), confined

    def halved(self) -> PanelList:
        """Every panel cut in two."""
        return self._cut(np.full(self.owner.size, 2))

    def of_points(self, points: Integers) -> PanelList:
        """The panels of some points."""
        return self._take(np.isin(self.owner, points))

    def _take(self, kept: Any) -> PanelList:
        return replace(
            self, owner=self.owner[kept], left=self.left[kept], width=self.width[kept], before=self.before[kept]
        )

    def _with(self, *others: PanelList) -> PanelList:
        """All panels of several lists, in order."""
        parts = (self, *others)
        owner = np.concatenate([part.owner for part in parts])
        left = np.concatenate([part.left for part in parts])
        width = np.concatenate([part.width for part in parts])
        before = np.concatenate([part.before for part in parts])
        order = np.lexsort((left, owner))
        return replace(self, owner=owner[order], left=left[order], width=width[order], before=before[order])

    def _eighths(self, points: Integers, low: Array, high: Array, *, before: bool) -> PanelList:
        """Eight equal panels between two ends of some points; none where the ends coincide."""
        points = points[high[points] > low[points]]
        width = (high[points] - low[points]) / 8
        left = low[points][:, None] + width[:, None] * np.arange(8)
        return replace(
            self,
            owner=np.repeat(points, 8),
            left=left.ravel(),
            width=np.repeat(width, 8),
            before=np.full(left.size, before),
        )

    def _cut(self, pieces: Integers) -> PanelList:
        """Cut panel k in ``pieces[k]`` equal ones."""
        width = np.repeat(self.width / pieces, pieces)
        number = np.arange(width.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        return replace(
            self,
            owner=np.repeat(self.owner, pieces),
            left=np.repeat(self.left, pieces) + number * width,
            width=width,
            before=np.repeat(self.before, pieces),
        )

    def slopes(self, rows: slice) -> tuple[Array, Array, Array]:
        """Half width (row, 1), Φ′ (row, node) and 𝒟 (row, node or 1) on some panels."""
        nodes, _, _ = gauss_rule()
        half = 0.5 * self.width[rows, None]
        x = self.sign * ((self.left[rows, None] + half) + half * nodes)
        values = [p[self.owner[rows], None] for p in self.parameters]
        diffusion = np.asarray(self.diffusion(x, *values), dtype=np.float64)
        if diffusion.ndim == 0:
            diffusion = np.broadcast_to(diffusion, half.shape)
        with np.errstate(all="ignore"):
            slope = np.broadcast_to(-self.sign * np.asarray(self.drift(x, *values)) / diffusion, x.shape)
        if not ((diffusion > 0).all() and np.isfinite(slope).all()):
            row, column = np.argwhere(~((diffusion > 0) & np.isfinite(slope)))[0]
            raise self._failure(self.owner[rows][row], x[row, column], "is not finite, or 𝒟 not positive,")
        return half, slope, diffusion

    def _failure(self, point: int, where: float, what: str) -> InvalidParameterError:
        names = ", ".join(f"{float(p[point]):.6g}" for p in self.parameters)
        return InvalidParameterError(
            f"Φ' = −b/𝒟 {what} near x = {where:.6g}, at the parameters ({names}): where noise vanishes a process is "
            "absorbed instead of passing.\n"
            "Leave such points out (NaN), keep the path clear of them, or add a floor: 𝒟(x) + temperature."
        )

    def variations(self) -> Array:
        """Total variation of Φ plus that of ln 𝒟 on each panel."""
        _, weights, _ = gauss_rule()
        result = np.empty(self.owner.size)
        for rows in _chunks(self.owner.size):
            half, slope, diffusion = self.slopes(rows)
            result[rows] = half[:, 0] * (np.abs(slope) @ weights) + np.ptp(np.log(diffusion), axis=1)
        return result

    def refined(self) -> PanelList:
        """Cut until Φ and ln 𝒟 vary by at most `_VARIATION` on each panel; only what was cut is looked at again."""
        done: list[PanelList] = []
        todo = self
        for _ in range(60):
            pieces = np.clip(np.ceil(todo.variations() / _VARIATION), 1, 64).astype(np.int64)
            done.append(todo._take(pieces == 1))
            todo = todo._take(pieces > 1)._cut(pieces[pieces > 1])
            if not todo.owner.size:
                return done[0]._with(*done[1:])
            if np.bincount(todo.owner).max() > MAX_PANELS:
                break
        raise self._failure(todo.owner[0], self.sign * todo.left[0], f"varies too fast for {MAX_PANELS} panels")

    def natural_walls(self, ends: Ends) -> tuple[PanelList, NDArray[np.bool_]]:
        """Panels from where the speed density is negligible up to the start, and which points have such a wall."""
        edge, step = ends.start.copy(), (ends.upper - ends.start) / 8
        level, highest, first = np.zeros_like(edge), np.full_like(edge, -np.inf), np.zeros_like(edge)
        confined, active = np.full(edge.size, False), np.arange(edge.size)
        parts: list[PanelList] = []
        for number in range(400):
            edge[active] -= step[active]
            everywhere = np.full(active.size, True)
            part = replace(self, owner=active, left=edge[active], width=step[active], before=everywhere).refined()
            parts.append(part)
            peak, outer, inner, rise = part.log_speed_ends(active)
            highest[active] = np.maximum(highest[active], peak + level[active])
            first[active] = inner if number == 0 else first[active]
            last = outer + level[active]
            level[active] += rise
            over = last < highest[active] - LOG_CUT
            confined[active[over]] = True
            lost = (highest[active] - first[active] > LOG_UNBOUNDED) | (
                ends.start[active] - edge[active] > 1e9 * (ends.upper - ends.start)[active] / 8
            )
            active = active[~over & ~lost]
            if not active.size:
                break
            if number > 20:
                step[active] *= 1.3  # a well much wider than the distance to the target, or none
        everything = self._with(*parts)
        return everything._take(confined[everything.owner]), confined

    def log_speed_ends(self, points: Integers) -> tuple[Array, Array, Array, Array]:
        """Return −Φ − ln 𝒟 of each point, Φ from its right end: highest, at the left and at the right end; −Φ's rise.

        The rise is that of −Φ from right to left.
        """
        _, weights, matrix = gauss_rule()
        half, slope, diffusion = self.slopes(slice(None))
        begin = np.searchsorted(self.owner, points)
        counts = np.diff([*begin, self.owner.size])
        rise = half[:, 0] * (slope @ weights)
        total = np.add.reduceat(rise, begin)
        summed = np.cumsum(rise)
        to_right = np.repeat(total + (summed - rise)[begin], counts) - (summed - rise)
        log_speed = to_right[:, None] - half * (slope @ matrix.T) - np.log(diffusion)
        peak = np.maximum.reduceat(log_speed.max(axis=1), begin)
        return peak, log_speed[begin, 0], log_speed[begin + counts - 1, -1], total

    def integrals(self) -> tuple[Array, Array, Array, Array, Array]:
        """Rise of Φ, scale, speed, and the nested integrals of speed below scale and of scale below speed (panel,)."""
        _, weights, matrix = gauss_rule()
        result = np.empty((5, self.owner.size))
        for rows in _chunks(self.owner.size):
            half, slope, diffusion = self.slopes(rows)
            scale = np.exp(half * (slope @ matrix.T))
            speed = 1.0 / (scale * diffusion)
            h = half[:, 0]
            result[0, rows] = h * (slope @ weights)
            result[1, rows] = h * (scale @ weights)
            result[2, rows] = h * (speed @ weights)
            result[3, rows] = h**2 * ((scale * (speed @ matrix.T)) @ weights)
            result[4, rows] = h**2 * ((speed * (scale @ matrix.T)) @ weights)
        rise, scale, speed, up, down = result
        return rise, scale, speed, up, down


def _chunks(size: int) -> list[slice]:
    return [slice(begin, min(begin + _ROWS, size)) for begin in range(0, size, _ROWS)]


def log_mean_exits(panels: PanelList, points: Integers, ends: Ends) -> tuple[Array, Array]:
    """Logarithms of the mean exit times of the points that have panels, and how far Φ spans (point,)."""
    counts = np.bincount(np.searchsorted(points, panels.owner), minlength=points.size)
    width = int(counts.max(initial=0))
    there = np.arange(width) < counts[:, None]

    def table(values: Array, fill: float) -> Array:
        """One row for each point: sums over panels then never mix points, nor their rounding."""
        result = np.full(there.shape, fill)
        result[there] = values
        return result

    rise, scale, speed, up, down = panels.integrals()
    total = np.cumsum(table(rise, 0.0), axis=1)
    potential = total - table(rise, 0.0)
    before = table(panels.before.astype(float), 0.0) > 0
    after = there & ~before
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scale = table(np.log(scale), -np.inf) + potential
        log_speed = table(np.log(speed), -np.inf) - potential
        up, down = table(np.log(up), -np.inf), table(np.log(down), -np.inf)
        if not ends.absorbing:
            log_mean = _log_sum(np.where(after, np.logaddexp(up, log_scale + _log_below(log_speed)), -np.inf))
        else:
            below, above = _log_below(log_scale), _log_below(log_scale[:, ::-1])[:, ::-1]
            whole = _log_sum(log_scale)
            left = _log_sum(np.where(before, np.logaddexp(down, log_speed + below), -np.inf))
            right = _log_sum(np.where(after, np.logaddexp(up, log_speed + above), -np.inf))
            to_left = _log_sum(np.where(before, log_scale, -np.inf))
            to_right = _log_sum(np.where(after, log_scale, -np.inf))
            log_mean = np.logaddexp(left + to_right, right + to_left) - whole
    return log_mean, np.ptp(total, axis=1) if width else np.zeros(0)


def _log_below(terms: Array) -> Array:
    """Logarithm of the sum of all terms left of each one."""
    sums = np.full(terms.shape, -np.inf)
    sums[:, 1:] = np.logaddexp.accumulate(terms, axis=1)[:, :-1]
    return sums


def _log_sum(terms: Array) -> Array:
    if not terms.size:
        return np.full(terms.shape[0], -np.inf)
    highest = terms.max(axis=1)
    return np.asarray(highest + np.log(np.exp(terms - highest[:, None]).sum(axis=1)))
