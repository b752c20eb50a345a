"""How a run says where it is: a bar on a terminal, plain lines elsewhere, JSON for scripts, or nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from kramers_grok.cli.common import say_json
from kramers_grok.studies.running.cells import FAILED, INTERRUPTED, WITHOUT_ANSWER, Cell, Outcome
from kramers_grok.studies.running.runner import Plan, RunResult

__all__ = ["BarProgress", "JsonProgress", "LineProgress", "QuietProgress", "Tally", "listening"]

INTERVAL = 5.0  # seconds between two plain lines


class Tally:
    """Counts what a run has done, and judges what is left by the cells' costs.

    Parameters
    ----------
    plan : Plan
    clock : callable
        Seconds from any origin.
    """

    def __init__(self, plan: Plan, clock: object = None) -> None:
        self._clock = clock if callable(clock) else time.monotonic
        self.began = float(self._clock())
        costs = dict(zip(plan.keys, (cell.cost for cell in plan.cells), strict=True))
        self.costs = {key: cost for key, cost in costs.items() if key not in plan.before}
        self.n_cells = len(costs)
        self.n_done = len(plan.before)
        self.cost_left = sum(self.costs.values())
        self.cost_done = 0.0
        self.replica_steps = 0.0
        self.statuses: Counter[str] = Counter()
        self.n_escaped = self.n_censored = 0
        for outcome in plan.before.values():
            self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        self.statuses[outcome.status] += 1
        self.n_escaped += outcome.n_escaped
        self.n_censored += outcome.n_censored

    def add(self, outcome: Outcome) -> None:
        """Count a cell that has just ended."""
        self._count(outcome)
        if outcome.status == INTERRUPTED:
            return
        self.n_done += 1
        cost = self.costs.get(outcome.key, 0.0)
        self.cost_left -= cost
        self.cost_done += cost
        self.replica_steps += outcome.replica_steps

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return float(self._clock()) - self.began

    @property
    def rate(self) -> float | None:
        """Replica-steps per second of this run, over all its workers; None before there are any."""
        return self.replica_steps / self.elapsed if self.replica_steps and self.elapsed > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at the pace so far; None before a cell has ended."""
        if self.n_done == self.n_cells:
            return 0.0
        return self.elapsed * max(self.cost_left, 0.0) / self.cost_done if self.cost_done else None

    def text(self) -> str:
        """Return all but the number of cells, in words."""
        parts = [] if self.rate is None else [f"{self.rate:.2g} replica-steps/s"]
        if self.n_escaped or self.n_censored:
            parts.append(f"{self.n_escaped:,} escaped, {self.n_censored:,} censored")
        parts += [f"{self.statuses[status]} {status}" for status in (*WITHOUT_ANSWER, FAILED) if self.statuses[status]]
        if self.seconds_left:
            parts.append(f"ends about {_clock_time(self.seconds_left)}")
        return ", ".join(parts)

    def as_mapping(self) -> dict[str, object]:
        """Return everything, of JSON's types."""
        return {
            "done": self.n_done,
            "cells": self.n_cells,
            "statuses": dict(self.statuses),
            "escaped": self.n_escaped,
            "censored": self.n_censored,
            "replica_steps_per_second": self.rate,
            "seconds": round(self.elapsed, 3),
            "seconds_left": self.seconds_left,
        }


def _clock_time(seconds: float) -> str:
    """Return when it will be so many seconds later: the time of day, with the day if it is another."""
    now = datetime.now()
    then = now + timedelta(seconds=min(seconds, 1e9))
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"


def _complaint(outcome: Outcome) -> str | None:
    """Return what has to be said about a cell at once."""
    return f"{outcome.key} failed: {outcome.message}" if outcome.status == FAILED else None


class QuietProgress:
    """Says only what went wrong, on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def begin(self, plan: Plan) -> None:
        """Say nothing."""

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """Say what failed."""
        complaint = _complaint(outcome)
        if complaint:
            self.console.print(f"[red]{escape(complaint)}[/]")

    def note(self, text: str) -> None:
        """Say it: damaged files and dead workers are no progress."""
        self.console.print(escape(text))

    def end(self, result: RunResult) -> None:
        """Say nothing."""


class LineProgress(QuietProgress):
    """Plain lines on standard error, not more often than every few seconds: for files and batch systems."""

    def __init__(self, interval: float = INTERVAL) -> None:
        super().__init__()
        self.interval = interval
        self.last = -float("inf")
        self.said = -1  # how many cells had ended when it was said

    def begin(self, plan: Plan) -> None:
        """Say what there is to do."""
        self.tally = Tally(plan)
        self.console.print(
            f"{self.tally.n_done} of {self.tally.n_cells} cells finished, in {plan.directory}", markup=False
        )
        self.last = time.monotonic()

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """Say where the run is, if that was some time ago."""
        super().cell(cell, outcome)
        self.tally.add(outcome)
        if time.monotonic() - self.last >= self.interval:
            self._say()

    def _say(self) -> None:
        self.last, self.said = time.monotonic(), self.tally.n_done
        rest = self.tally.text()
        self.console.print(f"{self.tally.n_done}/{self.tally.n_cells} cells{', ' if rest else ''}{rest}", markup=False)

    def end(self, result: RunResult) -> None:
        """Say where the run ended, unless that was just said."""
        if self.said != self.tally.n_done:
            self._say()


class BarProgress(QuietProgress):
    """A bar with a line below it, on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console)
        self.tally: Tally | None = None
        self.live = Live(console=self.console, get_renderable=self._picture, refresh_per_second=4)

    def _picture(self) -> Group:
        return Group(self.progress, Text("" if self.tally is None else self.tally.text()))

    def begin(self, plan: Plan) -> None:
        """Show the bar."""
        self.tally = Tally(plan)
        self.task = self.progress.add_task("cells", total=self.tally.n_cells, completed=self.tally.n_done)
        self.live.start()

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """Move it."""
        super().cell(cell, outcome)
        assert self.tally is not None
        self.tally.add(outcome)
        self.progress.update(self.task, completed=self.tally.n_done)

    def end(self, result: RunResult) -> None:
        """Leave it as it is."""
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        self.live.stop()


class JsonProgress:
    """One JSON object per line on standard output, for scripts."""

    def begin(self, plan: Plan) -> None:
        """Say what there is to do."""
        self.tally = Tally(plan)
        say_json({"event": "begin", "directory": str(plan.directory)} | self.tally.as_mapping())

    def cell(self, cell: Cell, outcome: Outcome) -> None:
        """Say what became of the cell, and where the run is."""
        self.tally.add(outcome)
        say_json({"event": "cell"} | outcome.as_mapping() | {"progress": self.tally.as_mapping()})

    def note(self, text: str) -> None:
        """Pass it on."""
        say_json({"event": "note", "text": text})

    def end(self, result: RunResult) -> None:
        """Say where the run ended."""
        say_json(
            {
                "event": "end",
                "directory": str(result.directory),
                "cells": result.n_cells,
                "finished": result.n_finished,
                "before": result.n_before,
                "statuses": result.statuses,
                "interrupted": result.interrupted,
            }
        )


@contextmanager
def listening(*, quiet: bool, as_json: bool) -> Iterator[JsonProgress | QuietProgress]:
    """Give the listener that fits: a terminal is left as it was found, whatever happens."""
    if as_json:
        yield JsonProgress()
    elif quiet:
        yield QuietProgress()
    elif not Console(stderr=True).is_terminal:
        yield LineProgress()
    else:
        bar = BarProgress()
        try:
            yield bar
        finally:
            bar.close()
