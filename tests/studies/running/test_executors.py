"""Executors: the same results from all of them, workers that die, workers whose coordinator dies."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import xarray as xr
from threadpoolctl import threadpool_info

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running.executors import Dask, InProcess, Workers, cores, make_executor
from kramers_grok.studies.running.runner import run_study
from kramers_grok.studies.running.threads import environment, single_threaded

ABOUT_THE_RUN = ("host", "seconds", "started")


def test_in_process_runs_at_once_and_keeps_errors() -> None:
    executor = InProcess()
    assert executor.submit(abs, -3).result() == 3
    assert isinstance(executor.submit(int, "x").exception(), ValueError)


def test_a_worker_that_dies_loses_its_own_call_only() -> None:
    with Workers(2) as executor:
        first = executor.submit(os.getpid).result()
        slow = executor.submit(time.sleep, 1.0)
        lost = executor.submit(os._exit, 1)
        assert isinstance(lost.exception(), BrokenExecutor)
        after = executor.submit(os.getpid).result()  # a new process has taken its place
        assert slow.exception() is None
        assert {first, after} == {first, after} - {os.getpid()}
        for _ in range(4):  # each worker has loaded numpy by then
            executor.submit(np.dot, 2, 3).result()
        assert {library["num_threads"] for library in executor.submit(threadpool_info).result()} == {1}


def test_what_was_submitted_is_done_before_the_end() -> None:
    with Workers(1) as executor:
        calls = [executor.submit(abs, -number) for number in range(5)]
    assert [call.result(timeout=0) for call in calls] == list(range(5))
    late = Workers(1)
    running, waiting = late.submit(time.sleep, 0.2), late.submit(abs, -1)
    late.shutdown(wait=False)
    assert (running.result(), waiting.result()) == (None, 1)
    dropped = Workers(1)
    running, waiting = dropped.submit(time.sleep, 0.2), dropped.submit(abs, -1)
    dropped.shutdown(cancel_futures=True)
    assert running.done()
    assert waiting.cancelled()


def test_workers_leave_signals_to_their_coordinator() -> None:
    """The first moments of a worker as well: nobody's Ctrl-C ends it."""
    with Workers(1) as executor:
        starting = executor.submit(os.getpid)
        for child in psutil.Process().children():
            child.send_signal(signal.SIGINT)
        pid = starting.result()
        slow = executor.submit(time.sleep, 1.0)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert slow.exception() is None
        assert executor.submit(os.getpid).result() == pid


def test_workers_that_are_killed_end_at_once() -> None:
    executor = Workers(1)
    pid = executor.submit(os.getpid).result()
    executor.submit(time.sleep, 600)
    waiting = executor.submit(time.sleep, 600)
    executor.kill()
    assert waiting.cancelled()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
    assert not psutil.pid_exists(pid)
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(abs, 1)


ORPHAN = """
    import os, sys, time
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from kramers_grok.studies.running.executors import Workers, attend_coordinator

    def attended():
        attend_coordinator()  # as every cell does
        return os.getpid()

    if __name__ == "__main__":
        plain = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        workers = Workers(1)
        print(workers.submit(os.getpid).result(), plain.submit(attended).result(), flush=True)
        workers.submit(time.sleep, 600)
        plain.submit(time.sleep, 600)
        time.sleep(600)
"""


def test_workers_end_with_a_coordinator_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "coordinator.py"
    script.write_text(textwrap.dedent(ORPHAN))
    coordinator = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert coordinator.stdout is not None
    workers = [psutil.Process(int(word)) for word in coordinator.stdout.readline().split()]
    assert len(workers) == 2
    coordinator.kill()
    coordinator.wait()
    coordinator.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_threads_are_limited_inside_and_restored() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with single_threaded():
            assert torch.get_num_threads() == 1
            assert {library["num_threads"] for library in threadpool_info()} == {1}
            with single_threaded():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1  # the outer block still runs
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMEXPR_NUM_THREADS", raising=False)
    with environment():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMEXPR_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "NUMEXPR_NUM_THREADS" not in os.environ


def test_executors_by_number_of_workers() -> None:
    assert isinstance(make_executor(workers=1), InProcess)
    with make_executor(workers=2) as executor:
        assert isinstance(executor, Workers)
        assert executor.n_workers == 2
    with pytest.raises(InvalidParameterError, match="`workers` = -1"):
        make_executor(workers=-1)
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")

    def client(*_: object, **__: object) -> None:
        raise OSError("Timed out trying to connect")

    monkeypatch.setattr(distributed, "Client", client)
    with pytest.raises(InvalidParameterError, match="does not answer"):
        make_executor(scheduler="tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InvalidParameterError, match=r"pip install 'kramers-grok\[distributed\]'"):
        make_executor(scheduler="tcp://127.0.0.1:9")


# ---------------------------------------------------------------- the same to the bit

STUDY = EscapeStudy(
    system={"kind": "mode", "depth": 3, "weight_decay": 0.25},
    noise={"barrier_over_temperature": 2.0},
    sgd={"lr": 0.1, "batch_size": 32},
    run={"replicas": 48, "horizon": 3.0},
    seed=3,
)


def results(directory: Path, executor: Executor) -> dict[str, xr.Dataset]:
    """Every cell's data set, without what is said about the run that made it."""
    done = run_study(STUDY, directory, executor=executor)
    assert not done.failed, done.failed
    store = Store.opened(directory)
    found = {}
    for cell in STUDY.cells():
        data = store.read(cell.name, cell.config)
        assert isinstance(data, xr.Dataset)
        assert {"host", "seconds"} <= set(data.attrs)
        for name in ABOUT_THE_RUN:
            data.attrs.pop(name, None)
        found[store.path(cell.name, cell.config).name] = data
    return found


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, xr.Dataset]:
    return results(tmp_path_factory.mktemp("serial"), InProcess())


@contextmanager
def two_workers() -> Iterator[Executor]:
    with Workers(2) as executor:
        yield executor


@contextmanager
def dask_cluster() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed")
    state = random.getstate()  # dask draws from the global generator for its own ends
    try:
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
            make_executor(scheduler=cluster.scheduler_address) as executor,
        ):
            assert isinstance(executor, Dask)
            assert executor.submit(abs, -3).result() == 3
            yield client.get_executor()
    finally:
        random.setstate(state)


@pytest.mark.slow
@pytest.mark.parametrize("made", [two_workers, dask_cluster])
def test_the_same_to_the_bit(
    tmp_path: Path, serial: dict[str, xr.Dataset], made: Callable[[], AbstractContextManager[Executor]]
) -> None:
    """Data, coordinates and attributes of every cell, theory's and both engines', are equal whoever computes them."""
    with made() as executor:
        found = results(tmp_path, executor)
    assert found.keys() == serial.keys()
    for name, data in serial.items():
        xr.testing.assert_identical(found[name], data)
        assert all(found[name][variable].dtype == data[variable].dtype for variable in data.variables)
