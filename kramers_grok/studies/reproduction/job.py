"""The arms of the main job, run one after the other, each cell stored when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import xarray as xr

from kramers_grok.studies.reproduction import arrhenius, forgetting, grokking, minibatch, phases, real_feature
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.store import Store, cell_seed, write_netcdf

__all__ = ["ARMS", "Job", "reproduce"]


class Reporter(Protocol):
    """Hears of progress: the command line shows bars, a library user may listen in."""

    def arm(self, name: str, n_cells: int) -> None:
        """A new arm of `n_cells` cells begins."""
        ...

    def cell(self, name: str, fraction: float) -> None:
        """Cell `name` of the current arm is done to this fraction (1: finished)."""
        ...


class Silent:
    """Reports nothing."""

    def arm(self, name: str, n_cells: int) -> None:
        """Ignore."""

    def cell(self, name: str, fraction: float) -> None:
        """Ignore."""


@dataclass
class Job:
    """What an arm needs to compute its cells."""

    settings: Settings
    store: Store
    reporter: Reporter
    device: str = "auto"
    n_threads: int = 1

    def cell(
        self, name: str, config: Mapping[str, Any], compute: Callable[[int, Callable[[int, int, float], None]], Any]
    ) -> Any:
        """Return a cell's result, computed as ``compute(seed, progress)`` if its file is not there yet."""
        seed = cell_seed(self.settings.seed, {"name": name, **config})

        def progress(escaped: int, total: int, time: float) -> None:
            self.reporter.cell(name, min(escaped / total, 0.999))

        result = self.store.cell(name, config, lambda: compute(seed, progress))
        self.reporter.cell(name, 1.0)
        return result


class Arm(Protocol):
    """One part of the main job: computes its cells and returns one labelled tree."""

    NAME: str

    @staticmethod
    def n_cells(settings: Settings) -> int:
        """Return the number of cells."""
        ...

    @staticmethod
    def run(job: Job) -> xr.DataTree:
        """Compute."""
        ...


ARMS: Mapping[str, Any] = {
    module.NAME: module for module in (phases, arrhenius, minibatch, forgetting, real_feature, grokking)
}


def reproduce(
    out: str | Path,
    *,
    settings: Settings,
    device: str = "auto",
    n_threads: int = 1,
    reporter: Reporter | None = None,
) -> dict[str, xr.DataTree]:
    """Run the main job into a directory and return its arms' trees.

    Finished cells are kept: the same call resumes a job that was killed. Each arm ends as one netCDF file,
    ``<out>/<arm>.nc``.

    Raises
    ------
    StudyConflictError
        If the directory holds another study.
    """
    store = Store(out, settings.as_mapping(), name="reproduce")
    job = Job(settings, store, reporter or Silent(), device, n_threads)
    trees: dict[str, xr.DataTree] = {}
    for name, module in ARMS.items():
        job.reporter.arm(name, module.n_cells(settings))
        trees[name] = module.run(job)
        write_netcdf(trees[name], store.directory / f"{name}.nc")
    return trees
