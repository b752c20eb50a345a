"""The arms of the main job: all their cells on one executor, then one labelled file for each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Protocol

import xarray as xr

from kramers_grok.core import checks
from kramers_grok.core.exceptions import KramersGrokError
from kramers_grok.studies.files.store import Store, write_netcdf
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
from kramers_grok.studies.reproduction.study import Reproduction, results_of
from kramers_grok.studies.running.cells import Cell, Outcome
from kramers_grok.studies.running.runner import Listener, Plan, RunResult, Silence, run_study
from kramers_grok.studies.running.threads import single_threaded

__all__ = ["ARMS", "Arm", "Reporter", "arms_asked_for", "reproduce", "write_arms"]


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
    listener: Listener | None = None,
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
        Hears of cells, arm by arm.
    listener : Listener, optional
        Hears of everything, as of any study's run.

    Raises
    ------
    StudyConflictError
        If the directory holds another study, or another run works on it; nothing is written.
    InvalidParameterError
        For an arm that does not exist.
    StudyInterrupted
        As `kramers_grok.studies.running.runner.run_study`.
    KramersGrokError
        If cells failed: the others are finished, and no arm's file is written.
    """
    study = Reproduction(settings, device=device, chosen=arms_asked_for(arms))
    heard = _ByArm(study, reporter, listener or Silence()) if reporter is not None else listener
    result = run_study(study, out, executor=executor, listener=heard)
    if result.failed:
        first = result.failed[0]
        raise KramersGrokError(
            f"{len(result.failed)} of {result.n_cells} cells failed, the others are finished. The first of them, "
            f"{first.key}:\n{first.message}\nThe same call tries the failed ones again."
        )
    return write_arms(study, result.directory, executor)


class _ByArm:
    """Passes a run's progress on, counted by arm."""

    def __init__(self, study: Reproduction, reporter: Reporter, listener: Listener) -> None:
        self.reporter = reporter
        self.listener = listener
        self.sizes = {name: len(study.cells_of(name)) for name in study.modules()}
        self.arms_of: dict[str, list[str]] = {}

    def begin(self, plan: Plan) -> None:
        """Say how many cells each arm has, and count those that are finished."""
        arms = [name for name, size in self.sizes.items() for _ in range(size)]
        for name, key in zip(arms, plan.keys, strict=True):
            self.arms_of.setdefault(key, []).append(name)
        for name, size in self.sizes.items():
            self.reporter.arm(name, size)
        for key in plan.before:
            self._count(key)
        self.listener.begin(plan)

    def _count(self, key: str) -> None:
        for name in self.arms_of[key]:
            self.reporter.cell(name)

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """Count a finished cell."""
        if outcome.stored:
            self._count(outcome.key)
        self.listener.cell(cell, outcome)

    def note(self, text: str) -> None:
        """Pass it on."""
        self.listener.note(text)

    def end(self, result: RunResult) -> None:
        """Pass it on."""
        self.listener.end(result)


def arms_asked_for(arms: Sequence[str] | None) -> tuple[str, ...]:
    """Return the arms asked for if all of them exist; none of them means all.

    Raises
    ------
    InvalidParameterError
        For an arm that does not exist.
    """
    if isinstance(arms, str) or not isinstance(arms, Sequence | None):
        raise checks.invalid("arms", arms, "a list of names")
    for name in arms or ():
        if name not in ARMS:
            raise checks.invalid("arms", name, f"one of {', '.join(ARMS)}", "these are the arms of the main job")
    return tuple(arms or ())


def write_arms(study: Reproduction, directory: Path, executor: Executor | None = None) -> dict[str, xr.DataTree]:
    """Gather the arms of a finished job and write a file for each, ``<directory>/<arm>.nc``."""
    names = list(study.modules())
    trees = (executor.map if executor is not None else map)(partial(_finish, study, directory), names)
    return dict(zip(names, trees, strict=True))


def _finish(study: Reproduction, directory: Path, name: str) -> xr.DataTree:
    """Gather an arm's results and write them."""
    with single_threaded():
        tree = ARMS[name].gather(study.settings, results_of(Store.opened(directory), study.cells_of(name)))
        write_netcdf(tree, directory / f"{name}.nc")
    return tree
