"""Finished cells of a grid as one labelled tree: ``tree["sgd"].sel(lr=0.05)``.

Each engine is a group whose dimensions are the parameters that the declaration varies; a cell that is not there yet, or
that has no answer, holds missing values and says so in ``status``. ``comparison`` has one row for each simulation.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.analysis.budget import BUDGET_COLUMNS
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, KramersGrokError
from kramers_grok.core.schema import canonical_json, package_version
from kramers_grok.studies.files.store import content_hash, write_netcdf
from kramers_grok.studies.results.grid import (
    FINISHED,
    MISSING,
    TEXTS,
    Group,
    Memory,
    column,
    declared,
    labels,
    parameters,
)
from kramers_grok.studies.results.verdicts import judge
from kramers_grok.studies.running.cells import Cell

__all__ = ["FINISHED", "MEMORY_LIMIT", "MISSING", "gather", "parameters", "run_of", "write"]

MEMORY_LIMIT = 2 * 2**30
"""Bytes above which what belongs to single replicas stays in the cells' files."""

_PROVENANCE = ("host", "started", "kramers_grok_version", "numpy_version", "torch_version", "seed", "dtype", "device")
_COMPARED = (
    "temperature", "barrier", "barrier_over_temperature", "mean_exit_time", "lower", "upper", "standard_error",
    "n_escaped", "n_replicas", "n_repeats", "horizon", "predicted_mean", "predicted_relative_error", "asymptotic_time",
    "ratio", "ratio_error", "difference_se", "ks_p_value", "precision", "precision_reached", "replica_steps",
    "total_error", *BUDGET_COLUMNS,
)  # fmt: skip


def gather(
    cells: Sequence[Cell],
    read: Callable[[Cell], xr.Dataset | None],
    *,
    declaration: Mapping[str, Any],
    kind: str = "escape",
    memory_limit: float = MEMORY_LIMIT,
) -> xr.DataTree:
    """Put the cells of an escape study into one labelled tree.

    Parameters
    ----------
    cells : sequence of Cell
        All cells of the declaration, finished or not; ``cell.config["engine"]`` names the group.
    read : callable
        ``read(cell)`` returns the cell's result, or None if it is not finished.
    declaration : mapping
        What was declared; parameters given as a list or a range become dimensions. ``title`` and ``question`` are kept.
    kind : str
        Kind of the study.
    memory_limit : float
        Bytes above which arrays of single replicas are left out, with a warning.

    Returns
    -------
    xarray.DataTree
        ``theory``, ``langevin``, ``sgd``: scalars of the cells along the parameters (NaN where missing), ``status`` and
        other texts, arrays of replicas padded (``n_replicas`` says how many there are). ``comparison``: one row for
        each simulation. ``provenance``: host, time and versions of each cell.

    Examples
    --------
    >>> config = {"engine": "theory", "system": {"kind": "chain", "depth": 3, "weight_decay": 0.25},
    ...           "noise": {"barrier_over_temperature": 4.0}}
    >>> cells = [Cell("theory", config, lambda config, seed: xr.Dataset())]
    >>> tree = gather(cells, lambda cell: xr.Dataset({"exact_time": 80.0}), declaration={"title": "one point"})
    >>> float(tree["theory"]["exact_time"].sel(weight_decay=0.25, depth=3)), tree.attrs["title"]
    (80.0, 'one point')
    """
    names = declared(declaration)
    by_engine: dict[str, list[Cell]] = {}
    for cell in cells:
        by_engine.setdefault(str(cell.config["engine"]), []).append(cell)
    tree: dict[str, xr.Dataset] = {}
    origin: list[dict[str, Any]] = []
    budget = Memory(memory_limit)
    for engine, own in by_engine.items():
        group = Group.of(engine, own, names, budget)
        for cell in own:
            result = read(cell)
            group.add(cell, result)
            origin.append(_origin(cell, result))
        tree[f"/{engine}"] = group.dataset()
    tree["/comparison"] = _comparison({name[1:]: group for name, group in tree.items()})
    tree["/provenance"] = _provenance(origin)
    attrs = {
        "kind": kind,
        "title": str(declaration.get("title", "")),
        "question": str(declaration.get("question", "")),
        "declaration": canonical_json(declaration),
        "kramers_grok_version": package_version(),
        "n_cells": len(cells),
        "n_done": sum(bool(row["done"]) for row in origin),
    }
    if budget.exceeded:
        attrs["left_out"] = (
            f"arrays of single replicas, more than {memory_limit / 2**30:.3g} GiB; they are in the cells' files"
        )
        warnings.warn(
            f"the study's exit times of single replicas would take more than {memory_limit / 2**30:.3g} GiB: they are "
            "left out of the export and stay in the cells' files.\nExport a part, or pass a larger `memory_limit`.",
            stacklevel=2,
        )
    made = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **tree}, name=kind)
    made.attrs["answer"] = judge(made).headline  # a year later the file still says what came out
    return made


def _origin(cell: Cell, result: xr.Dataset | None) -> dict[str, Any]:
    """Where a cell's result comes from; its file's name says which content made it."""
    attrs: Mapping[Any, Any] = {} if result is None else result.attrs
    row = {name: str(attrs.get(name, "")) for name in _PROVENANCE}
    seconds = attrs.get("seconds", math.nan)
    return row | {
        "cell": f"{cell.name}-{content_hash({'name': cell.name, 'config': cell.config})}",
        "done": float(result is not None),
        "seconds": float(seconds),
    }


def _provenance(rows: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    data: dict[str, Any] = {}
    for name in (*_PROVENANCE, "done", "seconds"):
        text = {"units": "s" if name == "seconds" else "1", "long_name": name.replace("_", " ")}
        data[name] = ("cell", column([row[name] for row in rows]), text)
    return xr.Dataset(data, coords={"cell": ("cell", column([str(row["cell"]) for row in rows]), labels("cell"))})


def _comparison(groups: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """One row for each simulation of the grid: its settings, measured, predicted, their difference."""
    parts = {engine: _flat(group) for engine, group in groups.items() if engine != "theory"}
    names = dict.fromkeys(name for part in parts.values() for name in part)
    data: dict[str, Any] = {}
    for name in names:
        text = any(part[name].dtype.kind in "OU" for part in parts.values() if name in part)
        columns = []
        for part in parts.values():
            missing = np.full(part["status"].size, "" if text else np.nan, dtype=object if text else np.float64)
            columns.append(part.get(name, missing))
        data[name] = ("row", np.concatenate([c.astype(object) for c in columns] if text else columns), labels(name))
    return xr.Dataset(data, attrs={"long_name": "measured beside predicted, one row for each simulation"})


def _flat(group: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Columns of a group's cells, the last parameter running fastest."""
    shape, dims = group["status"].shape, group["status"].dims
    flat = {"engine": np.full(shape, group.attrs["engine"], dtype=object).ravel()}
    for name, coord in group.coords.items():
        if set(coord.dims) <= set(dims):
            place = tuple(group.sizes[dim] if dim in coord.dims else 1 for dim in dims)
            flat[str(name)] = np.broadcast_to(coord.values.reshape(place), shape).ravel()
    return flat | {name: group[name].values.ravel() for name in (*_COMPARED, *TEXTS) if name in group.data_vars}


def run_of(group: xr.Dataset | xr.DataTree, **where: Any) -> xr.Dataset:
    """Return one cell of an exported group as the run it was, without padding.

    Parameters
    ----------
    group : Dataset or DataTree
        ``tree["sgd"]``.
    **where
        A value for every dimension that has several, e.g. ``lr=0.05, seed=0``; the nearest float is taken.

    Raises
    ------
    InvalidParameterError
        If more than one cell is left.

    Examples
    --------
    >>> group = xr.Dataset({"exit_time": (("lr", "replica"), [[1.0, 2.0, np.nan]]), "n_replicas": ("lr", [2.0])},
    ...                    coords={"lr": [0.1]})
    >>> run_of(group, lr=0.1).exit_time.values.tolist()
    [1.0, 2.0]
    """
    data = group.to_dataset() if isinstance(group, xr.DataTree) else group
    for name, value in where.items():
        numeric = data[name].dtype.kind == "f"
        data = data.sel({name: value}, method="nearest" if numeric else None)
        if numeric and not math.isclose(float(data[name]), float(value), rel_tol=1e-9):
            raise checks.invalid(name, value, f"a value of the grid, the nearest is {float(data[name]):g}")
    several = [str(dim) for dim in data.dims if dim in data.coords and data.sizes[dim] > 1 and dim != "replica"]
    if several:
        raise InvalidParameterError(
            f"{len(several)} dimension(s) have several values left ({', '.join(several)}), expected one cell.\n"
            f"Choose: `run_of(group, {several[0]}={data[several[0]].values[0]!r})`."
        )
    data = data.isel({dim: 0 for dim in data.dims if dim in data.coords and dim != "replica"})
    for dim, counted in (("replica", "n_replicas"), ("repeat", "n_repeats")):
        if dim in data.dims:
            number = float(data[counted]) if counted in data else 0.0
            kept = int(number) if math.isfinite(number) else 0
            data = data.isel({dim: slice(0, kept)}) if kept else data.drop_dims(dim)
    for dim in [str(dim) for dim in data.dims if str(dim).endswith("_number")]:
        axis = dim.removesuffix("_number")
        data = data.isel({dim: np.flatnonzero(np.isfinite(data[axis].values))}).set_coords(axis).swap_dims({dim: axis})
    return data


def write(tree: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write an exported tree: netCDF, or zarr where the name ends in ``.zarr``. An existing one is replaced when done.

    Raises
    ------
    KramersGrokError
        For ``.zarr`` without the package zarr.
    InvalidParameterError
        For another ending.
    """
    final = Path(path)
    if final.suffix == ".nc":
        write_netcdf(tree, final)
    elif final.suffix == ".zarr":
        _write_zarr(tree, final)
    else:
        raise checks.invalid(
            "path", os.fspath(path), "a name that ends in .nc or .zarr", "the ending says which format",
            f"Use `{final.with_suffix('.nc').name}`.",
        )  # fmt: skip
    return final


def _write_zarr(tree: xr.DataTree, final: Path) -> None:
    if importlib.util.find_spec("zarr") is None:
        raise KramersGrokError(
            f"{final} asks for zarr, which is not installed: it is optional.\n"
            f"Install it (`pip install zarr`), or export to {final.with_suffix('.nc')}."
        )
    if final.exists() and not (final / "zarr.json").exists() and not (final / ".zgroup").exists():
        raise checks.invalid(
            "path",
            os.fspath(final),
            "a new name or a zarr store",
            "what is there is something else",
            "Use another name.",
        )
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        tree.to_zarr(aside, mode="w", zarr_format=2)  # in which texts have a specification
        if final.exists():
            shutil.rmtree(final)  # only what zarr wrote: see above
        os.replace(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
