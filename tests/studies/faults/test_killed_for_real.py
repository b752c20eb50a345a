"""kill -9 of a study of networks in the middle of long cells: they go on from their checkpoints, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from comparison import files, same
from stub import Server

from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.store import Store

STUDY = EscapeStudy(
    system={"kind": "chain", "depth": 3, "weight_decay": 0.25},
    noise={"barrier_over_temperature": 1.5},
    sgd={"lr": 0.1, "batch_size": 8, "label_noise": 0.1},
    run={"method": "brute force", "replicas": 64, "horizon": 3.0},
    engines=["sgd"],
    seed=[0, 1],
)


@pytest.fixture
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A process that forks runs of networks."""
    running = Server(tmp_path_factory.mktemp("server"), real=True)
    yield running
    running.close()


def saved(out: Path) -> dict[str, int]:
    """Return the checkpoints there are, and when they were saved."""
    found = {}
    for path in (out / "checkpoints").glob("*.nc"):
        try:
            found[path.name] = path.stat().st_mtime_ns
        except FileNotFoundError:  # its cell has just been finished
            continue
    return found


@pytest.mark.slow
def test_killed_in_the_middle_of_cells(real: Server, tmp_path: Path) -> None:
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    kills = 0
    for _ in range(4):  # on a very fast machine a cell may be over before it is killed
        if kills == 2:
            break
        before, old = files(out), saved(out)
        run = real.start(STUDY, out)
        while run.alive:
            now, done = saved(out), files(out)
            new = [name for name, when in now.items() if when > old.get(name, 0)]
            unfinished = [name for name in new if f"{name.partition('.')[0]}.nc" not in done]
            if unfinished and len(done) >= kills:  # in the first cell, and then in the second
                kills += run.kill()
                break
            time.sleep(0.002)
        assert before.items() <= files(out).items()
    assert kills == 2
    before = files(out)
    last = real.start(STUDY, out)
    assert last.wait(300)
    assert last.said == f"{{'finished': 2}} before={len(before)}"
    assert before.items() <= files(out).items()
    assert Path(f"{out}.log").read_text().count("\n") >= 2  # they did go on, and did not begin anew

    whole = real.start(STUDY, undisturbed)
    assert whole.wait(300)
    assert whole.said == "{'finished': 2} before=0"
    assert not Path(f"{undisturbed}.log").exists()
    assert files(out).keys() == files(undisturbed).keys()
    first, second = Store.opened(out), Store.opened(undisturbed)
    for cell in STUDY.cells():
        same(first.read(cell.name, cell.config), second.read(cell.name, cell.config))
    assert saved(out) == {}
