"""One thread for one cell, everywhere: workers do not fight for cores, and sums are added up in one order."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

__all__ = ["environment", "one_thread", "single_threaded"]

# Read by the libraries when they are loaded, which may be inside the first cell.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def one_thread() -> None:
    """Keep a worker process to one thread for good: one worker is one core."""
    import torch

    torch.set_num_threads(1)


class _Limits:
    """Threads of this process, limited while at least one cell runs in it: executors may have several threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.undo = contextlib.ExitStack()
        self.controller: Any = None
        self.loaded = 0

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.undo.enter_context(environment())
                self.undo.enter_context(_torch())
                self.undo.enter_context(self._libraries())

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.undo.close()

    def _libraries(self) -> Any:
        """The BLAS and OpenMP limit; libraries are looked for again only where modules were loaded since."""
        if self.controller is None or self.loaded != len(sys.modules):
            self.controller = import_module("threadpoolctl").ThreadpoolController()
            self.loaded = len(sys.modules)
        return self.controller.limit(limits=1)


_limits = _Limits()


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Limit BLAS, OpenMP and torch to one thread while the block runs; afterwards all is as it was.

    Reductions split over threads add up in another order: with one thread everywhere, a cell's result is the same
    to the bit in this process, in a pool and on a cluster. A torch that is first loaded inside the block stays at one
    thread.
    """
    _limits.enter()
    try:
        yield
    finally:
        _limits.leave()


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Tell libraries that are loaded inside the block, here or in processes it starts, to use one thread."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    """The limit of torch, where it is loaded: a study's bookkeeping does not need it."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
