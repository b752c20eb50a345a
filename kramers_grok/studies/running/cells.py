"""Independent cells of a study: what one is, in which order they run, and what a worker does with one.

Only what describes a cell travels to a worker, and only a line about its result comes back: the data go into the
cell's file where they are made.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.core.exceptions import StudyInterrupted
from kramers_grok.studies.files.store import Store, cell_seed
from kramers_grok.studies.running.executors import attend_coordinator
from kramers_grok.studies.running.interrupts import STOP
from kramers_grok.studies.running.threads import one_thread, single_threaded

if TYPE_CHECKING:
    from kramers_grok.studies.files.checkpoints import FileCheckpoint

__all__ = ["Cell", "Outcome", "compute", "execute", "in_order", "one_thread", "outcome_of"]

# What became of a cell. Cells that end without an answer are finished all the same: their file says why.
FINISHED = "finished"
WITHOUT_ANSWER = ("diverged", "no barrier", "too few escapes")
STORED = (FINISHED, *WITHOUT_ANSWER)
FAILED = "failed"  # an unexpected error: nothing is stored, the next run tries again
NOT_STARTED = "not started"  # why it was interrupted, where nothing was done at all
INTERRUPTED = "interrupted"  # stopped on request: the next run goes on from its checkpoint


@dataclass(frozen=True)
class Cell:
    """One computation of a study.

    Attributes
    ----------
    name : str
        Kind of cell, part of its file's name.
    config : mapping
        Everything the result depends on besides `seed`; its content names the file and makes the cell's own seed.
    function : callable
        ``function(config, seed=...)`` returns the result as a Dataset; defined at the top of a module, so that another
        process can call it. A point of the grid without an answer is a result too: its attribute ``status`` is
        "diverged", "no barrier" or "too few escapes" instead of "finished", ``status_message`` says why.
    cost : float
        Rough relative work: the largest cells start first, and the time left is judged by it.
    resumable : bool
        Whether the function is called ``function(config, seed=..., checkpoint=...)`` and keeps its progress there.
    seed : int
        Root seed that `cell_seed` makes the cell's own of.
    """

    name: str
    config: Mapping[str, Any]
    function: Callable[..., xr.Dataset]
    cost: float = 1.0
    resumable: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of one cell: a line of the journal.

    Attributes
    ----------
    name, key : str
        Kind of the cell, and the name of its file without the ending.
    status : str
        "finished"; "diverged", "no barrier" or "too few escapes" (stored, without an answer); "failed" (an unexpected
        error, nothing stored); "interrupted" (stopped on request).
    message : str
        Why, where it is not "finished".
    error : str
        Type of the unexpected error.
    n_escaped, n_censored : int
        Replicas, where the cell has any.
    replica_steps : float
        Steps simulated, all replicas together.
    seconds : float
        Wall-clock time of the cell.
    host, pid : str, int
        Where it was computed.
    """

    name: str
    key: str
    status: str = FINISHED
    message: str = ""
    error: str = ""
    n_escaped: int = 0
    n_censored: int = 0
    replica_steps: float = 0.0
    seconds: float = 0.0
    host: str = ""
    pid: int = 0

    @property
    def stored(self) -> bool:
        """Whether the cell has a file now."""
        return self.status in STORED

    def as_mapping(self) -> dict[str, Any]:
        """Return the fields that say something, for the journal."""
        return {name: value for name, value in asdict(self).items() if value not in ("", 0)}


def outcome_of(name: str, key: str, result: xr.Dataset) -> Outcome:
    """Sum a cell's result up.

    Examples
    --------
    >>> result = xr.Dataset({"escaped": ("replica", [True, True, False])})
    >>> found = outcome_of("sgd", "sgd-0", result)
    >>> found.status, found.n_escaped, found.n_censored
    ('finished', 2, 1)
    """
    escaped = result.get("escaped")
    n_escaped = n_censored = 0
    if escaped is not None:
        n_escaped = int(escaped.sum())
        n_censored = int(escaped.size) - n_escaped
    elif "n_escaped" in result:
        n_escaped = int(result["n_escaped"].sum())
    steps = float(np.nansum(result["replica_steps"])) if "replica_steps" in result else 0.0
    status = str(result.attrs.get("status", FINISHED))
    message = str(result.attrs.get("status_message", "")) if status != FINISHED else ""
    seconds = float(result.attrs.get("seconds", 0.0))
    host = str(result.attrs.get("host", ""))
    return Outcome(
        name,
        key,
        status=status,
        message=message,
        n_escaped=n_escaped,
        n_censored=n_censored,
        replica_steps=steps,
        seconds=seconds,
        host=host,
    )


def in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells in the order to start them: the cheapest of each kind, then the largest ones.

    The first of a kind compiles what its kind needs; others find it on disk, and two workers that start with
    different kinds do not compile the same twice. The largest of the rest come next, so that none is left alone
    at the end.
    """
    first = {cell.name: cell for cell in sorted(cells, key=lambda cell: -cell.cost)}
    rest = [cell for cell in cells if first[cell.name] is not cell]
    return [*first.values(), *sorted(rest, key=lambda cell: -cell.cost)]


def compute(store: Store, cell: Cell, checkpoint_every: float, ticket: object = None) -> Outcome:
    """Compute a cell and store it, in whatever process this is; return a line about it.

    Errors come back as text: an exception that cannot be pickled would take a process pool down. The ticket tells two
    tries apart, for executors that remember what they were asked.
    """
    began = time.perf_counter()
    where: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    key = store.path(cell.name, cell.config).stem
    attend_coordinator()
    if (store.directory / STOP).exists():
        return Outcome(cell.name, key, INTERRUPTED, NOT_STARTED, **where)
    try:
        with single_threaded():
            result = _call(store, cell, checkpoint_every)
        result = result.assign_attrs(host=where["host"], seconds=round(time.perf_counter() - began, 6))
        store.write(cell.name, cell.config, result)
        _forget_progress(store, cell)
        return replace(outcome_of(cell.name, key, result), seconds=time.perf_counter() - began, **where)
    except StudyInterrupted as stop:
        status, message, error = INTERRUPTED, str(stop), ""
    except Exception as failure:
        status, message, error = FAILED, _explained(failure), type(failure).__name__
    return Outcome(cell.name, key, status, message, error, seconds=time.perf_counter() - began, **where)


def _call(store: Store, cell: Cell, checkpoint_every: float) -> xr.Dataset:
    """Call the cell's function with its seed, and with its checkpoint where it keeps one."""
    own = cell_seed(cell.seed, {"name": cell.name, **cell.config})
    if not cell.resumable:
        return cell.function(cell.config, seed=own)
    return cell.function(cell.config, seed=own, checkpoint=_checkpoint(store, cell, checkpoint_every))


def _checkpoint(store: Store, cell: Cell, every: float) -> FileCheckpoint:
    from kramers_grok.studies.files.checkpoints import FileCheckpoint

    return FileCheckpoint(store.checkpoint_path(cell.name, cell.config), every=every, stop_file=store.directory / STOP)


def _forget_progress(store: Store, cell: Cell) -> None:
    """Remove the checkpoint of a cell that is finished."""
    if cell.resumable:
        _checkpoint(store, cell, 1.0).clear()


def _explained(error: Exception) -> str:
    """The message, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def execute(
    store: Store,
    cells: Sequence[Cell],
    *,
    seed: int,
    executor: Executor | None = None,
    finished: Callable[[Cell], None] | None = None,
) -> list[xr.Dataset]:
    """Compute the cells that are not finished yet and return all results, in the order of `cells`.

    A study's own way is `kramers_grok.studies.running.runner.run_study`; this is the short one, for scripts: the first
    error is raised, nothing is retried, and everything is read back.

    Parameters
    ----------
    seed : int
        Root seed of every cell, whatever the cell's own says.
    executor : Executor, optional
        Any of `concurrent.futures`' executors, or ``dask.distributed.Client.get_executor()``; this process if None.
    finished : callable, optional
        Called with each cell when it is done.
    """
    results: dict[int, xr.Dataset] = {}

    def done(cell: Cell, result: xr.Dataset) -> None:
        results[id(cell)] = result
        if finished is not None:
            finished(cell)

    if executor is None:
        for cell in in_order(cells):
            done(cell, _stored(store, cell, seed))
    else:
        futures = {executor.submit(_stored, store, cell, seed): cell for cell in in_order(cells)}
        try:
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    return [results[id(cell)] for cell in cells]


def _stored(store: Store, cell: Cell, seed: int) -> xr.Dataset:
    """Compute and store a cell, or read it if it is finished."""
    own = cell_seed(seed, {"name": cell.name, **cell.config})
    result = store.cell(cell.name, cell.config, lambda: cell.function(cell.config, seed=own))
    assert isinstance(result, xr.Dataset)
    return result
