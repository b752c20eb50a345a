"""Cells of an escape study: right beside exact theory, results where there is no answer, and the same after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from kramers_grok.analysis.budget import BUDGET_COLUMNS, error_budget
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import effective_temperature
from kramers_grok.core.vocabulary import VARIABLES
from kramers_grok.studies.escape.cells import DIVERGED, FINISHED, NO_BARRIER, STATUSES, TOO_FEW, simulate, theory
from kramers_grok.studies.escape.method_choice import BRUTE_FORCE, MOST_STEPS, SPLITTING
from kramers_grok.studies.escape.plan import plan_for
from kramers_grok.studies.escape.setup import Setup
from kramers_grok.studies.files.netcdf import read_netcdf, write_netcdf
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.exit_times import exit_time

SYSTEM = {"kind": "mode", "depth": 3, "singular_value": 1.0, "weight_decay": 0.25}
RUN = {
    "method": "brute force", "replicas": 128, "precision": None, "max_replicas": None, "horizon": 10.0,
    "confidence": 0.95,
}  # fmt: skip
TO_PRECISION = RUN | {"replicas": None, "precision": 0.2, "max_replicas": 65536}
LANGEVIN = {"dt": 0.4, "integrator": "fused"}
SGD = {"lr": 0.4, "batch_size": 32, "label_noise": 0.1}
HOST_AND_TIME = ("host", "started", "seconds")
NUMBERS = (
    "mean_exit_time", "lower", "upper", "standard_error", "n_escaped", "n_replicas", "precision", "precision_reached",
    "replica_steps", "predicted_mean", "predicted_relative_error", "asymptotic_time", "ratio", "ratio_error",
    "difference_se", "ks_p_value", "barrier", "barrier_over_temperature", "total_error", *BUDGET_COLUMNS,
)  # fmt: skip


def langevin(ratio: float = 4.0, **changes: Any) -> dict[str, Any]:
    base = {"engine": "langevin", "system": SYSTEM, "langevin": LANGEVIN, "run": RUN, "seed": 0}
    return base | {"noise": {"barrier_over_temperature": ratio}} | changes


def sgd(ratio: float = 4.0, **changes: Any) -> dict[str, Any]:
    base = {"engine": "sgd", "system": SYSTEM, "sgd": SGD, "run": RUN, "seed": 0}
    return base | {"noise": {"barrier_over_temperature": ratio}} | changes


def same(one: xr.Dataset, other: xr.Dataset) -> None:
    """Identical but for where and when."""
    for ds in (one, other):
        assert set(HOST_AND_TIME) <= set(ds.attrs)
    kept = [ds.assign_attrs(dict.fromkeys(HOST_AND_TIME)) for ds in (one, other)]
    xr.testing.assert_identical(*kept)


# ---------------------------------------------------------------- theory


def test_theory_is_the_exact_time_and_its_survival() -> None:
    cell = theory({"engine": "theory", "system": SYSTEM, "noise": {"barrier_over_temperature": 6.0}}, seed=0)
    setup = Setup(langevin(6.0))
    exact = exit_time(Mode(3, 1.0, 0.25), temperature=setup.temperature, target=setup.target)
    assert float(cell.exact_time) == exact.mean
    np.testing.assert_allclose(cell.survival.values, exact.survival(cell.time.values), rtol=1e-12)
    assert float(cell.asymptotic_time) == pytest.approx(exact.mean, rel=0.2)
    assert not bool(cell.valid)  # ΔF/T = 6
    assert "ΔF/T = 6 is below" in cell.attrs["notes"]
    assert cell.attrs["status"] == FINISHED


def test_theory_to_leading_order_only() -> None:
    system = SYSTEM | {"kind": "network", "width": 2}
    cell = theory({"engine": "theory", "system": system, "noise": {"barrier_over_temperature": 30.0}})
    assert math.isnan(float(cell.exact_time))
    assert math.isnan(float(cell.relative_error))
    assert "survival" not in cell
    assert float(cell.asymptotic_time) > 0


def test_theory_without_a_barrier() -> None:
    config = {"engine": "theory", "system": SYSTEM | {"weight_decay": 0.6}, "noise": {"temperature": 0.01}}
    cell = theory(config)
    assert cell.attrs["status"] == NO_BARRIER
    assert math.isnan(float(cell.asymptotic_time))
    assert float(cell.temperature) == 0.01


# ---------------------------------------------------------------- simulation against prediction


@pytest.mark.parametrize("config", [langevin(), sgd()], ids=["langevin", "sgd"])
def test_a_finished_cell_beside_its_prediction(config: dict[str, Any]) -> None:
    """128 replicas know the mean to 9 %; |z| < 4.5 and p > 1e-5 fail by chance once in 1e5 cells."""
    cell = simulate(config, seed=1)
    assert cell.attrs["status"] == FINISHED
    assert cell.attrs["prediction"] == "exact"
    assert cell.attrs["method"] == BRUTE_FORCE
    assert set(NUMBERS) <= set(cell.data_vars)
    assert abs(float(cell.difference_se)) < 4.5
    assert float(cell.ks_p_value) > 1e-5
    assert float(cell.ratio) == float(cell.mean_exit_time) / float(cell.predicted_mean)
    assert float(cell.lower) < float(cell.mean_exit_time) < float(cell.upper)
    assert sum(float(cell[name]) for name in BUDGET_COLUMNS) == pytest.approx(float(cell.total_error), rel=1e-9)
    assert int(cell.n_replicas) == cell.sizes["replica"] == 128
    assert float(cell.replica_steps) == pytest.approx(float(cell.exit_time.sum()) / 0.4, abs=1)


def test_the_wrong_temperature_is_noticed() -> None:
    """The negative control: 20 % off in T is a factor of 2 in the time, the prediction for the one given is far off."""
    cell = simulate(langevin(), seed=1)
    hotter = simulate(langevin(4.0 / 1.2), seed=1)
    z = (float(hotter.mean_exit_time) - float(cell.predicted_mean)) / float(hotter.standard_error)
    assert z < -4.5


def test_the_prediction_is_the_budget_s() -> None:
    cell = simulate(sgd(), seed=1)
    setup = Setup(sgd())
    assert isinstance(setup.system, Mode)
    budget = error_budget(setup.system, cell, target=setup.target, burn_in=float(cell.burn_in))
    for name in (*BUDGET_COLUMNS, "total_error", "mean_exit_time", "asymptotic_time"):
        assert float(cell[name]) == float(budget[name]), name
    assert float(cell.predicted_mean) == float(budget.predicted_time)


def test_a_network_has_a_leading_order_only() -> None:
    run = RUN | {"replicas": 64}
    cell = simulate(sgd(system=SYSTEM | {"kind": "network", "width": 2}, run=run), seed=0)
    assert cell.attrs["prediction"] == "asymptotic"
    assert math.isfinite(float(cell.ratio))
    assert math.isnan(float(cell.difference_se))  # it is not meant to agree to its standard error
    assert math.isnan(float(cell.predicted_relative_error))
    assert math.isfinite(float(cell.unexplained_error))
    assert int(cell.width) == 2


def test_everything_is_labelled_and_survives_a_file(tmp_path: Path) -> None:
    cells = [
        simulate(sgd(), seed=2**63 + 1), simulate(langevin(12.0, run=RUN | {"method": "splitting"}), seed=0),
        simulate(sgd(system=SYSTEM | {"weight_decay": 0.6}), seed=0),
        theory({"engine": "theory", "system": SYSTEM, "noise": {"temperature": 0.002}}),
    ]  # fmt: skip
    for number, cell in enumerate(cells):
        for variable in cell.variables.values():
            assert {"units", "long_name"} <= set(variable.attrs)
        assert {str(name) for name in cell.variables} <= set(VARIABLES)
        write_netcdf(cell, tmp_path / f"{number}.nc")
        xr.testing.assert_identical(read_netcdf(tmp_path / f"{number}.nc"), cell)
        assert json.loads(cell.attrs["cell"])["system"]["depth"] == 3


def test_the_same_cell_twice_is_the_same() -> None:
    same(simulate(sgd(), seed=5), simulate(sgd(), seed=5))
    assert not simulate(sgd(), seed=6).exit_time.equals(simulate(sgd(), seed=5).exit_time)


# ---------------------------------------------------------------- noise


def test_noise_by_its_deviation() -> None:
    setup = Setup(sgd(noise={"std": 0.5}))
    assert setup.temperature == effective_temperature(0.4, 32, 0.25)
    cell = simulate(sgd(noise={"std": 0.5}, run=RUN | {"horizon": 0.2, "replicas": 16}), seed=0)
    assert float(cell.noise_std) == 0.5
    assert float(cell.temperature) == setup.temperature


def test_minibatch_noise_alone_frees_nobody() -> None:
    """It vanishes at the unlearned state: no prediction, a horizon by the relaxation time, and no escape."""
    cell = simulate(sgd(noise={"std": 0.0}, run=RUN | {"replicas": 16, "horizon": 1.0}), seed=0)
    assert cell.attrs["status"] == TOO_FEW
    assert cell.attrs["prediction"] == "none"
    assert "no exit time is predicted" in cell.attrs["notes"]
    assert int(cell.n_escaped) == 0
    assert float(cell.horizon) == pytest.approx(100 / 0.25)
    assert float(cell.upper) == math.inf


# ---------------------------------------------------------------- no answer


def test_no_barrier_is_a_result() -> None:
    cell = simulate(sgd(system=SYSTEM | {"weight_decay": 0.6}), seed=0)
    assert cell.attrs["status"] == NO_BARRIER
    assert "spinodal" in cell.attrs["status_message"]
    assert set(NUMBERS) <= set(cell.data_vars)
    assert math.isnan(float(cell.mean_exit_time))
    assert float(cell.lr) == 0.4


@pytest.mark.parametrize("lr", [3.0, 9.0], ids=["at large weights", "at once"])
def test_divergence_is_a_result(lr: float) -> None:
    cell = simulate(sgd(sgd=SGD | {"lr": lr, "batch_size": 2}), seed=0)
    assert cell.attrs["status"] == DIVERGED
    assert "Use a s" in cell.attrs["status_message"]  # a step that would do
    assert int(cell.n_replicas) == 0


def test_too_few_escapes_is_a_result_with_what_is_known() -> None:
    cell = simulate(langevin(run=RUN | {"horizon": 0.05}), seed=0)
    assert cell.attrs["status"] == TOO_FEW
    assert f"{int(cell.n_escaped)} of 128 replicas escaped" in cell.attrs["status_message"]
    assert 0 < int(cell.n_escaped) < 10
    assert cell.sizes["replica"] == 128
    assert float(cell.lower) < float(cell.predicted_mean) < float(cell.upper)


def test_a_horizon_before_the_well_is_filled_is_said() -> None:
    cell = simulate(langevin(2.0, run=RUN | {"horizon": 0.1, "replicas": 512}), seed=0)
    assert "before they have filled the well" in cell.attrs["notes"]


def test_statuses_are_those_that_the_runner_knows() -> None:
    assert STATUSES == ("finished", "diverged", "no barrier", "too few escapes")


def test_a_wrong_configuration_is_an_error() -> None:
    with pytest.raises(InvalidParameterError, match="batch_size"):
        simulate(sgd(sgd=SGD | {"batch_size": 0}), seed=0)


# ---------------------------------------------------------------- method and horizon


@pytest.mark.parametrize(("ratio", "method"), [(3.0, BRUTE_FORCE), (6.0, BRUTE_FORCE), (10.0, SPLITTING)])
def test_the_cheaper_method_is_chosen_and_says_why(ratio: float, method: str) -> None:
    plan = plan_for(Setup(langevin(ratio)), RUN | {"method": "auto"})
    assert plan.method == method
    assert f"ΔF/T = {ratio:g}" in plan.reason
    assert math.isnan(plan.horizon) == (method == SPLITTING)


def test_splitting_is_compared_with_what_it_watches() -> None:
    """At its steps only: the prediction must not be that of a bridge."""
    auto, asked = (plan_for(Setup(langevin(10.0)), RUN | {"method": m}) for m in ("auto", "splitting"))
    assert auto.rungs == asked.rungs
    assert auto.rungs.watched != auto.rungs.stepped


def test_the_horizon_is_a_multiple_of_the_prediction_and_bounded() -> None:
    plan = plan_for(Setup(langevin()), RUN)
    assert plan.horizon == 10.0 * plan.rungs.best
    endless = plan_for(Setup(langevin(30.0)), RUN)
    assert endless.horizon == MOST_STEPS * 0.4
    assert "use splitting" in endless.notes[0]


def test_splitting_beside_its_prediction() -> None:
    """To about 9 %, from 16 repeats: beyond 6.6 standard errors Student's t lies once in 1e5 runs."""
    cell = simulate(langevin(12.0, run=RUN | {"method": "auto", "replicas": 512}), seed=1)
    assert cell.attrs["method"] == SPLITTING
    assert "fewer steps" in cell.attrs["method_reason"]
    assert abs(float(cell.difference_se)) < 6.6
    assert "exit_time" not in cell
    assert cell.sizes["repeat"] == 16
    assert math.isnan(float(cell.ks_p_value))


# ---------------------------------------------------------------- precision


def test_to_a_precision_by_brute_force() -> None:
    cell = simulate(langevin(run=TO_PRECISION), seed=1)
    assert bool(cell.precision_reached)
    assert float(cell.precision) <= float(cell.precision_goal) == 0.2
    assert int(cell.pilot_replicas) == 50
    assert 0 < float(cell.pilot_steps) < float(cell.replica_steps)
    # What is reported is the second stage alone, as a run of that fixed size has it: nothing of it decided its size.
    fixed = simulate(langevin(run=RUN | {"replicas": cell.sizes["replica"]}), seed=1)
    np.testing.assert_array_equal(cell.exit_time, fixed.exit_time)
    for name in ("mean_exit_time", "lower", "upper"):
        assert float(cell[name]) == float(fixed[name])


def test_the_pilot_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from kramers_grok.studies.escape import runs as escape_runs

    runs = []
    original = escape_runs.first_passage

    def watched(*args: Any, **options: Any) -> xr.Dataset:
        runs.append(original(*args, **options))
        return runs[-1]

    monkeypatch.setattr(escape_runs, "first_passage", watched)
    simulate(langevin(run=TO_PRECISION), seed=1)
    pilot, run = (ds.exit_time.values for ds in runs)
    assert not np.intersect1d(pilot, run[: len(pilot)]).size > 2  # times of the same path would all be the same


def test_the_cap_is_kept_and_said() -> None:
    cell = simulate(langevin(run=TO_PRECISION | {"precision": 0.1, "max_replicas": 200}), seed=1)
    assert int(cell.n_replicas) == 200
    assert not bool(cell.precision_reached)
    assert "max_replicas = 200" in cell.attrs["notes"]
    assert int(cell.pilot_replicas) == 0


def test_the_cap_counts_the_pilot() -> None:
    cell = simulate(langevin(run=TO_PRECISION | {"max_replicas": 160}), seed=1)
    assert int(cell.n_replicas) + int(cell.pilot_replicas) <= 160
    assert int(cell.pilot_replicas) == 50


def test_a_pilot_that_sees_nothing_leaves_it_to_the_cap() -> None:
    run = TO_PRECISION | {"horizon": 0.02, "max_replicas": 1000}
    cell = simulate(langevin(run=run), seed=1)
    assert int(cell.n_replicas) == 950
    assert "of 50 pilot replicas escaped" in cell.attrs["notes"]


def test_to_a_precision_by_splitting() -> None:
    cell = simulate(langevin(10.0, run=TO_PRECISION | {"method": "splitting", "precision": 0.3}), seed=2)
    assert bool(cell.precision_reached)
    assert abs(float(cell.difference_se)) < 5.3  # 1e-5 on both sides of Student's t with 31 degrees of freedom
    assert cell.sizes["repeat"] >= 32
    assert int(cell.pilot_replicas) == 32 * 256
    assert 0 < float(cell.pilot_steps) < float(cell.replica_steps)


# ---------------------------------------------------------------- killed and resumed


class Killed(Exception):
    """The process is gone."""


class Memory:
    """Keeps copies, is always due, and is killed right after every save."""

    def __init__(self, *, deadly: bool) -> None:
        self.held: dict[str, xr.Dataset] = {}
        self.deadly = deadly
        self.saves = 0

    def load(self, name: str) -> xr.Dataset | None:
        found = self.held.get(name)
        return None if found is None else found.copy(deep=True)

    def due(self) -> bool:
        return True

    def save(self, name: str, data: xr.Dataset) -> None:
        self.held[name] = data.copy(deep=True)
        self.saves += 1
        if self.deadly:
            raise Killed


@pytest.mark.parametrize(
    "config",
    [
        sgd(),
        langevin(run=TO_PRECISION),
        langevin(10.0, run=RUN | {"method": "splitting"}),
        langevin(10.0, run=TO_PRECISION | {"method": "splitting", "precision": 0.5}),
    ],
    ids=["brute force", "brute force to a precision", "splitting", "splitting to a precision"],
)
@pytest.mark.filterwarnings("ignore:The mean exit time is known to")
def test_a_cell_that_is_killed_at_every_save_is_the_same(config: dict[str, Any]) -> None:
    undisturbed, deadly = simulate(config, seed=3), Memory(deadly=True)
    deaths = 0
    while True:
        try:
            resumed = simulate(config, seed=3, checkpoint=deadly)
            break
        except Killed:
            deaths += 1
    assert deaths == deadly.saves >= 8
    same(resumed, undisturbed)
    same(simulate(config, seed=3, checkpoint=Memory(deadly=False)), undisturbed)
