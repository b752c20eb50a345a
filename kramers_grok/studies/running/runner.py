"""Running a study: what is not finished yet goes to an executor, and nothing that happens there is lost.

One process coordinates. It holds the directory's lock, hands cells out, hears what became of each and keeps a journal;
the workers write the cells' files. Killing any of them at any time loses the cells in flight at most.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import xarray as xr

from kramers_grok.core import checks
from kramers_grok.core.exceptions import DamagedFileWarning, StudyInterrupted, StudyWriteError, WorkerDiedError
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running.cells import (
    FAILED,
    INTERRUPTED,
    NOT_STARTED,
    WITHOUT_ANSWER,
    Cell,
    Outcome,
    compute,
    in_order,
    outcome_of,
)
from kramers_grok.studies.running.executors import InProcess, NotStarted, shield
from kramers_grok.studies.running.interrupts import Interrupts
from kramers_grok.studies.running.status import Status, outcomes_of, status
from kramers_grok.studies.running.study import Study

__all__ = ["Listener", "Plan", "RunResult", "Status", "run_study", "status"]

MOST_DEATHS = 3  # of workers at one cell: then it is the cell that kills them
_POLL = 0.5  # seconds between two looks at the stop file


@dataclass(frozen=True)
class Plan:
    """What a run is about to do.

    Attributes
    ----------
    directory : pathlib.Path
    cells : tuple of Cell
        All of the study's, in its order.
    keys : tuple of str
        Their files' names; cells of the same content share one.
    before : mapping of str to Outcome
        What is finished already, by file name.
    """

    directory: Path
    cells: tuple[Cell, ...]
    keys: tuple[str, ...]
    before: dict[str, Outcome]


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes
    ----------
    directory : pathlib.Path
    n_cells : int
        Cells of the study, each content once.
    n_before : int
        Those that were finished before the run.
    outcomes : tuple of Outcome
        What became of the others, in the order in which they ended.
    statuses : mapping of str to int
        How many of all cells are "finished", "diverged", "no barrier", "too few escapes", "failed", "interrupted".
    interrupted : bool
        Whether it was asked to stop.
    """

    directory: Path
    n_cells: int
    n_before: int
    outcomes: tuple[Outcome, ...]
    statuses: dict[str, int]
    interrupted: bool = False

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Cells that ended with an unexpected error."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == FAILED)

    @property
    def n_finished(self) -> int:
        """Cells with a file, with an answer or without."""
        return self.n_before + sum(outcome.stored for outcome in self.outcomes)

    @property
    def n_without_answer(self) -> int:
        """Finished cells that diverged, have no barrier, or saw too few escapes."""
        return sum(self.statuses.get(status, 0) for status in WITHOUT_ANSWER)


class Listener(Protocol):
    """Hears of a run's progress."""

    def begin(self, plan: Plan) -> None:
        """The run starts."""
        ...

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """A cell ended, one way or another."""
        ...

    def note(self, text: str) -> None:
        """Something that a person should know: a damaged file, a worker that died, a stop."""
        ...

    def end(self, result: RunResult) -> None:
        """The run is over."""
        ...


class Silence:
    """Hears and says nothing."""

    def begin(self, plan: Plan) -> None:
        """Say nothing."""

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def end(self, result: RunResult) -> None:
        """Say nothing."""


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    listener: Listener | None = None,
    checkpoint_every: float = 60.0,
) -> RunResult:
    """Compute the cells of a study that are not finished, into a directory.

    The same call resumes a run that was killed or interrupted. Results do not depend on the executor, nor on how often
    the run was interrupted.

    Parameters
    ----------
    study : Study
    out : path
    executor : Executor, optional
        `Workers`, `Dask`, or any other of `concurrent.futures`' executors; this process if None.
    listener : Listener, optional
    checkpoint_every : float    [seconds]
        How often long cells keep their progress.

    Returns
    -------
    RunResult
        Cells that fail unexpectedly do not stop the others; they are listed there.

    Raises
    ------
    StudyConflictError
        If the directory holds another study; nothing is written.
    StudyLockedError
        If another run works on the directory; nothing is written.
    StudyInterrupted
        At Ctrl-C, SIGTERM, or when a file ``.stop`` appears in the directory: after the cells in flight have reached
        their next checkpoint, or their end. A second Ctrl-C is a KeyboardInterrupt at once.
    WorkerDiedError
        If worker processes keep dying before they finish anything.
    """
    every = checks.positive("checkpoint_every", checkpoint_every)
    cells = tuple(study.cells())
    store = Store(Path(out).absolute(), study.declaration(), name=study.kind, conflicts=study.conflicts)
    if executor is not None:
        shield(executor)
    with store.lock():
        coordinator = _Coordinator(store, cells, executor or InProcess(), listener, every)
        return coordinator.run()


class _Coordinator:
    """One run."""

    def __init__(
        self, store: Store, cells: Sequence[Cell], executor: Executor, listener: Listener | None, every: float
    ) -> None:
        self.store = store
        self.executor = executor
        self.listener = listener or Silence()
        self.every = every
        self.journal = store.journal
        self.deaths: Counter[str] = Counter()
        self.false_starts = 0
        self.tries, self.began = 0, time.time_ns()
        self.outcomes: list[Outcome] = []
        self.flying: dict[Future[Outcome], tuple[str, Cell]] = {}
        keys = tuple(store.path(cell.name, cell.config).stem for cell in cells)
        by_key = {key: cell for key, cell in zip(reversed(keys), reversed(cells), strict=True)}
        self.plan = Plan(
            store.directory, tuple(cells), keys, found(store, by_key, None if listener is None else listener.note)
        )
        key_of = {id(cell): key for key, cell in by_key.items() if key not in self.plan.before}
        todo = [cell for cell in cells if id(cell) in key_of]
        self.queue = deque((key_of[id(cell)], cell) for cell in in_order(todo))

    def run(self) -> RunResult:
        """Hand the cells out and hear of them until none is left, or a stop is asked for."""
        self.journal.append("run", n_cells=len(set(self.plan.keys)), n_finished=len(self.plan.before))
        self.listener.begin(self.plan)
        with Interrupts(self.store.directory, self.listener.note) as self.interrupts:
            while self.flying or (self.queue and not self.interrupts.stopping):
                self._hand_out()
                done, _ = wait(self.flying, timeout=_POLL, return_when=FIRST_COMPLETED)
                self.interrupts.look()
                for future in done:
                    self._settle(future, *self.flying.pop(future))
            unfinished = len(self.queue) + sum(outcome.status == INTERRUPTED for outcome in self.outcomes)
        result = self._result(interrupted=self.interrupts.stopping and unfinished > 0)
        self.journal.append("end", **result.statuses)
        self.listener.end(result)
        if result.interrupted:
            raise StudyInterrupted(
                f"Stopped as asked: {result.n_finished} of {result.n_cells} cells are finished in {result.directory}.\n"
                "The same command goes on from there."
            )
        return result

    def _hand_out(self) -> None:
        """Give the executor as many cells as it wants at a time."""
        while self.queue and not self.interrupts.stopping and len(self.flying) < in_flight(self.executor):
            key, cell = self.queue.popleft()
            try:
                # Executors may remember what a call gave (dask does), and this one has an effect: no two are the same.
                self.tries += 1
                future = self.executor.submit(compute, self.store, cell, self.every, (self.began, self.tries))
            except BrokenExecutor as error:
                raise _gave_up("Its executor is broken", "Use `Workers(n)`, which replaces workers that die") from error
            self.flying[future] = (key, cell)

    def _settle(self, future: Future[Outcome], key: str, cell: Cell) -> None:
        """Hear what became of a cell."""
        outcome = self._outcome(future, key, cell)
        if outcome is None:
            self.queue.appendleft((key, cell))
            return
        self.false_starts = 0
        self.outcomes.append(outcome)
        self.journal.append(outcome.status, **outcome.as_mapping())
        self.listener.cell(cell, outcome)
        if outcome.error == StudyWriteError.__name__ and not self.interrupts.stopping:
            # Every other cell would be computed in vain.
            self.listener.note("nothing can be written: no further cells are started.")
            self.queue.clear()

    def _outcome(self, future: Future[Outcome], key: str, cell: Cell) -> Outcome | None:
        """Return what became of a cell; None if it should be tried again."""
        if future.cancelled():
            return Outcome(cell.name, key, INTERRUPTED, "cancelled")
        error = future.exception()
        if error is None:
            outcome = future.result()
            return None if outcome.message == NOT_STARTED else outcome
        if isinstance(error, NotStarted):
            self._false_start(error)
            return None
        if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
            return self._death(error, key, cell)
        if isinstance(error, KeyboardInterrupt):  # sent to a worker that does not know better
            return Outcome(cell.name, key, INTERRUPTED, "its worker was interrupted")
        return Outcome(cell.name, key, FAILED, f"{type(error).__name__}: {error}", type(error).__name__)

    def _false_start(self, error: BaseException) -> None:
        """Give up if processes die before they are workers: no cell is to blame, and none would be computed."""
        self.false_starts += 1
        if self.false_starts >= MOST_DEATHS:
            raise _gave_up(
                f"{self.false_starts} worker processes in a row ended before they began",
                'A script that starts workers needs its `if __name__ == "__main__":`; memory may be short as well',
            ) from error

    def _death(self, error: BaseException, key: str, cell: Cell) -> Outcome | None:
        """Try a cell again whose worker died, but not for ever."""
        self.deaths[key] += 1
        times = self.deaths[key]
        self.journal.append("worker died", cell=key, times=times)
        if getattr(self.executor, "renews", False) and times < MOST_DEATHS:
            self.listener.note(f"a worker died while it computed {key}: it is replaced, the cell is tried again.")
            return None
        again_and_again = type(error).__name__ == "KilledWorker"  # dask has tried elsewhere
        how_often = "again and again" if again_and_again else f"{times} times" if times > 1 else "while it was at it"
        return Outcome(
            cell.name,
            key,
            FAILED,
            f"WorkerDiedError: its worker process died {how_often} ({type(error).__name__}), which is mostly what the "
            "system does where memory is short.\nFewer workers, or fewer replicas, need less of it.",
            WorkerDiedError.__name__,
        )

    def _result(self, *, interrupted: bool) -> RunResult:
        every = [*self.plan.before.values(), *self.outcomes]
        return RunResult(
            directory=self.store.directory,
            n_cells=len(set(self.plan.keys)),
            n_before=len(self.plan.before),
            outcomes=tuple(self.outcomes),
            statuses=dict(Counter(outcome.status for outcome in every)),
            interrupted=interrupted,
        )


def in_flight(executor: Executor) -> int:
    """Cells that an executor has at a time: enough that no worker waits, few enough that the rest costs nothing."""
    known = getattr(executor, "in_flight", None)
    if known is not None:
        return int(known)
    return 2 * int(getattr(executor, "_max_workers", 128))


def found(store: Store, by_key: Mapping[str, Cell], note: Callable[[str], None] | None) -> dict[str, Outcome]:
    """Return what is finished already, from files that are sound; of others it is said that they were put aside."""
    there = store.finished_stems()
    known = outcomes_of(store.journal)
    before: dict[str, Outcome] = {}
    for key, cell in by_key.items():
        if key not in there:
            continue
        if _is_sound(store, cell, note):
            before[key] = known[key] if key in known and known[key].stored else _read(store, key, cell)
    return before


def _is_sound(store: Store, cell: Cell, note: Callable[[str], None] | None) -> bool:
    """Check a finished cell's file; that it was damaged goes to the listener, or out as a warning if there is none."""
    if note is None:
        return store.check(cell.name, cell.config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamagedFileWarning)
        sound = store.check(cell.name, cell.config)
    for warning in caught:
        note(str(warning.message))
    return sound


def _read(store: Store, key: str, cell: Cell) -> Outcome:
    """Write down again what the journal has lost."""
    result = store.read(cell.name, cell.config)
    assert isinstance(result, xr.Dataset)
    outcome = outcome_of(cell.name, key, result)
    store.journal.append(outcome.status, **outcome.as_mapping())
    return outcome


def _gave_up(what: str, fix: str) -> WorkerDiedError:
    return WorkerDiedError(f"{what}, so nothing can be computed; finished cells are kept.\n{fix}.")
