"""Compiled work on parts of a batch, side by side."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

__all__ = ["parts_of", "side_by_side"]

# Parts for each thread: a core that others use too gets fewer of them, and nobody waits for it.
PARTS_PER_THREAD = 8

# Weights times steps below which waking another thread takes longer than the work, about a millisecond's.
LEAST_WORK = 2**18


def parts_of(replicas: int, n_threads: int, block: int, least: int = 1, *, work: int) -> list[slice]:
    """Cut replicas into parts of whole blocks, several for each thread where there are enough.

    Parameters
    ----------
    replicas, n_threads : int
    block : int
        Replicas that compiled code takes together.
    least : int
        Smallest unit that a block may be cut into, so that a small batch still occupies all threads.
    work : int
        Weights times steps of all replicas; little of it stays in one part.

    Examples
    --------
    >>> [part.stop - part.start for part in parts_of(3000, 2, 1024, work=10**7)]
    [750, 750, 750, 750]
    >>> [part.stop - part.start for part in parts_of(1000, 2, 1024, 16, work=10**7)]
    [512, 488]
    """
    if n_threads == 1 or work < LEAST_WORK:
        return [slice(0, replicas)]
    rounds = min(PARTS_PER_THREAD, -(-replicas // (block * n_threads)))
    unit = block if replicas > block * n_threads * rounds else least
    size = -(-replicas // (n_threads * max(1, rounds) * unit)) * unit
    return [slice(begin, min(begin + size, replicas)) for begin in range(0, replicas, max(1, size))]


def side_by_side(work: Callable[[slice], None], parts: list[slice], n_threads: int) -> None:
    """Do the work on every part, on as many threads; `work` has to release the GIL."""
    if len(parts) <= 1:
        for part in parts:
            work(part)
        return
    list(_pool(n_threads, os.getpid()).map(work, parts))


@lru_cache(maxsize=8)
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's and makes its own."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="kramers_grok")
