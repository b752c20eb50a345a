"""Running a study: what is computed, kept, tried again, said and stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from threadpoolctl import threadpool_info

from kramers_grok.core.exceptions import (
    DamagedFileWarning,
    InvalidParameterError,
    StudyConflictError,
    StudyInterrupted,
    StudyLockedError,
    WorkerDiedError,
)
from kramers_grok.studies.files import atomic
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running import study
from kramers_grok.studies.running.cells import Cell, Outcome
from kramers_grok.studies.running.executors import NotStarted, Workers
from kramers_grok.studies.running.interrupts import STOP
from kramers_grok.studies.running.runner import Plan, RunResult, run_study, status


def draw(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Some random numbers, or what the configuration asks for."""
    match config.get("does"):
        case "fail":
            raise RuntimeError("out of luck")
        case "diverge":
            return xr.Dataset(attrs={"status": "diverged", "status_message": "it left the numbers"})
        case "interrupt":
            signal.raise_signal(signal.SIGINT)
        case "interrupt twice":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        case "die":
            os._exit(1)
        case "die once":
            flag = Path(config["flag"])
            if not flag.exists():
                flag.touch()
                os._exit(1)
    rng = np.random.default_rng(seed)
    times = rng.exponential(size=20)
    values = np.linalg.eigvalsh(np.cov(rng.normal(size=(120, 300))))  # sums that depend on their order
    threads = {int(library["num_threads"]) for library in threadpool_info()}
    return xr.Dataset(
        {"exit_time": ("replica", times), "escaped": ("replica", times < 1), "values": ("value", values)}
        | {"replica_steps": 500.0, "most_threads": max(threads)}
    )


@dataclass(frozen=True)
class Draws:
    """A study of stub cells."""

    xs: tuple[int, ...]
    special: tuple[tuple[int, str], ...] = ()
    seed: int = 7
    flag: str = ""

    @property
    def kind(self) -> str:
        return "draws"

    def declaration(self) -> dict[str, Any]:
        return {
            "xs": list(self.xs),
            "special": [list(s) for s in self.special],
            "seed": self.seed,
            "flag": self.flag,
            "title": "Some draws",
        }

    @classmethod
    def from_declaration(cls, held: Mapping[str, Any]) -> Draws:
        return cls(tuple(held["xs"]), tuple((x, does) for x, does in held["special"]), held["seed"], held["flag"])

    def conflicts(self, held: Mapping[str, Any]) -> list[str]:
        return [] if held["seed"] == self.seed else [f"`seed` is {held['seed']} there"]

    def cells(self) -> list[Cell]:
        does = dict(self.special)
        configs = [{"x": x} | ({"does": does[x], "flag": self.flag} if x in does else {}) for x in self.xs]
        return [Cell("draw", config, draw, cost=config["x"], seed=self.seed) for config in configs]

    def gather(self, store: Store) -> xr.DataTree:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def known_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(study._KINDS, "draws", Draws.from_declaration)


class Heard:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.outcomes: list[Outcome] = []
        self.notes: list[str] = []
        self.results: list[RunResult] = []

    def begin(self, plan: Plan) -> None:
        self.plans.append(plan)

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        assert outcome.key.startswith(cell.name)
        self.outcomes.append(outcome)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self, result: RunResult) -> None:
        self.results.append(result)


def contents(directory: Path) -> dict[str, tuple[float, ...]]:
    """The numbers of all finished cells."""
    found = {}
    for path in sorted((directory / "cells").glob("*.nc")):
        with xr.open_dataset(path, engine="h5netcdf") as data:
            found[path.stem] = (*data.exit_time.values, *data["values"].values) if "exit_time" in data else ()
    return found


def test_everything_is_computed_once_and_kept(tmp_path: Path) -> None:
    heard = Heard()
    first = run_study(Draws((1, 2, 3, 2)), tmp_path, listener=heard)
    assert (first.n_cells, first.n_before, first.n_finished, first.statuses) == (3, 0, 3, {"finished": 3})
    assert len(heard.plans[0].cells) == 4  # of which two have the same content
    assert [outcome.status for outcome in heard.outcomes] == ["finished"] * 3
    assert all(outcome.n_escaped + outcome.n_censored == 20 for outcome in heard.outcomes)
    assert heard.results == [first]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    again = run_study(Draws((1, 2, 3)), tmp_path)
    assert (again.n_before, again.outcomes, again.statuses) == (3, (), {"finished": 3})
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == before


def test_a_changed_declaration_adds_cells_and_a_conflicting_one_is_refused(tmp_path: Path) -> None:
    run_study(Draws((1, 2)), tmp_path)
    kept = contents(tmp_path)
    more = run_study(Draws((2, 3, 4)), tmp_path)
    assert (more.n_before, len(more.outcomes)) == (1, 2)
    assert kept.items() <= contents(tmp_path).items()
    found = status(tmp_path)
    assert (found.n_cells, found.n_finished, found.n_other, found.complete) == (3, 3, 1, True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StudyConflictError, match="`seed` is 7 there"):
        run_study(Draws((2,), seed=8), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("threads", [0, 2])
def test_failing_and_diverging_cells_do_not_stop_the_others(tmp_path: Path, threads: int) -> None:
    executor = ThreadPoolExecutor(threads) if threads else None
    asked = Draws((1, 2, 3, 4), ((2, "fail"), (3, "diverge")))
    result = run_study(asked, tmp_path, executor=executor)
    assert result.statuses == {"finished": 2, "diverged": 1, "failed": 1}
    assert (result.n_finished, result.n_without_answer) == (3, 1)
    (failed,) = result.failed
    assert failed.message.startswith("RuntimeError: out of luck (test_runner.py, line ")
    found = status(tmp_path)
    assert (found.n_finished, found.n_failed, found.complete) == (3, 1, False)
    assert found.statuses == {"finished": 2, "diverged": 1}
    again = run_study(asked, tmp_path)  # the failed one is tried again, and only it
    assert (again.n_before, [outcome.status for outcome in again.outcomes]) == (3, ["failed"])
    assert again.n_without_answer == 1


def test_status_needs_no_cell_file_and_no_journal(tmp_path: Path) -> None:
    run_study(Draws((1, 2, 3), ((2, "diverge"),)), tmp_path)
    full = status(tmp_path)
    assert full.title == "Some draws"
    assert full.n_escaped + full.n_censored == 40
    assert full.replica_steps == 1000
    assert full.running is None
    json.dumps(full.as_mapping())
    for path in (tmp_path / "cells").iterdir():
        path.write_bytes(b"")
    assert status(tmp_path) == full
    (tmp_path / "journal.jsonl").write_text('{"event": "finished", "name": 3, "key": []}\n[]\n{"event": "draw", "na')
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('me"}\n{"event": "finished", "name": "draw", "key": "draw-0", "n_escaped": NaN, "pid": 1e999}\n')
    lost = status(tmp_path)
    assert (lost.n_cells, lost.n_finished, lost.statuses, lost.n_escaped) == (3, 3, {"finished": 3}, 0)


def test_status_of_a_kind_that_is_not_known_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_study(Draws((1, 2)), tmp_path)
    monkeypatch.delitem(study._KINDS, "draws")
    found = status(tmp_path)
    assert (found.kind, found.n_cells, found.n_finished, found.complete) == ("draws", None, 2, False)
    with pytest.raises(InvalidParameterError, match="`kind` = 'draws', expected one of 'escape', 'reproduce'"):
        study.study_from("draws", {})


def test_a_lost_journal_is_written_again(tmp_path: Path) -> None:
    asked = Draws((1, 2, 3), ((2, "diverge"),))
    run_study(asked, tmp_path)
    full = status(tmp_path)
    (tmp_path / "journal.jsonl").unlink()
    assert run_study(asked, tmp_path).statuses == {"finished": 2, "diverged": 1}
    found = status(tmp_path)
    assert (found.statuses, found.n_escaped, found.replica_steps) == (full.statuses, full.n_escaped, full.replica_steps)


def test_a_damaged_file_is_said_and_computed_again(tmp_path: Path) -> None:
    run_study(Draws((1, 2)), tmp_path)
    before = contents(tmp_path)
    path = tmp_path / "cells" / f"{next(iter(before))}.nc"
    for listener in (Heard(), None):
        path.write_bytes(path.read_bytes()[:-100])
        if listener is None:
            with pytest.warns(DamagedFileWarning, match="is damaged"):
                result = run_study(Draws((1, 2)), tmp_path)
        else:
            result = run_study(Draws((1, 2)), tmp_path, listener=listener)
            assert "is damaged" in listener.notes[0]
        assert (result.n_before, len(result.outcomes)) == (1, 1)
        assert contents(tmp_path) == before
    assert status(tmp_path).n_damaged == 2


def test_a_disk_that_is_full_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is computed in vain, what was finished is kept, and the same call goes on when there is room."""
    run_study(Draws((1, 2, 3, 9)), tmp_path)
    lost = sorted((tmp_path / "cells").iterdir())[:3]
    before = contents(tmp_path)
    for path in lost:
        path.unlink()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "write", full)
        heard = Heard()
        result = run_study(Draws((1, 2, 3, 9)), tmp_path, listener=heard)
    assert result.n_finished == 1
    (failed,) = result.failed
    assert "No space left on device" in failed.message
    assert failed.key in failed.message
    assert "no further cells are started" in heard.notes[-1]
    assert run_study(Draws((1, 2, 3, 9)), tmp_path).n_finished == 4
    assert contents(tmp_path) == before


def test_one_run_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path, Draws((1,)).declaration(), name="draws")
    with store.lock():
        assert status(tmp_path).running is not None
        with pytest.raises(StudyLockedError, match=str(os.getpid())):
            run_study(Draws((1,)), tmp_path)
    assert run_study(Draws((1,)), tmp_path).n_finished == 1


# ---------------------------------------------------------------- stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_said_and_resumed(tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.getsignal(number)
    monkeypatch.setattr(signal, "SIGINT", number)  # what the cell raises
    asked, heard = Draws((1, 2, 3, 4), ((3, "interrupt"),)), Heard()
    with pytest.raises(StudyInterrupted, match=r"3 of 4 cells are finished .*\nThe same command goes on"):
        run_study(asked, tmp_path, listener=heard)  # the cheapest first, then 4, then 3
    assert heard.results[0].interrupted
    assert "Once more" in heard.notes[0]
    assert signal.getsignal(number) is handler
    assert (tmp_path / STOP).exists()
    done = run_study(replace(asked, special=((3, ""),)), tmp_path)
    assert done.n_finished == 4
    assert not (tmp_path / STOP).exists()


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(Draws((1, 2, 3), ((2, "interrupt twice"),)), tmp_path)
    assert run_study(Draws((1, 3)), tmp_path).n_finished == 2  # the lock is free


def test_the_last_cell_is_finished_although_a_stop_was_asked_for(tmp_path: Path) -> None:
    """There is nothing to resume then, so it is a run like any other."""
    result = run_study(Draws((1,), ((1, "interrupt"),)), tmp_path)
    assert (result.n_finished, result.interrupted) == (1, False)


class StopsItself(Heard):
    """Makes the stop file by hand, as from another machine, when the first cell is done."""

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        super().cell(cell, outcome)
        (self.plans[0].directory / STOP).touch()


@pytest.mark.parametrize("threads", [0, 2])
def test_a_stop_from_elsewhere(tmp_path: Path, threads: int) -> None:
    executor = ThreadPoolExecutor(threads) if threads else None
    heard = StopsItself()
    with pytest.raises(StudyInterrupted):
        run_study(Draws(tuple(range(1, 30))), tmp_path, executor=executor, listener=heard)
    assert "asks to stop" in heard.notes[0]
    assert 1 <= heard.results[0].n_finished < 29
    assert run_study(Draws(tuple(range(1, 30))), tmp_path, executor=executor).n_finished == 29


# ---------------------------------------------------------------- workers


def make_threads() -> Executor:
    return ThreadPoolExecutor(2)


@pytest.mark.parametrize("make", [make_threads, partial(Workers, 1), partial(Workers, 2)])
def test_results_do_not_depend_on_the_executor(tmp_path: Path, make: Callable[[], Executor]) -> None:
    asked = Draws(tuple(range(8)))
    run_study(asked, tmp_path / "serial")
    with make() as executor:
        result = run_study(asked, tmp_path / "other", executor=executor)
    assert result.statuses == {"finished": 8}
    assert contents(tmp_path / "other") == contents(tmp_path / "serial")
    for path in (tmp_path / "other" / "cells").iterdir():
        with xr.open_dataset(path, engine="h5netcdf") as data:
            assert int(data.most_threads) == 1


def test_workers_that_die_are_replaced_and_their_cells_tried_again(tmp_path: Path) -> None:
    xs = (1, 2, 3, 4, 5)
    asked = Draws(xs, ((3, "die once"), (4, "die")), flag=str(tmp_path / "flag"))
    heard = Heard()
    with Workers(2) as executor:
        result = run_study(asked, tmp_path / "study", executor=executor, listener=heard)
    assert result.statuses == {"finished": 4, "failed": 1}
    (failed,) = result.failed
    assert failed.error == "WorkerDiedError"
    assert "its worker process died 3 times" in failed.message
    assert sum("is replaced, the cell is tried again" in note for note in heard.notes) == 3
    plain = run_study(Draws((1, 2, 5)), tmp_path / "plain")
    assert plain.n_finished == 3
    assert contents(tmp_path / "plain").items() <= contents(tmp_path / "study").items()


def test_a_pool_that_cannot_replace_workers(tmp_path: Path) -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(WorkerDiedError, match=r"executor is broken.*\nUse `Workers\(n\)`"),
    ):
        run_study(Draws((1, 2, 3), ((1, "die"),)), tmp_path, executor=pool)
    assert run_study(Draws((1, 2, 3)), tmp_path).n_finished == 3


class Unable(Executor):
    """Its workers die before they begin."""

    renews = True

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(NotStarted("gone"))
        return future


class Strange(Executor):
    """Loses calls in its own ways."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(self.error)
        return future


def test_workers_that_never_begin(tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError, match=r"ended before they began.*\n.*__main__"):
        run_study(Draws((1, 2, 3)), tmp_path, executor=Unable())


def test_what_executors_may_do_to_a_cell(tmp_path: Path) -> None:
    lost = run_study(Draws((1,)), tmp_path, executor=Strange(BrokenExecutor("gone")))
    assert lost.failed[0].error == "WorkerDiedError"
    unpicklable = run_study(Draws((1,)), tmp_path, executor=Strange(TypeError("cannot pickle")))
    assert unpicklable.failed[0].message == "TypeError: cannot pickle"
    interrupted = run_study(Draws((1,)), tmp_path, executor=Strange(KeyboardInterrupt()))
    assert interrupted.statuses == {"interrupted": 1}


WITHOUT_TORCH = """
    import sys
    from kramers_grok.studies.running import cells, executors, interrupts, runner, status, study, threads
    from kramers_grok.cli import app
    from kramers_grok.studies.escape.study import EscapeStudy
    asked = EscapeStudy(system={"weight_decay": 0.25}, noise={"temperature": 0.01}, engines=["langevin"])
    assert asked.cells()
    print("torch" in sys.modules)
"""


def test_bookkeeping_needs_no_torch() -> None:
    script = "\n".join(line.strip() for line in WITHOUT_TORCH.splitlines())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_ten_thousand_cells_start_soon(tmp_path: Path) -> None:
    """Generous: what is measured stands in the benchmarks."""
    began = time.monotonic()
    with pytest.raises(StudyInterrupted):
        run_study(Draws(tuple(range(10_000))), tmp_path, listener=StopsItself())
    assert status(tmp_path).n_cells == 10_000
    assert time.monotonic() - began < 30
