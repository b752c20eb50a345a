"""Cells on executors: order, results, failures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import StudyInterrupted
from kramers_grok.studies.files.store import Store, cell_seed
from kramers_grok.studies.running.cells import Cell, Outcome, compute, execute, outcome_of
from kramers_grok.studies.running.interrupts import STOP


def square(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    return xr.Dataset({"y": config["x"] ** 2, "seed": str(seed)})


def fail(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    raise RuntimeError("out of luck")


def store(path: Path) -> Store:
    return Store(path, {"seed": 5}, name="cells")


CELLS = [Cell("a", {"x": x}, square, cost=x) for x in (1, 3, 2)] + [Cell("b", {"x": x}, square) for x in (7, 8)]


@pytest.mark.parametrize("threads", [0, 2])
def test_results_in_order_with_seeds_from_content(tmp_path: Path, threads: int) -> None:
    executor: Executor | None = ThreadPoolExecutor(threads) if threads else None
    results = execute(store(tmp_path), CELLS, seed=5, executor=executor)
    assert [int(r.y) for r in results] == [1, 9, 4, 49, 64]
    assert str(results[0].seed.values) == str(cell_seed(5, {"name": "a", "x": 1}))
    assert len({str(r.seed.values) for r in results}) == len(CELLS)


def test_one_of_each_kind_first_then_the_largest(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    execute(store(tmp_path), CELLS, seed=5, finished=lambda cell: seen.append((cell.name, cell.config["x"])))
    assert set(seen[:2]) == {("a", 1), ("b", 8)}
    assert seen[2:] == [("a", 3), ("a", 2), ("b", 7)]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failure_is_raised_and_finished_cells_are_kept(tmp_path: Path, threads: int) -> None:
    executor = ThreadPoolExecutor(threads) if threads else None
    cells = [*CELLS, Cell("a", {"x": 99}, fail, cost=-1.0)]
    directory = store(tmp_path)
    with pytest.raises(RuntimeError, match="out of luck"):
        execute(directory, cells[-1:], seed=5, executor=executor)
    assert execute(directory, CELLS, seed=5)[1].y == 9
    with pytest.raises(RuntimeError, match="out of luck"):
        execute(directory, cells, seed=5, executor=executor)
    assert len(directory.finished()) == len(CELLS)


# ---------------------------------------------------------------- what a worker does with one cell


def diverge(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    return xr.Dataset(attrs={"status": "diverged", "status_message": "at step 3"})


def count(config: Mapping[str, Any], *, seed: int, checkpoint: Any) -> xr.Dataset:
    """Counts to ten in two goes: the first ends where a stop is asked for."""
    held = checkpoint.load("count")
    steps = range(0 if held is None else int(held.steps), 10)
    for step in steps:
        if step == 4 and held is None:
            (Path(config["directory"]) / STOP).touch()
            checkpoint.save("count", xr.Dataset({"steps": step}))
    return xr.Dataset({"steps_of_this_go": len(steps), "replica_steps": 10.0})


def not_data(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    return config  # type: ignore[return-value]


def test_a_cell_is_stored_and_summed_up(tmp_path: Path) -> None:
    directory = store(tmp_path)
    outcome = compute(directory, Cell("a", {"x": 3}, square, seed=5), 60.0)
    assert (outcome.status, outcome.stored, outcome.pid) == ("finished", True, os.getpid())
    held = directory.read("a", {"x": 3})
    assert int(held["y"]) == 9
    assert str(held["seed"].values) == str(cell_seed(5, {"name": "a", "x": 3}))
    assert {"host", "seconds"} <= set(held.attrs)
    assert directory.path("a", {"x": 3}).stem == outcome.key
    diverged = compute(directory, Cell("a", {"x": 4}, diverge), 60.0)
    assert (diverged.status, diverged.message, diverged.stored) == ("diverged", "at step 3", True)


@pytest.mark.parametrize(("function", "message"), [(fail, "RuntimeError: out of luck"), (not_data, "AttributeError")])
def test_a_failure_is_text_and_stores_nothing(tmp_path: Path, function: Any, message: str) -> None:
    directory = store(tmp_path)
    outcome = compute(directory, Cell("a", {"x": 3}, function), 60.0)
    assert (outcome.status, outcome.stored) == ("failed", False)
    assert outcome.message.startswith(message)
    assert not directory.finished()


def test_a_cell_that_is_stopped_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    directory = store(tmp_path)
    cell = Cell("count", {"directory": str(tmp_path)}, count, resumable=True)
    first = compute(directory, cell, 60.0)
    assert (first.status, first.stored) == ("interrupted", False)
    assert compute(directory, cell, 60.0).message == "not started"  # while the stop stands
    (tmp_path / STOP).unlink()
    second = compute(directory, cell, 60.0)
    assert second.status == "finished"
    assert int(directory.read(cell.name, cell.config)["steps_of_this_go"]) == 6
    assert not list((tmp_path / "checkpoints").iterdir())  # of no use any more


def test_sums_of_a_result() -> None:
    runs = {"n_escaped": ("run", [3, 4]), "replica_steps": ("run", [5.0, np.nan])}
    outcome = outcome_of("sgd", "sgd-0", xr.Dataset(runs))
    assert (outcome.n_escaped, outcome.n_censored, outcome.replica_steps) == (7, 0, 5.0)
    assert Outcome("sgd", "sgd-0").as_mapping() == {"name": "sgd", "key": "sgd-0", "status": "finished"}
    assert not issubclass(StudyInterrupted, KeyboardInterrupt)  # a cell that is stopped is no reason to end its worker
