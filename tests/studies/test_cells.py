"""Cells on executors: order, results, failures."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from kramers_grok.studies.cells import Cell, execute
from kramers_grok.studies.store import Store, cell_seed


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
