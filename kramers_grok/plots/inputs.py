"""What figures are given: named data sets, what must be in them, and the curves in one of several dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.style import symbol

__all__ = ["Data", "groups", "named", "parts", "require", "single"]

Data = xr.DataTree | xr.Dataset | Mapping[str, xr.Dataset | xr.DataTree]
"""A data set, several by name, or a tree of them."""

# Tables about the arms, not arms themselves
_TABLES = ("table", "comparison", "provenance")


def single(what: str, value: object, make: str) -> xr.Dataset:
    """Return a data set (of a tree's node, its own).

    Raises
    ------
    InvalidParameterError
        For anything else; the message says how to make it.
    """
    if isinstance(value, xr.DataTree):
        return value.to_dataset()
    if isinstance(value, xr.Dataset):
        return value
    raise InvalidParameterError(
        f"{what} is {type(value).__name__}, expected a Dataset (or a DataTree's node) with what the figure shows.\n"
        f"Make it with `{make}`."
    )


def require(what: str, ds: xr.Dataset, names: Iterable[str], make: str) -> None:
    """Check that a data set holds what a figure needs.

    Raises
    ------
    InvalidParameterError
        Names what is missing, what there is, and how to make it.
    """
    missing = [name for name in names if name not in ds.variables]
    if missing:
        raise InvalidParameterError(
            f"{what} has no `{'`, `'.join(missing)}`, it holds {sorted(map(str, ds.variables))}.\n"
            f"Make it with `{make}`."
        )


def groups(data: Any, make: str) -> dict[str, xr.Dataset]:
    """Data sets by name: a tree's nodes, a mapping's, or the one there is.

    Raises
    ------
    InvalidParameterError
        If there is no data set, or something else than data sets.
    """
    if isinstance(data, xr.DataTree) and data.children:
        found = {name: node for name, node in data.children.items() if name not in _TABLES}
    elif isinstance(data, Mapping) and not isinstance(data, xr.Dataset | xr.DataTree):
        found = dict(data)
    else:
        found = {_own_name(data): data}
    if not found:
        raise InvalidParameterError(f"there is nothing to draw: the mapping is empty.\nMake it with `{make}`.")
    return {str(name): single(f"group {name!r}", each, make) for name, each in found.items()}


def _own_name(data: Any) -> str:
    """What one data set by itself is called: its node's name or its engine."""
    if isinstance(data, xr.DataTree) and data.name:
        return str(data.name)
    if isinstance(data, xr.Dataset) and "engine" in data.coords and data["engine"].ndim == 0:
        return str(data["engine"].values)
    return "run"


def parts(ds: xr.Dataset, dims: Iterable[Hashable], name: str = "") -> dict[str, xr.Dataset]:
    """Take a data set apart along dimensions, each part named by its place on those longer than one.

    Examples
    --------
    >>> ds = xr.Dataset({"x": (("lr", "depth"), [[0.0], [0.0]])}, coords={"lr": [0.1, 0.2], "depth": [3]})
    >>> list(parts(ds, ["lr", "depth"], "sgd"))
    ['sgd: η = 0.1', 'sgd: η = 0.2']
    """
    along = [d for d in dims if d in ds.dims]
    ranges = [range(ds.sizes[d]) for d in along]
    found: dict[str, xr.Dataset] = {}
    for place in itertools.product(*ranges):
        here = dict(zip(along, place, strict=True))
        text = ", ".join(named(ds, d, i) for d, i in here.items() if ds.sizes[d] > 1)
        found[": ".join(t for t in (name, text) if t)] = ds.isel(here)
    return found


def named(ds: xr.Dataset, dim: Hashable, place: int) -> str:
    """Say where on a dimension something is, e.g. "λ = 0.25"; its own name where the coordinate is text."""
    if dim not in ds.variables:
        return f"{dim} {place + 1}"
    value = ds[dim].values[place].item() if ds[dim].dtype.kind in "iuf" else str(ds[dim].values[place])
    return value if isinstance(value, str) else f"{symbol(ds[dim])} = {value:.4g}"
