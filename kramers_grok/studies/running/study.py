"""What a study is to the runner, and how a directory's manifest or a TOML file becomes one again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import xarray as xr

from kramers_grok.core import checks
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running.cells import Cell

__all__ = ["Study", "declared", "load", "read_study", "register", "study_from"]


@runtime_checkable
class Study(Protocol):
    """A grid of independent cells with a declaration that can be kept in a file."""

    @property
    def kind(self) -> str:
        """Which kind of study it is, e.g. "escape" or "reproduce"."""
        ...

    def declaration(self) -> dict[str, Any]:
        """Return all that makes the study, of JSON's types; `study_from` rebuilds the study from it.

        Returns
        -------
        dict
        """
        ...

    def conflicts(self, held: Mapping[str, Any]) -> list[str]:
        """Say why a directory that holds `held` cannot take this study; nothing to say means that it can.

        Parameters
        ----------
        held : mapping
            The declaration of the directory.

        Returns
        -------
        list of str
        """
        ...

    def cells(self) -> list[Cell]:
        """Return what must be computed.

        Returns
        -------
        list of Cell
        """
        ...

    def gather(self, store: Store) -> xr.DataTree:
        """Put what is finished into one labelled tree; cells without a file are missing values.

        Parameters
        ----------
        store : Store

        Returns
        -------
        DataTree
        """
        ...


# Kinds by name, so that a manifest, which may come from anywhere, can only choose among these.
_KINDS: dict[str, str | Callable[[Mapping[str, Any]], Study]] = {
    "escape": "kramers_grok.studies.escape.study:EscapeStudy",
    "reproduce": "kramers_grok.studies.reproduction.study:Reproduction",
}


def register(kind: str, factory: Callable[[Mapping[str, Any]], Study]) -> None:
    """Make a kind of study known in this process: `factory` takes its declaration and returns it."""
    _KINDS[kind] = factory


def study_from(kind: str, declaration: Mapping[str, Any]) -> Study:
    """Build a study of a known kind from its declaration.

    Raises
    ------
    InvalidParameterError
        For a kind that does not exist, or a declaration that breaks one of its rules.
    """
    if kind not in _KINDS:
        names = ", ".join(repr(name) for name in _KINDS)
        raise checks.invalid("kind", kind, f"one of {names}", "these are the studies there are")
    known = _KINDS[kind]
    if isinstance(known, str):
        module, name = known.split(":")
        study: Study = getattr(import_module(module), name).from_declaration(declaration)
        return study
    return known(declaration)


def declared(declaration: Mapping[str, Any]) -> Study:
    """Build the study that a declaration with its ``kind`` in it describes; ``"escape"`` if it names none."""
    rest = dict(declaration)
    kind = rest.pop("kind", "escape")
    if not isinstance(kind, str):
        raise checks.invalid("kind", kind, "the name of a kind of study")
    return study_from(kind, rest)


def load(path: str | os.PathLike[str]) -> Study:
    """Read a study's declaration from a TOML file.

    Raises
    ------
    InvalidParameterError
        If the file is not there, is not TOML, or declares something that is not allowed.
    """
    from kramers_grok.studies.schema.declaration import read_toml

    return declared(read_toml(Path(path)))


def read_study(directory: str | os.PathLike[str]) -> xr.DataTree:
    """Put what a study's directory holds into one labelled tree; cells that are not finished are missing values.

    The groups ``theory``, ``langevin`` and ``sgd`` of an escape study have the declared parameters as dimensions, so
    that ``read_study(directory)["sgd"].sel(lr=0.05)`` works; ``comparison`` has a row for each simulated cell.

    Parameters
    ----------
    directory : path

    Returns
    -------
    DataTree

    Raises
    ------
    StudyConflictError
        If the directory holds no study.
    DamagedFileError
        If a cell's file is damaged: it is set aside, and running the study again makes it anew.
    """
    store = Store.opened(directory)
    return study_from(store.name, store.study).gather(store)
