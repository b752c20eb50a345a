"""Independent cells of a study, computed on any executor and stored as they finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from typing import Any

import xarray as xr

from kramers_grok.studies.store import Store, cell_seed

__all__ = ["Cell", "execute", "one_thread"]


@dataclass(frozen=True)
class Cell:
    """One computation of a study.

    Attributes
    ----------
    name : str
        Kind of cell, part of its file's name.
    config : mapping
        Everything the result depends on besides the study's seed; its content names the file and makes the seed.
    function : callable
        ``function(config, seed=...)`` returns the result as a Dataset; defined at the top of a module, so that another
        process can call it.
    cost : float
        Rough relative work: the largest cells start first.
    """

    name: str
    config: Mapping[str, Any]
    function: Callable[..., xr.Dataset]
    cost: float = 1.0


def one_thread() -> None:
    """Prepare a worker process: one worker is one core, so numerical libraries keep to one thread."""
    import torch

    torch.set_num_threads(1)


def execute(
    store: Store,
    cells: Sequence[Cell],
    *,
    seed: int,
    executor: Executor | None = None,
    finished: Callable[[Cell], None] | None = None,
) -> list[xr.Dataset]:
    """Compute the cells that are not finished yet and return all results, in the order of `cells`.

    Results do not depend on the executor: every cell has a seed of its own, made from its content.

    Parameters
    ----------
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
        for cell in _order(cells):
            done(cell, _compute(store, cell, seed))
    else:
        futures = {executor.submit(_compute, store, cell, seed): cell for cell in _order(cells)}
        try:
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    return [results[id(cell)] for cell in cells]


def _order(cells: Sequence[Cell]) -> list[Cell]:
    """The cheapest cell of each kind first, then the largest ones.

    The first of a kind compiles what its kind needs; others find it on disk, and two workers that start with
    different kinds do not compile the same twice. The largest of the rest come next, so that none is left alone
    at the end.
    """
    first = {cell.name: cell for cell in sorted(cells, key=lambda cell: -cell.cost)}
    rest = [cell for cell in cells if first[cell.name] is not cell]
    return [*first.values(), *sorted(rest, key=lambda cell: -cell.cost)]


def _compute(store: Store, cell: Cell, seed: int) -> xr.Dataset:
    """Compute and store a cell, or read it if it is finished."""
    own = cell_seed(seed, {"name": cell.name, **cell.config})
    result = store.cell(cell.name, cell.config, lambda: cell.function(cell.config, seed=own))
    assert isinstance(result, xr.Dataset)
    return result
