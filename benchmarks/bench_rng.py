"""Time one normal from each generator, on one thread: ``python benchmarks/bench_rng.py [replicas]``.

Prints the median over interleaved runs, so that a change of the clock or of a neighbour's load meets all alike, in
nanoseconds per float64 normal and as a ratio to the compiled counter-based generator.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from kramers_grok.core import rng  # noqa: E402
from kramers_grok.core.compiled import njit  # noqa: E402
from kramers_grok.core.rng import Purpose  # noqa: E402
from kramers_grok.dynamics import torch_noise  # noqa: E402

ROUNDS, REPEATS, STEPS = 41, 3, 12

Array = np.ndarray[Any, Any]
Case = tuple[str, Callable[[], object], int]


@njit
def walk(cache: Array, total: Array, low: Any, high: Any, streams: Array, steps: int, n: int) -> None:
    """Use the normals of many steps as a kernel does: no call from Python, no copy."""
    for step in range(steps):
        row = rng.refresh_normals(cache, low, high, 0, streams, step, n, step == 0)
        for j in range(n):
            for i in range(streams.shape[0]):
                total[j, i] += cache[row + j, i]


def kernel_case(n: int, replicas: int) -> Case:
    """Return `walk` over STEPS steps of n normals."""
    cache, total = rng.new_cache(n, replicas), np.zeros((n, replicas))
    streams, (low, high) = np.arange(replicas, dtype=np.uint32), rng.split_seed(1)

    def call() -> None:
        walk(cache, total, low, high, streams, STEPS, n)

    return f"compiled, in a kernel that adds them up, n = {n}", call, STEPS * n * replicas


def cases(replicas: int) -> list[Case]:
    """Return label, call and normals per call; the first is the reference."""
    quad, streams = np.empty((4, replicas)), np.arange(replicas, dtype=np.uint32)
    words = np.empty((4, replicas), dtype=np.uint32)
    low, high = rng.split_seed(1)
    tensor, lanes = torch.empty(4 * replicas, dtype=torch.float64), torch.arange(replicas)
    numpy_generator, torch_generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    purpose = np.uint32(Purpose.LANGEVIN)
    return [
        ("compiled quads", lambda: rng.fill_normal_quads(quad, low, high, purpose, streams, 3, 0), 4 * replicas),
        ("  of which Threefry", lambda: rng.fill_word_quads(words, low, high, purpose, streams, 3, 0), 4 * replicas),
        *(kernel_case(n, replicas) for n in (1, 2, 3, 4)),
        ("torch_noise.normals on the CPU, n = 4", lambda: torch_noise.normals(1, 0, lanes, 3, 4), 4 * replicas),
        ("torch.Tensor.normal_", lambda: tensor.normal_(generator=torch_generator), 4 * replicas),
        ("numpy Generator.standard_normal", lambda: numpy_generator.standard_normal(4 * replicas), 4 * replicas),
    ]


def main() -> None:
    """Measure and print the table."""
    torch.set_num_threads(1)
    replicas = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    table = cases(replicas)
    times: list[list[float]] = [[] for _ in table]
    for _, call, _ in table:
        call()
    for _ in range(ROUNDS):
        for (_, call, count), record in zip(table, times, strict=True):
            begin = time.perf_counter()
            for _ in range(REPEATS):
                call()
            record.append((time.perf_counter() - begin) / (REPEATS * count) * 1e9)
    reference = float(np.median(times[0]))
    print(f"{replicas} replicas, one thread, medians of {ROUNDS} interleaved runs")
    print(f"{'':48s} {'ns/normal':>10s} {'best':>8s} {'ratio':>7s}")
    for (label, _, _), record in zip(table, times, strict=True):
        median = float(np.median(record))
        print(f"{label:48s} {median:10.2f} {min(record):8.2f} {median / reference:7.2f}")


if __name__ == "__main__":
    main()
