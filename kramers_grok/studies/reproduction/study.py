"""The main job as a study like any other: declared, resumable, gathered into one tree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import xarray as xr

from kramers_grok.core import checks
from kramers_grok.core.schema import canonical_json
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell

if TYPE_CHECKING:
    from kramers_grok.studies.reproduction.job import Arm

__all__ = ["Reproduction", "results_of"]

# What says where and when a cell was computed: it differs where results do not.
_ABOUT_THE_RUN = ("host", "seconds", "started")


@dataclass(frozen=True)
class Reproduction:
    """The main job.

    Attributes
    ----------
    settings : Settings
    arms : tuple of str, optional
        Only these arms belong to the study; all if empty.
    device : str
        "auto" takes CUDA where there is one.
    chosen : tuple of str, optional
        Compute only these now; the study is the same. All its arms if empty.

    Examples
    --------
    >>> Reproduction.from_declaration({"quick": True, "seed": 3}).settings.n_replicas
    256
    """

    settings: Settings
    arms: tuple[str, ...] = ()
    device: str = "auto"
    chosen: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Always "reproduce"."""
        return "reproduce"

    @classmethod
    def from_declaration(cls, declaration: Mapping[str, Any]) -> Reproduction:
        """Build it from what a manifest or a TOML file says.

        ``seed`` and ``quick`` choose the settings, ``arms`` and ``device`` restrict what is computed and where; any
        setting of `Settings` may be given as well.

        Raises
        ------
        InvalidParameterError
            For a key that does not exist or a value that breaks its rule.
        """
        given = {key: value for key, value in declaration.items() if key != "kind"}
        quick = given.pop("quick", False)
        if not isinstance(quick, bool):
            raise checks.invalid("quick", quick, "true or false")
        from kramers_grok.studies.reproduction.job import arms_asked_for

        arms, device = given.pop("arms", ()), given.pop("device", "auto")
        given.pop("title", None)
        if not isinstance(device, str):
            raise checks.invalid("device", device, "'auto', 'cpu' or 'cuda'")
        settings = Settings.make(seed=given.pop("seed", 0), quick=quick).changed(given)
        return cls(settings, arms_asked_for(arms), device)

    def declaration(self) -> dict[str, Any]:
        """Return the settings, and the arms and the device where they are not all and any."""
        own: dict[str, Any] = {"arms": list(self.arms)} if self.arms else {}
        if self.device != "auto":
            own["device"] = self.device
        return self._settings() | own

    def _settings(self) -> dict[str, Any]:
        """The settings of JSON's types, as they come back from a file."""
        found: dict[str, Any] = json.loads(canonical_json(self.settings.as_mapping()))
        return found

    def conflicts(self, held: Mapping[str, Any]) -> list[str]:
        """Name the settings that differ: arms may come and go, and the device is where it runs."""
        asked = self._settings()
        keys = sorted((held.keys() | asked.keys()) - {"arms", "device"})
        return [
            f"`{key}` is {held.get(key)!r} there, you asked for {asked.get(key)!r}"
            for key in keys
            if held.get(key) != asked.get(key)
        ]

    def modules(self) -> dict[str, Arm]:
        """Return the arms to compute now, in their usual order."""
        from kramers_grok.studies.reproduction.job import ARMS

        wanted = self.chosen or self.arms or tuple(ARMS)
        return {name: arm for name, arm in ARMS.items() if name in wanted}

    def cells_of(self, name: str) -> list[Cell]:
        """Return the cells of one arm."""
        own = self.modules()[name].cells(self.settings, self.device)
        return [replace(cell, seed=self.settings.seed) for cell in own]

    def cells(self) -> list[Cell]:
        """Return the cells of all arms to compute now."""
        return [cell for name in self.modules() for cell in self.cells_of(name)]

    def gather(self, store: Store) -> xr.DataTree:
        """Return a tree with a node for each arm whose cells are all finished; the root names the others."""
        trees, unfinished = {}, []
        for name, arm in self.modules().items():
            cells = self.cells_of(name)
            if all(store.has(cell.name, cell.config) for cell in cells):
                trees[name] = arm.gather(self.settings, results_of(store, cells))
            else:
                unfinished.append(name)
        tree = xr.DataTree(xr.Dataset(attrs={"unfinished_arms": unfinished}), name="reproduce")
        for name, arm_tree in trees.items():
            tree[name] = arm_tree
        return tree


def results_of(store: Store, cells: Sequence[Cell]) -> list[xr.Dataset]:
    """Read finished cells, without what is said about the run that made them.

    Raises
    ------
    DamagedFileError
        If a file is damaged: it is put aside then, and its cell is not finished any more.
    """
    results = []
    for cell in cells:
        result = store.read(cell.name, cell.config)
        assert isinstance(result, xr.Dataset)
        for name in _ABOUT_THE_RUN:
            result.attrs.pop(name, None)
        results.append(result)
    return results
