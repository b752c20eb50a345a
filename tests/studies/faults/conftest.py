"""Runs of a study that may be killed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:  # the stub is imported by its name, here as in the processes that run it
    sys.path.insert(0, HERE)

from comparison import started
from stub import Server, Sleepers


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A process without torch that forks runs."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sleepers], Path]:
    """Run a study once without any disturbance and return its directory."""
    made: dict[Sleepers, Path] = {}

    def run(study: Sleepers) -> Path:
        if study not in made:
            out = made[study] = tmp_path_factory.mktemp("undisturbed") / "out"
            alone = server.start(study, out)
            assert alone.wait()
            assert alone.said == f"{{'finished': {study.n_cells}}} before=0"
            assert sorted(started(out)) == list(range(study.n_cells))
        return made[study]

    return run
