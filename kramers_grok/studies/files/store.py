"""Finished cells of a study as immutable files: what is done is never done again, nor overwritten.

A directory holds one study: ``study.json`` says which, ``cells/`` has one netCDF file for each finished cell, named by
what was asked for. Killing a run loses the cells in flight only. A file that does not hold what was written into it is
put aside in ``damaged/``, and its cell is computed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from kramers_grok.core.exceptions import (
    DamagedFileError,
    DamagedFileWarning,
    InvalidParameterError,
    StudyConflictError,
    StudyWriteError,
)
from kramers_grok.core.schema import canonical_json
from kramers_grok.studies.files import atomic
from kramers_grok.studies.files.content import cell_seed, content_hash
from kramers_grok.studies.files.journal import Journal
from kramers_grok.studies.files.lock import HOLDER, LOCK, locked
from kramers_grok.studies.files.manifest import MANIFEST, Manifest, differences_of, read_manifest
from kramers_grok.studies.files.netcdf import read_netcdf, read_sealed, verify, write_netcdf, write_sealed

__all__ = ["Manifest", "Store", "cell_seed", "content_hash", "read_netcdf", "write_netcdf"]

# A study's summary, which outlives its cells: a clone of the repository holds this one file of each evidence run.
_SUMMARY = "table.nc"
_OURS = frozenset({_SUMMARY, LOCK, HOLDER})
_CHECKPOINT = re.compile(r"(.+-[0-9a-f]{16})\.")  # the cell's part of a checkpoint's name


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
    conflicts : callable, optional
        ``conflicts(held)`` says why a directory that holds the study `held` cannot become this one, a line for each
        reason. Where there is none, the finished cells stay, and the manifest is replaced when the directory is
        locked. Without it every difference is a conflict.

    Raises
    ------
    StudyConflictError
        If the directory belongs to something else; nothing is written.
    StudyWriteError
        If the directory cannot be made or written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = Store(directory, {"seed": 0}, name="demo")
    ...     with store.lock():                                            # no other run works here meanwhile
    ...         first = store.cell("square", {"x": 3}, lambda: xr.Dataset({"y": 9}))
    ...     again = store.cell("square", {"x": 3}, lambda: 1 / 0)         # loaded, not computed
    >>> int(again.y)
    9
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        study: Mapping[str, Any],
        *,
        name: str,
        conflicts: Callable[[Mapping[str, Any]], list[str]] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.name = name
        self.study: dict[str, Any] = json.loads(canonical_json(study))
        self._conflicts = conflicts
        self._claim()
        self._clean()

    def __getstate__(self) -> dict[str, Any]:
        # Workers write cells; whether the directory may become this study was asked before.
        return self.__dict__ | {"_conflicts": None}

    @property
    def _cells(self) -> Path:
        return self.directory / "cells"

    @property
    def _checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def manifest(self) -> Path:
        """The file that says which study this is."""
        return self.directory / MANIFEST

    @property
    def journal(self) -> Journal:
        """What happened here, for progress and estimates."""
        return Journal(self.directory / "journal.jsonl")

    @classmethod
    def opened(cls, directory: str | os.PathLike[str]) -> Store:
        """Return the store of a directory that holds a study, as its manifest says; nothing is written.

        Raises
        ------
        StudyConflictError
            If it holds none, or one of a format that this version does not know.
        """
        held = cls.manifest_of(directory)
        store = cls.__new__(cls)
        store.directory, store.name, store.study, store._conflicts = Path(directory), held.name, held.study, None
        return store

    @staticmethod
    def manifest_of(directory: str | os.PathLike[str]) -> Manifest:
        """Return what a directory says about its study; nothing is written.

        Raises
        ------
        StudyConflictError
            If it holds no study, or one of a format that this version does not know.
        """
        return read_manifest(Path(directory))

    def _clean(self) -> None:
        """Remove what killed processes left half written."""
        for folder in (self.directory, self._cells, self._checkpoints):
            atomic.clean_leftovers(folder)

    def _forget_progress(self) -> None:
        """Remove checkpoints of finished cells: a run may be killed between a cell's end and their removal."""
        if not self._checkpoints.is_dir():
            return
        found = [(path, _CHECKPOINT.match(path.name)) for path in self._checkpoints.iterdir()]
        finished = self.finished_stems() if found else set()
        for path, cell in found:
            if cell and cell[1] in finished:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _claim(self) -> None:
        """Check that the directory is this study's, or make it so if it is empty."""
        if self.directory.exists() and not self.directory.is_dir():
            raise StudyConflictError(
                f"{self.directory} is a file, expected a directory for the results.\nUse another --out."
            )
        if not self.manifest.exists():
            self._refuse_foreign()
            _make(self.directory)
            atomic.write_once(self.manifest, [Manifest(self.name, self.study).text()])
        self._compare()
        _make(self._cells)

    def _refuse_foreign(self) -> None:
        """Raise if there is anything but a summary or the leftovers of a run that was killed before its manifest."""
        if not self.directory.exists():
            return
        names = (p.name for p in self.directory.iterdir())
        found = sorted(name for name in names if name not in _OURS and not atomic.is_leftover(name))
        if found:
            shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise StudyConflictError(
                f"{self.directory} is not empty and holds no study ({shown}): nothing was written into it.\n"
                f"Use another --out, e.g. `--out {self.directory / 'study'}`, or an empty directory."
            )

    def _compare(self) -> bool:
        """Return whether the manifest is this study's; raise if it is one that cannot become it, saying why."""
        held = self.manifest_of(self.directory)
        if held.name != self.name:
            differences = [f"it is a {held.name!r} study, you asked for {self.name!r}"]
        elif held.study == self.study:
            return True
        elif self._conflicts is not None:
            differences = self._conflicts(held.study)
        else:
            differences = list(differences_of(held.study, self.study))
        if differences:
            shown = "\n".join(f"  - {line}" for line in differences[:8])
            raise StudyConflictError(
                f"{self.directory} holds another study; nothing was written:\n{shown}\n"
                f"Use another --out, or the same parameters to resume."
            )
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out of the directory; the operating system frees the lock if this process dies.

        Raises
        ------
        StudyLockedError
            If another run is at work here, with its process, machine and start.
        StudyConflictError
            If another run made the directory its own in the meantime.
        StudyWriteError
            If the directory cannot be written.
        """
        with locked(self.directory):
            if not self._compare():
                atomic.write_over(self.manifest, [Manifest(self.name, self.study).text()])
            self._forget_progress()
            try:
                yield
            finally:  # workers that outlived the run before this one for a moment
                self._clean()
                self._forget_progress()

    def _file(self, name: str, config: Mapping[str, Any]) -> str:
        """Return the name of a cell's file, without its ending."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=+-]*", name):
            raise InvalidParameterError(
                f"`name` = {name!r}, expected letters, digits and any of '_.=+-': it becomes a file name.\n"
                "Put the parameters into `config`, e.g. `store.cell('langevin', {'temperature': T}, "
                "compute)`."
            )
        return f"{name}-{content_hash({'name': name, 'config': config})}"

    def path(self, name: str, config: Mapping[str, Any]) -> Path:
        """Return the file of a cell, finished or not."""
        return self._cells / f"{self._file(name, config)}.nc"

    def checkpoint_path(self, name: str, config: Mapping[str, Any]) -> Path:
        """Return the path of a cell's checkpoints, to which their own ending is added; the folder is made."""
        _make(self._checkpoints)
        return self._checkpoints / self._file(name, config)

    def finished(self) -> list[Path]:
        """Return the files of all finished cells, sorted."""
        return sorted(self._cells.glob("*.nc"))

    def finished_stems(self) -> set[str]:
        """Return the names of the files of all finished cells, without their ending: fast for any number of them."""
        return {entry.name.removesuffix(".nc") for entry in os.scandir(self._cells) if entry.name.endswith(".nc")}

    def has(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether a cell is finished."""
        return self.path(name, config).exists()

    def check(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether a cell is finished and its file's content is what its checksum says.

        A damaged file is put aside, noted in the journal and warned about. It costs reading the file once, without
        opening it as netCDF.

        Warns
        -----
        DamagedFileWarning
            If the file is damaged.
        """
        path = self.path(name, config)
        try:
            if not verify(path):
                read_sealed(path)  # of an older version, or without its end
        except FileNotFoundError:
            return False
        except DamagedFileError as error:
            warnings.warn(str(self._put_aside(error)), DamagedFileWarning, stacklevel=2)
            return False
        return True

    def read(self, name: str, config: Mapping[str, Any]) -> xr.Dataset | xr.DataTree:
        """Return the result of a finished cell.

        Raises
        ------
        FileNotFoundError
            If it is not finished.
        DamagedFileError
            If its file is damaged: it has been put aside, the cell is not finished any more.
        """
        try:
            return read_sealed(self.path(name, config))
        except DamagedFileError as error:
            raise self._put_aside(error) from error

    def write(self, name: str, config: Mapping[str, Any], data: xr.Dataset | xr.DataTree) -> bool:
        """Store a cell's result, unless it is finished, and return whether this call did.

        Raises
        ------
        InvalidParameterError
            If the result is not a Dataset or DataTree.
        StudyWriteError
            If the disk is full, read-only or broken; the cell is not finished then.
        """
        if not isinstance(data, xr.Dataset | xr.DataTree):
            raise InvalidParameterError(
                f"cell {name!r} computed a {type(data).__name__}, expected an xarray Dataset or DataTree: cells "
                "are stored as netCDF.\nReturn `xr.Dataset(...)`."
            )
        return write_sealed(data, self.path(name, config))

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
        InvalidParameterError
            If `compute` does not return a Dataset or DataTree.
        StudyWriteError
            If the result cannot be written.

        Warns
        -----
        DamagedFileWarning
            If the cell's file is damaged: it is put aside, and the cell computed again.
        """
        try:
            return self.read(name, config)
        except FileNotFoundError:
            pass
        except DamagedFileError as error:
            warnings.warn(str(error), DamagedFileWarning, stacklevel=2)
        self.write(name, config, compute())
        return self.read(name, config)

    def _put_aside(self, error: DamagedFileError) -> DamagedFileError:
        """Move a damaged cell out of the way and return the error that says so."""
        try:
            kept = atomic.put_aside(error.path, self.directory / "damaged")
        except OSError:  # a read-only directory, where it stays; or another process was faster
            return error
        self.journal.append("damaged", cell=error.path.stem, file=kept.name, reason=error.reason)
        return DamagedFileError(
            f"{error.path} is damaged ({error.reason}): it is kept as {kept}.\n"
            "Its cell counts as not finished: a run computes it again, and only it.",
            path=error.path,
            reason=error.reason,
            kept=kept,
        )


def _make(directory: Path) -> None:
    """Make a directory unless it is there."""
    if directory.is_dir():  # first: on a read-only disk, making what exists is an error too
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyWriteError(
            f"{directory} cannot be made ({error.strerror or error}): the results go there.\n"
            "Make its parent writable, or use another --out.",
            path=directory,
        ) from error
