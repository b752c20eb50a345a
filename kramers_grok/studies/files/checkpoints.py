"""Checkpoints of a cell as files: each save replaces the one before, whole or not at all.

A cell's states lie beside each other as ``NAME-HASH.PART.nc``. They are read by the version that wrote them only:
another one may take other steps. A damaged file, or one of another version, counts as none, and its part begins anew.

No torch here, so that whoever looks after cells need not wait for it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import xarray as xr

from kramers_grok.core.exceptions import DamagedFileError, StudyInterrupted
from kramers_grok.core.schema import package_version
from kramers_grok.studies.files.netcdf import read_netcdf, write_netcdf

__all__ = ["FileCheckpoint"]

_VERSION = "written_by"
SHARE = 0.05  # of the time at most goes into saving
LOOK = 1.0  # seconds between two looks for a stop: on a shared disk each is a question to a server


class FileCheckpoint:
    """Keeps the states of one cell's parts in files.

    Parameters
    ----------
    path : path
        What all file names begin with, as from `Store.checkpoint_path`.
    every : float
        Seconds between saves; more where a save takes long, so that saving takes a twentieth of the time at most.
    stop_file : path, optional
        A save is due at once when this file appears, and `StudyInterrupted` is raised after it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     checkpoint = FileCheckpoint(Path(directory) / "cell")
    ...     checkpoint.save("walk", xr.Dataset({"x": 3}))
    ...     held = FileCheckpoint(Path(directory) / "cell").load("walk")
    ...     checkpoint.clear()
    ...     left = os.listdir(directory)
    >>> int(held.x), left
    (3, [])
    """

    def __init__(
        self, path: str | os.PathLike[str], *, every: float = 60.0, stop_file: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = Path(path)
        self.every = every
        self.stop_file = None if stop_file is None else Path(stop_file)
        self._wait, self._saved = every, time.monotonic()
        self._looked, self._stop = -LOOK, False

    def load(self, name: str) -> xr.Dataset | None:
        """Return what was saved last under this name; None if nothing, or nothing that can be used."""
        try:
            data = read_netcdf(self._file(name))
        except (FileNotFoundError, DamagedFileError):
            return None
        if not isinstance(data, xr.Dataset) or data.attrs.pop(_VERSION, None) != package_version():
            return None
        return data

    def due(self) -> bool:
        """Whether it is time to save, or a stop was asked for."""
        now = time.monotonic()
        return now - self._saved >= self._wait or self._stopping(now)

    def save(self, name: str, data: xr.Dataset) -> None:
        """Keep `data` in place of what was saved under this name before.

        Raises
        ------
        StudyInterrupted
            After saving, if a stop was asked for.
        StudyWriteError
            If the disk is full, read-only or broken; the save before is still there.
        """
        began = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_netcdf(data.assign_attrs({_VERSION: package_version()}), self._file(name))
        self._saved = time.monotonic()
        self._wait = max(self.every, (self._saved - began) / SHARE)
        if self._stopping(self._saved):
            raise StudyInterrupted(f"{self.path.name} was asked to stop; its state is on disk and goes on from there.")

    def clear(self) -> None:
        """Remove all states of the cell, once its result is safe."""
        for path in self.path.parent.glob(f"{self.path.name}.*"):
            path.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}.nc")

    def _stopping(self, now: float) -> bool:
        """Whether a stop was asked for; it is not taken back."""
        if self.stop_file is not None and not self._stop and now - self._looked >= LOOK:
            self._looked, self._stop = now, self.stop_file.exists()
        return self._stop
