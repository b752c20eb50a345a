"""Compiled work on parts of a batch, side by side."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["parts_of", "side_by_side"]

# Parts for each thread: a core that others use too gets fewer of them, and nobody waits for it.
PARTS_PER_THREAD = 8


def parts_of(replicas: int, n_threads: int, block: int, least: int = 1) -> list[slice]:
    """Cut replicas into parts of whole blocks, several for each thread where there are enough.

    Parameters
    ----------
    replicas, n_threads : int
    block : int
        Replicas that compiled code takes together.
    least : int
        Smallest unit that a block may be cut into, so that a small batch still occupies all threads.

    Examples
    --------
    >>> [part.stop - part.start for part in parts_of(3000, 2, 1024)]
    [750, 750, 750, 750]
    >>> [part.stop - part.start for part in parts_of(1000, 2, 1024, 16)]
    [512, 488]
    """
    if n_threads == 1:
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
    with ThreadPoolExecutor(min(n_threads, len(parts))) as pool:
        list(pool.map(work, parts))
