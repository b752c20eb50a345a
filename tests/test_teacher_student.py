"""A nonlinear student of a nonlinear teacher leaves its trap when theory says so: `evidence/teacher_student.py`, small.

The two sides share the energy, its gradient and the target's border: the prediction has no simulation in it, and the
simulation no saddle, spectrum or rate. SGD draws true minibatches.

False alarms: 4.5 errors of ln τ, 7e-6 for each of the three runs. Power: statistics (6 %) and stated error together
make the limits 0.3 to 0.4; the harmonic formula is off by 0.9 to 1.9, a temperature wrong by 20 % by 1.0 and more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import xarray as xr

import kramers_grok as kg

NAME, Z = "tanh-2", 4.5
RUNS = {"langevin": ("waited", 7.0, 256), "sgd": ("waited", 7.0, 256), "far": ("split", 12.0, 128)}


@pytest.fixture(scope="module")
def script(evidence_script: Callable[[str], ModuleType]) -> ModuleType:
    return evidence_script("teacher_student")


def test_the_cases_of_the_evidence_cover_what_they_should(script: ModuleType) -> None:
    cases = script.CASES.values()
    assert len(cases) >= 6
    assert {case.depth for case in cases} == {3, 4}
    assert {type(case.activation) for case in cases} == {kg.Tanh, kg.GELU, kg.Quadratic}
    widths = {width for case in cases for width in case.hidden}
    assert (min(widths), max(widths)) == (2, 16)
    for case in cases:
        assert len(case.ratios) >= 5
        assert set(case.waited) & set(case.split)  # one barrier at which splitting meets waiting


def test_the_saddle_is_certified_and_the_harmonic_formula_flags_its_soft_modes(script: ModuleType) -> None:
    barrier = script.barrier_of(NAME)
    assert barrier.saddle_point.index == 1
    assert barrier.saddle_point.gradient_norm < 1e-10
    assert barrier.saddle_zero_modes == 0
    assert 0 < barrier.saddle_spectrum[1] < 0.003  # a broken rotation
    assert round(math.exp(barrier.log_volume_ratio)) == 16  # signs of both layers, and which way the two units lean
    rate = kg.eyring_kramers_rate(barrier, barrier.height / 20, warn=False)
    assert not rate.valid
    assert any("pseudo-orbit" in flag for flag in rate.flags)


@pytest.mark.parametrize("engine", RUNS)
def test_measured_over_predicted_is_one_within_the_stated_error(engine: str, script: ModuleType) -> None:
    method, ratio, n_replicas = RUNS[engine]
    batch = script.batch_of(NAME, ratio) if engine == "sgd" else script.SAMPLES
    config = {
        "case": NAME, "engine": "langevin" if engine == "far" else engine, "method": method, "ratio": ratio,
        "step": 0.2, "batch_size": batch, "n_replicas": n_replicas,
    }  # fmt: skip
    run = script.run(config, seed=7)
    rate, _ = script.capacity_of((NAME, ratio))
    ladder = script.ladder_of(NAME, ratio, batch, rate)
    assert rate.valid
    error = math.hypot(float(run.standard_error / run.mean_exit_time), rate.relative_error)
    assert Z * error < 0.45
    measured = math.log(float(run.mean_exit_time))
    assert abs(measured - math.log(ladder.made)) < Z * error
    # Negative controls: the harmonic formula, and a temperature that is 20 % too high
    assert abs(measured - math.log(ladder.asymptotic)) > Z * error
    warmer, _ = script.capacity_of((NAME, ratio / 1.2))
    assert abs(measured - math.log(warmer.mean_time)) > Z * error


def test_the_verdict_combines_statistics_and_stated_error(script: ModuleType) -> None:
    numbers = {
        "mean_exit_time": 130.0, "standard_error": 13.0, "capacity_error": 0.05,
        "continuous": 100.0, "watched": 100.0 * math.exp(0.2), "made": 100.0,
    }  # fmt: skip
    row = script.judge(xr.Dataset({k: ("run", [v]) for k, v in numbers.items()})).isel(run=0)
    assert float(row.ratio) == 1.3
    assert float(row.statistical_error) == 0.1
    # Half of each first order squared, 0.2²/2 for the step and as much for the minibatches
    assert float(row.stated_error) == pytest.approx(math.hypot(0.05, 0.04))
    assert float(row.deviation) == pytest.approx(math.log(1.3) / math.hypot(0.1, 0.05, 0.04))
