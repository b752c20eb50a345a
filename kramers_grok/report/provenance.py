"""Where a study's results come from: versions, hosts, time and the hashes that name them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core.schema import package_version
from kramers_grok.report.text import shortened
from kramers_grok.studies.files.journal import Journal
from kramers_grok.studies.files.store import Manifest, content_hash

__all__ = ["provenance"]

_VERSIONS = {"kramers_grok_version": "kramers_grok", "numpy_version": "numpy", "torch_version": "torch",
             "device": "device", "dtype": "precision"}  # fmt: skip


def provenance(
    directory: Path | None, manifest: Manifest | None, trees: Sequence[xr.DataTree] = ()
) -> list[tuple[str, str]]:
    """Return what is known of a study's origin, as names and values.

    Parameters
    ----------
    directory : path, optional
        For the journal and the files' hashes.
    manifest : Manifest, optional
    trees : sequence of DataTree
        The study's data: an export with the group ``provenance``, or the arms of the main job.
    """
    rows: list[tuple[str, str]] = []
    if manifest is not None:
        digest = content_hash({"name": manifest.name, "study": manifest.study})
        rows += [("study", f"{manifest.name}, hash {digest}"), ("first made with", f"kramers_grok {manifest.version}")]
    cells = next((tree["provenance"].to_dataset() for tree in trees if "provenance" in tree.children), None)
    if cells is not None and cells.sizes.get("cell", 0):
        rows += _of_cells(cells)
    else:
        rows += _versions([dict(node.attrs) for tree in trees for node in tree.subtree])
        if directory is not None:
            rows += _of_journal(Journal(directory / "journal.jsonl"))
    rows.append(("this page", f"kramers_grok {package_version()}"))
    for path in sorted(directory.glob("*.nc")) if directory is not None else ():
        rows.append((f"SHA-256 of {path.name}", _sha256(path)))
    return rows


def _of_cells(cells: xr.Dataset) -> list[tuple[str, str]]:
    done = cells.isel(cell=np.flatnonzero(cells["done"].values > 0))
    rows = [("cells", f"{done.sizes['cell']} of {cells.sizes['cell']} done")]
    for name, shown in (_VERSIONS | {"host": "computed on"}).items():
        rows.append((shown, _listed(done[name].values.tolist())))
    seconds, started = done["seconds"].values, sorted(t for t in done["started"].values.tolist() if t)
    if started:
        rows.append(("computed", started[0] if started[0] == started[-1] else f"{started[0]} to {started[-1]}"))
    if np.isfinite(seconds).any():
        rows.append(("time of all cells", _duration(float(np.nansum(seconds)))))
    rows.append(("seeds", "each cell's own, from its content and the study's seed; in the export's group “provenance”"))
    names_hash = hashlib.sha256("\n".join(sorted(map(str, done["cell"].values))).encode()).hexdigest()[:16]
    return [*rows, ("hash of the cells' names", f"{names_hash} (each name holds the hash of its cell's content)")]


def _versions(attrs: Sequence[Mapping[Any, Any]]) -> list[tuple[str, str]]:
    """What runs say about the programs that made them."""
    found = {shown: [str(own[name]) for own in attrs if name in own] for name, shown in _VERSIONS.items()}
    return [(shown, _listed(values)) for shown, values in found.items() if values]


def _of_journal(journal: Journal) -> list[tuple[str, str]]:
    """From the journal, of which anything may be missing."""
    hosts: list[str] = []
    times: list[str] = []
    seconds = 0.0
    for event in journal.read():
        if isinstance(event.get("host"), str):
            hosts.append(event["host"])
        if isinstance(event.get("time"), str):
            times.append(event["time"])
        if isinstance(event.get("seconds"), int | float) and event["seconds"] > 0:
            seconds += float(event["seconds"])
    rows = []
    if hosts:
        rows.append(("computed on", _listed(hosts)))
    if times:
        rows.append(("computed", f"{min(times)} to {max(times)}"))
    if seconds:
        rows.append(("time of all cells", _duration(seconds)))
    return rows


def _listed(values: Iterable[Any]) -> str:
    return shortened(", ".join(dict.fromkeys(str(v) for v in values if v)) or "not known")


def _duration(seconds: float) -> str:
    """A time in words.

    Examples
    --------
    >>> _duration(5.25), _duration(400), _duration(9000)
    ('5.2 s', '6 min 40 s', '2 h 30 min')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
