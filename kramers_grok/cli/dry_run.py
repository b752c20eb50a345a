"""``study run --dry-run``: the cells, which of them are done, and what the others will take. Nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from kramers_grok.cli.common import say_json
from kramers_grok.core.exceptions import StudyConflictError

if TYPE_CHECKING:
    from kramers_grok.studies.escape.estimates import Estimate, Expected
    from kramers_grok.studies.running.cells import Cell
    from kramers_grok.studies.running.study import Study

__all__ = ["show"]

MOST_ROWS = 50  # of the table; JSON has all


def show(declared: Study, out: Path | None, workers: int, *, as_json: bool) -> None:
    """Print what a run would do.

    Raises
    ------
    StudyConflictError
        If the directory holds another study.
    """
    from kramers_grok.studies.files.store import Store
    from kramers_grok.studies.running.executors import cores

    cells = declared.cells()
    seconds: dict[int, float] = {}
    if out is not None and (out / "study.json").exists():
        seconds = _seconds(declared, Store.opened(out), cells)
    found = _estimate(declared, cells, workers or cores(), seconds)
    if as_json:
        for number, cell in enumerate(cells):
            say_json(_cell_line(cell, number in seconds, found.expected[number] if found else None))
        say_json(
            {"event": "estimate"} | (found.as_mapping() if found else {"cells": len(cells), "finished": len(seconds)})
        )
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(cells, seconds, found))
    if len(cells) > MOST_ROWS:
        console.print(f"… and {len(cells) - MOST_ROWS:,} more (--json lists all)", markup=False)
    console.print(found.text() if found else f"{len(cells)} cells, {len(seconds)} of them finished", markup=False)


def _seconds(declared: Study, store: Any, cells: list[Cell]) -> dict[int, float]:
    """Return how long the finished cells took, by their number; NaN where the journal does not say."""
    from kramers_grok.studies.running.status import outcomes_of

    reasons = declared.conflicts(store.study)
    if store.name != declared.kind:
        reasons = [f"it is a {store.name!r} study, you asked for {declared.kind!r}"]
    if reasons:
        shown = "\n".join(f"  - {reason}" for reason in reasons)
        raise StudyConflictError(f"{store.directory} holds another study:\n{shown}\nUse another --out.")
    there, last = store.finished_stems(), outcomes_of(store.journal)
    keys = [store.path(cell.name, cell.config).stem for cell in cells]
    return {
        number: last[key].seconds if key in last else float("nan") for number, key in enumerate(keys) if key in there
    }


def _estimate(declared: Study, cells: list[Cell], workers: int, seconds: dict[int, float]) -> Estimate | None:
    """Return the estimate where there is one: of escapes."""
    if declared.kind != "escape":
        return None
    from kramers_grok.studies.escape.estimates import cell_key, estimate

    return estimate(cells, workers=workers, measured={cell_key(cells[n]): taken for n, taken in seconds.items()})


def _cell_line(cell: Cell, done: bool, expected: Expected | None) -> dict[str, Any]:
    line = {"event": "cell", "name": cell.name, "config": dict(cell.config), "finished": done}
    return line | ({"expected": expected._asdict()} if expected else {"cost": cell.cost})


def _table(cells: list[Cell], seconds: dict[int, float], found: Estimate | None) -> Table:
    """A row for each cell: its kind, what differs between cells, and what it will take."""
    flat = [_flat(cell.config) for cell in cells]
    values: dict[str, set[str]] = {}
    for one in flat:
        for name, value in one.items():
            values.setdefault(name, set()).add(_shown(value))
    names = [name for name, seen in values.items() if len(seen) > 1 and name != "engine"]
    table = Table(box=None, pad_edge=False)
    short = [name.rpartition(".")[2] for name in names]
    shown = [name if short.count(last) > 1 else last for name, last in zip(names, short, strict=True)]
    for column in ("cell", *shown, *(("method", "ΔF/T", "replicas", "time", "memory") if found else ("cost",)), "done"):
        table.add_column(column, justify="left" if column == "cell" else "right")
    for number, cell in enumerate(cells[:MOST_ROWS]):
        own = [_shown(flat[number].get(name)) for name in names]
        rest = _expected(found.expected[number]) if found else [f"{cell.cost:.3g}"]
        table.add_row(cell.name, *own, *rest, "yes" if number in seconds else "")
    return table


def _expected(one: Expected) -> list[str]:
    from kramers_grok.studies.escape.estimates import duration, size

    ratio = (
        f"{one.barrier_over_temperature:.3g}" if one.barrier_over_temperature == one.barrier_over_temperature else ""
    )
    replicas = f"{one.replicas:,.0f}" if one.replicas else ""
    return [one.status or one.method, ratio, replicas, duration(one.seconds), size(one.memory)]


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
