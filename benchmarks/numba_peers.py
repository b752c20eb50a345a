"""Compiled loops as one writes them with numba: a generator of numba's or numpy's own, a thread for each core."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.arenas import DECAY, ROOT, STEP, Arena
from benchmarks.ours import as_steps

Array = NDArray[np.float64]

BLOCK = 512  # replicas whose state and noise stay in the fastest cache

njit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True)


@njit
def _mode_loop(hit: Any, steps: int, seed: int, amplitude: float, threshold: float) -> None:
    np.random.seed(seed)  # noqa: NPY002 - numba keeps a generator of its own for each thread
    for i in range(hit.size):
        x = 0.0
        for step in range(1, steps + 1):
            a = x / ROOT
            x += amplitude * np.random.normal() - STEP * (DECAY * x - ROOT * (1 - a * a * a) * a * a)  # noqa: NPY002
            a = x / ROOT
            if a * a * a >= threshold:
                hit[i] = step
                break


@njit
def _chain_loop(hit: Any, steps: int, seed: int, amplitude: float, threshold: float) -> None:
    np.random.seed(seed)  # noqa: NPY002
    for i in range(hit.size):
        a, b, c = 0.0, 0.0, 0.0
        for step in range(1, steps + 1):
            r = 1 - a * b * c
            da, db, dc = DECAY * a - r * b * c, DECAY * b - r * a * c, DECAY * c - r * a * b
            a += amplitude * np.random.normal() - STEP * da  # noqa: NPY002
            b += amplitude * np.random.normal() - STEP * db  # noqa: NPY002
            c += amplitude * np.random.normal() - STEP * dc  # noqa: NPY002
            if a * b * c >= threshold:
                hit[i] = step
                break


@njit
def _mode_blocks(hit: Any, steps: int, generator: Any, amplitude: float, threshold: float) -> None:
    for begin in range(0, hit.size, BLOCK):
        mine = hit[begin : begin + BLOCK]
        x, left = np.zeros(mine.size), mine.size
        for step in range(1, steps + 1):
            xi = generator.standard_normal(mine.size)
            crossed = 0
            for i in range(mine.size):
                a = x[i] / ROOT
                x[i] += amplitude * xi[i] - STEP * (DECAY * x[i] - ROOT * (1 - a * a * a) * a * a)
                a = x[i] / ROOT
                crossed += a * a * a >= threshold
            if crossed:
                for i in range(mine.size):
                    a = x[i] / ROOT
                    if mine[i] < 0 and a * a * a >= threshold:
                        mine[i] = step
                        left -= 1
                if left == 0:
                    break


@njit
def _chain_blocks(hit: Any, steps: int, generator: Any, amplitude: float, threshold: float) -> None:
    for begin in range(0, hit.size, BLOCK):
        mine = hit[begin : begin + BLOCK]
        n, left = mine.size, mine.size
        a, b, c = np.zeros(n), np.zeros(n), np.zeros(n)
        for step in range(1, steps + 1):
            xi = generator.standard_normal(3 * n)
            crossed = 0
            for i in range(n):
                u, v, w = a[i], b[i], c[i]
                r = 1 - u * v * w
                a[i] = u + amplitude * xi[i] - STEP * (DECAY * u - r * v * w)
                b[i] = v + amplitude * xi[n + i] - STEP * (DECAY * v - r * u * w)
                c[i] = w + amplitude * xi[2 * n + i] - STEP * (DECAY * w - r * u * v)
                crossed += a[i] * b[i] * c[i] >= threshold
            if crossed:
                for i in range(n):
                    if mine[i] < 0 and a[i] * b[i] * c[i] >= threshold:
                        mine[i] = step
                        left -= 1
                if left == 0:
                    break


class Loop:
    """Replica by replica, ``np.random.normal`` at every step."""

    loops = {"mode": _mode_loop, "chain": _chain_loop}  # noqa: RUF012

    def __init__(self, arena: Arena, threads: int) -> None:
        self.arena, self.threads = arena, threads
        self.loop = self.loops[arena.name]

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Step of each replica's first hit."""
        hit = np.full(replicas, -1, dtype=np.int64)
        parts = [part for part in np.array_split(hit, self.threads) if part.size]
        # 32 bits: what numba's generator takes as a seed.
        keys = np.random.SeedSequence(seed).generate_state(len(parts))
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda part, key: self._run(part, steps, int(key)), parts, keys))
        return as_steps(hit)

    def _run(self, part: Any, steps: int, key: int) -> None:
        self.loop(part, steps, key, self.arena.amplitude, self.arena.target.threshold)


class Blocks(Loop):
    """Blocks of replicas side by side, normals from a numpy Generator: what a careful user arrives at."""

    loops = {"mode": _mode_blocks, "chain": _chain_blocks}  # noqa: RUF012

    def _run(self, part: Any, steps: int, key: int) -> None:
        generator = np.random.Generator(np.random.SFC64(key))
        self.loop(part, steps, generator, self.arena.amplitude, self.arena.target.threshold)
