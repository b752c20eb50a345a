"""Where cells run: this process, worker processes that may die, or a dask cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from multiprocessing import connection, get_context, parent_process
from typing import Any

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.studies.running.threads import environment

GRACE = 25.0  # seconds after SIGTERM; SLURM waits 30 before it kills

__all__ = ["Dask", "InProcess", "NotStarted", "Workers", "cores", "make_executor", "shield"]


class InProcess(Executor):
    """Runs what is submitted at once, in this process."""

    in_flight = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function and return its outcome; an interrupt is not an outcome and goes through."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class NotStarted(BrokenExecutor):
    """A worker process ended before it could take its first call."""


class _Slot:
    """One worker process, and another one when it has died."""

    def __init__(self, leash: connection.Connection) -> None:
        self.leash = leash
        self.busy = False
        self.pool: ProcessPoolExecutor | None = None
        self.ready: Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Future[Any]:
        """Run a call in the process, which is started if there is none."""
        if self.pool is None:
            self._start()
        try:
            return self._submit(fn, args, kwargs)
        except BrokenExecutor:  # it died idle
            self.end()
            self._start()
            return self._submit(fn, args, kwargs)

    def _submit(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Future[Any]:
        assert self.pool is not None
        return self.pool.submit(fn, *args, **kwargs)

    def _start(self) -> None:
        # Spawned, not forked: torch and numba have threads by now.
        self.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(self.leash,))
        with environment(), _without_interrupts():
            self.ready = self.pool.submit(os.getpid)  # starts the process

    @property
    def was_ready(self) -> bool:
        """Whether the process came so far as to take a call."""
        return self.ready is not None and self.ready.done() and self.ready.exception() is None

    def end(self, *, wait: bool = False) -> None:
        """Let the process end, and forget it."""
        if self.pool is not None:
            self.pool.shutdown(wait=wait)
            self.pool = None


class Workers(Executor):
    """Worker processes of which each may die without the others losing their work.

    `concurrent.futures.ProcessPoolExecutor` gives all its cells up when one process dies, and does not say whose it
    was. Here each worker is such a pool of its own: a death is the exception (``BrokenProcessPool``) of one call, and
    the next call finds a new process. Workers leave Ctrl-C to the process that started them, and end when it does,
    however it ended.

    Parameters
    ----------
    n_workers : int

    Examples
    --------
    >>> with Workers(1) as executor:
    ...     executor.submit(abs, -3).result()
    3
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = checks.positive_int("n_workers", n_workers)
        self.renews = True  # what died is replaced: a cell may be tried again
        self.in_flight = 2 * self.n_workers  # one ahead for each, so that none waits for the next
        # Nothing is ever sent: workers see it close, when this process ends or wants them to.
        worker_end, self._hold = get_context("spawn").Pipe(duplex=False)
        self._slots = [_Slot(worker_end) for _ in range(self.n_workers)]
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], Any, Any]] = deque()
        self._lock = threading.RLock()
        self._open: set[Future[Any]] = set()
        self._closed = self._killed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call on the next free worker."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("these workers were shut down")
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            self._waiting.append((future, fn, args, kwargs))
            self._deal()
        return future

    def _deal(self) -> None:
        """Give waiting calls to free workers."""
        for slot in self._slots:
            while self._waiting and not slot.busy:
                future, fn, args, kwargs = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                slot.busy = True
                inner = slot.submit(fn, args, kwargs)
                inner.add_done_callback(partial(self._done, slot, future))

    def _done(self, slot: _Slot, future: Future[Any], inner: Future[Any]) -> None:
        """Free the worker, or replace it, and pass on what it gave."""
        error = inner.exception()
        with self._lock:
            slot.busy = False
            if isinstance(error, BrokenExecutor):
                if not slot.was_ready:
                    error = NotStarted("the worker process ended before its first call")
                slot.end()
            if not self._killed:
                self._deal()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(inner.result())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers when they have done what they are at, and what waits for them unless it is cancelled."""
        with self._lock:
            self._closed = True
            while cancel_futures and self._waiting:
                self._waiting.popleft()[0].cancel()
            unfinished = list(self._open)
        if wait:
            futures.wait(unfinished)
        for slot in self._slots:
            if wait or cancel_futures or not unfinished:
                slot.end(wait=wait)

    def kill(self) -> None:
        """End the workers at once, whatever they are at."""
        with self._lock:
            self._closed = self._killed = True
        self._hold.close()
        self.shutdown(wait=False, cancel_futures=True)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        if kind is not None:
            self.kill()
        else:
            self.shutdown()
            self._hold.close()
        return None


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started in this block, from their first moment: they inherit what is blocked.

    This thread hears of it when the block is over.
    """
    if not hasattr(signal, "pthread_sigmask"):  # not on this system
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(leash: connection.Connection) -> None:
    """Prepare a worker process."""
    attend_coordinator()
    signal.signal(signal.SIGTERM, _end_later)
    threading.Thread(target=_end_with, args=(leash,), daemon=True).start()


def _end_later(*_: object) -> None:
    """Give the cell in flight time to reach a checkpoint: batch systems send SIGTERM to all processes of a job."""
    timer = threading.Timer(GRACE, os._exit, (1,))
    timer.daemon = True
    timer.start()


_attended = False


def attend_coordinator() -> None:
    """Make a worker process leave Ctrl-C to its parent, and end when its parent does; in any other process do nothing.

    A terminal sends Ctrl-C to all processes of its group, and the coordinator decides what it means. Workers of
    `concurrent.futures` would otherwise outlive a coordinator that was killed.
    """
    global _attended
    parent = parent_process()
    if parent is None or _attended or threading.current_thread() is not threading.main_thread():
        return
    _attended = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(other: connection.Connection | int) -> None:
    """Wait until the other end is gone, and end: nobody wants this worker's results any more.

    Its cell's file is either complete or has no name yet.
    """
    connection.wait([other])
    os._exit(1)


class Dask(Executor):
    """A dask cluster as an executor, by its client.

    Parameters
    ----------
    client : distributed.Client
        One worker with one thread for each core (or GPU) is what cells expect.
    """

    # Enough for an adaptive cluster to see that there is work; the scheduler holds the rest of nothing.
    in_flight = 256

    def __init__(self, client: Any, *, close: bool = False) -> None:
        self.client = client
        self._close = close
        # Cells write files: they are no pure functions whose result might be remembered.
        self._executor = client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call on the cluster."""
        future: Future[Any] = self._executor.submit(fn, *args, **kwargs)
        return future

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        self.shutdown(cancel_futures=kind is not None)
        return None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of the cluster; it stays up."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        if self._close:
            self.client.close()


def shield(executor: Executor) -> None:
    """Make the workers of a dask `LocalCluster` leave Ctrl-C to this process, whose terminal they share.

    They would end at it, and the cells in flight with them. Workers elsewhere do not hear of it.
    """
    client = getattr(executor, "client", None) or getattr(executor, "_client", None)
    if type(getattr(client, "cluster", None)).__name__ == "LocalCluster":
        client.run(_ignore_interrupts)  # type: ignore[union-attr]


def _ignore_interrupts() -> None:
    # In a process of its own, whose main thread this is; a cluster of threads shares the coordinator's handler.
    if parent_process() is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_executor(*, workers: int = 1, scheduler: str | None = None) -> Executor:
    """Return the executor for a number of workers, or for a dask scheduler.

    Parameters
    ----------
    workers : int
        1 is this process, 0 one worker for each core that this process may use.
    scheduler : str, optional
        Address of a dask scheduler (``tcp://host:8786``), or its scheduler file (``….json``).

    Raises
    ------
    InvalidParameterError
        For a number of workers below 0, and where dask is not installed or its scheduler does not answer.
    """
    count = checks.positive_int("workers", workers, minimum=0) or cores()
    if scheduler is not None:
        return _cluster(scheduler)
    return InProcess() if count == 1 else Workers(count)


def cores() -> int:
    """Return the number of cores this process may use: a batch system gives a job fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _cluster(scheduler: str) -> Dask:
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise InvalidParameterError(
            "`scheduler` needs dask, which is not installed.\nInstall it: `pip install 'kramers-grok[distributed]'`."
        ) from None
    try:
        where = {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
        client = distributed.Client(**where, timeout=20)
    except (OSError, ValueError) as error:
        raise InvalidParameterError(
            f"`scheduler` = {scheduler!r} does not answer ({error}), expected the address of a running dask scheduler: "
            "cells are sent there.\nStart one (`dask scheduler`, then `dask worker ADDRESS --nthreads 1`), or use "
            "`--workers N`."
        ) from None
    return Dask(client, close=True)
