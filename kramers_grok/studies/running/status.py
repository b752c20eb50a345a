"""Where a study stands: from its manifest, a listing and the journal; no cell's file is opened."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.studies.files.journal import Journal
from kramers_grok.studies.files.lock import Holder, holder
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running.cells import FAILED, FINISHED, Outcome
from kramers_grok.studies.running.study import Study, study_from

__all__ = ["Status", "outcomes_of", "status"]


@dataclass(frozen=True)
class Status:
    """Where a study stands.

    Attributes
    ----------
    directory : pathlib.Path
    kind, title : str
    n_cells : int or None
        Cells of the study as it is declared now; None for a kind that this process does not know.
    n_finished : int
        Those of them that have a file.
    statuses : mapping of str to int
        What the finished ones ended as: "finished", "diverged", "no barrier", "too few escapes".
    n_failed : int
        Cells without a file whose last attempt was an unexpected error.
    n_other : int
        Finished cells of earlier declarations.
    n_damaged : int
        Files that were put aside.
    n_escaped, n_censored : int
        Replicas of the finished cells.
    replica_steps : float
        Steps simulated for the finished cells, all replicas together.
    seconds : float
        Time spent on the finished cells, all workers together.
    running : Holder or None
        The run that works on it now.
    """

    directory: Path
    kind: str
    title: str
    n_cells: int | None
    n_finished: int
    statuses: dict[str, int]
    n_failed: int
    n_other: int
    n_damaged: int
    n_escaped: int
    n_censored: int
    replica_steps: float
    seconds: float
    running: Holder | None

    @property
    def complete(self) -> bool:
        """Whether every cell is finished."""
        return self.n_cells is not None and self.n_finished == self.n_cells

    def as_mapping(self) -> dict[str, Any]:
        """Return everything, of JSON's types."""
        return asdict(self) | {"directory": str(self.directory), "complete": self.complete}


def status(out: str | os.PathLike[str], study: Study | None = None) -> Status:
    """Say where the study of a directory stands.

    Parameters
    ----------
    out : path
    study : Study, optional
        The directory's, if it is at hand; made from the manifest otherwise.

    Raises
    ------
    StudyConflictError
        If the directory holds no study.
    """
    directory = Path(out)
    store = Store.opened(directory)
    if study is None:
        study = _known(store.name, store.study)
    stems = store.finished_stems()
    mine = stems if study is None else {store.path(cell.name, cell.config).stem for cell in study.cells()}
    finished = stems & mine
    last = outcomes_of(store.journal)
    known = [last[key] for key in finished if key in last and last[key].stored]
    counts = Counter(outcome.status for outcome in known)
    counts[FINISHED] += len(finished) - len(known)  # whose lines in the journal are lost
    return Status(
        directory=directory,
        kind=store.name,
        title=str(store.study.get("title", "")),
        n_cells=None if study is None else len(mine),
        n_finished=len(finished),
        statuses={name: number for name, number in counts.items() if number},
        n_failed=sum(last[key].status == FAILED for key in (mine - finished) & last.keys()),
        n_other=len(stems - mine),
        n_damaged=len(list((directory / "damaged").glob("*"))),
        n_escaped=sum(outcome.n_escaped for outcome in known),
        n_censored=sum(outcome.n_censored for outcome in known),
        replica_steps=sum(outcome.replica_steps for outcome in known),
        seconds=sum(outcome.seconds for outcome in known),
        running=holder(directory),
    )


def _known(kind: str, declaration: Mapping[str, Any]) -> Study | None:
    """Return the study, or None where this version does not understand its declaration."""
    try:
        return study_from(kind, declaration)
    except InvalidParameterError:
        return None


_TEXT = ("name", "key", "message", "error", "host")
_NUMBERS = {"n_escaped": int, "n_censored": int, "replica_steps": float, "seconds": float, "pid": int}


def outcomes_of(journal: Journal) -> dict[str, Outcome]:
    """Return what the journal says last about each cell, by the name of its file without the ending.

    The journal may be anybody's: lines that are not ours are passed over.
    """
    found: dict[str, Outcome] = {}
    for event in journal.read():
        key, status = event.get("key"), event["event"]
        if not isinstance(key, str) or not isinstance(event.get("name"), str):
            continue
        text: dict[str, Any] = {name: str(event[name]) for name in _TEXT if name in event}
        numbers: dict[str, Any] = {
            name: kind(event[name]) for name, kind in _NUMBERS.items() if _is_number(event, name)
        }
        found[key] = Outcome(**text, **numbers, status=status)
    return found


def _is_number(event: Mapping[str, Any], name: str) -> bool:
    value = event.get(name)
    return isinstance(value, int | float) and math.isfinite(value)
