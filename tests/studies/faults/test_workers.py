"""Workers that are killed, that outlive their coordinator, or whose cells go wrong."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from comparison import compare, files, started
from stub import Run, Server, Sleepers

from kramers_grok.studies.files.store import Store

STUDY = Sleepers(n_cells=12, milliseconds=60.0, seed=7)


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_workers_of_ours_that_are_killed_are_replaced(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path
) -> None:
    generator = np.random.default_rng(11)
    out = tmp_path / "out"
    run = server.start(STUDY, out, kind="workers 2")
    for number in (1, 3, 6):
        wait_for(lambda number=number: len(started(out)) > number)  # type: ignore[misc]
        workers = run.workers()
        os.kill(workers[int(generator.integers(len(workers)))], signal.SIGKILL)
    assert run.wait()
    assert run.said == "{'finished': 12} before=0"
    compare(STUDY, out, undisturbed(STUDY))
    deaths = [event for event in Store.opened(out).journal.read() if event["event"] == "worker died"]
    assert len(deaths) <= 3  # a worker may have been between two cells
    again = Counter(started(out))
    assert sum(again.values()) <= STUDY.n_cells + 3  # only what it was at is done again


def test_coordinator_and_its_workers_killed(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path
) -> None:
    """kill -9 of the process that holds the lock, while spawned workers compute: they end, and the next run goes on."""
    out = tmp_path / "out"
    run = server.start(STUDY, out, kind="workers 2")
    wait_for(lambda: len(started(out)) > 3)
    workers = run.workers()
    before = files(out)
    assert run.kill()
    assert len(workers) == 2
    wait_for(lambda: not any(map(alive, workers)))
    assert before.items() <= files(out).items()
    begun, before = len(started(out)), files(out)
    last = server.start(STUDY, out, kind="workers 2")
    assert last.wait()
    assert last.said == f"{{'finished': 12}} before={len(before)}"
    assert len(started(out)) - begun == STUDY.n_cells - len(before)
    compare(STUDY, out, undisturbed(STUDY))


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_orphans_do_no_harm(server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path) -> None:
    """Workers that live on compute what the next run computes, too: both write the same, and the first file stays."""
    study = Sleepers(n_cells=6, milliseconds=300.0, seed=5)
    out = tmp_path / "out"
    run = server.start(study, out, kind="orphans 2")
    wait_for(lambda: len(started(out)) >= 2)
    assert run.kill()
    try:
        with pytest.raises(ProcessLookupError):
            os.kill(run.pid, 0)
        after = server.start(study, out, kind="fork 2")  # at once: the lock is free, orphans compute
        seen: dict[str, tuple[int, int, int]] = {}
        end = None
        while end is None or time.monotonic() < end:
            assert seen.items() <= files(out).items()  # nobody writes over a file
            seen = files(out)
            if end is None and not after.alive:
                end = time.monotonic() + 0.6  # the longest cell
            time.sleep(0.005)
        assert after.said == "{'finished': 6} before=0"
        assert max(Counter(started(out)).values()) == 2  # the same cell twice
        compare(study, out, undisturbed(study))
    finally:
        os.killpg(run.pid, signal.SIGKILL)


def test_a_cell_that_kills_its_workers_fails_alone(server: Server, tmp_path: Path) -> None:
    study = Sleepers(n_cells=5, milliseconds=5.0, bad="dies")
    run = server.start(study, tmp_path / "out", kind="workers 1")
    assert run.wait()
    assert "'finished': 4" in run.said
    assert "'failed': 1" in run.said
    assert "WorkerDiedError: its worker process died 3 times" in run.said
    assert len(files(tmp_path / "out")) == 4
    assert Counter(started(tmp_path / "out"))[2] == 3


@pytest.mark.parametrize("kind", ["serial", "fork 2"])
def test_cells_that_diverge_or_fail_leave_the_others_alone(server: Server, tmp_path: Path, kind: str) -> None:
    diverges = Sleepers(n_cells=5, milliseconds=2.0, bad="diverges")
    run = server.start(diverges, tmp_path / "diverges", kind=kind)
    assert run.wait()
    assert "'finished': 4" in run.said
    assert "'diverged': 1" in run.said
    assert len(files(tmp_path / "diverges")) == 5  # an answer like any other: it is not computed again
    again = server.start(diverges, tmp_path / "diverges", kind=kind)
    assert again.wait()
    assert "'diverged': 1} before=5" in re.sub(r"'finished': 4, ", "", again.said)
    assert len(started(tmp_path / "diverges")) == 5

    raises = Sleepers(n_cells=5, milliseconds=2.0, bad="raises")
    run = server.start(raises, tmp_path / "raises", kind=kind)
    assert run.wait()
    assert "'failed': 1" in run.said
    assert "DivergedError: 1 of 8 replicas diverged at step 3" in run.said
    assert len(files(tmp_path / "raises")) == 4
    again = server.start(raises, tmp_path / "raises", kind=kind)
    assert again.wait()
    assert "before=4" in again.said
    assert Counter(started(tmp_path / "raises")) == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}  # only it is tried again


def interrupt(run: Run, out: Path, cells: int, number: int, *, group: bool) -> None:
    """Send a signal once so many cells have begun."""
    wait_for(lambda: len(started(out)) > cells)
    run.signal(number, group=group)


@pytest.mark.parametrize(
    ("kind", "number"),
    [("serial", signal.SIGINT), ("serial", signal.SIGTERM), ("fork 2", signal.SIGINT), ("workers 2", signal.SIGINT)],
)
def test_interrupted(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path, kind: str, number: int
) -> None:
    """Ctrl-C, which a terminal sends to all processes: what is in flight is finished, and it is said how to resume."""
    out = tmp_path / "out"
    run = server.start(STUDY, out, kind=kind)
    interrupt(run, out, 3, number, group=number == signal.SIGINT)
    assert run.wait()
    finished = files(out)
    assert run.said.startswith(f"interrupted: Stopped as asked: {len(finished)} of 12 cells are finished in {out}.")
    assert "The same command goes on from there" in run.said
    assert sorted(started(out)) == sorted(numbers(out))  # nothing was lost
    assert 4 <= len(finished) < 12
    again = server.start(STUDY, out, kind="fork 2" if kind == "serial" else "serial")
    assert again.wait()
    assert again.said == f"{{'finished': 12}} before={len(finished)}"
    assert finished.items() <= files(out).items()
    compare_apart_from_interruptions(undisturbed, out)
    assert not (out / ".stop").exists()


def numbers(out: Path) -> list[int]:
    """Return the numbers of the cells that have a file."""
    store = Store.opened(out)
    return [cell.config["number"] for cell in STUDY.cells() if store.has(cell.name, cell.config)]


def compare_apart_from_interruptions(undisturbed: Callable[[Sleepers], Path], out: Path) -> None:
    compare(STUDY, out, undisturbed(STUDY))
    assert sorted(started(out)) == list(range(12))


def test_interrupted_twice(server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path) -> None:
    """Whoever cannot wait loses the cells in flight and nothing else."""
    out = tmp_path / "out"
    run = server.start(STUDY, out)
    interrupt(run, out, 3, signal.SIGINT, group=False)
    wait_for((out / ".stop").exists)
    run.signal(signal.SIGINT)
    assert run.wait()
    assert "KeyboardInterrupt" in run.said or run.said.startswith("interrupted")
    finished = files(out)
    again = server.start(STUDY, out)
    assert again.wait()
    assert again.said == f"{{'finished': 12}} before={len(finished)}"
    compare(STUDY, out, undisturbed(STUDY))


def test_a_file_asks_to_stop(server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path) -> None:
    """From another machine there is no Ctrl-C."""
    out = tmp_path / "out"
    run = server.start(STUDY, out, kind="fork 2")
    wait_for(lambda: len(started(out)) > 2)
    (out / ".stop").touch()
    assert run.wait()
    assert run.said.startswith("interrupted: Stopped as asked")
    assert len(files(out)) < 12
    again = server.start(STUDY, out)
    assert again.wait()
    compare_apart_from_interruptions(undisturbed, out)


def test_two_runs_at_once(server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = server.start(STUDY, out)
    wait_for(lambda: len(started(out)) > 1)
    second = server.start(STUDY, out, kind="fork 2")
    assert second.wait()
    assert second.said.startswith(f"StudyLockedError: {out} is being worked on by process {first.pid} on ")
    assert "nothing was written" in second.said
    more = server.start(Sleepers(n_cells=20, milliseconds=60.0, seed=7), out)  # not with more cells either
    assert more.wait()
    assert more.said.startswith("StudyLockedError")
    other = server.start(Sleepers(n_cells=12, milliseconds=60.0, seed=8), out)
    assert other.wait()
    assert other.said.startswith("StudyConflictError")
    assert "`seed` is 7 there, you asked for 8" in other.said
    assert first.wait()
    assert first.said == "{'finished': 12} before=0"
    compare_apart_from_interruptions(undisturbed, out)


def test_a_changed_declaration_adds_cells(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    few = Sleepers(n_cells=4, milliseconds=1.0, seed=7)
    run = server.start(few, out)
    assert run.wait()
    before = files(out)
    many = Sleepers(n_cells=6, milliseconds=1.0, seed=7)
    run = server.start(many, out)
    assert run.wait()
    assert run.said == "{'finished': 6} before=4"
    assert before.items() <= files(out).items()
    compare(many, out, undisturbed(many))
    assert Store.manifest_of(out).study == many.declaration()


@pytest.mark.parametrize("left", [0, 40, 400])
def test_a_lost_journal_is_written_again(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path, left: int
) -> None:
    study = Sleepers(n_cells=6, milliseconds=1.0, seed=7)
    out = tmp_path / "out"
    assert server.start(study, out).wait()
    before, journal = files(out), out / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:left])
    again = server.start(study, out)
    assert again.wait()
    assert again.said == "{'finished': 6} before=6"
    assert files(out) == before
    compare(study, out, undisturbed(study))


@pytest.mark.parametrize("damage", ["cut", "turned", "emptied"])
def test_damaged_cells_are_found_put_aside_and_computed_again(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path, damage: str
) -> None:
    study = Sleepers(n_cells=6, milliseconds=1.0, seed=7)
    out = tmp_path / "out"
    run = server.start(study, out)
    assert run.wait()
    before = files(out)
    generator = np.random.default_rng(len(damage))
    hit = sorted(generator.choice(sorted(before), 2, replace=False))
    contents = {}
    for name in hit:
        path = out / "cells" / name
        content = bytearray(path.read_bytes())
        if damage == "turned":
            content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        else:
            del content[int(generator.integers(1, len(content))) if damage == "cut" else 0 :]
        path.write_bytes(content)
        contents[name] = bytes(content)
    again = server.start(study, out)
    assert again.wait()
    assert again.said == "{'finished': 6} before=4"
    kept = sorted((out / "damaged").iterdir())
    assert [path.read_bytes() for path in kept] == [contents[name] for name in hit]
    assert {name: entry for name, entry in files(out).items() if name not in hit} == {
        name: entry for name, entry in before.items() if name not in hit
    }
    said = [event for event in Store.opened(out).journal.read() if event["event"] == "damaged"]
    assert sorted(event["cell"] + ".nc" for event in said) == hit
    for path in kept:
        path.unlink()
    (out / "damaged").rmdir()
    compare(study, out, undisturbed(study))
