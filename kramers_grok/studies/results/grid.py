"""Results of one engine's cells on the grid of its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.vocabulary import VARIABLES
from kramers_grok.studies.running.cells import Cell

__all__ = ["FINISHED", "MISSING", "TEXTS", "Group", "Memory", "column", "declared", "labels", "parameters"]

FINISHED = "finished"
MISSING = "not run"
# Indexed even where the declaration has one value: what everybody selects by.
_ALWAYS = {"sgd": ("depth", "weight_decay", "lr", "batch_size")}
_ALWAYS_ELSE = ("depth", "weight_decay")
TEXTS = ("status", "status_message", "method", "method_reason", "prediction", "notes")
_LABELS = {
    "system": ("1", "system"),
    "integrator": ("1", "integrator"),
    "seed": ("1", "seed of the study"),
    "run_method": ("1", "method asked for"),
    "run_replicas": ("1", "replicas asked for"),
    "run_precision": ("1", "relative precision asked for"),
    "run_max_replicas": ("1", "most replicas allowed"),
    "run_horizon": ("predicted means", "censoring horizon asked for"),
    "run_confidence": ("1", "confidence of the intervals"),
    "n_repeats": ("1", "independent repeats"),
    "status": ("1", "what became of the cell"),
    "status_message": ("1", "why"),
    "method": ("1", "method"),
    "method_reason": ("1", "why this method"),
    "prediction": ("1", "how far the prediction is known: exact, asymptotic (leading order), none"),
    "notes": ("1", "what limits the prediction"),
    "precision": ("1", "half width of the interval over the mean"),
    "precision_reached": ("1", "precision reached (1) or not (0)"),
}


def parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was set for a cell under flat names; what belongs to the run begins with ``run_``.

    Examples
    --------
    >>> parameters({"engine": "sgd", "system": {"kind": "chain", "depth": 3}, "noise": {"std": 0.5}, "seed": 0,
    ...             "run": {"precision": 0.05}})
    {'system': 'chain', 'depth': 3, 'noise_std': 0.5, 'seed': 0, 'run_precision': 0.05}
    """
    flat: dict[str, Any] = {}
    for section, value in config.items():
        if section == "engine":
            continue
        if not isinstance(value, Mapping):
            flat[section] = value
            continue
        for key, inner in value.items():
            flat[_name(section, key)] = inner
    return flat


def _name(section: str, key: str) -> str:
    """Name of a parameter in the tree: results have a `horizon` and a `precision` of their own."""
    if section == "run":
        return f"run_{key}"
    return {("system", "kind"): "system", ("noise", "std"): "noise_std"}.get((section, key), key)


def declared(declaration: Mapping[str, Any]) -> set[str]:
    """Names of the parameters that were given as a list or a range."""
    found = set()
    for section, value in declaration.items():
        inside = value.items() if isinstance(value, Mapping) and "start" not in value else [("", value)]
        for key, given in inside:
            several = isinstance(given, list | tuple) or (isinstance(given, Mapping) and "start" in given)
            if several and section != "engines":
                found.add(_name(section, key) if key else section)
    return found


@dataclass
class Memory:
    """Bytes that padded arrays may take, over all groups."""

    limit: float
    used: dict[str, float] = field(default_factory=dict)

    @property
    def exceeded(self) -> bool:
        """Whether they take more."""
        return sum(self.used.values()) > self.limit


@dataclass
class Group:
    """Cells of one engine on the grid of its parameters."""

    engine: str
    coords: dict[str, list[Any]]
    fixed: dict[str, Any]
    memory: Memory
    scalars: dict[str, NDArray[Any]] = field(default_factory=dict)
    arrays: dict[str, dict[tuple[int, ...], xr.DataArray]] = field(default_factory=dict)
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, engine: str, cells: Sequence[Cell], declared: set[str], memory: Memory) -> Group:
        """Return the empty grid of the parameters of these cells; those in `declared` are dimensions."""
        settings = [parameters(cell.config) for cell in cells]
        values: dict[str, list[Any]] = {}
        for name in dict.fromkeys(name for one in settings for name in one):
            values[name] = _distinct(one.get(name) for one in settings)
        always = _ALWAYS.get(engine, _ALWAYS_ELSE)
        coords = {n: v for n, v in values.items() if len(v) > 1 or n in declared or n in always}
        group = cls(engine, coords, {n: v[0] for n, v in values.items() if n not in coords}, memory)
        group._text("status", fill=MISSING)
        return group

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each parameter has."""
        return tuple(len(values) for values in self.coords.values())

    def _text(self, name: str, fill: str = "") -> NDArray[Any]:
        if name not in self.scalars:
            self.scalars[name] = np.full(self.shape, fill, dtype=object)
        return self.scalars[name]

    def _number(self, name: str) -> NDArray[Any]:
        if name not in self.scalars:
            self.scalars[name] = np.full(self.shape, np.nan)
        return self.scalars[name]

    def add(self, cell: Cell, result: xr.Dataset | None) -> None:
        """Put a cell at its place on the grid."""
        own = parameters(cell.config)
        at = tuple(values.index(own.get(name)) for name, values in self.coords.items())
        if result is None:
            return
        for name in TEXTS:
            if name in result.attrs or name == "status":
                self._text(name)[at] = str(result.attrs.get(name, FINISHED))
        for dim, counted in (("replica", "n_replicas"), ("repeat", "n_repeats")):
            if dim in result.dims and counted not in result.variables:
                self._number(counted)[at] = result.sizes[dim]
        for key, variable in result.variables.items():
            name = str(key)
            if name in self.coords or name in self.fixed or name == "engine":
                continue
            self.attrs.setdefault(name, dict(variable.attrs))
            if variable.ndim:
                if name not in result.dims:  # an axis goes with its variables
                    self.arrays.setdefault(name, {})[at] = result[name]
                    self.largest[name] = max(self.largest.get(name, 0), variable.size)
            elif variable.dtype.kind in "OUST":
                self._text(name)[at] = str(variable.values.item())
            else:
                self._number(name)[at] = float(variable.values.item())
        self._weigh()

    def _weigh(self) -> None:
        """Drop arrays, here and from now on, when padding them would take too much memory."""
        self.memory.used[self.engine] = 8.0 * math.prod(self.shape) * sum(self.largest.values())
        if self.memory.exceeded:
            self.arrays.clear()

    def dataset(self) -> xr.Dataset:
        """Return the group along its parameters."""
        dims = tuple(self.coords)
        data: dict[str, Any] = {name: (dims, values, self._labels(name)) for name, values in self.scalars.items()}
        for name, found in ({} if self.memory.exceeded else self.arrays).items():
            data |= self._padded(name, found)
        coords: dict[str, Any] = {n: (n, column(v), self._labels(n)) for n, v in self.coords.items()}
        coords |= {n: ((), column([v])[0], self._labels(n)) for n, v in self.fixed.items()}
        return xr.Dataset(data, coords=coords, attrs={"engine": self.engine})

    def _padded(self, name: str, found: Mapping[tuple[int, ...], xr.DataArray]) -> dict[str, Any]:
        """Return an array over the grid, padded to its largest size, and its axes where cells differ in them."""
        dims = next(iter(found.values())).dims
        alike = {at: array for at, array in found.items() if array.dims == dims}
        made, inner = {}, []
        for dim in map(str, dims):
            axes = {at: array[dim] for at, array in alike.items() if dim in array.coords and dim != "replica"}
            inner.append(f"{dim}_number" if axes else dim)
            if axes:
                made[dim] = ((*self.coords, inner[-1]), self._filled(axes), self._labels(dim))
        return made | {name: ((*self.coords, *inner), self._filled(alike), self._labels(name))}

    def _filled(self, found: Mapping[tuple[int, ...], xr.DataArray]) -> NDArray[Any]:
        """Arrays of the cells in one array, what is missing filled."""
        sizes = np.max([array.shape for array in found.values()], axis=0).tolist()
        kind = next(iter(found.values())).dtype.kind
        fill: Any = False if kind == "b" else "" if kind in "OUST" else np.nan
        dtype: Any = np.bool_ if kind == "b" else object if kind in "OUST" else np.float64
        values = np.full((*self.shape, *sizes), fill, dtype=dtype)
        for at, array in found.items():
            inside: tuple[Any, ...] = tuple(slice(0, n) for n in array.shape)
            values[(*at, *inside)] = array.values
        return values

    def _labels(self, name: str) -> dict[str, Any]:
        """Units and long name: the vocabulary's, the cell's own, or the name in words."""
        return labels(name) | {k: v for k, v in self.attrs.get(name, {}).items() if k in ("units", "long_name")}


def labels(name: str) -> dict[str, str]:
    """Return units and long name of a variable of the tree."""
    if name in VARIABLES:
        return {"units": VARIABLES[name].units, "long_name": VARIABLES[name].long_name}
    units, text = _LABELS.get(name, ("1", name.replace("_", " ")))
    return {"units": units, "long_name": text}


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Different values, numbers ascending; texts in the order in which they were declared."""
    found = list(dict.fromkeys(values))
    numbers = all(isinstance(v, int | float) for v in found)
    return sorted(found) if numbers else found


def column(values: Sequence[Any]) -> NDArray[Any]:
    """Values of a parameter as an array; one that was not set is NaN, or empty among texts."""
    if any(isinstance(v, str) for v in values):
        column = np.empty(len(values), dtype=object)
        column[:] = ["" if v is None else str(v) for v in values]
        return column
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return np.array(values)
    return np.array([np.nan if v is None else float(v) for v in values])
