"""The arms of the main job: all their cells on one executor, then one labelled file for each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Protocol

import xarray as xr

from kramers_grok.core import checks
from kramers_grok.studies.cells import Cell, execute
from kramers_grok.studies.reproduction import (
    arrhenius,
    control,
    forgetting,
    grokking,
    hysteresis,
    minibatch,
    optimizers,
    phases,
    ramp,
    real_feature,
    states,
    subsampling,
    wide,
)
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.store import Store, write_netcdf

__all__ = ["ARMS", "Arm", "Reporter", "reproduce"]


class Arm(Protocol):
    """One part of the main job: a module with these names."""

    NAME: str

    def cells(self, settings: Settings, device: str) -> list[Cell]:
        """Return what must be computed."""
        ...

    def gather(self, settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
        """Put the cells' results, in the order of `cells`, into one labelled tree."""
        ...


class Reporter(Protocol):
    """Hears of progress: the command line shows bars, a library user may listen in."""

    def arm(self, name: str, n_cells: int) -> None:
        """Arm `name` has `n_cells` cells."""
        ...

    def cell(self, arm: str) -> None:
        """A cell of an arm is finished."""
        ...


_MODULES: tuple[Arm, ...] = (
    phases,
    arrhenius,
    minibatch,
    forgetting,
    real_feature,
    grokking,
    subsampling,
    wide,
    optimizers,
    hysteresis,
    states,
    ramp,
    control,
)
ARMS: Mapping[str, Arm] = {module.NAME: module for module in _MODULES}


def reproduce(
    out: str | Path,
    *,
    settings: Settings,
    arms: Sequence[str] | None = None,
    device: str = "auto",
    executor: Executor | None = None,
    reporter: Reporter | None = None,
) -> dict[str, xr.DataTree]:
    """Run the main job into a directory and return its arms' trees.

    Finished cells are kept: the same call resumes a job that was killed. Each arm ends as one netCDF file,
    ``<out>/<arm>.nc``.

    Parameters
    ----------
    out : path
    settings : Settings
    arms : sequence of str, optional
        Only these of `ARMS`; a later call may add others to the same directory.
    device : str
        "auto" takes CUDA where there is one, for SGD; Langevin dynamics run in the compiled CPU kernel.
    executor : Executor, optional
        Where cells run; this process if not given. Results do not depend on it.
    reporter : Reporter, optional

    Raises
    ------
    StudyConflictError
        If the directory holds another study; nothing is written.
    InvalidParameterError
        For an arm that does not exist.
    """
    chosen = _chosen(arms)
    store = Store(out, settings.as_mapping(), name="reproduce")
    cells = {name: arm.cells(settings, device) for name, arm in chosen.items()}
    if reporter is not None:
        for name, own in cells.items():
            reporter.arm(name, len(own))
    arm_of = {id(cell): name for name, own in cells.items() for cell in own}

    def finished(cell: Cell) -> None:
        if reporter is not None:
            reporter.cell(arm_of[id(cell)])

    everything = [cell for own in cells.values() for cell in own]
    results = iter(execute(store, everything, seed=settings.seed, executor=executor, finished=finished))
    found = [[next(results) for _ in own] for own in cells.values()]
    finish = partial(_finish, settings, store.directory)
    trees = (executor.map if executor is not None else map)(finish, chosen, found)
    return dict(zip(chosen, trees, strict=True))


def _chosen(arms: Sequence[str] | None) -> Mapping[str, Arm]:
    """The arms asked for, in their usual order."""
    if not arms:
        return ARMS
    for name in arms:
        if name not in ARMS:
            raise checks.invalid("arms", name, f"one of {', '.join(ARMS)}", "these are the arms of the main job")
    return {name: arm for name, arm in ARMS.items() if name in arms}


def _finish(settings: Settings, directory: Path, name: str, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Gather an arm's results and write them."""
    tree = ARMS[name].gather(settings, results)
    write_netcdf(tree, directory / f"{name}.nc")
    return tree
