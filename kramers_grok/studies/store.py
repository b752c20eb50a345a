"""Finished cells of a study as immutable files: what is done is never done again, nor overwritten.

A directory holds one study: ``study.json`` says which, ``cells/`` has one netCDF file for
each finished cell, named by what was asked for. Killing a run loses the cells in flight only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, KramersGrokError, StudyConflictError
from kramers_grok.core.schema import canonical_json, package_version

__all__ = ["Store", "cell_seed", "content_hash", "read_netcdf", "write_netcdf"]

_FORMAT = "kramers_grok study 1"
_JSON = "json:"  # marks an attribute that netCDF has no type for
# A study's summary, which outlives its cells: a clone of the repository holds this one file of each evidence run.
_SUMMARY = "table.nc"
_TEMPORARY = re.compile(r"^\.(?P<host>.+)\.(?P<pid>\d+)\.[0-9a-f]{32}\.tmp$")


def content_hash(configuration: Any) -> str:
    """Return 16 hexadecimal digits that depend on the configuration's content only.

    Examples
    --------
    >>> content_hash({"a": 1, "b": (2.0,)}) == content_hash({"b": [np.float64(2.0)], "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(configuration).encode()).hexdigest()[:16]


def cell_seed(seed: int, config: Any) -> int:
    """Derive the 64-bit seed of a cell from the study's seed and the cell's content.

    It does not depend on which other cells there are, nor on their order: `numpy.random.SeedSequence`
    with the hash of the content as its spawn key.

    Examples
    --------
    >>> cell_seed(0, {"lr": 0.1}) == cell_seed(0, {"lr": 0.1}) != cell_seed(1, {"lr": 0.1})
    True
    """
    digest = hashlib.sha256(canonical_json(config).encode()).digest()
    key = tuple(int(word) for word in np.frombuffer(digest, dtype="<u4"))
    sequence = np.random.SeedSequence(entropy=checks.seed(seed), spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0])


def _encode(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Replace attributes that netCDF cannot hold (booleans, None, mappings, empty lists) by marked JSON."""
    encoded = {}
    for name, value in attrs.items():
        if isinstance(value, bool | np.bool_):
            encoded[name] = _JSON + json.dumps(bool(value))
        elif value is None or isinstance(value, Mapping | list | tuple):
            encoded[name] = _JSON + canonical_json(value)
        elif isinstance(value, str) and value.startswith(_JSON):
            encoded[name] = _JSON + json.dumps(value)
        else:
            encoded[name] = value
    return encoded


def _decode(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Undo `_encode`, and give back Python numbers for numpy's scalars."""
    decoded = {}
    for name, value in attrs.items():
        if isinstance(value, str) and value.startswith(_JSON):
            value = json.loads(value.removeprefix(_JSON))
        elif isinstance(value, np.generic):
            value = value.item()
        decoded[name] = value
    return decoded


def _map_attrs(ds: xr.Dataset, change: Callable[[Mapping[Any, Any]], dict[Any, Any]]) -> xr.Dataset:
    out = ds.copy()
    out.attrs = change(out.attrs)
    for name in out.variables:
        out[name].attrs = change(out[name].attrs)
    return out


def write_netcdf(data: xr.Dataset | xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a data set or tree with h5netcdf, every attribute kept (`read_netcdf` gives them back).

    An existing file is replaced in one step when the new one is complete.
    """
    final = Path(path)
    temporary = _temporary(final.parent)
    try:
        _write(data, temporary)
        _sync(temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def _write(data: xr.Dataset | xr.DataTree, path: Path) -> None:
    """Write the encoded data under a name that nobody reads yet."""
    encoded: xr.Dataset | xr.DataTree
    if isinstance(data, xr.DataTree):
        encoded = data.map_over_datasets(_map_attrs, _encode)
        kind = "tree"
    else:
        encoded = _map_attrs(data, _encode)
        kind = "dataset"
    encoded.attrs = encoded.attrs | {"netcdf_kind": kind}
    encoded.to_netcdf(path, engine="h5netcdf")


def read_netcdf(path: str | os.PathLike[str]) -> xr.Dataset | xr.DataTree:
    """Read what `write_netcdf` wrote into memory and close the file.

    Raises
    ------
    KramersGrokError
        If the file is damaged, with its name and what to do.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as root:
            if root.attrs.get("netcdf_kind") == "dataset":  # several times faster than as a tree
                dataset = root.load()
                dataset.attrs.pop("netcdf_kind")
                return _map_attrs(dataset, _decode)
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
        tree.attrs.pop("netcdf_kind", None)
        return tree.map_over_datasets(_map_attrs, _decode)
    except FileNotFoundError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError … by where the damage is
        raise KramersGrokError(
            f"{os.fspath(path)} cannot be read ({type(error).__name__}: {error}): the file is damaged, "
            "finished cells "
            f"are written whole or not at all.\nDelete it (`rm '{os.fspath(path)}'`) and run again: only "
            "it is redone."
        ) from error


def _temporary(directory: Path) -> Path:
    """Name of a file in the making; host and process tell whose it is."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "host"
    return directory / f".{host}.{os.getpid()}.{uuid.uuid4().hex}.tmp"


def _sync(path: Path) -> None:
    """Force a file (or directory entry, where the system can) to disk."""
    with contextlib.suppress(OSError, PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(temporary: Path, final: Path) -> None:
    """Give a finished file its name; if another process was first, its file stays."""
    _sync(temporary)
    try:
        os.link(temporary, final)  # unlike a rename, fails where the name exists
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not final.exists():
            os.replace(temporary, final)
    temporary.unlink(missing_ok=True)
    _sync(final.parent)


def _clean_leftovers(directory: Path) -> None:
    """Remove temporary files of processes of this host that are gone; those of others may be alive."""
    if os.name != "posix" or not directory.is_dir():
        return
    host = _TEMPORARY.match(_temporary(directory).name)
    for path in directory.iterdir():
        found = _TEMPORARY.match(path.name)
        if not found or not host or found["host"] != host["host"]:
            continue
        try:
            os.kill(int(found["pid"]), 0)  # signal 0 asks whether the process exists
        except (ProcessLookupError, OverflowError):
            path.unlink(missing_ok=True)
        except OSError:
            continue


class Store:
    """The directory of one study.

    Parameters
    ----------
    directory : path
        Made if absent. A directory that holds another study, or anything else than the summary ``table.nc`` of one
        whose cells are gone, is refused untouched.
    study : mapping
        What identifies the study (its parameters and seed), of numbers, text, lists and mappings.
    name : str
        What kind of study it is, e.g. "reproduce".

    Raises
    ------
    StudyConflictError
        If the directory belongs to something else; nothing is written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = Store(directory, {"seed": 0}, name="demo")
    ...     first = store.cell("square", {"x": 3}, lambda: xr.Dataset({"y": 9}))
    ...     again = store.cell("square", {"x": 3}, lambda: 1 / 0)      # loaded, not computed
    >>> int(again.y)
    9
    """

    def __init__(self, directory: str | os.PathLike[str], study: Mapping[str, Any], *, name: str) -> None:
        self.directory = Path(directory)
        self.name = name
        self.study: dict[str, Any] = json.loads(canonical_json(study))
        self._claim()
        self._cells.mkdir(exist_ok=True)
        for folder in (self.directory, self._cells):
            _clean_leftovers(folder)

    @property
    def _cells(self) -> Path:
        return self.directory / "cells"

    @property
    def manifest(self) -> Path:
        """The file that says which study this is."""
        return self.directory / "study.json"

    def _claim(self) -> None:
        """Check that the directory is this study's, or make it so if it is empty."""
        if self.directory.exists() and not self.directory.is_dir():
            raise StudyConflictError(
                f"{self.directory} is a file, expected a directory for the results.\nUse another --out."
            )
        if not self.manifest.exists():
            self._refuse_foreign()
            self.directory.mkdir(parents=True, exist_ok=True)
            text = {
                "format": _FORMAT,
                "name": self.name,
                "hash": content_hash({"name": self.name, "study": self.study}),
                "kramers_grok_version": package_version(),
                "study": self.study,
            }
            temporary = _temporary(self.directory)
            temporary.write_text(json.dumps(text, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            _publish(temporary, self.manifest)
        self._compare()

    def _refuse_foreign(self) -> None:
        """Raise if there is anything but a summary or the leftovers of a run that was killed before its manifest."""
        if not self.directory.exists():
            return
        names = (p.name for p in self.directory.iterdir())
        found = sorted(name for name in names if name != _SUMMARY and not _TEMPORARY.match(name))
        if found:
            shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise StudyConflictError(
                f"{self.directory} is not empty and holds no study ({shown}): nothing was written into it.\n"
                f"Use another --out, e.g. `--out {self.directory / 'study'}`, or an empty directory."
            )

    def _compare(self) -> None:
        """Raise if the manifest is of another study, saying what differs."""
        try:
            held = json.loads(self.manifest.read_text(encoding="utf-8"))
            held_study, held_name, held_format = dict(held["study"]), str(held["name"]), str(held["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise StudyConflictError(
                f"{self.manifest} is not the manifest of a study ({type(error).__name__}): nothing was "
                "written.\n"
                "Use another --out."
            ) from error
        differences = list(_differences(held_study, self.study))
        if held_name != self.name:
            differences.insert(0, f"it is a {held_name!r} study, you asked for {self.name!r}")
        if held_format != _FORMAT:
            differences.insert(0, f"it has format {held_format!r}, this version writes {_FORMAT!r}")
        if differences:
            shown = "\n".join(f"  - {line}" for line in differences[:8])
            raise StudyConflictError(
                f"{self.directory} holds another study; nothing was written:\n{shown}\n"
                f"Use another --out, or the same parameters to resume."
            )

    def path(self, name: str, config: Mapping[str, Any]) -> Path:
        """Return the file of a cell, finished or not."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=+-]*", name):
            raise InvalidParameterError(
                f"`name` = {name!r}, expected letters, digits and any of '_.=+-': it becomes a file name.\n"
                "Put the parameters into `config`, e.g. `store.cell('langevin', {'temperature': T}, "
                "compute)`."
            )
        return self._cells / f"{name}-{content_hash({'name': name, 'config': config})}.nc"

    def finished(self) -> list[Path]:
        """Return the files of all finished cells, sorted."""
        return sorted(self._cells.glob("*.nc"))

    def has(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether a cell is finished."""
        return self.path(name, config).exists()

    def cell(
        self, name: str, config: Mapping[str, Any], compute: Callable[[], xr.Dataset | xr.DataTree]
    ) -> xr.Dataset | xr.DataTree:
        """Return a cell's result: from its file where there is one, else computed and stored.

        What is returned always comes from the file, so a resumed run sees the same as the first.

        Parameters
        ----------
        name : str
            Kind of cell, part of the file name.
        config : mapping
            Everything the result depends on; its content names the file.
        compute : callable
            Makes the result (use `cell_seed` for its seed); called only if the cell is not finished.

        Raises
        ------
        KramersGrokError
            If the cell's file is damaged.
        InvalidParameterError
            If `compute` does not return a Dataset or DataTree.
        """
        path = self.path(name, config)
        if not path.exists():
            result = compute()
            if not isinstance(result, xr.Dataset | xr.DataTree):
                raise InvalidParameterError(
                    f"cell {name!r} computed a {type(result).__name__}, expected an xarray Dataset or "
                    "DataTree: cells "
                    "are stored as netCDF.\nReturn `xr.Dataset(...)`."
                )
            temporary = _temporary(path.parent)
            try:
                _write(result, temporary)
                _publish(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return read_netcdf(path)


def _differences(held: Any, asked: Any, where: str = "") -> Iterator[str]:
    """Say where two configurations differ, leaf by leaf."""
    if isinstance(held, dict) and isinstance(asked, dict):
        for key in sorted(held.keys() | asked.keys()):
            yield from _differences(held.get(key), asked.get(key), f"{where}.{key}" if where else str(key))
    elif held != asked:
        yield f"`{where}` is {held!r} there, you asked for {asked!r}"
