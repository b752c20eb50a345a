"""A study of 10,000 cells: starting and asking for its status take seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from comparison import files, started
from stub import Server, Sleepers

from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running import study
from kramers_grok.studies.running.status import status

MANY = Sleepers(n_cells=10_000, milliseconds=0.0)
SECONDS = 10.0  # "stays under seconds", on a machine that does other things as well


@pytest.fixture(scope="module")
def full(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which all but one of 10,000 cells are finished: copies of one true file, and its journal."""
    out = tmp_path_factory.mktemp("many") / "out"
    store = Store(out, MANY.declaration(), name=MANY.kind)
    one = tmp_path_factory.mktemp("one") / "out"
    assert server.start(Sleepers(n_cells=1), one).wait()
    (path,) = Store.opened(one).finished()
    content = path.read_bytes()
    lines = []
    for cell in MANY.cells()[1:]:
        place = store.path(cell.name, cell.config)
        place.write_bytes(content)
        line = {"time": "", "event": "finished", "name": cell.name, "key": place.stem, "n_escaped": 3, "seconds": 0.5}
        lines.append(json.dumps(line))
    store.journal.path.write_text("\n".join(lines) + "\n")
    return out


def test_status(full: Path) -> None:
    study.register("sleepers", lambda declaration: Sleepers(**declaration))
    began = time.perf_counter()
    found = status(full)
    seconds = time.perf_counter() - began
    assert (found.n_cells, found.n_finished, found.n_escaped) == (10_000, 9_999, 3 * 9_999)
    assert seconds < SECONDS
    print(f"status of 10,000 cells: {seconds:.2f} s")


def test_start(server: Server, full: Path) -> None:
    """From the start of a run to its first cell, with every finished file's checksum compared."""
    began = time.perf_counter()
    run = server.start(MANY, full)
    assert run.wait()
    seconds = time.perf_counter() - began
    assert run.said == "{'finished': 10000} before=9999"
    assert started(full) == [0]
    assert seconds < SECONDS
    print(f"start with 9,999 of 10,000 cells finished, to the end: {seconds:.2f} s")


def test_start_of_a_new_study(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    began = time.perf_counter()
    run = server.start(MANY, out)
    while not started(out) and run.alive:
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    run.kill(group=True)
    assert started(out)
    assert len(files(out)) <= len(started(out))
    assert seconds < SECONDS
    print(f"start of 10,000 new cells, to the first: {seconds:.2f} s")
