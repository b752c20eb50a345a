"""Parts about studies: what a stored cell costs over a bare netCDF file, workers side by side, ten thousand cells."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.escape import Chosen
from benchmarks.timing import Check, Part, Plan, Racer, Say
from kramers_grok.core.schema import exit_dataset
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running import runner
from kramers_grok.studies.running.cells import Cell
from kramers_grok.studies.running.executors import Workers

REPLICAS = (1_024, 65_536)


# ---------------------------------------------------------------- what keeping a cell costs


def run_of(n: int) -> xr.Dataset:
    """One run of first passages, as a cell keeps it."""
    times = np.random.default_rng(0).exponential(size=n)
    settings: dict[str, Any] = {"seed": 0, "dtype": "float64", "device": "cpu", "configuration": {"depth": 3}}
    coords = {"engine": "langevin", "temperature": 0.001, "weight_decay": 0.25, "depth": 3}
    return exit_dataset(np.minimum(times, 5.0), times < 5.0, horizon=5.0, coords=coords, **settings)


def store_part(part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Write and read the same data set, bare and as a study's cell."""
    for n in REPLICAS[:1] if plan.quick else REPLICAS:
        with tempfile.TemporaryDirectory() as folder:
            _store_races(Path(folder), run_of(n), f"{n:,} replicas", part, plan, chosen, say)


def _store_races(folder: Path, data: xr.Dataset, label: str, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    store, numbers = Store(folder / "study", {}, name="benchmark"), itertools.count()

    def bare(count: int) -> None:
        for _ in range(count):
            data.to_netcdf(folder / f"{next(numbers)}.nc", engine="h5netcdf")

    def kept(count: int) -> None:
        for _ in range(count):
            store.write("cell", {"number": next(numbers)}, data)

    def load(path: Path, count: int) -> None:
        for _ in range(count):
            xr.load_dataset(path, engine="h5netcdf")

    def read(count: int) -> None:
        for _ in range(count):
            store.read("cell", {"number": -1})

    def check(count: int) -> None:
        for _ in range(count):
            store.check("cell", {"number": -1})

    store.write("cell", {"number": -1}, data)
    data.to_netcdf(folder / "bare.nc", engine="h5netcdf")
    wrong = int(
        not store.read("cell", {"number": -1}).identical(xr.load_dataset(folder / "bare.nc", engine="h5netcdf"))
    )
    part.check(Check("Store", "data sets that differ from to_netcdf's", wrong, 0, 0.1), say)
    writing = [Racer("Dataset.to_netcdf", bare), Racer("Store.write: checksum, fsync, rename", kept)]
    reading = [
        Racer("xarray.load_dataset", partial(load, folder / "bare.nc")),
        Racer("Store.read: checksum first", read),
        Racer("Store.check: checksum only", check),
    ]
    part.race(f"{label}, written", [r for r in writing if chosen(r.name)], plan, say)
    part.race(f"{label}, read", [r for r in reading if chosen(r.name)], plan, say)


# ---------------------------------------------------------------- cells that need nothing but time

PRODUCTS = 128  # square matrices of this size: BLAS would share them among threads if it were let


def products(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Multiply matrices so many times: work for one core."""
    matrix = np.random.default_rng(seed).normal(size=(PRODUCTS, PRODUCTS)) / PRODUCTS
    total = np.eye(PRODUCTS)
    for _ in range(config["repeats"]):
        total = matrix @ total + np.eye(PRODUCTS)
    return xr.Dataset({"trace": np.trace(total)})


def nothing(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Return at once."""
    return xr.Dataset({"number": float(config["number"])})


@dataclass(frozen=True)
class Bench:
    """A study of equal cells."""

    function: Callable[..., xr.Dataset]
    n_cells: int
    more: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> str:
        """Name of the manifest."""
        return "benchmark"

    def declaration(self) -> dict[str, Any]:
        """What the directory is told."""
        return {"n_cells": self.n_cells, **dict(self.more)}

    def conflicts(self, held: Mapping[str, Any]) -> list[str]:
        """Never any."""
        return []

    def cells(self) -> list[Cell]:
        """Cells by number."""
        return [Cell("cell", {"number": k, **dict(self.more)}, self.function) for k in range(self.n_cells)]

    def gather(self, store: Store) -> xr.DataTree:
        """Nothing is gathered here."""
        return xr.DataTree()


def workers_part(threads: int, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Cells of about a second on one worker process and on two, one thread each."""
    seconds, n = (0.05, 4) if plan.quick else (1.0, 200)
    repeats = _repeats(seconds)
    racers = []
    for count in (1, 2):
        name = f"{count} worker{'s' if count > 1 else ''}"
        if chosen(name):
            work = partial(_on, partial(Workers, count), (("repeats", repeats),))
            racers.append(Racer(name, work, fixed=n, least=2, scale=1 / n))
    # A round takes minutes, and nothing in it is short enough to meet a bad moment alone
    part.race(f"{n} cells of {seconds:g} s", racers, replace(plan, rounds=1), say, repeats=repeats)


def _repeats(seconds: float) -> int:
    """Products that take so long on one thread here."""
    from kramers_grok.studies.running.threads import single_threaded

    with single_threaded():
        products({"repeats": 100}, seed=0)
        began = time.perf_counter()
        products({"repeats": 1_000}, seed=0)
        return max(int(1_000 * seconds / (time.perf_counter() - began)), 1)


def _on(make: Callable[[], Executor], more: tuple[tuple[str, int], ...], n: int) -> None:
    with tempfile.TemporaryDirectory() as folder, make() as executor:
        done = runner.run_study(Bench(products, n, more), Path(folder) / "out", executor=executor)
    if done.n_finished != n:
        raise RuntimeError(f"{done.n_finished} of {n} cells finished: {done.statuses}")


# ---------------------------------------------------------------- many cells


def many_part(part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """What a study of many small cells takes before, beside and after its cells."""
    n = 100 if plan.quick else 10_000
    study = Bench(nothing, n)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        began = time.perf_counter()
        runner.run_study(study, out)
        say(f"  {n:,} cells written in {time.perf_counter() - began:.3g} s")
        finished = runner.status(out).n_finished
        part.check(Check("status", "finished cells", float(finished), float(n), 0.1), say)
        racers = [
            Racer("resume: every file's checksum, nothing left to do", partial(_again, study, out), fixed=1),
            Racer("status", partial(_status, out), fixed=1),
        ]
        part.race(f"{n:,} cells", [r for r in racers if chosen(r.name)], replace(plan, rounds=min(plan.rounds, 5)), say)
    grid = Racer(f"a declaration of {n:,} cells checked and expanded", partial(_expand, n), fixed=1)
    if chosen(grid.name):
        part.race("declared", [grid], replace(plan, rounds=min(plan.rounds, 5)), say)


def _again(study: Bench, out: Path, _: int) -> None:
    runner.run_study(study, out)


def _status(out: Path, _: int) -> None:
    runner.status(out)


def _expand(n: int, _: int) -> None:
    from kramers_grok.studies.escape.study import EscapeStudy

    side = round(n**0.5)
    study = EscapeStudy(
        system={
            "kind": "mode",
            "depth": 3,
            "singular_value": 1.0,
            "weight_decay": np.linspace(0.1, 0.4, side).tolist(),
        },
        noise={"barrier_over_temperature": np.linspace(3, 12, side).tolist()},
        engines=["langevin"],
        langevin={"dt": 0.1},
        run={"replicas": 256},
    )
    if len(study.cells()) != side**2:
        raise RuntimeError(f"{len(study.cells())} cells instead of {side**2}")


def parts(threads: int) -> dict[str, tuple[str, str, Callable[..., None]]]:
    """Title, unit and function of each part by its name."""
    return {
        "store": ("Keeping a study's cell", "s", store_part),
        "workers": ("Workers side by side", "s", partial(workers_part, threads)),
        "many": ("A study of many cells", "s", many_part),
    }
