"""Write the page of whatever study a directory holds."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import xarray as xr

from kramers_grok.report import escape, job
from kramers_grok.report.page import NAME, Page, render
from kramers_grok.report.provenance import provenance
from kramers_grok.report.text import shortened, toml
from kramers_grok.studies.files import atomic
from kramers_grok.studies.files.store import Manifest, Store, read_netcdf
from kramers_grok.studies.running.study import study_from

__all__ = ["write_page"]

_EXPORT = "study.nc"


def write_page(out: str | os.PathLike[str], *, tree: xr.DataTree | None = None, command: str | None = None) -> Path:
    """Write the page of a study's directory, ``<out>/report.html``; of a study that is half done, with what there is.

    Parameters
    ----------
    out : path
        The directory of a study, or of the main job.
    tree : DataTree, optional
        What `Study.gather` returns; gathered from the directory if not given.
    command : str, optional
        What makes the study again.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    StudyConflictError
        If the directory holds no study.
    StudyWriteError
        If the page cannot be written.
    """
    directory = Path(out)
    manifest = Store.manifest_of(directory)
    final = directory / NAME
    atomic.write_over(final, [render(_page(directory, manifest, tree, command)).encode("utf-8")])
    return final


def _page(directory: Path, manifest: Manifest, tree: xr.DataTree | None, command: str | None) -> Page:
    where = shlex.quote(directory.name or "results")
    if manifest.name == job.KIND:
        return job.page(directory, manifest, tree=tree, command=command or job.command(manifest, where))
    tree = _tree(directory, manifest) if tree is None else tree
    command = command or f"kramers-grok study run study.toml --out {where}"
    origin = provenance(directory, manifest, [tree])
    if "comparison" in tree.children:
        return escape.page(tree, command=command, provenance=origin)
    return Page(
        kind=f"Study of the kind “{shortened(manifest.name, 60)}”",
        title=shortened(str(manifest.study.get("title", "")) or directory.name, 400),
        headline=f"The study's data have {len(list(tree.subtree))} groups; there are no verdicts for its kind.",
        complete=True,
        command=command,
        declaration=toml({"kind": manifest.name} | manifest.study),
        provenance=origin,
    )


def _tree(directory: Path, manifest: Manifest) -> xr.DataTree:
    """Gather a study from its cells; where only its export is left, read that."""
    store = Store.opened(directory)
    if not store.finished() and (directory / _EXPORT).is_file():
        data = read_netcdf(directory / _EXPORT)
        return data if isinstance(data, xr.DataTree) else xr.DataTree(data)
    return study_from(manifest.name, manifest.study).gather(store)
