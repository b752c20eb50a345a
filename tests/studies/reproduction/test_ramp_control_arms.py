"""The arms `ramp` and `control` on tiny grids: what they hold, their figures and what their summaries say.

Numbers are tested where they arise (`tests/escape`, `tests/theory`); here only that they arrive.
"""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from kramers_grok.report.arms import control as control_report
from kramers_grok.report.arms import ramp as ramp_report
from kramers_grok.studies.reproduction import control, ramp
from kramers_grok.studies.reproduction.settings import Settings

QUICK = Settings.make(seed=0, quick=True)


@pytest.fixture(scope="module")
def ramps():
    found = []
    for cell in ramp.cells(QUICK, "cpu"):
        tiny = dict(cell.config) | {"n_replicas": 40, "rates": [2e-3, 4e-3], "ratio_nodes": 2}
        tiny |= {"temperature": 0.005} if "temperature" in tiny else {}
        found.append(cell.function(tiny, seed=1))
    return ramp.gather(QUICK, found)


@pytest.fixture(scope="module")
def schedules():
    (cell,) = control.cells(QUICK, "cpu")
    tiny = dict(cell.config) | {"n_replicas": 30, "n_steps": 600}
    return control.gather(QUICK, [cell.function(tiny, seed=1)])


def test_ramps_hold_every_replica_and_every_law(ramps):
    for name in ("down", "up"):
        runs = ramps[name].to_dataset()
        assert runs.sizes == {"temperature": 1, "ramp_rate": 2, "replica": 40, "position": ramp.GRID}
        for law in ("adiabatic", "driven", "wrong"):
            survival = runs[f"{law}_survival"].values
            assert (np.diff(survival, axis=-1) <= 1e-12).all()
            assert survival[..., 0] == pytest.approx(1.0, abs=1e-6)
    still = ramps["control"].to_dataset()
    assert (still.weight_decay_at_exit.sel(direction="up") > ramps.attrs["spinodal"]).all()
    assert not still.escaped.sel(direction="down").any()


def test_a_loop_that_not_all_left_has_no_width(ramps):
    down = ramps["down"].to_dataset().copy(deep=True)
    down["escaped"][:, 0] = False
    loops = ramp.loops(ramps["up"].to_dataset(), down)
    assert np.isnan(loops.width.values[:, 0]).all()


def test_schedules_stand_beside_their_predictions(schedules):
    table = schedules["schedules"].to_dataset()
    assert table.schedule.values.tolist() == [
        "constant, final", "constant, peak", "cosine", "warm restarts", "designed: lr", "designed: batch",
    ]  # fmt: skip
    for name in ("mean_steps", "learned_at_end", "final_loss", "learned_loss"):
        assert np.isfinite(table[f"predicted_{name}"]).all()
    heat = table.temperature
    assert float(heat.sel(schedule="cosine")[0]) == pytest.approx(float(heat.sel(schedule="constant, peak")[0]))
    assert float(heat.sel(schedule="designed: lr")[-1]) == pytest.approx(
        float(heat.sel(schedule="constant, final")[-1])
    )


def test_figures_and_summaries_are_made_of_the_trees(ramps, schedules, check_labels):
    for report, tree, words in (
        (ramp_report, ramps, ("| down |", "| up |", "spinodal")),
        (control_report, schedules, ("| warm restarts |", "designed: lr", "fewest steps")),
    ):
        check_labels(tree)
        figure = report.figure(tree)
        assert len(figure.axes) == 3
        assert all(ax.get_xlabel() or ax.get_xticklabels() for ax in figure.axes)
        plt.close(figure)
        text = report.summary(tree)
        assert all(word in text for word in words)
        assert "nan" not in text.split("loop width")[0]
