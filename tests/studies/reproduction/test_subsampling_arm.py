"""The arm `subsampling` on its smallest case: the curve is there, and goes away with each of its causes."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from kramers_grok.report.arms import subsampling as report
from kramers_grok.studies.reproduction import subsampling
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.reproduction.subsampled import LR, Autoencoding, map_cell, since_start, where_it_exists
from kramers_grok.theory.feature_network import LearningTime
from kramers_grok.theory.subsampling import GrokkingCriterion

#: Barriers of ΔF/T near 1 at the smallest weight decay, so that the curve ends within some seconds of simulation
SMALL = {
    "n_inputs": 4,
    "draw": 0,
    "noise_variance": 0.014,
    "weight_decays": [0.02, 0.2],
    "replicas": 12,
    "max_time": 900.0,
    "points": 60,
    "batch_size": 2,
}


@pytest.mark.slow
def test_the_curve_exists_with_few_samples_only_and_needs_the_weak_feature() -> None:
    few, many = (map_cell(SMALL | {"n_samples": n}, seed=0) for n in (6, 64))
    found = where_it_exists(few, GrokkingCriterion())
    assert found.measured.values.tolist() == [True, False]  # at λ = 0.2 the weak feature is above its spinodal
    assert not where_it_exists(many, GrokkingCriterion()).measured.any()
    assert few.learned.sel(weight_decay=0.02).values.min() > 0.4
    assert float(few.learned.sel(weight_decay=0.2).min()) == 0.0


def test_full_batch_descent_stays_in_the_trap() -> None:
    cell = next(
        c for c in subsampling.cells(Settings.make(seed=0, quick=True), "cpu") if c.name == "subsampling-control"
    )
    result = cell.function({**cell.config, "time": 300.0}, seed=0)
    assert not result.escaped.any()
    assert result.trap_learned.values.tolist() == [True, True, True, False]
    assert float(result.trap_amplitude.max()) < 0.3


def test_a_feature_waits_for_the_stronger_ones() -> None:
    times = [LearningTime(t, 1.0, 1.0, 2.0) for t in (5.0, 3.0, 10.0)]
    assert since_start([*times, None]).tolist() == [5.0, 8.0, 15.0, np.inf]


def test_the_task_is_what_it_says() -> None:
    task = Autoencoding(4, 6, 0, 0.03, 0.01)
    assert task.data.x[:6].tolist() == Autoencoding(4, 64, 0, 0.03, 0.01).data.x[:6].tolist()
    assert task.process(2).temperature == pytest.approx(task.temperature(2)) == pytest.approx(LR * 0.01 / 4)
    run = task.run(task.process(2), np.array([0, 1]), n_replicas=3, seed=0)
    errors = task.subsample.errors(np.zeros(4))
    assert run.train_loss.isel(time=0).values == pytest.approx(np.full(3, float(errors[0])))
    assert run.test_loss.isel(time=0).values == pytest.approx(np.full(3, float(errors[1])))


def test_every_cell_can_travel_and_knows_its_group() -> None:
    import pickle

    for quick in (True, False):
        cells = subsampling.cells(Settings.make(seed=0, quick=quick), "cpu")
        assert {c.name.removeprefix("subsampling-") for c in cells} == {"gain", "control", "many", "forget", "map"}
        pickle.dumps([c.function for c in cells])


@pytest.mark.slow
def test_figure_and_summary(check_labels: Callable[[xr.DataTree], None]) -> None:
    import matplotlib.pyplot as plt

    cells = subsampling.cells(Settings.make(seed=0, quick=True), "cpu")
    results: list[xr.Dataset] = []
    for cell in cells:
        small = {"ratio": 1.6, "n_replicas": 8, "time": 60.0, "max_time": 30.0, "replicas": 4}
        config = {
            k: small.get(k, v) if cell.name != "subsampling-forget" or k == "n_replicas" else v
            for k, v in cell.config.items()
        }
        results.append(cell.function(config, seed=0))
    tree = subsampling.gather(Settings.make(seed=0, quick=True), results)
    check_labels(tree)
    plt.close(report.figure(tree))
    text = report.summary(tree)
    assert "0 of 16 escaped" in text
    before, after = map(float, re.search(r"at rest\): train (\S+) → (\S+) ", text).groups())  # type: ignore[union-attr]
    run = tree["forget"].to_dataset()
    late = run.train_loss.where(run.time > run.exit_time + 5 / float(run.weight_decay))
    assert after == pytest.approx(float(late.mean()), abs=6e-4)
    assert after > before  # the gap closes because the train error rises
