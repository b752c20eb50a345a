"""kill -9 at any moment: what was finished stays, what was in flight is done again, and the result is the same."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from comparison import compare, files, started
from stub import Run, Server, Sleepers

from kramers_grok.studies.files.store import content_hash
from kramers_grok.studies.running.cells import Cell

KILLS = 48


class Tally:
    """What kills cost, over all studies."""

    def __init__(self) -> None:
        self.kills = self.lost = self.most_lost = 0


def until_done(
    server: Server, study: Sleepers, out: Path, kind: str, tally: Tally, kill: Callable[[Run, int], bool]
) -> None:
    """Kill and resume a study until it is finished, and count what is lost."""
    in_flight = int(kind.split()[1]) if " " in kind else 1
    number_of = {file_of(cell): cell.config["number"] for cell in study.cells()}
    for attempt in range(60):
        before, begun = files(out), len(started(out))
        run = server.start(study, out, kind=kind)
        killed = attempt < 50 and kill(run, attempt)
        if not killed:
            assert run.wait()
            assert run.said.startswith("{'finished'"), run.said
        if killed and in_flight > 1:
            _let_workers_end(out)
        after = files(out)
        assert before.items() <= after.items()  # not one of them was touched
        tried = Counter(started(out)[begun:])
        fresh = {number_of[name] for name in after.keys() - before.keys()}
        assert tried.keys().isdisjoint(number_of[name] for name in before)  # nothing finished is computed again
        assert max(tried.values(), default=0) <= 1
        lost = len(tried.keys() - fresh)
        assert fresh <= tried.keys()
        assert lost <= (in_flight if killed else 0)
        tally.kills += killed
        tally.lost += lost
        tally.most_lost = max(tally.most_lost, lost)
        if not killed:
            return
    raise AssertionError("it never came to its end")


def file_of(cell: Cell) -> str:
    """Return the name of a cell's file."""
    return f"{cell.name}-{content_hash({'name': cell.name, 'config': cell.config})}.nc"


def _let_workers_end(out: Path) -> None:
    """Wait until no worker that a kill has left behind computes: they end with their coordinator."""
    deadline, seen = time.monotonic() + 10.0, -1
    while time.monotonic() < deadline:
        now = len(started(out)) + len(os.listdir(out / "cells")) if (out / "cells").exists() else 0
        if now == seen:
            return
        seen = now
        time.sleep(0.04)


def at_random(generator: np.random.Generator, out: Path, pace: float) -> Callable[[Run, int], bool]:
    """Kill a random time after a random number of cells, the workers along with it every other time.

    Both, so that a slow machine is killed at the same places as a fast one: `pace` is its seconds for a cell.
    """

    def kill(run: Run, attempt: int) -> bool:
        enough = len(files(out)) + int(generator.integers(0, 5))
        while len(files(out)) < enough and run.alive:
            time.sleep(0.003)
        if run.wait(float(generator.uniform(0.0, 2.0 * pace))):
            return False
        return run.kill(group=attempt % 2 == 1)

    return kill


def test_killed_at_random_moments(server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path) -> None:
    """≥ 48 kills over several studies, in one process and in pools of two."""
    generator = np.random.default_rng(20240917)
    study = Sleepers(n_cells=16, milliseconds=8.0)
    whole = undisturbed(study)
    times = sorted(entry[1] for entry in files(whole).values())
    pace = (times[-1] - times[0]) / 1e9 / (len(times) - 1)
    tally = Tally()
    round_ = 0
    while tally.kills < KILLS:
        kind = ("serial", "fork 2")[round_ % 2]
        out = tmp_path / f"out-{round_}"
        until_done(server, study, out, kind, tally, at_random(generator, out, pace))
        compare(study, out, whole)
        round_ += 1
    assert tally.kills >= KILLS
    assert round_ >= 4
    assert tally.lost > 0  # some kills hit cells in flight
    assert tally.most_lost <= 2
    print(
        f"{tally.kills} kills of {round_} studies lost {tally.lost} cells in flight, {tally.most_lost} at most at once"
    )


def test_killed_at_every_call_to_the_system(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path
) -> None:
    """One kill in place of each call that changes a disk, from the manifest's first byte to the last rename."""
    study = Sleepers(n_cells=2, milliseconds=0.5, seed=3)
    whole = undisturbed(study)
    dies_at = 1
    while True:
        out = tmp_path / f"out-{dies_at}"
        run = server.start(study, out, dies_at=dies_at)
        assert run.wait()
        if run.said:  # it made fewer calls than that
            assert run.said == "{'finished': 2} before=0"
            break
        before = files(out)
        again = server.start(study, out)
        assert again.wait()
        assert again.said == f"{{'finished': 2}} before={len(before)}"
        assert before.items() <= files(out).items()
        compare(study, out, whole)
        dies_at += 1
    assert dies_at > 40
    print(f"killed at each of {dies_at - 1} calls")
