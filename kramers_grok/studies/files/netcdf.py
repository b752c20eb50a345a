"""Data sets and trees as netCDF files whose every bit is checked when they are read.

After the end of the HDF5 data, where no reader looks, the file says the SHA-256 of all that comes before. Files of
other programs, and older ones, have no such footer and are read all the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import xarray as xr

from kramers_grok.core.exceptions import DamagedFileError
from kramers_grok.core.schema import canonical_json
from kramers_grok.studies.files.atomic import write_once, write_over

__all__ = ["read_netcdf", "read_sealed", "verify", "write_netcdf", "write_sealed"]

_JSON = "json:"  # marks an attribute that netCDF has no type for
_KIND = "netcdf_kind"
_SEAL = "netcdf_footer"  # says inside the file that it must have a footer: its loss is damage, too
_MARK = b"\nsha256 "
_FOOTER = len(_MARK) + 64 + 1
_CHUNK = 1 << 20
# Errors that another moment or another user would not see: the file may be sound.
_NOT_THE_FILE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


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


def _content(data: xr.Dataset | xr.DataTree, *, sealed: bool) -> list[bytes | memoryview]:
    """Return the parts of the file: what netCDF says, and the footer."""
    encoded: xr.Dataset | xr.DataTree
    if isinstance(data, xr.DataTree):
        encoded = data.map_over_datasets(_map_attrs, _encode)
        kind = "tree"
    else:
        encoded = _map_attrs(data, _encode)
        kind = "dataset"
    encoded.attrs = encoded.attrs | {_KIND: kind} | ({_SEAL: "sha256"} if sealed else {})
    with _without_cluster():
        body = encoded.to_netcdf(engine="h5netcdf")
    return [body, _MARK + hashlib.sha256(body).hexdigest().encode() + b"\n"]


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def _without_cluster() -> Iterator[None]:
    """Keep xarray from asking a dask cluster, in one of whose processes this may be, for a lock on bytes in memory.

    The cluster knows no such file, and the write fails (xarray 2026.9 with distributed 2026.8).
    """
    dask = sys.modules.get("dask")
    if dask is None:
        yield
        return
    with _ONE_AT_A_TIME, dask.config.set(scheduler="synchronous"):
        yield


def write_netcdf(data: xr.Dataset | xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a data set or tree with h5netcdf, every attribute kept (`read_netcdf` gives them back).

    An existing file is replaced in one step when the new one is complete.

    Raises
    ------
    StudyWriteError
        If the disk is full, read-only or broken; an existing file is as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_netcdf(xr.Dataset({"x": 3}, attrs={"flag": True}), f"{directory}/table.nc")
    ...     has_checksum = verify(f"{directory}/table.nc")
    ...     table = read_netcdf(f"{directory}/table.nc")
    >>> has_checksum, int(table.x), table.attrs
    (True, 3, {'flag': True})
    """
    write_over(Path(path), _content(data, sealed=False))


def write_sealed(data: xr.Dataset | xr.DataTree, path: Path) -> bool:
    """Write a file that is never changed again, unless it exists, and return whether this call made it.

    Raises
    ------
    StudyWriteError
        As `write_netcdf`.
    """
    return write_once(path, _content(data, sealed=True))


def verify(path: str | os.PathLike[str]) -> bool:
    """Compare a file with the checksum at its end, without opening it as netCDF.

    Returns
    -------
    bool
        Whether it has one.

    Raises
    ------
    DamagedFileError
        If it is not the file's.
    """
    with open(path, "rb") as file:
        stated = _stated(file)
        if stated is None:
            return False
        if _digest(file) != stated:
            raise _damaged(path, "its content is not what its checksum says")
        return True


def _stated(file: BinaryIO) -> bytes | None:
    """Return the digest that the footer states, None where there is no footer."""
    size = file.seek(0, os.SEEK_END)
    if size < _FOOTER:
        return None
    file.seek(size - _FOOTER)
    footer = file.read(_FOOTER)
    return footer[len(_MARK) : -1] if footer.startswith(_MARK) and footer.endswith(b"\n") else None


def _digest(file: BinaryIO) -> bytes:
    """Hash everything but the footer."""
    left = file.seek(0, os.SEEK_END) - _FOOTER
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def read_netcdf(path: str | os.PathLike[str]) -> xr.Dataset | xr.DataTree:
    """Read what `write_netcdf` wrote into memory and close the file.

    Raises
    ------
    DamagedFileError
        If the file is damaged, with its name and what to do.
    """
    verify(path)
    return _read(path)


def read_sealed(path: Path) -> xr.Dataset | xr.DataTree:
    """Read what `write_sealed` wrote; a file that says it has a footer and has none is damaged.

    Raises
    ------
    DamagedFileError
        If the file is damaged.
    """
    if not verify(path):
        # With h5py alone: h5netcdf leaves half-open files behind where the damage is in the wrong place.
        with _explained(path), h5py.File(path, "r") as file:
            cut = _SEAL in file.attrs
        if cut:
            raise _damaged(path, "its end is missing")
    return _read(path)


def _read(path: str | os.PathLike[str]) -> xr.Dataset | xr.DataTree:
    data: xr.Dataset | xr.DataTree
    with _explained(path):
        with xr.open_dataset(path, engine="h5netcdf") as root:
            kind = root.attrs.get(_KIND)
            if kind == "dataset":  # several times faster than as a tree
                data = root.load()
        if kind != "dataset":
            with xr.open_datatree(path, engine="h5netcdf") as opened:
                data = opened.load()
        for name in (_KIND, _SEAL):
            data.attrs.pop(name, None)
        return (
            data.map_over_datasets(_map_attrs, _decode) if isinstance(data, xr.DataTree) else _map_attrs(data, _decode)
        )


@contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what a library says about a file that it cannot read into our error."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError … by where the damage is
        if isinstance(error, OSError) and error.errno in _NOT_THE_FILE:
            raise
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _damaged(path: str | os.PathLike[str], why: str) -> DamagedFileError:
    name = os.fspath(path)
    return DamagedFileError(
        f"{name} cannot be read ({why}): the file is damaged, it was written whole or not at all.\n"
        f"Delete it (`rm '{name}'`) and run again: only it is redone.",
        path=path,
        reason=why,
    )
