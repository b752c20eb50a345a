"""What a long run needs of a place that keeps its state, so that it goes on bit for bit where it was killed.

A run hands over everything that its future depends on: parameters, buffers, noise streams, the step, and what was seen
so far. Noise is a function of these (it is counter based), so nothing else has to be kept. A state belongs to one run;
what is found under a run's name is compared with a text that says which run it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["Checkpoint", "Scoped", "load", "pack", "scoped", "unpack"]


class Checkpoint(Protocol):
    """Keeps the latest state of each named part of a run."""

    def load(self, name: str) -> xr.Dataset | None:
        """Return what `save` kept last under this name, None if nothing (or only something damaged)."""
        ...

    def due(self) -> bool:
        """Whether to save now: enough time has passed since the last save, or a stop was asked for. Cheap."""
        ...

    def save(self, name: str, data: xr.Dataset) -> None:
        """Keep `data` under this name in one step: a kill leaves the state before or this one, nothing between.

        Raises
        ------
        StudyInterrupted
            After saving, if a stop was asked for.
        """
        ...


@dataclass(frozen=True)
class Scoped:
    """A checkpoint for one part of a run: its names begin with the part's.

    Attributes
    ----------
    checkpoint : Checkpoint
    part : str
    """

    checkpoint: Checkpoint
    part: str

    def load(self, name: str) -> xr.Dataset | None:
        """As of the whole checkpoint."""
        return self.checkpoint.load(f"{self.part}.{name}")

    def due(self) -> bool:
        """As of the whole checkpoint."""
        return self.checkpoint.due()

    def save(self, name: str, data: xr.Dataset) -> None:
        """As of the whole checkpoint."""
        self.checkpoint.save(f"{self.part}.{name}", data)


def scoped(checkpoint: Checkpoint | None, part: str) -> Checkpoint | None:
    """Return the checkpoint of one part; None of None."""
    return None if checkpoint is None else Scoped(checkpoint, part)


def pack(arrays: Mapping[str, Tensor | NDArray[Any]], facts: Mapping[str, Any]) -> xr.Dataset:
    """Return arrays of any names, shapes and types, and facts that JSON knows, as one data set.

    Arrays are laid flat with their shapes beside them: netCDF has neither empty dimensions nor every name.

    Examples
    --------
    >>> arrays, facts = unpack(pack({"a/b": torch.zeros(0, 2), "c": np.array([True])}, {"best": float("inf")}))
    >>> arrays["a/b"].shape, arrays["c"].tolist(), facts
    (torch.Size([0, 2]), [True], {'best': inf})
    """
    data, layout = {}, []
    for number, (name, given) in enumerate(arrays.items()):
        array = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        layout.append([name, list(array.shape)])
        flat = array.ravel() if array.size else np.zeros(1, array.dtype)
        data[f"array_{number}"] = xr.Variable(f"entry_{number}", flat, encoding={"_FillValue": None})
    return xr.Dataset(data, attrs={"layout": json.dumps(layout), "facts": json.dumps(dict(facts))})


def unpack(ds: xr.Dataset) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the arrays, as tensors on the CPU, and the facts that `pack` was given."""
    arrays = {}
    for number, (name, shape) in enumerate(json.loads(ds.attrs["layout"])):
        flat = np.array(ds[f"array_{number}"].values)  # a copy that can be written to
        arrays[name] = torch.from_numpy(flat[: int(np.prod(shape))].reshape(shape))
    return arrays, json.loads(ds.attrs["facts"])


def load(checkpoint: Checkpoint | None, name: str, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the arrays and facts kept under a name, None if there are none.

    Raises
    ------
    InvalidParameterError
        If they are those of another run: `run` is the text that its facts hold as ``run``.
    """
    held = None if checkpoint is None else checkpoint.load(name)
    if held is None:
        return None
    arrays, facts = unpack(held)
    if facts["run"] != run:
        raise InvalidParameterError(
            f"`checkpoint` holds the state of another run under {name!r}, expected this one's: it would go on from "
            "where another process stands.\nUse one checkpoint for one run, or clear it."
        )
    return arrays, facts
