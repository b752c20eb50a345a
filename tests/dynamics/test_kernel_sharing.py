"""Compiled kernels in other processes and threads: read from the disk, without Python's lock, the same to the bit.

All with the mode's kernel, which other tests compile too.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import event
from numpy.typing import NDArray

import kramers_grok as kg
from kramers_grok.dynamics.process import Watch
from kramers_grok.studies.running.cells import one_thread

SEEDS = (1, 2, 3)
MODE = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)


def process(n_threads: int = 1) -> kg.Langevin:
    integrator = kg.Fused(n_threads=n_threads)
    return kg.Langevin(MODE, temperature=MODE.barrier().height / 2, dt=0.1, device="cpu", integrator=integrator)


def advance(seed: int, n_replicas: int = 1500, n_steps: int = 400) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions and hits of a watched run."""
    langevin = process()
    watch = Watch(kg.beyond(MODE.barrier()), bridge=True)
    state, record = langevin.advance(langevin.start(n_replicas, seed=seed), n_steps, watch)
    return state.theta.numpy(), record.hit_step.numpy()


def advance_counting(seed: int) -> tuple[tuple[NDArray[Any], NDArray[Any]], int, int]:
    """The same, and how many functions numba compiled meanwhile in this process; and afterwards, for a new one."""
    with event.install_recorder("numba:compile") as during:
        result = advance(seed)
    with event.install_recorder("numba:compile") as after:
        numba.njit(lambda x: x + 1)(1)
    return result, len(during.buffer), len(after.buffer)


@pytest.fixture(scope="module")
def alone() -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """One after the other, in this process."""
    results = [advance(seed) for seed in SEEDS]
    assert all(0 < (hit >= 0).sum() < hit.size for _, hit in results)
    return results


def same(results: list[Any], expected: list[Any]) -> None:
    for (theta, hit), (expected_theta, expected_hit) in zip(results, expected, strict=True):
        np.testing.assert_array_equal(theta, expected_theta)
        np.testing.assert_array_equal(hit, expected_hit)


def test_another_process_compiles_nothing(alone: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        found = list(pool.map(advance_counting, SEEDS))
    same([result for result, _, _ in found], alone)
    assert [compiled for _, compiled, _ in found] == [0, 0, 0]
    assert all(control > 0 for _, _, control in found)


def test_threads_share_a_kernel(alone: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        same(list(pool.map(advance, SEEDS)), alone)


@pytest.fixture(params=["threaded scheduler", "distributed in threads"])
def dask_map(request: pytest.FixtureRequest) -> Iterator[Callable[..., list[Any]]]:
    """Run a function over arguments in dask's threads."""
    if request.param == "threaded scheduler":
        dask = pytest.importorskip("dask")
        yield lambda function, items: list(dask.compute(*map(dask.delayed(function), items), scheduler="threads"))
        return
    distributed = pytest.importorskip("distributed")
    state = random.getstate()  # its waits draw from Python's own generator, which no result here comes from
    with (
        distributed.LocalCluster(1, processes=False, threads_per_worker=2, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor: Executor = client.get_executor(pure=False)
        yield lambda function, items: list(executor.map(function, items))
    random.setstate(state)


def test_dask_workers_share_a_kernel(
    alone: list[tuple[NDArray[Any], NDArray[Any]]], dask_map: Callable[..., list[Any]]
) -> None:
    same(dask_map(advance, SEEDS), alone)


def ticks_during(work: Callable[[], object]) -> int:
    """How often this thread gets to run, at most once a millisecond, while another one works."""
    thread = threading.Thread(target=work)
    thread.start()
    ticks = 0
    while thread.is_alive():
        time.sleep(1e-3)
        ticks += thread.is_alive()
    thread.join()
    return ticks


def test_the_lock_is_released(alone: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    langevin = process()
    state = langevin.start(20_000, seed=5)
    assert ticks_during(lambda: langevin.advance(state, 4000)) > 10  # some 80 million steps in one call
    # Negative control: one call of Python's own that holds the lock as long
    assert ticks_during(lambda: sum(range(10_000_000))) <= 3
