"""A learning rate at which SGD runs away: its cell says so, and the others are as if it were not there."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from comparison import same

from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running.runner import run_study


def study(lr: list[float]) -> EscapeStudy:
    return EscapeStudy(
        system={"kind": "chain", "depth": 3, "weight_decay": 0.25},
        noise={"barrier_over_temperature": 1.5},
        sgd={"lr": lr, "batch_size": 8, "label_noise": 0.1},
        run={"method": "brute force", "replicas": 32, "horizon": 2.0},
        engines=["sgd"],
    )


def test_a_diverging_cell_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    result = run_study(study([9.0, 0.1]), tmp_path / "both")
    assert result.statuses == {"diverged": 1, "finished": 1}
    assert result.failed == ()
    store = Store.opened(tmp_path / "both")
    found = {float(cell["lr"]): cell for cell in (store.read(c.name, c.config) for c in study([9.0, 0.1]).cells())}
    diverged = found[9.0]
    assert isinstance(diverged, xr.Dataset)
    assert diverged.attrs["status"] == "diverged"
    assert diverged.attrs["status_message"]
    again = run_study(study([9.0, 0.1]), tmp_path / "both")  # it is an answer: nothing is tried again
    assert again.outcomes == ()
    assert again.n_without_answer == 1

    alone = run_study(study([0.1]), tmp_path / "alone")
    assert alone.statuses == {"finished": 1}
    (cell,) = study([0.1]).cells()
    same(found[0.1], Store.opened(tmp_path / "alone").read(cell.name, cell.config))
