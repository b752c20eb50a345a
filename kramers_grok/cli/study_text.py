"""What the commands of studies print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kramers_grok.studies.running.runner import RunResult
    from kramers_grok.studies.running.status import Status

__all__ = ["counted", "result_lines", "status_lines"]


def counted(statuses: dict[str, int]) -> str:
    """Return the numbers of each status, finished first.

    Examples
    --------
    >>> counted({"diverged": 1, "finished": 11})
    '11 finished, 1 diverged'
    """
    order = sorted(statuses, key=lambda name: (name != "finished", name))
    return ", ".join(f"{statuses[name]} {name}" for name in order)


def result_lines(result: RunResult) -> list[str]:
    """Return what is to be said after a run."""
    cells = "1 cell is" if result.n_cells == 1 else f"{result.n_cells} cells are"
    lines = [f"{result.n_finished} of {cells} in {result.directory} ({counted(result.statuses)})."]
    if result.failed:
        lines.append(f"{len(result.failed)} failed; the same command tries again.")
    return lines


def status_lines(found: Status) -> list[str]:
    """Return where a study stands, in words."""
    head = f"{found.directory}: {found.title or found.kind}"
    of = "" if found.n_cells is None else f" of {found.n_cells}"
    lines = [
        head,
        f"{found.n_finished}{of} {'cell' if found.n_cells == 1 else 'cells'} done"
        + (f": {counted(found.statuses)}" if found.n_finished else ""),
    ]
    if found.n_cells is None:
        lines.append(f"its kind, {found.kind!r}, is not known here: how many cells it has cannot be said")
    if found.n_escaped or found.n_censored:
        lines.append(f"{found.n_escaped:,} replicas escaped, {found.n_censored:,} were censored")
    if found.replica_steps:
        lines.append(f"{found.replica_steps:.3g} replica-steps in {found.seconds:,.0f} s of cells' time")
    if found.n_failed:
        failed = "1 cell failed at its" if found.n_failed == 1 else f"{found.n_failed} cells failed at their"
        lines.append(f"{failed} last try; `study run` tries again")
    if found.n_damaged:
        put = "1 damaged file was" if found.n_damaged == 1 else f"{found.n_damaged} damaged files were"
        lines.append(f"{put} put aside in {found.directory / 'damaged'}")
    if found.n_other:
        lines.append(f"finished cells of earlier declarations: {found.n_other}")
    if found.running is not None:
        run = found.running
        lines.append(f"process {run.pid} on {run.host} works on it since {run.since}")
    return lines
