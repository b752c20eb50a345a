"""A study of small cells, and processes that run it and may be killed.

One process imports what a run needs, and no torch; each run is a fork of it, so that it begins within milliseconds
and can be killed at any moment of its own work. The cells sleep a little and draw numbers from their seeds. Every start
of a cell is a line of a log beside the directory: what was computed twice, or in vain, can be counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core.exceptions import DivergedError, KramersGrokError, StudyInterrupted
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running import cells, runner, study
from kramers_grok.studies.running.cells import Cell
from kramers_grok.studies.running.executors import Workers, attend_coordinator

__all__ = ["Run", "Server", "Sleepers"]


@dataclass(frozen=True)
class Sleepers:
    """A grid of cells that sleep for some milliseconds."""

    n_cells: int
    seed: int = 0
    milliseconds: float = 10.0
    bad: str = ""  # what the third cell does

    @property
    def kind(self) -> str:
        return "sleepers"

    def declaration(self) -> dict[str, Any]:
        return {"n_cells": self.n_cells, "seed": self.seed, "milliseconds": self.milliseconds, "bad": self.bad}

    def conflicts(self, held: Mapping[str, Any]) -> list[str]:
        same = held.get("seed") == self.seed
        return [] if same else [f"`seed` is {held.get('seed')!r} there, you asked for {self.seed!r}"]

    def cells(self) -> list[Cell]:
        sleep = np.random.default_rng(self.seed).uniform(0.2, 1.8, max(self.n_cells, 1)) * self.milliseconds / 1e3
        configs = [
            {"number": i, "sleep": float(sleep[i]), "bad": self.bad if i == 2 else ""} for i in range(self.n_cells)
        ]
        return [Cell("sleeper", config, work, seed=self.seed) for config in configs]

    def gather(self, store: Store) -> xr.DataTree:
        found = [store.read(cell.name, cell.config) for cell in self.cells() if store.has(cell.name, cell.config)]
        return xr.DataTree.from_dict({f"/{int(ds.number)}": ds for ds in found if isinstance(ds, xr.Dataset)})


def work(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    assert "torch" not in sys.modules
    with open(os.environ["STUB_LOG"], "ab", buffering=0) as log:
        log.write(f"{config['number']}\n".encode())
    generator = np.random.default_rng(seed)
    end = time.perf_counter() + config["sleep"]
    if config["bad"] == "raises":
        raise DivergedError("1 of 8 replicas diverged at step 3", replicas=[5], step=3)
    if config["bad"] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    while (left := end - time.perf_counter()) > 0:
        time.sleep(left)
    return xr.Dataset(
        {"exit_time": ("replica", generator.exponential(size=50), {"units": "time"})},
        coords={"number": config["number"]},
        attrs={"status": "diverged" if config["bad"] == "diverges" else "finished", "seed": str(seed), "flag": True},
    )


def executor(kind: str) -> Executor | None:
    """Return the executor "serial", "fork 2" (a pool of forked processes), "workers 2", or "orphans 2".

    The last are forked processes that do not see their coordinator die.
    """
    name, _, count = kind.partition(" ")
    if name == "serial":
        return None
    if name == "workers":
        return Workers(int(count))
    if name == "orphans":
        setattr(cells, "attend_coordinator", lambda: None)  # noqa: B010  the name that cells use
        return ProcessPoolExecutor(int(count), mp_context=get_context("fork"))
    # The initializer for a worker that is left behind before its first cell: it would wait for one for ever.
    return ProcessPoolExecutor(int(count), mp_context=get_context("fork"), initializer=attend_coordinator)


# ---------------------------------------------------------------- in the process that may be killed


def run(declaration: study.Study, out: str, kind: str, dies_at: int, fails_from: int, errno: int) -> str:
    """Run a study and say how it ended.

    At its `dies_at`-th call that changes a disk this process is killed; from the `fails_from`-th on they all fail.
    """
    if dies_at or fails_from:
        _count_calls(dies_at, fails_from, errno)
    chosen = executor(kind)
    with chosen if chosen is not None else contextlib.nullcontext():
        result = runner.run_study(declaration, out, executor=chosen, checkpoint_every=0.05)
    assert ("torch" in sys.modules) == (declaration.kind == "escape")
    messages = "".join(f"\n{outcome.message}" for outcome in result.failed)
    return f"{result.statuses} before={result.n_before}{messages}"


_CALLS = ("open", "write", "fsync", "close", "link", "replace", "unlink", "mkdir")


def _count_calls(dies_at: int, fails_from: int, errno: int) -> None:
    """Kill this process in place of a call to the system, or let calls fail; one to write writes half of it first."""
    made = 0

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            bad = made == dies_at or (0 < fails_from <= made and name not in ("close", "unlink"))
            if bad and name == "write":
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
            if made == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if bad:
                raise OSError(errno, os.strerror(errno))
            return call(*args, **kwargs)

        return wrapper

    for name in _CALLS:
        setattr(os, name, counted(name, getattr(os, name)))


def serve(*, real: bool = False) -> None:
    """Fork a run for each line of the standard input and print its process; say how it ended in a file.

    Parameters
    ----------
    real : bool
        Whether it is to run studies of networks: then it has all of torch and scipy.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
    study.register("sleepers", lambda declaration: Sleepers(**declaration))
    if real:
        _prepare_real()
    else:
        _prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _child(order)


def _prepare() -> None:
    """Import what is imported late, once for all runs."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["STUB_LOG"] = f"{place}/log"
        warm = Sleepers(n_cells=1, milliseconds=0.0)
        runner.run_study(warm, f"{place}/out")
        warm.gather(Store.opened(f"{place}/out"))


def _prepare_real() -> None:
    """Import what real cells need; checkpoints that are read are lines of the log."""
    import kramers_grok.studies.escape.cells  # noqa: F401
    from kramers_grok.studies.files import checkpoints

    load = checkpoints.FileCheckpoint.load

    def told(self: checkpoints.FileCheckpoint, name: str) -> xr.Dataset | None:
        found = load(self, name)
        if found is not None:
            with open(os.environ["STUB_LOG"], "a") as log:
                print(self.path.name, name, file=log)
        return found

    setattr(checkpoints.FileCheckpoint, "load", told)  # noqa: B010  not a method of its own
    setattr(checkpoints, "SHARE", 1.0)  # noqa: B010  save as often as asked


def _child(order: dict[str, Any]) -> None:
    """Do what was ordered, in a process of its own group, and end it."""
    os.environ["STUB_LOG"], said_to = order.pop("log"), order.pop("said")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # a worker that outlives the test must not hold its pipes
        os.dup2(nowhere, descriptor)
    try:
        said = run(study.declared(order.pop("study")), **order)
    except StudyInterrupted as stop:
        said = f"interrupted: {stop}"
    except KramersGrokError as error:
        said = f"{type(error).__name__}: {error}"
    except BaseException:
        said = traceback.format_exc()
    with open(f"{said_to}.part", "w") as file:
        file.write(said)
    os.rename(f"{said_to}.part", said_to)
    os._exit(0)


# ---------------------------------------------------------------- in the test


class Run:
    """A run that was started."""

    def __init__(self, pid: int, said: Path) -> None:
        self.pid = pid
        self._said = said

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float = 120.0) -> bool:
        """Wait until the process has ended, or for so long; return whether it has."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.004)
        return True

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal, alone or with its workers, as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def workers(self) -> list[int]:
        """Return its child processes that compute."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
        return [child for child, line in lines.items() if b"resource_tracker" not in line]

    def kill(self, *, group: bool = False) -> bool:
        """Kill it as `kill -9` does, alone or with its workers, and return whether it was alive."""
        try:
            (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.wait()
        return not self._said.exists()

    @property
    def said(self) -> str:
        """How it ended, empty if it was killed."""
        return self._said.read_text() if self._said.exists() else ""


class Server:
    """Starts runs."""

    def __init__(self, directory: Path, *, real: bool = False) -> None:
        self._directory = directory
        self._runs: list[Run] = []
        here = str(Path(__file__).parent)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import stub; stub.serve({real=})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(
        self,
        study: study.Study,
        out: Path,
        *,
        kind: str = "serial",
        dies_at: int = 0,
        fails_from: int = 0,
        errno: int = 0,
    ) -> Run:
        """Start a run in a process of its own."""
        said = self._directory / f"said-{len(self._runs)}"
        how = {"kind": kind, "dies_at": dies_at, "fails_from": fails_from, "errno": errno}
        order = {
            "study": {"kind": study.kind, **study.declaration()},
            "out": str(out),
            "log": f"{out}.log",
            "said": str(said),
        } | how
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._runs.append(Run(int(self._answer()), said))
        return self._runs[-1]

    def close(self) -> None:
        """End the server, and what a failed test has left running."""
        for run in self._runs:
            if run.alive:
                run.kill(group=True)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()
