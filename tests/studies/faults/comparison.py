"""What a study's directory holds, and whether two hold the same."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import xarray as xr
from stub import Sleepers

from kramers_grok.studies.files.store import Store

__all__ = ["compare", "files", "same", "started"]

VARYING = ("host", "seconds", "started")  # attributes that say where, when and how fast


def files(out: Path) -> dict[str, tuple[int, int, int]]:
    """Return the finished cells: name → inode, time of change, size."""
    if not (out / "cells").exists():
        return {}
    found = {entry.name: entry.stat() for entry in os.scandir(out / "cells") if entry.name.endswith(".nc")}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_size) for name, s in found.items()}


def started(out: Path) -> list[int]:
    """Return the numbers of the cells whose computation began, in order."""
    log = Path(f"{out}.log")
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def same(data: xr.Dataset | xr.DataTree, other: xr.Dataset | xr.DataTree) -> None:
    """Assert that two results are the same to the bit, attributes and coordinates included."""
    assert isinstance(data, xr.Dataset)
    assert isinstance(other, xr.Dataset)
    first, second = (ds.copy() for ds in (data, other))
    for ds in (first, second):
        ds.attrs = {key: value for key, value in ds.attrs.items() if key not in VARYING}
    xr.testing.assert_identical(first, second)
    for name in data.variables:
        if data[name].dtype.kind == "f":
            assert data[name].values.tobytes() == other[name].values.tobytes()


@cache
def results(out: Path, study: Sleepers) -> list[xr.Dataset | xr.DataTree]:
    """Read all cells of a study that is finished."""
    store = Store.opened(out)
    return [store.read(cell.name, cell.config) for cell in study.cells()]


def compare(study: Sleepers, out: Path, undisturbed: Path) -> None:
    """Assert that a directory holds all of a study, once, and what an undisturbed run holds."""
    store = Store(out, study.declaration(), name=study.kind)
    expected = results(undisturbed, study)
    assert files(out).keys() == files(undisturbed).keys()
    assert len(files(out)) == study.n_cells
    for cell, other in zip(study.cells(), expected, strict=True):
        same(store.read(cell.name, cell.config), other)
    assert sorted(p.name for p in (out / "cells").iterdir()) == sorted(files(out))  # and nothing half written
    assert not (out / "damaged").exists()
    assert store.manifest.read_bytes() == Store.opened(undisturbed).manifest.read_bytes()
    last = {event["key"]: event["event"] for event in store.journal.read() if "key" in event}
    assert last == dict.fromkeys(store.finished_stems(), "finished")
